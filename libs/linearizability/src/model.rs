//! The two specifications: what an operation makes of a state, if it can have been answered so there.

use std::fmt;

use crate::history::{Entry, Op, shown};

/// What a single register or lock holds. A lock's value is the holder's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct State {
    pub(crate) value: Option<u32>,
    /// The lock was taken by an owner.
    pub(crate) owned: bool,
    /// Register: the highest fence a write came with. Lock: the last fence handed out.
    pub(crate) fence: u64,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.value))?;
        if self.fence > 0 {
            write!(f, " with fence {}", self.fence)?;
        }
        Ok(())
    }
}

/// The state after `entry` took effect in `state`; `None` when it cannot have been answered so.
///
/// An outcome that is not known is whatever the state makes of it.
#[inline]
pub(crate) fn after(entry: &Entry, state: State) -> Option<State> {
    match entry.op {
        Op::Acquire { token, owned, took } => acquire(entry.fence, token, owned, took, state),
        Op::Release { token, freed } => release(token, freed, state),
        Op::Renew { token, held } => held
            .is_none_or(|held| held == (state.value == Some(token)))
            .then_some(state),
        Op::Read(seen) => (seen == state.value).then_some(state),
        Op::End(ending) if state.value == Some(ending) => Some(State {
            value: None,
            owned: false,
            ..state
        }),
        // Gone before; but one that never happened need not be told of.
        Op::End(_) => entry.is_certain().then_some(state),
        Op::Write(_) | Op::Cas { .. } | Op::CasMissed { .. } => change(entry, state),
    }
}

fn change(entry: &Entry, state: State) -> Option<State> {
    if let Some(seen) = entry.refused_below {
        let refused = entry.fence.is_some_and(|fence| fence < seen) && state.fence == seen;
        return refused.then_some(state);
    }
    if entry.fence.is_some_and(|fence| fence < state.fence) {
        return None;
    }
    let put = |value| State {
        value,
        fence: entry.fence.unwrap_or(state.fence),
        ..state
    };
    match entry.op {
        Op::Write(new) => Some(put(new)),
        Op::Cas { expected, new, swapped } => {
            let swaps = expected == state.value;
            swapped
                .is_none_or(|swapped| swapped == swaps)
                .then(|| if swaps { put(new) } else { state })
        }
        Op::CasMissed { expected, found } => (found != expected && found == state.value).then_some(state),
        _ => None,
    }
}

fn acquire(fence: Option<u64>, token: u32, owned: bool, took: Option<bool>, state: State) -> Option<State> {
    let takes = state.value.is_none();
    if took.is_some_and(|took| took != takes) {
        return None;
    }
    if !takes {
        return Some(state);
    }
    // A fence that nobody was told is one more than the last: whatever it was, what came after it is above that too.
    let fence = fence.unwrap_or(state.fence.saturating_add(1));
    (fence > state.fence).then_some(State {
        value: Some(token),
        owned,
        fence,
    })
}

fn release(token: Option<u32>, freed: Option<bool>, state: State) -> Option<State> {
    let frees = match (state.value, token) {
        (None, _) => true,
        (Some(_), None) => !state.owned,
        (holder, token) => holder == token,
    };
    if freed.is_some_and(|freed| freed != frees) {
        return None;
    }
    if frees {
        return Some(State {
            value: None,
            owned: false,
            ..state
        });
    }
    Some(state)
}

/// True for an operation that, answered so, leaves every state as it is.
pub(crate) fn changes_nothing(entry: &Entry) -> bool {
    entry.refused_below.is_some()
        || matches!(
            entry.op,
            Op::Read(_)
                | Op::CasMissed { .. }
                | Op::Renew { .. }
                | Op::Cas {
                    swapped: Some(false),
                    ..
                }
                | Op::Acquire { took: Some(false), .. }
                | Op::Release { freed: Some(false), .. }
        )
}
