//! What is known of a node's health: suspected after failures or silence, back on its first good answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use register::{Ballot, HlcTime, Standing};
use tokio::time::Instant;

use super::queue::lock;

/// After a refused connection, messages fail at once for this long instead of each trying to connect.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Incarnations of one node whose commits are remembered; more in one kvfront's life mean that its disk is lost over and over.
const INCARNATIONS_MAX: usize = 8;

/// What a good answer tells about its node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sign {
    pub(super) clock: HlcTime,
    pub(super) incarnation: u64,
    pub(super) commit: u64,
    pub(super) floor: Ballot,
    pub(super) standing: Standing,
}

/// What an answer changed in what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct News {
    /// The node was suspected until now.
    pub(super) came_back: bool,
    /// It had another incarnation or standing.
    pub(super) changed: bool,
}

/// A snapshot, for `/cluster`.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Not asked first, because it failed or was silent.
    pub suspected: bool,
    /// True once it has voted and its clock has been learnt, since this kvfront started.
    pub learnt: bool,
    /// How long ago it last gave a good answer, in milliseconds.
    pub last_answer_ms_ago: Option<u64>,
    /// Why it is suspected, or does not vote.
    pub error: Option<String>,
    /// How far its clock was ahead of ours (negative: behind) at its last answer, in milliseconds. Includes the answer's travel time.
    pub clock_ahead_ms: Option<i64>,
    /// Messages refused, by it or by us, because the clocks were too far apart.
    pub clock_refusals: u64,
    /// The last exchange with it failed because the clocks were too far apart.
    pub is_skewed: bool,
    /// Whether it votes.
    pub standing: Option<Standing>,
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
    skewed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_answer: Option<Instant>,
    last_sign: Option<Sign>,
    learnt: bool,
    clock_ahead_ms: Option<i64>,
    clock_refusals: u64,
    error: Option<String>,
    down_until: Option<Instant>,
    /// Per incarnation the highest commit shown while it voted, the newest incarnation last.
    commits: Vec<(u64, u64)>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            suspected: AtomicBool::new(true),
            skewed: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    pub(super) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Relaxed)
    }

    pub(super) fn is_skewed(&self) -> bool {
        self.skewed.load(Ordering::Relaxed)
    }

    pub(super) fn is_learnt(&self) -> bool {
        lock(&self.state).learnt
    }

    /// A good answer to an envelope: the node is well.
    pub(super) fn answered(&self, sign: Sign, now_unix_ms: u64) -> News {
        let mut state = lock(&self.state);
        state.last_answer = Some(Instant::now());
        state.error = None;
        state.down_until = None;
        let changed = state.note(sign, now_unix_ms);
        self.skewed.store(false, Ordering::Relaxed);
        News {
            came_back: self.suspected.swap(false, Ordering::Relaxed),
            changed,
        }
    }

    /// A good answer to another question: says nothing about how envelopes fare.
    pub(super) fn told(&self, sign: Sign, now_unix_ms: u64) -> News {
        let mut state = lock(&self.state);
        self.skewed.store(false, Ordering::Relaxed);
        News {
            came_back: false,
            changed: state.note(sign, now_unix_ms),
        }
    }

    /// Clocks too far apart; how far the node's is ahead, when that is known.
    pub(super) fn skewed(&self, ahead_ms: Option<i64>) {
        let mut state = lock(&self.state);
        state.clock_refusals += 1;
        self.skewed.store(true, Ordering::Relaxed);
        state.clock_ahead_ms = ahead_ms.or(state.clock_ahead_ms);
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

    /// The highest commit shown under this incarnation while it voted.
    pub(super) fn commit_shown(&self, incarnation: u64) -> Option<u64> {
        let state = lock(&self.state);
        let shown = state.commits.iter().find(|(of, _)| *of == incarnation);
        shown.map(|(_, commit)| *commit)
    }

    pub(super) fn status(&self) -> NodeStatus {
        let suspected = self.is_suspected();
        let state = lock(&self.state);
        let sign = state.last_sign;
        NodeStatus {
            suspected,
            learnt: state.learnt,
            last_answer_ms_ago: state
                .last_answer
                .map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            error: state
                .error
                .clone()
                .or_else(|| sign.and_then(|sign| why_not_voting(sign.standing)).map(str::to_owned)),
            clock_ahead_ms: state.clock_ahead_ms,
            clock_refusals: state.clock_refusals,
            is_skewed: self.is_skewed(),
            standing: sign.map(|s| s.standing),
            incarnation: sign.map(|s| s.incarnation),
            commit: sign.map(|s| s.commit),
            floor: sign.map(|s| s.floor),
        }
    }
}

impl State {
    /// Takes over what a node said of itself; true when its incarnation or standing is another than before.
    fn note(&mut self, sign: Sign, now_unix_ms: u64) -> bool {
        let before = self.last_sign.replace(sign);
        self.learnt |= sign.standing == Standing::Voting;
        let clock_ms = sign.clock.unix_ms().cast_signed();
        self.clock_ahead_ms = Some(clock_ms.wrapping_sub(now_unix_ms.cast_signed()));
        if sign.standing == Standing::Voting {
            self.note_commit(sign.incarnation, sign.commit);
        }
        before.is_none_or(|before| (before.incarnation, before.standing) != (sign.incarnation, sign.standing))
    }
}

impl State {
    fn note_commit(&mut self, incarnation: u64, commit: u64) {
        if let Some((_, known)) = self.commits.iter_mut().find(|(of, _)| *of == incarnation) {
            *known = commit.max(*known);
            return;
        }
        self.commits.push((incarnation, commit));
        let surplus = self.commits.len().saturating_sub(INCARNATIONS_MAX);
        self.commits.drain(..surplus);
    }
}

/// What a node that does not vote is waiting for.
pub(crate) fn why_not_voting(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Voting => None,
        Standing::Blank => Some("the cluster is being set up: this node is new and not admitted yet"),
        Standing::Returned => Some("the cluster is being set up: this node has started again and is being compared"),
        Standing::Filling { .. } => Some("its disk was lost, and it is being filled from the others"),
    }
}

/// How far our clock is ahead, in milliseconds, when a node's refusal is about that. `SkewError` says it in these words.
pub(super) fn clock_refusal_ms(detail: &str) -> Option<i64> {
    let (_, tail) = detail.split_once("the sender's clock is ")?;
    tail.split_once(" ms ahead")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use register::ballot::SkewError;

    use super::*;

    fn sign(incarnation: u64, commit: u64, standing: Standing) -> Sign {
        Sign {
            clock: HlcTime::from_unix_ms(1_000),
            incarnation,
            commit,
            floor: Ballot::ZERO,
            standing,
        }
    }

    #[test]
    fn a_node_is_learnt_once_it_votes_and_changes_are_told() {
        let health = Health::new();
        let news = health.answered(sign(1, 0, Standing::Blank), 1_000);
        assert!(news.came_back && news.changed && !health.is_learnt());
        assert!(health.status().error.unwrap().contains("being set up"));
        let again = health.answered(sign(1, 0, Standing::Blank), 1_000);
        assert!(!again.came_back && !again.changed);
        assert!(health.told(sign(1, 1, Standing::Voting), 900).changed);
        assert!(health.is_learnt());
        assert_eq!(
            (health.status().error, health.status().clock_ahead_ms),
            (None, Some(100))
        );
        assert!(health.told(sign(2, 1, Standing::Voting), 1_000).changed);
    }

    #[test]
    fn the_highest_commit_of_each_incarnation_is_remembered() {
        let health = Health::new();
        for (incarnation, commit) in [(1, 10), (1, 7), (2, 3)] {
            health.answered(sign(incarnation, commit, Standing::Voting), 0);
        }
        health.answered(sign(2, 99, Standing::Returned), 0);
        assert_eq!((health.commit_shown(1), health.commit_shown(2)), (Some(10), Some(3)));
        for incarnation in 3..30 {
            health.answered(sign(incarnation, 1, Standing::Voting), 0);
        }
        assert_eq!((health.commit_shown(1), health.commit_shown(29)), (None, Some(1)));
    }

    #[test]
    fn a_refused_clock_is_read_out_of_the_refusal() {
        let refusal = SkewError {
            ahead_ms: 3_600_000,
            max_ms: 500,
        };
        assert_eq!(clock_refusal_ms(&refusal.to_string()), Some(3_600_000));
        assert_eq!(clock_refusal_ms("another ring"), None);
        let health = Health::new();
        health.skewed(Some(-3_600_000));
        let status = health.status();
        assert_eq!((status.clock_ahead_ms, status.clock_refusals), (Some(-3_600_000), 1));
        assert!(status.is_skewed);
    }
}
