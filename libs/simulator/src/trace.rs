//! Every event of one world as a line of text, for whoever has to find out why a seed fails.

use std::fmt::Write;

use register::state::State;
use register::{Ballot, Reply, Request};

use crate::world::{Message, What, World};

impl World<'_> {
    /// Writes down what is about to happen.
    pub(crate) fn note(&mut self, what: &What) {
        let text = match what {
            What::Arrive(message) => arrive(message),
            What::Answer {
                to, round, rank, reply, ..
            } => {
                format!(
                    "  to f{} {}: round {round} rank {rank}: {}",
                    to.front,
                    to.machine,
                    shown(reply)
                )
            }
            What::Fail {
                to,
                round,
                rank,
                delivered,
            } => {
                let what = if *delivered { "no answer" } else { "not delivered" };
                format!("  to f{} {}: round {round} rank {rank}: {what}", to.front, to.machine)
            }
            // Timers that find nobody would fill the pages.
            What::Wake { to, .. } if self.arena.machines.get(to.machine).is_none() => return,
            What::Wake { to, timer } => format!("  to f{} {}: timer {timer}", to.front, to.machine),
            What::GiveUp { to } if self.arena.machines.get(to.machine).is_none() => return,
            What::Background { .. } => return,
            other => format!("{other:?}"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.arena.trace, "{:>12} {text}", self.now_us);
    }

    /// Writes down what was begun.
    pub(crate) fn note_begun(&mut self, what: std::fmt::Arguments<'_>) {
        if self.traced {
            let _ = writeln!(self.arena.trace, "{:>12} {what}", self.now_us);
        }
    }
}

fn arrive(message: &Message) -> String {
    let copy = if message.copy { " (again)" } else { "" };
    format!(
        "n{} k{} from f{} {} round {}: {}{copy}",
        message.node,
        message.key,
        message.to.front,
        message.to.machine,
        message.round,
        asked(&message.request)
    )
}

fn short(ballot: Ballot) -> String {
    if ballot.is_zero() {
        return "0".to_owned();
    }
    let bits = ballot.time.to_bits();
    // Milliseconds since the world began, the counter, and whose it is.
    let ms = ballot.time.unix_ms().saturating_sub(crate::world::EPOCH_MS);
    format!("{ms}.{}/{}", bits & 0xffff, ballot.incarnation)
}

fn state(state: &State) -> String {
    let lineage: Vec<String> = state.lineage.changes.iter().map(|(ballot, _)| short(*ballot)).collect();
    format!(
        "{} v{} f{} [since {}: {}]",
        state.value.as_deref().unwrap_or("∅"),
        short(state.version),
        state.fence,
        short(state.lineage.since),
        lineage.join(" ")
    )
}

fn asked(request: &Request) -> String {
    match request {
        Request::Read => "read".to_owned(),
        Request::Prepare { ballot } => format!("prepare {}", short(*ballot)),
        Request::Accept {
            ballot,
            state: to,
            blind,
            reserve,
            ..
        } => {
            let blind = if *blind { " blind" } else { "" };
            let reserve = reserve
                .map(|ballot| format!(" reserve {}", short(ballot)))
                .unwrap_or_default();
            format!("accept {} {}{blind}{reserve}", short(*ballot), state(to))
        }
        Request::Install { ballot, state: to } => format!("install {} {}", short(*ballot), state(to)),
        Request::Forget { ballot } => format!("forget {}", short(*ballot)),
        Request::Retire { ballot } => format!("retire {}", short(*ballot)),
        Request::Collect { ballot } => format!("collect {}", short(*ballot)),
    }
}

fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Holds(held) | Reply::Promised(held) => {
            let word = if matches!(reply, Reply::Holds(_)) {
                "holds"
            } else {
                "promised"
            };
            format!(
                "{word} {} {}, promised {}, floor {}",
                short(held.accepted),
                held.state.as_ref().map(state).unwrap_or_default(),
                short(held.promised),
                short(held.floor)
            )
        }
        Reply::Refused { higher } => format!("refused by {}", short(*higher)),
        other => format!("{other:?}"),
    }
}
