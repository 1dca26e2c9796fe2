//! Runs simulated clusters of registers from seeds, and judges what their clients saw.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use simulator::{
    Catalogued, Counts, Effort, Kind, LETTERS, Limits, Nemeses, Runner, Spec, Sweep, TABLE_HEAD, TEETH, Wrong,
};
use simulator::{explain, measure, repin, write_svg};

/// Simulated clusters of registers: nodes, coordinators and clients in one thread per world, everything by chance from one seed; faults of
/// every kind, and a checker that says whether a single register could have given these answers.
#[derive(Debug, Parser)]
#[command(name = "simulate-kv")]
struct Options {
    /// Seeds of each kind; 1,000 where nothing else ends the run.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed; by default one drawn from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// One kind of world only; by default all in turn (see --list).
    #[arg(long, value_parser = kind)]
    kind: Option<&'static Kind>,
    /// What goes wrong, as letters (see --list), instead of what each seed would draw.
    #[arg(long, value_parser = Nemeses::parse)]
    nemesis: Option<Nemeses>,
    /// Worlds run at a time; by default as many as there are cores.
    #[arg(long)]
    jobs: Option<usize>,
    /// Ends after so many seconds.
    #[arg(long)]
    sec: Option<u64>,
    /// Ends after so many operations.
    #[arg(long)]
    operations: Option<u64>,
    /// Goes on after failures, and counts them.
    #[arg(long)]
    keep_going: bool,
    /// Makes this mistake on purpose (see --list).
    #[arg(long, value_parser = Wrong::named)]
    tooth: Option<Wrong>,
    /// Measures how soon each tooth (or the one of --tooth) is found: --seeds times, from fresh seeds, within --operations each.
    #[arg(long)]
    teeth: bool,
    /// Writes libs/simulator/pins.txt anew (from the repository's root): after a change of the protocol, other worlds show the teeth.
    #[arg(long)]
    repin: bool,
    /// Of each world at most so many clients.
    #[arg(long, default_value_t = u32::MAX, hide_default_value = true)]
    clients: u32,
    /// Of each client at most so many steps.
    #[arg(long, default_value_t = u32::MAX, hide_default_value = true)]
    calls: u32,
    /// Of each world at most so many faults.
    #[arg(long, default_value_t = u32::MAX, hide_default_value = true)]
    faults: u32,
    /// Runs the one world of --kind and --seed, and tells every event.
    #[arg(long)]
    trace: bool,
    /// Where drawings of wrong histories go.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    out: PathBuf,
    /// Lists kinds, nemeses and teeth.
    #[arg(long)]
    list: bool,
}

/// Seeds of each kind.
const DEFAULT_SEEDS: u64 = 1_000;

fn kind(name: &str) -> Result<&'static Kind, String> {
    Kind::named(name).ok_or_else(|| format!("{name:?} names no kind of world"))
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        println!("{}", list());
        return ExitCode::SUCCESS;
    }
    let limits = Limits {
        clients: options.clients,
        calls: options.calls,
        faults: options.faults,
    };
    if let (Some(kind), Some(seed), true) = (options.kind, options.seed, options.trace || limits != Limits::NONE) {
        return run_one(
            &options,
            &Spec {
                kind,
                seed,
                nemeses: options.nemesis,
                limits,
                wrong: options.tooth,
                traced: options.trace,
            },
        );
    }
    let seed = options.seed.unwrap_or_else(seed_from_clock);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if options.repin {
        return write_pins(&options, cores);
    }
    if options.teeth {
        return measure_teeth(&options, seed, cores);
    }
    let is_ended_otherwise = options.sec.is_some() || options.operations.is_some();
    let default_seeds = if is_ended_otherwise { u64::MAX } else { DEFAULT_SEEDS };
    let sweep = Sweep {
        seeds: options.seeds.unwrap_or(default_seeds),
        operations: options.operations.unwrap_or(u64::MAX),
        time: options.sec.map_or(Duration::MAX, Duration::from_secs),
        failures: if options.keep_going { usize::MAX } else { 1 },
        jobs: options.jobs.unwrap_or(cores).max(1),
        nemeses: options.nemesis,
        wrong: options.tooth,
        ..Sweep::new(options.kind.map_or_else(Kind::all, |kind| vec![kind]), seed)
    };
    // A panic is a result here, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let swept = sweep.run();
    println!("seeds from {seed}: {}", summary(&swept.counts, swept.took, sweep.jobs));
    if let Some((spec, failure)) = swept.failures.first() {
        tell(&options, spec, failure);
    }
    for (spec, failure) in swept.failures.iter().skip(1) {
        let text = failure.to_string();
        println!(
            "{} {}: {}",
            spec.kind.name,
            spec.seed,
            text.lines().next().unwrap_or_default()
        );
    }
    if swept.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("{} worlds failed", swept.failures.len());
        ExitCode::FAILURE
    }
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn run_one(options: &Options, spec: &Spec) -> ExitCode {
    let mut runner = Runner::new();
    let result = runner.run(spec);
    println!("{}", runner.trace());
    match result {
        Ok(counts) => {
            println!("nothing wrong: {counts:?}");
            ExitCode::SUCCESS
        }
        Err((failure, _)) => {
            tell(options, spec, &failure);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn tell(options: &Options, spec: &Spec, failure: &simulator::Failure) {
    let report = explain(spec, failure);
    println!("{}", report.text);
    match write_svg(&report, spec, &options.out) {
        Ok(Some(path)) => println!("drawn in {}", path.display()),
        Ok(None) => {}
        Err(error) => println!("no drawing: {}: {error}", options.out.display()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn summary(counts: &Counts, took: Duration, jobs: usize) -> String {
    let percent = |part: u64| 100.0 * part as f64 / (counts.operations as f64).max(1.0);
    let rate = counts.operations as f64 / took.as_secs_f64();
    format!(
        "{} worlds, {} operations ({:.1} % unknown, {:.1} % not possible), {} faults in {:.1} s: {:.0} operations/s, {:.0} per core",
        counts.worlds,
        counts.operations,
        percent(counts.unknown),
        percent(counts.unavailable),
        counts.faults,
        took.as_secs_f64(),
        rate,
        rate / jobs as f64,
    )
}

/// Rounds and operations of a measurement of teeth, unless something else is asked for.
const TEETH_ROUNDS: u64 = 5;
const TEETH_OPERATIONS: u64 = 50_000_000;

#[expect(clippy::print_stdout, reason = "the program's output")]
fn measure_teeth(options: &Options, seed: u64, cores: usize) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let effort = Effort {
        rounds: options.seeds.unwrap_or(TEETH_ROUNDS),
        operations: options.operations.unwrap_or(TEETH_OPERATIONS),
        seed,
        jobs: options.jobs.unwrap_or(cores).max(1),
    };
    println!("seed {seed}\n\n{TABLE_HEAD}");
    let mut all_found = true;
    let wanted = |tooth: &&Catalogued| options.tooth.is_none_or(|wrong| wrong == tooth.wrong);
    for tooth in TEETH.iter().filter(wanted) {
        let measured = measure(tooth, &effort);
        all_found &= measured.found.iter().all(Option::is_some);
        println!("{}", measured.row());
    }
    if all_found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Operations within which a world is looked for that shows a tooth, unless something else is asked for.
const REPIN_OPERATIONS: u64 = 2_000_000;
const PINS_FILE: &str = "libs/simulator/pins.txt";

#[expect(clippy::print_stdout, reason = "the program's output")]
fn write_pins(options: &Options, cores: usize) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let jobs = options.jobs.unwrap_or(cores).max(1);
    let (text, missing) = repin(options.operations.unwrap_or(REPIN_OPERATIONS), jobs);
    if let Err(error) = std::fs::write(PINS_FILE, text) {
        println!("{PINS_FILE}: {error}");
        return ExitCode::FAILURE;
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    println!("{PINS_FILE} is written; no world was found for: {}", names.join(", "));
    ExitCode::SUCCESS
}

fn seed_from_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Far from each other, as seeds are counted up from there.
    since.as_secs() % 1_000_000_000 * 1_000_000_000
}

fn list() -> String {
    let kinds = Kind::all()
        .into_iter()
        .map(|kind| format!("  {:<14}{}", kind.name, kind.about));
    let letters = LETTERS.iter().map(|(letter, about)| format!("  {letter}  {about}"));
    let teeth = Wrong::all().map(|wrong| format!("  {wrong}"));
    let lines = ["kinds of worlds:".to_owned()]
        .into_iter()
        .chain(kinds)
        .chain(["nemeses:".to_owned()])
        .chain(letters)
        .chain(["teeth:".to_owned()])
        .chain(teeth);
    lines.collect::<Vec<_>>().join("\n")
}
