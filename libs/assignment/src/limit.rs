//! How long a call may go on, counted in work and not in time, so that it stays reproducible.

/// Work between two looks at the caller's own condition: some hundred microseconds.
const LOOK_EVERY: u64 = 1 << 16;

/// A call that reached its limit. What it has done so far is kept: calling again goes on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped after {work} units of work, with {left} rows and columns still to be settled")]
pub struct Stopped {
    /// What was done, in scanned edges (and one for each vertex).
    pub work: u64,
    /// Rows and columns that are not settled. Each costs at most one more search.
    pub left: usize,
}

/// The limit is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enough;

/// Counts work against a limit.
pub(crate) struct Meter<'a> {
    work: u64,
    limit: u64,
    look_at: u64,
    keep_going: &'a mut dyn FnMut(u64) -> bool,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(limit: u64, keep_going: &'a mut dyn FnMut(u64) -> bool) -> Self {
        Self {
            work: 0,
            limit,
            look_at: limit.min(LOOK_EVERY),
            keep_going,
        }
    }

    pub(crate) fn work(&self) -> u64 {
        self.work
    }

    /// Counts work that cannot be stopped.
    pub(crate) fn spend(&mut self, work: usize) {
        self.work += work as u64;
    }

    /// Counts work, and says when it is enough.
    #[inline]
    pub(crate) fn add(&mut self, work: u64) -> Result<(), Enough> {
        self.work += work;
        if self.work >= self.look_at {
            return self.look();
        }
        Ok(())
    }

    #[cold]
    fn look(&mut self) -> Result<(), Enough> {
        if self.work >= self.limit || !(self.keep_going)(self.work) {
            // Once stopped, stopped: also for the next one who asks.
            self.limit = 0;
            self.look_at = 0;
            return Err(Enough);
        }
        self.look_at = self.limit.min(self.work + LOOK_EVERY);
        Ok(())
    }
}
