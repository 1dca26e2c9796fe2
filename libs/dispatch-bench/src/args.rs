//! The settings of `dronedispatch simulate`.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args as ClapArgs, ValueEnum};
use dispatch_sim::{Arrivals, Reference};
use domain::no_fly::NoFlyArgs;

/// Most drones.
const DRONES_MAX: usize = 10_000;

/// Most orders.
pub(crate) const ORDERS_MAX: usize = 1_000_000;

/// Orders at random unless a number or hours are given.
const ORDERS: usize = 12_000;

/// Drones unless a number or a benchmark file says otherwise.
const DRONES: usize = 18;

/// Speed unless it is given, km/h.
const SPEED_KMH: f64 = 60.0;

/// Most seeds in one run.
const SEEDS_MAX: u64 = 1_000;

/// Longest simulated time: a year.
const HOURS_MAX: f64 = 8_760.0;

/// Highest utilisation: far beyond what any policy can serve.
const UTILISATION_MAX: f64 = 10.0;

/// Longest side of the square, km, and highest speed, km/h.
const SIZE_MAX: f64 = 10_000.0;

/// Which policies are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Oldest order first, nearest idle drone
    Greedy,
    /// Exact least-cost matching with look-ahead and swaps
    Matching,
    /// The same, and thinks of orders to come
    Optimal,
    /// Optimal without anticipation: drones without an order stay where they are
    Unmoved,
    /// Greedy, matching and optimal, on the same orders
    All,
    /// For benchmark files only: insertion of requests that are all known in advance
    Insertion,
}

/// Weight classes of drones and parcels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classes {
    /// Any drone carries any parcel.
    One,
    /// Light, medium, heavy, as the product has them.
    Three,
}

/// Where orders come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Orders {
    /// At random, at most so many, at a steady rate or not.
    Random(Arrivals, usize),
    /// From a file.
    File(PathBuf),
}

/// Compare dispatch policies on the same orders, under a virtual clock
///
/// The world: a square, all drones equally fast, orders at random between uniformly distributed points; or the orders of a file. The same settings
/// and seed give the same orders, and the same figures, on every machine.
#[derive(Debug, Clone, PartialEq, ClapArgs)]
pub struct Args {
    /// Side of the square, km
    #[arg(long, default_value = "20", value_parser = size, value_name = "KM")]
    pub square_km: f64,

    /// Speed of all drones, km/h [60; with a benchmark file as there]; with three classes that of medium ones, light ones fly 1.2 × and
    /// heavy ones 0.8 × as fast
    #[arg(long, value_parser = size, value_name = "KMH")]
    pub speed_kmh: Option<f64>,

    /// Weight classes: one (any drone carries any parcel) or three (drones and parcels are light, medium or heavy; a heavier drone may
    /// carry a lighter parcel, except under greedy)
    #[arg(long, default_value = "one", value_parser = classes, value_name = "one|three")]
    pub classes: Classes,

    /// Batteries: off (they never run down) or on (2 % per km; at 30 % a drone goes to one of four chargers and charges up to 95 %)
    #[arg(long, default_value = "off", value_parser = battery, value_name = "on|off")]
    pub battery: Battery,

    /// Drones that charge at the same time at each of the four chargers, 1 to 10000
    #[arg(long, default_value = "4", value_parser = drones, value_name = "N")]
    pub charger_slots: usize,

    /// How fast drones charge, % per minute
    #[arg(long, default_value = "28.6", value_parser = size, value_name = "PCT")]
    pub charge_per_min: f64,

    /// What has to be flown round
    #[command(flatten)]
    pub no_fly: NoFlyArgs,

    /// Arrival rate × mean direct flight × 1.25 ÷ drones: about 1 is what the fleet can just carry; above 0, at most 10. A file has its own
    #[arg(long, default_value = "0.7", value_parser = utilisation, value_name = "SHARE")]
    pub utilisation: f64,

    /// Drones, 1 to 10000 [18; with a benchmark file its vehicles]
    #[arg(long, value_parser = drones, value_name = "N")]
    pub drones: Option<usize>,

    /// Where orders come from: a number from 1 to 1000000 (so many, Poisson), poisson, bursty (calm, peak, calm, silence, in 56 minutes), burst (all
    /// at once), or a file: JSON lines or CSV of time, origin, destination, weight or class; or a benchmark of Li and Lim
    #[arg(long, default_value = "poisson", value_parser = orders, value_name = "poisson|bursty|burst|N|FILE")]
    pub orders: Orders,

    /// Orders are placed for so many hours, at most 8760 [until there are 12000; a file: all of it]
    #[arg(long, value_parser = hours, value_name = "H")]
    pub hours: Option<f64>,

    /// Decides orders and where drones are in the beginning, 0 to 2^64 - 1
    #[arg(long, default_value = "1", value_name = "SEED")]
    pub seed: u64,

    /// How many seeds, from --seed on: means over them, and their spread; 1 to 1000
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX), value_name = "N")]
    pub seeds: u64,

    /// Which policies, separated by commas
    #[arg(
        long,
        default_value = "all",
        value_enum,
        value_delimiter = ',',
        value_name = "POLICY,…"
    )]
    pub policy: Vec<Which>,

    /// Minutes of flight that it must save to take an order from the drone on its way to the pick-up [optimal, unmoved: 0.3, matching: 0.1]; from 0
    /// to 10000, which is never
    #[arg(long, value_parser = gain, value_name = "MIN")]
    pub swap_gain_min: Option<f64>,

    /// Print one JSON object per policy and line, instead of a table
    #[arg(long)]
    pub json: bool,

    /// Write everything to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Write everything to this file, a line per policy and seed
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,

    /// Draw the times to deliver into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Write the orders of the first seed to this file as a benchmark of Li and Lim, for other solvers, and play nothing
    #[arg(long, value_name = "FILE")]
    pub write_orders: Option<PathBuf>,

    /// With a benchmark file and one policy: write its routes to this file, as solutions are published
    #[arg(long, value_name = "FILE")]
    pub routes: Option<PathBuf>,

    /// With a benchmark file: check the solution in this file, and play nothing
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
}

/// What is true of batteries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Battery {
    /// They never run down.
    Off,
    /// They do, and are charged.
    On,
}

impl Args {
    /// The world that is asked for, with orders at random.
    #[must_use]
    pub fn reference(&self, seed: u64) -> Reference {
        let (arrivals, orders) = match self.orders {
            Orders::Random(arrivals, orders) => (arrivals, orders),
            Orders::File(_) => (Arrivals::Poisson, ORDERS),
        };
        // Hours end the orders, so the default number does not.
        let is_ended_by_hours = self.hours.is_some() && orders == ORDERS;
        Reference {
            square_km: self.square_km,
            speed_kmh: self.speed_kmh.unwrap_or(SPEED_KMH),
            drones: self.drones.unwrap_or(DRONES),
            utilisation: self.utilisation,
            orders: if is_ended_by_hours { ORDERS_MAX } else { orders },
            until_min: self.hours.map_or(f64::INFINITY, |hours| hours * 60.0),
            arrivals,
            seed,
        }
    }

    /// The seeds that are played.
    pub(crate) fn seeds(&self) -> impl Iterator<Item = u64> {
        (0..self.seeds).map(|offset| self.seed.wrapping_add(offset))
    }

    /// What depends on two settings.
    ///
    /// # Errors
    /// Names both.
    pub fn validate(&self, is_benchmark: bool) -> anyhow::Result<()> {
        let is_solution = self.routes.is_some() || self.check.is_some();
        if is_solution && !is_benchmark {
            bail!("--routes and --check: need --orders FILE with a benchmark of Li and Lim");
        }
        if self.policy.contains(&Which::Insertion) && !is_benchmark {
            bail!(
                "--policy insertion: needs --orders FILE with a benchmark of Li and Lim; greedy, matching, optimal, unmoved or all is expected"
            );
        }
        if !is_benchmark {
            if self.classes == Classes::Three && self.drones.is_some_and(|drones| drones < 3) {
                bail!("--classes three: needs --drones 3 or more, one of each class");
            }
            return Ok(());
        }
        let is_ours = self.classes == Classes::Three
            || self.battery == Battery::On
            || self.speed_kmh.is_some()
            || self.hours.is_some();
        if is_ours {
            bail!(
                "--classes three, --battery on, --speed-kmh, --hours: a benchmark of Li and Lim has none of them, leave them out"
            );
        }
        if self.report.is_some() || self.csv.is_some() || self.svg.is_some() || self.json || self.write_orders.is_some()
        {
            bail!(
                "--json, --report, --csv, --svg, --write-orders: not with a benchmark of Li and Lim; --routes FILE writes a solution"
            );
        }
        if !self.no_fly.no_fly_zones.is_empty() {
            bail!("--no-fly-zones (NO_FLY_ZONES): a benchmark of Li and Lim has none, leave them out");
        }
        if self.routes.is_some() && (self.policy.len() != 1 || self.policy[0] == Which::All) {
            bail!("--routes: needs --policy with a single policy, greedy, matching, optimal, unmoved or insertion");
        }
        Ok(())
    }
}

fn classes(text: &str) -> Result<Classes, String> {
    match text {
        "one" => Ok(Classes::One),
        "three" => Ok(Classes::Three),
        _ => Err("one or three is expected".to_owned()),
    }
}

fn battery(text: &str) -> Result<Battery, String> {
    match text {
        "off" => Ok(Battery::Off),
        "on" => Ok(Battery::On),
        _ => Err("on or off is expected".to_owned()),
    }
}

/// A finite number above 0, at most `max`.
fn up_to(text: &str, max: f64) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(n) if n > 0.0 && n <= max => Ok(n),
        _ => Err(format!("a number above 0, at most {max}, is expected")),
    }
}

fn size(text: &str) -> Result<f64, String> {
    up_to(text, SIZE_MAX)
}

/// What an order costs that nobody takes: no swap saves as much.
const GAIN_MAX_MIN: f64 = 10_000.0;

fn gain(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(minutes) if (0.0..=GAIN_MAX_MIN).contains(&minutes) => Ok(minutes),
        _ => Err(format!("a number from 0 to {GAIN_MAX_MIN} is expected")),
    }
}

fn hours(text: &str) -> Result<f64, String> {
    up_to(text, HOURS_MAX)
}

fn utilisation(text: &str) -> Result<f64, String> {
    up_to(text, UTILISATION_MAX)
}

fn count(text: &str, max: usize) -> Option<usize> {
    text.trim().parse().ok().filter(|n| (1..=max).contains(n))
}

fn drones(text: &str) -> Result<usize, String> {
    count(text, DRONES_MAX).ok_or_else(|| format!("a whole number from 1 to {DRONES_MAX} is expected"))
}

fn orders(text: &str) -> Result<Orders, String> {
    let is_number = text.trim().parse::<f64>().is_ok();
    match text {
        "poisson" => Ok(Orders::Random(Arrivals::Poisson, ORDERS)),
        "bursty" => Ok(Orders::Random(Arrivals::Bursty, ORDERS)),
        "burst" => Ok(Orders::Random(Arrivals::Burst, ORDERS)),
        _ if is_number => count(text, ORDERS_MAX)
            .map(|count| Orders::Random(Arrivals::Poisson, count))
            .ok_or_else(|| format!("a whole number from 1 to {ORDERS_MAX} is expected")),
        _ if std::fs::metadata(text).is_ok_and(|file| !file.is_dir()) => Ok(Orders::File(PathBuf::from(text))),
        _ => Err(format!(
            "poisson, bursty, burst, a whole number from 1 to {ORDERS_MAX}, or a file that is there is expected"
        )),
    }
}
