//! What one batch decides, on top of what is committed.

use std::collections::HashMap;
use std::sync::Arc;

use register::change::{self, Answer, Command};
use register::message::{Reply, Request};
use register::{Ballot, Key, RequestId, acceptor};
use rusqlite::Connection;

use super::StoreError;
use super::job::Origin;
use super::node_row::NodeRow;
use super::rows::{self, Stored};
use super::view::{Known, View};

use crate::clock::NodeClock;

/// Ballots a local change may draw: once more after a refusal told it what stands in the way, and once more for good measure. The writer
/// is alone, so the second cannot be refused for a reason the first did not tell.
const MAX_LOCAL_TRIES: usize = 3;

/// What a batch knows of a key.
#[derive(Debug)]
pub(crate) struct Slot {
    /// There was a record before the batch.
    pub(crate) existed: bool,
    pub(crate) was_hint: bool,
    /// The ballot accepted before the batch.
    pub(crate) was_accepted: Ballot,
    pub(crate) now: Option<Arc<Stored>>,
    changed: bool,
}

#[cfg(test)]
impl Slot {
    /// A change of a record that was there.
    pub(crate) fn changed_to(now: Arc<Stored>) -> Self {
        Self {
            existed: true,
            was_hint: false,
            was_accepted: Ballot::ZERO,
            now: Some(now),
            changed: true,
        }
    }
}

/// What a batch has changed.
pub(crate) struct Changes {
    /// Records as they are after it, sorted by key.
    pub(crate) slots: Vec<(Key, Slot)>,
    /// Every state accepted on the way, in order: one that the same batch replaced may have been chosen all the same.
    pub(crate) accepted: Vec<(Key, Arc<Stored>)>,
}

/// Decisions of one batch, on top of what is committed.
pub(crate) struct Batch<'a> {
    /// The node's row as it will be when the batch is committed.
    node: NodeRow,
    keys: HashMap<Key, Slot>,
    accepted: Vec<(Key, Arc<Stored>)>,
    connection: &'a Connection,
    view: &'a View,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(node: NodeRow, connection: &'a Connection, view: &'a View) -> Self {
        Self {
            node,
            keys: HashMap::new(),
            accepted: Vec::new(),
            connection,
            view,
        }
    }

    /// The node's row and the records as they are to be committed.
    pub(crate) fn into_changes(self) -> (NodeRow, Changes) {
        let mut slots: Vec<(Key, Slot)> = self.keys.into_iter().filter(|(_, slot)| slot.changed).collect();
        slots.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let accepted = self.accepted;
        (self.node, Changes { slots, accepted })
    }

    pub(crate) fn decide(&mut self, from: Origin, key: &Key, request: &Request) -> Reply {
        let slot = match slot(&mut self.keys, self.view, self.connection, key) {
            Ok(slot) => slot,
            Err(reason) => return Reply::Failed { reason },
        };
        let (record, floor) = (slot.now.as_ref().map(|stored| &stored.record), self.node.floor);
        let decision = match from {
            Origin::Coordinator => acceptor::decide_as(self.node.standing, record, floor, request),
            Origin::Local => acceptor::decide(record, floor, request),
        };
        match decision.change {
            acceptor::Change::Nothing => {}
            acceptor::Change::Put(record) => {
                self.node.commit += 1;
                let before = accepted(slot.now.as_deref());
                let stored = Arc::new(Stored {
                    record,
                    commit: self.node.commit,
                });
                if stored.record.accepted != before {
                    self.accepted.push((key.clone(), Arc::clone(&stored)));
                }
                slot.now = Some(stored);
                slot.changed = true;
            }
            acceptor::Change::Remove { floor } => {
                self.node.commit += 1;
                self.node.floor = self.node.floor.max(floor);
                slot.now = None;
                slot.changed = true;
            }
        }
        decision.reply
    }

    /// A change with a ballot of the node's own: what prepare and accept do, in one go.
    pub(crate) fn change(
        &mut self,
        clock: &NodeClock,
        key: &Key,
        command: &Command,
        request: RequestId,
    ) -> Result<Answer, StoreError> {
        let mut ballot = clock.ballot();
        for _ in 0..MAX_LOCAL_TRIES {
            let slot = slot(&mut self.keys, self.view, self.connection, key)
                .map_err(|reason| StoreError::Failed { reason })?;
            let state = slot.now.as_ref().and_then(|stored| stored.record.state.as_ref());
            let applied = change::apply(command, state, ballot, request);
            let Some(state) = applied.next else {
                return Ok(applied.answer);
            };
            let accept = Request::Accept {
                ballot,
                state,
                blind: false,
                reserve: None,
                hint_for: None,
            };
            match self.decide(Origin::Local, key, &accept) {
                Reply::Accepted { .. } => return Ok(applied.answer),
                Reply::Refused { higher } => ballot = clock.ballot_above(higher)?,
                Reply::Fenced { fence } => return Ok(Answer::FenceTooLow { seen: fence }),
                Reply::Corrupt { ballot } => return Err(StoreError::Corrupt { ballot }),
                Reply::Failed { reason } => return Err(StoreError::Failed { reason }),
                other => {
                    let reason = format!("the acceptor answered an accept with {other:?}");
                    return Err(StoreError::Failed { reason });
                }
            }
        }
        Err(StoreError::Failed {
            reason: "no ballot was high enough".to_owned(),
        })
    }
}

/// What is known of a key: from the batch, from what was committed lately, or from the table.
fn slot<'a>(
    keys: &'a mut HashMap<Key, Slot>,
    view: &View,
    connection: &Connection,
    key: &Key,
) -> Result<&'a mut Slot, String> {
    if !keys.contains_key(key) {
        let now = match view.known(key) {
            Known::Record(stored) => Some(stored),
            Known::Dropped => None,
            Known::AskTable => rows::read_record(connection, key)
                .map_err(|error| format!("cannot read the record of {key:?}: {error}"))?
                .map(Arc::new),
        };
        let slot = Slot {
            existed: now.is_some(),
            was_hint: is_hint(now.as_deref()),
            was_accepted: accepted(now.as_deref()),
            now,
            changed: false,
        };
        keys.insert(key.clone(), slot);
    }
    keys.get_mut(key).ok_or_else(|| "the batch lost a key".to_owned())
}

pub(crate) fn is_hint(stored: Option<&Stored>) -> bool {
    stored.is_some_and(|stored| stored.record.hint_for.is_some())
}

fn accepted(stored: Option<&Stored>) -> Ballot {
    stored.map_or(Ballot::ZERO, |stored| stored.record.accepted)
}
