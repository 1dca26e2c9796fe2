//! Orders: what is accepted, how it is stored, and what happens when things go wrong meanwhile.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bus::{Bus, Topic};
use kv_client::testing::{Call, Fault};
use serde_json::{Value, json};

use crate::world::{World, an_order, order_with_key};

#[tokio::test]
async fn an_order_is_stored_announced_and_listed() {
    let world = World::start().await;
    let mut hints = world.bus.subscribe(&Topic::work("delivery_requests"), 10).await;
    let mut order = an_order();
    order["colour"] = json!("red");
    let (status, record) = world.post_text(order.to_string()).await;
    assert_eq!(status, 201);
    let id = record["id"].as_str().unwrap();
    assert_eq!(
        (&record["status"], &record["drone_id"], &record["leg"]),
        (&json!("pending"), &Value::Null, &Value::Null)
    );
    assert_eq!(
        (&record["origin_zone"], &record["destination_zone"]),
        (&json!("zone 0"), &json!("zone 3"))
    );
    assert_eq!((&record["weight"], record.get("colour")), (&json!(2.5), None));
    assert!(record["timestamp"].as_f64().unwrap() > 1.6e9);

    assert_eq!(world.kv.value(&format!("delivery:{id}")).unwrap(), record);
    assert_eq!(world.kv.value(&format!("open:{id}")).unwrap()["id"], id);
    assert_eq!(world.get(&format!("/deliveries/{id}")).await, (200, record.clone()));
    let (_, list) = world.get("/deliveries").await;
    assert_eq!((&list["count"], &list["items"][0]), (&json!(1), &record));

    let hint = hints.next().await.unwrap();
    let body: Value = serde_json::from_slice(&hint.body).unwrap();
    assert_eq!(
        body,
        json!({"delivery_id": id, "origin": record["origin"], "destination": record["destination"], "weight": 2.5})
    );
    world.until("the index has it", async || world.index() == [id]).await;
}

#[tokio::test]
async fn an_order_says_on_whose_behalf_it_was_made() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let world = World::start().await;
    let mut hints = world.bus.subscribe(&Topic::work("delivery_requests"), 10).await;
    let order = |headers: &[(&'static str, &'static str)]| {
        let request = world.client.post(world.url("/deliveries")).body(an_order().to_string());
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value))
    };
    let headers = [
        ("traceparent", PARENT),
        ("tracestate", "team=drones"),
        ("x-request-id", "id-7"),
    ];
    let record: Value = order(&headers).send().await.unwrap().json().await.unwrap();
    // Nothing is recorded here, so it is passed on as it came.
    for (field, value) in [
        ("traceparent", PARENT),
        ("tracestate", "team=drones"),
        ("request_id", "id-7"),
    ] {
        assert_eq!(record[field], value, "{record}");
    }
    let hint = hints.next().await.unwrap();
    assert_eq!(hint.context.span.unwrap().traceparent().as_str(), PARENT);
    assert_eq!(hint.context.request_id.as_deref(), Some("id-7"));
    hint.ack().await;
    // What breaks the rules is left out, and what did not come is not made up.
    let headers = [
        ("traceparent", "00-xyz"),
        ("tracestate", "team=drones"),
        ("x-request-id", "id 7"),
    ];
    let record: Value = order(&headers).send().await.unwrap().json().await.unwrap();
    for field in ["traceparent", "tracestate", "request_id"] {
        assert!(record.get(field).is_none(), "{record}");
    }
}

#[tokio::test]
async fn bad_orders_are_told_what_is_wrong() {
    let world = World::start().await;
    let with = |change: fn(&mut Value)| {
        let mut order = an_order();
        change(&mut order);
        order.to_string()
    };
    let text = an_order().to_string();
    let cases: Vec<(String, u16, &str)> = vec![
        (with(|o| o["origin"]["lat"] = json!(91)), 422, "origin.lat"),
        (
            with(|o| o["destination"]["lon"] = json!(-180.01)),
            422,
            "destination.lon",
        ),
        (with(|o| o["weight"] = json!(0)), 422, "weight"),
        (with(|o| o["weight"] = json!(-1)), 422, "weight"),
        (with(|o| o["weight"] = json!("heavy")), 422, "weight"),
        (with(|o| o["weight"] = Value::Null), 422, "weight"),
        (with(|o| o["origin"] = json!("Rome")), 422, "origin"),
        (
            with(|o| drop(o.as_object_mut().unwrap().remove("destination"))),
            422,
            "destination",
        ),
        (text.replace(":2.5", ":NaN"), 422, "weight"),
        (text.replace(":41.9", ":1e999"), 422, "origin.lat"),
        ("[]".to_owned(), 422, "body"),
        ("{\"origin\":".to_owned(), 400, "JSON"),
        (String::new(), 400, "empty"),
        (with(|o| o["note"] = json!("x".repeat(2 << 20))), 413, "larger"),
    ];
    for (body, expected, named) in cases {
        let shown: String = body.chars().take(80).collect();
        let (status, answer) = world.post_text(body).await;
        let detail = answer["detail"].as_str().unwrap();
        assert_eq!(status, expected, "{shown}: {detail}");
        assert!(detail.contains(named), "{shown}: {detail}");
    }
    let (_, list) = world.get("/deliveries").await;
    assert_eq!(list["count"], 0);
}

#[tokio::test]
async fn orders_outside_the_zones_are_accepted() {
    let world = World::start().await;
    let mut order = an_order();
    order["origin"] = json!({"lat": 48.85, "lon": 2.35});
    let (status, record) = world.post_text(order.to_string()).await;
    assert_eq!((status, &record["origin_zone"]), (201, &Value::Null));
}

#[tokio::test]
async fn a_key_is_one_order_whatever_the_spelling_and_never_another() {
    let world = World::start().await;
    let (status, first) = world.order_with_key("k", &an_order()).await;
    assert_eq!(status, 201);
    let mut same = an_order();
    same["weight"] = json!(25e-1);
    same["extra"] = json!(1);
    let (status, second) = world.order_with_key("k", &same).await;
    assert_eq!((status, &second), (200, &first));
    let mut other = an_order();
    other["weight"] = json!(3);
    let (status, refused) = world.order_with_key("k", &other).await;
    assert_eq!(status, 422, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("Idempotency-Key"));
    let (status, another) = world.order_with_key("k/2", &other).await;
    assert_eq!(status, 201);
    assert_ne!(another["id"], first["id"]);
    for bad in [" ", &"k".repeat(256)] {
        let (status, refused) = world.order_with_key(bad, &other).await;
        assert!(
            status == 422 && refused["detail"].as_str().unwrap().contains("Idempotency-Key"),
            "{refused}"
        );
    }
    world
        .until("both are in the index", async || world.index().len() == 2)
        .await;
    // The repeat shows the record as it is now.
    let id = first["id"].as_str().unwrap();
    let mut flying = first.clone();
    flying["status"] = json!("delivered");
    world.kv.set(&format!("delivery:{id}"), &flying);
    world.kv.with(|store| store.remove(&format!("open:{id}")));
    assert_eq!(world.order_with_key("k", &an_order()).await, (200, flying));
    assert_eq!(
        world.kv.value(&format!("open:{id}")),
        None,
        "an ended order is not opened again"
    );
}

/// So many send an order with one key at once, to all three gateways. The ids they are told, of which there is one, as there is one 201.
async fn one_order_of_racing(world: &World, senders: usize, key: &'static str) -> HashSet<String> {
    let racing: Vec<_> = (0..senders)
        .map(|number| {
            let (client, url) = (world.client.clone(), world.urls[number % 3].clone());
            tokio::spawn(async move { order_with_key(&client, &url, key, &an_order()).await })
        })
        .collect();
    let mut ids = HashSet::new();
    let mut created = 0;
    for one in racing {
        let (status, body) = one.await.unwrap();
        assert!(status == 200 || status == 201, "{status} {body}");
        created += usize::from(status == 201);
        ids.insert(body["id"].as_str().unwrap().to_owned());
    }
    assert_eq!((created, ids.len()), (1, 1));
    ids
}

#[tokio::test]
async fn fifty_racing_on_three_gateways_are_one_order() {
    let world = World::with_gateways(3).await;
    world.kv.delay(Duration::from_millis(2));
    let ids = one_order_of_racing(&world, 50, "race").await;
    world.until("the index has it", async || world.index().len() == 1).await;
    assert_eq!(world.get("/deliveries").await.1["count"], 1);
    let kv = world.stop().await;
    assert_eq!(
        kv.record::<Vec<String>>("deliveries_index").unwrap(),
        ids.into_iter().collect::<Vec<_>>(),
        "each at most once"
    );
}

#[tokio::test]
async fn a_repeat_finishes_what_the_first_left_half_done() {
    let world = World::with_gateways(2).await;
    // The first is stopped after so many of its writes (the key's entry, the open entry, the record), and everything
    // that it tries from then on fails: as if it had died.
    for writes in 0..=3 {
        let key = format!("half-{writes}");
        let indexed = world.index().len();
        world.kv.outage(Some(Fault::Unavailable));
        world.kv.fail_next(Call::Batch, 1, Fault::UnknownAfter(writes));
        let (status, body) = world.order_with_key(&key, &an_order()).await;
        assert_eq!((status, &body["outcome"]), (503, &json!("unknown")), "{writes}: {body}");
        let remembered = world.kv.value(&format!("idem:{key}"));
        let id = remembered
            .as_ref()
            .map(|entry| entry["id"].as_str().unwrap().to_owned());
        assert_eq!(id.is_some(), writes > 0);
        if let Some(id) = &id {
            let stored = [format!("open:{id}"), format!("delivery:{id}")].map(|key| world.kv.value(&key).is_some());
            assert_eq!(stored, [writes > 1, writes > 2]);
        }
        world.kv.outage(None);

        let records = world.kv.with(|store| store.keys("delivery:").len());
        let (status, record) = order_with_key(&world.client, &world.urls[1], &key, &an_order()).await;
        assert_eq!(status, if writes == 0 { 201 } else { 200 }, "{writes}: {record}");
        let is_new = writes < 3;
        assert_eq!(
            world.kv.with(|store| store.keys("delivery:").len()),
            records + usize::from(is_new)
        );
        let found = record["id"].as_str().unwrap();
        if let (Some(id), Some(remembered)) = (&id, &remembered) {
            assert_eq!((found, &record["timestamp"]), (id.as_str(), &remembered["at"]));
        }
        assert!(world.kv.value(&format!("open:{found}")).is_some());
        assert_eq!(world.kv.value(&format!("delivery:{found}")).unwrap(), record);
        if is_new {
            world
                .until("the index has it", async || world.index().len() == indexed + 1)
                .await;
        }
        let mut other = an_order();
        other["weight"] = json!(3);
        assert_eq!(world.order_with_key(&key, &other).await.0, 422);
    }
}

#[tokio::test]
async fn an_answer_lost_after_any_write_is_not_the_clients() {
    let world = World::start().await;
    for writes in 0..=3 {
        let key = format!("lost-{writes}");
        world.kv.fail_next(Call::Batch, 1, Fault::UnknownAfter(writes));
        let (status, first) = world.order_with_key(&key, &an_order()).await;
        assert_eq!(status, 201, "{writes}: {first}");
        let (status, second) = world.order_with_key(&key, &an_order()).await;
        assert_eq!((status, &second["id"]), (200, &first["id"]), "{writes}");
        let records = world.kv.with(|store| store.keys("delivery:").len());
        assert_eq!(records, writes + 1, "each order exists once");
        world
            .until("it is in the index, once", async || world.index().len() == writes + 1)
            .await;
    }
}

#[tokio::test]
async fn an_order_with_a_new_key_is_one_call() {
    let world = World::start().await;
    let calls = || [Call::Get, Call::Put, Call::Batch].map(|call| world.kv.count(call));
    // Loops read the zones and look at open orders meanwhile, a few times a second.
    let before = calls();
    for number in 0..100 {
        let (status, _) = world.order_with_key(&format!("one-{number}"), &an_order()).await;
        assert_eq!(status, 201);
    }
    let after = calls();
    let batches = after[2] - before[2];
    assert!((100..120).contains(&batches), "{batches} batches");
    assert!(
        after[0] - before[0] < 50 && after[1] == before[1],
        "{before:?} {after:?}"
    );
}

#[tokio::test]
async fn a_key_is_free_again_after_its_day() {
    let world = World::with_gateways(3).await;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let entry = |hours: f64| json!({"id": "old", "body_hash": "another", "at": now - hours * 3_600.0});
    world.kv.set("idem:young", &entry(23.9));
    let (status, refused) = world.order_with_key("young", &an_order()).await;
    assert_eq!(status, 422, "{refused}");

    world.kv.set("idem:old", &entry(24.1));
    world.kv.delay(Duration::from_millis(2));
    let ids = one_order_of_racing(&world, 30, "old").await;
    assert_eq!(world.kv.with(|store| store.keys("delivery:").len()), 1);
    assert!(ids.contains(world.kv.value("idem:old").unwrap()["id"].as_str().unwrap()));
}

#[tokio::test]
async fn short_trouble_is_not_the_clients() {
    let world = World::start().await;
    for fault in [
        Fault::Unavailable,
        Fault::UnknownNotDone,
        Fault::UnknownDone,
        Fault::LostAnswer,
    ] {
        let (before, key) = (
            world.get("/deliveries?limit=1000").await.1["count"].as_u64().unwrap(),
            format!("{fault:?}"),
        );
        world.kv.fail_next(Call::Batch, 2, fault);
        world.order().await;
        world.kv.fail_next(Call::Batch, 1, fault);
        world.kv.fail_next(Call::Cas, 1, fault);
        let (status, first) = world.order_with_key(&key, &an_order()).await;
        assert_eq!(status, 201, "{fault:?}: {first}");
        let (status, second) = world.order_with_key(&key, &an_order()).await;
        assert_eq!((status, &second["id"]), (200, &first["id"]), "{fault:?}");
        let after = world.get("/deliveries?limit=1000").await.1["count"].as_u64().unwrap();
        assert_eq!(after - before, 2, "{fault:?}: each order exists once");
    }
    world
        .until("all are in the index, once", async || world.index().len() == 8)
        .await;
}

#[tokio::test]
async fn an_outage_is_answered_in_time_and_honestly() {
    let world = World::start().await;
    for (fault, outcome) in [
        (Fault::Unavailable, Value::Null),
        (Fault::UnknownNotDone, json!("unknown")),
    ] {
        world.kv.outage(Some(fault));
        let start = Instant::now();
        let (status, body) = world.post_text(an_order().to_string()).await;
        assert!(start.elapsed() < Duration::from_millis(2_500), "{:?}", start.elapsed());
        assert_eq!((status, &body["outcome"]), (503, &outcome), "{body}");
        if outcome == "unknown" {
            let detail = body["detail"].as_str().unwrap();
            assert!(
                detail.contains(body["id"].as_str().unwrap()) && detail.contains("Idempotency-Key"),
                "{detail}"
            );
        }
    }
    // Silence: the answer comes within the request's time all the same.
    world.kv.outage(None);
    world.kv.delay(Duration::from_secs(5));
    let start = Instant::now();
    let (status, body) = world.post_text(an_order().to_string()).await;
    assert_eq!((status, &body["outcome"]), (503, &json!("unknown")));
    assert!(start.elapsed() < Duration::from_millis(2_500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn orders_do_not_wait_for_broker_or_index() {
    let world = World::start().await;
    world.bus.shut_down();
    // Nobody can write the index: plain CAS fails for as long as these last.
    world.kv.fail_next(Call::Cas, 5, Fault::Unavailable);
    let start = Instant::now();
    let ids: Vec<_> = [world.order().await, world.order().await]
        .map(|order| order["id"].as_str().unwrap().to_owned())
        .into();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    world.until("the index catches up", async || world.index() == ids).await;
}

#[tokio::test]
async fn the_index_keeps_the_newest_thousand_of_all_gateways() {
    let world = World::with_gateways(2).await;
    let old: Vec<String> = (0..1_000).map(|number| format!("00000000-{number:04}")).collect();
    world.kv.set("deliveries_index", &old);
    let mut ids = Vec::new();
    for round in 0..20 {
        let url = format!("{}/deliveries", world.urls[round % 2]);
        let (status, body) = crate::world::answer(
            world
                .client
                .post(url)
                .body(an_order().to_string())
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(status, 201);
        ids.push(body["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    world
        .until("all are in the index", async || world.index()[980..] == ids)
        .await;
    assert_eq!(world.index()[..980], old[20..]);
}

#[tokio::test]
async fn ids_that_a_killed_gateway_had_not_written_come_back_with_the_next() {
    let mut world = World::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.order().await["id"].as_str().unwrap().to_owned());
    }
    world.until("the index has them", async || world.index() == ids).await;
    world.kv.set("deliveries_index", &ids[..1]);
    world.add_gateway().await;
    world.until("all are back", async || world.index() == ids).await;
}

#[tokio::test]
async fn what_waits_for_the_index_is_written_at_the_end() {
    let world = World::start().await;
    let id = world.order().await["id"].as_str().unwrap().to_owned();
    let kv = world.stop().await;
    assert_eq!(kv.record::<Vec<String>>("deliveries_index"), Some(vec![id]));
}

#[tokio::test]
async fn a_busy_neighbour_does_not_keep_ids_out_of_the_index() {
    let world = World::start().await;
    world.kv.delay(Duration::from_millis(1));
    let append = |number: usize| {
        world.kv.with(|store| {
            let mut ids: Vec<Value> = store
                .value("deliveries_index")
                .and_then(|list| list.as_array().cloned())
                .unwrap_or_default();
            ids.push(json!(format!("00000000-{number:04}")));
            store.set("deliveries_index", &ids);
        });
    };
    let id = world.order().await["id"].as_str().unwrap().to_owned();
    // Somebody else writes all the time, though not quite without a break.
    let start = Instant::now();
    for number in 0.. {
        append(number);
        if world.index().contains(&id) {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "kept out by {number} other writes"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_order_from_or_to_a_no_fly_zone_is_refused_by_its_field() {
    let world = World::start().await;
    let order = |from: f64, to: f64| json!({"origin": {"lat": 41.89, "lon": from}, "destination": {"lat": 41.89, "lon": to}, "weight": 1.0});
    let inside = order(12.45, 12.48);
    let (status, before) = world.order_with_key("before", &inside).await;
    assert_eq!(status, 201);
    let kv = world.stop().await;
    let mut zones = kv.value("zones_config").unwrap();
    let corner = |lat: f64, lon: f64| json!({"lat": lat, "lon": lon});
    zones["no_fly"] = json!([{"vertices": [corner(41.88, 12.47), corner(41.88, 12.49), corner(41.90, 12.48)]}]);
    kv.set("zones_config", &zones);
    // A gateway that has never seen other zones.
    let world = World::on(kv, 1, &[]).await;
    assert_eq!(world.get("/zones").await.1["no_fly"], zones["no_fly"]);
    for (body, field) in [(inside.clone(), "destination"), (order(12.48, 12.45), "origin")] {
        let (status, answer) = world.post_text(body.to_string()).await;
        assert_eq!((status, &answer["field"]), (422, &json!(field)));
        assert_eq!(
            answer["detail"],
            format!("{field}: got lat 41.89, lon 12.48, inside no_fly[0]; expected a place outside the no-fly zones")
        );
    }
    assert_eq!(world.post_text(order(12.45, 12.465).to_string()).await.0, 201);
    // What was accepted before is answered as ever; with another key it is another order.
    let (status, again) = world.order_with_key("before", &inside).await;
    assert_eq!((status, &again["id"]), (200, &before["id"]));
    assert_eq!(world.order_with_key("after", &inside).await.0, 422);
}
