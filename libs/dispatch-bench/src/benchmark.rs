//! The benchmarks of Li and Lim: solutions checked, and what our policies make of them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use dispatch_sim::pdptw::{Cost, Fault, Instance, Online, Solution, insert};
use dispatch_sim::world::{self, Settings};
use dispatch_sim::{Demand, Point};

use crate::args::{Args, Which};
use crate::progress::Bar;
use crate::{input, policies, write};

/// Faults that are named.
const FAULTS_SHOWN: usize = 20;

/// What a way of solving it came to.
struct Solved {
    name: &'static str,
    solution: Solution,
    cost: Cost,
    faults: Vec<Fault>,
    /// Mean minutes from ready to delivered, if it was played.
    mean_min: Option<f64>,
}

/// Solves or checks, and says what came of it.
///
/// # Errors
/// When a file cannot be read or written, or a solution that is to be checked is not allowed.
pub(crate) fn main(args: &Args, instance: &Instance, path: &Path) -> anyhow::Result<String> {
    let requests = instance.pickups().count();
    let mut text = format!(
        "{}: {requests} requests, {} vehicles of capacity {}, speed {}\n",
        path.display(),
        instance.vehicles,
        instance.capacity,
        instance.speed
    );
    if let Some(solution) = &args.check {
        return check(instance, solution, text);
    }
    let mut solved = Vec::new();
    let vehicles = args.drones.unwrap_or(instance.vehicles);
    let is_asked = |which: &Which| args.policy.contains(which);
    let named = policies(args);
    let mut bar = Bar::new(requests * (named.len() + usize::from(is_asked(&Which::Insertion))));
    for (name, policy) in &named {
        let online = Online::new(instance);
        let starts = vec![instance.tasks[0].at; vehicles];
        let demand = demand(instance);
        let settings = Settings {
            doors: &online.doors,
            ..Settings::plain(instance.speed, &demand)
        };
        let before = requests * solved.len();
        let run = world::run_watched(policy.as_ref(), &online.orders, &starts, &settings, |done| {
            bar.show(before + done)
        });
        let (report, trips) = run.with_context(|| format!("the policy {name} failed"))?;
        let solution = online.routes(instance, &trips);
        solved.push(Solved::new(name, instance, solution, Some(report.to_deliver.mean)));
    }
    if is_asked(&Which::Insertion) {
        let before = requests * solved.len();
        let solution = insert(instance, |done| bar.show(before + done));
        solved.push(Solved::new("insertion", instance, solution, None));
    }
    bar.clear();
    if let (Some(path), Some(solved)) = (&args.routes, solved.first()) {
        let name = args_name(args);
        write(
            path,
            "--routes",
            &solved.solution.write(&name, "DroneDispatch", solved.name),
        )?;
    }
    text.push_str(&table(instance, &solved));
    Ok(text)
}

/// The instance's name: its file's, without folder and ending.
fn args_name(args: &Args) -> String {
    match &args.orders {
        crate::Orders::File(path) => path
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        crate::Orders::Random(..) => String::new(),
    }
}

impl Solved {
    fn new(name: &'static str, instance: &Instance, solution: Solution, mean_min: Option<f64>) -> Self {
        let (cost, faults) = instance.check(&solution);
        Self {
            name,
            solution,
            cost,
            faults,
            mean_min,
        }
    }
}

/// Where requests come from: evenly from the area, as far as policies are told.
fn demand(instance: &Instance) -> Demand {
    let places = || instance.tasks.iter().map(|task| task.at);
    let low = places().fold((f64::INFINITY, f64::INFINITY), |low, at| {
        (low.0.min(at.x), low.1.min(at.y))
    });
    let high = places().fold((f64::NEG_INFINITY, f64::NEG_INFINITY), |high, at| {
        (high.0.max(at.x), high.1.max(at.y))
    });
    Demand::even(
        (Point::new(low.0, low.1), Point::new(high.0, high.1)),
        crate::scenario::LATTICE,
        0.0,
    )
}

fn check(instance: &Instance, path: &Path, mut text: String) -> anyhow::Result<String> {
    let solution = Solution::read(&input::text(path)?).with_context(|| format!("--check {}", path.display()))?;
    let (cost, faults) = instance.check(&solution);
    // Writing to a string cannot fail; likewise below.
    let _ = writeln!(
        text,
        "{}: {} vehicles, distance {:.2}",
        path.display(),
        cost.vehicles,
        cost.distance
    );
    if faults.is_empty() {
        text.push_str("allowed: capacity, windows, pairs and their order are kept\n");
        return Ok(text);
    }
    let named: Vec<String> = faults.iter().take(FAULTS_SHOWN).map(ToString::to_string).collect();
    let more = faults.len().saturating_sub(FAULTS_SHOWN);
    let more = if more > 0 {
        format!("\nand {more} more")
    } else {
        String::new()
    };
    anyhow::bail!("{text}not allowed:\n{}{more}", named.join("\n"))
}

fn table(instance: &Instance, solved: &[Solved]) -> String {
    let mut text = format!(
        "\n{:<10}{:>10}{:>14}{:>14}{:>18}  allowed\n",
        "policy", "vehicles", "distance", "late stops", "ready→delivered"
    );
    for one in solved {
        let late = one
            .faults
            .iter()
            .filter(|fault| matches!(fault, Fault::Late { .. }))
            .count();
        let other = one.faults.iter().find(|fault| !matches!(fault, Fault::Late { .. }));
        let allowed = match other {
            None if late == 0 => "yes".to_owned(),
            None => "no: windows".to_owned(),
            Some(fault) => format!("no: {fault}"),
        };
        let mean = one.mean_min.map_or_else(|| "-".to_owned(), |min| format!("{min:.2}"));
        let _ = writeln!(
            text,
            "{:<10}{:>10}{:>14.2}{late:>14}{mean:>18}  {allowed}",
            one.name, one.cost.vehicles, one.cost.distance
        );
    }
    let one_by_one = instance
        .pickups()
        .map(|pickup| instance.distance(pickup, instance.tasks[pickup].partner));
    let _ = writeln!(text, "\nLoaded legs one by one: {:.2}", one_by_one.sum::<f64>());
    text
}
