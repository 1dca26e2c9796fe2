//! The feed without HTTP: what viewers are told.

use serde_json::json;

use super::*;

const NOW: f64 = 1_800_000_000.0;

fn feed() -> Feed {
    let feed = Feed::new(10, Duration::from_secs(900), 1.0, &Metrics::new("test"));
    feed.reload(|mirror| mirror.load_drones(std::iter::empty()));
    assert!(feed.begin(None, NOW).is_none(), "not before all has been read");
    feed.reload(|mirror| mirror.load_deliveries(std::iter::empty()));
    feed
}

fn change(key: &str, version: u64, value: Option<&Value>) -> Change {
    Change {
        key: key.to_owned(),
        value: value.map(|value| serde_json::value::to_raw_value(value).unwrap()),
        version: kv_client::Version(format!("{version:016x}")),
    }
}

fn drone(feed: &Feed, id: &str, version: u64, record: Option<&Value>) {
    feed.change_drone(&change(&format!("drone:{id}"), version, record), |record| record);
}

fn delivery(feed: &Feed, id: &str, version: u64, status: &str) {
    let record = json!({"id": id, "status": status, "timestamp": NOW});
    feed.change_delivery(change(&format!("delivery:{id}"), version, Some(&record)));
}

/// Name and data of each event.
fn events(batch: &Batch) -> Vec<(String, Value)> {
    let text: String = batch
        .frames
        .iter()
        .map(|frame| std::str::from_utf8(frame).unwrap())
        .collect();
    let field = |event: &str, name: &str| {
        let mut lines = event
            .lines()
            .filter_map(|line| line.strip_prefix(name).map(str::to_owned));
        lines.next()
    };
    text.split("\n\n")
        .filter_map(|event| {
            let data = serde_json::from_str(&field(event, "data: ")?).unwrap();
            Some((field(event, "event: ")?, data))
        })
        .collect()
}

fn ids(items: &Value) -> Vec<&str> {
    items
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect()
}

#[test]
fn a_drone_is_told_by_what_differs() {
    let feed = feed();
    drone(
        &feed,
        "drone-1",
        1,
        Some(&json!({"id": "drone-1", "battery": 80, "freeze_until": 5})),
    );
    assert!(feed.flush(NOW, false) && !feed.flush(NOW, false));
    let begin = feed.begin(None, NOW).unwrap();
    let (name, first) = events(&begin).remove(0);
    assert_eq!(
        (name.as_str(), &first["drones"][0]["battery"]),
        ("snapshot", &json!(80))
    );

    drone(&feed, "drone-1", 2, Some(&json!({"id": "drone-1", "battery": 79})));
    drone(&feed, "drone-1", 1, Some(&json!({"id": "drone-1", "battery": 100})));
    feed.flush(NOW + 1.0, false);
    let next = feed.next(begin.at, NOW);
    assert_eq!(
        events(&next),
        [(
            "drones".to_owned(),
            json!({"at": NOW + 1.0, "items": [{"id": "drone-1", "battery": 79, "freeze_until": null}]})
        )]
    );
    drone(&feed, "drone-1", 3, None);
    feed.flush(NOW, false);
    let gone = json!({"at": NOW, "items": [{"id": "drone-1", "deleted": true}]});
    assert_eq!(events(&feed.next(next.at, NOW)), [("drones".to_owned(), gone)]);
    assert_eq!(events(&feed.begin(None, NOW).unwrap())[0].1["drones"], json!([]));
}

#[test]
fn news_of_one_frame_is_told_once_and_by_its_end() {
    let feed = feed();
    let begin = feed.begin(None, NOW).unwrap();
    delivery(&feed, "a", 1, "pending");
    delivery(&feed, "b", 1, "pending");
    delivery(&feed, "a", 2, "assigned");
    feed.change_delivery(change("delivery:c", 1, Some(&json!("no record"))));
    drone(&feed, "drone-1", 1, Some(&json!({"id": "drone-1"})));
    feed.flush(NOW, false);
    let told = events(&feed.next(begin.at, NOW));
    assert_eq!((told[0].0.as_str(), told[1].0.as_str()), ("drones", "deliveries"));
    let items = &told[1].1["items"];
    assert_eq!((ids(items), &items[0]["status"]), (vec!["a", "b"], &json!("assigned")));
}

#[test]
fn who_comes_back_is_told_what_was_missed_and_else_everything() {
    let feed = feed();
    delivery(&feed, "a", 1, "pending");
    feed.flush(NOW, false);
    let seen = feed.lock().ring.id(1);
    for number in 2..=3 {
        delivery(&feed, "a", number, if number == 2 { "assigned" } else { "in_flight" });
        feed.flush(NOW, false);
    }
    let missed = events(&feed.begin(Some(&seen), NOW).unwrap());
    let statuses: Vec<_> = missed.iter().map(|(_, data)| &data["items"][0]["status"]).collect();
    assert_eq!(statuses, [&json!("assigned"), &json!("in_flight")]);
    for id in ["ffffffff-1", "nonsense", ""] {
        assert_eq!(events(&feed.begin(Some(id), NOW).unwrap())[0].0, "snapshot", "{id}");
    }
    let newest = feed.lock().ring.id(3);
    assert!(feed.begin(Some(&newest), NOW).unwrap().frames.is_empty());
}

#[test]
fn who_is_too_slow_gets_the_present_state() {
    let feed = feed();
    let begin = feed.begin(None, NOW).unwrap();
    for version in 1..=LAG_MAX_FRAMES {
        delivery(&feed, "a", version, "pending");
        feed.flush(NOW, false);
    }
    assert_eq!(feed.next(begin.at, NOW).frames.len(), 50);
    delivery(&feed, "a", LAG_MAX_FRAMES + 1, "assigned");
    feed.flush(NOW, false);
    let batch = feed.next(begin.at, NOW);
    let told = events(&batch);
    assert_eq!((told.len(), told[0].0.as_str()), (1, "snapshot"));
    assert_eq!(told[0].1["deliveries"][0]["status"], "assigned");
    assert!(feed.next(batch.at, NOW).frames.is_empty(), "and goes on from there");
}

#[test]
fn a_snapshot_is_made_once_for_all() {
    let feed = feed();
    delivery(&feed, "a", 1, "pending");
    feed.flush(NOW, false);
    let of = |feed: &Feed| feed.begin(None, NOW).unwrap().frames[0].as_ptr();
    assert_eq!(of(&feed), of(&feed));
}

#[test]
fn after_a_gap_everybody_gets_a_snapshot() {
    let feed = feed();
    delivery(&feed, "a", 1, "pending");
    feed.flush(NOW, false);
    let begin = feed.begin(None, NOW).unwrap();
    let seen = feed.lock().ring.id(begin.at);
    feed.reload(|mirror| mirror.load_deliveries(std::iter::empty()));
    let told = events(&feed.next(begin.at, NOW));
    assert_eq!((told[0].0.as_str(), &told[0].1["deliveries"]), ("snapshot", &json!([])));
    assert_eq!(events(&feed.begin(Some(&seen), NOW).unwrap())[0].0, "snapshot");
}

#[test]
fn the_mirror_keeps_what_flies_and_the_newest_others() {
    let feed = feed();
    delivery(&feed, "000000", 1, "in_flight");
    for number in 1..=mirror::OTHERS_MAX + 5 {
        delivery(&feed, &format!("{number:06}"), 1, "pending");
    }
    let snapshot = &events(&feed.begin(None, NOW).unwrap())[0].1;
    let kept = ids(&snapshot["deliveries"]);
    assert_eq!(
        (kept.len(), kept[0], kept[1]),
        (mirror::OTHERS_MAX + 1, "000000", "000006")
    );
    feed.flush(NOW, false);
    let at = feed.lock().ring.head();
    // One that is not kept is told of all the same.
    delivery(&feed, "000001", 2, "delivered");
    feed.flush(NOW, false);
    assert_eq!(ids(&events(&feed.next(at, NOW))[0].1["items"]), ["000001"]);
}
