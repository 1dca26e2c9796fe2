//! `GET /watch` over real nodes: what is written arrives, whoever stops meanwhile; and scans while keys change and a node goes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Client, Cluster, DEADLINE, eventually};

/// Watchers that a kvfront serves at a time.
const WATCHERS_MAX: u64 = 64;

/// An event as it came.
#[derive(Debug, Clone)]
struct Event {
    id: String,
    kind: String,
    data: Value,
}

/// A stream of events.
struct Events {
    answer: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(client: &Client, query: &str) -> Self {
        let answer = reqwest::get(format!("{}/watch?{query}", client.base)).await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self {
            answer,
            text: String::new(),
        }
    }

    /// From now on: what was done before this returns is not told.
    async fn from_now(client: &Client, query: &str) -> (Self, Event) {
        let mut events = Self::open(client, query).await;
        let first = events.next().await;
        assert_eq!((first.kind.as_str(), &first.data), ("position", &json!({})));
        (events, first)
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let mut lines = event.lines().filter_map(|line| line.strip_prefix(name));
                    lines.next().unwrap_or_default().to_owned()
                };
                return Event {
                    id: field("id: "),
                    kind: field("event: "),
                    data: serde_json::from_str(&field("data: ")).unwrap(),
                };
            }
            let piece = timeout(DEADLINE, self.answer.chunk()).await.expect("an event in time");
            let piece = piece.unwrap().expect("the stream goes on");
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// The next change; signs of life are passed over, gaps are not.
    async fn change(&mut self) -> Event {
        loop {
            let event = self.next().await;
            match event.kind.as_str() {
                "position" => {}
                "change" => return event,
                _ => panic!("{event:?}"),
            }
        }
    }

    /// Changes up to the one of this value.
    async fn until(&mut self, value: &Value) -> Vec<Event> {
        let mut changes = Vec::new();
        loop {
            changes.push(self.change().await);
            if changes.last().unwrap().data["value"] == *value {
                return changes;
            }
        }
    }

    /// Changes until the last of these values has come: keys come in no order among each other.
    async fn until_all(&mut self, values: impl IntoIterator<Item = Value>) -> Vec<Event> {
        let mut missing: BTreeSet<String> = values.into_iter().map(|value| value.to_string()).collect();
        let mut changes = Vec::new();
        while !missing.is_empty() {
            changes.push(self.change().await);
            missing.remove(&changes.last().unwrap().data["value"].to_string());
        }
        changes
    }
}

fn values(changes: &[Event]) -> Vec<Value> {
    changes.iter().map(|change| change.data["value"].clone()).collect()
}

/// Per key the versions grow, and nothing may lie between.
fn assert_in_order(changes: &[Event]) {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for change in changes {
        let text = |field: &str| change.data[field].as_str().unwrap().to_owned();
        let before = last.insert(text("key"), text("version"));
        assert!(before.is_none_or(|before| before < text("version")), "{changes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_prefix_come_in_order_and_locks_do_not() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    client.put("w:old", json!("before")).await;
    let (mut events, _) = Events::from_now(client, "prefix=w:").await;
    let first = client.put("w:1", json!({"a": 1})).await;
    client.put("other", json!(1)).await;
    let text = "{\"value\":\n{\"two\":\r\n2}}";
    assert_eq!(client.put_raw("/kv/w:1", text).await.0, 200);
    client.post("/lock/acquire/w:1?ttl_sec=5", json!({})).await;
    client.cas(json!({"key": "w:1", "old": {"two": 2}, "new": null})).await;
    client.cas(json!({"key": "w:1", "old": 7, "new": "refused"})).await;
    client.delete("/kv/w:1").await;
    // The same key, as the order is that of each key.
    client.put("w:1", json!("end")).await;
    let changes = events.until(&json!("end")).await;
    assert_eq!(
        values(&changes),
        [
            json!({"a": 1}),
            json!({"two": 2}),
            json!(null),
            json!(null),
            json!("end")
        ]
    );
    let deleted: Vec<_> = changes.iter().map(|change| change.data["deleted"] == true).collect();
    assert_eq!(deleted, [false, false, false, true, false]);
    assert_eq!(changes[0].data["version"], first["version"]);
    assert!(
        changes.iter().all(|change| change.data.get("conflated").is_none()),
        "{changes:?}"
    );
    assert_in_order(&changes);

    // What has ended is gone once somebody has looked.
    client
        .put_raw("/kv/w:ttl", json!({"value": 1, "ttl_sec": 0.2}).to_string())
        .await;
    assert_eq!(events.change().await.data["value"], 1);
    eventually("it has ended", || async {
        client.value("w:ttl").await.is_none().then_some(())
    })
    .await;
    let ended = events.change().await;
    assert_eq!(
        (&ended.data["deleted"], &ended.data["value"]),
        (&json!(true), &json!(null))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_missed_while_nodes_stop_and_come_back() {
    let mut cluster = Cluster::start().await;
    let (mut events, _) = Events::from_now(&cluster.client, "").await;
    let mut seen = Vec::new();
    for stopped in 0..3 {
        cluster.stores[stopped].stop().await;
        for n in 0..20 {
            cluster.client.put(&format!("k{}", n % 4), json!([stopped, n])).await;
        }
        seen.extend(events.until_all((16..20).map(|n| json!([stopped, n]))).await);
        cluster.stores[stopped].start_again().await;
        eventually("it votes again", || async {
            let (_, report) = cluster.client.get("/cluster").await;
            (report["up"] == 3 && report.to_string().matches("voting").count() >= 3).then_some(())
        })
        .await;
    }
    assert_in_order(&seen);
    let expected: BTreeSet<String> = (0..3)
        .flat_map(|stopped| (0..20).map(move |n| json!([stopped, n]).to_string()))
        .collect();
    let got: BTreeSet<String> = values(&seen).iter().map(Value::to_string).collect();
    assert_eq!(got, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_resumes_at_another_kvfront_after_a_node_was_restarted() {
    let mut cluster = Cluster::start().await;
    let (mut events, start) = Events::from_now(&cluster.client, "prefix=k").await;
    for n in 0..10 {
        cluster.client.put(&format!("k{n}"), json!(n)).await;
    }
    let before = events.until(&json!(9)).await;
    let last = before.last().unwrap().id.clone();
    drop(events);
    for n in 10..15 {
        cluster.client.put(&format!("k{n}"), json!(n)).await;
    }
    cluster.client.delete("/kv/k3").await;
    // It forgets what it told, and its disk does not.
    cluster.stores[1].stop().await;
    cluster.stores[1].start_again().await;
    let client = Client::ready(&cluster.addrs(), &[]).await;
    let put = || async {
        let answer = client.put_raw("/kv/k15", "{\"value\":15}").await;
        (answer.0 == 200).then_some(())
    };
    eventually("the nodes vote again", put).await;
    for (from, first) in [(&last, 10), (&start.id, 0)] {
        let mut events = Events::open(&client, &format!("prefix=k&after={from}")).await;
        let mut told: BTreeMap<String, Value> = BTreeMap::new();
        let value = |n: i32| if n == 3 { Value::Null } else { json!(n) };
        let is_told = |told: &BTreeMap<String, Value>, n| told.get(&format!("k{n}")) == Some(&value(n));
        // Keys come in no order among each other.
        let all = async {
            while !(first..16).chain([3]).all(|n| is_told(&told, n)) {
                let event = events.change().await;
                told.insert(
                    event.data["key"].as_str().unwrap().to_owned(),
                    event.data["value"].clone(),
                );
            }
        };
        let in_time = timeout(DEADLINE, all).await;
        assert!(in_time.is_ok(), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_nodes_have_forgotten_the_newest_is_told_or_a_gap() {
    let mut cluster = Cluster::start().await;
    let (events, start) = Events::from_now(&cluster.client, "").await;
    drop(events);
    cluster.client.put("k", json!(1)).await;
    for store in &mut cluster.stores {
        store.stop().await;
        store.start_again().await;
    }
    let client = Client::ready(&cluster.addrs(), &[]).await;
    let mut events = Events::open(&client, &format!("after={}", start.id)).await;
    assert_eq!(events.next().await.kind, "position");
    // What a node that has forgotten holds is listed. Two of them at a time make a gap; one after the other they hide nothing.
    loop {
        let event = events.next().await;
        if event.kind == "gap" || event.data["value"] == 1 {
            break;
        }
    }
    eventually("the nodes vote again", || async {
        (client.put_raw("/kv/k", "{\"value\":2}").await.0 == 200).then_some(())
    })
    .await;
    events.until(&json!(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_slower_than_the_nodes_remember_gets_a_gap() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    let (mut events, _) = Events::from_now(client, "").await;
    let (never_read, _) = Events::from_now(client, "").await;
    // Nodes remember 32 MiB; sockets take some.
    let large = "x".repeat(1_000_000);
    for n in 0..64 {
        client.put("large", json!(format!("{n}{large}"))).await;
    }
    let mut changes = 0;
    let gap = loop {
        let event = events.next().await;
        match event.kind.as_str() {
            "change" => changes += 1,
            "gap" => break event,
            _ => {}
        }
    };
    assert!(changes < 64, "{changes}");
    // The nodes' memory has its limit, and so has that of kvfront for what is undecided: which of them is met first is a matter of timing.
    let reason = gap.data["reason"].as_str().unwrap();
    let limits = ["no longer", "more changes are undecided"];
    assert!(limits.iter().any(|limit| reason.contains(limit)), "{gap:?}");
    client.put("after", json!("the gap")).await;
    // There may be more of them on the way; whoever resumes after the last one misses nothing.
    let mut last_gap = gap.id;
    loop {
        let event = events.next().await;
        match event.kind.as_str() {
            "gap" => {
                // What was put before it may lie in it.
                last_gap = event.id;
                client.put("after", json!("the gap")).await;
            }
            "change" if event.data["value"] == "the gap" => break,
            _ => {}
        }
    }
    let mut resumed = Events::open(client, &format!("after={last_gap}")).await;
    resumed.until(&json!("the gap")).await;

    let (gaps, told) = (
        metric(client, "watch_gaps_total").await,
        metric(client, "watch_events_total{kind=\"gap\"}").await,
    );
    assert!(gaps > 0 && gaps == told, "{gaps} gaps by cause, {told} by kind");
    assert!(
        metric(client, "watch_waits_total").await > 0,
        "nobody waited for the reader"
    );
    drop(never_read);
    eventually("the reader that left without reading is counted", || async {
        (metric(client, "watchers_dropped_total").await == 1).then_some(())
    })
    .await;
}

/// The sum of a metric over the labels that are not named.
async fn metric(client: &Client, name: &str) -> u64 {
    let (_, text) = client.get("/metrics").await;
    let name = format!("kvfront_{name}");
    let lines = text.as_str().unwrap().lines().filter(|line| line.starts_with(&name));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_and_what_they_are_told_are_counted() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    assert_eq!(metric(client, "watchers ").await, 0);
    let (mut events, _) = Events::from_now(client, "prefix=w:").await;
    for n in 0..3 {
        client.put("w:1", json!(n)).await;
    }
    events.until(&json!(2)).await;
    assert_eq!(metric(client, "watchers ").await, 1);
    assert_eq!(metric(client, "watch_events_total{kind=\"change\"}").await, 3);
    assert!(metric(client, "watch_events_total{kind=\"position\"}").await > 0);
    assert_eq!(metric(client, "watch_gaps_total").await, 0);
    drop(events);
    eventually("the watcher has gone", || async {
        (metric(client, "watchers ").await == 0).then_some(())
    })
    .await;

    let mut open = Vec::new();
    for _ in 0..WATCHERS_MAX {
        open.push(Events::open(client, "").await);
    }
    assert_eq!(client.get("/watch").await.0, 503);
    assert_eq!(metric(client, "watchers_refused_total").await, 1);
    assert_eq!(metric(client, "watchers ").await, WATCHERS_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_position_is_refused() {
    let cluster = Cluster::start().await;
    let (status, answer) = cluster.client.get("/watch?after=yesterday").await;
    assert_eq!((status, &answer["field"]), (422, &json!("after")), "{answer}");
    let path = format!("/watch?prefix={}", "p".repeat(kv_api::MAX_KEY_BYTES + 1));
    assert_eq!(cluster.client.get(&path).await.0, 422);
    let request = reqwest::Client::new()
        .get(format!("{}/watch", cluster.client.base))
        .header("Last-Event-ID", "1-");
    let (status, answer) = cluster.client.send(request).await;
    assert_eq!((status, &answer["field"]), (422, &json!("Last-Event-ID")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_meanwhile_shows_every_key_that_stays_exactly_once() {
    let mut cluster = Cluster::start().await;
    let stay: Vec<String> = (0..60).map(|n| format!("s:{n:02}")).collect();
    for key in &stay {
        cluster.client.put(key, json!(0)).await;
    }
    let client = cluster.client.clone();
    let writer = tokio::spawn({
        let (client, stay) = (client.clone(), stay.clone());
        async move {
            for round in 1..6 {
                for (n, key) in stay.iter().enumerate().step_by(3) {
                    client
                        .put_raw(&format!("/kv/{key}"), json!({ "value": round }).to_string())
                        .await;
                    let other = format!("/kv/s:{n:02}-gone");
                    client.put_raw(&other, "{\"value\":1}").await;
                    client.delete(&other).await;
                }
            }
        }
    });
    for round in 0..4 {
        if round == 2 {
            cluster.stores[1].stop().await;
        }
        let mut seen: Vec<String> = Vec::new();
        let mut after = String::new();
        loop {
            let (status, page) = eventually("a page", || async {
                let answer = client.get(&format!("/kv?prefix=s:&limit=7&after={after}")).await;
                // While it is not known yet that the node has gone, a page may be refused, and says so.
                assert!(answer.0 == 200 || answer.0 == 503, "{answer:?}");
                (answer.0 == 200).then_some(answer)
            })
            .await;
            assert_eq!(status, 200);
            for item in page["items"].as_array().unwrap() {
                seen.push(item["key"].as_str().unwrap().to_owned());
            }
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "{seen:?}");
        assert!(seen.is_sorted());
        let missing: Vec<_> = stay.iter().filter(|key| !distinct.contains(key)).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?}");
    }
    writer.await.unwrap();
}
