//! What becomes of keys that are no longer used: they are read once more, judged, and at the end read again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use linearizability::Checker;
use reqwest::{Client, Method};
use tokio::sync::mpsc::UnboundedReceiver;

use super::cluster::FRONTS;
use super::judge::judge;
use super::load::CLIENTS;
use super::record::{Kind, Record};
use super::shared::Shared;
use super::what::What;
use super::wire::{self, Told};

/// The judge's own number among the clients: it reads each key once more when it is retired.
const JUDGE: u32 = CLIENTS;
/// How often the judge looks whether a retired key is still in use.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A retired key must be readable within this time, whatever happens to the one node.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Keys read at a time at the end.
const READERS: usize = 16;

/// A key that was judged, and what it may hold from then on.
#[derive(Debug)]
pub(crate) struct Kept {
    name: String,
    possible: Vec<Option<u32>>,
}

/// Judges keys as they retire, until there will be no more. Gives those whose value stays.
pub(crate) async fn judge_all(shared: Arc<Shared>, mut retired: UnboundedReceiver<Arc<Record>>) -> Vec<Kept> {
    let http = wire::client();
    let (mut checker, mut kept) = (Checker::new(), Vec::new());
    while let Some(record) = retired.recv().await {
        // Whoever still asks something of it holds it.
        while Arc::strong_count(&record) > 1 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let last = match record.kind {
            Kind::Lock => None,
            Kind::Plain | Kind::Fenced | Kind::Ending => match read(&shared, &http, &record).await {
                Ok(last) => Some(last),
                Err(why) => {
                    shared.fail(why);
                    return kept;
                }
            },
        };
        if let (Kind::Plain | Kind::Fenced, Some(last)) = (record.kind, last) {
            kept.push(Kept {
                name: record.name.clone(),
                possible: record.possible(last),
            });
        }
        let run = shared.run.clone();
        let judged = tokio::task::spawn_blocking(move || {
            let verdict = judge(&mut checker, &run, &record);
            (checker, verdict)
        });
        let verdict;
        (checker, verdict) = judged.await.expect("a checker that does not panic");
        if let Err(violation) = verdict {
            shared.fail(violation);
            return kept;
        }
    }
    kept
}

/// Reads a retired key, over whichever kvfront answers, and notes it.
async fn read(shared: &Shared, http: &Client, record: &Record) -> Result<Option<u32>, String> {
    let begun = Instant::now();
    loop {
        for front in 0..FRONTS {
            let called = shared.clock.now_us();
            let told = get(shared, http, front, &record.name).await;
            shared.note(record, JUDGE, called, &What::Get, &told);
            match told {
                Told::Answer { .. } => return Ok(record.seen().value),
                told if begun.elapsed() > READ_WITHIN => {
                    return Err(format!(
                        "{} cannot be read within {READ_WITHIN:?}: {told:?}",
                        record.name
                    ));
                }
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

async fn get(shared: &Shared, http: &Client, front: usize, key: &str) -> Told {
    wire::call(http, Method::GET, shared.url(front, &format!("/kv/{key}")), None).await
}

/// Reads every kept key once more: what was acknowledged is still there.
///
/// # Errors
/// What is lost.
pub(crate) async fn read_again(shared: &Shared, kept: Vec<Kept>) -> Result<(), String> {
    let http = wire::client();
    let lost = stream::iter(kept)
        .map(|kept| {
            let http = &http;
            async move {
                let record = Record::new(0, kept.name, Kind::Plain);
                let found = read(shared, http, &record).await;
                match found {
                    Ok(found) if kept.possible.contains(&found) => None,
                    found => Some(format!(
                        "{} is {found:?}, should be one of {:?}",
                        record.name, kept.possible
                    )),
                }
            }
        })
        .buffer_unordered(READERS)
        .filter_map(async |lost| lost)
        .collect::<Vec<_>>()
        .await;
    if lost.is_empty() {
        Ok(())
    } else {
        Err(format!("acknowledged writes are lost: {lost:#?}"))
    }
}
