//! Who has a slot at a charge point, when several processes fly the fleet.
//!
//! Promises: however the processes' ticks fall, whichever are late, killed or started again and whatever becomes of their writes, the records
//! never show more drones that charge at a point (`charge_queue` 0, not full) than it has slots; who needs the charge comes first, in
//! the order of arrival, as with one process ([`domain::chargers`]). A slot is taken a tick or two later than there. (What one process alone gave
//! before counts from the first tick of the process that flies those drones now.)
//!
//! A process sees its own drones only, and what it knew of others would be old: two that saw a free slot at the same time would both take it,
//! whatever the order of arrival says. So the slots are a register: a list per charge point ([`Board`], key `charger:LAT,LON`) of who
//! stands there and who has a slot, changed by compare-and-swap, never with more slots given than there are. Each process puts its own
//! drones there. The order of writes does the rest:
//!
//! - A drone's first record at the point says when it came, and that it waits. Only then is it put on the list.
//! - A slot is taken on the list before the record says so, and free on the list only after the record says otherwise.
//! - A slot belongs to a drone and the time at which it came. One whose drone left is free for anybody to take off the list: its record
//!   has another time then, or none, and never that one again ([`Place::is_of`]). So the slots of drones whose process is gone come free as they are lost.
//! - What became of a swap may be unknown, and it may still take effect. A later swap settles that, for it replaces the version that the
//!   first was for; so a process relies only on slots that it has swapped in itself and not tried to give back since.
//! - Likewise for records: a slot that a record was to show by a write of unknown outcome is kept until the record has changed.

use std::collections::{BTreeMap, BTreeSet};

use domain::chargers::{self, Place, Turn};
use domain::drone::Drone;
use domain::energy::FULL_PCT;
use domain::keys;
use domain::zones::ZonesConfig;
use kv_api::MAX_BATCH_OPS;
use kv_client::{Kv, KvError, Version, Versioned, op};
use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::shard::Part;

#[cfg(test)]
mod tests;

/// Most charge points: those of the largest grid, and some that are no more.
const BOARDS_MAX: usize = 10_000;

/// While drones wait, those of others on the list are looked up after this many seconds: they may be gone.
const LOOK_UP_SEC: f64 = 1.0;

/// Who stands at a charge point and needs its charge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// How often it was changed: no two contents are equal, so that each has a version of its own.
    #[serde(default)]
    pub changes: u64,
    /// By turn.
    #[serde(default)]
    pub standing: Vec<Standing>,
}

/// A drone on a [`Board`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Which drone.
    pub drone: String,
    /// When it came, Unix seconds, as its record says.
    pub since: f64,
    /// Whether it leaves its slot to those who need the charge.
    #[serde(default)]
    pub can_wait: bool,
    /// Whether it has a slot.
    #[serde(default)]
    pub slot: bool,
}

impl Standing {
    /// Whether it is `drone`, as it came at `since`.
    fn is(&self, drone: &str, since: f64) -> bool {
        self.drone == drone && self.since.total_cmp(&since).is_eq()
    }

    fn turn(&self) -> Turn<'_> {
        Turn {
            can_wait: self.can_wait,
            since: self.since,
            drone: &self.drone,
        }
    }
}

/// Boards by key; of one that is not there yet, no version.
pub type Boards = BTreeMap<String, (Option<Version>, Board)>;

/// A compare-and-swap of a board.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its key.
    pub key: String,
    /// The version it replaces.
    pub from: Option<Version>,
    /// What it becomes.
    pub to: Board,
}

/// A drone of ours that stands at a charge point.
#[derive(Debug, Clone)]
struct Guest {
    /// The key of the point's board.
    board: String,
    /// When it came; `None` as long as its record does not say so.
    since: Option<f64>,
    can_wait: bool,
    /// Full ones need no slot.
    is_full: bool,
    /// Whether its record says that it has a slot.
    is_shown: bool,
    version: Version,
}

/// The drones of one process at charge points, and the slots it relies on.
#[derive(Debug)]
pub struct Slots {
    part: Part,
    slots: usize,
    guests: BTreeMap<String, Guest>,
    /// Slots swapped in by this process and not tried to give back since: drone, and when it came.
    held: BTreeMap<String, f64>,
    /// Records that were to show a slot by a write of unknown outcome: drone, and the version that it was to replace.
    doubts: BTreeMap<String, Version>,
    /// Whether a drone of ours may be on a list.
    is_listed: bool,
    /// Whether a list was seen by this process.
    has_looked: bool,
    looked_up_sec: f64,
}

impl Slots {
    /// The slots of `part`, with `slots` at each charge point, at least 1.
    #[must_use]
    pub fn new(part: Part, slots: u32) -> Self {
        Self {
            part,
            slots: slots.max(1) as usize,
            guests: BTreeMap::new(),
            held: BTreeMap::new(),
            doubts: BTreeMap::new(),
            is_listed: true,
            has_looked: false,
            looked_up_sec: f64::NEG_INFINITY,
        }
    }

    /// The place of every drone of `fleet` (this part's, as just read) that stands where it was sent to charge, by id; slots are taken and
    /// given back as they come.
    ///
    /// # Errors
    /// When the KV does not answer. Nothing is lost: the next call goes on from what the KV then holds.
    pub async fn settle<'a>(
        &mut self,
        kv: &Kv,
        fleet: impl Iterator<Item = &'a Versioned<Drone>>,
        zones: &ZonesConfig,
        now: Now,
    ) -> Result<BTreeMap<String, Place>, KvError> {
        self.see(fleet, zones, now.unix_sec);
        let mut boards = Boards::new();
        if self.is_concerned() {
            boards = read_boards(kv).await?;
            let gone = self.gone(kv, &boards, now.steady_sec).await?;
            let changes = self.changes(&boards, &gone);
            self.swap(kv, changes, &mut boards).await?;
        }
        Ok(self.places(&boards, now.unix_sec))
    }

    /// Takes note of where this part's drones stand, as just read.
    pub fn see<'a>(&mut self, fleet: impl Iterator<Item = &'a Versioned<Drone>>, zones: &ZonesConfig, unix_sec: f64) {
        self.guests.clear();
        let mut doubts = std::mem::take(&mut self.doubts);
        for Versioned {
            value: drone, version, ..
        } in fleet
        {
            if let Some(doubted) = doubts.remove(&drone.id).filter(|doubted| doubted == version) {
                self.doubts.insert(drone.id.clone(), doubted);
            }
            if drone.is_frozen(unix_sec) || !chargers::stands_at_charger(drone, zones) {
                continue;
            }
            let guest = Guest {
                board: keys::charger(chargers::point_of(drone, zones)),
                since: drone.charge_since,
                can_wait: chargers::can_wait(drone),
                is_full: drone.battery >= FULL_PCT,
                is_shown: drone.charge_queue == Some(0),
                version: version.clone(),
            };
            self.guests.insert(drone.id.clone(), guest);
        }
    }

    /// Takes note that it is not known what became of a record's write, from the version `from`, that shows a slot.
    pub fn doubt(&mut self, id: &str, from: &Version) {
        self.doubts.insert(id.to_owned(), from.clone());
    }

    /// Whether the lists have to be read: some drone of ours needs one, or is still on one.
    fn is_concerned(&self) -> bool {
        self.is_listed || self.guests.values().any(|guest| !guest.is_full)
    }

    /// Drones of others that stand at charge points where ours wait: their records tell whether they still do.
    #[must_use]
    pub fn strangers(&self, boards: &Boards) -> BTreeSet<String> {
        let waits = |guest: &&Guest| !guest.is_full && !guest.is_shown;
        let wanted: BTreeSet<&String> = self.guests.values().filter(waits).map(|guest| &guest.board).collect();
        let wanted = boards.iter().filter(|(key, _)| wanted.contains(key));
        wanted
            .flat_map(|(_, (_, board))| &board.standing)
            .filter(|standing| !self.part.holds(&standing.drone))
            .map(|standing| standing.drone.clone())
            .collect()
    }

    /// The swaps that bring the lists up to date with this part's drones, slots included. `gone` are those of others that have left since they
    /// were put there: drone, and when it came.
    pub fn changes(&mut self, boards: &Boards, gone: &[(String, f64)]) -> Vec<Change> {
        self.note_unshown(boards);
        let ours = self
            .guests
            .values()
            .filter(|guest| guest.since.is_some() && !guest.is_full);
        let keys: BTreeSet<String> = boards
            .keys()
            .cloned()
            .chain(ours.map(|guest| guest.board.clone()))
            .collect();
        let none = (None, Board::default());
        let mut changes = Vec::new();
        for key in keys {
            let (version, board) = boards.get(&key).unwrap_or(&none);
            let standing = self.brought_up_to_date(&key, board, gone);
            let is_unsure = |standing: &Standing| {
                standing.slot && self.part.holds(&standing.drone) && !self.is_held(&standing.drone, standing.since)
            };
            if standing == board.standing && !standing.iter().any(is_unsure) {
                continue;
            }
            // From here on it may happen, whatever we hear of it.
            for before in &board.standing {
                if !standing
                    .iter()
                    .any(|after| after.slot && after.is(&before.drone, before.since))
                {
                    self.held.remove(&before.drone);
                }
            }
            changes.push(Change {
                key,
                from: version.clone(),
                to: Board {
                    changes: board.changes.wrapping_add(1),
                    standing,
                },
            });
        }
        changes
    }

    /// At this process' first look, nobody knows what became of the last writes of the one before it.
    fn note_unshown(&mut self, boards: &Boards) {
        if std::mem::replace(&mut self.has_looked, true) {
            return;
        }
        let given = boards
            .values()
            .flat_map(|(_, board)| &board.standing)
            .filter(|standing| standing.slot);
        for standing in given {
            if let Some(guest) = self.guests.get(&standing.drone).filter(|guest| !guest.is_shown) {
                self.doubts.insert(standing.drone.clone(), guest.version.clone());
            }
        }
    }

    /// Who stands at the charge point of `key`, by turn, and who of ours has a slot.
    fn brought_up_to_date(&self, key: &str, board: &Board, gone: &[(String, f64)]) -> Vec<Standing> {
        let mut standing = board.standing.clone();
        standing.retain(|standing| {
            if self.part.holds(&standing.drone) {
                self.guest(key, &standing.drone)
                    .is_some_and(|guest| guest.since == Some(standing.since))
            } else {
                !gone.iter().any(|(drone, since)| standing.is(drone, *since))
            }
        });
        for (drone, guest) in self
            .guests
            .iter()
            .filter(|(_, guest)| guest.board == key && !guest.is_full)
        {
            let Some(since) = guest.since else { continue };
            match standing.iter_mut().find(|standing| standing.drone == *drone) {
                Some(standing) => standing.can_wait = guest.can_wait,
                None => standing.push(Standing {
                    drone: drone.clone(),
                    since,
                    can_wait: guest.can_wait,
                    slot: false,
                }),
            }
        }
        standing.sort_by(|a, b| a.turn().compare(&b.turn()));
        let ours = |standing: &Standing| self.guest(key, &standing.drone);
        for standing in standing.iter_mut().skip(self.slots) {
            // Its turn is over: given back as soon as its record does not show it any more.
            let is_free = |guest: &Guest| !guest.is_shown && !self.doubts.contains_key(&standing.drone);
            standing.slot &= !ours(standing).is_some_and(is_free);
        }
        let mut given = standing.iter().filter(|standing| standing.slot).count();
        for standing in standing.iter_mut().take(self.slots) {
            if given < self.slots && !standing.slot && ours(standing).is_some() {
                standing.slot = true;
                given += 1;
            }
        }
        standing
    }

    /// Our drone `id`, if it stands at the charge point of `key` and needs its charge.
    fn guest(&self, key: &str, id: &str) -> Option<&Guest> {
        self.guests.get(id).filter(|guest| guest.board == key && !guest.is_full)
    }

    /// Takes note that a swap has taken effect.
    pub fn swapped(&mut self, change: &Change) {
        for standing in change.to.standing.iter().filter(|standing| standing.slot) {
            if self.part.holds(&standing.drone) {
                self.held.insert(standing.drone.clone(), standing.since);
            }
        }
    }

    fn is_held(&self, drone: &str, since: f64) -> bool {
        self.held.get(drone) == Some(&since)
    }

    /// The place of each of our drones that stand at a charge point, by id, after the swaps.
    pub fn places(&mut self, boards: &Boards, unix_sec: f64) -> BTreeMap<String, Place> {
        let all = boards.values().flat_map(|(_, board)| &board.standing);
        self.is_listed = all.clone().any(|standing| self.part.holds(&standing.drone));
        self.held.retain(|drone, since| {
            let guest = self.guests.get(drone);
            guest.is_some_and(|guest| guest.since == Some(*since) && !guest.is_full)
        });
        let place = |(drone, guest): (&String, &Guest)| {
            let since = guest.since.unwrap_or(unix_sec);
            let queue = if guest.is_full {
                0
            } else {
                self.queue(drone, guest, since, boards)
            };
            (drone.clone(), Place { since, queue })
        };
        self.guests.iter().map(place).collect()
    }

    fn queue(&self, drone: &str, guest: &Guest, since: f64, boards: &Boards) -> u32 {
        let standing = boards.get(&guest.board).map_or(&[][..], |(_, board)| &board.standing);
        let turn = Turn {
            can_wait: guest.can_wait,
            since,
            drone,
        };
        let before = standing
            .iter()
            .filter(|standing| standing.turn().compare(&turn).is_lt())
            .count();
        let has_slot = standing
            .iter()
            .any(|standing| standing.slot && standing.is(drone, since));
        if before < self.slots && has_slot && self.is_held(drone, since) {
            return 0;
        }
        u32::try_from((before + 1).saturating_sub(self.slots).max(1)).unwrap_or(u32::MAX)
    }

    /// Of the drones of others on the lists where ours wait, those that have left, and when they came.
    async fn gone(&mut self, kv: &Kv, boards: &Boards, steady_sec: f64) -> Result<Vec<(String, f64)>, KvError> {
        if steady_sec - self.looked_up_sec < LOOK_UP_SEC {
            return Ok(Vec::new());
        }
        let strangers: Vec<String> = self.strangers(boards).into_iter().collect();
        let mut since = BTreeMap::new();
        for ids in strangers.chunks(MAX_BATCH_OPS) {
            let ops = ids.iter().map(|id| op::get(keys::drone(id))).collect();
            for (id, result) in ids.iter().zip(kv.batch(ops, false).await?) {
                match result.into_got::<Drone>() {
                    Ok(found) => since.insert(id.clone(), found.and_then(|found| found.value.charge_since)),
                    // What is no drone stands nowhere.
                    Err(KvError::Decode { .. }) => since.insert(id.clone(), None),
                    Err(_) => continue,
                };
            }
        }
        self.looked_up_sec = steady_sec;
        Ok(gone(boards, &since))
    }

    /// Makes the swaps, and brings `boards` up to date with those that took effect.
    async fn swap(&mut self, kv: &Kv, changes: Vec<Change>, boards: &mut Boards) -> Result<(), KvError> {
        for changes in changes.chunks(MAX_BATCH_OPS) {
            let ops = changes
                .iter()
                .map(|change| op::cas(change.key.clone(), change.from.as_ref(), &change.to))
                .collect::<Result<_, _>>()?;
            for (change, result) in changes.iter().zip(kv.batch(ops, false).await?) {
                match result.into_swap() {
                    Ok(kv_client::Swap::Done(version)) => {
                        self.swapped(change);
                        boards.insert(change.key.clone(), (Some(version), change.to.clone()));
                    }
                    // Somebody else was faster, or it is not known: the next tick looks again.
                    Ok(_) => {}
                    Err(error) => tracing::debug!(key = change.key, %error, "not swapped"),
                }
            }
        }
        Ok(())
    }
}

/// Of the drones on the lists whose records were read since (`since`: what they say), those that left.
#[must_use]
pub fn gone(boards: &Boards, since: &BTreeMap<String, Option<f64>>) -> Vec<(String, f64)> {
    let all = boards.values().flat_map(|(_, board)| &board.standing);
    let left = all.filter(|standing| {
        since
            .get(&standing.drone)
            .is_some_and(|since| *since != Some(standing.since))
    });
    left.map(|standing| (standing.drone.clone(), standing.since)).collect()
}

async fn read_boards(kv: &Kv) -> Result<Boards, KvError> {
    let page = kv.scan_all::<Board>(keys::CHARGER_PREFIX, BOARDS_MAX).await?;
    let board = |item| match item {
        Ok(Versioned { key, version, value }) => (key, (Some(version), value)),
        // What is no list is replaced by one.
        Err(kv_client::BadItem { key, version, .. }) => (key, (version, Board::default())),
    };
    Ok(page.items.into_iter().map(board).collect())
}
