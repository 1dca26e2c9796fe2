//! The command from its settings to its output.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Parser;
use dispatch_sim::pdptw::{Instance, Solution};
use dispatch_sim::{Arrivals, Bounds, world};

use super::report::about;

use super::{
    Args, Orders, Run, Scenario, Summary, Which, benchmark, files, input, output, policies, summaries, svg, table,
};

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

fn args(flags: &str) -> Args {
    parse(&flags.split_whitespace().collect::<Vec<_>>()).unwrap()
}

fn run(args: &Args) -> Vec<Run> {
    super::run(args, None, &policies(args), |_| {}).unwrap()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn the_reference_world_can_be_asked_for() {
    let flags = "--square-km 10 --speed-kmh 30 --classes one --battery off --utilisation 0.5 --drones 5 --orders 300 --seed 7 --policy all --json";
    let args = args(flags);
    let world = args.reference(args.seed);
    assert!((world.square_km - 10.0).abs() < 1e-12 && (world.speed_kmh - 30.0).abs() < 1e-12);
    assert_eq!((world.drones, world.orders, world.seed, args.json), (5, 300, 7, true));
    assert_eq!((world.arrivals, args.policy), (Arrivals::Poisson, vec![Which::All]));
    assert!(world.until_min.is_infinite());
}

#[test]
fn orders_come_as_they_are_asked_for() {
    let asked = |flags: &str| {
        let world = args(flags).reference(1);
        (world.arrivals, world.orders, world.until_min)
    };
    assert_eq!(asked(""), (Arrivals::Poisson, 12_000, f64::INFINITY));
    assert_eq!(asked("--orders bursty"), (Arrivals::Bursty, 12_000, f64::INFINITY));
    assert_eq!(asked("--orders burst --hours 2"), (Arrivals::Burst, 1_000_000, 120.0));
    assert_eq!(asked("--orders 50 --hours 2"), (Arrivals::Poisson, 50, 120.0));
    assert_eq!(
        args("--policy greedy,optimal,greedy").policy,
        [Which::Greedy, Which::Optimal, Which::Greedy]
    );
    let names = |which: &[Which]| {
        let args = Args {
            policy: which.to_vec(),
            ..args("")
        };
        policies(&args).iter().map(|(name, _)| *name).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&[Which::Optimal, Which::All, Which::Unmoved]),
        ["optimal", "greedy", "matching", "unmoved"]
    );
    let path = file("x");
    let orders = parse(&["--orders", path.path().to_str().unwrap()]).unwrap().orders;
    assert_eq!(orders, Orders::File(path.path().to_owned()));
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    for (flag, value, expected) in [
        ("--classes", "four", "one or three is expected"),
        ("--battery", "low", "on or off is expected"),
        ("--square-km", "0", "above 0"),
        ("--speed-kmh", "NaN", "above 0"),
        ("--utilisation", "11", "at most 10"),
        ("--drones", "0", "from 1 to 10000"),
        ("--orders", "poison", "from 1 to 1000000"),
        ("--orders", "0", "from 1 to 1000000"),
        ("--orders", "1000001", "from 1 to 1000000"),
        ("--hours", "9000", "at most 8760"),
        ("--seed", "x", "invalid digit"),
        ("--seeds", "0", "1..=1000"),
        ("--policy", "best", "greedy"),
        ("--charger-slots", "0", "from 1 to 10000"),
    ] {
        let error = parse(&[flag, value]).unwrap_err();
        assert!(
            error.contains(flag) && error.contains(value) && error.contains(expected),
            "{error}"
        );
    }
    for (flags, is_benchmark, named) in [
        ("--routes x", false, "--routes"),
        ("--policy insertion", false, "--policy insertion"),
        ("--classes three --drones 2", false, "--classes three"),
        ("--battery on", true, "--battery on"),
        ("--csv x", true, "--csv"),
        ("--routes x", true, "--policy with a single policy"),
    ] {
        let error = args(flags).validate(is_benchmark).unwrap_err().to_string();
        assert!(error.contains(named), "{flags}: {error}");
    }
}

#[test]
fn json_has_exactly_the_promised_fields_and_sane_figures() {
    let args = args("--orders 400 --utilisation 0.5");
    let mut told = Vec::new();
    let runs = super::run(&args, None, &policies(&args), |delivered| told.push(delivered)).unwrap();
    let summaries = summaries(&runs);
    let outcomes: Vec<_> = summaries.iter().map(|summary| summary.outcome).collect();
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
    let scenario = Scenario::new(&args, None, 1).unwrap();
    let text = table(&about(&args, &scenario), &summaries);
    assert!(names.iter().all(|name| text.contains(name)), "{text}");
    // The same seed, the same figures.
    assert_eq!(runs, run(&args));
}

#[test]
fn seeds_are_summed_up() {
    let args = args("--orders 200 --seeds 3 --seed 5 --policy optimal,unmoved --drones 6");
    let runs = run(&args);
    let seen: Vec<_> = runs.iter().map(|run| (run.policy, run.seed)).collect();
    let expected = [
        ("optimal", 5),
        ("optimal", 6),
        ("optimal", 7),
        ("unmoved", 5),
        ("unmoved", 6),
        ("unmoved", 7),
    ];
    assert_eq!(seen, expected);
    let summaries = summaries(&runs);
    let means: Vec<f64> = runs[..3].iter().map(|run| run.report.to_deliver.mean).collect();
    let optimal = &summaries[0];
    assert!((optimal.outcome.mean_delivery_min - means.iter().sum::<f64>() / 3.0).abs() < 1e-9);
    let (least, most) = (
        means.iter().copied().fold(f64::MAX, f64::min),
        means.iter().copied().fold(0.0, f64::max),
    );
    assert!((optimal.spread_min - (most - least) / 2.0).abs() < 1e-9 && most > least);
    let longest = runs[..3]
        .iter()
        .map(|run| run.report.to_deliver.max)
        .fold(0.0, f64::max);
    assert!((optimal.outcome.max_delivery_min - longest).abs() < 1e-12);
    // Anticipation flies for it, and the other does not.
    assert!(optimal.moves_km_per_order > 0.0 && summaries[1].moves_km_per_order <= 0.0);
    assert!(optimal.to_pickup_min.mean < summaries[1].to_pickup_min.mean);
}

fn batteries() -> (String, Vec<Summary>) {
    let args = args(
        "--orders 300 --classes three --battery on --charger-slots 1 --charge-per-min 5 --utilisation 0.6 --policy greedy,optimal",
    );
    let scenario = Scenario::new(&args, None, 1).unwrap();
    (about(&args, &scenario), summaries(&run(&args)))
}

#[test]
fn batteries_and_classes_are_played_and_told() {
    let (about, summaries) = batteries();
    assert!(
        about.contains("three classes, batteries, chargers of 1 slots, seed 1"),
        "{about}"
    );
    for summary in &summaries {
        assert!(
            summary.charging_stays > 30.0 && summary.charging_queued > 0.0,
            "{summary:?}"
        );
        assert!(summary.least_battery_pct >= 5.0 - 1e-6 && summary.charging_wait_min.max > 0.0);
        assert!(summary.gap_pct > 0.0);
    }
    assert!(summaries[1].to_deliver_min.mean < summaries[0].to_deliver_min.mean);
    let text = table(&about, &summaries);
    assert!(
        text.contains("waited for a charger") && text.contains("least battery"),
        "{text}"
    );
}

#[test]
fn everything_is_written_as_json_csv_and_svg() {
    let (about, summaries) = batteries();
    let json: serde_json::Value = serde_json::from_str(&files::json(&about, &summaries).unwrap()).unwrap();
    let optimal = &json["policies"][1];
    assert_eq!(optimal["policy"], "optimal");
    for field in ["to_assign_min", "to_pickup_min", "to_deliver_min", "charging_wait_min"] {
        for part in ["mean", "p50", "p95", "max"] {
            assert!(optimal[field][part].is_f64(), "{field}.{part}: {optimal}");
        }
    }
    assert!(optimal["gap_pct"].is_f64() && optimal["empty_km_per_order"].is_f64());
    let csv = files::csv(&summaries);
    let widths: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(widths.len() == 3 && widths.iter().all(|width| *width == 31), "{csv}");
    assert!(csv.starts_with("policy,seed,") && csv.lines().nth(1).unwrap().starts_with("greedy,1,300,"));
    let svg = svg::draw("a < b & c", &summaries);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("a &lt; b &amp; c"));
    assert_eq!(svg.matches("<polyline").count(), 2);
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn a_file_of_orders_is_played_and_its_faults_are_named() {
    let mut text = "time,origin_lat,origin_lon,destination_lat,destination_lon,class\n".to_owned();
    for order in 0..40_u32 {
        let lat = 41.80 + f64::from(order % 7) / 50.0;
        text += &format!(
            "{},{lat},12.4,41.9,12.5,{}\n",
            order * 60,
            if order % 2 == 0 { "light" } else { "heavy" }
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let (orders, report) = (file(&text), folder.path().join("report.json"));
    let mut args = parse(&[
        "--orders",
        orders.path().to_str().unwrap(),
        "--classes",
        "three",
        "--battery",
        "on",
    ])
    .unwrap();
    args.report = Some(report.clone());
    output(&args).unwrap();
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert!(json["world"].as_str().unwrap().contains("40 orders"), "{json}");
    let half = Args {
        hours: Some(1.0 / 3.0),
        ..args.clone()
    };
    let listed = input::read(&text).unwrap();
    assert_eq!(Scenario::new(&half, Some(&listed), 1).unwrap().orders.len(), 21);
    let bad = file(&text.replacen("12.5,heavy", "12.5,huge", 1));
    let told = format!(
        "{:#}",
        output(&Args {
            orders: Orders::File(bad.path().to_owned()),
            ..args.clone()
        })
        .unwrap_err()
    );
    assert!(told.contains("line 3, class: \"huge\""), "{told}");
    let far = file("time,origin_x,origin_y,destination_x,destination_y\n0,0,0,90,0\n");
    let told = format!(
        "{:#}",
        output(&Args {
            orders: Orders::File(far.path().to_owned()),
            ..args
        })
        .unwrap_err()
    );
    assert!(told.contains("--battery on: order 0"), "{told}");
}

/// Written for other solvers, read again, solved, checked.
#[test]
fn benchmarks_of_li_and_lim_go_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let (orders, routes) = (folder.path().join("ours.txt"), folder.path().join("routes.txt"));
    let written = Args {
        write_orders: Some(orders.clone()),
        ..args("--orders 40 --drones 6")
    };
    output(&written).unwrap();
    let instance = Instance::read(&std::fs::read_to_string(&orders).unwrap()).unwrap();
    assert_eq!((instance.vehicles, instance.tasks.len()), (6, 81));
    for policy in ["greedy", "matching", "optimal", "unmoved", "insertion"] {
        let mut args = args(&format!("--policy {policy}"));
        (args.orders, args.routes) = (Orders::File(orders.clone()), Some(routes.clone()));
        output(&args).unwrap();
        let solution = Solution::read(&std::fs::read_to_string(&routes).unwrap()).unwrap();
        let (cost, faults) = instance.check(&solution);
        assert!(faults.is_empty() && cost.vehicles <= 6, "{policy}: {faults:?}");
        (args.check, args.routes) = (Some(routes.clone()), None);
        let text = benchmark::main(&args, &instance, &PathBuf::from("ours.txt")).unwrap();
        assert!(
            text.contains("allowed: capacity") && text.contains(&format!("{:.2}", cost.distance)),
            "{text}"
        );
        std::fs::write(&routes, "Route 1 : 2 1\n").unwrap();
        let error = benchmark::main(&args, &instance, &PathBuf::from("ours.txt"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("not allowed") && error.contains("task 2 is delivered there before"),
            "{error}"
        );
    }
    let text = {
        let mut args = args("--policy all,insertion");
        args.orders = Orders::File(orders);
        benchmark::main(&args, &instance, &PathBuf::from("ours.txt")).unwrap()
    };
    assert!(
        ["greedy", "matching", "optimal", "insertion"]
            .iter()
            .all(|name| text.contains(name)),
        "{text}"
    );
}

/// A wall through the middle of the area, from its southern edge to nearly its northern one; it keeps off the chargers.
const WALL: &str = "41.79,12.48 41.79,12.49 41.96,12.49 41.96,12.48";

#[test]
fn no_fly_zones_are_flown_round_and_the_bounds_hold() {
    let flags = ["--no-fly-zones", WALL, "--orders", "400", "--utilisation", "0.3"];
    for more in [&[][..], &["--classes", "three", "--battery", "on"]] {
        let args = parse(&[&flags, more].concat()).unwrap();
        let scenario = Scenario::new(&args, None, 1).unwrap();
        assert!(about(&args, &scenario).contains(", 1 no-fly zone, "));
        let settings = scenario.settings();
        let bound_min = Bounds::of_world(&scenario.orders, scenario.starts.len(), &settings).best_min();
        for (name, policy) in policies(&args) {
            let played = world::run(policy.as_ref(), &scenario.orders, &scenario.starts, &settings);
            let (report, trips) = played.unwrap();
            assert!(report.to_deliver.mean >= bound_min, "{name}");
            assert!(
                more.is_empty() || report.charging.least_battery_pct > 4.9,
                "{name}: {:?}",
                report.charging
            );
            let mut longer = 0;
            for (order, trip) in scenario.orders.iter().zip(&trips) {
                let km_per_min = settings.classes.map_or(settings.km_per_min, |classes| {
                    classes.km_per_min[usize::from(classes.drones[trip.drone])]
                });
                let loaded_km = (trip.delivered_min - trip.picked_up_min) * km_per_min;
                let way_km = settings.ways.km(order.origin, order.destination);
                assert!(
                    (loaded_km - way_km).abs() < 1e-6,
                    "{name}: {loaded_km} instead of {way_km} km"
                );
                longer += u32::from(way_km > 1.05 * order.direct_km());
            }
            assert!(longer > 50, "{longer} of 400 orders go round the wall");
        }
    }
}

#[test]
fn no_fly_zones_that_do_not_fit_are_named() {
    let error = |flags: &[&str]| {
        let args = parse(flags).unwrap();
        Scenario::new(&args, None, 1).unwrap_err().to_string()
    };
    let everywhere = "41,12 41,13 43,13 43,12";
    let text = error(&["--no-fly-zones", everywhere]);
    assert!(
        text.contains("--no-fly-zones: of 1000 places none is outside"),
        "{text}"
    );
    let charger = "41.84,12.42 41.84,12.44 41.85,12.44 41.85,12.42";
    assert!(Scenario::new(&parse(&["--no-fly-zones", charger]).unwrap(), None, 1).is_ok());
    let text = error(&["--no-fly-zones", charger, "--battery", "on"]);
    assert!(
        text.contains("--no-fly-zones: no_fly[0] reaches charger 0, at 5.00 km east and 5.00 km north"),
        "{text}"
    );
    let text = parse(&["--no-fly-zones", "41.9"]).unwrap_err();
    assert!(
        text.contains("--no-fly-zones") && text.contains("no_fly[0].vertices[0] is"),
        "{text}"
    );
    let book =
        input::read("time,origin_lat,origin_lon,destination_lat,destination_lon\n0,41.9,12.4,41.9,12.485").unwrap();
    let args = parse(&["--no-fly-zones", WALL]).unwrap();
    let text = Scenario::new(&args, Some(&book), 1).unwrap_err().to_string();
    assert!(
        text.contains("--orders: the destination of order 0, by time from 0, is inside no_fly[0]; expected"),
        "{text}"
    );
    let text = args.validate(true).unwrap_err().to_string();
    assert!(text.contains("--no-fly-zones"), "{text}");
}
