//! Running `register`'s small machines of upkeep: hand-over, collection, refill. Each talks to the nodes of one key's list, and may be cut
//! off anywhere: whoever comes next begins anew.

use std::sync::Arc;
use std::time::Duration;

use register::collect::{Collect, CollectAction, CollectEvent};
use register::handover::{HandOver, HandOverAction, HandOverEvent};
use register::proposer::{Event, Outcome};
use register::refill::{Refill, RefillAction, RefillEvent};
use register::{Key, Reply, Request};
use tokio::time::timeout;

use crate::front::Front;
use crate::ring::Preference;
use crate::transport::Mailbox;

/// Steps of one errand before it is given up: far more than any needs.
const STEPS_MAX: usize = 64;
/// An errand that takes longer is given up.
const ERRAND_TIMEOUT: Duration = Duration::from_secs(5);

/// What happened to an errand.
pub(crate) enum Happened {
    Start,
    Reply { round: u32, rank: usize, reply: Reply },
    Failed { round: u32, rank: usize },
}

/// What an errand wants done.
pub(crate) enum Step {
    Send { round: u32, rank: usize, request: Request },
    End(Ended),
}

/// How an errand ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The key is to be settled first; then it may be tried again.
    Settle,
    /// True when what it was for is done; false also when it was given up.
    Done(bool),
}

/// One of `register`'s machines, which all speak alike.
pub(crate) trait Errand {
    fn handle(&mut self, happened: Happened) -> Vec<Step>;
}

macro_rules! errand {
    ($machine:ty, $event:ident, $action:ident) => {
        impl Errand for $machine {
            fn handle(&mut self, happened: Happened) -> Vec<Step> {
                let event = match happened {
                    Happened::Start => $event::Start,
                    Happened::Reply { round, rank, reply } => $event::Reply { round, rank, reply },
                    Happened::Failed { round, rank } => $event::Failed { round, rank },
                };
                let step = |action| match action {
                    $action::Send { round, rank, request } => Step::Send { round, rank, request },
                    $action::Settle => Step::End(Ended::Settle),
                    $action::Done(done) => Step::End(Ended::Done(done)),
                };
                // Not the trait's: an inherent method goes first.
                <$machine>::handle(self, event).into_iter().map(step).collect()
            }
        }
    };
}

errand!(HandOver, HandOverEvent, HandOverAction);
errand!(Collect, CollectEvent, CollectAction);
errand!(Refill, RefillEvent, RefillAction);

/// Runs an errand to its end.
pub(crate) async fn run(front: &Front, key: &Key, preference: &Preference, errand: impl Errand) -> Ended {
    timeout(ERRAND_TIMEOUT, steps(front, key, preference, errand))
        .await
        .unwrap_or(Ended::Done(false))
}

async fn steps(front: &Front, key: &Key, preference: &Preference, mut errand: impl Errand) -> Ended {
    let mailbox = Mailbox::new();
    let mut happened = vec![Happened::Start];
    for _ in 0..STEPS_MAX {
        for event in happened.drain(..) {
            for step in errand.handle(event) {
                match step {
                    Step::Send { round, rank, request } => {
                        let node = preference.nodes[rank];
                        front.transport.send(node, key.clone(), request, &mailbox, round, rank);
                    }
                    Step::End(ended) => return ended,
                }
            }
        }
        happened = mailbox.take().await.into_iter().filter_map(translate).collect();
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

fn translate(event: Event) -> Option<Happened> {
    match event {
        Event::Reply { round, rank, reply } => Some(Happened::Reply { round, rank, reply }),
        Event::Failed { round, rank, .. } => Some(Happened::Failed { round, rank }),
        Event::Start | Event::Wake { .. } => None,
    }
}
