//! What the writer is asked, and what it answers when.

use register::change::{Answer, Command};
use register::membership::{NodeRequest, NodeStatus};
use register::message::{Reply, Request};
use register::{Epoch, Key, RequestId};
use tokio::sync::oneshot;

use super::StoreError;

/// Who wants something decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A coordinator, which is answered as the node's standing allows.
    Coordinator,
    /// This node's own KV API, which always works: it acts on one replica, outside the cluster's guarantee.
    Local,
}

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Decide protocol requests in order.
    Decide {
        requests: Vec<(Key, Request)>,
        from: Origin,
        answer: oneshot::Sender<Result<Vec<Reply>, StoreError>>,
    },
    /// Change a key with a ballot of the node's own.
    Change {
        key: Key,
        command: Command,
        request: RequestId,
        answer: oneshot::Sender<Result<Answer, StoreError>>,
    },
    /// Decide a request about the node itself, from a coordinator of this ring.
    Node {
        request: NodeRequest,
        epoch: Epoch,
        answer: oneshot::Sender<Result<(bool, NodeStatus), StoreError>>,
    },
    /// Try a commit, to see whether the disk is well again.
    Probe {
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Take no further jobs, finish what is queued, and end.
    Stop,
    /// Statements of a test.
    #[cfg(test)]
    Sql {
        sql: &'static str,
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    /// A bug of a test.
    #[cfg(test)]
    Panic {
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
}

impl Job {
    /// How much of a batch it is.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Decide { requests, .. } => requests.len(),
            _ => 1,
        }
    }
}

/// Why a commit did not happen.
pub(super) enum CommitError {
    /// Nothing was changed, for certain.
    Nothing(String),
    /// The changes may be found after a crash.
    Unknown(String),
}

impl CommitError {
    pub(super) fn reason(&self) -> &str {
        let (Self::Nothing(reason) | Self::Unknown(reason)) = self;
        reason
    }
}

/// An answer that waits for the commit.
pub(super) enum Waiting {
    Decide(Vec<Reply>, oneshot::Sender<Result<Vec<Reply>, StoreError>>),
    Change(Result<Answer, StoreError>, oneshot::Sender<Result<Answer, StoreError>>),
}

impl Waiting {
    /// The commit has happened.
    pub(super) fn send(self) {
        // A client that hung up does not want its answer; the change stands all the same.
        match self {
            Self::Decide(replies, answer) => drop(answer.send(Ok(replies))),
            Self::Change(result, answer) => drop(answer.send(result)),
        }
    }

    /// It has not.
    pub(super) fn fail(self, error: &CommitError) {
        match (self, error) {
            (Self::Decide(replies, answer), CommitError::Nothing(reason)) => {
                let failed = replies
                    .iter()
                    .map(|_| Reply::Failed { reason: reason.clone() })
                    .collect();
                drop(answer.send(Ok(failed)));
            }
            (Self::Decide(_, answer), CommitError::Unknown(reason)) => {
                drop(answer.send(Err(StoreError::Unknown { reason: reason.clone() })));
            }
            (Self::Change(_, answer), CommitError::Nothing(reason)) => {
                drop(answer.send(Err(StoreError::Failed { reason: reason.clone() })));
            }
            (Self::Change(_, answer), CommitError::Unknown(reason)) => {
                drop(answer.send(Err(StoreError::Unknown { reason: reason.clone() })));
            }
        }
    }
}
