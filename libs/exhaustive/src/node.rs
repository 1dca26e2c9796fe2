//! A node: the real acceptor's decisions, and what must hold of each.

use register::acceptor::{Change, Decision, decide};
use register::{Ballot, Record, Reply, Request};

/// What a node holds of the key, durably. A crash loses nothing but messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) record: Option<Record>,
    pub(crate) floor: Ballot,
}

/// What a request did to a node.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) node: Node,
    pub(crate) reply: Reply,
    /// It changed nothing, and never will: what stands in its way only grows.
    pub(crate) inert: bool,
    /// A rule that every acceptor keeps and this one broke.
    pub(crate) broken: Option<String>,
}

impl Node {
    pub(crate) fn ask(&self, request: &Request) -> Asked {
        let Decision { reply, change } = decide(self.record.as_ref(), self.floor, request);
        let unchanged = change == Change::Nothing;
        let mut node = self.clone();
        match change {
            Change::Nothing => {}
            Change::Put(record) => node.record = Some(record),
            Change::Remove { floor } => {
                node.record = None;
                node.floor = floor;
            }
        }
        let inert = unchanged
            && (matches!(request, Request::Read | Request::Install { .. }) || matches!(reply, Reply::Refused { .. }));
        Asked {
            broken: self.broken_by(&node, &reply),
            node,
            reply,
            inert,
        }
    }

    /// The state accepted last and its ballot.
    pub(crate) fn accepted(&self) -> Option<(Ballot, &register::State)> {
        let record = self.record.as_ref()?;
        Some((record.accepted, record.state.as_ref()?))
    }

    /// Nothing below this is promised, and nothing at or below [`Self::accepted`] or the floor accepted.
    fn bar(&self) -> Ballot {
        let of_record = |record: &Record| record.promised.max(record.accepted);
        self.record.as_ref().map_or(self.floor, of_record)
    }

    fn broken_by(&self, after: &Self, reply: &Reply) -> Option<String> {
        if let Reply::Corrupt { ballot } = reply {
            return Some(format!("a node was given two states under {ballot}"));
        }
        if after.floor < self.floor {
            return Some("a node's floor fell".to_owned());
        }
        if after.bar() < self.bar() {
            return Some("a node takes again what it refused before".to_owned());
        }
        let (before, now) = (self.accepted(), after.accepted());
        match (before, now) {
            (Some((before, _)), Some((now, _))) if now < before => Some("an accepted ballot fell".to_owned()),
            (Some((before, _)), None) if after.floor < before => {
                Some("a node dropped a record and kept no floor for it".to_owned())
            }
            _ => None,
        }
    }
}
