//! Running register operations: a task feeds messages and time to `register`'s state machine and carries its messages out.
//!
//! Promise: an operation that was started is run to its end, within the limits' deadline, whether or not anybody still waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use register::change::{Answer, Command};
use register::proposer::turns::{Change, goes_together};
use register::proposer::{Consistency, Limits, Members, Operation, Outcome, Retry};
use register::{Key, RequestId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::clocks::Clocks;
use crate::drive::{Drive, Running};
use crate::metrics::FrontMetrics;
use crate::ring::{Preference, Ring};
use crate::transport::Transport;
use crate::turns::{Called, Turn, Turns};

/// Everything an operation needs. One per kvfront.
#[derive(Debug)]
pub struct Front {
    /// Where keys live.
    pub ring: Ring,
    /// The way to the nodes.
    pub transport: Arc<Transport>,
    /// The clock, and what the coordinator remembers.
    pub clocks: Arc<Clocks>,
    /// What is counted.
    pub metrics: Arc<FrontMetrics>,
    limits: Limits,
    read_repair: bool,
    slots: Arc<Semaphore>,
    slots_max: usize,
    serving: AtomicBool,
    turns: Arc<Turns>,
}

/// Why an operation was not even started: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// The clocks of too few nodes are known.
    #[error("starting: waiting for the clocks of a quorum of nodes; not yet heard of: {0}")]
    Learning(String),
    /// Too much is under way.
    #[error(
        "too many operations are under way (at most {0}, MAX_CONCURRENT_OPS); nothing was changed, try again shortly"
    )]
    Busy(usize),
}

/// A change as its client named it, so that sending it again does not make it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientRequest {
    /// Drawn at random by the client for one change of one key, and the same in every attempt. Not 0 ([`RequestId::NOBODY`]).
    pub id: RequestId,
    /// In a repetition: when the first attempt was sent at the earliest, in Unix milliseconds, by a clock within `MAX_CLOCK_SKEW_MS`. A
    /// later time than the true one could let the change be made twice; an earlier one only makes *outcome unknown* likelier. None in
    /// the first attempt.
    pub first_attempt_unix_ms: Option<u64>,
}

/// A command, and what it is run on and how.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The key.
    pub key: Key,
    /// What to do with it.
    pub command: Command,
    /// How many answers are enough.
    pub consistency: Consistency,
    /// As in [`Front::run_with`].
    pub request: Option<ClientRequest>,
}

/// What came of beginning a command.
enum Begun {
    Running(Box<Running>),
    /// It was not even begun.
    Ended(Outcome),
    /// Somebody else has the turn at its key.
    InLine(Asked),
}

/// Why nothing is begun while too few nodes are left whose clocks fit.
const CLOCK_REFUSED: &str = "clock skew: the nodes refuse this kvfront's clock, or it theirs (MAX_CLOCK_SKEW_MS)";

impl Front {
    /// Over a started transport. Operations are refused until [`Self::is_learnt`].
    #[must_use]
    pub fn new(
        ring: Ring,
        transport: Arc<Transport>,
        metrics: Arc<FrontMetrics>,
        limits: Limits,
        read_repair: bool,
        max_concurrent_ops: usize,
    ) -> Self {
        let clocks = Arc::clone(transport.clocks());
        let slots_max = max_concurrent_ops.min(Semaphore::MAX_PERMITS);
        let slots = Arc::new(Semaphore::new(slots_max));
        Self {
            ring,
            transport,
            clocks,
            metrics,
            limits,
            read_repair,
            slots,
            slots_max,
            serving: AtomicBool::new(false),
            turns: Arc::default(),
        }
    }

    /// True once, of every preference list, the clocks of a quorum are known: a new ballot is then above all that were acknowledged.
    #[must_use]
    pub fn is_learnt(&self) -> bool {
        if self.serving.load(Ordering::Relaxed) {
            return true;
        }
        let nodes = self.transport.len();
        let learnt = (0..nodes).filter(|&n| self.transport.is_learnt(n)).count();
        let enough = nodes - learnt <= self.ring.may_be_missing();
        if enough {
            self.serving.store(true, Ordering::Relaxed);
        }
        enough
    }

    /// The nodes for which `lacks` holds, with the last error of each, for messages.
    #[must_use]
    pub fn describe_nodes(&self, lacks: impl Fn(usize) -> bool) -> String {
        let names: Vec<_> = (0..self.transport.len())
            .filter(|&node| lacks(node))
            .map(|node| {
                let backend = &self.ring.backends()[node];
                self.transport
                    .status(node)
                    .0
                    .error
                    .map_or_else(|| backend.to_string(), |error| format!("{backend}: {error}"))
            })
            .collect();
        names.join("; ")
    }

    /// Room for `operations` at once (capped at half of all there is), held until dropped.
    ///
    /// # Errors
    /// [`NotStarted`]: still learning clocks, or too busy.
    pub fn admit(&self, operations: usize) -> Result<OwnedSemaphorePermit, NotStarted> {
        if !self.is_learnt() {
            return Err(NotStarted::Learning(
                self.describe_nodes(|node| !self.transport.is_learnt(node)),
            ));
        }
        let wanted = u32::try_from(self.slots_for(operations)).unwrap_or(u32::MAX);
        Arc::clone(&self.slots)
            .try_acquire_many_owned(wanted)
            .map_err(|_| NotStarted::Busy(self.slots_max))
    }

    /// Whether [`Self::admit`] would find room for so many operations now, without taking it.
    ///
    /// # Errors
    /// [`NotStarted::Busy`].
    pub fn room_for(&self, operations: usize) -> Result<(), NotStarted> {
        if self.slots.available_permits() < self.slots_for(operations) {
            return Err(NotStarted::Busy(self.slots_max));
        }
        Ok(())
    }

    /// The slots that so many operations at once take.
    fn slots_for(&self, operations: usize) -> usize {
        operations.clamp(1, (self.slots_max / 2).max(1))
    }

    /// Runs one command on one key, under an id that nobody else uses: [`Self::run_with`] without a client's request.
    pub async fn run(&self, key: &Key, command: Command, consistency: Consistency) -> Outcome {
        self.run_with(key, command, consistency, None).await
    }

    /// Runs one command on one key; with `request`, as one of maybe several attempts that together take effect once. Changes of one key
    /// take [`Turns`].
    pub async fn run_with(
        &self,
        key: &Key,
        command: Command,
        consistency: Consistency,
        request: Option<ClientRequest>,
    ) -> Outcome {
        let (kind, retry) = (kind_of(&command), self.retry(request));
        if self.is_clock_refused(key, consistency) {
            return self.not_begun(key, retry, CLOCK_REFUSED.to_owned());
        }
        let turn = if command == Command::Get {
            None
        } else {
            let asked = Instant::now();
            let patience = Duration::from_millis(self.limits.deadline_ms);
            let change = || Change::new(command.clone(), retry);
            let together = goes_together(&command, retry);
            match self.turns.wait(key, together, change, patience).await {
                Some(Called::Turn(turn)) => Some(turn),
                Some(Called::Refused(answer)) => {
                    self.metrics.op_refuted(kind, asked.elapsed());
                    let copies = self.ring.preference(key).quorum();
                    let refused = Outcome::Answered { answer, copies };
                    if kind == CAS && is_cas_conflict(&refused) {
                        self.metrics.cas_conflict();
                    }
                    return refused;
                }
                None => {
                    let waited_ms = self.limits.deadline_ms;
                    let reason = format!("other changes of this key were under way for {waited_ms} ms");
                    return self.not_begun(key, retry, reason);
                }
            }
        };
        self.drive(self.running(key.clone(), command, retry, consistency, turn))
            .await
    }

    /// Runs commands side by side, at most `at_once` of them at a time: as [`Self::run_with`] does each, and cheaper. Their outcomes, in
    /// their order.
    pub async fn run_all(&self, asked: Vec<Asked>, at_once: usize) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = std::iter::repeat_with(|| None).take(asked.len()).collect();
        let mut asked = (0..).zip(asked);
        let mut drive = Drive::new(self);
        // Changes of keys that somebody else is changing.
        let mut in_line = FuturesUnordered::new();
        loop {
            while drive.running() + in_line.len() < at_once
                && let Some((number, asked)) = asked.next()
            {
                match self.begin(asked) {
                    Begun::Running(running) => drive.start(number, running),
                    Begun::Ended(outcome) => outcomes[number as usize] = Some(outcome),
                    Begun::InLine(asked) => in_line.push(async move {
                        let Asked {
                            key,
                            command,
                            consistency,
                            request,
                        } = asked;
                        (number, self.run_with(&key, command, consistency, request).await)
                    }),
                }
            }
            tokio::select! {
                ended = drive.next(), if drive.running() > 0 => {
                    for (number, outcome) in ended {
                        outcomes[number as usize] = Some(outcome);
                    }
                }
                Some((number, outcome)) = in_line.next(), if !in_line.is_empty() => {
                    outcomes[number as usize] = Some(outcome);
                }
                else => break,
            }
        }
        let lost = || Outcome::Unknown {
            reason: "the operation got lost".to_owned(),
        };
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(lost))
            .collect()
    }

    /// Begins a command, if it needs not wait for its turn.
    fn begin(&self, asked: Asked) -> Begun {
        let retry = self.retry(asked.request);
        let turn = if asked.command == Command::Get {
            None
        } else {
            match self.turns.begin(&asked.key, goes_together(&asked.command, retry)) {
                Some(turn) => Some(turn),
                None => return Begun::InLine(asked),
            }
        };
        if self.is_clock_refused(&asked.key, asked.consistency) {
            return Begun::Ended(self.not_begun(&asked.key, retry, CLOCK_REFUSED.to_owned()));
        }
        Begun::Running(self.running(asked.key, asked.command, retry, asked.consistency, turn))
    }

    fn running(
        &self,
        key: Key,
        command: Command,
        retry: Retry,
        consistency: Consistency,
        turn: Option<Turn>,
    ) -> Box<Running> {
        let preference = Arc::clone(self.ring.preference(&key));
        let members = self.members(&preference);
        let kind = kind_of(&command);
        let mut operation = Operation::new(key, command, retry, consistency, members, self.read_repair);
        if turn.as_ref().is_some_and(Turn::is_among_others) {
            operation = operation.among_others();
        }
        Box::new(Running {
            kind,
            operation,
            preference,
            turn,
            started: Instant::now(),
            trouble: None,
        })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn retry(&self, request: Option<ClientRequest>) -> Retry {
        match request {
            // Zero, which names nobody, is drawn once in 2^64; 1 stands in for it.
            None => Retry::Never(RequestId(rand::random::<u64>().max(1))),
            Some(ClientRequest {
                id,
                first_attempt_unix_ms: None,
            }) => Retry::First(id),
            Some(ClientRequest {
                id,
                first_attempt_unix_ms: Some(first_unix_ms),
            }) => Retry::repeated(id, first_unix_ms, self.clocks.max_skew_ms()),
        }
    }

    /// Whether too few nodes of the key's list are left with whom messages do not fail for the clocks. Trying until the deadline would only
    /// keep clients from asking another kvfront. A node that takes messages again is noticed by its probe.
    fn is_clock_refused(&self, key: &Key, consistency: Consistency) -> bool {
        let preference = self.ring.preference(key);
        let needed = match consistency {
            Consistency::Quorum => preference.quorum(),
            Consistency::One => 1,
        };
        let nodes = preference.nodes.iter();
        nodes.filter(|&&node| !self.transport.is_skewed(node)).count() < needed
    }

    /// The outcome of an attempt that was not even begun.
    fn not_begun(&self, key: &Key, retry: Retry, reason: String) -> Outcome {
        if retry.may_be_repetition() {
            let reason = format!("an earlier attempt may have taken effect; {reason}");
            return Outcome::Unknown { reason };
        }
        let preference = self.ring.preference(key);
        Outcome::Unavailable {
            answered: 0,
            needed: preference.quorum(),
            of: preference.nodes.len(),
            silent: Vec::new(),
            reason,
        }
    }

    /// Commits again, by an identity change, whatever a key holds.
    pub async fn settle(&self, key: &Key) -> Outcome {
        let preference = Arc::clone(self.ring.preference(key));
        let request = RequestId(rand::random::<u64>().max(1));
        let operation = Operation::settle(key.clone(), request, self.members(&preference));
        self.drive(Box::new(Running {
            kind: "settle",
            operation,
            preference,
            turn: None,
            started: Instant::now(),
            trouble: None,
        }))
        .await
    }

    fn members(&self, preference: &Preference) -> Members {
        Members {
            homes: preference.homes,
            names: preference.names.clone(),
            suspected: preference
                .nodes
                .iter()
                .map(|&node| self.transport.is_suspected(node))
                .collect(),
        }
    }

    /// Drives one operation to its end.
    async fn drive(&self, running: Box<Running>) -> Outcome {
        let mut drive = Drive::new(self);
        drive.start(0, running);
        match drive.next().await.pop() {
            Some((_, outcome)) => outcome,
            // What was started ends.
            None => Outcome::Unknown {
                reason: "the operation got lost".to_owned(),
            },
        }
    }
}

/// The label of reads in metrics.
pub(crate) const READ: &str = "get";
/// The label of CAS in metrics.
pub(crate) const CAS: &str = "cas";

/// Whether a CAS ended so because something else was there.
pub(crate) fn is_cas_conflict(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Answered {
            answer: Answer::NotSwapped { .. },
            ..
        }
    )
}

/// The label of a command in metrics.
fn kind_of(command: &Command) -> &'static str {
    match command {
        Command::Get => READ,
        Command::Put { .. } => "put",
        Command::Delete { .. } => "delete",
        Command::Cas { .. } => CAS,
        Command::Acquire { .. } => "lock",
        Command::Release { .. } => "unlock",
        Command::Renew { .. } => "renew",
    }
}

pub(crate) fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered { .. } => "answered",
        Outcome::Unavailable { .. } => "unavailable",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Corrupt { .. } => "corrupt",
    }
}
