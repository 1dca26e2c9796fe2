//! Traces: settings, and the export of finished spans to an OpenTelemetry collector.
//!
//! Promises: without `OTEL_EXPORTER_OTLP_ENDPOINT` nothing is recorded and nothing runs. With it, spans go into a queue of
//! [`QUEUE_MAX`]; a loop sends them in batches of at most [`BATCH_MAX`], a second after the first at the latest. Nothing a service does
//! ever waits for that: a span for which there is no room, or which the collector does not take, is dropped and counted
//! (`trace_spans_dropped_total`).
//!
//! The protocol is OTLP/HTTP with JSON (OpenTelemetry Protocol 1.x): [`encode`] says how.

mod encode;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use prometheus_client::metrics::counter::Counter;
use reqwest::{Client, StatusCode, Url};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, timeout, timeout_at};
pub use trace::Tracer;
use trace::{Sink, SpanData};

use crate::metrics::Metrics;
use crate::settings::SettingError;
use crate::tasks::{Heartbeat, Tasks};
use crate::{Shutdown, settings};

/// Spans waiting at most; about a kibibyte each.
pub const QUEUE_MAX: usize = 8_192;
/// Spans sent in one request.
pub const BATCH_MAX: usize = 512;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// Longest wait for the collector's answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is sent at most, when the collector asks to try again.
const ATTEMPTS_MAX: u32 = 4;
/// First pause before it is; doubles each time.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause, also when the collector asks for a longer one: the queue fills meanwhile.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// After the stop signal: so long for spans of answers that are ending, and so long for sending all that waits.
const LAST_SPANS: Duration = Duration::from_millis(200);
const LAST_SEND: Duration = Duration::from_secs(1);
/// Most of a collector's answer that is read, in bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// The path for traces below the endpoint.
const PATH: &str = "/v1/traces";
/// The loop is only a messenger: that it fails makes no service unready.
const NEVER: Duration = Duration::MAX;

/// The settings of a service that records spans, named as OpenTelemetry names them.
#[derive(Debug, Clone, Args, Default)]
pub struct TraceArgs {
    /// Where traces are sent: an OpenTelemetry collector's http://host:port (OTLP over HTTP; /v1/traces is added); empty: nothing is recorded
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otel_exporter_otlp_endpoint: Option<String>,

    /// Headers sent along with traces, NAME=VALUE,NAME=VALUE; values percent-encoded where they need it
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        value_name = "HEADERS",
        hide_env_values = true
    )]
    pub otel_exporter_otlp_headers: Option<String>,

    /// Share of the traces begun here that is recorded, 0 to 1; a trace that comes in is recorded when its beginner says so
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value = "1", value_parser = settings::share, value_name = "SHARE")]
    pub otel_traces_sampler_arg: Share,

    /// What the service is called in traces; by default the program's name
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    pub otel_service_name: Option<String>,
}

/// From 0 to 1; everything by default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl Default for Share {
    fn default() -> Self {
        Self(1.0)
    }
}

/// Where to send, checked.
#[derive(Debug)]
struct Target {
    url: Url,
    headers: reqwest::header::HeaderMap,
}

impl TraceArgs {
    /// Checks what the parser alone cannot.
    ///
    /// # Errors
    /// An endpoint that is no http URL, headers that are none.
    pub fn validate(&self) -> Result<(), SettingError> {
        self.target().map(drop)
    }

    /// Starts the export and gives the tracer of a service. Without an endpoint: a tracer that is off, and nothing is started.
    ///
    /// # Errors
    /// As [`TraceArgs::validate`].
    pub fn start(&self, service: &str, metrics: &Metrics, tasks: &Tasks) -> Result<Tracer, SettingError> {
        let Some(target) = self.target()? else {
            return Ok(Tracer::off());
        };
        let counts = Counts::register(metrics);
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let name = self.otel_service_name.as_deref().filter(|name| !name.is_empty());
        let exporter = Exporter {
            resource: encode::resource(name.unwrap_or(service), service),
            // Its own time limits; a proxy named in the environment may stand before a collector, unlike before the KV.
            client: Client::builder()
                .timeout(SEND_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| SettingError::new(ENDPOINT, "no HTTP client for it", error))?,
            target,
            counts: counts.clone(),
            failing: false,
        };
        tasks.spawn("traces", NEVER, |beat, shutdown| exporter.run(queue, beat, shutdown));
        let sink = Queue {
            sender,
            dropped: counts.dropped,
        };
        let random = Arc::new(rand::random::<u64>);
        Ok(Tracer::new(Box::new(sink), self.otel_traces_sampler_arg.0, random))
    }

    fn target(&self) -> Result<Option<Target>, SettingError> {
        let Some(endpoint) = self.otel_exporter_otlp_endpoint.as_deref().map(str::trim) else {
            return Ok(None);
        };
        if endpoint.is_empty() {
            return Ok(None);
        }
        // What is in it may be a password, so it is not repeated.
        let refused = |why: &str| {
            SettingError::new(
                ENDPOINT,
                format!("a URL that cannot be used ({why})"),
                "http://host:port",
            )
        };
        let mut url = Url::parse(endpoint).map_err(|error| refused(&error.to_string()))?;
        if url.scheme() != "http" {
            return Err(refused(
                "its scheme is not http; a collector beside the service can speak TLS onwards",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused("it has a query or a fragment"));
        }
        let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let headers = headers(self.otel_exporter_otlp_headers.as_deref().unwrap_or_default())?;
        Ok(Some(Target { url, headers }))
    }
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT (--otel-exporter-otlp-endpoint)";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS (--otel-exporter-otlp-headers)";

/// `name=value,name=value`, values percent-encoded (as W3C Baggage writes them, without properties).
fn headers(text: &str) -> Result<reqwest::header::HeaderMap, SettingError> {
    let mut headers = reqwest::header::HeaderMap::new();
    for (number, pair) in (1..).zip(text.split(',')).filter(|(_, pair)| !pair.trim().is_empty()) {
        // Values are secrets more often than not.
        let refused = || SettingError::new(HEADERS, format!("no header in place {number}"), "NAME=VALUE,NAME=VALUE");
        let (name, value) = pair.split_once('=').ok_or_else(refused)?;
        let name = reqwest::header::HeaderName::try_from(name.trim()).map_err(|_| refused())?;
        let value = percent_encoding::percent_decode_str(value.trim()).collect::<Vec<u8>>();
        let mut value = reqwest::header::HeaderValue::from_bytes(&value).map_err(|_| refused())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[derive(Debug, Clone)]
struct Counts {
    sent: Counter,
    dropped: Counter,
}

impl Counts {
    fn register(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.register(name, help, Counter::default());
        Self {
            sent: counter("trace_spans_sent", "Spans that the collector took"),
            dropped: counter(
                "trace_spans_dropped",
                "Spans dropped because too many waited or the collector did not take them",
            ),
        }
    }
}

/// Where finished spans wait.
struct Queue {
    sender: Sender<SpanData>,
    dropped: Counter,
}

impl Sink for Queue {
    fn take(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

/// What came of sending a batch.
enum Sent {
    Taken,
    /// So many of them were not taken.
    Partly(u64, String),
    /// It may be sent again, after so long if the collector says so.
    Again(String, Option<Duration>),
    Refused(String),
}

struct Exporter {
    resource: serde_json::Value,
    client: Client,
    target: Target,
    counts: Counts,
    failing: bool,
}

impl Exporter {
    async fn run(mut self, mut queue: Receiver<SpanData>, beat: Heartbeat, shutdown: Shutdown) {
        beat.ok();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                () = shutdown.stopped() => break,
                count = gather(&mut queue, &mut batch, LINGER) => {
                    if count == 0 {
                        return;
                    }
                }
            }
            // Cut off by a stop, the batch is sent once more with the last ones: a collector knows a span by its id.
            tokio::select! {
                () = shutdown.stopped() => break,
                () = self.deliver(&batch, &beat) => batch.clear(),
            }
        }
        let until = Instant::now() + LAST_SPANS;
        while batch.len() < QUEUE_MAX
            && let Ok(Some(span)) = timeout_at(until, queue.recv()).await
        {
            batch.push(span);
        }
        if timeout(LAST_SEND, self.deliver(&batch, &beat)).await.is_err() {
            self.counts.dropped.inc_by(batch.len() as u64);
        }
    }

    /// Sends a batch, again if the collector asks for it, and counts what became of it.
    async fn deliver(&mut self, batch: &[SpanData], beat: &Heartbeat) {
        for spans in batch.chunks(BATCH_MAX) {
            let count = spans.len() as u64;
            let (taken, trouble) = match self.insist(spans).await {
                Ok(Sent::Partly(refused, why)) => (count.saturating_sub(refused), Some(why)),
                Ok(_) => (count, None),
                Err(why) => (0, Some(why)),
            };
            self.counts.sent.inc_by(taken);
            self.counts.dropped.inc_by(count - taken);
            let Some(why) = trouble else {
                beat.ok();
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the collector takes traces again");
                }
                continue;
            };
            beat.failed(&why);
            if !std::mem::replace(&mut self.failing, true) {
                tracing::warn!(error = why, "the collector does not take traces; they are dropped");
            }
        }
    }

    async fn insist(&self, spans: &[SpanData]) -> Result<Sent, String> {
        let body = encode::request(&self.resource, spans);
        let mut pause = RETRY_PAUSE;
        for attempt in 1.. {
            match self.send(body.clone()).await {
                Sent::Again(why, _) if attempt == ATTEMPTS_MAX => return Err(why),
                Sent::Again(_, asked) => tokio::time::sleep(asked.unwrap_or(pause).min(RETRY_PAUSE_MAX)).await,
                Sent::Refused(why) => return Err(why),
                sent => return Ok(sent),
            }
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    async fn send(&self, body: bytes::Bytes) -> Sent {
        let request = self
            .client
            .post(self.target.url.clone())
            .headers(self.target.headers.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body);
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Sent::Again(error.without_url().to_string(), None),
        };
        let status = answer.status();
        if status.is_success() {
            let mut text = Vec::new();
            while let Ok(Some(piece)) = answer.chunk().await {
                text.extend_from_slice(&piece);
                if text.len() > ANSWER_MAX_BYTES {
                    break;
                }
            }
            return encode::refused(&text).map_or(Sent::Taken, |(count, why)| Sent::Partly(count, why));
        }
        let why = format!("answered {status}");
        // Those that the protocol says may pass.
        let may_pass = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if !may_pass.contains(&status) {
            return Sent::Refused(why);
        }
        let asked = answer.headers().get(reqwest::header::RETRY_AFTER);
        let asked = asked.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Sent::Again(why, asked.map(Duration::from_secs))
    }
}

/// Waits for a span, and a little longer for others. 0 when none will come any more.
async fn gather(queue: &mut Receiver<SpanData>, batch: &mut Vec<SpanData>, linger: Duration) -> usize {
    let Some(first) = queue.recv().await else { return 0 };
    batch.push(first);
    let until = Instant::now() + linger;
    while batch.len() < BATCH_MAX
        && let Ok(Some(span)) = timeout_at(until, queue.recv()).await
    {
        batch.push(span);
    }
    batch.len()
}

#[cfg(test)]
mod tests;
