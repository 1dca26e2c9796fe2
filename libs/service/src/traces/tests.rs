//! The export against a collector in this process.

use std::sync::Mutex;

use axum::Router;
use axum::routing::post;
use http::HeaderMap;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use trace::{Context, Kind};

use super::*;

/// Answers one request after the other as it is told, then always with success, and keeps what it got.
#[derive(Clone, Default)]
struct Collector {
    got: Arc<Mutex<Vec<(HeaderMap, Json)>>>,
    answers: Arc<Mutex<Vec<(u16, &'static str)>>>,
}

impl Collector {
    async fn start(answers: &[(u16, &'static str)]) -> (Self, String) {
        let collector = Self::default();
        collector.answers.lock().unwrap().extend(answers.iter().rev());
        let of = collector.clone();
        let take = post(move |headers: HeaderMap, body: String| async move {
            of.got
                .lock()
                .unwrap()
                .push((headers, serde_json::from_str(&body).unwrap()));
            let (status, text) = of.answers.lock().unwrap().pop().unwrap_or((200, "{}"));
            let headers = [("retry-after", "0")];
            (StatusCode::from_u16(status).unwrap(), headers, text)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let router = Router::new().route("/base/v1/traces", take);
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    fn spans(&self) -> Vec<Json> {
        let got = self.got.lock().unwrap();
        got.iter()
            .flat_map(|(_, body)| {
                body["resourceSpans"][0]["scopeSpans"][0]["spans"]
                    .as_array()
                    .unwrap()
                    .clone()
            })
            .collect()
    }
}

fn args(url: &str) -> TraceArgs {
    TraceArgs {
        otel_exporter_otlp_endpoint: Some(url.to_owned()),
        otel_exporter_otlp_headers: Some("authorization=Bearer%20x%3Dy, x-team = drones".to_owned()),
        ..TraceArgs::default()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn spans_arrive_as_the_protocol_has_them() {
    let (collector, url) = Collector::start(&[]).await;
    let (metrics, tasks) = (Metrics::new("gateway"), Tasks::new(Shutdown::new()));
    let tracer = args(&url).start("gateway", &metrics, &tasks).unwrap();
    let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let context = Context::read(Some(parent), Some("a=1"), None);
    let mut span = tracer.begin(context, Kind::Server, "POST /deliveries");
    span.set("http.response.status_code", 503_i64);
    span.set("wait_sec", 0.5);
    span.failed("no quorum");
    drop(span);
    until("a span arrives", || !collector.spans().is_empty()).await;
    let spans = collector.spans();
    let span = &spans[0];
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
    assert_eq!((&span["traceState"], &span["kind"]), (&json!("a=1"), &json!(2)));
    assert_eq!(span["name"], "POST /deliveries");
    let nanos = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    assert!(nanos("startTimeUnixNano") > 1_600_000_000_000_000_000);
    assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"));
    let attributes = json!([
        {"key": "http.response.status_code", "value": {"intValue": "503"}},
        {"key": "wait_sec", "value": {"doubleValue": 0.5}},
    ]);
    assert_eq!(span["attributes"], attributes);
    assert_eq!(span["status"], json!({"code": 2, "message": "no quorum"}));
    let (headers, body) = collector.got.lock().unwrap()[0].clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(
        (headers["authorization"].as_bytes(), headers["x-team"].as_bytes()),
        (b"Bearer x=y".as_slice(), b"drones".as_slice())
    );
    let name = json!({"key": "service.name", "value": {"stringValue": "gateway"}});
    assert_eq!(body["resourceSpans"][0]["resource"]["attributes"][0], name);
    until("it is counted", || {
        metrics.render().contains("gateway_trace_spans_sent_total 1")
    })
    .await;
    tasks.stop().await;
}

#[tokio::test]
async fn a_collector_that_asks_for_it_is_asked_again_and_others_are_not() {
    let partly = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}"#;
    let (collector, url) = Collector::start(&[(503, ""), (200, "{}"), (400, ""), (200, partly)]).await;
    let (metrics, tasks) = (Metrics::new("x"), Tasks::new(Shutdown::new()));
    let tracer = args(&url).start("x", &metrics, &tasks).unwrap();
    for (requests, counted) in [
        (2, ["sent_total 1", "dropped_total 0"]),
        (3, ["sent_total 1", "dropped_total 1"]),
        (4, ["sent_total 1", "dropped_total 2"]),
    ] {
        drop(tracer.begin(Context::default(), Kind::Internal, "a span"));
        let counted = counted.map(|text| format!("x_trace_spans_{text}"));
        until(&format!("{requests} requests, {counted:?}"), || {
            let text = metrics.render();
            collector.got.lock().unwrap().len() == requests && counted.iter().all(|line| text.contains(line))
        })
        .await;
    }
    assert_eq!(tasks.readiness().status, "ready", "a collector is nobody's illness");
    tasks.stop().await;
}

#[tokio::test]
async fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
    // Accepts connections by its backlog alone and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (metrics, tasks) = (Metrics::new("x"), Tasks::new(Shutdown::new()));
    let tracer = args(&url).start("x", &metrics, &tasks).unwrap();
    let started = Instant::now();
    let count = QUEUE_MAX + 2 * BATCH_MAX;
    for _ in 0..count {
        drop(tracer.begin(Context::default(), Kind::Internal, "one of many"));
    }
    assert!(started.elapsed() < SEND_TIMEOUT, "nobody waited for the collector");
    let dropped = |text: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("x_trace_spans_dropped_total "));
        line.and_then(|number| number.parse::<usize>().ok()).unwrap_or_default()
    };
    // The loop has not run meanwhile, on this thread.
    assert_eq!(dropped(&metrics.render()), count - QUEUE_MAX);
    // And at the end all are accounted for.
    tasks.stop().await;
    until("all are counted", || dropped(&metrics.render()) == count).await;
}

#[tokio::test]
async fn what_was_recorded_before_the_stop_is_sent() {
    let (collector, url) = Collector::start(&[]).await;
    let (metrics, tasks) = (Metrics::new("x"), Tasks::new(Shutdown::new()));
    let tracer = args(&url).start("x", &metrics, &tasks).unwrap();
    drop(tracer.begin(Context::default(), Kind::Internal, "the last one"));
    tasks.stop().await;
    assert_eq!(collector.spans().len(), 1);
}

#[tokio::test]
async fn without_an_endpoint_nothing_runs() {
    let (metrics, tasks) = (Metrics::new("x"), Tasks::new(Shutdown::new()));
    for endpoint in [None, Some(" ".to_owned())] {
        let args = TraceArgs {
            otel_exporter_otlp_endpoint: endpoint,
            ..TraceArgs::default()
        };
        assert!(!args.start("x", &metrics, &tasks).unwrap().is_on());
    }
    assert!(tasks.readiness().checks.is_empty() && !metrics.render().contains("trace_spans"));
}

#[test]
fn bad_settings_are_named_and_secrets_are_not() {
    for bad in [
        "collector:4318",
        "https://x",
        "http://",
        "http://x?secret=1",
        "grpc://x",
    ] {
        let error = args(bad).validate().unwrap_err().to_string();
        assert!(
            error.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !error.contains("secret"),
            "{bad}: {error}"
        );
    }
    for bad in ["secret", "a=1,secret", "bad name=secret", "a=%0Asecret"] {
        let args = TraceArgs {
            otel_exporter_otlp_headers: Some(bad.to_owned()),
            ..args("http://x:4318")
        };
        let error = args.validate().unwrap_err().to_string();
        assert!(
            error.contains("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("secret"),
            "{bad}: {error}"
        );
    }
}
