//! The cluster view: what kvfront, lb and RabbitMQ say, together, from the gateway's own origin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Path;
use axum::http::Uri;
use axum::routing::{get, post};
use bus::InProcess;
use gateway::Config;
use reqwest::Client;
use serde_json::{Value, json};
use service::{Shutdown, settings};
use tokio::net::TcpListener;

use crate::world::answer;

/// Serves a router; its address.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{addr}")
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A gateway with these flags; its address. Ends with the test.
async fn gateway(flags: &[&str]) -> String {
    let config: Config = settings::try_parse_from(["gateway"].iter().chain(flags)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(gateway::run(config, listener, InProcess::new(), Shutdown::new()));
    format!("http://{addr}")
}

async fn get_json(url: &str) -> (u16, Value) {
    answer(Client::new().get(url).send().await.unwrap()).await
}

fn kvfront(asked: &Arc<AtomicUsize>) -> Router {
    let asked = Arc::clone(asked);
    let cluster = move || async move {
        asked.fetch_add(1, Ordering::SeqCst);
        axum::Json(json!({ "up": 3 }))
    };
    let explain = |uri: Uri| async move { axum::Json(json!({ "asked": uri.path() })) };
    Router::new()
        .route("/cluster", get(cluster))
        .route("/ring", get(|| async { axum::Json(json!({ "partitions": 4096 })) }))
        .route("/explain/{*key}", get(explain))
}

#[tokio::test]
async fn many_viewers_see_all_sources_and_cost_one_question() {
    let asked = Arc::new(AtomicUsize::new(0));
    let kv = serve(kvfront(&asked)).await;
    let metrics = "lb_in_flight 4\nlb_backend_picks_total{backend=\"10.0.0.1:8000\"} 7\n";
    let lb = serve(Router::new().route("/metrics", get(move || async move { metrics }))).await;
    let queues = json!([{ "name": "delivery_requests", "messages_ready": 2 }]);
    let rabbit = serve(Router::new().route("/api/queues", get(move || async move { axum::Json(queues) }))).await;
    // The first of two kvfronts is away.
    let kvs = format!("{},{kv}", nobody().await);
    let flags = [
        "--kv-url",
        &kvs,
        "--lb-status-url",
        &lb,
        "--rabbit-management-url",
        &rabbit,
    ];
    let gateway = gateway(&flags).await;
    let url = format!("{gateway}/cluster");
    for (status, body) in futures_util::future::join_all((0..50).map(|_| get_json(&url))).await {
        assert_eq!(status, 200);
        assert_eq!(body["kv"], json!({ "says": { "up": 3 }, "error": null }));
        assert_eq!(body["lb"]["says"]["backends"]["10.0.0.1:8000"]["picks_total"], 7.0);
        assert_eq!(body["rabbit"]["says"][0]["ready"], 2);
        assert_eq!(body["chaos"], false);
        assert!(body["now"].as_f64().unwrap() > 1e9);
    }
    // More only if these took more than the interval.
    assert!(asked.load(Ordering::SeqCst) < 10, "{asked:?}");
    assert_eq!(get_json(&format!("{gateway}/cluster/ring")).await.1["partitions"], 4096);
    let (status, journey) = get_json(&format!("{gateway}/cluster/keys/drone:1%2Fa")).await;
    assert_eq!((status, &journey["asked"]), (200, &json!("/explain/drone:1%2Fa")));
}

#[tokio::test]
async fn a_source_that_is_away_leaves_the_others() {
    let kv = nobody().await;
    let rabbit = nobody().await.replace("http://", "http://user:secret@");
    let gateway = gateway(&["--kv-url", &kv, "--rabbit-management-url", &rabbit]).await;
    let (status, body) = get_json(&format!("{gateway}/cluster")).await;
    assert_eq!((status, &body["kv"]["says"]), (200, &json!(null)));
    let host = kv.trim_start_matches("http://");
    assert_eq!(body["kv"]["error"], format!("{host} cannot be reached"));
    assert!(body["rabbit"]["error"].as_str().unwrap().ends_with("cannot be reached"));
    assert!(!body.to_string().contains("secret"), "{body}");
    assert_eq!(body["lb"], json!({ "says": null, "error": null }));
    assert_eq!(get_json(&format!("{gateway}/cluster/keys/x")).await.0, 503);
    assert_eq!(get_json(&format!("{gateway}/cluster/ring")).await.0, 503);
}

#[tokio::test]
async fn nothing_can_be_broken_unless_the_demo_says_so() {
    let kv = nobody().await;
    let plain = gateway(&["--kv-url", &kv]).await;
    let client = Client::new();
    assert_eq!(get_json(&format!("{plain}/chaos")).await.0, 404);
    let stop = |base: &str| client.post(format!("{base}/chaos/kvstore_b/stop"));
    assert_eq!(stop(&plain).header("X-Chaos", "1").send().await.unwrap().status(), 404);

    let act = |Path((service, action)): Path<(String, String)>| async move { axum::Json(json!([service, action])) };
    let control = Router::new()
        .route("/chaos", get(|| async { axum::Json(json!({ "services": [] })) }))
        .route("/chaos/{service}/{action}", post(act));
    let demo = gateway(&["--kv-url", &kv, "--chaos-url", &serve(control).await]).await;
    assert_eq!(get_json(&format!("{demo}/cluster")).await.1["chaos"], true);
    assert_eq!(
        get_json(&format!("{demo}/chaos")).await,
        (200, json!({ "services": [] }))
    );
    // A form of another origin cannot send the header.
    assert_eq!(stop(&demo).send().await.unwrap().status(), 400);
    let stopped = answer(stop(&demo).header("X-Chaos", "1").send().await.unwrap()).await;
    assert_eq!(stopped, (200, json!(["kvstore_b", "stop"])));
    let odd = client
        .post(format!("{demo}/chaos/a%2F..%2Fb/stop"))
        .header("X-Chaos", "1");
    assert_eq!(odd.send().await.unwrap().status(), 400);
}
