//! Whether this node's own clock is wrong, judged by those who talk to it.
//!
//! A node cannot tell the time from itself. But when most of its coordinators agree that its clock is far off, it is the one to be mended,
//! and only its own health line can say so: others just see it refuse, or be refused. A single message proves little (it may have waited
//! somewhere, which makes its sender look slow), so the disagreement has to last.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use register::HlcTime;

/// A sender counts for this long after its last message.
const HEARD_FOR: Duration = Duration::from_secs(5);
/// How long most senders have to disagree with this node before it blames itself.
const BLAMED_AFTER: Duration = Duration::from_secs(2);
/// Most senders kept: far more coordinators than there are. One that keeps being started again counts anew each time, until the time it
/// is heard for has passed.
const MAX_SENDERS: usize = 256;

/// What is wrong with the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockTrouble {
    /// How far ahead of its coordinators' clocks this node's is, in milliseconds; negative: behind.
    pub ahead_ms: i64,
    /// What is accepted, in milliseconds.
    pub max_skew_ms: u64,
}

impl std::fmt::Display for ClockTrouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = self.ahead_ms.unsigned_abs().saturating_add(50) / 100;
        let side = if self.ahead_ms > 0 { "ahead of" } else { "behind" };
        write!(
            f,
            "this node's clock is {}.{} s {side} that of its coordinators (at most {} ms are accepted); set its clock",
            tenths / 10,
            tenths % 10,
            self.max_skew_ms
        )
    }
}

/// Hears every coordinator's clock.
#[derive(Debug)]
pub struct ClockWatch {
    max_skew_ms: u64,
    offset_ms: Gauge,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the incarnation of the coordinator: one that keeps reconnecting is still one.
    heard: HashMap<u64, Heard>,
    /// Since when most senders are on this side.
    disputed: Option<(Side, Instant)>,
    trouble: Option<ClockTrouble>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    /// The sender's clock minus ours.
    offset_ms: i64,
    at: Instant,
    /// It was judged by; the next message replaces it.
    judged: bool,
}

/// Where a sender's clock is, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ahead,
    Behind,
}

impl ClockWatch {
    /// A watch that accepts clocks within `max_skew_ms`, and shows the last sender's offset.
    #[must_use]
    pub fn new(max_skew_ms: u64, offset_ms: Gauge) -> Self {
        Self {
            max_skew_ms,
            offset_ms,
            inner: Mutex::default(),
        }
    }

    /// A message of the coordinator of this incarnation came at `now`, when our wall clock said `now_unix_ms`.
    pub fn hear(&self, sender: u64, clock: HlcTime, now_unix_ms: u64, now: Instant) {
        let offset_ms = difference_ms(clock.unix_ms(), now_unix_ms);
        self.offset_ms.set(offset_ms);
        let mut inner = self.lock();
        let fresh = Heard {
            offset_ms,
            at: now,
            judged: false,
        };
        match inner.heard.get_mut(&sender) {
            // Waiting on the way only makes a sender look slower, so of several messages the fastest is right.
            Some(heard) if !heard.judged => {
                heard.offset_ms = heard.offset_ms.max(offset_ms);
                heard.at = now;
            }
            Some(heard) => *heard = fresh,
            None => {
                if inner.heard.len() >= MAX_SENDERS {
                    let oldest = inner.heard.iter().min_by_key(|(_, heard)| heard.at);
                    if let Some(oldest) = oldest.map(|(sender, _)| *sender) {
                        inner.heard.remove(&oldest);
                    }
                }
                inner.heard.insert(sender, fresh);
            }
        }
    }

    /// What is wrong at `now`. To be asked a few times a second. Silence changes nothing: only a majority that agrees with this node's
    /// clock, or disagrees among itself, clears it.
    pub fn judge(&self, now: Instant) -> Option<ClockTrouble> {
        let mut inner = self.lock();
        inner.heard.retain(|_, heard| now.duration_since(heard.at) < HEARD_FOR);
        if inner.heard.is_empty() {
            return inner.trouble;
        }
        let before = inner.trouble;
        match self.majority(&inner) {
            None => (inner.disputed, inner.trouble) = (None, None),
            Some((side, offset_ms, last)) => {
                let since = match inner.disputed {
                    Some((before, since)) if before == side => since,
                    _ => now,
                };
                inner.disputed = Some((side, since));
                // They must have gone on saying so, not only have said so long ago.
                if last.saturating_duration_since(since) >= BLAMED_AFTER || inner.trouble.is_some() {
                    inner.trouble = Some(ClockTrouble {
                        ahead_ms: offset_ms.saturating_neg(),
                        max_skew_ms: self.max_skew_ms,
                    });
                }
            }
        }
        for heard in inner.heard.values_mut() {
            heard.judged = true;
        }
        match (before, inner.trouble) {
            (None, Some(trouble)) => tracing::error!("{trouble}"),
            (Some(_), None) => tracing::info!("this node's clock agrees with that of its coordinators again"),
            _ => {}
        }
        inner.trouble
    }

    /// The side that more than half of the senders are on, the offset nearest to ours among them, and when one of them was last heard.
    fn majority(&self, inner: &Inner) -> Option<(Side, i64, Instant)> {
        let side_of = |heard: &Heard| {
            let too_far = heard.offset_ms.unsigned_abs() > self.max_skew_ms;
            too_far.then_some(if heard.offset_ms > 0 { Side::Ahead } else { Side::Behind })
        };
        for side in [Side::Ahead, Side::Behind] {
            let on_it = || inner.heard.values().filter(|heard| side_of(heard) == Some(side));
            if on_it().count() * 2 <= inner.heard.len() {
                continue;
            }
            let nearest = on_it()
                .map(|heard| heard.offset_ms)
                .min_by_key(|offset| offset.unsigned_abs());
            let last = on_it().map(|heard| heard.at).max();
            return Some((side, nearest?, last?));
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Plain values that are whole at every point.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `a - b`, saturating.
fn difference_ms(a: u64, b: u64) -> i64 {
    let distance = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a >= b { distance } else { -distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_SKEW_MS: u64 = 500;
    const NOW_MS: u64 = 1_800_000_000_000;

    struct Bench {
        watch: ClockWatch,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                watch: ClockWatch::new(MAX_SKEW_MS, Gauge::default()),
                start: Instant::now(),
            }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn hear(&self, sender: u64, offset_ms: i64, at_ms: u64) {
            let clock = HlcTime::from_unix_ms(NOW_MS.saturating_add_signed(offset_ms));
            self.watch.hear(sender, clock, NOW_MS, self.at(at_ms));
        }

        /// Four times a second, each of the senders says what is given; the verdict at the end.
        fn hear_all(&self, offsets_ms: &[i64], from_ms: u64, to_ms: u64) -> Option<ClockTrouble> {
            let mut verdict = None;
            for at_ms in (from_ms..=to_ms).step_by(250) {
                for (sender, offset_ms) in (1..).zip(offsets_ms) {
                    self.hear(sender, *offset_ms, at_ms);
                }
                verdict = self.watch.judge(self.at(at_ms));
            }
            verdict
        }
    }

    fn ahead_ms(verdict: Option<ClockTrouble>) -> Option<i64> {
        verdict.map(|trouble| trouble.ahead_ms)
    }

    #[test]
    fn a_clock_everybody_disagrees_with_is_blamed_until_they_agree() {
        for hour in [3_600_000, -3_600_000] {
            let bench = Bench::new();
            assert_eq!(
                bench.hear_all(&[hour, hour], 0, 1_750),
                None,
                "it may be a few late messages"
            );
            let verdict = bench.hear_all(&[hour, hour], 2_000, 2_500);
            assert_eq!(ahead_ms(verdict), Some(-hour));
            assert_eq!(bench.watch.offset_ms.get(), hour);
            assert_eq!(
                ahead_ms(bench.watch.judge(bench.at(60_000))),
                Some(-hour),
                "silence mends no clock"
            );
            assert_eq!(bench.hear_all(&[0, 100], 60_250, 60_250), None);
        }
        let trouble = ClockTrouble {
            ahead_ms: -3_600_049,
            max_skew_ms: 500,
        };
        let text = "this node's clock is 3600.0 s behind that of its coordinators (at most 500 ms are accepted); set its clock";
        assert_eq!(trouble.to_string(), text);
    }

    #[test]
    fn a_coordinator_that_stands_alone_is_the_sick_one() {
        for offsets_ms in [
            vec![3_600_000, 0],
            vec![3_600_000, -3_600_000],
            vec![3_600_000, -3_600_000, 0],
        ] {
            assert_eq!(Bench::new().hear_all(&offsets_ms, 0, 10_000), None, "{offsets_ms:?}");
        }
        let verdict = Bench::new().hear_all(&[-3_600_000, -3_600_200, 0], 0, 10_000);
        assert_eq!(
            ahead_ms(verdict),
            Some(3_600_000),
            "one that shares this machine's clock does not save it"
        );
    }

    #[test]
    fn a_coordinator_counts_once_however_much_it_says() {
        let bench = Bench::new();
        for at_ms in (0..10_000).step_by(250) {
            for _ in 0..100 {
                bench.hear(1, 3_600_000, at_ms);
            }
            bench.hear(2, 0, at_ms);
            assert_eq!(bench.watch.judge(bench.at(at_ms)), None);
        }
    }

    #[test]
    fn messages_that_waited_blame_nobody() {
        let bench = Bench::new();
        // After a pause of ten seconds everything that was sent meanwhile is read at once.
        for sender in 1..=3 {
            bench.hear(sender, -10_000, 0);
        }
        assert_eq!(bench.watch.judge(bench.at(10)), None);
        assert_eq!(bench.hear_all(&[0, 0, 0], 250, 10_000), None);
        // Under load some messages of each sender are late, others are not.
        for at_ms in (10_250..20_000).step_by(250) {
            for sender in 1..=3 {
                bench.hear(sender, -20, at_ms);
                bench.hear(sender, -2_000, at_ms + 1);
            }
            assert_eq!(bench.watch.judge(bench.at(at_ms + 2)), None);
        }
        // And nobody said so again.
        bench.hear(1, -10_000, 30_000);
        for at_ms in (30_000..34_000).step_by(250) {
            assert_eq!(bench.watch.judge(bench.at(at_ms)), None);
        }
    }

    #[test]
    fn senders_are_bounded() {
        let bench = Bench::new();
        for sender in 1..1_000 {
            bench.hear(sender, 0, sender);
        }
        let inner = bench.watch.lock();
        assert_eq!(inner.heard.len(), MAX_SENDERS);
        assert!(inner.heard.contains_key(&999));
    }
}
