//! Messages in flight.

use register::{Reply, Request};

/// No process waits for the answer: the second copy of a request.
pub(crate) const NOBODY: usize = usize::MAX;

/// A request on its way to a node, or its answer on the way back.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The process that asked.
    pub(crate) from: usize,
    /// Which of the state machines that this process has been.
    pub(crate) life: u8,
    /// The machine's round.
    pub(crate) round: u32,
    /// The node.
    pub(crate) rank: usize,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Request(Request),
    Reply(Reply),
}

impl Message {
    pub(crate) fn is_request(&self) -> bool {
        matches!(self.body, Body::Request(_))
    }

    /// The same request once more; its answer goes nowhere, as a machine is given one answer per request.
    pub(crate) fn echo(&self) -> Self {
        Self {
            from: NOBODY,
            life: 0,
            round: 0,
            rank: self.rank,
            body: self.body.clone(),
        }
    }

    pub(crate) fn answered(&self, reply: Reply) -> Self {
        Self {
            body: Body::Reply(reply),
            ..self.clone()
        }
    }
}
