//! Processes that share slots, step by step in any order: each of their reads and writes is a step of its own, between which anything may happen.

use std::collections::{BTreeMap, BTreeSet};

use domain::geo::Point;
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::motion::{self, Flight, Model};
use crate::shard::Shard;

/// Runs.
const CASES: u32 = 500;
/// Steps of a run in which anything may happen.
const STEPS: u32 = 600;
/// Seconds a step takes at least.
const STEP_SEC: f64 = 0.001;
/// Steps after which every record is written anew.
const SIGN_OF_LIFE_STEPS: u32 = 350;
/// Steps then, until the slots must be given as one process would give them.
const QUIET_STEPS: u32 = 700;

fn zones() -> ZonesConfig {
    ZonesConfig::rome(1, 2).unwrap()
}

/// The KV: what it holds, and writes that were sent and may still arrive.
#[derive(Default)]
struct Store {
    versions: u64,
    drones: BTreeMap<String, Versioned<Drone>>,
    boards: Boards,
    late: Vec<Write>,
}

#[derive(Clone)]
enum Write {
    Drone { from: Version, to: Drone },
    Board(Change),
}

/// What became of a write, as its sender sees it.
#[derive(PartialEq)]
enum Heard {
    Done,
    Refused,
    Nothing,
}

impl Store {
    fn version(&mut self) -> Version {
        self.versions += 1;
        Version(self.versions.to_string())
    }

    fn set(&mut self, drone: Drone) {
        let (version, key) = (self.version(), keys::drone(&drone.id));
        let id = drone.id.clone();
        self.drones.insert(
            id,
            Versioned {
                value: drone,
                version,
                key,
            },
        );
    }

    /// Carries a write out, if it still finds what it was for.
    fn carry_out(&mut self, write: &Write) -> Heard {
        match write {
            Write::Drone { from, to } => {
                if self.drones.get(&to.id).is_none_or(|found| found.version != *from) {
                    return Heard::Refused;
                }
                self.set(to.clone());
            }
            Write::Board(change) => {
                if self.boards.get(&change.key).and_then(|(version, _)| version.clone()) != change.from {
                    return Heard::Refused;
                }
                let version = self.version();
                self.boards
                    .insert(change.key.clone(), (Some(version), change.to.clone()));
            }
        }
        Heard::Done
    }
}

/// Where a process is in its tick.
enum Phase {
    Read,
    ReadBoards,
    LookUp(Boards),
    Decide(Boards, Vec<(String, f64)>),
    Swap(Boards, Vec<Change>),
    /// What is left to be written, with the places and their time.
    Write(BTreeMap<String, Place>, f64, Vec<Versioned<Drone>>),
}

struct Process {
    part: Part,
    slots: Slots,
    fleet: Vec<Versioned<Drone>>,
    phase: Phase,
}

impl Process {
    fn new(part: Part, slots: u32) -> Self {
        Self {
            slots: Slots::new(part.clone(), slots),
            part,
            fleet: Vec::new(),
            phase: Phase::Read,
        }
    }
}

struct World {
    zones: ZonesConfig,
    flight: Flight,
    store: Store,
    processes: Vec<Process>,
    now: f64,
    random: StdRng,
    /// Frozen since their record was last written by who flies them: such a record may show a slot, and nobody charges.
    dormant: BTreeSet<String>,
    /// Share of the writes that go wrong.
    faults: f64,
    most: usize,
    charged: u32,
}

impl World {
    fn new(processes: u32, drones: u32, slots: u32, seed: u64) -> Self {
        let flight = Flight {
            model: Model::Fraction,
            tick_sec: 0.5,
            battery_per_km: 1.0,
            charge_per_tick_pct: 8.0,
            charger_slots: slots,
        };
        let part = |index| Part::of(format!("{index}/{processes}").parse::<Shard>().unwrap(), drones);
        let mut store = Store::default();
        for number in 1..=drones {
            store.set(Drone::new(number, &zones()));
        }
        Self {
            zones: zones(),
            flight,
            store,
            processes: (1..=processes).map(|index| Process::new(part(index), slots)).collect(),
            now: 1_000.0,
            random: StdRng::seed_from_u64(seed),
            dormant: BTreeSet::new(),
            faults: 0.0,
            most: 0,
            charged: 0,
        }
    }

    /// The drones that charge, by the point at which they stand.
    fn charging(&self) -> BTreeMap<String, Vec<&Drone>> {
        let mut points: BTreeMap<String, Vec<&Drone>> = BTreeMap::new();
        for drone in self.store.drones.values().map(|found| &found.value) {
            let stands = chargers::stands_at_charger(drone, &self.zones) && !drone.is_frozen(self.now);
            if stands && drone.charge_queue == Some(0) && drone.battery < FULL_PCT && !self.dormant.contains(&drone.id)
            {
                let point = keys::charger(chargers::point_of(drone, &self.zones));
                points.entry(point).or_default().push(drone);
            }
        }
        points
    }

    /// Sends a write, of which the sender hears something or nothing.
    fn send(&mut self, write: Write) -> Heard {
        if !self.random.random_bool(self.faults) {
            return self.store.carry_out(&write);
        }
        match self.random.random_range(0..3) {
            0 => {}
            1 => {
                self.store.carry_out(&write);
            }
            _ => self.store.late.push(write),
        }
        Heard::Nothing
    }

    /// The next step of a process.
    fn step(&mut self, index: usize) {
        // No two ticks are at the same time.
        self.now += STEP_SEC;
        let mut process = std::mem::replace(&mut self.processes[index], Process::new(Part::whole(1), 1));
        process.phase = self.stepped(&mut process);
        self.processes[index] = process;
    }

    fn stepped(&mut self, process: &mut Process) -> Phase {
        match std::mem::replace(&mut process.phase, Phase::Read) {
            Phase::Read => {
                let all = self.store.drones.values();
                process.fleet = all
                    .filter(|found| process.part.holds(&found.value.id))
                    .cloned()
                    .collect();
                process.slots.see(process.fleet.iter(), &self.zones, self.now);
                Phase::ReadBoards
            }
            Phase::ReadBoards if !process.slots.is_concerned() => {
                let places = process.slots.places(&Boards::new(), self.now);
                Phase::Write(places, self.now, std::mem::take(&mut process.fleet))
            }
            Phase::ReadBoards => Phase::LookUp(self.store.boards.clone()),
            Phase::LookUp(boards) => {
                let mut since = BTreeMap::new();
                for id in process.slots.strangers(&boards) {
                    since.insert(
                        id.clone(),
                        self.store.drones.get(&id).and_then(|found| found.value.charge_since),
                    );
                }
                let gone = gone(&boards, &since);
                Phase::Decide(boards, gone)
            }
            Phase::Decide(boards, gone) => {
                let changes = process.slots.changes(&boards, &gone);
                Phase::Swap(boards, changes)
            }
            Phase::Swap(mut boards, mut changes) => {
                if let Some(change) = changes.pop() {
                    if self.send(Write::Board(change.clone())) == Heard::Done {
                        process.slots.swapped(&change);
                        boards.insert(change.key.clone(), (None, change.to));
                    }
                    return Phase::Swap(boards, changes);
                }
                let places = process.slots.places(&boards, self.now);
                Phase::Write(places, self.now, std::mem::take(&mut process.fleet))
            }
            Phase::Write(places, tick, mut fleet) => {
                let Some(found) = fleet.pop() else { return Phase::Read };
                if let Some(to) = self.next(&found.value, &places, tick) {
                    let write = Write::Drone {
                        from: found.version.clone(),
                        to: to.clone(),
                    };
                    match self.send(write) {
                        Heard::Done => {
                            self.charged += u32::from(to.battery > found.value.battery);
                            self.dormant.remove(&to.id);
                        }
                        Heard::Refused => fleet.extend(self.store.drones.get(&to.id).cloned()),
                        Heard::Nothing if to.charge_queue == Some(0) => process.slots.doubt(&to.id, &found.version),
                        Heard::Nothing => {}
                    }
                }
                Phase::Write(places, tick, fleet)
            }
        }
    }

    /// The record of a drone after a tick, as the simulator works it out.
    fn next(&self, drone: &Drone, places: &BTreeMap<String, Place>, tick: f64) -> Option<Drone> {
        if drone.is_frozen(tick) {
            return None;
        }
        let place = places.get(&drone.id).filter(|place| place.is_of(drone, tick));
        let placed = drone.placed(
            place
                .copied()
                .filter(|_| chargers::stands_at_charger(drone, &self.zones)),
        );
        let target = motion::target(drone, None, &self.zones);
        let next = self
            .flight
            .step(&placed, target, &self.zones, 1.0, tick)
            .unwrap_or(placed);
        (next != *drone).then_some(next)
    }

    /// Something that a dispatcher, an operator or the world does.
    fn happens(&mut self) {
        match self.random.random_range(0..20) {
            0 => {
                let index = self.random.random_range(0..self.processes.len());
                let slots = self.flight.charger_slots;
                // Killed, and started again.
                self.processes[index] = Process::new(self.processes[index].part.clone(), slots);
            }
            1..=5 if !self.store.late.is_empty() => {
                let index = self.random.random_range(0..self.store.late.len());
                let write = self.store.late.swap_remove(index);
                self.store.carry_out(&write);
            }
            6..=9 => self.now += self.random.random_range(0.0..0.6),
            _ => self.meddle(),
        }
    }

    /// Somebody changes a drone's record.
    fn meddle(&mut self) {
        let index = self.random.random_range(0..self.store.drones.len());
        let drone = self.store.drones.values().nth(index).unwrap().value.clone();
        let point = self.zones.zones[usize::from(self.random.random_bool(0.2))].charge;
        let battery = self.random.random_range(10.0..90.0);
        let at = |pos: Point| drone.moved(pos, battery, true);
        let changed = match (drone.status.name(), self.random.random_range(0..6)) {
            ("idle", 0 | 1) => at(point).charge(None).ok(),
            ("idle", 2) => at(point).top_up().ok(),
            ("idle", 3) => at(point).retire().ok(),
            ("charging" | "retiring", 0) => drone.lose(&drone.sign()).ok(),
            ("charging", 1) => drone.charged(60.0).ok(),
            ("charging", 2) => drone.take("d").ok(),
            ("charging", 3) => {
                self.dormant.insert(drone.id.clone());
                Some(Drone {
                    freeze_until: Some(self.now + 0.8),
                    ..drone.clone()
                })
            }
            ("charging", 4) => drone.retire().ok(),
            ("busy", _) => drone.release("d").ok(),
            ("lost", _) => drone.found().ok(),
            ("retiring", 1) => drone.wake().ok(),
            _ => None,
        };
        if let Some(changed) = changed {
            self.store.set(changed);
        }
    }

    fn be_quiet(&mut self, the_first_stays_away: bool) {
        self.faults = 0.0;
        self.flight.charge_per_tick_pct = 0.0;
        self.now += 10.0;
        self.store.late.clear();
        for drone in self.fleet() {
            let is_lost = the_first_stays_away && self.processes[0].part.holds(&drone.id);
            if let Some(lost) = drone.lose(&drone.sign()).ok().filter(|_| is_lost) {
                self.store.set(lost);
            }
        }
    }

    fn give_signs_of_life(&mut self) {
        for drone in self.fleet() {
            self.store.set(drone);
        }
    }

    fn fleet(&self) -> Vec<Drone> {
        self.store.drones.values().map(|found| found.value.clone()).collect()
    }

    /// Whether nowhere more charge than may.
    fn is_within_limits(&mut self) -> bool {
        let most = self.charging().values().map(Vec::len).max().unwrap_or(0);
        self.most = self.most.max(most);
        most <= self.flight.charger_slots as usize
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn never_more_charge_than_there_are_slots_and_in_the_end_those_whose_turn_it_is(
        processes in 2..=3_u32, drones in 4..=9_u32, slots in 1..=3_u32, faults in 0.0..0.6_f64,
            seed in any::<u64>(), a_process_stays_away in any::<bool>(),
    ) {
        let mut world = World::new(processes, drones, slots, seed);
            world.faults = faults;
        for step in 0..STEPS {
            if world.random.random_bool(0.25) {
                world.happens();
            } else {
                let index = world.random.random_range(0..world.processes.len());
                world.step(index);
            }
            prop_assert!(world.is_within_limits(), "step {step}: {:#?}", world.charging());
        }
        // Nothing happens any more, but that the drones of a process that never comes back are lost.
        world.be_quiet(a_process_stays_away);
        for step in 0..QUIET_STEPS {
            if step % SIGN_OF_LIFE_STEPS == 0 {
                world.give_signs_of_life();
            }
            let index = world.random.random_range(usize::from(a_process_stays_away)..world.processes.len());
            world.step(index);
            prop_assert!(world.is_within_limits(), "when all is quiet: {:#?}", world.charging());
        }
        let fleet = world.fleet();
        let alone = chargers::places(&fleet, &world.zones, slots, world.now);
        for drone in fleet {
            let wanted = alone.get(&drone.id).map(|place| place.queue);
            prop_assert!(drone.charge_queue == wanted, "{wanted:?}: {drone:#?} {:#?}", world.store.boards);
        }
    }
}
