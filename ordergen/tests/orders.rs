//! The generator against a small server that misbehaves in every way that matters.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use domain::order::NewOrder;
use ordergen::{Config, Pauses, Summary, generate};
use service::Shutdown;
use service::settings::try_parse_from;
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(10);

/// Orders by key, with the number of requests that carried the key.
type Book = Arc<Mutex<HashMap<String, (NewOrder, usize)>>>;

/// Serves `POST /deliveries`: every order is written down (once per key) and answered by `answer`, which gets the number of the
/// attempt (from 1).
async fn server<F>(answer: F) -> (SocketAddr, Book)
where
    F: Fn(usize) -> Response + Clone + Send + Sync + 'static,
{
    let book = Book::default();
    let seen = Arc::clone(&book);
    let route = post(move |headers: HeaderMap, body: String| {
        let (seen, answer) = (Arc::clone(&seen), answer.clone());
        async move {
            let key = headers["idempotency-key"].to_str().unwrap().to_owned();
            let order = NewOrder::parse(&serde_json::from_str(&body).unwrap()).unwrap();
            let mut seen = seen.lock().unwrap();
            let (first, attempts) = seen.entry(key).or_insert((order.clone(), 0));
            assert_eq!(*first, order, "one key, one order");
            *attempts += 1;
            answer(*attempts)
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/deliveries", route)).await });
    (addr, book)
}

fn config(addr: SocketAddr, flags: &[&str]) -> Config {
    let url = format!("http://{addr}/");
    // 200 orders a second without a pause.
    let fast = [
        "ordergen",
        "--lb-url",
        &url,
        "--low-rps",
        "200",
        "--peak-rps",
        "200",
        "--silent-sec",
        "0",
    ];
    try_parse_from([&fast, flags].concat()).unwrap()
}

async fn run(config: &Config) -> Summary {
    let pauses = Pauses {
        first: Duration::from_millis(2),
        max: Duration::from_millis(10),
    };
    tokio::time::timeout(PATIENCE, generate(config, Shutdown::new(), pauses))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn total_is_exact_and_a_seed_repeats_the_orders() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (addr, book) = server(|_| StatusCode::CREATED.into_response()).await;
        let summary = run(&config(addr, &["--total", "25", "--seed", "7"])).await;
        let expected = Summary {
            accepted: 25,
            ..Summary::default()
        };
        assert_eq!(summary, expected);
        let mut orders: Vec<String> = book
            .lock()
            .unwrap()
            .values()
            .map(|(order, _)| serde_json::to_string(order).unwrap())
            .collect();
        orders.sort();
        runs.push((orders, book));
    }
    assert_eq!(runs[0].0.len(), 25);
    assert_eq!(runs[0].0, runs[1].0, "the same orders");
    let second = runs[1].1.lock().unwrap();
    assert!(
        runs[0].1.lock().unwrap().keys().all(|key| !second.contains_key(key)),
        "but not the same keys"
    );
}

#[tokio::test]
async fn orders_are_repeated_with_their_key_until_accepted() {
    // The first attempt is answered with an error, the second arrives but seems lost, the third finds the order there.
    let (addr, book) = server(|attempt| match attempt {
        1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        2 => StatusCode::GATEWAY_TIMEOUT.into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    let summary = run(&config(addr, &["--total", "5"])).await;
    assert_eq!(
        (summary.accepted, summary.repeated, summary.failed, summary.retries),
        (5, 5, 0, 10)
    );
    assert!(book.lock().unwrap().values().all(|(_, attempts)| *attempts == 3));
    assert_eq!(book.lock().unwrap().len(), 5, "no order more than asked for");
}

#[tokio::test]
async fn refused_orders_are_not_repeated_and_do_not_count() {
    let refused = Arc::new(Mutex::new(0));
    let count = Arc::clone(&refused);
    let (addr, book) = server(move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count <= 3 {
            (
                StatusCode::UNPROCESSABLE_ENTITY,
                [("content-type", "application/json")],
                "{\"detail\":\"weight: got 0\"}",
            )
                .into_response()
        } else {
            StatusCode::CREATED.into_response()
        }
    })
    .await;
    let summary = run(&config(addr, &["--total", "4"])).await;
    assert_eq!((summary.accepted, summary.failed, summary.retries), (4, 3, 0));
    assert_eq!(book.lock().unwrap().len(), 7);
}

#[tokio::test]
async fn a_rate_limit_is_obeyed() {
    let (addr, _) = server(|attempt| match attempt {
        1 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response(),
        _ => StatusCode::CREATED.into_response(),
    })
    .await;
    let started = Instant::now();
    let summary = run(&config(addr, &["--total", "1"])).await;
    assert_eq!((summary.accepted, summary.retries), (1, 1));
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "not before the second is over"
    );
}

#[tokio::test]
async fn attempts_are_bounded() {
    let (addr, book) = server(|_| StatusCode::BAD_GATEWAY.into_response()).await;
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let seen = Arc::clone(&book);
    tokio::spawn(async move {
        // Until the first order must have been given up.
        while seen.lock().unwrap().values().all(|(_, attempts)| *attempts < 12) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.stop();
    });
    let quick = Pauses {
        first: Duration::from_millis(1),
        max: Duration::from_millis(2),
    };
    let summary = tokio::time::timeout(PATIENCE, generate(&config(addr, &[]), shutdown, quick))
        .await
        .unwrap()
        .unwrap();
    assert!(summary.failed >= 1 && summary.accepted == 0, "{summary}");
    assert!(book.lock().unwrap().values().all(|(_, attempts)| *attempts <= 12));
}

#[tokio::test]
async fn a_server_that_hangs_up_is_tried_again_and_the_stop_is_prompt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(listener.local_addr().unwrap(), &["--total", "1"]);
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let running = tokio::spawn(async move { generate(&config, shutdown, Pauses::default()).await });
    for _ in 0..3 {
        tokio::time::timeout(PATIENCE, listener.accept())
            .await
            .unwrap()
            .unwrap();
    }
    // Now nobody listens at all.
    drop(listener);
    let stopped = Instant::now();
    stop.stop();
    let summary = tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert_eq!((summary.accepted, summary.unfinished), (0, 1));
    assert!(summary.retries >= 2, "{summary}");
    assert!(stopped.elapsed() < Duration::from_secs(4), "stops promptly");
}

#[tokio::test]
async fn bad_settings_are_refused_here_too() {
    let config: Config = try_parse_from(["ordergen", "--weight-min", "5", "--weight-max", "1"]).unwrap();
    let error = generate(&config, Shutdown::new(), Pauses::default()).await.unwrap_err();
    assert!(error.to_string().contains("WEIGHT_MIN"), "{error}");
}
