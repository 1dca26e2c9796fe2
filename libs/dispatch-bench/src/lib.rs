//! Dispatch policies side by side on the same orders: `dronedispatch simulate`.
//!
//! The world, the policies and the bounds are those of the crate `dispatch-sim`; here is what a person needs around them.
//!
//! - [`Args`]: the settings. [`Scenario`]: the world that they and a seed make. `input`: orders from files. `routes`: no-fly zones.
//! - [`run`]: plays every policy with every seed, on all cores, and tells how far it is.
//! - [`Outcome`]: what a policy came to, as JSON; [`table`]: the same for people; [`files`]: all of it, as JSON and CSV; [`svg`]: drawn.
//! - `benchmark`: the files of Li and Lim.
//! - `progress`: the bar, on standard error, if that is a terminal.

mod args;
mod benchmark;
pub mod files;
mod input;
mod progress;
mod report;
mod routes;
mod scenario;
pub mod svg;

use std::fs;
use std::io::Write as _;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use dispatch_sim::pdptw::Instance;
use dispatch_sim::{Bounds, Greedy, Matching, MatchingSettings, Optimal, OptimalSettings, Policy, world};

pub use self::args::{Args, Battery, Classes, Orders, Which};
pub use self::report::{Outcome, Run, Spread, Summary, summaries, table};
pub use self::scenario::Scenario;

use self::input::Book;
use self::progress::Bar;

/// A thread tells how far it is after so many deliveries.
const TELL_EVERY: usize = 64;

/// How often the bar is drawn while nobody tells anything.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// The command: plays, shows a bar on standard error if that is a terminal, prints the result on standard output, and writes what is asked for.
///
/// # Errors
/// When a policy planned what cannot be done, or never served an order; for files that cannot be read or written.
pub fn main(args: &Args) -> anyhow::Result<()> {
    let text = output(args)?;
    // A pipe that nobody reads any more is nobody's loss.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// What is printed in the end.
fn output(args: &Args) -> anyhow::Result<String> {
    let listed = match &args.orders {
        Orders::Random(..) => None,
        Orders::File(path) => {
            let (text, what) = (input::text(path)?, || format!("--orders {}", path.display()));
            if Instance::is_one(&text) {
                args.validate(true)?;
                return benchmark::main(args, &Instance::read(&text).with_context(what)?, path);
            }
            Some(input::read(&text).with_context(what)?)
        }
    };
    args.validate(false)?;
    let first = Scenario::new(args, listed.as_ref(), args.seed)?;
    if let Some(path) = &args.write_orders {
        let instance = Instance::of_orders(
            &first.orders,
            first.starts.len(),
            args.reference(args.seed).km_per_min(),
            first.middle(),
        );
        write(path, "--write-orders", &instance.write())?;
        return Ok(String::new());
    }
    let policies = policies(args);
    let seeds = usize::try_from(args.seeds).unwrap_or(usize::MAX);
    let mut bar = Bar::new(first.orders.len().saturating_mul(policies.len()).saturating_mul(seeds));
    let runs = run(args, listed.as_ref(), &policies, |delivered| bar.show(delivered));
    bar.clear();
    let summaries = summaries(&runs?);
    let about = report::about(args, &first);
    for (path, flag, text) in [
        (&args.report, "--report", files::json(&about, &summaries)?),
        (&args.csv, "--csv", files::csv(&summaries)),
        (&args.svg, "--svg", svg::draw(&about, &summaries)),
    ] {
        if let Some(path) = path {
            write(path, flag, &text)?;
        }
    }
    if !args.json {
        return Ok(table(&about, &summaries));
    }
    let lines = summaries.iter().map(|summary| serde_json::to_string(&summary.outcome));
    Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n") + "\n")
}

fn write(path: &Path, flag: &str, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("{flag} {}: cannot be written", path.display()))
}

/// A policy and what it is called.
pub type Named = (&'static str, Box<dyn Policy + Sync>);

/// The policies that are asked for, each once, with their names. Insertion is none.
#[must_use]
pub fn policies(args: &Args) -> Vec<Named> {
    let gaining = |matching: MatchingSettings| MatchingSettings {
        swap_gain_min: args.swap_gain_min.unwrap_or(matching.swap_gain_min),
        ..matching
    };
    let optimal = OptimalSettings {
        matching: gaining(OptimalSettings::default().matching),
        ..OptimalSettings::default()
    };
    let mut named: Vec<Named> = Vec::new();
    let mut add = |which: Which| {
        let (name, policy): Named = match which {
            Which::Greedy => ("greedy", Box::new(Greedy)),
            Which::Matching => {
                let settings = gaining(MatchingSettings::default());
                ("matching", Box::new(Matching { settings }))
            }
            Which::Optimal => ("optimal", Box::new(Optimal { settings: optimal })),
            Which::Unmoved => {
                let settings = OptimalSettings {
                    coverage_rounds: 0,
                    ..optimal
                };
                ("unmoved", Box::new(Optimal { settings }))
            }
            Which::All | Which::Insertion => return,
        };
        if named.iter().all(|(other, _)| *other != name) {
            named.push((name, policy));
        }
    };
    for &which in &args.policy {
        match which {
            Which::All => [Which::Greedy, Which::Matching, Which::Optimal]
                .into_iter()
                .for_each(&mut add),
            one => add(one),
        }
    }
    named
}

enum News {
    Delivered(usize),
    Done(usize, anyhow::Result<Box<Run>>),
}

/// Plays every policy with every seed, each pair on the orders of its seed; in the order of policies, then seeds. `progress` learns how many
/// deliveries there were so far, over all.
///
/// # Errors
/// When a policy planned what cannot be done, or never served an order: a mistake in the policy.
pub(crate) fn run(
    args: &Args,
    listed: Option<&Book>,
    policies: &[Named],
    mut progress: impl FnMut(usize),
) -> anyhow::Result<Vec<Run>> {
    let jobs: Vec<(&Named, u64)> = policies
        .iter()
        .flat_map(|policy| args.seeds().map(move |seed| (policy, seed)))
        .collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (tell, news) = channel();
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        for _ in 0..cores.min(jobs.len()) {
            let (tell, jobs, next) = (tell.clone(), &jobs, &next);
            scope.spawn(move || {
                while let Some((number, &(policy, seed))) = take(jobs, next) {
                    let run = play(args, listed, policy, seed, &tell);
                    // Nobody listens only when another one failed: then the result is of no use.
                    if tell.send(News::Done(number, run)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let runs = collect(&news, jobs.len(), &mut progress);
        // After a failure nobody begins another one.
        next.store(jobs.len(), Ordering::Relaxed);
        runs
    })
}

/// The next job that nobody has, and its number.
fn take<'a, T>(jobs: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(number).map(|job| (number, job))
}

fn collect(news: &Receiver<News>, count: usize, progress: &mut dyn FnMut(usize)) -> anyhow::Result<Vec<Run>> {
    let mut runs: Vec<Option<Box<Run>>> = (0..count).map(|_| None).collect();
    let mut delivered = 0;
    while runs.iter().any(Option::is_none) {
        match news.recv_timeout(DRAW_EVERY) {
            Ok(News::Delivered(more)) => delivered += more,
            Ok(News::Done(number, run)) => runs[number] = Some(run?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("a policy ended without a result"),
        }
        progress(delivered);
    }
    Ok(runs.into_iter().flatten().map(|run| *run).collect())
}

fn play(
    args: &Args,
    listed: Option<&Book>,
    (name, policy): &Named,
    seed: u64,
    tell: &Sender<News>,
) -> anyhow::Result<Box<Run>> {
    let mut scenario = Scenario::new(args, listed, seed)?;
    let bound_min = Bounds::of_world(&scenario.orders, scenario.starts.len(), &scenario.settings()).best_min();
    if *name == "greedy" {
        scenario = scenario.own_class_only();
    }
    let watch = |delivered: usize| {
        if delivered.is_multiple_of(TELL_EVERY) {
            let _ = tell.send(News::Delivered(TELL_EVERY));
        }
    };
    let settings = scenario.settings();
    let (report, trips) = world::run_watched(policy.as_ref(), &scenario.orders, &scenario.starts, &settings, watch)
        .with_context(|| format!("the policy {name} failed with seed {seed}"))?;
    Ok(Box::new(Run::new(name, seed, report, &trips, bound_min)))
}

#[cfg(test)]
mod tests;
