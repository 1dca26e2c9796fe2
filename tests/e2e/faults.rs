//! Things killed and stopped while orders keep coming.

use std::time::{Duration, Instant};

use reqwest::Client;

use crate::process::{Process, STOP_WITHIN, wait_until};
use crate::system::{Options, System, body, broker, id_of, order, turn};

/// The longest a request may take while one node dies.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);

/// A steady stream of orders: every one must be accepted in time.
struct Stream {
    http: Client,
    url: String,
    next: u32,
    ids: Vec<String>,
    slowest: Duration,
}

impl Stream {
    fn new(system: &System) -> Self {
        Self {
            http: crate::system::client(),
            url: system.url("/deliveries"),
            next: 0,
            ids: Vec::new(),
            slowest: Duration::ZERO,
        }
    }

    /// Sends orders, `every` so often, for `lasting`.
    async fn send(&mut self, every: Duration, lasting: Duration) {
        let end = Instant::now() + lasting;
        let mut ticks = tokio::time::interval(every);
        while Instant::now() < end {
            ticks.tick().await;
            self.next += 1;
            let begun = Instant::now();
            let key = format!("stream-{}", self.next);
            let request = self
                .http
                .post(&self.url)
                .json(&order(self.next))
                .header("Idempotency-Key", key);
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), 201, "order {}: {}", self.next, body(answer).await);
            self.slowest = self.slowest.max(begun.elapsed());
            self.ids.push(id_of(answer).await);
        }
    }
}

#[tokio::test]
async fn a_kvstore_killed_under_load_loses_no_order() {
    let _turn = turn().await;
    let mut system = System::start(Options::default()).await;
    let mut stream = Stream::new(&system);
    let every = Duration::from_millis(500);
    stream.send(every, Duration::from_secs(2)).await;
    for victim in 0..3 {
        system.kv.stores[victim].kill();
        stream.send(every, Duration::from_secs(2)).await;
        system.kv.stores[victim].start_again();
        wait_until(Duration::from_secs(5), "it has what it missed", async || {
            for id in &stream.ids {
                if system.kv.holders(&format!("delivery:{id}")).await != 2 {
                    return false;
                }
            }
            true
        })
        .await;
    }
    assert!(
        stream.slowest < REQUEST_WITHIN,
        "the slowest order took {:?}",
        stream.slowest
    );
    let took = system.all_delivered(&stream.ids, Duration::from_secs(150)).await;
    println!(
        "{} orders, the slowest took {:?}, all delivered {took:?} after the last",
        stream.ids.len(),
        stream.slowest
    );
}

#[tokio::test]
async fn everything_killed_at_once_loses_no_acknowledged_order() {
    let _turn = turn().await;
    let mut system = System::start(Options::default()).await;
    let mut stream = Stream::new(&system);
    stream.send(Duration::from_millis(200), Duration::from_secs(2)).await;
    let System {
        kv,
        gateways,
        dispatcher,
        drones,
        lb,
        ..
    } = &mut system;
    let mut everything: Vec<_> = kv.stores.iter_mut().chain([&mut kv.front]).chain(gateways).collect();
    everything.extend([dispatcher, lb]);
    everything.extend(drones);
    for process in &mut everything {
        process.kill();
    }
    for process in &mut everything {
        process.start_again();
    }
    system.kv.ready().await;
    system.ready().await;
    system.all_delivered(&stream.ids, Duration::from_secs(120)).await;
}

#[tokio::test]
async fn orders_flow_while_rabbitmq_is_away_and_after_it_is_back() {
    let _turn = turn().await;
    let Some(mut broker) = broker().await else { return };
    let options = Options {
        rabbit_url: Some(broker.url.clone()),
        ..Options::default()
    };
    let system = System::start(options).await;
    let mut stream = Stream::new(&system);
    stream.send(Duration::from_secs(1), Duration::from_secs(3)).await;
    broker.stop();
    let before = stream.ids.len();
    stream.send(Duration::from_secs(1), Duration::from_secs(30)).await;
    // Accepted, assigned and delivered without a broker.
    let first = stream.ids[before].clone();
    system.all_delivered(&[first], Duration::from_secs(90)).await;
    let broker = tokio::task::spawn_blocking(move || broker.start_again().map(|()| broker))
        .await
        .expect("no panic");
    let _broker = broker.expect("the broker starts again");
    stream.send(Duration::from_secs(1), Duration::from_secs(2)).await;
    let metrics = format!("{}/metrics", system.drones[0].url());
    wait_until(
        Duration::from_secs(40),
        "the drones tell the broker again",
        async || {
            let Ok(answer) = system.http.get(&metrics).send().await else {
                return false;
            };
            answer
                .text()
                .await
                .is_ok_and(|text| text.contains("drone_sim_bus_connected 1"))
        },
    )
    .await;
    system.all_delivered(&stream.ids, Duration::from_secs(150)).await;
}

#[tokio::test]
async fn a_paused_kvstore_holds_nobody_up() {
    let _turn = turn().await;
    let system = System::start(Options::default()).await;
    let mut stream = Stream::new(&system);
    for store in &system.kv.stores {
        // Longer than every timeout: it looks alive to TCP and answers nothing.
        store.signal("STOP");
        stream.send(Duration::from_millis(300), Duration::from_secs(4)).await;
        store.signal("CONT");
        stream.send(Duration::from_millis(300), Duration::from_secs(1)).await;
    }
    assert!(
        stream.slowest < REQUEST_WITHIN,
        "the slowest order took {:?}",
        stream.slowest
    );
    system.all_delivered(&stream.ids, Duration::from_secs(150)).await;
}

#[tokio::test]
async fn every_program_ends_soon_after_sigterm() {
    let _turn = turn().await;
    let mut system = System::start(Options::default()).await;
    assert_eq!(system.order(&order(1), None).await.status(), 201);
    let lb_url = system.lb.url();
    let mut generator = Process::worker("ordergen", &[("LB_URL", &lb_url), ("LOW_RPS", "5")]);
    wait_until(
        Duration::from_secs(20),
        "the order generator's orders are accepted",
        async || {
            let answer = system
                .http
                .get(system.url("/deliveries?limit=100"))
                .send()
                .await
                .expect("an answer");
            body(answer).await["count"].as_u64() > Some(5)
        },
    )
    .await;
    let System {
        kv,
        gateways,
        dispatcher,
        drones,
        lb,
        ..
    } = &mut system;
    let mut everything = vec![&mut generator, lb];
    everything.extend(gateways);
    everything.extend([dispatcher, &mut kv.front]);
    everything.extend(drones);
    everything.extend(&mut kv.stores);
    for process in everything {
        let took = process.stop();
        assert!(took < STOP_WITHIN, "{process:?} took {took:?}");
    }
}
