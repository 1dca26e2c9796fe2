//! Everything that only reads, and the page.

use bus::{Bus, Topic};
use bytes::Bytes;
use kv_client::testing::{Call, Fault};
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn lists_are_newest_first_limited_and_paged() {
    let world = World::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.order().await["id"].as_str().unwrap().to_owned());
    }
    ids.reverse();
    let shown = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (status, list) = world.get("/deliveries?limit=2").await;
    assert_eq!(
        (status, &list["count"], shown(&list)),
        (200, &json!(2), ids[..2].to_vec())
    );
    let (_, older) = world
        .get(&format!("/deliveries?limit=2&after={}", list["next"].as_str().unwrap()))
        .await;
    assert_eq!(shown(&older), ids[2..4]);
    let (_, rest) = world
        .get(&format!("/deliveries?after={}", older["next"].as_str().unwrap()))
        .await;
    assert_eq!((shown(&rest), &rest["next"]), (ids[4..].to_vec(), &Value::Null));

    let key = format!("delivery:{}", ids[1]);
    let mut ended = world.kv.value(&key).unwrap();
    ended["status"] = json!("delivered");
    world.kv.set(&key, &ended);
    world.kv.with(|store| store.remove(&format!("open:{}", ids[1])));
    assert_eq!(shown(&world.get("/deliveries?status=delivered").await.1), ids[1..2]);
    let (_, pending) = world.get("/deliveries?status=pending&limit=2").await;
    assert_eq!(shown(&pending), [ids[0].clone(), ids[2].clone()]);
    let next = pending["next"].as_str().unwrap();
    assert_eq!(
        shown(&world.get(&format!("/deliveries?status=pending&after={next}")).await.1),
        ids[3..]
    );

    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("status=lost", "status"),
        (
            "after=00000000-0000-7000-8000-00000000000000000-0000-7000-8000-0000000000000",
            "after",
        ),
    ] {
        let (status, body) = world.get(&format!("/deliveries?{query}")).await;
        assert!(
            status == 422 && body["detail"].as_str().unwrap().contains(named),
            "{query}: {status} {body}"
        );
    }
    let (status, body) = world.get("/deliveries?limit=1&limit=2").await;
    assert_eq!((status, &body["field"]), (422, &json!("limit")), "{body}");
    let (status, body) = world.get("/deliveries/%ff").await;
    assert!(
        status == 400 && body["detail"].as_str().unwrap().contains("path"),
        "{body}"
    );
    assert_eq!(world.get("/deliveries?limit=1000").await.0, 200);
    assert_eq!(
        world.get("/deliveries/none").await,
        (404, json!({"detail": "Delivery not found"}))
    );
}

#[tokio::test]
async fn drones_come_with_their_zone_in_counting_order() {
    let world = World::start().await;
    assert_eq!(world.get("/drones").await, (200, json!({"count": 0, "items": []})));
    for (number, lat) in [(10, 41.97), (2, 41.81), (3, 48.0)] {
        let id = format!("drone-{number}");
        world.kv.set(
            &format!("drone:{id}"),
            &json!({"id": id, "type": "light", "status": "idle", "battery": 80, "pos": {"lat": lat, "lon": 12.38}, "wind": 3}),
        );
    }
    world.kv.set("drone:broken", &json!("not a record"));
    let (_, list) = world.get("/drones").await;
    assert_eq!(list["count"], 3, "one bad record hides no other");
    let shown: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|drone| (drone["id"].as_str().unwrap(), drone["zone"].as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("drone-2", Some("zone 2")),
            ("drone-3", None),
            ("drone-10", Some("zone 0"))
        ]
    );
    let (status, drone) = world.get("/drones/drone-2").await;
    assert_eq!(
        (status, &drone["zone"], &drone["wind"]),
        (200, &json!("zone 2"), &json!(3))
    );
    assert_eq!(
        world.get("/drones/drone-99").await,
        (404, json!({"detail": "Drone not found"}))
    );
}

#[tokio::test]
async fn zones_are_made_at_start_and_again_when_missing() {
    let world = World::start().await;
    let stored = world.kv.value("zones_config").unwrap();
    assert_eq!(world.get("/zones").await, (200, stored.clone()));
    world.kv.with(|store| store.remove("zones_config"));
    assert_eq!(world.get("/zones").await, (200, stored.clone()));
    assert_eq!(world.kv.value("zones_config").unwrap(), stored);
    world.kv.set("zones_config", &json!({"rows": "many"}));
    assert_eq!(world.get("/zones").await, (200, stored));
    // What is stored counts, not the settings.
    let wide = domain::zones::ZonesConfig::rome(1, 3).unwrap();
    world.kv.set("zones_config", &wide);
    assert_eq!(world.get("/zones").await.1["cols"], 3);
}

#[tokio::test]
async fn no_fly_zones_are_stored_with_the_grid_and_shown() {
    let flags = ["--no-fly-zones", "41.88,12.47 41.88,12.49 41.90,12.48"];
    let world = World::prepared(&flags, |_| {}).await;
    let corner = |lat, lon| json!({"lat": lat, "lon": lon});
    let no_fly = json!([{"vertices": [corner(41.88, 12.47), corner(41.88, 12.49), corner(41.90, 12.48)]}]);
    assert_eq!(world.get("/zones").await.1["no_fly"], no_fly);
    let mut stored = world.kv.value("zones_config").unwrap();
    assert_eq!(stored["no_fly"], no_fly);
    // What cannot be is replaced by what the settings say.
    stored["no_fly"][0]["vertices"] = json!([corner(41.0, 12.0)]);
    world.kv.set("zones_config", &stored);
    assert_eq!(world.get("/zones").await.1["no_fly"], no_fly);
    // Without any the answer is as it was before there were any.
    stored.as_object_mut().unwrap().remove("no_fly");
    world.kv.set("zones_config", &stored);
    assert_eq!(world.get("/zones").await.1, stored);
}

#[tokio::test]
async fn health_readiness_stats_and_events() {
    let world = World::start().await;
    assert_eq!(world.get("/health").await, (200, json!({"status": "ok"})));
    world.order().await;
    world.kv.set(
        "drone:drone-1",
        &json!({"id": "drone-1", "status": "busy", "pos": {"lat": 41.9, "lon": 12.4}}),
    );
    let event = json!({"type": "delivery_assigned", "delivery_id": "d", "drone_id": "drone-1"});
    let topic = Topic::broadcast("delivery_status");
    world
        .until("an event arrives", async || {
            world.bus.publish(&topic, Bytes::from(event.to_string())).await.unwrap();
            world.get("/stats").await.1["recent_events"][0]["delivery_id"] == "d"
        })
        .await;
    world
        .bus
        .publish(&topic, Bytes::from_static(b"not JSON"))
        .await
        .unwrap();
    let (status, stats) = world.get("/stats").await;
    assert_eq!(status, 200);
    let counts = &stats["deliveries"];
    assert_eq!(
        (&counts["pending"], &counts["delivered"], &counts["complete"]),
        (&json!(1), &json!(0), &json!(true))
    );
    assert_eq!(stats["fleet"], json!({"busy": 1}));
    assert_eq!(stats["latency"]["deliver"]["p99_sec"], Value::Null);
    let now = stats["now"].as_f64().unwrap();
    let ended = json!({"id": "00-ended", "status": "delivered", "timestamp": now - 60.0, "assigned_at": now - 58.0,
        "picked_up_at": now - 30.0, "delivered_at": now - 10.0});
    world.kv.set("delivery:00-ended", &ended);
    world
        .until("how long it took is told", async || {
            let latency = world.get("/stats").await.1["latency"].take();
            ["assign", "pick_up", "deliver"].map(|what| latency[what]["p99_sec"].as_f64().map(f64::round))
                == [Some(2.0), Some(30.0), Some(50.0)]
        })
        .await;
    let metrics = world
        .client
        .get(world.url("/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(metrics.contains("gateway_orders_created_total 1"), "{metrics}");
    assert!(
        metrics.contains("gateway_delivery_events_total{type=\"delivery_assigned\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn reads_say_so_when_the_kv_is_away() {
    let world = World::start().await;
    world.kv.outage(Some(Fault::Unavailable));
    let paths = ["/deliveries", "/drones", "/zones", "/stats", "/deliveries/x"];
    let answers = futures_util::future::join_all(paths.map(|path| world.get(path))).await;
    for (path, (status, body)) in paths.into_iter().zip(answers) {
        assert!(
            status == 503 && body["detail"].is_string() && body.get("outcome").is_none(),
            "{path}: {status} {body}"
        );
    }
    assert_eq!(world.get("/health").await.0, 200);
}

#[tokio::test]
async fn many_viewers_cost_few_scans() {
    let world = World::start().await;
    world.order().await;
    let before = world.kv.count(Call::Scan);
    let viewers: Vec<_> = (0..100)
        .map(|_| {
            let request = world.client.get(world.url("/deliveries?limit=100"));
            tokio::spawn(async move { request.send().await.unwrap().status() })
        })
        .collect();
    for viewer in viewers {
        assert_eq!(viewer.await.unwrap(), 200);
    }
    let scans = world.kv.count(Call::Scan) - before;
    assert!(scans <= 20, "{scans} scans for 100 viewers");
}

#[tokio::test]
async fn the_page_is_served_with_its_policy() {
    let world = World::start().await;
    let response = world.client.get(world.url("/")).send().await.unwrap();
    assert_eq!((response.url().path(), response.status().as_u16()), ("/dashboard", 200));
    let headers = response.headers().clone();
    assert!(
        headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'self'")
    );
    assert_eq!(
        (&headers["x-content-type-options"], &headers["content-type"]),
        (
            &"nosniff".parse().unwrap(),
            &"text/html; charset=utf-8".parse().unwrap()
        )
    );
    let again = world
        .client
        .get(world.url("/dashboard"))
        .header("If-None-Match", &headers["etag"])
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);
    let script = world.client.get(world.url("/dashboard/app.js")).send().await.unwrap();
    assert_eq!(script.headers()["content-type"], "text/javascript; charset=utf-8");
    assert_eq!(world.get("/dashboard/../Cargo.toml").await.0, 404);
    assert_eq!(world.get("/nowhere").await.0, 404);
}
