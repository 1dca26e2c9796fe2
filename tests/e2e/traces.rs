//! One order is one trace, from lb to delivered, whatever carries it: HTTP, the KV's records, the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::process::wait_until;
use crate::system::{Options, System, body, broker, id_of, order, turn};

/// Programs send what they have every second.
const SPANS_WITHIN: Duration = Duration::from_secs(30);

/// Clocks of one machine, read one after the other by two programs.
const CLOCK_SLACK_NS: u64 = 1_000_000;

/// A span, and the service that sent it.
#[derive(Debug, Clone)]
struct Span {
    service: String,
    name: String,
    parent: Option<String>,
    started_ns: u64,
    attributes: BTreeMap<String, Value>,
}

/// An OpenTelemetry collector that keeps what it gets: trace, span, what is known of it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<BTreeMap<String, BTreeMap<String, Span>>>>);

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let of = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let of = of.clone();
                tokio::spawn(async move { of.serve(stream).await });
            }
        });
        (collector, url)
    }

    /// One request after the other, until the connection ends.
    async fn serve(self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut head, mut line) = (String::new(), String::new());
            while line != "\r\n" {
                line.clear();
                if stream.read_line(&mut line).await.ok()? == 0 {
                    return None;
                }
                head.push_str(&line.to_ascii_lowercase());
            }
            assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
            assert!(head.contains("content-type: application/json"), "{head}");
            assert!(head.contains("x-team: drones"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.and_then(|text| text.parse().ok()).expect("a length");
            let mut sent = vec![0; length];
            stream.read_exact(&mut sent).await.ok()?;
            self.keep(&serde_json::from_slice(&sent).expect("JSON"));
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer).await.ok()?;
        }
    }

    fn keep(&self, sent: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let attributes = |of: &Value| -> BTreeMap<String, Value> {
            let list = of["attributes"].as_array().into_iter().flatten();
            list.map(|one| (text(&one["key"]), one["value"].clone())).collect()
        };
        let mut traces = self.0.lock().expect("no panic within");
        for resource in sent["resourceSpans"].as_array().expect("a list") {
            let service = text(&attributes(&resource["resource"])["service.name"]["stringValue"]);
            for span in resource["scopeSpans"][0]["spans"].as_array().expect("a list") {
                let kept = Span {
                    service: service.clone(),
                    name: text(&span["name"]),
                    parent: span["parentSpanId"].as_str().map(str::to_owned),
                    started_ns: text(&span["startTimeUnixNano"]).parse().expect("nanoseconds"),
                    attributes: attributes(span),
                };
                let trace = traces.entry(text(&span["traceId"])).or_default();
                trace.insert(text(&span["spanId"]), kept);
            }
        }
    }

    fn trace(&self, id: &str) -> BTreeMap<String, Span> {
        self.0
            .lock()
            .expect("no panic within")
            .get(id)
            .cloned()
            .unwrap_or_default()
    }
}

/// From a span to the first one of its trace; none when one in between is not there (yet).
fn way_up<'a>(trace: &'a BTreeMap<String, Span>, from: &'a Span) -> Option<Vec<&'a Span>> {
    let mut way = vec![from];
    while let Some(parent) = &way[way.len() - 1].parent {
        way.push(trace.get(parent)?);
        assert!(way.len() < 100, "a circle: {way:#?}");
    }
    Some(way)
}

#[tokio::test]
async fn an_order_is_one_trace_from_lb_to_delivered() {
    let _turn = turn().await;
    let Some(broker) = broker().await else { return };
    let (collector, collector_url) = Collector::start().await;
    let system = System::start(Options {
        settings: vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector_url.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=drones"),
        ],
        rabbit_url: Some(broker.url.clone()),
        ..Options::default()
    })
    .await;

    // One whose trace begins at lb, and one that belongs to a trace of its sender's.
    const THEIRS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let own = system.order_request(&order(1), None).header("x-request-id", "order-1");
    let own = body(own.send().await.expect("an answer")).await;
    assert_eq!(own["request_id"], "order-1", "{own}");
    let own_trace = own["traceparent"].as_str().expect("a trace")[3..35].to_owned();
    let theirs = system
        .order_request(&order(2), None)
        .header("traceparent", THEIRS)
        .header("tracestate", "team=drones");
    let theirs = theirs.send().await.expect("an answer");
    let theirs_id = id_of(theirs).await;
    let ids = [own["id"].as_str().expect("an id").to_owned(), theirs_id.clone()];
    system.all_delivered(&ids, Duration::from_secs(90)).await;

    for (id, trace_id, theirs) in [(&ids[0], own_trace.as_str(), false), (&ids[1], &THEIRS[3..35], true)] {
        let first = if theirs { Some(THEIRS[36..52].to_owned()) } else { None };
        let whole = || {
            let mut trace = collector.trace(trace_id);
            let delivered = trace.values().any(|span| span.name == "delivered");
            // The sender's own span is not ours to send.
            for span in trace.values_mut().filter(|span| span.parent == first) {
                span.parent = None;
            }
            let linked = trace.values().all(|span| way_up(&trace, span).is_some());
            (delivered && linked).then_some(trace)
        };
        wait_until(
            SPANS_WITHIN,
            "the trace is whole, every parent of it known",
            async || whole().is_some(),
        )
        .await;
        let trace = whole().expect("it was");
        let roots: Vec<_> = trace.values().filter(|span| span.parent.is_none()).collect();
        assert_eq!(roots.len(), 1, "one span begins it: {roots:#?}");
        assert_eq!((roots[0].service.as_str(), roots[0].name.as_str()), ("lb", "POST"));

        let delivered = trace.values().find(|span| span.name == "delivered").expect("seen");
        assert_eq!(delivered.attributes["delivery.id"], json!({ "stringValue": id }));
        let way = way_up(&trace, delivered).expect("linked");
        let steps: Vec<_> = way
            .iter()
            .map(|span| (span.service.as_str(), span.name.as_str()))
            .collect();
        let mut wanted = [
            ("dispatcher", "delivered"),
            ("dispatcher", "picked up"),
            ("dispatcher", "assign"),
            ("gateway", "POST /deliveries"),
            ("lb", "POST"),
        ]
        .into_iter()
        .peekable();
        // Between them may be the flight and its message, if the dispatcher heard of the arrival by that.
        for step in &steps {
            wanted.next_if_eq(step);
        }
        assert_eq!(wanted.next(), None, "in this order: {steps:#?}");

        let seen: BTreeSet<_> = trace
            .values()
            .map(|span| (span.service.as_str(), span.name.as_str()))
            .collect();
        for wanted in [
            ("gateway", "kv POST"),
            ("kvfront", "POST /kv/batch"),
            ("gateway", "send delivery_requests"),
            ("dispatcher", "process delivery_requests"),
            ("dispatcher", "kv POST"),
            ("drone-sim", "fly to origin"),
            ("drone-sim", "send drone_updates"),
            ("dispatcher", "process drone_updates"),
            ("drone-sim", "fly to destination"),
        ] {
            assert!(seen.contains(&wanted), "{wanted:?} is missing: {seen:#?}");
        }
        for span in trace.values() {
            let parent = span.parent.as_ref().map(|parent| trace[parent].started_ns);
            let begins_after = parent.is_none_or(|parent| parent <= span.started_ns + CLOCK_SLACK_NS);
            assert!(begins_after, "it began before its parent: {span:#?}");
        }
    }
    let record = system.delivery(&theirs_id).await;
    assert_eq!(record["tracestate"], "team=drones", "{record}");
}
