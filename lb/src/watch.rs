//! Deadlines and the stop signal, at no cost per request.
//!
//! One ticking clock per worker, good to [`TICK`]. Every connection is one task with one [`Watch`]: it notes its deadlines there, and the
//! clock wakes the task once one has passed or the load balancer stops. No timer is set or removed while requests come and go.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::limits::TICK;

const NEVER: u64 = u64::MAX;

/// What came instead of what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// The two things one connection may be waiting for at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Something from the client, or taking it on to the gateway.
    Up,
    /// Something from the gateway, or taking it on to the client.
    Down,
}

/// How far the stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Idle connections and event streams end.
    Stopping,
    /// The grace is over: everything ends.
    Cut,
}

/// A worker's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    now_ms: Cell<u64>,
    phase: Cell<Phase>,
    watches: RefCell<Vec<Weak<Watch>>>,
}

impl Clock {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            now_ms: Cell::new(0),
            phase: Cell::new(Phase::Serving),
            watches: RefCell::default(),
        })
    }

    /// Milliseconds since the clock was made, up to [`TICK`] behind.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.phase.get() >= Phase::Stopping
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.phase.get() == Phase::Cut
    }

    /// Time has passed: wakes whoever's deadline is over.
    pub(crate) fn advance(&self, since_start: Duration) {
        let now = ms(since_start);
        self.now_ms.set(now);
        self.watches.borrow_mut().retain(|watch| {
            let Some(watch) = watch.upgrade() else { return false };
            if watch.deadlines.iter().any(|deadline| deadline.get() <= now) {
                watch.wake();
            }
            true
        });
    }

    /// The stop has come so far: wakes everybody.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        for watch in self.watches.borrow().iter().filter_map(Weak::upgrade) {
            watch.wake();
        }
    }
}

/// The deadlines of one connection.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) clock: Rc<Clock>,
    deadlines: [Cell<u64>; 2],
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    /// To be called in the task that will be woken.
    pub(crate) async fn new(clock: &Rc<Clock>) -> Rc<Self> {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let watch = Rc::new(Self {
            clock: Rc::clone(clock),
            deadlines: [Cell::new(NEVER), Cell::new(NEVER)],
            waker: RefCell::new(Some(waker)),
        });
        clock.watches.borrow_mut().push(Rc::downgrade(&watch));
        watch
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Polls until it is ready, but no longer than `limit`, rounded up to the clock's next ticks. The stop signal makes it poll once more.
    pub(crate) async fn within<T>(
        &self,
        side: Side,
        limit: Duration,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Elapsed> {
        let deadline = &self.deadlines[side as usize];
        // The present may be a tick later than the clock says.
        let until = self.clock.now_ms().saturating_add(ms(limit + TICK));
        deadline.set(until);
        let result = poll_fn(|cx| match poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending if self.clock.now_ms() >= until => Poll::Ready(Err(Elapsed)),
            Poll::Pending => Poll::Pending,
        })
        .await;
        deadline.set(NEVER);
        result
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER / 2)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_deadline_wakes_its_task_and_no_other() {
        let clock = Clock::new();
        let [hasty, patient] = [Arc::new(Woken::default()), Arc::new(Woken::default())];
        let wait = |limit: u64| {
            let clock = Rc::clone(&clock);
            async move {
                let watch = Watch::new(&clock).await;
                watch
                    .within(Side::Down, Duration::from_millis(limit), |_| Poll::<()>::Pending)
                    .await
            }
        };
        let (first, second) = (Waker::from(Arc::clone(&hasty)), Waker::from(Arc::clone(&patient)));
        let (mut a, mut b) = (pin!(wait(100)), pin!(wait(500)));
        assert!(a.as_mut().poll(&mut Context::from_waker(&first)).is_pending());
        assert!(b.as_mut().poll(&mut Context::from_waker(&second)).is_pending());
        clock.advance(Duration::from_millis(99));
        assert_eq!(hasty.0.load(Ordering::Relaxed), 0);
        clock.advance(Duration::from_millis(100) + TICK);
        assert_eq!(
            (hasty.0.load(Ordering::Relaxed), patient.0.load(Ordering::Relaxed)),
            (1, 0)
        );
        assert_eq!(
            a.as_mut().poll(&mut Context::from_waker(&first)),
            Poll::Ready(Err(Elapsed))
        );
        clock.enter(Phase::Stopping);
        assert_eq!(patient.0.load(Ordering::Relaxed), 1, "the stop wakes everybody");
        assert!(b.as_mut().poll(&mut Context::from_waker(&second)).is_pending());
    }
}
