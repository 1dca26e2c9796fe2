//! Runs simulated clusters from seeds.

use std::time::Instant;

use simulator::{Counts, Kind, Limits, Runner, Spec};

#[expect(clippy::print_stdout, reason = "the program's output")]
fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "default".to_owned());
    let seed: u64 = args.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seeds: u64 = args.next().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let Some(kind) = Kind::named(&name) else { return };
    let mut runner = Runner::new();
    let mut counts = Counts::default();
    let started = Instant::now();
    for seed in seed..seed + seeds {
        let spec = Spec {
            kind,
            seed,
            nemeses: None,
            limits: Limits::NONE,
            wrong: None,
        };
        match runner.run(&spec) {
            Ok(more) => counts.add(more),
            Err((failure, _)) => {
                println!("{name} {seed}: {failure}");
                return;
            }
        }
    }
    let took = started.elapsed().as_secs_f64();
    println!(
        "{counts:?} in {took:.2} s: {:.0} operations/s",
        counts.operations as f64 / took
    );
}
