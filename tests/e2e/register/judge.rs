//! Judges the history of a key once it is no longer used, and leaves what a person needs when it is wrong.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use linearizability::{Checker, Entry, Violation, one_holder, timeline};
use serde_json::json;

use super::record::{Kind, Record};

/// Judges one key.
///
/// # Errors
/// What is wrong, with a timeline and where the whole history was put.
pub(crate) fn judge(checker: &mut Checker, run: &str, record: &Record) -> Result<usize, String> {
    let history = record.history();
    let verdict = checker.check(&history).map(|_| ()).and_then(|()| match record.kind {
        Kind::Lock => one_holder(&history, Record::certain_us()),
        Kind::Plain | Kind::Ending | Kind::Fenced => Ok(()),
    });
    match verdict {
        Ok(()) => Ok(history.len()),
        Err(violation) => Err(report(run, record, &violation)),
    }
}

/// Writes the history, its timeline and a picture of it to a folder, and tells of it.
fn report(run: &str, record: &Record, violation: &Violation) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{run}-{}", record.name));
    let text = violation.to_string();
    let files = [
        ("history.jsonl", json_lines(&violation.history)),
        ("timeline.txt", timeline::text(&violation.history)),
        ("timeline.svg", timeline::svg(&violation.history)),
        ("violation.txt", text.clone()),
    ];
    let written = fs::create_dir_all(&folder).and_then(|()| {
        files
            .iter()
            .try_for_each(|(name, content)| fs::write(folder.join(name), content))
    });
    let place = match written {
        Ok(()) => format!("the whole history is in {}", folder.display()),
        Err(error) => format!("the history could not be written to {}: {error}", folder.display()),
    };
    format!("{} ({:?}): {text}\n{place}", record.name, record.kind)
}

fn json_lines(history: &[Entry]) -> String {
    let mut lines = String::new();
    for entry in history {
        let returned = (entry.returned != linearizability::NEVER).then_some(entry.returned);
        let line = json!({
            "client": entry.client, "key": entry.key, "called_us": entry.called, "returned_us": returned,
            "fence": entry.fence, "refused_below": entry.refused_below, "op": entry.to_string(),
        });
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{line}");
    }
    lines
}
