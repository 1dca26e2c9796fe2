//! For the tests of whoever records spans.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Sink, SpanData};

/// Keeps finished spans, in the order in which they ended. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl Kept {
    /// The spans so far.
    pub fn lock(&self) -> MutexGuard<'_, Vec<SpanData>> {
        // Pushing leaves them whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Kept {
    fn take(&self, span: SpanData) {
        self.lock().push(span);
    }
}
