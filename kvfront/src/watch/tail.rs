//! One node's feed as all watchers of this kvfront share it: the last changes, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use register::Standing;
use register::message::{AcceptedChange, ChangesReply};
use service::Shutdown;
use tokio::sync::watch;
use tokio::time::Instant;

use super::position::Cursor;
use crate::front::Front;
use crate::transport::changes::{ChangesLine, Stretch};

/// Most changes kept per node.
const MAX_CHANGES: usize = 16_384;
/// Most bytes of states kept per node.
const MAX_BYTES: usize = 16 << 20;
/// Most changes asked for at once.
pub(super) const STRETCH_LIMIT: u32 = 1_024;
/// An answer with fewer bytes of states was not ended early for its size.
const WHOLE_MAX_BYTES: usize = 1 << 20;
/// How long a node waits for a change before it says that there is none. Short, so that it is soon known that it had none.
const POLL_WAIT: Duration = Duration::from_millis(300);
/// Pause after a node that does not answer, or is no source now.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(200);
/// Pause after an empty answer that came too soon: the node is stopping.
const PAUSE_AFTER_NOTHING: Duration = Duration::from_millis(50);

/// What a watcher finds behind its cursor.
#[derive(Debug)]
pub(super) enum Found {
    /// Changes, maybe none, and the cursor behind them.
    Here {
        changes: Vec<Arc<AcceptedChange>>,
        cursor: Cursor,
        /// Without `more`: everything the node committed before this time is told, here or before.
        as_of: Option<Instant>,
        /// There are more.
        more: bool,
    },
    /// Not kept here: the node itself has to be asked.
    Elsewhere,
    /// The node counts anew.
    OtherIncarnation(Cursor),
    /// The node has not been heard of yet.
    Unknown,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Tail {
    log: Mutex<Option<Log>>,
}

#[derive(Debug)]
struct Log {
    incarnation: u64,
    /// Every change after this commit, up to `commit`, is in `changes`.
    after: u64,
    commit: u64,
    /// Everything the node committed before this time is told.
    as_of: Option<Instant>,
    changes: VecDeque<Arc<AcceptedChange>>,
    bytes: usize,
}

impl Tail {
    /// What comes after `cursor`, at most `max` changes.
    pub(super) fn after(&self, cursor: Option<Cursor>, max: usize) -> Found {
        let log = self.lock();
        let Some(log) = log.as_ref() else { return Found::Unknown };
        let end = Cursor {
            incarnation: log.incarnation,
            commit: log.commit,
        };
        let Some(cursor) = cursor.filter(|cursor| cursor.incarnation == log.incarnation) else {
            return Found::OtherIncarnation(end);
        };
        if cursor.commit < log.after || cursor.commit > log.commit {
            return Found::Elsewhere;
        }
        let first = log.changes.partition_point(|change| change.commit <= cursor.commit);
        let changes: Vec<_> = log.changes.range(first..).take(max).cloned().collect();
        let more = first + changes.len() < log.changes.len();
        let commit = match changes.last() {
            Some(last) if more => last.commit,
            _ => log.commit,
        };
        Found::Here {
            changes,
            cursor: Cursor { commit, ..end },
            as_of: log.as_of,
            more,
        }
    }

    /// The end of what is known.
    pub(super) fn end(&self) -> Option<Cursor> {
        self.lock().as_ref().map(|log| Cursor {
            incarnation: log.incarnation,
            commit: log.commit,
        })
    }

    /// Follows the node's feed until the stop, and then forgets it.
    pub(super) async fn run(&self, front: &Front, node: usize, moved: &watch::Sender<()>, stop: &Shutdown) {
        let mut line = ChangesLine::default();
        let work = async {
            loop {
                let asked = Instant::now();
                let stretch = self.next_stretch(front, node);
                let pause = match line.ask(front, node, stretch).await {
                    Ok(reply) if reply.standing != Standing::Voting => PAUSE_AFTER_FAILURE,
                    Ok(reply) => {
                        let came_early = reply.changes.is_empty() && !reply.lost && asked.elapsed() < POLL_WAIT / 2;
                        self.append(reply, asked);
                        moved.send_replace(());
                        if came_early {
                            PAUSE_AFTER_NOTHING
                        } else {
                            Duration::ZERO
                        }
                    }
                    Err(reason) => {
                        tracing::debug!(node, reason, "no changes from a node");
                        PAUSE_AFTER_FAILURE
                    }
                };
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        };
        tokio::select! {
            () = stop.stopped() => {}
            () = work => {}
        }
        *self.lock() = None;
    }

    fn next_stretch(&self, front: &Front, node: usize) -> Stretch {
        let status = front.transport.status(node).0;
        // Where nothing is known, a commit that cannot be makes the node tell where it is.
        let Cursor { incarnation, commit } = self.end().unwrap_or(Cursor {
            incarnation: status.incarnation.unwrap_or_default(),
            commit: status.commit.unwrap_or(u64::MAX),
        });
        Stretch {
            incarnation,
            after_commit: commit,
            limit: STRETCH_LIMIT,
            wait: if self.lock().is_some() {
                POLL_WAIT
            } else {
                Duration::ZERO
            },
        }
    }

    fn append(&self, reply: ChangesReply, asked: Instant) {
        let mut slot = self.lock();
        let fresh = Log {
            incarnation: reply.incarnation,
            after: reply.commit,
            commit: reply.commit,
            as_of: Some(asked),
            changes: VecDeque::new(),
            bytes: 0,
        };
        let log = match slot.as_mut() {
            Some(log) if !reply.lost => log,
            // What comes with the first answer is from before: whoever wants that asks the node.
            _ => return *slot = Some(fresh),
        };
        if is_whole(&reply) {
            log.as_of = Some(asked);
        }
        log.commit = reply.commit;
        for change in reply.changes {
            log.bytes += change.state.size_bytes();
            log.changes.push_back(Arc::new(change));
        }
        while log.changes.len() > MAX_CHANGES || log.bytes > MAX_BYTES {
            let Some(oldest) = log.changes.pop_front() else { break };
            log.bytes -= oldest.state.size_bytes();
            log.after = oldest.commit;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Log>> {
        // Every change of the log leaves it whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an answer certainly tells all there was. Nodes end an answer early at the limit asked for, or after some mebibytes.
pub(super) fn is_whole(reply: &ChangesReply) -> bool {
    let bytes: usize = reply.changes.iter().map(|change| change.state.size_bytes()).sum();
    reply.changes.len() < usize::try_from(STRETCH_LIMIT).unwrap_or_default() && bytes < WHOLE_MAX_BYTES
}
