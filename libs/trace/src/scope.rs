//! What a task works on behalf of. Calls to the KV, messages on the bus and lines of the log take it from here, so that it need not be
//! handed through every function in between.

use std::cell::RefCell;
use std::future::Future;

use crate::context::Context;
use crate::span::{Kind, Span};
use crate::tracer::Tracer;

/// A context, and the tracer of the service that works in it.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// What is worked on.
    pub context: Context,
    /// Who records it.
    pub tracer: Tracer,
}

tokio::task_local! {
    static TASK: Scope;
}

thread_local! {
    /// Of code that awaits nothing; goes before the task's.
    static HERE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

impl Scope {
    /// A scope.
    #[must_use]
    pub fn new(context: Context, tracer: &Tracer) -> Self {
        Self {
            context,
            tracer: tracer.clone(),
        }
    }

    /// Begins a span that belongs to what is worked on, if that is traced.
    #[must_use]
    pub fn span(&self, kind: Kind, name: impl FnOnce() -> String) -> Span {
        match self.context.span {
            Some(span) if span.sampled && self.tracer.is_on() => self.tracer.follow(self.context.clone(), kind, name()),
            _ => Span::unrecorded(self.context.clone()),
        }
    }

    /// Does something that awaits nothing in this scope.
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        let _restored = Restore(HERE.with_borrow_mut(|here| here.replace(self)));
        work()
    }
}

/// Puts back, panic or not, what was there before.
struct Restore(Option<Scope>);

impl Drop for Restore {
    fn drop(&mut self) {
        let before = self.0.take();
        // Dropped outside the borrow.
        let _done = HERE.with_borrow_mut(|here| std::mem::replace(here, before));
    }
}

/// Does something in a scope.
pub async fn within<F: Future>(scope: Scope, work: F) -> F::Output {
    TASK.scope(scope, work).await
}

/// Does something in the scope that there is now, wherever it is done: a task that is spawned has none of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let scope = current();
    async move {
        match scope {
            Some(scope) => within(scope, work).await,
            None => work.await,
        }
    }
}

/// The scope that there is now.
#[must_use]
pub fn current() -> Option<Scope> {
    with_current(Scope::clone)
}

/// Looks at the scope that there is now.
pub fn with_current<T>(look: impl FnOnce(&Scope) -> T) -> Option<T> {
    HERE.with_borrow(|here| match here {
        Some(scope) => Some(look(scope)),
        None => TASK.try_with(look).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: &str) -> Scope {
        Scope::new(Context::read(None, None, Some(id)), &Tracer::off())
    }

    fn id() -> Option<String> {
        with_current(|scope| scope.context.request_id.as_deref().unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn a_task_has_the_scope_that_it_was_given() {
        assert_eq!(id(), None);
        within(named("outer"), async {
            assert_eq!(id().as_deref(), Some("outer"));
            let inside = named("inner").run(id);
            assert_eq!(inside.as_deref(), Some("inner"));
            assert_eq!(id().as_deref(), Some("outer"));
            let carried = tokio::spawn(carried(async { id() })).await.unwrap();
            assert_eq!(carried.as_deref(), Some("outer"));
            assert_eq!(tokio::spawn(async { id() }).await.unwrap(), None);
        })
        .await;
        assert_eq!(id(), None);
    }

    #[test]
    fn a_panic_leaves_no_scope_behind() {
        let panicked = std::panic::catch_unwind(|| named("gone").run(|| panic!("on purpose")));
        assert!(panicked.is_err() && id().is_none());
    }
}
