//! The end of a world: nothing goes wrong any more, and everything has to come to rest where it belongs.

use linearizability::{Entry, Op};
use register::{Ballot, State};

use crate::mix::LONG_TTL_MS;
use crate::world::{Trouble, US_PER_MS, World, small};

/// Rounds of looking after things, after which all must be well.
const ROUNDS: u32 = 12;
/// Time between two rounds, in microseconds: longer than any clock here is ahead of another.
const ROUND_US: u64 = 2_000 * US_PER_MS;
/// Longest that what was begun is waited for, in microseconds: longer than any timeout.
const DRY_US: u64 = 12_000 * US_PER_MS;
/// After clocks have jumped by an hour it takes that long until those that were ahead are believed again, in microseconds.
const HOUR_US: u64 = 3_700_000 * US_PER_MS;
/// The reader of what is left, as the history names it.
const LAST_READER: u32 = 99;

impl World<'_> {
    pub(crate) fn come_to_rest(&mut self) {
        self.calm = true;
        for front in 0..self.fronts.len() {
            self.fronts[front].requests_cut = 0;
            self.fronts[front].answers_cut = 0;
            self.fronts[front].offset_ms = 0;
            self.front_goes_on(front);
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].full = false;
            self.nodes[node].offset_ms = 0;
            self.node_goes_on(node);
            self.start_node(node);
        }
        self.run_dry(DRY_US);
        if self.plan.nemeses.has('h') {
            self.now_us += HOUR_US;
        }
        for round in 0..ROUNDS {
            if self.trouble.is_some() {
                return;
            }
            self.now_us += ROUND_US;
            let all = self.fronts.len();
            for front in 0..all {
                if !self.is_serving(front) {
                    self.say_hello(front);
                }
            }
            self.run_dry(DRY_US);
            if !self.kind.first_start && self.nodes.iter().all(|node| node.votes()) && self.restlessness().is_none() {
                break;
            }
            self.look_at_nodes_soon();
            self.look_after(round as usize % all);
            self.run_dry(DRY_US);
        }
        if self.trouble.is_some() {
            return;
        }
        if let Some(what) = self.restlessness() {
            return self.bad(Trouble::Restless(what));
        }
        self.read_what_is_left();
    }

    /// What is not as it must be at rest.
    fn restlessness(&self) -> Option<String> {
        let silent = self.nodes.iter().position(|node| !node.votes());
        if let Some(node) = silent {
            return Some(format!("node {node} does not vote: {:?}", self.nodes[node].disk.status));
        }
        (0..self.places.len()).find_map(|key| self.restless_key(key))
    }

    fn restless_key(&self, key: usize) -> Option<String> {
        let place = &self.places[key];
        let (homes, spares) = place.nodes.split_at(usize::from(self.kind.homes));
        let record = |node: u8| self.nodes[usize::from(node)].disk.records[key].as_ref();
        let held = |node: u8| -> Option<(Ballot, &State)> {
            let record = record(node)?;
            Some((record.accepted, record.state.as_ref()?))
        };
        let all = || {
            let each = |node: &u8| format!("\n  node {node}: {:?}", record(*node));
            place.nodes.iter().map(each).collect::<String>()
        };
        if homes.iter().any(|home| held(*home) != held(homes[0])) {
            return Some(format!("the homes of key {key} differ:{}", all()));
        }
        if spares.iter().any(|spare| record(*spare).is_some()) {
            return Some(format!("a spare still holds key {key}:{}", all()));
        }
        let dead = homes
            .iter()
            .any(|home| record(*home).is_some_and(|record| record.state.is_none()));
        let collectable = held(homes[0])
            .is_some_and(|(accepted, state)| register::collect::may_be_collected(&place.key, accepted, state));
        if dead || collectable {
            return Some(format!("key {key} is gone, but not from everywhere:{}", all()));
        }
        let now_ms = self.wall_ms(0);
        if held(homes[0]).is_some_and(|(_, state)| state.is_expired(now_ms)) {
            return Some(format!("key {key} has ended, and is still there:{}", all()));
        }
        None
    }

    /// A last reader sees what the homes hold: whatever was lost is missed now.
    fn read_what_is_left(&mut self) {
        if !self.kind.is_judged() {
            return;
        }
        for key in 0..self.places.len() {
            let place = &self.places[key];
            let home = usize::from(place.nodes[0]);
            let state = self.nodes[home].disk.records[key]
                .as_ref()
                .and_then(|record| record.state.as_ref());
            let value = state.and_then(|state| state.value.as_ref());
            let op = if place.is_lock {
                // Nobody renews a token that is not there; whether the lock is free or not, that is refused, and tells nothing.
                continue;
            } else {
                Op::Read(value.and_then(|text| text.parse().ok()))
            };
            let (now, key) = (self.now_us, u32::from(small(key)));
            self.history().push(Entry::new(LAST_READER, key, now, now + 1, op));
        }
        debug_assert!(
            LONG_TTL_MS * US_PER_MS > self.now_us,
            "no lock may have ended by itself"
        );
    }
}
