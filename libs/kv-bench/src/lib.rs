//! The same work against our KV cluster, etcd and Redis, side by side in one run: operations a second, latencies, CPU time of the servers,
//! and ratios to etcd with their spread. docs/benchmarks.md says how to read them.
//!
//! - [`Args`]: the settings; [`Work`]: the kinds of work.
//! - `client`: what every system is asked to do; `ours`, `etcd`, `redis`: how each is asked, `wire` below them.
//! - `worker`: one client; `pace`: when its operations begin; `runner`: one measured window.
//! - `servers`: the programs under test, each a [`process`]; [`cpu`]: the time they use.
//! - [`Report`]: figures, table, JSON; `plot`: the picture.
//!
//! Goals: fair (the same checks of every answer, the same values, the same disk, all in turn within minutes), thin (the load generator shares
//! the machine with the servers), honest (every failure is counted and shown; nothing that was due is left out).

mod args;
mod client;
pub mod cpu;
mod etcd;
mod ours;
mod pace;
mod plot;
pub mod process;
mod redis;
mod report;
mod runner;
mod servers;
mod wire;
mod work;
mod worker;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

pub use self::args::Args;
pub use self::report::{Circumstances, Errors, Report, Round, Scenario, Series, Spread, Target};
pub use self::work::{Work, Works};

use self::ours::Ours;
use self::runner::Plan;
use self::servers::{Running, System};

/// Syncs whose median is told.
const FSYNCS: usize = 100;

/// The command: measures until Ctrl-C or SIGTERM, says on standard error how far it is, and prints the table.
///
/// # Errors
/// As [`run`]; or when it was interrupted.
pub fn main(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads.into())
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            report = run(args, &say_progress) => report,
            _ = interrupt.recv() => bail!("interrupted; nothing was kept"),
            _ = terminate.recv() => bail!("interrupted; nothing was kept"),
        }
    })?;
    // A pipe that nobody reads any more is nobody's loss; likewise below.
    let _ = std::io::stdout().write_all(report.table().as_bytes());
    Ok(())
}

fn say_progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Measures what `args` ask for and writes the files they name. `progress` gets a line now and then.
///
/// Dropping the future kills the servers and removes their data.
///
/// # Errors
/// When a setting cannot be used, a server does not start or does not take the keys, or a file cannot be written. What fails *while* it is
/// measured is counted in the report.
pub async fn run(args: &Args, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Report> {
    args.validate()?;
    let mut report = Report {
        circumstances: circumstances(args)?,
        series: Vec::new(),
    };
    for keys in &args.keys {
        Bench::start(args, *keys, progress).await?.run(&mut report.series).await;
    }
    if let Some(file) = &args.json {
        write(file, &serde_json::to_string_pretty(&report)?)?;
    }
    if let (Some(file), Some(svg)) = (&args.svg, report.svg()) {
        write(file, &svg)?;
    }
    Ok(report)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// All systems, loaded with the same number of keys.
struct Bench<'a> {
    args: &'a Args,
    keys: u64,
    progress: &'a (dyn Fn(&str) + Sync),
    systems: Vec<(Target, Running)>,
    /// Names this run's keys.
    run: u64,
    windows: u64,
    /// Kept to be removed in the end, after the servers.
    _data: Option<tempfile::TempDir>,
}

impl<'a> Bench<'a> {
    /// Starts the systems and loads the keys.
    async fn start(args: &'a Args, keys: u64, progress: &'a (dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let mut bench = Self {
            args,
            keys,
            progress,
            systems: Vec::new(),
            run: rand::random(),
            windows: 0,
            _data: None,
        };
        if let Some(url) = &args.url {
            let running = Running::elsewhere(System::Ours(Ours::at(url)?), args.pids.clone());
            bench.systems.push((Target::Ours, running));
        } else {
            let data = data_folder(&args.dir)?;
            for target in &args.targets {
                let running = start(*target, args, data.path()).await;
                let running = running.with_context(|| format!("starting {}", target.name()))?;
                bench.systems.push((*target, running));
            }
            bench._data = Some(data);
        }
        for (target, running) in &bench.systems {
            let begun = Instant::now();
            match &running.system {
                System::Ours(ours) => runner::load(ours, keys).await,
                System::Etcd(etcd) => runner::load(etcd, keys).await,
                System::Redis(redis) => runner::load(redis, keys).await,
            }
            .with_context(|| target.name())?;
            progress(&format!(
                "{}: {keys} keys loaded in {:.1} s",
                target.name(),
                begun.elapsed().as_secs_f64()
            ));
        }
        Ok(bench)
    }

    /// Goes through all loads and kinds of work.
    async fn run(mut self, series: &mut Vec<Series>) {
        let args = self.args;
        for access in &args.access {
            for clients in &args.clients {
                for rate in &args.rate {
                    for work in &args.work.0 {
                        let scenario = Scenario {
                            keys: self.keys,
                            access: *access,
                            clients: *clients,
                            rate: Some(*rate).filter(|rate| *rate > 0.0),
                            work: *work,
                        };
                        series.extend(self.scenario(scenario).await);
                    }
                }
            }
        }
    }

    /// Every system in turn, and again in the next round.
    async fn scenario(&mut self, scenario: Scenario) -> Vec<Series> {
        let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); self.systems.len()];
        for round in 1..=self.args.rounds {
            for (system, rounds) in rounds.iter_mut().enumerate() {
                let length = self.args.length();
                let measured = self.window(system, scenario).await;
                // One system that is overwhelmed must not cost the others' figures.
                let figures = measured.unwrap_or_else(|error| Round::failed(length, format!("{error:#}")));
                (self.progress)(&format!(
                    "{}, {} clients, round {round}, {}: {:.0} ops/s",
                    scenario.work,
                    scenario.clients,
                    self.systems[system].0.name(),
                    figures.ops_per_sec
                ));
                rounds.push(figures);
            }
        }
        let etcd = self.systems.iter().position(|(target, _)| *target == Target::Etcd);
        let etcd = etcd.map(|system| rounds[system].clone());
        let targets = self.systems.iter().map(|(target, _)| *target);
        targets
            .zip(rounds)
            .map(|(target, rounds)| Series::new(scenario, target, rounds, etcd.as_deref()))
            .collect()
    }

    async fn window(&mut self, system: usize, scenario: Scenario) -> anyhow::Result<Round> {
        self.windows += 1;
        let plan = Plan {
            work: scenario.work,
            clients: scenario.clients,
            keys: scenario.keys,
            access: scenario.access,
            rate: scenario.rate,
            warm_up: self.args.warm_up(),
            length: self.args.length(),
            tag: format!("{:x}-{}", self.run, self.windows),
        };
        let (target, running) = &self.systems[system];
        match &running.system {
            System::Ours(ours) => runner::measure(ours, &plan, &running.pids).await,
            System::Etcd(etcd) => runner::measure(etcd, &plan, &running.pids).await,
            System::Redis(redis) => runner::measure(redis, &plan, &running.pids).await,
        }
        .with_context(|| format!("{} {}", target.name(), scenario.work))
    }
}

async fn start(target: Target, args: &Args, data: &Path) -> anyhow::Result<Running> {
    match target {
        Target::Ours => servers::ours(&programs(args)?, data).await,
        Target::Etcd => servers::etcd(data, args.etcd_leader_only).await,
        Target::Redis => servers::redis(data).await,
    }
}

/// Where our programs are.
fn programs(args: &Args) -> anyhow::Result<PathBuf> {
    let folder = match &args.bin_dir {
        Some(folder) => folder.clone(),
        None => {
            let itself = std::env::current_exe()?;
            itself.parent().context("this program is in no folder")?.to_owned()
        }
    };
    for program in ["kvstore", "kvfront"] {
        if !folder.join(program).exists() {
            bail!("there is no {program} in {} (--bin-dir)", folder.display());
        }
    }
    Ok(folder)
}

fn data_folder(dir: &Path) -> anyhow::Result<tempfile::TempDir> {
    let made = tempfile::Builder::new().prefix("kv-bench-").tempdir_in(dir);
    made.with_context(|| format!("cannot make a folder in {} (--dir)", dir.display()))
}

fn circumstances(args: &Args) -> anyhow::Result<Circumstances> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut circumstances = Circumstances {
        cpus: std::thread::available_parallelism()?.get(),
        kernel: kernel.trim().to_owned(),
        label: args.label.clone(),
        window_sec: args.seconds,
        warm_up_sec: args.warm_up_sec,
        etcd_leader_only: args.etcd_leader_only,
        ..Circumstances::default()
    };
    if args.url.is_some() {
        return Ok(circumstances);
    }
    circumstances.fsync_us = Some(fsync_us(&args.dir)?);
    for target in &args.targets {
        let program = match target {
            Target::Ours => programs(args)?.join("kvfront"),
            Target::Etcd => PathBuf::from("etcd"),
            Target::Redis => PathBuf::from("redis-server"),
        };
        circumstances.versions.insert(target.name(), servers::version(&program));
    }
    Ok(circumstances)
}

/// Median time of an append of one value's length and a sync, microseconds: what the disk makes of everybody's writes. A few microseconds
/// mean that the folder is not on a disk.
fn fsync_us(dir: &Path) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in(dir).with_context(|| format!("cannot write in {} (--dir)", dir.display()))?;
    let mut times = Vec::with_capacity(FSYNCS);
    for _ in 0..FSYNCS {
        let begun = Instant::now();
        file.write_all(&[b'x'; client::VALUE_BYTES])?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(times).context("no sync was timed")?.median)
}
