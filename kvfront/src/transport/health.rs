//! What is known of a node's health: suspected after failures or silence, back on its first good answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use register::{Ballot, HlcTime};
use tokio::time::Instant;

use super::queue::lock;

/// After a refused connection, messages fail at once for this long instead of each trying to connect.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What a good answer tells about its node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sign {
    pub(super) clock: HlcTime,
    pub(super) incarnation: u64,
    pub(super) commit: u64,
    pub(super) floor: Ballot,
}

/// A snapshot, for `/cluster`.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Not asked first, because it failed or was silent.
    pub suspected: bool,
    /// True once its clock has been learnt since this kvfront started.
    pub learnt: bool,
    /// How long ago it last gave a good answer, in milliseconds.
    pub last_answer_ms_ago: Option<u64>,
    /// Why it is suspected.
    pub error: Option<String>,
    /// How far its clock was ahead of ours (negative: behind) at its last answer, in milliseconds. Includes the answer's travel time.
    pub clock_ahead_ms: Option<i64>,
    /// Changes when its database is new.
    pub incarnation: Option<u64>,
    /// Its last known commit number.
    pub commit: Option<u64>,
    /// Its last known floor.
    pub floor: Option<Ballot>,
}

/// Health of one node. Starts suspected: nothing is known of it yet.
#[derive(Debug)]
pub(super) struct Health {
    suspected: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_answer: Option<Instant>,
    last_sign: Option<Sign>,
    clock_ahead_ms: Option<i64>,
    error: Option<String>,
    down_until: Option<Instant>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            suspected: AtomicBool::new(true),
            state: Mutex::default(),
        }
    }

    pub(super) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Relaxed)
    }

    pub(super) fn is_learnt(&self) -> bool {
        lock(&self.state).last_sign.is_some()
    }

    /// A good answer. True when the node was suspected until now.
    pub(super) fn answered(&self, sign: Sign, now_unix_ms: u64) -> bool {
        let mut state = lock(&self.state);
        state.last_answer = Some(Instant::now());
        state.last_sign = Some(sign);
        state.clock_ahead_ms = Some(
            sign.clock
                .unix_ms()
                .cast_signed()
                .wrapping_sub(now_unix_ms.cast_signed()),
        );
        state.error = None;
        state.down_until = None;
        self.suspected.swap(false, Ordering::Relaxed)
    }

    /// The node's clock as it came with an answer that could not be used because of it.
    pub(super) fn skewed(&self, clock: HlcTime, now_unix_ms: u64) {
        lock(&self.state).clock_ahead_ms = Some(clock.unix_ms().cast_signed().wrapping_sub(now_unix_ms.cast_signed()));
    }

    /// A failure or too long a silence. True when the node was not suspected until now.
    pub(super) fn suspect(&self, reason: &str) -> bool {
        lock(&self.state).error = Some(reason.to_owned());
        !self.suspected.swap(true, Ordering::Relaxed)
    }

    /// No connection could be made: do not try again for a moment.
    pub(super) fn pause_connecting(&self) {
        lock(&self.state).down_until = Some(Instant::now() + RECONNECT_PAUSE);
    }

    /// Why no connection should be tried right now.
    pub(super) fn why_down(&self) -> Option<String> {
        let state = lock(&self.state);
        let down = state.down_until.is_some_and(|until| Instant::now() < until);
        down.then(|| state.error.clone().unwrap_or_else(|| "cannot connect".to_owned()))
    }

    /// True when there was no answer for that long.
    pub(super) fn silent_for(&self, span: Duration) -> bool {
        lock(&self.state).last_answer.is_none_or(|at| at.elapsed() >= span)
    }

    pub(super) fn status(&self) -> NodeStatus {
        let suspected = self.is_suspected();
        let state = lock(&self.state);
        let sign = state.last_sign;
        NodeStatus {
            suspected,
            learnt: sign.is_some(),
            last_answer_ms_ago: state
                .last_answer
                .map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            error: state.error.clone(),
            clock_ahead_ms: state.clock_ahead_ms,
            incarnation: sign.map(|s| s.incarnation),
            commit: sign.map(|s| s.commit),
            floor: sign.map(|s| s.floor),
        }
    }
}
