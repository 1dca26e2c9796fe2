//! Histories of clients of a real machine: right by construction.

use std::collections::BTreeMap;

use linearizability::{Entry, ModelKind, NEVER, Op, Value};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::machine::Machine;

/// Who does what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) model: ModelKind,
    pub(crate) operations: usize,
    pub(crate) clients: u32,
    /// Chance that the outcome is not told.
    pub(crate) unknown: f64,
    /// Chance of a fence.
    pub(crate) fenced: f64,
    /// Chance that a value or a lock ends by itself.
    pub(crate) ending: f64,
    /// Chance of a write or delete; the rest are reads and CAS.
    pub(crate) blind: f64,
    /// Failed CAS say what they found.
    pub(crate) missed: bool,
}

pub(crate) const REGISTER: Workload = Workload {
    model: ModelKind::Register,
    operations: 15,
    clients: 4,
    unknown: 0.05,
    fenced: 0.0,
    ending: 0.0,
    blind: 0.25,
    missed: false,
};

pub(crate) const LOCK: Workload = Workload {
    model: ModelKind::Lock,
    ..REGISTER
};

/// An operation that is still to happen.
struct Slot {
    client: u32,
    called: u64,
    returned: u64,
    what: What,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Told,
    /// Happens, but nobody is told.
    Untold,
    /// Does not happen, and nobody is told.
    Lost,
    Ends(u32),
}

struct Run {
    workload: Workload,
    rng: StdRng,
    machine: Machine,
    slots: BTreeMap<(u64, u32), Slot>,
    /// By client: the value it saw, or the token it took, last.
    seen: Vec<Value>,
    history: Vec<Entry>,
}

impl Workload {
    /// The history of one run, sorted by the moments at which its operations happened.
    pub(crate) fn history(self, seed: u64) -> Vec<Entry> {
        let mut run = Run {
            workload: self,
            rng: StdRng::seed_from_u64(seed),
            machine: Machine::default(),
            slots: BTreeMap::new(),
            seen: vec![None; self.clients as usize],
            history: Vec::new(),
        };
        run.plan();
        let mut fresh = 0;
        while let Some(((now, _), slot)) = run.slots.pop_first() {
            fresh += 1;
            run.happen(now, &slot, fresh);
        }
        run.history
    }
}

impl Run {
    fn plan(&mut self) {
        let (clients, mut now) = (self.workload.clients, vec![0; self.workload.clients as usize]);
        for i in 0..self.workload.operations {
            let client = u32::try_from(i).expect("few") % clients;
            let called = now[client as usize] + self.rng.random_range(0..30);
            let mut happens = called + self.rng.random_range(0..20);
            let mut returned = happens + self.rng.random_range(0..20);
            now[client as usize] = returned + 1;
            let mut what = What::Told;
            if self.rng.random_bool(self.workload.unknown) {
                what = [What::Untold, What::Lost][self.rng.random_range(0..2)];
                returned = NEVER;
                happens = called + self.rng.random_range(0..400);
            }
            let slot = Slot {
                client,
                called,
                returned,
                what,
            };
            self.slots.insert((happens, u32::try_from(i).expect("few")), slot);
        }
    }

    fn happen(&mut self, now: u64, slot: &Slot, fresh: u32) {
        let mut asked = Entry::new(slot.client, 7, slot.called, slot.returned, Op::Read(None));
        if let What::Ends(value) = slot.what {
            asked.op = Op::End(value);
            self.machine.run(&asked);
            return self.history.push(asked);
        }
        asked.op = match self.workload.model {
            ModelKind::Register => self.choose_change(slot.client, fresh),
            ModelKind::Lock => self.choose_lock(slot.client, fresh),
        };
        if matches!(asked.op, Op::Write(_) | Op::Cas { .. }) && self.rng.random_bool(self.workload.fenced) {
            asked.fence = Some((self.machine.fence + self.rng.random_range(0..4)).saturating_sub(1));
        }
        if slot.what == What::Told {
            let told = self.machine.run(&asked);
            self.remember(slot.client, &told);
            self.history.push(self.with_what_was_found(told));
        } else {
            if slot.what == What::Untold {
                self.machine.run(&asked);
            }
            self.history.push(asked);
        }
        let (Op::Write(Some(value)) | Op::Acquire { token: value, .. }) = asked.op else {
            return;
        };
        if self.rng.random_bool(self.workload.ending) {
            let end = Slot {
                client: 99,
                called: now + 20,
                returned: NEVER,
                what: What::Ends(value),
            };
            let order = u32::MAX - fresh;
            self.slots.insert((now + 20 + self.rng.random_range(0..40), order), end);
        }
    }

    fn choose_change(&mut self, client: u32, fresh: u32) -> Op {
        let blind = self.workload.blind;
        match self.rng.random_range(0.0..1.0) {
            at if at < blind * 0.8 => Op::Write(Some(fresh)),
            at if at < blind => Op::Write(None),
            at if at < f64::midpoint(blind, 1.0) => Op::Read(None),
            _ => Op::Cas {
                expected: if self.rng.random_bool(0.5) {
                    self.seen[client as usize]
                } else {
                    self.machine.value
                },
                new: Some(fresh),
                swapped: None,
            },
        }
    }

    fn choose_lock(&mut self, client: u32, fresh: u32) -> Op {
        let owned = self.rng.random_bool(0.5);
        let mine = self.seen[client as usize];
        match (self.rng.random_range(0..10), mine) {
            (0..4, Some(_)) => Op::Release {
                token: mine,
                freed: None,
            },
            (4..6, Some(token)) => Op::Renew { token, held: None },
            (6, _) => Op::Release {
                token: None,
                freed: None,
            },
            _ => Op::Acquire {
                token: fresh,
                owned,
                took: None,
            },
        }
    }

    fn remember(&mut self, client: u32, told: &Entry) {
        match told.op {
            Op::Read(value) | Op::Write(value) => self.seen[client as usize] = value,
            Op::Acquire {
                token,
                took: Some(true),
                ..
            } => self.seen[client as usize] = Some(token),
            _ => {}
        }
    }

    /// A CAS that swapped nothing, as one that says what it found instead, if this workload has them.
    fn with_what_was_found(&self, mut told: Entry) -> Entry {
        if let Op::Cas {
            expected,
            swapped: Some(false),
            ..
        } = told.op
            && self.workload.missed
            && told.refused_below.is_none()
        {
            let found = self.machine.value;
            told.op = Op::CasMissed { expected, found };
        }
        told
    }
}

/// The history with one answer changed.
pub(crate) fn with_a_lie(history: &[Entry], seed: u64) -> Vec<Entry> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut history = history.to_vec();
    let place = rng.random_range(0..history.len());
    let one = rng.random_range(1..=u32::try_from(history.len()).expect("few"));
    let some = Some(one);
    let entry = &mut history[place];
    match &mut entry.op {
        Op::Read(value) | Op::Write(value) => *value = some,
        Op::CasMissed { found, .. } => *found = some,
        Op::Cas { swapped: outcome, .. }
        | Op::Acquire { took: outcome, .. }
        | Op::Release { freed: outcome, .. }
        | Op::Renew { held: outcome, .. } => *outcome = outcome.map(|yes| !yes),
        Op::End(value) => *value = one,
    }
    if rng.random_bool(0.5) {
        entry.fence = entry
            .fence
            .map(|fence| (fence + 2).saturating_sub(rng.random_range(0..5)));
    }
    history
}
