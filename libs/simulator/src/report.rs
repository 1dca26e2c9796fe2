//! What is told of a world that failed: how to see it again, the smallest form of it that was found, and what happened, for people.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use linearizability::{Entry, shrink, timeline};

use crate::run::{Failure, Runner, Spec};
use crate::world::Limits;

/// A failure, explained.
#[derive(Debug)]
pub struct Report {
    /// The whole of it as text.
    pub text: String,
    /// The drawing, when the failure is one of a history.
    pub svg: Option<String>,
}

/// Runs a failing world again, smaller and smaller, and tells of the smallest that still fails.
#[must_use]
pub fn explain(spec: &Spec, failure: &Failure) -> Report {
    let (smallest, failure) = smaller(spec, failure.clone());
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "seed {} of kind {} fails", spec.seed, spec.kind.name);
    let _ = writeln!(text, "replay: {}", command(spec));
    if smallest != spec.limits {
        let smallest = Spec {
            limits: smallest,
            ..*spec
        };
        let _ = writeln!(text, "smaller: {}", command(&smallest));
    }
    let Failure::History(violation) = &failure else {
        let _ = writeln!(text, "{failure}");
        return Report { text, svg: None };
    };
    let key: Vec<Entry> = violation
        .history
        .iter()
        .filter(|entry| entry.key == violation.key)
        .copied()
        .collect();
    let _ = writeln!(text, "{violation}");
    let shortest = shrink(&key);
    let _ = writeln!(text, "the shortest history that is wrong for the same reason:\n");
    text.push_str(&timeline::text(&shortest));
    Report {
        text,
        svg: Some(timeline::svg(&shortest)),
    }
}

/// The command that runs a world again.
#[must_use]
pub fn command(spec: &Spec) -> String {
    let mut command = format!(
        "scripts/simulate-kv --kind {} --seed {} --seeds 1",
        spec.kind.name, spec.seed
    );
    let mut option = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(command, " --{name} {value}");
    };
    if let Some(nemeses) = spec.nemeses {
        option("nemesis", &nemeses);
    }
    if let Some(wrong) = spec.wrong {
        option("tooth", &wrong);
    }
    let limits = [
        ("clients", spec.limits.clients),
        ("calls", spec.limits.calls),
        ("faults", spec.limits.faults),
    ];
    for (name, most) in limits {
        if most != u32::MAX {
            option(name, &most);
        }
    }
    command
}

/// Writes the drawing of a report into a folder, and gives its path.
///
/// # Errors
/// The file cannot be written.
pub fn write_svg(report: &Report, spec: &Spec, folder: &Path) -> std::io::Result<Option<PathBuf>> {
    let Some(svg) = &report.svg else { return Ok(None) };
    let path = folder.join(format!("simulate-kv-{}-{}.svg", spec.kind.name, spec.seed));
    std::fs::write(&path, svg)?;
    Ok(Some(path))
}

/// The narrowest limits found under which the world still fails, and how it fails then.
fn smaller(spec: &Spec, failure: Failure) -> (Limits, Failure) {
    let mut runner = Runner::new();
    let (mut best, mut how) = (spec.limits, failure);
    let mut fails = |limits: Limits| runner.run(&Spec { limits, ..*spec }).err().map(|(failure, _)| failure);
    let with: [fn(Limits, u32) -> Limits; 3] = [
        |limits, faults| Limits { faults, ..limits },
        |limits, clients| Limits { clients, ..limits },
        |limits, calls| Limits { calls, ..limits },
    ];
    /// Worlds have fewer clients than that, and fewer calls of each; more faults do not help to understand.
    const TRIED: u32 = 60;
    for limit in with {
        for most in 0..TRIED {
            let limits = limit(best, most);
            if let Some(failure) = fails(limits) {
                (best, how) = (limits, failure);
                break;
            }
        }
    }
    (best, how)
}
