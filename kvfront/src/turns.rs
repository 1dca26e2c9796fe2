//! Waiting for a turn at a key: `register`'s [lines](register::proposer::turns), with tasks that wait in them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use register::Key;
use register::change::Answer;
use register::proposer::Operation;
use register::proposer::turns::{self, Began, Change, Hold};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How long a turn is kept for somebody whose change is not refuted already: about what it takes those who were just told to ask again.
const HOLD: Duration = Duration::from_millis(1);

/// The lines of this kvfront.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    lines: Mutex<turns::Turns<oneshot::Sender<Called>>>,
}

/// What becomes of one that waits.
#[derive(Debug)]
pub(crate) enum Called {
    /// It is its turn.
    Turn(Turn),
    /// It is refused by what the one before it ended on.
    Refused(Answer),
}

/// The right to change a key. Dropped, it passes to the next.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    key: Key,
    began: Began,
    /// It is given back, and passed on if that is to be done.
    passed: bool,
    /// It is given back.
    left: bool,
}

impl Turns {
    /// A turn at `key` at once, for a change that [goes together](turns::goes_together) with others or not; none where that would mean to wait.
    pub(crate) fn begin(self: &Arc<Self>, key: &Key, together: bool) -> Option<Turn> {
        let began = self.lock().begin(key, together)?;
        Some(self.turn(key, began))
    }

    /// Waits for a turn at `key`, or to be refused by somebody else's; `None` when neither came in time.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        key: &Key,
        together: bool,
        change: impl FnOnce() -> Change,
        patience: Duration,
    ) -> Option<Called> {
        if let Some(turn) = self.begin(key, together) {
            return Some(Called::Turn(turn));
        }
        let (called, mut call) = oneshot::channel();
        if let Some(began) = self.lock().join(key, change, || called) {
            return Some(Called::Turn(self.turn(key, began)));
        }
        match timeout(patience, &mut call).await {
            Ok(called) => called.ok(),
            Err(_) => {
                // A turn that came at the last moment is not lost.
                call.close();
                call.try_recv().ok()
            }
        }
    }

    fn turn(self: &Arc<Self>, key: &Key, began: Began) -> Turn {
        Turn {
            turns: Arc::clone(self),
            key: key.clone(),
            began,
            passed: false,
            left: false,
        }
    }

    fn call_next(self: &Arc<Self>, key: &Key, ended: Option<&Operation>) {
        loop {
            let Some((next, began)) = self.lock().next(key, ended) else {
                return;
            };
            if let Err(Called::Turn(mut unwanted)) = next.send(Called::Turn(self.turn(key, began))) {
                // It has given up waiting. If nobody else has a turn now, the next round finds who is next.
                unwanted.passed = true;
                let _ = self.lock().leave(key);
            }
        }
    }

    /// Ends a hold when its time is over; at once where nothing can wait for that.
    fn release_soon(self: &Arc<Self>, key: &Key, hold: Hold) {
        let (turns, key) = (Arc::clone(self), key.clone());
        let Ok(runtime) = Handle::try_current() else {
            turns.release(&key, hold);
            return;
        };
        runtime.spawn(async move {
            sleep(HOLD).await;
            turns.release(&key, hold);
        });
    }

    fn release(self: &Arc<Self>, key: &Key, hold: Hold) {
        let nobody_came = self.lock().release(key, hold);
        if nobody_came {
            self.call_next(key, None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, turns::Turns<oneshot::Sender<Called>>> {
        // A line is whole after every statement.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether others have their turn together with this one.
    pub(crate) const fn is_among_others(&self) -> bool {
        self.began.is_among_others()
    }

    /// Passes the turn on when `operation` has ended, with word to those it refutes; true when there are any.
    pub(crate) fn end(mut self, operation: &Operation) -> bool {
        let is_gone = oneshot::Sender::is_closed;
        let refuted = self.turns.lock().refuted(&self.key, self.began, operation, is_gone);
        let told_some = !refuted.is_empty();
        for (waiting, answer) in refuted {
            // Who has given up waiting needs no answer.
            drop(waiting.send(Called::Refused(answer)));
        }
        let is_due = self.turns.lock().leave(&self.key);
        self.left = true;
        if is_due {
            let hold = self.turns.lock().hold(&self.key, operation);
            match hold {
                Some(hold) => self.turns.release_soon(&self.key, hold),
                None => self.turns.call_next(&self.key, Some(operation)),
            }
        }
        // Last: until then a panic passes it on as well.
        self.passed = true;
        told_some
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.passed && (self.left || self.turns.lock().leave(&self.key)) {
            self.turns.call_next(&self.key, None);
        }
    }
}
