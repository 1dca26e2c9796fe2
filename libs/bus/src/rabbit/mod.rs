//! The bus over RabbitMQ.
//!
//! One supervisor task owns the connection: it connects, watches, and after a loss connects again with growing, jittered pauses.
//! Each subscription has a task of its own that declares its topic, consumes, and starts over whenever the connection or its
//! queue is gone. Publishing uses whatever connection there is and fails at once if there is none. lapin's own recovery stays
//! off: it replays what it remembers, while declaring everything anew also heals a broker that lost its data.

mod address;
mod link;
mod outage;
mod subscription;
mod topology;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use lapin::uri::AMQPUri;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

pub use address::ConfigError;

use crate::backoff::Backoff;
use crate::limits::{self, ATTACH_TIMEOUT, CONFIRM_TIMEOUT, DRAIN_TIMEOUT, STABLE_AFTER};
use crate::{Bus, PublishError, Subscription, Topic};
use link::Link;
use outage::{Outage, Say};

/// Where programs look for RabbitMQ when nothing is said: a broker on the same machine, as Debian's package sets it up.
pub const DEFAULT_URL: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

/// Runs `work` with a bus over the broker at `url`, then closes the connection properly. The bus outlives a stop signal, so that what
/// `work` still has to say on its way out is said.
///
/// # Errors
/// A URL that cannot be used; `work` has not run then.
pub async fn with_rabbit<T, Fut>(url: &str, work: impl FnOnce(Arc<dyn Bus>) -> Fut) -> Result<T, ConfigError>
where
    Fut: Future<Output = T>,
{
    let end = CancellationToken::new();
    let rabbit = Rabbit::connect(url, end.clone())?;
    let result = work(Arc::<Rabbit>::clone(&rabbit)).await;
    end.cancel();
    if timeout(limits::CLOSED_TIMEOUT, rabbit.closed()).await.is_err() {
        debug!("the connection to RabbitMQ did not close in time");
    }
    Ok(result)
}

/// A bus over RabbitMQ 3.10 or later. Reconnects by itself for as long as it lives.
///
/// Ends when the `shutdown` token it was given is cancelled, or when dropped: it stops consuming, gives deliveries in hand and
/// unconfirmed messages [`limits::DRAIN_TIMEOUT`] to finish, and closes the connection. [`Rabbit::closed`] waits for that.
#[derive(Debug)]
pub struct Rabbit {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// What the supervisor, the subscriptions and the publishers share.
#[derive(Debug)]
struct Shared {
    uri: AMQPUri,
    link: watch::Sender<LinkState>,
    shutdown: CancellationToken,
    /// Deliveries in hand, publishes under way and subscription tasks: what a polite shutdown waits for.
    unfinished: TaskTracker,
    closed: CancellationToken,
    seed: AtomicU64,
}

/// The connection, or why there is none.
type LinkState = Result<Arc<Link>, String>;

impl Rabbit {
    /// Starts connecting to the broker at `url` (`amqp://user:password@host:port/vhost`, all parts but the host optional) and
    /// returns at once. That the broker is away is no error: the bus keeps trying until `shutdown`.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn connect(url: &str, shutdown: CancellationToken) -> Result<Arc<Self>, ConfigError> {
        Self::connect_with_seed(url, shutdown, rand::random())
    }

    /// Like [`Rabbit::connect`], with the seed of the jitter between attempts given, so that a run can be repeated.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the bus keeps the right to end with this token"
    )]
    pub fn connect_with_seed(url: &str, shutdown: CancellationToken, seed: u64) -> Result<Arc<Self>, ConfigError> {
        let uri = address::parse(url)?;
        // A child: dropping the bus must not shut down the whole program.
        let shutdown = shutdown.child_token();
        let (link, _) = watch::channel(Err(format!("still connecting to {}", address::display(&uri))));
        let shared = Arc::new(Shared {
            uri,
            link,
            shutdown: shutdown.clone(),
            unfinished: TaskTracker::new(),
            closed: CancellationToken::new(),
            seed: AtomicU64::new(seed),
        });
        tokio::spawn(supervise(Arc::clone(&shared)));
        Ok(Arc::new(Self {
            shared,
            _stop: shutdown.drop_guard(),
        }))
    }

    /// Waits until the bus, having been shut down, has closed its connection.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }
}

#[async_trait]
impl Bus for Rabbit {
    async fn publish(&self, topic: &Topic, body: Bytes) -> Result<(), PublishError> {
        limits::check(topic, body.len())?;
        let _unfinished = self.shared.unfinished.token();
        let link = self.shared.link.borrow().clone().map_err(PublishError::Unavailable)?;
        let mut span = crate::sending(topic, "rabbitmq");
        let headers = topology::headers(0, span.context());
        let published = match timeout(CONFIRM_TIMEOUT, link.publish(topic, &body, headers)).await {
            Ok(result) => result,
            Err(_) => Err(PublishError::NotConfirmed {
                topic: topic.name.clone(),
                reason: format!("no answer from the broker within {} s", CONFIRM_TIMEOUT.as_secs()),
            }),
        };
        published.inspect_err(|error| span.failed(error))
    }

    async fn subscribe(&self, topic: &Topic, prefetch: u16) -> Box<dyn Subscription> {
        let (subscription, attached) = subscription::start(&self.shared, topic, prefetch);
        if self.connected() {
            // Attached, failed to attach (logged there), or too slow: in each case `next` is where the caller waits from here.
            let _ = timeout(ATTACH_TIMEOUT, attached).await;
        }
        Box::new(subscription)
    }

    fn connected(&self) -> bool {
        self.shared.link.borrow().as_ref().is_ok_and(|link| link.is_up())
    }
}

impl Shared {
    fn next_seed(&self) -> u64 {
        self.seed.fetch_add(1, Ordering::Relaxed)
    }
}

/// Keeps a connection until shutdown, then closes it.
async fn supervise(shared: Arc<Shared>) {
    let broker = address::display(&shared.uri);
    let mut backoff = Backoff::new(shared.next_seed());
    let mut outage = Outage::default();
    loop {
        let opened = tokio::select! {
            biased;
            () = shared.shutdown.cancelled() => break,
            // Boxed: lapin's handshake is a large future, and this task lives as long as the program.
            opened = Box::pin(link::open(&shared.uri)) => opened,
        };
        match opened {
            Ok(link) => {
                let since = Instant::now();
                let link = Arc::new(link);
                match outage.over(since) {
                    Some(lasted) => info!(%broker, after_sec = lasted.as_secs(), "the broker is back"),
                    None => info!(%broker, "connected to the broker"),
                }
                drop(shared.link.send_replace(Ok(Arc::clone(&link))));
                let lost = tokio::select! {
                    biased;
                    () = shared.shutdown.cancelled() => {
                        drain(&shared, &link).await;
                        break;
                    }
                    lost = link.lost() => lost,
                };
                let _ = outage.failed(Instant::now());
                warn!(%broker, reason = %lost, "connection to the broker lost; reconnecting");
                drop(
                    shared
                        .link
                        .send_replace(Err(format!("connection to {broker} lost: {lost}"))),
                );
                if since.elapsed() >= STABLE_AFTER {
                    backoff.reset();
                }
            }
            Err(reason) => {
                match outage.failed(Instant::now()) {
                    Say::Began => {
                        warn!(%broker, %reason, "cannot connect to the broker; trying again until it is there")
                    }
                    Say::StillAway(for_so_long) => {
                        warn!(%broker, %reason, for_sec = for_so_long.as_secs(), "still no connection to the broker");
                    }
                    Say::Nothing => debug!(%broker, %reason, "cannot connect to the broker"),
                }
                drop(
                    shared
                        .link
                        .send_replace(Err(format!("cannot connect to {broker}: {reason}"))),
                );
            }
        }
        tokio::select! {
            biased;
            () = shared.shutdown.cancelled() => break,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
    let old = shared.link.send_replace(Err("the bus has been shut down".into()));
    if let Ok(link) = old {
        link.close().await;
    }
    info!(%broker, "bus closed");
    shared.closed.cancel();
}

/// Lets deliveries in hand be answered and publishes be confirmed while the connection still stands.
async fn drain(shared: &Shared, link: &Link) {
    shared.unfinished.close();
    tokio::select! {
        () = shared.unfinished.wait() => {}
        _ = link.lost() => {}
        () = tokio::time::sleep(DRAIN_TIMEOUT) => {
            warn!(
                unfinished = shared.unfinished.len(),
                "closing the bus with deliveries unanswered or messages unconfirmed; the broker delivers them again"
            );
        }
    }
}
