//! One window of load, by wrk, and the CPU time that the proxy used meanwhile.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::args::Args;

/// wrk's own table is for people; this prints what it knows as one line of JSON. Times are in microseconds there.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"seconds":%.6f,"requests":%d,"bytes":%d,"p50_ms":%.4f,"p99_ms":%.4f,"max_ms":%.4f,"errors":%d}\n',
    summary.duration / 1e6, summary.requests, summary.bytes, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

#[derive(Debug, Deserialize)]
struct Said {
    seconds: f64,
    requests: u64,
    bytes: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    errors: u64,
}

/// The figures of one window.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// Length of the window.
    pub(crate) seconds: f64,
    /// Answers that came within it.
    pub(crate) requests: u64,
    /// The same, a second.
    pub(crate) requests_per_sec: f64,
    /// Median latency, milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile, milliseconds.
    pub(crate) p99_ms: f64,
    /// The longest, milliseconds.
    pub(crate) max_ms: f64,
    /// User and system time of the proxy per 1,000 requests; none without a proxy.
    pub(crate) proxy_cpu_sec_per_1000: Option<f64>,
}

/// Loads `url` for a window. Fails when anything but the expected answers came: rates of errors are no rates.
pub(crate) fn window(args: &Args, url: &str, proxy: Option<u32>, answer_bytes: u32) -> anyhow::Result<Measured> {
    let mut script = tempfile::Builder::new().suffix(".lua").tempfile_in(&args.dir)?;
    script.write_all(SCRIPT.as_bytes())?;
    let run = |seconds: u32| -> anyhow::Result<Said> {
        let mut command = Command::new("taskset");
        command.args(["-c", &args.other_cpus, "wrk", "-t1", "--latency", "--timeout=5s"]);
        command
            .arg(format!("-c{}", args.connections))
            .arg(format!("-d{seconds}s"));
        command.arg("-s").arg(script.path()).arg(url);
        let output = command.output().context("cannot start taskset and wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some((_, result)) = text.rsplit_once("RESULT ") else {
            bail!("wrk said: {text}{}", String::from_utf8_lossy(&output.stderr));
        };
        serde_json::from_str(result).with_context(|| format!("wrk said: {result}"))
    };
    // Connections to the backend, caches and branch predictors, of whoever was idle until now.
    run(1)?;
    let before = proxy.and_then(used_sec);
    let said = run(args.seconds)?;
    let after = proxy.and_then(used_sec);
    ensure!(said.errors == 0, "{} of {} requests failed", said.errors, said.requests);
    ensure!(said.requests > 0, "nothing was answered within {} s", args.seconds);
    ensure!(
        said.bytes / said.requests >= u64::from(answer_bytes),
        "answers had {} bytes, head included; at least {answer_bytes} were expected",
        said.bytes / said.requests
    );
    let requests = said.requests as f64;
    Ok(Measured {
        seconds: said.seconds,
        requests: said.requests,
        requests_per_sec: requests / said.seconds,
        p50_ms: said.p50_ms,
        p99_ms: said.p99_ms,
        max_ms: said.max_ms,
        proxy_cpu_sec_per_1000: before
            .zip(after)
            .map(|(before, after)| (after - before) * 1000.0 / requests),
    })
}

/// Pause between two looks at whether a server is up.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Processor time of a process, seconds; nothing where the system does not tell.
fn used_sec(pid: u32) -> Option<f64> {
    kv_bench::cpu::used_by(&[pid]).map(|used| used.as_secs_f64())
}
