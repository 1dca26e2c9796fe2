//! What was measured: figures of each window, medians over the rounds, ratios to etcd with their spread; as a table and as JSON.
//!
//! The figure of a series is its median over the rounds. A ratio is taken within a round, between windows that lie seconds apart, so that
//! what slows the machine for a while slows both; its spread over the rounds says how much it can be trusted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::runner::CpuSec;
use crate::work::{Access, Work};
use crate::worker::{Failures, Tally, no_latencies};

/// A system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Three kvstores and one kvfront.
    Ours,
    /// Three etcds.
    Etcd,
    /// One Redis, without replication.
    Redis,
}

impl Target {
    /// Its name in settings and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Etcd => "etcd",
            Self::Redis => "redis",
        }
    }
}

/// One kind of work under one load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scenario {
    /// Loaded keys.
    pub keys: u64,
    /// Which of them are asked for.
    pub access: Access,
    /// Clients, each with one connection.
    pub clients: usize,
    /// Operations a second that become due; nothing where the loop is closed.
    pub rate: Option<f64>,
    /// What they do.
    pub work: Work,
}

/// Failures of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// What the first said.
    pub first: String,
}

/// The figures of one window.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Length of the window.
    pub seconds: f64,
    /// Successes that ended within it.
    pub ops: u64,
    /// The same, a second.
    pub ops_per_sec: f64,
    /// Median latency, milliseconds; like the others not a number when nothing succeeded.
    pub p50_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
    /// 99.9th percentile, milliseconds.
    pub p999_ms: f64,
    /// The longest, milliseconds.
    pub max_ms: f64,
    /// User and system time of all server processes; nothing where they are not known.
    pub server_cpu_sec: Option<f64>,
    /// The same per 1,000 successes.
    pub server_cpu_sec_per_1000_ops: Option<f64>,
    /// User and system time of the load generator.
    pub client_cpu_sec: Option<f64>,
    /// Failures by kind.
    pub errors: BTreeMap<String, Errors>,
    /// Swaps of the hot key that somebody else was faster than.
    pub lost_swaps: u64,
    /// Open loop: operations that were due and never begun; their age at the end counts as their latency.
    pub not_begun: u64,
    /// Successes of the slowest client relative to the fastest.
    pub slowest_to_fastest: f64,
}

impl Round {
    /// Sums up what the clients counted.
    pub(crate) fn of(tallies: &[Tally], length: Duration, not_begun: u64, (servers, client): CpuSec) -> Self {
        let mut latencies = no_latencies();
        let mut failures: BTreeMap<&str, Failures> = BTreeMap::new();
        for tally in tallies {
            latencies += &tally.latencies;
            for (kind, more) in &tally.failures {
                let sum = failures.entry(kind).or_insert_with(|| Failures {
                    count: 0,
                    first: more.first.clone(),
                });
                sum.count += more.count;
            }
        }
        let done = tallies.iter().map(|tally| tally.done);
        let ops: u64 = done.clone().sum();
        let (slowest, fastest) = (done.clone().min().unwrap_or(0), done.max().unwrap_or(0));
        let ms = |micros: u64| match latencies.is_empty() {
            true => f64::NAN, // null in JSON; no figure to the medians
            false => micros as f64 / 1_000.0,
        };
        Self {
            seconds: length.as_secs_f64(),
            ops,
            ops_per_sec: ops as f64 / length.as_secs_f64(),
            p50_ms: ms(latencies.value_at_quantile(0.5)),
            p99_ms: ms(latencies.value_at_quantile(0.99)),
            p999_ms: ms(latencies.value_at_quantile(0.999)),
            max_ms: ms(latencies.max()),
            server_cpu_sec: servers,
            server_cpu_sec_per_1000_ops: servers.filter(|_| ops > 0).map(|cpu| cpu * 1_000.0 / ops as f64),
            client_cpu_sec: client,
            errors: failures
                .into_iter()
                .map(|(kind, Failures { count, first })| (kind.to_owned(), Errors { count, first }))
                .collect(),
            lost_swaps: tallies.iter().map(|tally| tally.lost).sum(),
            not_begun,
            slowest_to_fastest: slowest as f64 / fastest.max(1) as f64,
        }
    }

    /// A window that could not be measured at all.
    pub(crate) fn failed(length: Duration, why: String) -> Self {
        let mut round = Self::of(&[], length, 0, (None, None));
        round.fail("not measured", why);
        round
    }

    /// Adds a failure.
    pub(crate) fn fail(&mut self, kind: &str, text: String) {
        let errors = self
            .errors
            .entry(kind.to_owned())
            .or_insert(Errors { count: 0, first: text });
        errors.count += 1;
    }

    /// Failures of all kinds.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }
}

/// The middle and the ends of some figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The median; of an even number of figures, the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these figures, if there are any; what is not finite (a ratio to nothing) does not count.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<_> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self {
            median: f64::midpoint(low, high),
            min: first,
            max: last,
        })
    }
}

/// One system's rounds in one scenario.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// What was done.
    #[serde(flatten)]
    pub scenario: Scenario,
    /// By whom.
    pub target: Target,
    /// Operations a second.
    pub ops_per_sec: Option<Spread>,
    /// Median latency, milliseconds.
    pub p50_ms: Option<Spread>,
    /// 99th percentile, milliseconds.
    pub p99_ms: Option<Spread>,
    /// Server CPU seconds per 1,000 operations.
    pub server_cpu_sec_per_1000_ops: Option<Spread>,
    /// Operations a second relative to etcd's in the same round.
    pub ops_to_etcd: Option<Spread>,
    /// 99th percentile relative to etcd's in the same round; below 1 is better.
    pub p99_to_etcd: Option<Spread>,
    /// Server CPU per operation relative to etcd's in the same round; below 1 is better.
    pub cpu_to_etcd: Option<Spread>,
    /// The figures of each round.
    pub rounds: Vec<Round>,
}

impl Series {
    /// Sums up rounds; `etcd` are those of etcd in the same scenario.
    #[must_use]
    pub fn new(scenario: Scenario, target: Target, rounds: Vec<Round>, etcd: Option<&[Round]>) -> Self {
        let over = |figure: fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(figure));
        let to_etcd = |figure: fn(&Round) -> Option<f64>| {
            let pairs = rounds.iter().zip(etcd?);
            Spread::of(pairs.filter_map(|(round, etcd)| Some(figure(round)? / figure(etcd)?)))
        };
        let ops = |round: &Round| Some(round.ops_per_sec);
        let p99 = |round: &Round| Some(round.p99_ms);
        let cpu = |round: &Round| round.server_cpu_sec_per_1000_ops;
        Self {
            scenario,
            target,
            ops_per_sec: over(ops),
            p50_ms: over(|round| Some(round.p50_ms)),
            p99_ms: over(p99),
            server_cpu_sec_per_1000_ops: over(cpu),
            ops_to_etcd: to_etcd(ops),
            p99_to_etcd: to_etcd(p99),
            cpu_to_etcd: to_etcd(cpu),
            rounds,
        }
    }
}

/// Under what the figures came about.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Circumstances {
    /// What the caller says about it.
    pub label: String,
    /// Logical CPUs, which servers and load generator share.
    pub cpus: usize,
    /// The kernel.
    pub kernel: String,
    /// Median time of writing 256 bytes to a file beside the servers' data and syncing it, microseconds.
    pub fsync_us: Option<f64>,
    /// Versions of the programs.
    pub versions: BTreeMap<&'static str, String>,
    /// Length of one window, seconds.
    pub window_sec: f64,
    /// Warm-up before each window, seconds.
    pub warm_up_sec: f64,
    /// Whether clients of etcd use its leader only.
    pub etcd_leader_only: bool,
}

/// Everything that was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Under what.
    pub circumstances: Circumstances,
    /// Scenario by scenario, in the order of the settings; the systems of a scenario follow one another.
    pub series: Vec<Series>,
}

/// A series' load: what the lines of one table have in common.
type Load = (u64, Access, usize, Option<f64>);

impl Report {
    /// The series by their load.
    pub(crate) fn by_load(&self) -> Vec<(Load, Vec<&Series>)> {
        let mut groups: Vec<(Load, Vec<&Series>)> = Vec::new();
        for series in &self.series {
            let Scenario {
                keys,
                access,
                clients,
                rate,
                ..
            } = series.scenario;
            let load = (keys, access, clients, rate);
            match groups.last_mut() {
                Some((last, group)) if *last == load => group.push(series),
                _ => groups.push((load, vec![series])),
            }
        }
        groups
    }

    /// The report for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = self.heading();
        for (load, group) in self.by_load() {
            let closed = load.3.is_none();
            let _ = write!(
                text,
                "\n{}\n{:<11} {:<6} {:>9} {:>9} {:>9} {:>9} {:>8}  {}\n",
                describe(load),
                "work",
                "system",
                "ops/s",
                "p50 ms",
                "p99 ms",
                "CPU s/1k",
                "errors",
                if closed { "ops/s to etcd" } else { "p99 to etcd" }
            );
            group.iter().for_each(|series| text.push_str(&line(series, closed)));
        }
        text.push_str(&self.errors());
        text
    }

    fn heading(&self) -> String {
        let Circumstances {
            label,
            cpus,
            kernel,
            fsync_us,
            versions,
            window_sec,
            warm_up_sec,
            ..
        } = &self.circumstances;
        let rounds = self.series.iter().map(|series| series.rounds.len()).max().unwrap_or(0);
        let fsync = fsync_us.map_or_else(String::new, |us| format!(", fsync {us:.0} µs"));
        let versions: Vec<_> = versions
            .iter()
            .map(|(name, version)| format!("{name}: {version}"))
            .collect();
        let label = if label.is_empty() {
            String::new()
        } else {
            format!("{label}; ")
        };
        format!(
            "{label}{cpus} CPUs, Linux {kernel}{fsync}; {}\nmedians of {rounds} rounds of {window_sec} s after {warm_up_sec} s of warm-up; values of 256 bytes\n",
            versions.join("; ")
        )
    }

    /// What went wrong, with the words of the first of each kind.
    fn errors(&self) -> String {
        let mut text = String::new();
        for series in &self.series {
            for (round, figures) in series.rounds.iter().enumerate() {
                for (kind, Errors { count, first }) in &figures.errors {
                    let Scenario {
                        work, clients, keys, ..
                    } = series.scenario;
                    let target = series.target.name();
                    let _ = writeln!(
                        text,
                        "{work}, {target}, {clients} clients, {keys} keys, round {}: {count} × {kind}; the first: {first}",
                        round + 1
                    );
                }
            }
        }
        if text.is_empty() {
            text
        } else {
            format!("\nerrors\n{text}")
        }
    }
}

/// The load of a table's lines.
pub(crate) fn describe((keys, access, clients, rate): Load) -> String {
    let clients = if clients == 1 {
        "1 client".to_owned()
    } else {
        format!("{clients} clients")
    };
    let pace = rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("{rate} due a second"));
    let access = match access {
        Access::Even => String::new(),
        other => format!(" ({})", other.name()),
    };
    format!("{clients}, {keys} keys{access}, {pace}")
}

fn line(series: &Series, closed: bool) -> String {
    let median = |spread: Option<Spread>, digits: usize| {
        spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.digits$}", spread.median))
    };
    let ratio = if closed { series.ops_to_etcd } else { series.p99_to_etcd };
    let errors: u64 = series.rounds.iter().map(Round::failures).sum();
    let text = format!(
        "{:<11} {:<6} {:>9} {:>9} {:>9} {:>9} {:>8}  {:<19}{}",
        series.scenario.work,
        series.target.name(),
        median(series.ops_per_sec, 0),
        median(series.p50_ms, 2),
        median(series.p99_ms, 2),
        median(series.server_cpu_sec_per_1000_ops, 3),
        errors,
        ratio.map_or_else(
            || "–".to_owned(),
            |Spread { median, min, max }| { format!("{median:.2} ({min:.2}–{max:.2})") }
        ),
        note(series)
    );
    format!("{}\n", text.trim_end())
}

/// What only some lines have.
fn note(series: &Series) -> String {
    let mut notes = Vec::new();
    if series.scenario.work == Work::CasHot {
        let lost = Spread::of(
            series
                .rounds
                .iter()
                .map(|round| round.lost_swaps as f64 * 100.0 / (round.lost_swaps + round.ops) as f64),
        );
        let share = Spread::of(series.rounds.iter().map(|round| round.slowest_to_fastest));
        if let (Some(lost), Some(share)) = (lost, share) {
            notes.push(format!(
                "{:.0} % of swaps lost, slowest/fastest client {:.2}",
                lost.median, share.median
            ));
        }
    }
    let not_begun: u64 = series.rounds.iter().map(|round| round.not_begun).sum();
    if not_begun > 0 {
        notes.push(format!("{not_begun} never begun"));
    }
    notes.join("; ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A round with these figures and nothing else.
    pub(crate) fn round(ops: u64, cpu: Option<f64>) -> Round {
        let mut tally = Tally::empty();
        tally.done = ops;
        for micros in 1..=100 {
            crate::worker::record(&mut tally.latencies, Duration::from_micros(micros * 1_000));
        }
        Round::of(&[tally], Duration::from_secs(2), 0, (cpu, None))
    }

    pub(crate) fn scenario(work: Work) -> Scenario {
        Scenario {
            keys: 1_000,
            access: Access::Even,
            clients: 32,
            rate: None,
            work,
        }
    }

    /// Two systems, one kind of work.
    pub(crate) fn report() -> Report {
        let etcd = vec![
            round(1_000, Some(2.0)),
            round(2_000, Some(2.0)),
            round(1_000, Some(2.0)),
        ];
        let ours = vec![
            round(3_000, Some(3.0)),
            round(4_000, Some(4.0)),
            round(4_000, Some(2.0)),
        ];
        let scenario = scenario(Work::Put);
        Report {
            circumstances: Circumstances::default(),
            series: vec![
                Series::new(scenario, Target::Ours, ours, Some(&etcd)),
                Series::new(scenario, Target::Etcd, etcd.clone(), Some(&etcd)),
            ],
        }
    }

    #[test]
    fn a_round_sums_up_its_clients() {
        let mut slow = Tally::empty();
        slow.done = 1;
        let mut fast = Tally::empty();
        fast.done = 4;
        fast.failures.insert(
            "refused",
            Failures {
                count: 2,
                first: "no".to_owned(),
            },
        );
        let mut round = Round::of(&[slow, fast], Duration::from_secs(2), 3, (Some(0.5), None));
        assert_eq!((round.ops, round.not_begun, round.failures()), (5, 3, 2));
        assert!((round.ops_per_sec - 2.5).abs() < 1e-9 && (round.slowest_to_fastest - 0.25).abs() < 1e-9);
        assert!((round.server_cpu_sec_per_1000_ops.unwrap() - 100.0).abs() < 1e-9);
        round.fail("wrong count", "1 is missing".to_owned());
        assert_eq!(round.failures(), 3);
    }

    #[test]
    fn what_could_not_be_measured_has_no_latency() {
        let failed = Round::failed(Duration::from_secs(2), "no connection".to_owned());
        assert_eq!((failed.ops, failed.failures()), (0, 1));
        let rounds = vec![failed, round(10, None)];
        let series = Series::new(scenario(Work::Get), Target::Ours, rounds, None);
        assert!((series.p99_ms.unwrap().median - 99.0).abs() < 0.1);
        assert!(serde_json::to_value(&series).unwrap()["rounds"][0]["p99_ms"].is_null());
    }

    #[test]
    fn percentiles_are_in_milliseconds() {
        let round = round(1, None);
        assert!((round.p50_ms - 50.0).abs() < 0.1, "{}", round.p50_ms);
        assert!((round.p99_ms - 99.0).abs() < 0.1, "{}", round.p99_ms);
    }

    #[test]
    fn a_spread_has_a_median_and_ends() {
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0, f64::INFINITY]), spread(2.5, 1.0, 4.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let report = report();
        // 3,000 to 1,000; 4,000 to 2,000; 4,000 to 1,000
        let expected = Spread {
            median: 3.0,
            min: 2.0,
            max: 4.0,
        };
        assert_eq!(report.series[0].ops_to_etcd, Some(expected));
        // 1 to 2, 1 to 1 and 0.5 to 2 seconds per 1,000
        assert_eq!(
            report.series[0].cpu_to_etcd,
            Some(Spread {
                median: 0.5,
                min: 0.25,
                max: 1.0
            })
        );
    }

    #[test]
    fn the_table_shows_figures_ratios_and_errors() {
        let mut report = report();
        report.series[0].rounds[1].fail("refused", "503 busy".to_owned());
        let table = report.table();
        for part in [
            "32 clients, 1000 keys, closed loop",
            "3.00 (2.00–4.00)",
            "1.00 (1.00–1.00)",
            "1 × refused; the first: 503 busy",
        ] {
            assert!(table.contains(part), "{part} is missing in\n{table}");
        }
        assert_eq!(table.lines().filter(|line| line.starts_with("put ")).count(), 2);
    }

    #[test]
    fn json_names_what_was_done() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["series"][0]["work"], "put");
        assert_eq!(json["series"][1]["target"], "etcd");
        assert_eq!(json["series"][0]["rounds"].as_array().unwrap().len(), 3);
    }
}
