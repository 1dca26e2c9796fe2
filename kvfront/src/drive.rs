//! Driving operations: events and time in, messages out; one operation, or many of one task side by side.
//!
//! Those that are driven together share what each would otherwise have of its own: a mailbox, a timer, a waking of the task, and a place in
//! the queue of a node for all that is sent at a time. So a hundred of them cost little more than their steps.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use register::Request;
use register::proposer::{Action, Event, Operation, Outcome};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::front::{CAS, Front, READ, is_cas_conflict, outcome_label};
use crate::make_way::make_way;
use crate::ring::Preference;
use crate::transport::{Mailbox, Outbox, SUSPECT_AFTER, Ticket};
use crate::turns::Turn;

/// Beyond the operation's own deadline, how long until it is given up as unknown. Only reached when the state machine forgets a timer.
const DEADLINE_MARGIN: Duration = Duration::from_secs(1);
/// So shortly before an operation's deadline no accept is sent any more. It would be under way at the deadline, and a change that every node
/// has refused until then could no longer be called not done. Nodes that are well answer in less.
const LAST_CALL: Duration = SUSPECT_AFTER;

/// Operations that one task drives, each under a number that the task has given it.
pub(crate) struct Drive<'a> {
    front: &'a Front,
    mailbox: Arc<Mailbox>,
    /// By number; none for those that have ended.
    running: Vec<Option<Box<Running>>>,
    running_now: usize,
    /// Soonest first. Those of operations that have ended are passed over.
    timers: BinaryHeap<Reverse<(Instant, u32, Timer)>>,
    /// What has arrived, and is next to be looked at.
    events: Vec<(u32, Event)>,
    /// Failures of what an operation wanted to send when it was too late.
    unsent: VecDeque<Event>,
    outbox: Outbox,
    ended: Vec<(u32, Outcome)>,
    /// One that ended has refused others, who have not answered yet.
    told_others: bool,
    /// Runs out no later than the first timer. Put off only when it has run out: most operations end long before.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// An operation that has not ended.
pub(crate) struct Running {
    /// Its label in metrics.
    pub(crate) kind: &'static str,
    pub(crate) operation: Operation,
    pub(crate) preference: Arc<Preference>,
    /// For a change: passed on at its end.
    pub(crate) turn: Option<Turn>,
    /// By whoever made this, when.
    pub(crate) started: Instant,
    /// The last failure.
    pub(crate) trouble: Option<String>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A timer of the operation's own.
    Wake(u32),
    GiveUp,
}

impl<'a> Drive<'a> {
    pub(crate) fn new(front: &'a Front) -> Self {
        Self {
            front,
            mailbox: Mailbox::new(),
            running: Vec::new(),
            running_now: 0,
            timers: BinaryHeap::new(),
            events: Vec::new(),
            unsent: VecDeque::new(),
            outbox: front.transport.outbox(),
            ended: Vec::new(),
            told_others: false,
            sleep: None,
        }
    }

    /// How many have not ended.
    pub(crate) fn running(&self) -> usize {
        self.running_now
    }

    /// Begins an operation, when [`Self::next`] is next called. Its number has not been used before.
    pub(crate) fn start(&mut self, number: u32, running: Box<Running>) {
        let place = number as usize;
        if self.running.len() <= place {
            self.running.resize_with(place + 1, || None);
        }
        self.front.metrics.op_started();
        let give_up_at = running.started + self.deadline() + DEADLINE_MARGIN;
        self.timers.push(Reverse((give_up_at, number, Timer::GiveUp)));
        self.running[place] = Some(running);
        self.running_now += 1;
        self.events.push((number, Event::Start));
    }

    /// Goes on until some of the operations have ended: their outcomes, by number. Empty when none is running. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Vec<(u32, Outcome)> {
        loop {
            self.work();
            if !self.ended.is_empty() || self.running_now == 0 {
                if self.told_others {
                    // They answer first: who is answered first is back first, and a key's line is held for whoever comes back. The one who
                    // has just had the turn would have it again and again.
                    make_way().await;
                    self.told_others = false;
                }
                return std::mem::take(&mut self.ended);
            }
            self.wait().await;
        }
    }

    fn deadline(&self) -> Duration {
        Duration::from_millis(self.front.limits().deadline_ms)
    }

    /// Looks at everything that has arrived, and sends what is to be sent.
    fn work(&mut self) {
        if !self.events.is_empty() {
            let now = Instant::now();
            let mut events = std::mem::take(&mut self.events);
            for (number, event) in events.drain(..) {
                self.step(number, event, now);
            }
            // Kept for its memory.
            self.events = events;
        }
        self.front.transport.send_all(&mut self.outbox);
    }

    /// One event, and what fails on the spot because of it: before anything else, or a deadline that has come meanwhile would find
    /// messages under way that were never sent.
    fn step(&mut self, number: u32, event: Event, now: Instant) {
        self.step_once(number, event, now);
        while let Some(failed) = self.unsent.pop_front() {
            self.step_once(number, failed, now);
        }
    }

    fn step_once(&mut self, number: u32, event: Event, now: Instant) {
        let deadline = self.deadline();
        let Some(Some(running)) = self.running.get_mut(number as usize) else {
            return;
        };
        if let Event::Failed { reason, .. } = &event {
            running.trouble = Some(reason.clone());
        }
        let mut done = None;
        for action in self.front.clocks.step(&mut running.operation, event) {
            match action {
                Action::Send {
                    round,
                    rank,
                    request: Request::Accept { .. },
                } if now >= running.started + deadline.saturating_sub(LAST_CALL) => {
                    let reason = running.trouble.as_deref().unwrap_or("too late to be sent").to_owned();
                    let failed = Event::Failed {
                        round,
                        rank,
                        delivered: false,
                        reason,
                    };
                    self.unsent.push_back(failed);
                }
                Action::Send { round, rank, request } => {
                    if running.kind == READ && matches!(request, Request::Install { .. }) {
                        self.front.metrics.read_repair();
                    }
                    let ticket = Ticket::new(Arc::clone(&self.mailbox), number, round, rank);
                    let (node, key) = (running.preference.nodes[rank], running.operation.key().clone());
                    self.outbox.add(node, key, request, ticket, now);
                }
                Action::Wake { timer, after_ms } => {
                    let at = now + Duration::from_millis(after_ms);
                    self.timers.push(Reverse((at, number, Timer::Wake(timer))));
                }
                Action::Done(outcome) => done = Some(outcome),
            }
        }
        if let Some(outcome) = done {
            self.end(number, outcome);
        }
    }

    fn end(&mut self, number: u32, outcome: Outcome) {
        let Some(running) = self.running.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        self.running_now -= 1;
        let took = running.started.elapsed();
        self.front.metrics.op_done(running.kind, outcome_label(&outcome), took);
        if is_cas_conflict(&outcome) && running.kind == CAS {
            self.front.metrics.cas_conflict();
        }
        if let Outcome::Corrupt { ballot } = &outcome {
            let key = running.operation.key();
            tracing::error!(?key, %ballot, "corruption: two different states under one ballot; nothing was changed");
        }
        if let Some(turn) = running.turn {
            self.told_others |= turn.end(&running.operation);
        }
        self.ended.push((number, outcome));
    }

    fn is_running(&self, number: u32) -> bool {
        self.running.get(number as usize).is_some_and(Option::is_some)
    }

    /// The soonest timer of an operation that has not ended.
    fn first_timer(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, number, _))) = self.timers.peek().copied() {
            if self.is_running(number) {
                return Some(at);
            }
            self.timers.pop();
        }
        None
    }

    /// Waits until something has arrived, or time is up for something.
    async fn wait(&mut self) {
        // Whatever runs has its last timer; without any there would be nothing to wait for.
        let Some(first) = self.first_timer() else { return };
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if sleep.is_elapsed() || sleep.deadline() > first {
                    sleep.as_mut().reset(first);
                }
                sleep
            }
            none => none.insert(Box::pin(sleep_until(first))),
        };
        tokio::select! {
            biased;
            () = self.mailbox.take_into(&mut self.events) => return,
            () = sleep => {}
        }
        let now = Instant::now();
        while let Some(at) = self.first_timer()
            && at <= now
            && let Some(Reverse((_, number, timer))) = self.timers.pop()
        {
            match timer {
                Timer::Wake(timer) => self.events.push((number, Event::Wake { timer })),
                Timer::GiveUp => {
                    let reason = "the operation did not end by its deadline".to_owned();
                    self.end(number, Outcome::Unknown { reason });
                }
            }
        }
    }
}
