//! `dronedispatch doctor`: what is wrong here, and what to do about it.

mod machine;
mod services;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use serde::Serialize;

use self::services::Probes;
use crate::{COULD_NOT_RUN, ended, run, screen};

/// Something has to be mended.
const ILL: u8 = 1;

/// Look at this machine and at the services that run on it: what is wrong, and what to do
///
/// Finds the system that runs in one process as well as the one in containers. Exit code: 0 all is well, perhaps with hints; 1 something has to be mended.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// Where the services listen
    #[arg(long, env = "DOCTOR_HOST", default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: String,

    /// The port base of a system in one process
    #[arg(long, env = "PORT_BASE", default_value_t = 8_000, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64_000))]
    pub port_base: u16,

    /// The folder whose disk is looked at
    #[arg(long, env = "DATA_DIR", default_value = "./data", value_name = "FOLDER")]
    pub data_dir: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Hint,
    /// It has to be mended.
    Ill,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; empty when there is nothing.
    pub advice: String,
}

/// Everything that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Diagnosis {
    state: State,
    findings: Vec<Finding>,
}

impl Finding {
    pub(crate) fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state: State::Ok,
            found: found.into(),
            advice: String::new(),
        }
    }

    pub(crate) fn hint(what: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state: State::Hint,
            found: found.into(),
            advice: advice.into(),
        }
    }

    pub(crate) fn ill(what: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state: State::Ill,
            found: found.into(),
            advice: advice.into(),
        }
    }
}

/// The command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    ended(run(|_| examine(args)), COULD_NOT_RUN)
}

async fn examine(args: &Args) -> anyhow::Result<u8> {
    let mut findings = machine::examine(&args.data_dir);
    let containers = machine::containers();
    findings.extend(Probes::ask(&args.host, args.port_base, containers).await?.findings());
    let state = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok);
    let diagnosis = Diagnosis { state, findings };
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&diagnosis)?)
    } else {
        diagnosis.text()
    };
    screen::print(&text)?;
    Ok(if state == State::Ill { ILL } else { 0 })
}

impl Diagnosis {
    fn text(&self) -> String {
        let mut text = String::new();
        for Finding {
            what,
            state,
            found,
            advice,
        } in &self.findings
        {
            let mark = match state {
                State::Ok => "ok  ",
                State::Hint => "hint",
                State::Ill => "ILL ",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{mark}  {what:<12}  {found}");
            if !advice.is_empty() {
                let _ = writeln!(text, "{:20}→ {advice}", "");
            }
        }
        text.push_str(match self.state {
            State::Ok => "all is well\n",
            State::Hint => "nothing has to be mended\n",
            State::Ill => "something has to be mended\n",
        });
        text
    }
}
