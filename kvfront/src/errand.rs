//! Running the errands of `register`: hand-over, collection, refill.

use std::sync::Arc;
use std::time::Duration;

use register::errand::{Action, Ended, Errand};
use register::proposer::{Event, Outcome};
use register::{Key, Reply, Request};
use tokio::time::timeout;

use crate::front::Front;
use crate::ring::Preference;
use crate::transport::Mailbox;

/// Steps of one errand before it is given up: far more than any needs.
const STEPS_MAX: usize = 64;
/// An errand that takes longer is given up.
const ERRAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs an errand to its end.
pub(crate) async fn run(front: &Front, key: &Key, preference: &Preference, errand: impl Errand) -> Ended {
    timeout(ERRAND_TIMEOUT, steps(front, key, preference, errand))
        .await
        .unwrap_or(Ended::Done(false))
}

async fn steps(front: &Front, key: &Key, preference: &Preference, mut errand: impl Errand) -> Ended {
    let mailbox = Mailbox::new();
    let mut events = vec![Event::Start];
    for _ in 0..STEPS_MAX {
        for event in events.drain(..) {
            for action in errand.handle(event) {
                match action {
                    Action::Send { round, rank, request } => {
                        let node = preference.nodes[rank];
                        front.transport.send(node, key.clone(), request, &mailbox, round, rank);
                    }
                    Action::End(ended) => return ended,
                }
            }
        }
        events = mailbox.take().await;
    }
    Ended::Done(false)
}

/// Runs errands and settles the key between them, at most `settles` times; true when one of them was done.
pub(crate) async fn run_settling<E: Errand>(
    front: &Front,
    key: &Key,
    preference: &Preference,
    settles: usize,
    errand: impl Fn() -> E,
) -> bool {
    for settled in 0..=settles {
        match run(front, key, preference, errand()).await {
            Ended::Done(done) => return done,
            Ended::Settle if settled == settles || !settle(front, key).await => return false,
            Ended::Settle => {}
        }
    }
    false
}

/// Settles a key; true when that came to an end.
pub(crate) async fn settle(front: &Front, key: &Key) -> bool {
    match front.settle(key).await {
        Outcome::Answered { .. } => true,
        outcome => {
            tracing::debug!(?key, ?outcome, "a key could not be settled yet");
            false
        }
    }
}

/// One request to one node about one key; `None` when there is no reply.
pub(crate) async fn ask(front: &Front, node: usize, key: &Key, request: Request) -> Option<Reply> {
    let mailbox: Arc<Mailbox> = Mailbox::new();
    front.transport.send(node, key.clone(), request, &mailbox, 0, 0);
    let events = timeout(ERRAND_TIMEOUT, mailbox.take()).await.ok()?;
    events.into_iter().find_map(|event| match event {
        Event::Reply { reply, .. } => Some(reply),
        _ => None,
    })
}
