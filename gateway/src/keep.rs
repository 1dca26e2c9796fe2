//! Lets the entries of idempotency keys end after a day.
//!
//! A compare-and-swap has no time to live in the KV API, so once the order is stored the same value is put again with
//! one. Best effort: an entry that is missed (a crash, a full queue) stays for good, which costs a hundred bytes and no
//! correctness.

use std::time::Duration;

use domain::keys;
use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use kv_client::{Kv, PutOptions};
use service::{Heartbeat, Shutdown};
use tokio::sync::mpsc;

use crate::submit::Remembered;

/// How long an idempotency key is remembered.
const REMEMBER_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Entries waiting at most; further ones stay without an end.
const QUEUE_MAX: usize = 1_024;
/// Puts under way at once.
const CONCURRENCY: usize = 4;

type Entry = (String, Remembered);

/// Where handlers leave entries.
#[derive(Debug, Clone)]
pub(crate) struct KeepSender(mpsc::Sender<Entry>);

impl KeepSender {
    /// The queue's two ends.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Entry>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        (Self(sender), receiver)
    }

    /// Never waits.
    pub(crate) fn send(&self, key: String, remembered: Remembered) {
        if self.0.try_send((key, remembered)).is_err() {
            tracing::debug!("too many idempotency keys wait for their time to live; this one gets none");
        }
    }
}

/// Puts entries again, with a time to live, until `shutdown`.
pub(crate) async fn run(kv: Kv, mut entries: mpsc::Receiver<Entry>, beat: Heartbeat, shutdown: Shutdown) {
    beat.ok();
    let options = PutOptions {
        ttl: Some(REMEMBER_FOR),
        fence: None,
    };
    let stop = shutdown.clone();
    poll_fn(|cx| entries.poll_recv(cx))
        .take_until(async move { stop.stopped().await })
        .for_each_concurrent(CONCURRENCY, |(key, remembered)| {
            let (kv, beat) = (&kv, &beat);
            async move {
                match kv.put_with(&keys::idem(&key), &remembered, options).await {
                    Ok(_) => beat.ok(),
                    Err(error) => beat.failed(error),
                }
            }
        })
        .await;
}
