//! The whole system under orders, while dispatchers, the fleet, kvstores and RabbitMQ are killed at random: `scripts/soak --fleet`.
//!
//! - `customers`: who orders, cancels, and what they may expect. `faults`: what is killed, and when.
//! - `watcher`: every change of the KV, as it comes. `picture`: what the KV holds, and whether each change was allowed.
//! - `bonds`: what is half-done. `judging`: what the judges find out, and what they do not mind.
//!
//! What holds at every instant is judged on every change: an order goes through its states one after the other, is given to a drone only
//! while it waits, keeps its drone once the parcel is on board, and never changes again once it has ended; a drone is busy exactly while
//! it holds an order. What holds but for an instant (between the two writes of an assignment, or until somebody repairs what a killed
//! dispatcher left) must come true again within [`MENDED_WITHIN`]: every open order is listed among the open ones, and either waits with
//! no drone bound to it or is bound to exactly one. In the end every order has ended, each as its customer may expect.
//!
//! Kills and orders come from a seed; what the processes make of them in time does not.

mod bonds;
mod customers;
mod faults;
mod judging;
mod picture;
mod watcher;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bus::testing::Broker;
use kv_client::Kv;
use reqwest::Client;

use self::customers::{Customers, Order};
use self::faults::{Faults, Victims};
use self::watcher::Watcher;
use crate::process::Patience;
use crate::system::{Options, System, broker, turn};

/// Environment variable that says for how many seconds orders come and programs are killed.
const FLEET_SOAK_SEC: &str = "FLEET_SOAK_SEC";
/// Environment variable that says which orders come, and what is killed when.
const FLEET_SOAK_SEED: &str = "FLEET_SOAK_SEED";
/// Seconds when nobody says so, as in CI; until all orders have ended it takes some more.
const CI_SEC: u64 = 40;
/// The seed then.
const CI_SEED: u64 = 1;
/// How long something may stay half-done. Dispatchers promise 3 s as long as one of them and the KV are at work. Here both are away again and
/// again, and on a machine that has far too much to do nobody may live long enough to mend anything (45 s were seen): this finds what is not
/// mended at all. How long it took is reported.
const MENDED_WITHIN: Duration = Duration::from_secs(150);
/// How long the last orders may take once nothing is killed any more: a few seconds each, and a drone may have to charge before.
const DRAINED_WITHIN: Duration = Duration::from_secs(180);
/// How long the system may take to come to rest then. An entry without a record is kept for a minute.
const AT_REST_WITHIN: Duration = Duration::from_secs(120);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A drone that is silent for this long is lost, seconds.
const DRONE_LOST_SEC: &str = "6";

/// Named so that it begins among the first: it takes long.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_under_random_kills_brings_every_order_to_its_end() {
    let _turn = turn().await;
    let Some(broker) = broker().await else { return };
    let span = Duration::from_secs(setting(FLEET_SOAK_SEC, CI_SEC));
    let seed = setting(FLEET_SOAK_SEED, CI_SEED);
    report(&format!("fleet soak: {span:?}, seed {seed}"));
    let options = Options {
        rabbit_url: Some(broker.url.clone()),
        settings: vec![("DRONE_LOST_SEC", DRONE_LOST_SEC)],
        ..Options::default()
    };
    let system = System::start(options).await;
    if let Err(wrong) = soak(system, broker, span, seed).await {
        panic!("seed {seed}: {wrong}");
    }
}

async fn soak(mut system: System, broker: Broker, span: Duration, seed: u64) -> Result<(), String> {
    let begun = Instant::now();
    let kv = Kv::new(&system.kv.front.url(), kv_client::Options::default()).map_err(|error| error.to_string())?;
    let watcher = Watcher::start(&kv, begun);
    let customers = Customers::new(system.url("/deliveries"), seed, begun);
    let another = system.dispatcher.another();
    let dispatchers = vec![system.dispatcher, another];
    let metrics: Vec<_> = dispatchers
        .iter()
        .map(|process| format!("{}/metrics", process.url()))
        .collect();
    let victims = Victims {
        dispatchers,
        drones: system.drones,
        stores: std::mem::take(&mut system.kv.stores),
        broker,
    };
    let faults = Faults::start(victims, kv, seed, begun);
    let all_to_their_end = async {
        let orders = customers.order_for(span).await?;
        // All that was killed runs again, and is kept running.
        let survivors = faults.end().await?;
        let begun = Instant::now();
        let ids: Vec<&str> = orders.iter().map(|order| order.id.as_str()).collect();
        watcher.ended(&ids, DRAINED_WITHIN).await?;
        let drained = begun.elapsed();
        at_rest(&watcher, &system.http, &metrics).await?;
        customers.judge(&orders, &watcher).await?;
        Ok::<_, String>((orders, survivors, drained))
    };
    let (orders, survivors, drained) = tokio::select! {
        done = all_to_their_end => done?,
        wrong = watcher.wrong() => return Err(wrong),
    };
    report(&format!("killed: {}", listed(&survivors.killed)));
    report(&format!(
        "{} orders: {}",
        orders.len(),
        listed(&fates(&orders, &watcher))
    ));
    report(&format!(
        "the last ended {drained:.1?} after the last kill; {}",
        watcher.summary()
    ));
    Ok(())
}

/// Waits until nothing is open any more, in the KV and in what the dispatchers know of it.
async fn at_rest(watcher: &Watcher, http: &Client, metrics: &[String]) -> Result<(), String> {
    let mut patience = Patience::new(AT_REST_WITHIN);
    loop {
        let mut left = watcher.left().await;
        for url in metrics {
            left.extend(minded(http, url).await);
        }
        if left.is_empty() {
            return Ok(());
        }
        if patience.is_over() {
            return Err(format!("not at rest within {AT_REST_WITHIN:?}:\n{}", left.join("\n")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The open orders of which a dispatcher says that it minds them.
async fn minded(http: &Client, url: &str) -> Vec<String> {
    let text = match http.get(url).send().await {
        Ok(answer) => answer.text().await,
        Err(error) => Err(error),
    };
    let text = text.unwrap_or_else(|error| error.to_string());
    let orders: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("dispatcher_orders{"))
        .collect();
    if orders.is_empty() {
        return vec![format!("{url}: {text}")];
    }
    let some = orders.into_iter().filter(|line| !line.ends_with(" 0"));
    some.map(|line| format!("{url}: {line}")).collect()
}

/// How many orders ended how.
fn fates(orders: &[Order], watcher: &Watcher) -> BTreeMap<String, u32> {
    let mut fates = BTreeMap::new();
    for order in orders {
        *fates.entry(watcher.fate(&order.id)).or_default() += 1;
    }
    fates
}

fn listed(counts: &BTreeMap<String, u32>) -> String {
    let counts: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    counts.join(", ")
}

fn now_unix_sec() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs_f64()
}

/// A number from the environment.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
        Err(_) => default,
    }
}

/// What the test has to say besides right or wrong.
#[expect(clippy::print_stdout, reason = "a test's report")]
fn report(text: &str) {
    println!("{text}");
}
