//! The program behind `scripts/bench fleet`: the whole system as programs, a fleet under steady orders, and one table: whether ticks are held,
//! what each program uses, what the KV is asked. docs/benchmarks.md says how to read it.
//!
//! - `args`: settings.
//! - `system`: the programs. `orders`: what they have to do.
//! - `metrics`: what they say of themselves. `report`: the table.

mod args;
mod metrics;
mod orders;
mod report;
mod system;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use kv_bench::cpu;
use reqwest::Client;

use crate::args::Args;
use crate::metrics::Look;
use crate::orders::Counts;
use crate::report::{Drones, Orders, Report, Rounds, Ticks};
use crate::system::System;

/// How often drones are counted in the window.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long any answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = args.validate().and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(measured(args))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measured(args: Args) -> anyhow::Result<()> {
    let json = args.json.clone();
    let report = tokio::select! {
        report = measure(args) => report?,
        // What was started is killed when it is dropped.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; nothing was kept"),
    };
    std::io::stdout().write_all(report.table().as_bytes())?;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n").with_context(|| format!("--json: cannot write {}", path.display()))?;
    }
    Ok(())
}

async fn measure(args: Args) -> anyhow::Result<Report> {
    let folder = tempfile::Builder::new()
        .prefix("fleet-bench-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("--dir: cannot make a folder in {}", args.dir.display()))?;
    let http = Client::builder().no_proxy().timeout(ANSWERED_WITHIN).build()?;
    say("starting the programs");
    let mut system = System::start(&args, folder.path(), &http).await?;
    let counts = Arc::new(Counts::default());
    let url = format!("{}/deliveries", system.url("lb")?);
    let placing = tokio::spawn(orders::place(
        http.clone(),
        url,
        args.rate,
        args.seed,
        Arc::clone(&counts),
    ));
    say(&format!(
        "{} drones are there; {} s of orders",
        args.drones, args.warm_up_sec
    ));
    tokio::time::sleep(Duration::from_secs_f64(args.warm_up_sec)).await;
    system.check()?;
    say(&format!("measuring for {} s", args.seconds));
    let before = Moment::now(&system, &http, &counts).await?;
    let drones = count_drones(&args, &system, &http).await?;
    let after = Moment::now(&system, &http, &counts).await?;
    placing.abort();
    system.check()?;
    Ok(report(args, drones, &before, &after))
}

/// Everything that is counted, at one time.
struct Moment {
    at: Instant,
    /// All drone-sims together.
    sim: Look,
    kv: Look,
    /// All of them, one by one.
    dispatchers: Vec<Look>,
    /// CPU seconds so far, by name of the program.
    cpu_sec: BTreeMap<String, f64>,
    cpu_of_others_sec: BTreeMap<String, f64>,
    accepted: f64,
    refused: f64,
}

impl Moment {
    async fn now(system: &System, http: &Client, counts: &Counts) -> anyhow::Result<Self> {
        let used = |pids: &[u32]| cpu::used_by(pids).map_or(0.0, |used| used.as_secs_f64());
        let mut cpu_sec = BTreeMap::new();
        for program in &system.programs {
            *cpu_sec.entry(program.name.to_owned()).or_default() += used(&[program.pid()]);
        }
        let mut cpu_of_others_sec = BTreeMap::from([("this program".to_owned(), used(&[std::process::id()]))]);
        if let Some(broker) = &system.broker {
            cpu_of_others_sec.insert("RabbitMQ".to_owned(), used(&broker.pids()));
        }
        let load = |count: &std::sync::atomic::AtomicU64| whole(count.load(Ordering::Relaxed));
        Ok(Self {
            at: Instant::now(),
            sim: system.fleet(http).await?,
            kv: Look::at(http, system.url("kvfront")?).await?,
            dispatchers: system.looks(http, "dispatcher").await?,
            cpu_sec,
            cpu_of_others_sec,
            accepted: load(&counts.accepted),
            refused: load(&counts.refused),
        })
    }
}

/// Drones by what they do, in the mean over the window.
async fn count_drones(args: &Args, system: &System, http: &Client) -> anyhow::Result<Drones> {
    let end = Instant::now() + args.length();
    let (mut looks, mut sums) = (0.0, [0.0; 4]);
    while Instant::now() < end {
        let look = system.fleet(http).await?;
        let status = |status: &str| look.of("drone_sim_drones", "status", status);
        let charger = |state: &str| look.of("drone_sim_chargers", "state", state);
        let figures = [
            status("busy"),
            charger("coming"),
            charger("charging") + charger("waiting"),
            status("idle"),
        ];
        sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
        looks += 1.0;
        tokio::time::sleep(COUNT_EVERY.min(end.saturating_duration_since(Instant::now()))).await;
    }
    let [busy, to_charger, charging, idle] = sums.map(|sum| sum / looks);
    Ok(Drones {
        busy,
        to_charger,
        charging,
        idle,
    })
}

fn report(args: Args, drones: Drones, before: &Moment, after: &Moment) -> Report {
    let seconds = (after.at - before.at).as_secs_f64();
    let sim = after.sim.since(&before.sim);
    let (done, skipped) = (
        sim.sum("drone_sim_tick_seconds_count"),
        sim.sum("drone_sim_ticks_skipped_total"),
    );
    let (late, took) = (
        sim.histogram("drone_sim_tick_lag_seconds", skipped),
        sim.histogram("drone_sim_tick_seconds", 0.0),
    );
    // Each process has its own for its part of the fleet.
    let fleet_ticks = done / f64::from(args.shards);
    let kv = after.kv.since(&before.kv);
    let mut kv_calls_per_tick: BTreeMap<String, f64> = BTreeMap::new();
    for (labels, count) in kv
        .labelled("kvfront_http_requests_total")
        .filter(|(_, count)| *count > 0.0)
    {
        let label = |name: &str| {
            let pair = labels.split(',').find_map(|label| label.strip_prefix(name));
            pair.map_or("", |value| value.trim_matches(['=', '"'])).to_owned()
        };
        *kv_calls_per_tick
            .entry(format!("{} {}", label("method"), label("route")))
            .or_default() += count / fleet_ticks;
    }
    // What one of them had to do is more than what each had in the mean: the slowest counts.
    let dispatchers: Vec<Look> = after
        .dispatchers
        .iter()
        .zip(&before.dispatchers)
        .map(|(after, before)| after.since(before))
        .collect();
    let sum = |name: &str, kind: &str| dispatchers.iter().map(|look| look.of(name, "kind", kind)).sum::<f64>();
    let worst = |name: &str, share: f64| {
        let all = dispatchers.iter().map(|look| look.histogram(name, 0.0).quantile(share));
        all.fold(f64::NAN, f64::max)
    };
    let cores = |before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>| {
        let used = after
            .iter()
            .map(|(name, used)| (name.clone(), (used - before.get(name).unwrap_or(&0.0)) / seconds));
        used.collect()
    };
    Report {
        time_scale: args.time_scale(),
        seconds,
        ticks: Ticks {
            done,
            skipped,
            failed: sim.sum("drone_sim_ticks_failed_total"),
            late_p50_sec: late.quantile(0.5),
            late_p99_sec: late.quantile(0.99),
            took_p50_sec: took.quantile(0.5),
            took_p99_sec: took.quantile(0.99),
        },
        drones,
        orders: Orders {
            accepted: after.accepted - before.accepted,
            refused: after.refused - before.refused,
            assigned: sum("dispatcher_transitions_total", "delivery_assigned"),
            delivered: sum("dispatcher_transitions_total", "delivery_completed"),
            pending: after
                .dispatchers
                .iter()
                .map(|look| look.of("dispatcher_orders", "status", "pending"))
                .fold(0.0, f64::max),
            to_assign_p50_sec: worst("dispatcher_assign_seconds", 0.5),
            to_assign_p99_sec: worst("dispatcher_assign_seconds", 0.99),
        },
        kv_calls_per_tick,
        writes_per_tick: sim.sum("drone_sim_writes_total") / fleet_ticks,
        cores: cores(&before.cpu_sec, &after.cpu_sec),
        cores_of_others: cores(&before.cpu_of_others_sec, &after.cpu_of_others_sec),
        rounds: Rounds {
            per_sec: dispatchers
                .iter()
                .map(|look| look.sum("dispatcher_round_seconds_count"))
                .sum::<f64>()
                / seconds,
            p50_sec: worst("dispatcher_round_seconds", 0.5),
            p99_sec: worst("dispatcher_round_seconds", 0.99),
            fallbacks: dispatchers
                .iter()
                .map(|look| look.sum("dispatcher_policy_fallbacks_total"))
                .sum(),
        },
        args,
    }
}

#[expect(clippy::cast_precision_loss, reason = "orders are counted in thousands")]
fn whole(count: u64) -> f64 {
    count as f64
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
