//! What clients ask for.

use std::sync::Arc;

use linearizability::Op;
use register::change::{Command, Expect};
use register::proposer::Consistency;

use crate::client::Seen;
use crate::world::{US_PER_MS, World};

/// What the clients of a kind of world do: weights, and shares in a thousand.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Weight of reads.
    pub get: u32,
    /// Weight of writes.
    pub put: u32,
    /// Weight of deletes.
    pub delete: u32,
    /// Weight of compare-and-swaps by value.
    pub cas: u32,
    /// Weight of compare-and-swaps and deletes by version.
    pub cas_version: u32,
    /// Share of changes that carry a fence.
    pub fence_per_mille: u32,
    /// Share of puts whose value ends by itself.
    pub ttl_per_mille: u32,
    /// How long such values last, in milliseconds.
    pub ttl_ms: u64,
    /// Share of gets, puts and deletes that are content with one answer.
    pub one_per_mille: u32,
    /// Share of changes that a client sends again, under the same id, when it is not told what came of them.
    pub retry_per_mille: u32,
    /// Share of a client's steps that are batches.
    pub batch_per_mille: u32,
    /// Share of the keys that are locks.
    pub lock_per_mille: u32,
    /// How long locks last, in milliseconds.
    pub lock_ttl_ms: u64,
}

impl Work {
    /// Reads, writes, deletes and compare-and-swaps.
    pub(crate) const PLAIN: Self = Self {
        get: 35,
        put: 15,
        delete: 10,
        cas: 30,
        cas_version: 10,
        fence_per_mille: 0,
        ttl_per_mille: 0,
        ttl_ms: 3_000,
        one_per_mille: 0,
        retry_per_mille: 0,
        batch_per_mille: 0,
        lock_per_mille: 0,
        lock_ttl_ms: LONG_TTL_MS,
    };

    /// Whether the key of this number, of so many, is a lock.
    pub(crate) fn is_lock(&self, key: usize, keys: usize) -> bool {
        (key * 1_000) < keys * self.lock_per_mille as usize
    }
}

/// No lock that lasts so long ends by itself in any world.
pub(crate) const LONG_TTL_MS: u64 = 36_000_000;

/// A client's next operation.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) op: Op,
    pub(crate) command: Command,
    pub(crate) consistency: Consistency,
    pub(crate) fence: Option<u64>,
    pub(crate) ends_after_ms: Option<u64>,
}

impl Chosen {
    fn new(op: Op, command: Command) -> Self {
        Self {
            op,
            command,
            consistency: Consistency::Quorum,
            fence: None,
            ends_after_ms: None,
        }
    }
}

const DELETE: Command = Command::Delete {
    version: None,
    fence: None,
};

impl World<'_> {
    /// `number` is one that nobody has used, `seen` what the client saw last (or the lock it took).
    pub(crate) fn choose(&mut self, key: usize, number: u32, seen: Seen) -> Chosen {
        if self.places[key].is_lock {
            self.choose_lock(number, seen)
        } else {
            self.choose_data(number, seen)
        }
    }

    fn choose_data(&mut self, number: u32, seen: Seen) -> Chosen {
        let work = self.kind.work;
        let text = self.arena.text(number);
        let fence = self.rng.per_mille(work.fence_per_mille).then(|| self.draw_fence());
        let weights = [work.get, work.put, work.delete, work.cas, work.cas_version];
        let mut chosen = match draw(self.rng.below(u64::from(weights.iter().sum::<u32>())), &weights) {
            0 => Chosen::new(Op::Read(None), Command::Get),
            1 => {
                let ttl_ms = self.rng.per_mille(work.ttl_per_mille).then_some(work.ttl_ms);
                let put = Command::Put {
                    value: text,
                    ttl_ms,
                    fence,
                };
                Chosen {
                    fence,
                    ends_after_ms: ttl_ms,
                    ..Chosen::new(Op::Write(Some(number)), put)
                }
            }
            2 => Chosen::new(Op::Write(None), DELETE),
            3 => Chosen {
                fence,
                ..cas(seen, number, text, false, fence)
            },
            // There is no delete of a version that nobody has seen.
            _ if seen.version.is_some() && seen.value.is_some() && self.rng.per_mille(300) => {
                let op = Op::Cas {
                    expected: seen.value,
                    new: None,
                    swapped: None,
                };
                let delete = Command::Delete {
                    version: seen.version,
                    fence: None,
                };
                Chosen::new(op, delete)
            }
            _ => Chosen {
                fence,
                ..cas(seen, number, text, true, fence)
            },
        };
        if chosen.fence.is_none() && self.rng.per_mille(work.one_per_mille) {
            chosen.consistency = Consistency::One;
        }
        chosen
    }

    /// Fences grow with time, and those of several clients are mixed up a little.
    fn draw_fence(&mut self) -> u64 {
        1 + self.now_us / (400 * US_PER_MS) + self.rng.below(3)
    }

    fn choose_lock(&mut self, number: u32, seen: Seen) -> Chosen {
        let ttl_ms = self.kind.work.lock_ttl_ms;
        match (self.rng.below(100), seen.value) {
            (0..25, Some(mine)) => {
                let release = Command::Release {
                    token: Some(self.arena.text(mine)),
                };
                let op = Op::Release {
                    token: Some(mine),
                    freed: None,
                };
                Chosen::new(op, release)
            }
            (25..45, Some(token)) => {
                let renew = Command::Renew {
                    token: self.arena.text(token),
                    ttl_ms,
                };
                Chosen::new(Op::Renew { token, held: None }, renew)
            }
            (45..50, _) => {
                let op = Op::Release {
                    token: None,
                    freed: None,
                };
                Chosen::new(op, Command::Release { token: None })
            }
            (dice, _) => {
                let owned = dice % 2 == 0;
                let acquire = Command::Acquire {
                    token: self.arena.text(number),
                    owner: owned.then(|| self.arena.text(0)),
                    ttl_ms,
                };
                let op = Op::Acquire {
                    token: number,
                    owned,
                    took: None,
                };
                Chosen {
                    ends_after_ms: (ttl_ms < LONG_TTL_MS).then_some(ttl_ms),
                    ..Chosen::new(op, acquire)
                }
            }
        }
    }
}

fn cas(seen: Seen, number: u32, new: Arc<str>, by_version: bool, fence: Option<u64>) -> Chosen {
    // What was seen as absent has a version of its own sometimes (a delete's), which is nobody's.
    let (by_version, version) = match seen.value {
        Some(_) => (by_version && seen.version.is_some(), seen.version),
        None => (by_version, None),
    };
    let expect = if by_version {
        Expect::Version(version)
    } else {
        Expect::Value(seen.value.map_or(serde_json::Value::Null, Into::into))
    };
    let op = Op::Cas {
        expected: seen.value,
        new: Some(number),
        swapped: None,
    };
    Chosen::new(op, Command::Cas { expect, new, fence })
}

/// The place of the weight that the dice fall on.
fn draw(dice: u64, weights: &[u32]) -> usize {
    let mut left = dice;
    for (place, weight) in weights.iter().enumerate() {
        match left.checked_sub(u64::from(*weight)) {
            None => return place,
            Some(rest) => left = rest,
        }
    }
    weights.len() - 1
}
