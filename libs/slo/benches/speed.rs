//! How fast a log of a million lines is read: `cargo bench -p slo`. Each format, with the built-in objectives.

use std::hint::black_box;
use std::time::Instant;

use slo::{Report, Spec, Tracker};

/// Lines of each log.
const LINES: u32 = 1_000_000;
/// As large as the pieces that `dronedispatch slo` reads.
const PIECE_BYTES: usize = 256 << 10;
/// The best of so many runs is told.
const RUNS: usize = 5;

#[expect(clippy::print_stdout, reason = "a bench tells its result")]
fn main() {
    for (name, window_sec) in [
        ("text", None),
        ("json", None),
        ("json", Some(3_600)),
        ("combined", None),
    ] {
        let log = log(name);
        let best = (0..RUNS)
            .map(|_| {
                let started = Instant::now();
                let mut tracker = Tracker::new(Spec::default(), window_sec);
                log.chunks(PIECE_BYTES).for_each(|piece| tracker.feed(piece, None));
                black_box(Report::new(&tracker, None));
                assert_eq!(tracker.counts().requests, u64::from(LINES));
                started.elapsed()
            })
            .min()
            .unwrap_or_default();
        let window = window_sec.map_or_else(String::new, |sec| format!(", window of {sec} s"));
        println!(
            "{name}{window}: {LINES} lines ({} MB) in {:.3} s",
            log.len() / 1_000_000,
            best.as_secs_f64()
        );
    }
}

fn log(format: &str) -> Vec<u8> {
    let mut log = String::new();
    for n in 0..LINES {
        let (ms, status) = (f64::from(n % 4_000) / 10.0, if n % 500 == 0 { 503 } else { 200 });
        let (id, sec) = (n.wrapping_mul(2_654_435_761), n / 300);
        log.push_str(&match format {
            "text" => format!("lb-1  | [access] GET /deliveries/{id:08x} {status} {ms:.1}ms\n"),
            "json" => format!(
                "lb-1  | {{\"bytes\":417,\"client\":\"192.0.2.1\",\"method\":\"GET\",\"ms\":{ms:.1},\"path\":\"/deliveries/{id:08x}\",\"request_id\":\"{id:032x}\",\
                 \"status\":{status},\"stream\":false,\"time\":{}.25,\"upstream\":\"172.18.0.7:8000\",\"upstream_ms\":{ms:.1}}}\n",
                1_763_704_765 + sec
            ),
            _ => format!(
                "lb-1  | 192.0.2.1 - - [21/Nov/2025:{:02}:{:02}:{:02} +0000] \"GET /deliveries/{id:08x} HTTP/1.1\" {status} 417 \"-\" \"curl/8.11.1\"\n",
                5 + sec / 3_600,
                sec / 60 % 60,
                sec % 60
            ),
        });
    }
    log.into_bytes()
}
