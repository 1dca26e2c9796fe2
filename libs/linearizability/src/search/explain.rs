//! Where exactly a history goes wrong.

use super::Checker;
use super::explore::Found;
use crate::cut::known_at;
use crate::history::{Entry, ModelKind, Time};
use crate::model::{State, after};
use crate::violation::{Violation, ViolationKind};

pub(super) fn key_of(history: &[Entry]) -> u32 {
    history.first().map_or(0, |entry| entry.key)
}

pub(super) fn malformed(history: &[Entry]) -> Violation {
    let early = |entry: &Entry| entry.returned < entry.called;
    let stuck: Vec<usize> = (0..history.len()).filter(|&place| early(&history[place])).collect();
    let explanation = match stuck.first() {
        Some(&place) => format!(
            "`{}` of client {} was answered before it was asked",
            history[place], history[place].client
        ),
        None => "operations of a lock and of a register on one key".to_owned(),
    };
    Violation {
        key: key_of(history),
        kind: ViolationKind::Malformed,
        model: ModelKind::of(history),
        history: history.to_vec(),
        order: Vec::new(),
        stuck,
        explanation,
    }
}

impl Checker {
    /// The violation of a history that is known not to be linearizable: the first answer that made it so, and an order for all before.
    pub(super) fn explain(&mut self, history: &[Entry], model: ModelKind) -> Violation {
        let mut answers: Vec<Time> = history.iter().filter(|e| e.is_certain()).map(|e| e.returned).collect();
        answers.sort_unstable();
        answers.dedup();
        let wrong = self.first_wrong(history, model, &answers);
        let time = answers.get(wrong).copied();
        let answered_then = |entry: &Entry| entry.is_certain() && Some(entry.returned) == time;
        let stuck: Vec<usize> = (0..history.len())
            .filter(|&place| answered_then(&history[place]))
            .collect();
        let before = wrong.checked_sub(1).map(|before| answers[before]);
        let (order, state) = self.order_until(history, model, before);
        let mut explanation = match before {
            Some(before) => format!(
                "all answers until {before} can be explained (an order that does so ends with {state}), but not"
            ),
            None => format!("a key that starts with {state} cannot give"),
        };
        for &place in &stuck {
            let entry = &history[place];
            explanation += &format!(" `{entry}` of client {}", entry.client);
        }
        explanation += &format!(", answered at {}", time.unwrap_or_default());
        Violation {
            key: key_of(history),
            kind: ViolationKind::NotLinearizable,
            model: Some(model),
            history: history.to_vec(),
            order,
            stuck,
            explanation,
        }
    }

    /// Place of the first answer with which the history is known to be wrong; the last one makes it so.
    fn first_wrong(&mut self, history: &[Entry], model: ModelKind, answers: &[Time]) -> usize {
        let (mut right, mut wrong) = (0, answers.len().saturating_sub(1));
        while right < wrong {
            let middle = right.midpoint(wrong);
            let known: Vec<Entry> = known_at(history, answers[middle]).map(|(_, entry)| entry).collect();
            if self.search(&known, model) == Found::Nothing {
                wrong = middle;
            } else {
                right = middle + 1;
            }
        }
        wrong
    }

    /// An order of what was known at `time`, as places in `history`, and the state it leads to.
    fn order_until(&mut self, history: &[Entry], model: ModelKind, time: Option<Time>) -> (Vec<usize>, State) {
        let Some(time) = time else {
            return (Vec::new(), State::default());
        };
        let (places, known): (Vec<usize>, Vec<Entry>) = known_at(history, time).unzip();
        let found = self.search(&known, model);
        let order = self.explorer.order(&self.steps, found);
        let state = order.iter().fold(State::default(), |state, &place| {
            after(&known[place], state).unwrap_or(state)
        });
        (order.into_iter().map(|place| places[place]).collect(), state)
    }
}
