//! From names to addresses, again and again.
//!
//! Promises: every target's name is looked up once per TTL; when a lookup fails, the last good answer of that target stays; the
//! check `resolve` of `/ready` is well once any address is known.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use service::{Heartbeat, Shutdown};

use crate::backends::Backends;
use crate::config::Target;
use crate::limits::{RESOLVE_RETRY_PAUSE, RESOLVE_TIMEOUT};

/// What a lookup comes to.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Looks names up. Passed in, so that tests own the answers.
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of the target, in any order. An empty answer counts as a failure.
    fn resolve<'a>(&'a self, target: &'a Target) -> Lookup<'a>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, target: &'a Target) -> Lookup<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await?;
            Ok(found.collect())
        })
    }
}

/// Keeps `backends` up to date until `shutdown`.
pub(crate) async fn keep_resolved(
    backends: Arc<Backends>,
    targets: Vec<Target>,
    resolver: Arc<dyn Resolver>,
    ttl: Duration,
    heartbeat: Heartbeat,
    shutdown: Shutdown,
) {
    let mut known: Vec<Vec<SocketAddr>> = vec![Vec::new(); targets.len()];
    let mut was_failing = false;
    loop {
        let lookups = targets.iter().map(|target| look_up(&*resolver, target));
        let mut failure = None;
        for ((target, known), found) in targets.iter().zip(&mut known).zip(join_all(lookups).await) {
            match found {
                Ok(addrs) => *known = addrs,
                Err(error) => failure = Some(format!("{target}: {error}")),
            }
        }
        let addrs: Vec<SocketAddr> = known.iter().flatten().copied().collect();
        backends.replace(&addrs);
        match &failure {
            Some(error) if !was_failing => tracing::warn!(%error, "cannot resolve a target; keeping what was known"),
            None if was_failing => tracing::info!("targets resolve again"),
            _ => {}
        }
        was_failing = failure.is_some();
        if !addrs.is_empty() {
            // With addresses at hand the proxy works, however old they are.
            heartbeat.ok();
        }
        if let Some(error) = &failure {
            heartbeat.failed(error);
        }
        let pause = if was_failing { ttl.min(RESOLVE_RETRY_PAUSE) } else { ttl };
        if !shutdown.sleep(pause).await {
            return;
        }
    }
}

async fn look_up(resolver: &dyn Resolver, target: &Target) -> io::Result<Vec<SocketAddr>> {
    let addrs = tokio::time::timeout(RESOLVE_TIMEOUT, resolver.resolve(target))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {RESOLVE_TIMEOUT:?}")))??;
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use service::Tasks;
    use service::metrics::Metrics;

    use super::*;
    use crate::backends::Rules;
    use crate::metrics::LbMetrics;

    /// Answers what the test says at the moment; `None` fails.
    #[derive(Clone, Default)]
    struct Scripted(Arc<Mutex<Option<Vec<SocketAddr>>>>);

    impl Resolver for Scripted {
        fn resolve<'a>(&'a self, _: &'a Target) -> Lookup<'a> {
            Box::pin(async {
                self.0
                    .lock()
                    .unwrap()
                    .clone()
                    .ok_or_else(|| io::Error::other("no DNS today"))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_stays_when_resolving_fails() {
        let backends = Arc::new(Backends::new(
            Rules::usual(),
            1,
            Arc::new(LbMetrics::new(&Metrics::new("lb"))),
        ));
        let tasks = Tasks::new(Shutdown::new());
        let script = Scripted::default();
        let (list, resolver) = (Arc::clone(&backends), Arc::new(script.clone()));
        let targets = vec![Target::parse("http://gateway:8000").unwrap()];
        let ttl = Duration::from_secs(5);
        tasks.spawn("resolve", Duration::from_secs(60), move |beat, shutdown| {
            keep_resolved(list, targets, resolver, ttl, beat, shutdown)
        });
        let after = async |addrs: Option<Vec<SocketAddr>>, pause: Duration| {
            *script.0.lock().unwrap() = addrs;
            tokio::time::sleep(pause).await;
            backends.pick(&[], Instant::now()).map(|pick| pick.backend.addr.port())
        };
        let addr = |port| Some(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
        assert_eq!(after(None, Duration::from_millis(100)).await, None);
        assert!(!tasks.readiness().is_ready());
        assert_eq!(
            after(addr(1), RESOLVE_RETRY_PAUSE).await,
            Some(1),
            "soon, not only after a TTL"
        );
        assert!(tasks.readiness().is_ready());
        assert_eq!(after(addr(2), ttl).await, Some(2));
        assert_eq!(after(None, ttl * 3).await, Some(2));
        assert!(tasks.readiness().is_ready());
        assert!(tasks.readiness().checks["resolve"].error.is_some());
        assert_eq!(
            after(Some(Vec::new()), ttl).await,
            Some(2),
            "an empty answer is no answer"
        );
        assert_eq!(after(addr(3), ttl).await, Some(3));
        tasks.stop().await;
    }
}
