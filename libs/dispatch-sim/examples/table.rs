//! Policies side by side: `cargo run --release -p dispatch-sim --example table`.
//!
//! The reference world (20 km, 60 km/h, 12,000 orders), five seeds per line. Times in minutes from placing to delivery; `±` is half the spread
//! between the best and the worst seed; `ratio` is to the lower bound. Arguments, if any: orders, seeds, then names of policies.

#![expect(clippy::print_stdout, reason = "the result of a measurement")]

use dispatch_sim::{AllFit, Bounds, Demand, Greedy, Matching, Optimal, Policy, Reference, Report, world};

const CASES: [(usize, f64); 5] = [(18, 0.5), (18, 0.7), (18, 0.95), (100, 0.7), (100, 0.85)];

/// Demand is told as a lattice of so many points a side.
const LATTICE: u32 = 20;

/// The report, and the bound.
fn play(policy: &dyn Policy, reference: &Reference) -> Result<(Report, f64), world::Failure> {
    let (orders, starts) = reference.draw();
    let demand = Demand::uniform(reference.square_km, LATTICE, reference.orders_per_min());
    let settings = world::Settings {
        km_per_min: reference.km_per_min(),
        decision_every_min: 0.0,
        pairs: &AllFit,
        demand: &demand,
    };
    let (report, _) = world::run(policy, &orders, &starts, &settings)?;
    Ok((
        report,
        Bounds::new(&orders, starts.len(), settings.km_per_min).best_min(),
    ))
}

#[expect(clippy::cast_precision_loss, reason = "a few seeds")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let orders = arguments.next().map_or(Ok(12_000), |text| text.parse::<usize>())?;
    let seeds = arguments.next().map_or(Ok(5), |text| text.parse::<u64>())?;
    let names: Vec<String> = arguments.collect();
    let (matching, optimal) = (Matching::default(), Optimal::default());
    let policies: [(&str, &dyn Policy); 3] = [("greedy", &Greedy), ("matching", &matching), ("optimal", &optimal)];
    println!("| drones | utilisation | policy | mean | p50 | p95 | max | pick-up | bound | ratio | backlog |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (drones, utilisation) in CASES {
        for (name, policy) in policies {
            if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
                continue;
            }
            let runs = (1..=seeds)
                .map(|seed| {
                    let reference = Reference {
                        orders,
                        ..Reference::new(drones, utilisation, seed)
                    };
                    play(policy, &reference)
                })
                .collect::<Result<Vec<_>, _>>()?;
            let of = |pick: fn(&Report) -> f64| runs.iter().map(|(report, _)| pick(report)).collect::<Vec<f64>>();
            let means = of(|report| report.to_deliver.mean);
            let bound = mean(&runs.iter().map(|(_, bound)| *bound).collect::<Vec<_>>());
            let (least, most) = (means.iter().copied()).fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
                (least.min(value), most.max(value))
            });
            let unstable = runs.iter().filter(|(report, _)| !report.is_stable).count();
            println!(
                "| {drones} | {utilisation} | {name} | {:.2} ± {:.2} | {:.1} | {:.1} | {:.0} | {:.2} | {bound:.2} | {:.3} | {} |",
                mean(&means),
                (most - least) / 2.0,
                mean(&of(|report| report.to_deliver.p50)),
                mean(&of(|report| report.to_deliver.p95)),
                of(|report| report.to_deliver.max).into_iter().fold(0.0, f64::max),
                mean(&of(|report| report.to_pickup.mean)),
                mean(&means) / bound,
                if unstable == 0 {
                    "steady".to_owned()
                } else {
                    format!("grows in {unstable} of {seeds}")
                },
            );
        }
    }
    Ok(())
}
