//! The settings of `dronedispatch simulate`.

use clap::{Args as ClapArgs, ValueEnum};
use dispatch_sim::Reference;

/// Most drones.
const DRONES_MAX: usize = 10_000;

/// Most orders.
const ORDERS_MAX: usize = 1_000_000;

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
    /// All of them, on the same orders
    All,
}

/// Weight classes of drones and parcels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classes {
    /// Any drone carries any parcel.
    One,
}

/// What is true of batteries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Battery {
    /// They never run down.
    Off,
}

/// Compare dispatch policies in a reference world, under a virtual clock
///
/// The world: a square, all drones equally fast, orders at random (Poisson) between uniformly distributed points. The same settings and seed
/// give the same orders, and the same figures, on every machine.
#[derive(Debug, Clone, PartialEq, ClapArgs)]
pub struct Args {
    /// Side of the square, km
    #[arg(long, default_value = "20", value_parser = size, value_name = "KM")]
    pub square_km: f64,

    /// Speed of all drones, km/h
    #[arg(long, default_value = "60", value_parser = size, value_name = "KMH")]
    pub speed_kmh: f64,

    /// Weight classes: one (any drone carries any parcel)
    #[arg(long, default_value = "one", value_parser = classes, value_name = "CLASSES")]
    pub classes: Classes,

    /// Batteries: off (they never run down)
    #[arg(long, default_value = "off", value_parser = battery, value_name = "off")]
    pub battery: Battery,

    /// Arrival rate × mean direct flight × 1.25 ÷ drones: about 1 is what the fleet can just carry; above 0, at most 10
    #[arg(long, default_value = "0.7", value_parser = utilisation, value_name = "SHARE")]
    pub utilisation: f64,

    /// Drones, 1 to 10000
    #[arg(long, default_value = "18", value_parser = drones, value_name = "N")]
    pub drones: usize,

    /// Orders, 1 to 1000000
    #[arg(long, default_value = "12000", value_parser = orders, value_name = "N")]
    pub orders: usize,

    /// Decides orders and where drones are in the beginning, 0 to 2^64 - 1
    #[arg(long, default_value = "1", value_name = "SEED")]
    pub seed: u64,

    /// Which policy, or all side by side
    #[arg(long, default_value = "all", value_enum)]
    pub policy: Which,

    /// Print one JSON object per policy and line, instead of a table
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// The world that is asked for.
    #[must_use]
    pub fn reference(&self) -> Reference {
        Reference {
            square_km: self.square_km,
            speed_kmh: self.speed_kmh,
            drones: self.drones,
            utilisation: self.utilisation,
            orders: self.orders,
            seed: self.seed,
        }
    }
}

fn classes(text: &str) -> Result<Classes, String> {
    match text {
        "one" => Ok(Classes::One),
        _ => Err("one is expected; worlds with several weight classes cannot be simulated yet".to_owned()),
    }
}

fn battery(text: &str) -> Result<Battery, String> {
    match text {
        "off" => Ok(Battery::Off),
        _ => Err("off is expected; worlds with batteries and chargers cannot be simulated yet".to_owned()),
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

fn utilisation(text: &str) -> Result<f64, String> {
    up_to(text, UTILISATION_MAX)
}

fn count(text: &str, max: usize) -> Option<usize> {
    text.trim().parse().ok().filter(|n| (1..=max).contains(n))
}

fn drones(text: &str) -> Result<usize, String> {
    count(text, DRONES_MAX).ok_or_else(|| format!("a whole number from 1 to {DRONES_MAX} is expected"))
}

fn orders(text: &str) -> Result<usize, String> {
    count(text, ORDERS_MAX).ok_or_else(|| {
        format!(
            "a whole number from 1 to {ORDERS_MAX} is expected: so many orders, at random; orders from files and other \
             patterns cannot be simulated yet"
        )
    })
}
