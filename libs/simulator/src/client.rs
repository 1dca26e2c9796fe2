//! Clients: what they ask, and what the history says of it.

use std::sync::Arc;

use linearizability::{Entry, NEVER, Op};
use register::change::{Answer, Command};
use register::proposer::turns::{Began, Change};
use register::proposer::{Consistency, Operation, Outcome, Retry};
use register::{Ballot, RequestId};

use crate::mix::Chosen;
use crate::slab::Id;
use crate::world::{CLOCKS_APART_US, MAX_SKEW_MS, Trouble, US_PER_MS, What, World, small};

/// A client whose coordinator has not started yet asks again after at most this time, in microseconds.
const ASK_AGAIN_US: u64 = 300 * US_PER_MS;

/// Attempts of a client beyond its first.
const ATTEMPTS_MAX: u32 = 3;

/// What a client remembers of a key.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// What it saw there last, or the token of the lock that it took.
    pub(crate) value: Option<u32>,
    pub(crate) version: Option<Ballot>,
}

/// One simulated client: one call or one batch at a time.
#[derive(Debug)]
pub(crate) struct Client {
    left: u32,
    /// Calls that it waits for.
    waiting: u32,
    /// By key.
    pub(crate) seen: Vec<Seen>,
}

impl Client {
    pub(crate) fn new(keys: usize, calls: u32) -> Self {
        Self {
            left: calls,
            waiting: 0,
            seen: vec![Seen::default(); keys],
        }
    }
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Call {
    client: u8,
    key: u16,
    /// Its place in the history.
    entry: u32,
    command: Command,
    consistency: Consistency,
    request: u32,
    /// The client sends it again when it is not told what came of it.
    retried: bool,
    /// Attempts that came to nothing known.
    attempts: u32,
    first_attempt_ms: u64,
    /// Operations of the same batch on the same key that come after it.
    then: u32,
}

impl Call {
    fn retry(&self) -> Retry {
        let request = RequestId(u64::from(self.request));
        match (self.retried, self.attempts) {
            (false, _) => Retry::Never(request),
            (true, 0) => Retry::First(request),
            (true, _) => Retry::repeated(request, self.first_attempt_ms, MAX_SKEW_MS),
        }
    }
}

impl World<'_> {
    /// A client makes its next call, or its next batch.
    pub(crate) fn client_step(&mut self, client: usize) {
        if self.clients[client].left == 0 {
            self.busy_clients -= 1;
            return;
        }
        self.clients[client].left -= 1;
        let keys = self.places.len();
        if self.rng.per_mille(self.kind.work.batch_per_mille) {
            let parts = 2 + self.rng.index(2);
            let first = self.rng.index(keys);
            // Distinct keys, as neighbours are.
            for part in 0..parts.min(keys) {
                let then = self.rng.below(3);
                self.clients[client].waiting += 1;
                self.call(client, (first + part) % keys, u32::try_from(then).unwrap_or(0));
            }
        } else {
            let key = self.kind.draw_key(&mut self.rng, keys);
            self.clients[client].waiting += 1;
            self.call(client, key, 0);
        }
    }

    fn call(&mut self, client: usize, key: usize, then: u32) {
        let number = self.new_number();
        let seen = self.clients[client].seen[key];
        let Chosen {
            op,
            command,
            consistency,
            fence,
            ends_after_ms,
        } = self.choose(key, number, seen);
        let (client_no, key_no) = (u32::from(small(client)), u32::from(crate::front::small_key(key)));
        let now = self.now_us;
        let mut entry = Entry::new(client_no, key_no, now, NEVER, op);
        entry.fence = fence;
        self.operations += 1;
        let is_change = !matches!(op, Op::Read(_));
        let place = self.history().len();
        self.history().push(entry);
        if let Some(ttl_ms) = ends_after_ms {
            let from = now + (ttl_ms * US_PER_MS).saturating_sub(CLOCKS_APART_US);
            self.history()
                .push(Entry::new(client_no, key_no, from, NEVER, Op::End(number)));
        }
        let call = Call {
            client: small(client),
            key: crate::front::small_key(key),
            entry: u32::try_from(place).unwrap_or(u32::MAX),
            command,
            consistency,
            request: number,
            // A coordinator whose clock is hours behind may use a ballot from before a client's first attempt, which a repetition then
            // does not look for; such clocks and repetitions are not mixed (see the results).
            retried: is_change && !self.plan.nemeses.has('h') && self.rng.per_mille(self.kind.work.retry_per_mille),
            attempts: 0,
            first_attempt_ms: self.wall_ms(0),
            then,
        };
        let id = self.calls().insert(call);
        self.ask(id, client);
    }

    fn ask(&mut self, id: Id, client: usize) {
        let front = if self.rng.per_mille(self.plan.loyal_per_mille) {
            client % self.fronts.len()
        } else {
            self.rng.index(self.fronts.len())
        };
        let what = What::Called {
            call: id,
            front: small(front),
        };
        if self.fronts[front].paused {
            self.after(0, what);
        } else {
            self.called(id, front);
        }
    }

    /// A call has reached a coordinator.
    pub(crate) fn called(&mut self, id: Id, front: usize) {
        if !self.is_serving(front) {
            // It says so at once, and the client asks somebody, later.
            let front = self.rng.index(self.fronts.len());
            let after = self.rng.range(US_PER_MS, ASK_AGAIN_US);
            return self.after(
                after,
                What::Called {
                    call: id,
                    front: small(front),
                },
            );
        }
        let turns = self.kind.turns;
        let Some(call) = self.calls().get(id) else { return };
        if turns && call.command != Command::Get {
            let (key, change) = (call.key, Change::new(call.command.clone(), call.retry()));
            self.take_turn(front, key, id, change);
        } else {
            self.begin_call(front, id, None);
        }
    }

    /// The call's operation begins.
    pub(crate) fn begin_call(&mut self, front: usize, id: Id, turn: Option<Began>) {
        let Some(call) = self.calls().get(id) else { return };
        let (key, command, retry) = (call.key, call.command.clone(), call.retry());
        let consistency = call.consistency;
        let members = self.members(front, usize::from(key));
        let name = self.places[usize::from(key)].key.clone();
        let mut operation = Operation::new(name, command, retry, consistency, members, self.plan.read_repair);
        if turn.is_some_and(Began::is_among_others) {
            operation = operation.among_others();
        }
        self.start_operation(front, key, operation, Some((id, turn)));
    }

    /// A call has been answered, or never will be.
    pub(crate) fn call_ended(&mut self, id: Id, outcome: Outcome) {
        let Some(mut call) = self.calls().remove(id) else {
            return;
        };
        if call.retried && call.attempts < ATTEMPTS_MAX && matches!(outcome, Outcome::Unknown { .. }) {
            call.attempts += 1;
            let again = self.calls().insert(call);
            let front = small(self.rng.index(self.fronts.len()));
            let after = self.rng.below(self.plan.think_us);
            return self.after(after, What::Called { call: again, front });
        }
        let was_tried_before = call.attempts > 0;
        let (client, key) = (usize::from(call.client), usize::from(call.key));
        let now = self.now_us;
        let place = call.entry as usize;
        match outcome {
            // An earlier attempt may have taken a lock that is gone by now: what is told is only how things are.
            Outcome::Answered {
                answer: Answer::LockHeld { .. } | Answer::NotRenewed,
                ..
            } if was_tried_before => {}
            Outcome::Answered { answer, .. } => {
                let mut entry = self.history()[place];
                entry.returned = now;
                match told(&mut entry, &answer) {
                    Some(seen) => self.saw(client, key, &entry.op, seen),
                    None => self.bad(Trouble::Absurd(format!("{:?} was answered with {answer:?}", entry.op))),
                }
                self.history()[place] = entry;
            }
            // Nothing was written (or read): a promise that the checker holds it to.
            Outcome::Unavailable { .. } if !was_tried_before => {
                self.unavailable += 1;
                self.history()[place].called = NEVER;
            }
            // It stays pending for ever: it may take effect at any time, or never.
            Outcome::Unavailable { .. } | Outcome::Unknown { .. } | Outcome::Corrupt { .. } => {
                self.unknown += 1;
                if matches!(self.history()[place].op, Op::Read(_)) {
                    self.history()[place].called = NEVER;
                }
            }
        }
        if call.then > 0 {
            return self.call(client, key, call.then - 1);
        }
        let after = self.rng.below(self.plan.think_us);
        let client = &mut self.clients[client];
        client.waiting -= 1;
        if client.waiting == 0 {
            self.after(after, What::Step { client: call.client });
        }
    }

    /// What the answer tells the client for its next calls.
    fn saw(&mut self, client: usize, key: usize, op: &Op, (value, version): (Option<u32>, Option<Ballot>)) {
        let keep = match op {
            Op::Read(_) | Op::Write(_) | Op::CasMissed { .. } => true,
            Op::Cas { swapped, .. } => *swapped == Some(true),
            Op::Acquire { took, .. } => *took == Some(true),
            Op::Release { .. } | Op::Renew { .. } | Op::End(_) => false,
        };
        if keep {
            self.clients[client].seen[key] = Seen { value, version };
        }
        if self.kind.is_judged()
            && let (Some(number), Some(version)) = (value, version)
            && let Err(other) = self.versions.agree(number, version)
        {
            self.bad(Trouble::Absurd(format!(
                "key {key}: the value {number} has the versions {other} and {version}"
            )));
        }
    }
}

/// Writes an answer into its entry, and gives the value and the version that it tells of; `None` when it answers another question.
fn told(entry: &mut Entry, answer: &Answer) -> Option<(Option<u32>, Option<Ballot>)> {
    let number = |text: &Arc<str>| text.parse::<u32>().ok();
    if let Answer::FenceTooLow { seen } = answer {
        entry.refused_below = Some(*seen);
        return Some((None, None));
    }
    let told = match (&mut entry.op, answer) {
        (Op::Read(seen), Answer::Value { value, version }) => {
            *seen = Some(number(value)?);
            (*seen, Some(*version))
        }
        (Op::Read(seen), Answer::Absent) => {
            *seen = None;
            (None, None)
        }
        (Op::Write(value), Answer::Written { version }) => (*value, Some(*version)),
        (Op::Cas { new, swapped, .. }, Answer::Swapped { version } | Answer::Written { version }) => {
            *swapped = Some(true);
            (*new, Some(*version))
        }
        (Op::Cas { expected, .. }, Answer::NotSwapped { current, version }) => {
            let found = match current {
                Some(text) => Some(number(text)?),
                None => None,
            };
            entry.op = Op::CasMissed {
                expected: *expected,
                found,
            };
            (found, *version)
        }
        (Op::Acquire { took, token, .. }, Answer::Locked { fence, .. }) => {
            *took = Some(true);
            entry.fence = Some(*fence);
            (Some(*token), None)
        }
        (Op::Acquire { took, .. }, Answer::LockHeld { .. }) => {
            *took = Some(false);
            (None, None)
        }
        (Op::Release { freed, .. }, Answer::Released(yes)) => {
            *freed = Some(*yes);
            (None, None)
        }
        (Op::Renew { held, .. }, Answer::Renewed { .. }) => {
            *held = Some(true);
            (None, None)
        }
        (Op::Renew { held, .. }, Answer::NotRenewed) => {
            *held = Some(false);
            (None, None)
        }
        _ => return None,
    };
    Some(told)
}

/// Each value is written once, so it has one version.
#[derive(Debug, Default)]
pub(crate) struct Versions(Vec<Ballot>);

impl Versions {
    /// Notes the version of a value.
    ///
    /// # Errors
    /// Another version that it was known to have.
    fn agree(&mut self, number: u32, version: Ballot) -> Result<(), Ballot> {
        let place = number as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, Ballot::ZERO);
        }
        let known = &mut self.0[place];
        if known.is_zero() {
            *known = version;
        }
        if *known == version { Ok(()) } else { Err(*known) }
    }
}
