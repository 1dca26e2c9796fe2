//! What a world is like: drawn from its seed before anything happens.

use register::proposer::Limits;

use crate::kinds::Kind;
use crate::nemesis::Nemeses;
use crate::rng::Rng;
use crate::tilt::Tilt;
use crate::world::US_PER_MS;

/// No fault is over before half that time, in microseconds.
const MIN_FAULT_US: u64 = 10 * US_PER_MS;
/// No coordinator looks after things more often, in microseconds.
const MIN_BACKGROUND_US: u64 = 20 * US_PER_MS;

/// The temper of one world.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nemeses: Nemeses,
    pub(crate) keys: u16,
    pub(crate) fronts: u8,
    pub(crate) clients: u8,
    calls: (u32, u32),
    pub(crate) limits: Limits,
    /// Messages lost, each way.
    pub(crate) loss_per_mille: u32,
    /// Messages that arrive a second time.
    pub(crate) copies_per_mille: u32,
    /// How often a message takes the longer ways.
    slow_per_mille: u32,
    /// Longest of the longest way.
    slowest_us: u64,
    commit_us: u64,
    /// Longest pause of a client between two calls.
    pub(crate) think_us: u64,
    /// Longest pause between two faults of one nemesis.
    fault_pause_us: u64,
    /// Longest time a fault lasts.
    fault_lasts_us: u64,
    /// Longest pause between two passes of a coordinator's background.
    pub(crate) background_us: u64,
    pub(crate) read_repair: bool,
    /// How often each client goes to the coordinator it always goes to.
    pub(crate) loyal_per_mille: u32,
    skew: bool,
    /// Disks go back in time: nodes have to be asked about themselves all the time.
    pub(crate) watches_nodes: bool,
    /// Longest pause between two such askings.
    pub(crate) membership_us: u64,
}

impl Plan {
    /// Clocks that are not the nemesis' business are at most that far off, in milliseconds.
    pub(crate) const MAX_OFFSET_MS: u64 = 150;

    /// Draws the temper of a world. `nemeses`: these and no others, instead of what the kind would draw.
    pub(crate) fn draw(kind: &Kind, nemeses: Option<Nemeses>, rng: &mut Rng) -> Self {
        let nemeses = nemeses.unwrap_or_else(|| kind.draw_nemeses(rng));
        let slow = nemeses.has('d');
        let think_ms = [2, 20, 200, 1_500][rng.index(4)];
        // About how long an operation takes, with the pause before it: what else happens has to be in step with that.
        let pace_us = think_ms * US_PER_MS / 2 + if slow { 600 } else { 6 } * US_PER_MS;
        Self {
            keys: between(rng, kind.keys),
            fronts: between(rng, kind.fronts),
            clients: between(rng, kind.clients),
            calls: kind.calls,
            limits: Limits {
                deadline_ms: [2_000, 8_000][rng.index(2)],
                phase_ms: [300, 700, 2_500][rng.index(3)],
                spare_after_ms: [5, 50, 100, 1_000][rng.index(4)],
                backoff_ms: [4, 20][rng.index(2)],
            },
            loss_per_mille: if nemeses.has('l') {
                chance(rng, &[20, 50, 100])
            } else {
                chance(rng, &[0, 5])
            },
            copies_per_mille: if nemeses.has('u') {
                chance(rng, &[30, 100, 300])
            } else {
                0
            },
            slow_per_mille: if slow {
                chance(rng, &[100, 300, 600])
            } else {
                chance(rng, &[0, 20])
            },
            slowest_us: if slow { 3_500 * US_PER_MS } else { 100 * US_PER_MS },
            commit_us: [1, 5, 20][rng.index(3)] * US_PER_MS,
            think_us: think_ms * US_PER_MS,
            fault_pause_us: pace_us * [4, 10, 40][rng.index(3)],
            fault_lasts_us: (pace_us * [2, 5, 20][rng.index(3)]).max(MIN_FAULT_US),
            background_us: (pace_us * [1, 5, 20][rng.index(3)]).max(MIN_BACKGROUND_US),
            read_repair: rng.per_mille(500),
            loyal_per_mille: [0, 500, 950][rng.index(3)],
            skew: nemeses.has('k') || nemeses.has('h'),
            watches_nodes: nemeses.has('w') || nemeses.has('b'),
            membership_us: [500, 3_000][rng.index(2)] * US_PER_MS,
            nemeses,
        }
        .tilted(&kind.tilt)
    }

    /// The same with what the tilt has otherwise.
    fn tilted(self, tilt: &Tilt) -> Self {
        let us = |ms: Option<u64>, drawn_us| ms.map_or(drawn_us, |ms| ms * US_PER_MS);
        Self {
            limits: tilt.limits.unwrap_or(self.limits),
            background_us: us(tilt.background_ms, self.background_us),
            commit_us: us(tilt.commit_ms, self.commit_us),
            think_us: us(tilt.think_ms, self.think_us),
            fault_pause_us: us(tilt.fault_pause_ms, self.fault_pause_us),
            fault_lasts_us: us(tilt.fault_lasts_ms, self.fault_lasts_us),
            ..self
        }
    }

    pub(crate) fn calls(&self, rng: &mut Rng) -> u32 {
        between(rng, self.calls)
    }

    pub(crate) fn delay_us(&self, rng: &mut Rng) -> u64 {
        let dice = rng.next();
        // The low bits choose the way, the high ones the time on it.
        let (way, time) = ((dice & 0x3ff) * 1_000 / 0x400, dice >> 32);
        let most = if way >= u64::from(self.slow_per_mille) {
            2_000
        } else {
            match dice >> 10 & 3 {
                0 | 1 => 20 * US_PER_MS,
                2 => self.slowest_us / 4,
                _ => self.slowest_us,
            }
        };
        50 + ((time * most) >> 32)
    }

    pub(crate) fn commit_us(&self, rng: &mut Rng) -> u64 {
        rng.range(100, self.commit_us)
    }

    pub(crate) fn fault_pause_us(&self, rng: &mut Rng) -> u64 {
        rng.range(US_PER_MS, self.fault_pause_us)
    }

    pub(crate) fn fault_lasts_us(&self, rng: &mut Rng) -> u64 {
        rng.range(MIN_FAULT_US / 2, self.fault_lasts_us)
    }

    /// How wrong a clock is: up to 20 ms where clocks are well, more where they are not.
    pub(crate) fn offset_ms(&self, rng: &mut Rng) -> i64 {
        rng.around_zero(if self.skew { Self::MAX_OFFSET_MS } else { 20 })
    }
}

fn chance(rng: &mut Rng, choices: &[u32]) -> u32 {
    choices[rng.index(choices.len())]
}

/// From the first up to and including the second.
fn between<T: Copy + Into<u64> + TryFrom<u64>>(rng: &mut Rng, (low, high): (T, T)) -> T {
    let drawn = rng.range(low.into(), high.into() + 1);
    // It lies between two numbers of that type.
    T::try_from(drawn).unwrap_or(high)
}
