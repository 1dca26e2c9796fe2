//! One client: asks, is told, and asks the next.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{MissedTickBehavior, timeout};

use super::cluster::FRONTS;
use super::record::Record;
use super::shared::Shared;
use super::what::What;
use super::wire::{self, Told};

/// A client asks no more often than this: two cores carry the programs, the proxies and the checker too.
const ASK_EVERY: Duration = Duration::from_millis(8);
/// Of a hundred calls, those that are batches.
const BATCH_PERCENT: u32 = 8;
/// Of a hundred single changes, those that have a name.
const NAMED_PERCENT: u32 = 25;
/// Attempts at a named change whose outcome is not known.
const ATTEMPTS: u32 = 3;
/// Of a hundred named changes that were answered, those that are sent once more.
const REPEATED_PERCENT: u32 = 20;
/// How long a client waits for a kvfront that is not its own: that one may be just the one that is paused.
const ELSEWHERE_PATIENCE: Duration = Duration::from_millis(300);
/// Operations of a batch.
const BATCH_OPS: Range<usize> = 2..6;

/// One client, until all are to stop.
pub(crate) async fn work(shared: Arc<Shared>, retire: UnboundedSender<Arc<Record>>, client: u32, mut rng: StdRng) {
    let http = wire::client();
    let front = client as usize % FRONTS;
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.is_stopped() {
        ticks.tick().await;
        let ops = if rng.random_range(0..100) < BATCH_PERCENT {
            rng.random_range(BATCH_OPS)
        } else {
            1
        };
        let some = |_| {
            let record = shared.some_key(&mut rng, &retire);
            let what = shared.choose(&record, &mut rng);
            (record, what)
        };
        let mut asked: Vec<_> = (0..ops).map(some).collect();
        // A batch cannot do everything. What is left of it may be a single operation, or none.
        asked.retain(|(_, what)| ops == 1 || what.as_batch_op("").is_some());
        if asked.is_empty() {
            continue;
        }
        let named = asked.len() == 1 && asked[0].1 != What::Get && rng.random_range(0..100) < NAMED_PERCENT;
        let called = shared.clock.now_us();
        if named {
            let (record, what) = &asked[0];
            let told = ask_by_name(&shared, &http, front, record, what, &mut rng).await;
            shared.note(record, client, called, what, &told);
            continue;
        }
        for ((record, what), told) in asked.iter().zip(ask(&shared, &http, front, &asked).await) {
            shared.note(record, client, called, what, &told);
        }
    }
}

/// Makes a change under a name, again and again until it is known what became of it, over one kvfront and the other. That is one operation:
/// it takes effect once. At times it is sent once more although it was made, and must not be made again.
async fn ask_by_name(
    shared: &Shared,
    http: &Client,
    home: usize,
    record: &Record,
    what: &What,
    rng: &mut StdRng,
) -> Told {
    let name = request_name(rng);
    let (method, path, body) = what.as_call(&record.name);
    let mut told = Told::NotDone("not tried".to_owned());
    for attempt in 1..=ATTEMPTS {
        // Over another kvfront when this one does not know.
        let elsewhere = usize::from(attempt % 2 == 0 && matches!(told, Told::Unknown(_)));
        let front = (home + elsewhere) % FRONTS;
        let call = (method.clone(), shared.url(front, &path), body.as_ref());
        let attempted = wire::attempt(http, call, &name, attempt);
        let now_told = if elsewhere == 0 {
            attempted.await
        } else {
            let patient = timeout(ELSEWHERE_PATIENCE, attempted).await;
            patient.unwrap_or_else(|_| Told::Unknown(format!("kvfront {front} is away")))
        };
        told = match (told, now_told) {
            (_, wrong @ Told::Wrong(_)) => return wrong,
            // It was sent again for nothing.
            (answered @ Told::Answer { .. }, _) => return answered,
            // This attempt did nothing, but those before may have.
            (Told::Unknown(_), Told::NotDone(why)) => Told::Unknown(why),
            (_, now_told) => now_told,
        };
        let is_enough = match &told {
            Told::Answer { body, .. } => !made_for_sure(what, body) || rng.random_range(0..100) >= REPEATED_PERCENT,
            Told::Unknown(_) => false,
            Told::NotDone(_) | Told::Wrong(_) => true,
        };
        if is_enough {
            break;
        }
    }
    told
}

/// True when the answer says that the change was made. One that came to nothing (a lock that is held, or that nobody held) may be made when
/// it is sent again.
fn made_for_sure(what: &What, body: &Value) -> bool {
    body["ok"] == true && !matches!(what, What::Release(_))
}

/// A UUID of version 7: the time, and random bits.
fn request_name(rng: &mut StdRng) -> String {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let ms = since_epoch.as_millis() & 0xffff_ffff_ffff;
    let random = rng.random::<u128>() & 0x0fff_3fff_ffff_ffff_ffff;
    let hex = format!("{:032x}", ms << 80 | 7 << 76 | 0b10 << 62 | random);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Asks one thing, or several in a batch, and gives what was told of each.
async fn ask(shared: &Shared, http: &Client, front: usize, asked: &[(Arc<Record>, What)]) -> Vec<Told> {
    if let [(record, what)] = asked {
        let (method, path, body) = what.as_call(&record.name);
        return vec![wire::call(http, method, shared.url(front, &path), body.as_ref()).await];
    }
    let ops: Vec<_> = asked
        .iter()
        .filter_map(|(record, what)| what.as_batch_op(&record.name))
        .collect();
    let told = wire::call(
        http,
        Method::POST,
        shared.url(front, "/kv/batch"),
        Some(&json!({ "ops": ops })),
    )
    .await;
    let Told::Answer { status, body } = told else {
        return vec![told; asked.len()];
    };
    let results = body["results"].as_array().map_or(&[][..], Vec::as_slice);
    if results.len() != asked.len() {
        let wrong = format!("a batch of {} was answered with {status} {body}", asked.len());
        return vec![Told::Wrong(wrong); asked.len()];
    }
    let of_one = |result: &Value| {
        let status = result["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        wire::told(status.unwrap_or_default(), result.clone())
    };
    results.iter().map(of_one).collect()
}
