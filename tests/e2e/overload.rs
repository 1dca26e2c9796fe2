//! Far more work at once than a kvfront takes: it says so at once, keeps its memory, and is well again as soon as it is over.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::process::wait_until;
use crate::system::{KvCluster, body, turn};

/// Operations under way that kvfront takes, in these tests.
const MAX_CONCURRENT_OPS: &str = "64";
/// Clients that ask at the same time.
const CLIENTS: usize = 256;
/// Calls of each client in one wave.
const CALLS: usize = 8;
/// Operations of one batch: a few batches fill kvfront.
const BATCH: usize = 20;
/// Keys of one page of a scan.
const PAGE: usize = 50;
/// Keys the clients share. Few, so that what kvfront remembers of them is all there after the first wave.
const KEYS: usize = 500;
/// Bytes of a value.
const VALUE_BYTES: usize = 4_096;
/// How long any answer may take: an operation's deadline of 2 s, its margin of 1 s, and as long again for a machine with one thing too many
/// to do.
const ANSWERED_WITHIN: Duration = Duration::from_secs(6);
/// How long an answer may take once the overload is over.
const WELL_AGAIN_WITHIN: Duration = Duration::from_secs(1);
/// Of so many calls one may end with an outcome that is not known: the operation was begun, and its deadline came while the machine was
/// busy with all the others. Who is turned away never hears that.
const CALLS_PER_UNKNOWN: usize = 50;
/// Waves of the same, one after the other.
const WAVES: usize = 4;
/// How much more memory kvfront may hold after the last wave than after the second, when everything has been as large as it gets: the allocator
/// keeps and gives back as it likes, but what each wave left behind would add up to more.
const MEMORY_MARGIN_KIB: u64 = 12 * 1_024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_is_refused_at_once_and_leaves_nothing_behind() {
    let _turn = turn().await;
    let kv = KvCluster::start_with(&[("MAX_CONCURRENT_OPS", MAX_CONCURRENT_OPS)]).await;
    let mut held_kib = Vec::new();
    for _ in 0..WAVES {
        let wave = Wave::run(&kv).await;
        held_kib.push(kv.front.memory_kib());
        wave.check();
        wave.check_refused_early();
        is_well(&kv).await;
    }
    report(&format!("kvfront held after each wave, in KiB: {held_kib:?}"));
    let most_kib = held_kib[1] + MEMORY_MARGIN_KIB;
    assert!(
        held_kib[WAVES - 1] <= most_kib,
        "kvfront held after each wave, in KiB: {held_kib:?}; at most {most_kib} is expected in the end"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_while_a_node_hangs_is_answered_all_the_same() {
    let _turn = turn().await;
    let kv = KvCluster::start_with(&[("MAX_CONCURRENT_OPS", MAX_CONCURRENT_OPS)]).await;
    kv.stores[1].signal("STOP");
    let wave = Wave::run(&kv).await;
    wave.check();
    is_well(&kv).await;
    kv.stores[1].signal("CONT");
    wait_until(ANSWERED_WITHIN, "the node that hung is well again", async || {
        let cluster = cluster(&kv).await;
        cluster["up"] == 3 && cluster["hints_waiting"] == 0
    })
    .await;
    is_well(&kv).await;
}

/// What came of one call.
#[derive(Debug)]
struct Told {
    what: &'static str,
    status: StatusCode,
    retry_after: Option<String>,
    body: Value,
    took: Duration,
}

impl Told {
    /// Refused before anything of it was begun.
    fn is_refused(&self) -> bool {
        let detail = self.body["detail"].as_str().unwrap_or_default();
        self.status == StatusCode::SERVICE_UNAVAILABLE && detail.contains("MAX_CONCURRENT_OPS")
    }

    /// May or may not have taken effect, in a part of it at least.
    fn is_unknown(&self) -> bool {
        let is_unknown = |body: &Value| body["status"] != 200 && body["outcome"] == "unknown";
        let results = self.body["results"].as_array();
        is_unknown(&self.body) || results.is_some_and(|results| results.iter().any(is_unknown))
    }

    /// What is wrong with this answer, as one under overload.
    fn wrong(&self) -> Option<String> {
        let wrong = |why: String| Some(format!("{} {} after {:?}: {why}", self.what, self.status, self.took));
        if self.took > ANSWERED_WITHIN {
            return wrong("late".to_owned());
        }
        match self.status {
            StatusCode::OK => {
                let results = self.body["results"].as_array().into_iter().flatten();
                let mut bad = results.filter(|result| !is_result(result));
                bad.next().and_then(|result| wrong(format!("with {result}")))
            }
            StatusCode::NOT_FOUND if self.what == "get" => None,
            StatusCode::SERVICE_UNAVAILABLE if says_why(&self.body) => {
                let seconds = self.retry_after.as_ref().and_then(|after| after.parse::<u64>().ok());
                match seconds {
                    Some(1..) => None,
                    // To send again what may have taken effect is not suggested.
                    None if self.is_unknown() => None,
                    _ => wrong(format!("Retry-After is {:?}: {}", self.retry_after, self.body)),
                }
            }
            _ => wrong(self.body.to_string()),
        }
    }
}

/// An operation of a batch that was done, or was refused and says why.
fn is_result(result: &Value) -> bool {
    match result["status"].as_u64() {
        Some(200 | 404) => true,
        Some(503) => says_why(result),
        _ => false,
    }
}

/// There is a reason, and it is told.
fn says_why(body: &Value) -> bool {
    body["detail"].as_str().is_some_and(|detail| !detail.is_empty())
}

/// All answers of one wave of overload.
#[derive(Debug)]
struct Wave(Vec<Told>);

impl Wave {
    async fn run(kv: &KvCluster) -> Self {
        let turn = AtomicUsize::new(0);
        let clients = (0..CLIENTS).map(|_| async {
            let mut told = Vec::with_capacity(CALLS);
            for _ in 0..CALLS {
                let (what, request) = next_call(kv, turn.fetch_add(1, Ordering::Relaxed));
                told.push(call(what, request).await);
            }
            told
        });
        Self(join_all(clients).await.into_iter().flatten().collect())
    }

    fn times(&self, is_it: impl Fn(&Told) -> bool) -> Vec<Duration> {
        let mut times: Vec<_> = self.0.iter().filter(|told| is_it(told)).map(|told| told.took).collect();
        times.sort();
        times
    }

    /// Everything was answered as promised, and something of everything was done, and something refused.
    fn check(&self) {
        let wrong: Vec<_> = self.0.iter().filter_map(Told::wrong).collect();
        assert!(
            wrong.is_empty(),
            "{} of {}: {:#?}",
            wrong.len(),
            self.0.len(),
            &wrong[..wrong.len().min(5)]
        );
        let unknown = self.times(Told::is_unknown).len();
        assert!(
            unknown * CALLS_PER_UNKNOWN <= self.0.len(),
            "{unknown} of {} have an unknown outcome",
            self.0.len()
        );
        let refused = self.times(Told::is_refused).len();
        for what in ["get", "put", "cas", "batch", "scan"] {
            let done = self
                .0
                .iter()
                .filter(|told| told.what == what && told.status == StatusCode::OK);
            report(&format!("{what}: {} done", done.count()));
        }
        let done = self.times(|told| told.status == StatusCode::OK).len();
        report(&format!(
            "{done} done, {refused} refused at once, {unknown} unknown, of {}",
            self.0.len()
        ));
        assert!(
            done > 0 && refused > 0,
            "{done} done, {refused} refused of {}",
            self.0.len()
        );
    }

    /// Who is refused waits for nobody: the quickest of them know sooner than most of those who are served. Not most of them: with all
    /// clients on this machine an answer's time is above all the time until its client gets to read it.
    fn check_refused_early(&self) {
        let (refused, done) = (
            self.times(Told::is_refused),
            self.times(|told| told.status == StatusCode::OK),
        );
        let (refused, done) = (refused[refused.len() / 10], done[done.len() / 2]);
        report(&format!(
            "a tenth of the refusals took {refused:?}, half of the answers {done:?}"
        ));
        assert!(
            refused <= done,
            "a tenth of the refusals took {refused:?} at most, half of the answers {done:?}"
        );
    }
}

/// The n-th call: the same kinds in every wave, over the same keys.
fn next_call(kv: &KvCluster, n: usize) -> (&'static str, RequestBuilder) {
    let key = |n: usize| format!("overload:{:04}", n * 7_919 % KEYS);
    let value = format!("{n}:{}", "x".repeat(VALUE_BYTES));
    let http = &kv.http;
    match n % 5 {
        0 => ("get", http.get(kv.url(&format!("/kv/{}", key(n))))),
        1 => (
            "put",
            http.put(kv.url(&format!("/kv/{}", key(n))))
                .json(&json!({ "value": value })),
        ),
        2 => {
            let cas = json!({ "key": key(n), "version": null, "new": value });
            ("cas", http.post(kv.url("/kv/cas")).json(&cas))
        }
        3 => {
            let put = |i: usize| json!({ "op": "put", "key": key(n + i), "value": value });
            let ops: Vec<_> = (0..BATCH).map(put).collect();
            ("batch", http.post(kv.url("/kv/batch")).json(&json!({ "ops": ops })))
        }
        _ => ("scan", http.get(kv.url(&format!("/kv?prefix=overload:&limit={PAGE}")))),
    }
}

async fn call(what: &'static str, request: RequestBuilder) -> Told {
    let begun = Instant::now();
    let answer = request.timeout(2 * ANSWERED_WITHIN).send().await;
    let answer = answer.unwrap_or_else(|error| panic!("{what} has no answer: {error}"));
    let status = answer.status();
    let retry_after = answer.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|after| after.to_str().ok()).map(str::to_owned);
    let body = body(answer).await;
    Told {
        what,
        status,
        retry_after,
        body,
        took: begun.elapsed(),
    }
}

/// Plain calls are answered at once, each on its first attempt, and nothing is left in any queue.
async fn is_well(kv: &KvCluster) {
    for n in 0..10 {
        let key = format!("well:{n}");
        let begun = Instant::now();
        let answer = kv.put(&key, &json!(n)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{}", body(answer).await);
        assert_eq!(kv.get(&key).await, Some(json!(n)));
        let took = begun.elapsed();
        assert!(took <= WELL_AGAIN_WITHIN, "a put and a get took {took:?}");
    }
    let cluster = cluster(kv).await;
    for node in cluster["nodes"].as_array().expect("nodes") {
        let is_left = node["up"] == true && node["queued"] != 0;
        assert!(!is_left, "messages wait for a node that is well: {node}");
    }
}

async fn cluster(kv: &KvCluster) -> Value {
    let http: &Client = &kv.http;
    body(http.get(kv.url("/cluster")).send().await.expect("an answer")).await
}

/// What a test has to say besides right or wrong.
#[expect(clippy::print_stdout, reason = "a test's report")]
fn report(text: &str) {
    println!("{text}");
}
