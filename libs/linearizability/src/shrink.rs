//! Shorter histories that are wrong for the same reason.

use crate::history::Entry;
use crate::model::changes_nothing;
use crate::search::check;

/// A shorter history of one key that is wrong as well, and whose being wrong proves the whole one wrong.
///
/// A history that is not wrong comes back as it is.
#[must_use]
pub fn shrink(history: &[Entry]) -> Vec<Entry> {
    let Err(violation) = check(history) else {
        return history.to_vec();
    };
    let mut shortest = violation.history;
    let mut place = 0;
    while place < shortest.len() {
        let mut shorter = shortest.clone();
        if changes_nothing(&shorter.remove(place)) && check(&shorter).is_err() {
            shortest = shorter;
        } else {
            place += 1;
        }
    }
    shortest
}
