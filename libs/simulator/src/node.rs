//! A node as kvstore is one: the register's acceptor behind a disk, a clock and a writer that commits whatever has queued up.
//!
//! What changes something waits in a queue, in the order of arrival, until the writer's next commit decides all of it at once on what is
//! durable and answers only then. A crash before that loses the queue, which nobody has been told anything about; so a crash never has to
//! take anything back, as long as no tooth bites.

use register::acceptor::{Change, Decision, decide, decide_as};
use register::ballot::{Clock, SkewError};
use register::membership::{DropRecords, NodeStatus};
use register::{Ballot, HlcTime, Record, Reply, Request, Standing};

use crate::teeth::ShellTooth;
use crate::world::{MAX_SKEW_MS, Message, What};

/// What a node's disk holds.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// By key.
    pub(crate) records: Vec<Option<Record>>,
    /// The node's clock resumes above this.
    pub(crate) clock: HlcTime,
    /// Floor, standing, and whom it remembers.
    pub(crate) status: NodeStatus,
}

impl Disk {
    /// An empty database, made under this incarnation.
    pub(crate) fn new(keys: usize, incarnation: u64) -> Self {
        let status = NodeStatus {
            incarnation,
            ..NodeStatus::default()
        };
        Self {
            records: vec![None; keys],
            clock: HlcTime::ZERO,
            status,
        }
    }
}

/// One simulated node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) disk: Disk,
    /// An older image of the disk, for a roll-back.
    pub(crate) backup: Option<Disk>,
    clock: Clock,
    /// How wrong its wall clock is.
    pub(crate) offset_ms: i64,
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// Its disk is full: no change can be committed.
    pub(crate) full: bool,
    /// Counts its starts, so that what was under way before a crash is known to be gone.
    pub(crate) start: u32,
    /// Changes that wait for the writer.
    pub(crate) waiting: Vec<Message>,
    /// Something was changed since the last commit.
    changed: bool,
    /// What reached it while it was paused.
    pub(crate) deferred: Vec<What>,
    /// What an early answer was given for, and a crash takes back. Empty unless a tooth bites.
    undo: Vec<(usize, Option<Record>, Ballot)>,
}

impl Node {
    pub(crate) fn new(keys: usize, incarnation: u64) -> Self {
        Self {
            clock: Clock::new(incarnation, MAX_SKEW_MS, HlcTime::ZERO),
            disk: Disk::new(keys, incarnation),
            backup: None,
            offset_ms: 0,
            up: true,
            paused: false,
            full: false,
            start: 0,
            waiting: Vec::new(),
            changed: false,
            deferred: Vec::new(),
            undo: Vec::new(),
        }
    }

    /// Merges the sender's clock and every ballot of the message, or refuses the message.
    pub(crate) fn observe(&mut self, message: &Message, wall_ms: u64) -> Result<(), SkewError> {
        self.observe_clock(message.clock.max(message.request.newest()), wall_ms)
    }

    /// Merges a sender's clock, or refuses it.
    pub(crate) fn observe_clock(&mut self, clock: HlcTime, wall_ms: u64) -> Result<(), SkewError> {
        self.clock.observe(clock, wall_ms)
    }

    /// A reading for an answer.
    pub(crate) fn reading(&mut self, wall_ms: u64) -> HlcTime {
        self.clock.tick(wall_ms)
    }

    /// Answers a read from what is durable.
    pub(crate) fn read(&self, key: usize, wrong: Option<ShellTooth>) -> Reply {
        let status = &self.disk.status;
        if wrong != Some(ShellTooth::ReadsUncommitted) {
            let record = self.disk.records[key].as_ref();
            return decide_as(status.standing, record, status.floor, &Request::Read).reply;
        }
        let (mut record, mut floor) = (self.disk.records[key].clone(), status.floor);
        for message in self.waiting.iter().filter(|message| usize::from(message.key) == key) {
            let decision = decide(record.as_ref(), floor, &message.request);
            apply(&mut record, &mut floor, decision);
        }
        decide_as(status.standing, record.as_ref(), floor, &Request::Read).reply
    }

    /// Decides a change and keeps it.
    pub(crate) fn change(&mut self, key: usize, request: &Request) -> Reply {
        if self.full {
            return Reply::Failed {
                reason: "disk full".to_owned(),
            };
        }
        let (record, status) = (&mut self.disk.records[key], &mut self.disk.status);
        let decision = decide_as(status.standing, record.as_ref(), status.floor, request);
        self.changed |= decision.change != Change::Nothing;
        apply(record, &mut status.floor, decision)
    }

    /// As [`Self::change`], but a crash before [`Self::made_durable`] takes it back: only for a tooth.
    pub(crate) fn change_in_memory(&mut self, key: usize, request: &Request) -> Reply {
        self.undo
            .push((key, self.disk.records[key].clone(), self.disk.status.floor));
        self.change(key, request)
    }

    /// A commit has happened.
    pub(crate) fn made_durable(&mut self) {
        self.undo.clear();
        if !std::mem::take(&mut self.changed) {
            return;
        }
        self.disk.status.commit += 1;
        self.disk.clock = self.disk.clock.max(self.clock.last()).max(self.disk.status.floor.time);
    }

    /// Everything that is not on the disk is gone.
    pub(crate) fn crash(&mut self, wrong: Option<ShellTooth>) {
        self.up = false;
        self.paused = false;
        self.waiting.clear();
        self.changed = false;
        self.deferred.clear();
        self.start += 1;
        for (key, record, floor) in self.undo.drain(..).rev() {
            self.disk.records[key] = record;
            self.disk.status.floor = floor;
        }
        match wrong {
            Some(ShellTooth::PromiseNotPersisted) => {
                for place in &mut self.disk.records {
                    if let Some(record) = place {
                        record.promised = record.accepted;
                    }
                    if place.as_ref().is_some_and(|record| record.accepted.is_zero()) {
                        *place = None;
                    }
                }
            }
            Some(ShellTooth::FloorNotPersisted) => self.disk.status.floor = Ballot::ZERO,
            _ => {}
        }
    }

    /// Starts from what the disk holds.
    pub(crate) fn restart(&mut self) {
        self.up = true;
        self.disk.status = std::mem::take(&mut self.disk.status).after_restart();
        self.clock = Clock::new(self.disk.status.incarnation, MAX_SKEW_MS, self.disk.clock);
    }

    /// True when it is there and counts.
    pub(crate) fn votes(&self) -> bool {
        self.up && self.disk.status.standing == Standing::Voting
    }

    /// Keeps what was decided about the node itself.
    pub(crate) fn keep(&mut self, status: Option<NodeStatus>, drop: DropRecords) {
        if let Some(status) = status {
            self.disk.status = status;
        }
        for place in &mut self.disk.records {
            if place
                .as_ref()
                .is_some_and(|record| drop.drops(record.accepted, record.promised))
            {
                *place = None;
            }
        }
    }
}

fn apply(record: &mut Option<Record>, floor: &mut Ballot, decision: Decision) -> Reply {
    match decision.change {
        Change::Nothing => {}
        Change::Put(new) => *record = Some(new),
        Change::Remove { floor: new } => {
            *record = None;
            *floor = new;
        }
    }
    decision.reply
}
