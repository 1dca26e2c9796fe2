//! Dispatch policies side by side on the same orders: `dronedispatch simulate`.
//!
//! The world, the policies and the bounds are those of the crate `dispatch-sim`; here is what a person needs around them.
//!
//! - [`Args`]: the settings.
//! - [`run`]: plays the policies, each on a thread of its own, and tells how far they are.
//! - [`Outcome`]: what a policy came to, as JSON; [`table`]: the same for people.
//! - `progress`: the bar, on standard error, if that is a terminal.

mod args;
mod progress;
mod report;

use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use dispatch_sim::{AllFit, Bounds, Demand, Greedy, Matching, Optimal, Order, Point, Policy, Reference, world};

pub use self::args::{Args, Battery, Classes, Which};
pub use self::report::{Outcome, table};

use self::progress::Bar;

/// Demand is told to policies as a lattice of so many points a side.
const LATTICE: u32 = 20;

/// A thread tells how far it is after so many deliveries.
const TELL_EVERY: usize = 64;

/// How often the bar is drawn while nobody tells anything.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// The command: plays, shows a bar on standard error if that is a terminal, and prints the result on standard output.
///
/// # Errors
/// As [`run`].
pub fn main(args: &Args) -> anyhow::Result<()> {
    let reference = args.reference();
    let policies = policies(args.policy);
    let mut bar = Bar::new(reference.orders * policies.len());
    let outcomes = run(&reference, &policies, |delivered| bar.show(delivered));
    bar.clear();
    let outcomes = outcomes?;
    let mut text = String::new();
    if args.json {
        for outcome in &outcomes {
            text.push_str(&serde_json::to_string(outcome)?);
            text.push('\n');
        }
    } else {
        text = table(&reference, &outcomes);
    }
    // A pipe that nobody reads any more is nobody's loss.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// A policy and what it is called.
pub type Named = (&'static str, Box<dyn Policy + Sync>);

/// The policies that `which` stands for, with their names.
#[must_use]
pub fn policies(which: Which) -> Vec<Named> {
    let greedy = || -> Named { ("greedy", Box::new(Greedy)) };
    let matching = || -> Named { ("matching", Box::new(Matching::default())) };
    let optimal = || -> Named { ("optimal", Box::new(Optimal::default())) };
    match which {
        Which::Greedy => vec![greedy()],
        Which::Matching => vec![matching()],
        Which::Optimal => vec![optimal()],
        Which::All => vec![greedy(), matching(), optimal()],
    }
}

enum News {
    Delivered(usize),
    Done(usize, Result<Outcome, world::Failure>),
}

/// Plays every policy on the same orders. `progress` learns how many deliveries there were so far, over all policies.
///
/// # Errors
/// When a policy planned what cannot be done, or never served an order: a mistake in the policy.
pub fn run(reference: &Reference, policies: &[Named], mut progress: impl FnMut(usize)) -> anyhow::Result<Vec<Outcome>> {
    let (orders, starts) = reference.draw();
    let bound_min = Bounds::new(&orders, starts.len(), reference.km_per_min()).best_min();
    thread::scope(|scope| {
        let (tell, news) = channel();
        for (place, (name, policy)) in policies.iter().enumerate() {
            let (tell, orders, starts) = (tell.clone(), &orders, &starts);
            scope.spawn(move || {
                let outcome = play(reference, name, policy.as_ref(), (orders, starts), bound_min, &tell);
                // Nobody listens only when another policy failed: then the result is of no use.
                let _ = tell.send(News::Done(place, outcome));
            });
        }
        drop(tell);
        collect(&news, policies, &mut progress)
    })
}

fn collect(news: &Receiver<News>, policies: &[Named], progress: &mut dyn FnMut(usize)) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; policies.len()];
    let mut delivered = 0;
    while outcomes.iter().any(Option::is_none) {
        match news.recv_timeout(DRAW_EVERY) {
            Ok(News::Delivered(more)) => delivered += more,
            Ok(News::Done(place, outcome)) => {
                let outcome = outcome.with_context(|| format!("the policy {} failed", policies[place].0))?;
                outcomes[place] = Some(outcome);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("a policy ended without a result"),
        }
        progress(delivered);
    }
    Ok(outcomes.into_iter().flatten().collect())
}

fn play(
    reference: &Reference,
    name: &'static str,
    policy: &dyn Policy,
    (orders, starts): (&[Order], &[Point]),
    bound_min: f64,
    tell: &Sender<News>,
) -> Result<Outcome, world::Failure> {
    let demand = Demand::uniform(reference.square_km, LATTICE, reference.orders_per_min());
    let settings = world::Settings {
        km_per_min: reference.km_per_min(),
        decision_every_min: 0.0,
        pairs: &AllFit,
        demand: &demand,
    };
    let (report, _) = world::run_watched(policy, orders, starts, &settings, |delivered| {
        if delivered % TELL_EVERY == 0 {
            let _ = tell.send(News::Delivered(TELL_EVERY));
        }
    })?;
    Ok(Outcome::new(name, &report, bound_min))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Args, Which, policies, run, table};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, String> {
        let all = std::iter::once("simulate").chain(flags.iter().copied());
        Cli::try_parse_from(all)
            .map(|cli| cli.args)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_reference_world_can_be_asked_for() {
        let flags = "--square-km 10 --speed-kmh 30 --classes one --battery off --utilisation 0.5 --drones 5 --orders 300 --seed 7 --policy all --json";
        let args = parse(&flags.split(' ').collect::<Vec<_>>()).unwrap();
        let world = args.reference();
        assert!((world.square_km - 10.0).abs() < 1e-12 && (world.speed_kmh - 30.0).abs() < 1e-12);
        assert_eq!((world.drones, world.orders, world.seed, args.json), (5, 300, 7, true));
        assert_eq!(args.policy, Which::All);
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for (flag, value, expected) in [
            ("--classes", "three", "one is expected"),
            ("--battery", "on", "off is expected"),
            ("--square-km", "0", "above 0"),
            ("--speed-kmh", "NaN", "above 0"),
            ("--utilisation", "11", "at most 10"),
            ("--drones", "0", "from 1 to 10000"),
            ("--orders", "poisson", "from 1 to 1000000"),
            ("--seed", "x", "invalid digit"),
            ("--policy", "best", "greedy"),
        ] {
            let error = parse(&[flag, value]).unwrap_err();
            assert!(
                error.contains(flag) && error.contains(value) && error.contains(expected),
                "{error}"
            );
        }
    }

    #[test]
    fn json_has_exactly_the_promised_fields_and_sane_figures() {
        let mut args = parse(&[]).unwrap();
        (args.orders, args.utilisation) = (400, 0.5);
        let mut told = Vec::new();
        let outcomes = run(&args.reference(), &policies(args.policy), |delivered| {
            told.push(delivered)
        })
        .unwrap();
        let names: Vec<&str> = outcomes.iter().map(|outcome| outcome.policy).collect();
        assert_eq!(names, ["greedy", "matching", "optimal"]);
        assert!(told.is_sorted() && told.iter().all(|delivered| *delivered <= 3 * 400));
        for outcome in &outcomes {
            let json = serde_json::to_string(outcome).unwrap();
            let keys: Vec<&str> = json
                .split('"')
                .skip(1)
                .step_by(2)
                .filter(|word| *word != outcome.policy)
                .collect();
            assert_eq!(
                keys,
                [
                    "policy",
                    "mean_delivery_min",
                    "p95_delivery_min",
                    "max_delivery_min",
                    "mean_pickup_min",
                    "lower_bound_min",
                    "stable"
                ]
            );
            assert!(outcome.lower_bound_min <= outcome.mean_delivery_min, "{outcome:?}");
            assert!(outcome.mean_pickup_min < outcome.mean_delivery_min, "{outcome:?}");
            assert!(outcome.p95_delivery_min <= outcome.max_delivery_min, "{outcome:?}");
            assert!((outcome.lower_bound_min - outcomes[0].lower_bound_min).abs() < 1e-12);
        }
        let text = table(&args.reference(), &outcomes);
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
        // The same seed, the same figures.
        let again = run(&args.reference(), &policies(args.policy), |_| {}).unwrap();
        assert_eq!(outcomes, again);
    }
}
