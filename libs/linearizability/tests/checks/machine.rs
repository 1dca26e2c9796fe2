//! A register and a lock that really run, one operation after the other: written apart from the checker's models, to be held against them.

use linearizability::{Entry, Op, Value};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) value: Value,
    owned: bool,
    pub(crate) fence: u64,
}

impl Machine {
    /// Runs what `asked` asks for, whatever answer stands there; what the client is told, and whether anything happened.
    pub(crate) fn run(&mut self, asked: &Entry) -> Entry {
        let mut told = *asked;
        told.refused_below = None;
        match &mut told.op {
            Op::Read(seen) => *seen = self.value,
            Op::Write(_) | Op::Cas { .. } | Op::CasMissed { .. } => return self.change(asked),
            Op::Acquire { token, owned, took } => {
                *took = Some(self.value.is_none());
                if self.value.is_none() {
                    (self.value, self.owned) = (Some(*token), *owned);
                    self.fence = asked.fence.unwrap_or(0).max(self.fence + 1);
                    told.fence = Some(self.fence);
                } else {
                    told.fence = None;
                }
            }
            Op::Release { token, freed } => {
                let may = match *token {
                    Some(token) => self.value == Some(token),
                    None => !self.owned,
                };
                *freed = Some(may || self.value.is_none());
                if may {
                    (self.value, self.owned) = (None, false);
                }
            }
            Op::Renew { token, held } => *held = Some(self.value == Some(*token)),
            Op::End(value) => {
                if self.value == Some(*value) {
                    (self.value, self.owned) = (None, false);
                }
            }
        }
        told
    }

    fn change(&mut self, asked: &Entry) -> Entry {
        let mut told = *asked;
        if asked.fence.is_some_and(|fence| fence < self.fence) {
            told.refused_below = Some(self.fence);
            return told;
        }
        told.refused_below = None;
        let swap = |machine: &mut Self, new| {
            machine.value = new;
            machine.fence = asked.fence.unwrap_or(machine.fence);
        };
        match &mut told.op {
            Op::Write(new) => swap(self, *new),
            Op::Cas { expected, new, swapped } => {
                *swapped = Some(self.value == *expected);
                if self.value == *expected {
                    swap(self, *new);
                }
            }
            // Asked for as one that misses: it finds what is there, and if that is what it expected it has not missed.
            Op::CasMissed { found, .. } => *found = self.value,
            other => panic!("{other:?} changes nothing"),
        }
        told
    }

    /// What becomes of it by `entry`, if this is what `entry` was told, or nothing is known of that.
    pub(crate) fn gave(mut self, entry: &Entry, certain: bool) -> Option<Self> {
        let before = self;
        let certain = certain || !unknown(&entry.op);
        if let Op::Acquire { took, .. } = entry.op {
            // A fence is the lock's choice: any above the last is right.
            let told = self.run(&Entry { fence: None, ..*entry });
            if certain && told.op != entry.op {
                return None;
            }
            if told.fence.is_some()
                && let Some(fence) = entry.fence
            {
                self.fence = fence;
                return (fence > before.fence && took != Some(false)).then_some(self);
            }
            return Some(self);
        }
        if let Op::CasMissed { expected, found } = entry.op
            && expected == found
        {
            return None;
        }
        let told = self.run(entry);
        (!certain || told.op == entry.op && told.refused_below == entry.refused_below).then_some(self)
    }
}

fn unknown(op: &Op) -> bool {
    matches!(
        op,
        Op::Cas { swapped: None, .. }
            | Op::Acquire { took: None, .. }
            | Op::Release { freed: None, .. }
            | Op::Renew { held: None, .. }
    )
}
