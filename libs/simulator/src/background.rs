//! What coordinators look after: hints go home, tombstones leave, what has ended is ended, and copies that differ are made alike.

use register::HlcTime;
use register::collect::{Collect, may_be_collected};
use register::handover::HandOver;

use crate::front::small_key;
use crate::task::Task;
use crate::world::{US_PER_MS, What, World, small};

/// A promise that nothing came of is dropped when it is that old, in milliseconds: nobody waits that long.
const LONE_PROMISE_MS: u64 = 10_000;

impl World<'_> {
    pub(crate) fn background_soon(&mut self, front: usize) {
        let after = self.rng.range(US_PER_MS, self.plan.background_us);
        let start = self.fronts[front].start;
        let front = small(front);
        self.after(after, What::Background { front, start });
    }

    /// A coordinator's pass over what the nodes that it reaches hold.
    pub(crate) fn background(&mut self, front: usize, start: u32) {
        if self.fronts[front].start != start || self.calm {
            return;
        }
        if !self.is_serving(front) {
            self.say_hello(front);
        } else if self.fronts[front].tasks == 0 {
            self.look_after(front);
        }
        self.background_soon(front);
    }

    pub(crate) fn look_after(&mut self, front: usize) {
        for key in 0..self.places.len() {
            self.look_after_key(front, key);
        }
    }

    fn look_after_key(&mut self, front: usize, key: usize) {
        let (homes, list) = (usize::from(self.kind.homes), usize::from(self.kind.list));
        let cut = self.fronts[front].requests_cut | self.fronts[front].answers_cut;
        let now_ms = self.wall_ms(self.fronts[front].offset_ms);
        let mut differs = false;
        let mut home_holds = None;
        let mut ended = false;
        for rank in 0..list {
            let index = usize::from(self.places[key].nodes[rank]);
            let node = &self.nodes[index];
            if !node.votes() || node.paused || cut >> index & 1 == 1 {
                continue;
            }
            let record = node.disk.records[key].as_ref();
            if rank < homes {
                let accepted = record.map(|record| record.accepted).unwrap_or_default();
                differs |= home_holds.is_some_and(|other| other != accepted);
                home_holds = Some(accepted);
            }
            let Some(record) = record else { continue };
            let Some(state) = &record.state else {
                let oldest = HlcTime::from_unix_ms(now_ms.saturating_sub(LONE_PROMISE_MS));
                if record.promised.time < oldest || self.calm {
                    let ballot = record.promised;
                    self.begin_soon(front, small_key(key), Task::DropPromise { ballot, rank });
                }
                continue;
            };
            ended |= state.is_expired(now_ms);
            let collect = rank < homes && may_be_collected(&self.places[key].key, record.accepted, state);
            let (ballot, state) = (record.accepted, state.clone());
            if collect && (self.calm || self.rng.per_mille(500)) {
                let task = Task::Collect(Collect::new(ballot, state, list));
                self.begin_soon(front, small_key(key), task);
            } else if rank >= homes {
                let task = Task::HandOver(HandOver::new(ballot, state, homes, rank, list));
                self.begin_soon(front, small_key(key), task);
            }
        }
        // Ended values, and what anti-entropy finds.
        if ended || differs && (self.calm || self.rng.per_mille(250)) {
            self.settle(front, small_key(key));
        }
    }

    /// A node throws away tombstones by its own clock: what no node may do, and only a tooth does.
    pub(crate) fn sweep_by_own_clock(&mut self, index: usize) {
        const OLD_MS: u64 = 300;
        let wall_ms = self.wall_ms(self.nodes[index].offset_ms);
        let node = &mut self.nodes[index];
        if node.up && !node.paused {
            for place in &mut node.disk.records {
                let is_old = place.as_ref().is_some_and(|record| {
                    let dead = record.state.as_ref().is_some_and(register::State::is_tombstone);
                    dead && record.accepted.time.unix_ms() + OLD_MS < wall_ms
                });
                if is_old {
                    *place = None;
                }
            }
        }
        if !self.calm {
            self.after(100 * US_PER_MS, What::SweepByOwnClock { node: small(index) });
        }
    }
}
