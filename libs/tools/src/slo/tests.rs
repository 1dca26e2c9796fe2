use axum::extract::Query;
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use serde_json::{Value, json};

use super::{Args, Watcher, watch, window};
use crate::gateway::Gateway;
use service::Shutdown;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn args(flags: &[&str]) -> Args {
    Cli::try_parse_from([&["slo"], flags].concat()).unwrap().args
}

fn log(good: usize, bad: usize) -> String {
    let line = |status| format!("lb-1  | [access] GET /zones {status} 2.0ms\n");
    line(200).repeat(good) + &line(500).repeat(bad)
}

async fn exit_code(file: &std::path::Path, flags: &[&str]) -> u8 {
    let mut all = vec![file.to_str().unwrap()];
    all.extend(flags);
    watch(&args(&all), Shutdown::new()).await.unwrap()
}

#[tokio::test]
async fn the_exit_code_is_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    for (good, bad, code) in [(1_000, 0, 0), (990, 8, 1), (990, 20, 2), (3, 0, 3)] {
        std::fs::write(&file, log(good, bad)).unwrap();
        assert_eq!(exit_code(&file, &[]).await, code, "{good} good, {bad} bad");
        assert_eq!(exit_code(&file, &["--json"]).await, code);
    }
    let spec = folder.path().join("slo.json");
    std::fs::write(
        &spec,
        r#"{"objectives":[{"name":"a","of":"requests","target_percent":50}]}"#,
    )
    .unwrap();
    std::fs::write(&file, log(20, 5)).unwrap();
    assert_eq!(exit_code(&file, &["--slo", spec.to_str().unwrap()]).await, 0);
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let missing = watch(&args(&["/nonexistent/access.log"]), Shutdown::new())
        .await
        .unwrap_err();
    assert!(
        format!("{missing:#}").contains("/nonexistent/access.log"),
        "{missing:#}"
    );
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("slo.json");
    std::fs::write(&spec, r#"{"min_events":0}"#).unwrap();
    let bad = watch(&args(&["--slo", spec.to_str().unwrap(), "-"]), Shutdown::new())
        .await
        .unwrap_err();
    let text = format!("{bad:#}");
    assert!(
        text.contains("slo.json") && text.contains("min_events: got 0"),
        "{text}"
    );
}

#[tokio::test]
async fn a_followed_file_is_read_on_also_when_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    std::fs::write(&file, log(30, 0)).unwrap();
    let mut pieces = crate::pieces::open(&crate::pieces::Source::File(file.clone()), true).unwrap();
    let mut read = async |bytes: usize| {
        let mut len = 0;
        while len < bytes {
            len += pieces.recv().await.unwrap().unwrap().len();
        }
        len
    };
    assert_eq!(read(log(30, 0).len()).await, log(30, 0).len());
    let other = folder.path().join("new.log");
    std::fs::write(&other, log(2, 0)).unwrap();
    std::fs::rename(&other, &file).unwrap();
    assert_eq!(read(log(2, 0).len()).await, log(2, 0).len());
}

/// A gateway with `count` orders, newest first, one a second; the eldest is still open.
async fn gateway(count: usize) -> String {
    const NOW: f64 = 2_000_000.0;
    let page = move |query: Query<std::collections::HashMap<String, String>>| async move {
        let after: usize = query.get("after").map_or(0, |text| text.parse().unwrap());
        let limit: usize = query["limit"].parse().unwrap();
        let order = |n: usize| {
            let at = NOW - n as f64;
            if n == count - 1 {
                json!({"id": format!("o{n}"), "status": "pending", "timestamp": at, "drone_id": null})
            } else {
                json!({"id": format!("o{n}"), "status": "delivered", "timestamp": at, "assigned_at": at + 1.0, "delivered_at": at + 2.0})
            }
        };
        let end = count.min(after + limit);
        let items: Vec<Value> = (after..end).map(order).collect();
        Json(json!({"count": items.len(), "items": items, "next": (end < count).then(|| end.to_string())}))
    };
    let stats =
        json!({"now": NOW, "deliveries": {"pending": 1, "assigned": 0, "in_flight": 0, "delivered": count - 1}});
    let router = Router::new()
        .route("/deliveries", get(page))
        .route("/stats", get(|| async move { Json(stats) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn orders_are_read_as_far_as_needed() {
    let url = gateway(2_500).await;
    let gateway = Gateway::new(&url).unwrap();
    let found = gateway.orders(|now_sec| now_sec - 100.0).await.unwrap();
    // Those of 100 s, and the open one far behind.
    assert_eq!((found.orders.len(), found.truncated), (102, false));
    let flags = ["-", "--url", &url, "--window", "10m"];
    let mut watcher = Watcher {
        args: &args(&flags),
        tracker: slo::Tracker::new(slo::Spec::default(), Some(600)),
        gateway: Some(gateway),
        clock: service::clock::system_clock(),
    };
    watcher.ask_for_orders().await.unwrap();
    let report = slo::Report::new(&watcher.tracker, Some(2_000_000_000));
    let assigned = &report.objectives[3];
    assert_eq!(
        (assigned.objective.name.as_str(), assigned.good, assigned.p95_ms),
        ("assigned in 40 s", 599, Some(1_000.0))
    );
    let open = report.orders.unwrap();
    assert_eq!((open.open, open.oldest_id.as_deref()), (1, Some("o2499")));
}

#[test]
fn windows() {
    assert_eq!(
        ["90", "90s", "15m", "6h", "7d"].map(window),
        [90, 90, 900, 21_600, 604_800].map(Ok)
    );
    for bad in ["", "0", "x", "1w", "-5s", "400d", "1.5h"] {
        assert!(window(bad).unwrap_err().contains("90s"), "{bad}");
    }
}
