//! How fast it is: `cargo bench -p assignment`.
//!
//! Points on a square of 20 km; a candidate costs the flight's milliseconds at 60 km/h, an unserved row as much as 20 to 60 minutes. Every
//! result is verified. Times are wall-clock, least and median of several instances; memory is the process's peak during the case,
//! instance included.

#![expect(clippy::print_stdout, reason = "the result of a measurement")]

use std::time::{Duration, Instant};

use assignment::{ColumnId, Grid, RowId, Solver, Summary};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SIDE_KM: f64 = 20.0;
const MS_PER_KM: f64 = 60_000.0;
const INSTANCES: u64 = 3;

/// Filters, e.g. `cargo bench -p assignment -- dense`.
fn wanted(name: &str) -> bool {
    let mut filters = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
}

#[derive(Clone, Copy)]
enum Where {
    Uniform,
    Clusters,
}

impl Where {
    fn point(self, random: &mut StdRng) -> (f64, f64) {
        let mut uniform = || (random.random_range(0.0..SIDE_KM), random.random_range(0.0..SIDE_KM));
        match self {
            Self::Uniform => uniform(),
            Self::Clusters => {
                // One of ten centres, around it roughly a bell; drones and orders at the same centres in other shares.
                let spread = uniform();
                let more = uniform();
                let centre = random.random_range(0..10_u32) * random.random_range(0..10) / 9;
                let angle = f64::from(centre) * 2.4;
                let radius = 2.0 + 0.7 * f64::from(centre);
                let near = |a: f64, b: f64| (a + b - SIDE_KM) / 14.0;
                (
                    10.0 + radius * angle.cos() + near(spread.0, more.0),
                    10.0 + radius * angle.sin() + near(spread.1, more.1),
                )
            }
        }
    }
}

#[derive(Clone)]
struct Order {
    at: (f64, f64),
    unserved: i64,
    id: Option<RowId>,
}

struct World {
    spread: Where,
    random: StdRng,
    drones: Vec<((f64, f64), ColumnId)>,
    orders: Vec<Order>,
    solver: Solver,
}

#[expect(clippy::cast_possible_truncation, reason = "some minutes in milliseconds")]
fn cost(distance_km: f64) -> i64 {
    (distance_km * MS_PER_KM) as i64
}

impl World {
    fn new(spread: Where, drones: usize, orders: usize, seed: u64) -> Self {
        let mut world = Self {
            spread,
            random: StdRng::seed_from_u64(seed),
            drones: Vec::new(),
            orders: Vec::new(),
            solver: Solver::new(),
        };
        for _ in 0..drones {
            world.add_drone();
        }
        for _ in 0..orders {
            world.add_order();
        }
        world
    }

    fn add_drone(&mut self) {
        let at = self.spread.point(&mut self.random);
        let id = self.solver.add_column().expect("room");
        self.drones.push((at, id));
    }

    fn add_order(&mut self) {
        let at = self.spread.point(&mut self.random);
        let unserved = self.random.random_range(1_200_000..3_600_000);
        self.orders.push(Order { at, unserved, id: None });
    }

    fn candidates(&self, nearest: usize) -> Vec<Vec<(ColumnId, i64)>> {
        let points: Vec<(f64, f64)> = self.drones.iter().map(|drone| drone.0).collect();
        let grid = Grid::new(&points).expect("finite");
        let of = |order: &Order| {
            let near = grid.nearest(order.at.0, order.at.1).take(nearest);
            near.map(|near| (self.drones[near.index].1, cost(near.distance())))
                .collect()
        };
        self.orders.iter().map(of).collect()
    }

    fn tell(&mut self, candidates: &[Vec<(ColumnId, i64)>]) {
        for (order, candidates) in self.orders.iter_mut().zip(candidates) {
            match order.id {
                Some(id) => self.solver.set_row(id, order.unserved, candidates).expect("known"),
                None => order.id = Some(self.solver.add_row(order.unserved, candidates).expect("known")),
            }
        }
    }

    /// What happens between two rounds of a dispatcher: every drone flies 50 m, and every order has waited for longer.
    fn drift(&mut self) {
        for ((at, _), number) in self.drones.iter_mut().zip(0_u32..) {
            let angle = f64::from(number);
            *at = (at.0 + 0.05 * angle.cos(), at.1 + 0.05 * angle.sin());
        }
        for order in &mut self.orders {
            order.unserved += 300;
        }
    }

    /// One hundredth of drones and orders leaves, as many come.
    fn change(&mut self) {
        for _ in 0..self.drones.len().div_ceil(100) {
            let leaving = self.random.random_range(0..self.drones.len());
            let (_, id) = self.drones.swap_remove(leaving);
            self.solver.remove_column(id).expect("known");
            self.add_drone();
        }
        for _ in 0..self.orders.len().div_ceil(100) {
            let leaving = self.random.random_range(0..self.orders.len());
            if let Some(id) = self.orders.swap_remove(leaving).id {
                self.solver.remove_row(id).expect("known");
            }
            self.add_order();
        }
    }
}

/// Least and median, in milliseconds.
fn figures(times: &mut [Duration]) -> String {
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    format!("{:>8.1} {:>8.1}", ms(times[0]), ms(times[times.len() / 2]))
}

/// Peak memory since the last call in MiB, where the system tells.
fn peak_mib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    // Resets the peak to what is in use now.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak.map_or("?".to_owned(), |kib| (kib / 1024).to_string())
}

fn timed<T>(times: &mut Vec<Duration>, action: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = action();
    times.push(started.elapsed());
    result
}

fn row(what: &str, times: &mut [Duration], summary: Option<Summary>) {
    let more = summary.map_or(String::new(), |summary| {
        format!(
            "  {:>6} matched {:>8} searches {:>11} edges scanned",
            summary.matched, summary.searches, summary.work
        )
    });
    println!("    {what:<34}{}{more}", figures(times));
}

/// What is different in each round.
#[derive(Clone, Copy, PartialEq)]
enum Changes {
    Hundredth,
    HundredthAndDrift,
}

impl Changes {
    fn name(self) -> &'static str {
        match self {
            Self::Hundredth => "1 % changed",
            Self::HundredthAndDrift => "all drifted",
        }
    }
}

fn case(name: &str, spread: Where, (drones, orders): (usize, usize), nearest: usize, rounds: usize, changes: Changes) {
    if !wanted(name) {
        return;
    }
    println!(
        "{name}: {drones} drones, {orders} orders, {nearest} candidates each{:>8}{:>9}",
        "min ms", "median"
    );
    let _ = peak_mib();
    let [mut near, mut tell, mut cold] = [const { Vec::new() }; 3];
    let [mut warm_near, mut warm_tell, mut warm, mut cold_tell, mut again] = [const { Vec::new() }; 5];
    let (mut cold_summary, mut warm_summary) = (None, None);
    for seed in 0..INSTANCES {
        let mut world = World::new(spread, drones, orders, seed);
        let candidates = timed(&mut near, || world.candidates(nearest));
        timed(&mut tell, || world.tell(&candidates));
        drop(candidates);
        cold_summary = Some(timed(&mut cold, || world.solver.solve()));
        world.solver.verify().expect("optimal");
        for _ in 0..rounds {
            if changes == Changes::HundredthAndDrift {
                world.drift();
            }
            world.change();
            let candidates = timed(&mut warm_near, || world.candidates(nearest));
            timed(&mut warm_tell, || world.tell(&candidates));
            let summary = timed(&mut warm, || world.solver.solve());
            world.solver.verify().expect("optimal");
            let mut fresh = World {
                solver: Solver::new(),
                drones: Vec::new(),
                orders: world.orders.clone(),
                random: StdRng::seed_from_u64(0),
                spread,
            };
            fresh.drones = world
                .drones
                .iter()
                .map(|drone| (drone.0, fresh.solver.add_column().expect("room")))
                .collect();
            fresh.orders.iter_mut().for_each(|order| order.id = None);
            let candidates = fresh.candidates(nearest);
            timed(&mut cold_tell, || fresh.tell(&candidates));
            assert_eq!(
                timed(&mut again, || fresh.solver.solve()).cost,
                summary.cost,
                "warm and cold"
            );
            warm_summary = Some(summary);
        }
    }
    row("nearest drones", &mut near, None);
    row("into the solver", &mut tell, None);
    row("cold solve", &mut cold, cold_summary);
    if rounds > 0 {
        let of = |what: &str| format!("{}: {what}", changes.name());
        row(&of("nearest drones"), &mut warm_near, None);
        row(&of("into the solver"), &mut warm_tell, None);
        row(&of("warm solve"), &mut warm, warm_summary);
        row(&of("into a new solver instead"), &mut cold_tell, None);
        row(&of("cold solve instead"), &mut again, None);
    }
    println!("    peak memory {} MiB", peak_mib());
}

/// The optimum over all pairs: from few candidates with pricing, and with all listed.
fn pricing(name: &str, spread: Where, drones: usize, orders: usize, nearest: usize) {
    if !wanted(name) {
        return;
    }
    println!(
        "{name}: {drones} drones, {orders} orders, the optimum over all pairs{:>15}{:>9}",
        "min ms", "median"
    );
    let [mut few_times, mut more_times] = [const { Vec::new() }; 2];
    let mut result = None;
    for seed in 0..INSTANCES {
        let mut world = World::new(spread, drones, orders, seed);
        let candidates = world.candidates(nearest);
        world.tell(&candidates);
        let few = timed(&mut few_times, || world.solver.solve());
        let points: Vec<(f64, f64)> = world.drones.iter().map(|drone| drone.0).collect();
        let grid = Grid::new(&points).expect("finite");
        let priced = timed(&mut more_times, || {
            world.solver.solve_with_pricing(u64::MAX, |_, row, below, pairs| {
                let (x, y) = world.orders[row.slot()].at;
                let near = grid
                    .nearest(x, y)
                    .map(|near| (world.drones[near.index].1, cost(near.distance())));
                pairs.extend(near.take_while(|pair| pair.1 < below));
            })
        })
        .expect("no limit");
        result = Some((few, priced));
    }
    row("cold solve of the nearest", &mut few_times, result.map(|both| both.0));
    row(
        "then pricing, with the grid's work",
        &mut more_times,
        result.map(|both| both.1),
    );
    if let Some((few, priced)) = result {
        println!(
            "    cost {} with {nearest} candidates each, {} over all pairs",
            few.cost, priced.cost
        );
    }
}

fn main() {
    let few = Changes::Hundredth;
    case("small", Where::Uniform, (18, 60), 18, 5, few);
    case("many orders", Where::Uniform, (2_000, 10_000), 32, 4, few);
    case("many orders, clusters", Where::Clusters, (2_000, 10_000), 32, 4, few);
    case("many drones", Where::Uniform, (10_000, 2_000), 32, 4, few);
    case("equal", Where::Uniform, (10_000, 10_000), 32, 4, few);
    case("equal, clusters", Where::Clusters, (10_000, 10_000), 32, 4, few);
    let all = Changes::HundredthAndDrift;
    case("round, many orders", Where::Uniform, (2_000, 10_000), 32, 4, all);
    case("round, equal", Where::Uniform, (10_000, 10_000), 32, 4, all);
    pricing("pricing", Where::Uniform, 2_000, 10_000, 32);
    pricing("pricing, few", Where::Uniform, 2_000, 10_000, 8);
    case("dense", Where::Uniform, (2_000, 10_000), 2_000, 0, few);
}
