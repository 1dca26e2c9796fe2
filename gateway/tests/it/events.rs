//! `GET /events` as its viewers see it.

use std::time::Duration;

use kv_client::testing::{Call, Fault};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::World;

/// Longest wait for an event.
const DEADLINE: Duration = Duration::from_secs(10);

/// An event as it came.
#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

struct Viewer {
    answer: Response,
    text: String,
}

impl Viewer {
    async fn open(world: &World, after: Option<&str>) -> Self {
        let mut request = world.client.get(world.url("/events"));
        if let Some(id) = after {
            request = request.header("Last-Event-ID", id);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Self {
            answer,
            text: String::new(),
        }
    }

    /// What stands up to the next empty line; `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let piece = timeout(DEADLINE, self.answer.chunk()).await.expect("an event in time");
            self.text.push_str(std::str::from_utf8(&piece.unwrap()?).unwrap());
        }
    }

    async fn next(&mut self) -> Event {
        loop {
            let block = self.block().await.expect("the stream goes on");
            let field = |name: &str| {
                block
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::to_owned)
            };
            if let Some(data) = field("data: ") {
                return Event {
                    id: field("id: ").unwrap(),
                    name: field("event: ").unwrap(),
                    data: serde_json::from_str(&data).unwrap(),
                };
            }
        }
    }

    /// The news of delivery `id`, passing over what else is told.
    async fn until(&mut self, id: &str, status: &str) -> Event {
        loop {
            let event = self.next().await;
            let items = event.data["items"].as_array().cloned().unwrap_or_default();
            if items.iter().any(|item| item["id"] == id && item["status"] == status) {
                return event;
            }
        }
    }
}

fn ids(items: &Value) -> Vec<&str> {
    let items = items.as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}

fn set_drone(world: &World, number: u32, lat: f64) {
    let id = format!("drone-{number}");
    world.kv.set(
        &format!("drone:{id}"),
        &json!({"id": id, "type": "light", "status": "idle", "battery": 80, "pos": {"lat": lat, "lon": 12.38}}),
    );
}

/// A viewer that is past the beginning, once the gateway serves events.
async fn viewer(world: &World) -> (Viewer, Event) {
    world
        .until("events are served", async || {
            world.client.get(world.url("/events")).send().await.unwrap().status() == 200
        })
        .await;
    let mut viewer = Viewer::open(world, None).await;
    let first = viewer.next().await;
    assert_eq!(first.name, "snapshot");
    (viewer, first)
}

#[tokio::test]
async fn a_viewer_sees_what_is_there_and_what_changes() {
    let world = World::prepared(&[], |kv| {
        kv.set(
            "drone:drone-1",
            &json!({"id": "drone-1", "status": "busy", "pos": {"lat": 41.9, "lon": 12.4}, "current_delivery": "00-old"}),
        );
        kv.set("delivery:00-old", &json!({"id": "00-old", "status": "in_flight"}));
    })
    .await;
    let (mut viewer, first) = viewer(&world).await;
    assert_eq!(
        (&first.data["drones"][0]["zone"], ids(&first.data["deliveries"])),
        (&json!("zone 0"), vec!["00-old"])
    );
    assert!(first.data["at"].as_f64().unwrap() > 1.7e9);

    let order = world.order().await;
    let id = order["id"].as_str().unwrap();
    let created = viewer.until(id, "pending").await;
    assert_eq!(created.name, "deliveries");
    let item = created.data["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(item, order, "the whole record");

    set_drone(&world, 2, 41.81);
    let moved = loop {
        let event = viewer.next().await;
        if event.name == "drones" {
            break event;
        }
    };
    assert_eq!(
        (ids(&moved.data["items"]), &moved.data["items"][0]["zone"]),
        (vec!["drone-2"], &json!("zone 2"))
    );
    assert_eq!(world.delete(&format!("/deliveries/{id}")).await.0, 200);
    viewer.until(id, "cancelled").await;
}

#[tokio::test]
async fn a_viewer_that_comes_back_misses_nothing() {
    let world = World::start().await;
    let (mut first, _) = viewer(&world).await;
    let before = world.order().await["id"].as_str().unwrap().to_owned();
    let seen = first.until(&before, "pending").await.id;
    drop(first);
    let missed = world.order().await["id"].as_str().unwrap().to_owned();
    assert_eq!(world.delete(&format!("/deliveries/{missed}")).await.0, 200);

    let mut again = Viewer::open(&world, Some(&seen)).await;
    let event = again.until(&missed, "cancelled").await;
    assert_eq!(
        (event.name.as_str(), ids(&event.data["items"])),
        ("deliveries", vec![missed.as_str()])
    );
    // Of another gateway, or of long ago.
    let mut other = Viewer::open(&world, Some("00000000-1")).await;
    assert_eq!(other.next().await.name, "snapshot");
    let path = format!("/events?after={seen}");
    let mut by_query = Viewer {
        answer: world.client.get(world.url(&path)).send().await.unwrap(),
        text: String::new(),
    };
    by_query.until(&missed, "cancelled").await;
}

#[tokio::test]
async fn viewers_cost_the_kv_nothing_and_are_limited() {
    let world = World::prepared(&["--events-viewers-max=20", "--events-heartbeat-sec=0.2"], |_| {}).await;
    let (mut one, _) = viewer(&world).await;
    let calls = |call| world.kv.count(call);
    let before = (calls(Call::Watch), calls(Call::Scan));
    let mut viewers = Vec::new();
    for _ in 1..20 {
        let mut viewer = Viewer::open(&world, None).await;
        assert_eq!(viewer.next().await.name, "snapshot");
        viewers.push(viewer);
    }
    let refused = world.client.get(world.url("/events")).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"2".parse().unwrap())
    );
    let body: Value = refused.json().await.unwrap();
    assert!(body["detail"].as_str().unwrap().contains("20 clients"), "{body}");
    let id = world.order().await["id"].as_str().unwrap().to_owned();
    for viewer in &mut viewers {
        viewer.until(&id, "pending").await;
    }
    assert_eq!(calls(Call::Watch), before.0);
    // Index and counts read now and then, whoever looks.
    assert!(
        calls(Call::Scan) < before.1 + 10,
        "{} scans",
        calls(Call::Scan) - before.1
    );
    viewers.clear();
    world
        .until("their places are free again", async || {
            world.client.get(world.url("/events")).send().await.unwrap().status() == 200
        })
        .await;

    one.until(&id, "pending").await;
    assert_eq!(one.block().await.as_deref(), Some(": alive"), "a sign of life");
    world.stop().await;
    while let Some(block) = one.block().await {
        assert_eq!(block, ": alive");
    }
}

#[tokio::test]
async fn viewers_are_told_how_the_cluster_is() {
    let world = World::start().await;
    let (mut viewer, _) = viewer(&world).await;
    let mut until = async |ok: bool| loop {
        let event = viewer.next().await;
        if event.name == "cluster" && event.data["ok"] == ok {
            return event.data;
        }
    };
    let well = until(true).await;
    assert_eq!(
        (&well["cluster"]["status"], &well["error"]),
        (&json!("serving"), &Value::Null)
    );
    world.kv.outage(Some(Fault::Unavailable));
    let away = until(false).await;
    assert!(away["error"].as_str().unwrap().contains("made to fail"), "{away}");
    assert_eq!(away["cluster"], Value::Null);
}

#[tokio::test]
async fn the_stream_outlives_a_kv_that_is_away() {
    let world = World::start().await;
    let (mut viewer, _) = viewer(&world).await;
    world.kv.with(|store| {
        store.cut_watches();
        store.set("delivery:00-a", &json!({"id": "00-a", "status": "pending"}));
    });
    viewer.until("00-a", "pending").await;
    // Changes that the KV can no longer tell of: everything is read again.
    world.kv.with(|store| {
        store.cut_watches();
        store.set("delivery:00-b", &json!({"id": "00-b", "status": "pending"}));
        store.remove("delivery:00-a");
        store.forget_changes();
    });
    let all = loop {
        let event = viewer.next().await;
        if event.name == "snapshot" && ids(&event.data["deliveries"]) == ["00-b"] {
            break event;
        }
    };
    assert_eq!(all.data["drones"], json!([]));
}
