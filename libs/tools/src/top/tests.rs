use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use serde_json::json;
use service::Shutdown;
use tokio::net::TcpListener;

use super::look::{Looker, Traffic};
use super::picture::Picture;
use super::{Args, watch};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

const METRICS: &str = "# HELP lb_requests Requests\nlb_requests_total{class=\"2xx\"} 90\nlb_requests_total{class=\"5xx\"} 10\nlb_in_flight 3\nlb_backends 2\n";

/// A system in one server: lb, gateway and kvfront.
async fn system(delivered: u64) -> String {
    let order = |n: u64| {
        let at = 1_000.0 - n as f64;
        if n == 0 {
            json!({"id": "o0", "status": "pending", "drone_id": null, "timestamp": at})
        } else {
            json!({"id": format!("o{n}"), "status": "delivered", "drone_id": "drone-1", "timestamp": at, "assigned_at": at + 0.5, "delivered_at": at + 20.0})
        }
    };
    let answers = [
        (
            "/stats",
            json!({"now": 1_010.0, "deliveries": {"pending": 1, "delivered": delivered, "total": delivered + 1, "complete": true}}),
        ),
        (
            "/drones",
            json!({"items": [{"id": "drone-1", "status": "busy", "battery": 40.0}, {"id": "drone-2", "status": "idle", "battery": 80.0}]}),
        ),
        ("/deliveries", json!({"items": (0..50).map(order).collect::<Vec<_>>()})),
        (
            "/cluster",
            json!({"up": 2, "backends": 3, "hints_waiting": 7, "nodes": [{"name": "kvstore_a", "up": false, "standing": null, "hints_waiting": null, "clock_ahead_ms": -3}]}),
        ),
    ];
    let mut router = Router::new().route("/metrics", get(|| async { METRICS }));
    for (path, answer) in answers {
        router = router.route(path, get(|| async move { Json(answer) }));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn figures_are_those_of_the_system() {
    let (before, now) = (system(49).await, system(61).await);
    let looker = |url: &str| Looker::new(url, url).unwrap();
    let (earlier, seen) = (looker(&before).look().await, looker(&now).look().await);
    let picture = Picture::new(&seen, Some((&earlier, 10.0)), 2);
    let json = serde_json::to_value(&picture).unwrap();
    assert_eq!(json["errors"], json!([]));
    let orders = &json["orders"];
    assert_eq!(
        (&orders["placed_per_min"], &orders["delivered_per_min"]),
        (&json!(72.0), &json!(72.0))
    );
    assert_eq!(
        (&orders["assign_p50_ms"], &orders["oldest_open_sec"]),
        (&json!(500.0), &json!(10.0))
    );
    assert_eq!(
        (&json["fleet"]["battery_mean_pct"], &json["fleet"]["battery_min_drone"]),
        (&json!(60.0), &json!("drone-1"))
    );
    assert_eq!(
        (&json["traffic"]["requests_per_sec"], &json["traffic"]["in_flight"]),
        (&json!(0.0), &json!(3.0))
    );
    assert_eq!(
        (json["newest"].as_array().map(Vec::len), &json["newest"][1]["age_sec"]),
        (Some(2), &json!(11.0))
    );
    let text = picture.text();
    for line in [
        "orders   1 pending, 0 assigned, 0 in_flight, 61 delivered, 0 failed, 0 cancelled\n",
        "         72.0 placed/min, 72.0 delivered/min, oldest open 10 s\n",
        "         assigned in 0.5 s (p95 0.5), delivered in 20.0 s (p95 20.0)\n",
        "fleet    [####################....................] 1 busy, 1 idle\n",
        "KV       2 of 3 nodes up, 7 hints waiting\n         kvstore_a    DOWN  -         keeps 0 hints, clock -3 ms\n",
        "traffic  0.0 requests/s, 0.0 errors/s, 3 under way, 2 gateways\n",
        "o1                                     delivered  drone-1          11\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
}

#[tokio::test]
async fn who_does_not_answer_is_named_and_the_rest_shown() {
    let url = system(1).await;
    let seen = Looker::new(&url, "http://127.0.0.1:1").unwrap().look().await;
    let text = Picture::new(&seen, None, 10).text();
    assert!(
        text.contains("! no answer from http://127.0.0.1:1") && text.contains("orders   1 pending"),
        "{text}"
    );
    let once = |url: &str| {
        Cli::try_parse_from(["top", "--url", url, "--kv-url", url, "--interval", "0.01", "--json"])
            .unwrap()
            .args
    };
    assert_eq!(watch(&once(&url), Shutdown::new()).await.unwrap(), 0);
    assert_eq!(watch(&once("http://127.0.0.1:1"), Shutdown::new()).await.unwrap(), 4);
}

#[test]
fn counters_are_read() {
    let found = Traffic::of(METRICS).unwrap();
    assert_eq!(
        found,
        Traffic {
            requests: 100.0,
            errors: 10.0,
            in_flight: 3.0,
            backends: 2.0
        }
    );
    assert_eq!(Traffic::of("kvfront_ops_total 3\n"), None);
}
