//! One signal that every loop of a service listens to, and that children can receive without touching their parent.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Asks a service and all its loops to stop. Clones share the signal.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A signal not yet given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the signal to all clones and children. Repeating it does nothing.
    pub fn stop(&self) {
        self.0.cancel();
    }

    /// A signal of its own that is also given when this one is.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// True once the signal was given.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the signal. Cancel safe.
    pub async fn stopped(&self) {
        self.0.cancelled().await;
    }

    /// Waits for `pause` or the signal, whichever comes first; true when it was the pause. The heart of every periodic loop.
    pub async fn sleep(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.0.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// The token behind the signal, for libraries that take one.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }

    /// Gives the signal on SIGINT or SIGTERM. Call once, inside a runtime.
    ///
    /// # Errors
    /// When the process cannot install signal handlers.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            shutdown.stop();
        });
        Ok(())
    }
}
