//! The harness against real kvstores and a real kvfront in this process, with tiny windows: every kind of work must give successes of the
//! right kind and no failure. Speed is not looked at.
#![expect(clippy::unwrap_used, reason = "a panic here is the report")]

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use kv_bench::{Args, Report, Work};
use service::Shutdown;
use tokio::net::TcpListener;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Starts a cluster and gives the URL of its kvfront.
async fn cluster(folder: &Path) -> String {
    let mut backends = Vec::new();
    for node in ["a", "b", "c"] {
        let (listener, url) = listener().await;
        let file = folder.join(node);
        let config = service::settings::try_parse_from(["kvstore", "--db-file", file.to_str().unwrap()]).unwrap();
        tokio::spawn(kvstore::run(config, listener, Shutdown::new()));
        backends.push(format!("{node}={url}"));
    }
    let (listener, url) = listener().await;
    let config = service::settings::try_parse_from(["kvfront", "--backends", &backends.join(",")]).unwrap();
    tokio::spawn(kvfront::run(config, listener, Shutdown::new()));
    url
}

/// Measures as `flags` say until all is well: the cluster needs a moment at first, and a machine that stands still for the length of a window
/// is not the harness's fault.
async fn bench(url: &str, flags: &[&str]) -> Report {
    let windows = [
        "bench",
        "--url",
        url,
        "--rounds",
        "1",
        "--seconds",
        "0.2",
        "--warm-up-sec",
        "0.05",
    ];
    let Cli { args } = Cli::try_parse_from(windows.iter().chain(flags)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let trouble = match kv_bench::run(&args, &|_| {}).await {
            Ok(report) if is_well(&report) => return report,
            Ok(report) => report.table(),
            Err(error) => format!("{error:#}"),
        };
        assert!(Instant::now() < deadline, "{trouble}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether everything gave successes and no failures.
fn is_well(report: &Report) -> bool {
    report.series.iter().all(|series| {
        let round = &series.rounds[0];
        round.ops > 0 && round.failures() == 0
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_work_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let url = cluster(folder.path()).await;

    let closed = bench(&url, &["--clients", "3"]).await;
    let works: Vec<_> = closed.series.iter().map(|series| series.scenario.work).collect();
    assert_eq!(works, Work::ALL);
    for round in closed.series.iter().map(|series| &series.rounds[0]) {
        assert!(
            0.0 < round.p50_ms && round.p50_ms <= round.p99_ms && round.p99_ms <= round.max_ms,
            "{round:?}"
        );
    }

    let json = folder.path().join("report.json");
    let flags = [
        "--clients",
        "3",
        "--rate",
        "50",
        "--work",
        "get,put,cas-hot",
        "--json",
        json.to_str().unwrap(),
    ];
    let open = bench(&url, &flags).await;
    // Not all of what is due needs to be done on a slow machine, but no more than that is due.
    assert!(
        open.series.iter().all(|series| series.rounds[0].ops <= 14),
        "{}",
        open.table()
    );
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(written["series"].as_array().unwrap().len(), 3);
}
