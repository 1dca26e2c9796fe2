//! Settings: each is an environment variable and a long flag, with a documented default and unit, checked at start.
//!
//! Programs declare them with clap's derive (`#[arg(long, env = "MAX_PICKUP_KM", default_value_t = 20.0)]`); [`parse`] adds what clap
//! leaves out: an error of one line that names the variable as well as the flag, what it got and what it takes; and a variable that is
//! set but empty, as compose passes one that its user left out, counts as not set.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command, Parser, ValueEnum};

use crate::traces::Share;

/// A setting that cannot be used. Its text names the variable, the value and what was expected.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(String);

impl SettingError {
    /// An error about the setting `name` (its environment variable).
    pub fn new(name: &str, got: impl std::fmt::Display, takes: impl std::fmt::Display) -> Self {
        Self(format!("{name}: got {got}; it takes {takes}"))
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Settings that every program has.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// What is logged: a level (error, warn, info, debug, trace) or a filter such as `info,kvfront=debug`
    #[arg(long, env = "LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_enum, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// Threads that serve requests; by default as many as suit the program on this machine
    #[arg(long, env = "WORKER_THREADS", value_name = "THREADS")]
    pub worker_threads: Option<NonZeroUsize>,

    /// Ask the program already running on this address whether it is ready, and exit with 0 or 1 (for container health checks)
    #[arg(long)]
    pub check_health: bool,
}

/// Reads settings from arguments and environment; explains and exits when they cannot be used (or on `--help`).
#[must_use]
pub fn parse<C: Parser>() -> C {
    match parse_from(std::env::args_os()) {
        Ok(config) => config,
        Err(Unparsed::Help(error)) => error.exit(),
        Err(Unparsed::Bad(error)) => exit_with(&error.to_string()),
    }
}

/// Reads settings as [`parse`] does, from these arguments (the first is the program's name) and the environment.
///
/// # Errors
/// [`SettingError`] with the variable, what it got and what it takes.
pub fn try_parse_from<C: Parser>(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<C, SettingError> {
    parse_from(args).map_err(|unparsed| match unparsed {
        Unparsed::Bad(error) => error,
        Unparsed::Help(error) => SettingError(error.to_string()),
    })
}

/// Prints `message` for the user and exits with 2, the status of a wrong call.
#[expect(clippy::print_stderr, reason = "the program ends here, before logging is set up")]
pub fn exit_with(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(2)
}

enum Unparsed {
    /// `--help` or `--version`.
    Help(clap::Error),
    Bad(SettingError),
}

/// True when the environment sets this variable to something.
#[must_use]
pub fn is_set(variable: impl AsRef<OsStr>) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn parse_from<C: Parser>(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<C, Unparsed> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let parsed = without_empty_variables(C::command())
        .try_get_matches_from(&args)
        .and_then(|mut matches| C::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| match error.kind() {
        // Again from the whole command, so that help names every variable, the empty ones too.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Unparsed::Help(C::try_parse_from(args).err().unwrap_or(error))
        }
        _ => Unparsed::Bad(SettingError(explain(&error, &C::command()))),
    })
}

/// Unties arguments from variables that are set but empty: clap would take the empty text for a value.
fn without_empty_variables(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let is_empty = arg.get_env().is_some_and(|variable| !is_set(variable));
            if is_empty { arg.env(Resettable::Reset) } else { arg }
        })
        .mut_subcommands(without_empty_variables)
}

/// One line: variable, flag, value, expectation. What is not about a value keeps clap's own words.
fn explain(error: &clap::Error, command: &Command) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let Some(arg) = text(ContextKind::InvalidArg).and_then(|flag| find_arg(command, long_name(&flag)).cloned()) else {
        return in_one_line(&error.to_string());
    };
    let long = arg.get_long().unwrap_or_default();
    let name = arg.get_env().map_or_else(
        || format!("--{long}"),
        |env| format!("{} (--{long})", env.to_string_lossy()),
    );
    let about = arg
        .get_help()
        .map(|help| format!("; it takes: {help}"))
        .unwrap_or_default();
    match error.kind() {
        ErrorKind::MissingRequiredArgument => return format!("{name} must be set{about}"),
        ErrorKind::ArgumentConflict => {
            return match text(ContextKind::PriorArg) {
                Some(other) if long_name(&other) != long => format!("{name} cannot be used together with {other}"),
                _ => format!("{name} is given more than once"),
            };
        }
        _ => {}
    }
    let got = match text(ContextKind::InvalidValue) {
        Some(value) if !value.is_empty() => format!("{value:?}"),
        _ => "nothing".to_owned(),
    };
    let why = match (std::error::Error::source(error), text(ContextKind::ValidValue)) {
        (Some(source), _) => format!(": {source}"),
        (None, Some(valid)) if !valid.is_empty() => format!(": not one of {valid}"),
        (None, _) => String::new(),
    };
    format!("{name}: got {got}{why}{about}")
}

/// The name in `--name <VALUE>`.
fn long_name(flag: &str) -> &str {
    flag.trim_start_matches("--")
        .split([' ', '=', '['])
        .next()
        .unwrap_or_default()
}

/// clap's message without the usage that follows it.
fn in_one_line(message: &str) -> String {
    let message = message.trim_start_matches("error: ");
    let end = ["\n\nUsage:", "\n\nFor more information"]
        .into_iter()
        .filter_map(|mark| message.find(mark))
        .min()
        .unwrap_or(message.len());
    let words: Vec<_> = message[..end].split_whitespace().collect();
    format!("{} (--help lists what there is)", words.join(" "))
}

fn find_arg<'a>(command: &'a Command, long: &str) -> Option<&'a clap::Arg> {
    let own = command.get_arguments().find(|arg| arg.get_long() == Some(long));
    own.or_else(|| command.get_subcommands().find_map(|sub| find_arg(sub, long)))
}

/// Value parser: a finite number of at least 0.
///
/// # Errors
/// What was expected, for the user.
pub fn non_negative(text: &str) -> Result<f64, String> {
    finite(text).and_then(|n| {
        if n >= 0.0 {
            Ok(n)
        } else {
            Err("a number of at least 0 is expected".to_owned())
        }
    })
}

/// Value parser: a finite number above 0.
///
/// # Errors
/// What was expected, for the user.
pub fn positive(text: &str) -> Result<f64, String> {
    finite(text).and_then(|n| {
        if n > 0.0 {
            Ok(n)
        } else {
            Err("a number above 0 is expected".to_owned())
        }
    })
}

/// Value parser: a number from 0 to 100.
///
/// # Errors
/// What was expected, for the user.
pub fn percent(text: &str) -> Result<f64, String> {
    finite(text).and_then(|n| {
        if (0.0..=100.0).contains(&n) {
            Ok(n)
        } else {
            Err("a percentage from 0 to 100 is expected".to_owned())
        }
    })
}

/// Value parser: a share, a number from 0 to 1.
///
/// # Errors
/// What was expected, for the user.
pub fn share(text: &str) -> Result<Share, String> {
    finite(text).and_then(|n| {
        if (0.0..=1.0).contains(&n) {
            Ok(Share(n))
        } else {
            Err("a number from 0 to 1 is expected".to_owned())
        }
    })
}

/// Value parser: a whole number of at least 1.
///
/// # Errors
/// What was expected, for the user.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("a whole number of at least 1 is expected".to_owned()),
        Ok(n) => Ok(n),
    }
}

/// Value parser: a switch as existing scripts write it: `1`, `true`, `yes`, `on` or `0`, `false`, `no`, `off`, in any case.
///
/// # Errors
/// What was expected, for the user.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("1 or 0 is expected".to_owned()),
    }
}

fn finite(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(n),
        _ => Err("a finite number is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Config {
        /// Farthest pick-up, km
        #[arg(long, env = "TEST_MAX_PICKUP_KM", default_value = "20", value_parser = positive)]
        max_pickup_km: f64,
        #[command(flatten)]
        common: CommonArgs,
    }

    #[test]
    fn a_bad_value_names_variable_flag_value_and_expectation() {
        let error = try_parse_from::<Config>(["test", "--max-pickup-km", "far"])
            .unwrap_err()
            .to_string();
        for part in [
            "TEST_MAX_PICKUP_KM",
            "--max-pickup-km",
            "\"far\"",
            "finite number",
            "Farthest pick-up, km",
        ] {
            assert!(error.contains(part), "{error:?} should contain {part:?}");
        }
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn a_bad_choice_lists_the_choices() {
        let error = try_parse_from::<Config>(["test", "--log-format", "xml"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("LOG_FORMAT") && error.contains("text, json"), "{error}");
    }

    #[test]
    fn every_error_is_one_line_that_names_the_flag() {
        for (args, part) in [
            (vec!["test", "--max-pickup", "1"], "--max-pickup-km"),
            (vec!["test", "--max-pickup-km"], "got nothing"),
            (vec!["test", "--max-pickup-km="], "got nothing"),
            (
                vec!["test", "--max-pickup-km", "1", "--max-pickup-km", "2"],
                "more than once",
            ),
            (vec!["test", "surplus"], "surplus"),
        ] {
            let error = try_parse_from::<Config>(&args).unwrap_err().to_string();
            assert!(error.contains(part), "{args:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
        }
    }

    /// The environment belongs to the process, so this runs `defaults_hold` in one of its own.
    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "settings::tests::defaults_hold"])
            .envs([("TEST_MAX_PICKUP_KM", ""), ("LOG_FORMAT", ""), ("LOG", "")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn defaults_hold() {
        let config: Config = try_parse_from(["test"]).unwrap();
        assert!((config.max_pickup_km - 20.0).abs() < f64::EPSILON);
        assert!(!config.common.check_health);
        assert_eq!(config.common.log, "info");
    }

    #[test]
    fn value_parsers_refuse_what_is_no_number() {
        assert!(positive("0").is_err() && positive("NaN").is_err() && positive("inf").is_err());
        assert!(non_negative("-0.1").is_err() && non_negative("0").is_ok());
        assert!(percent("100.1").is_err() && percent("100").is_ok());
        assert!(share("1.01").is_err() && share("-0.1").is_err() && share("0.5") == Ok(Share(0.5)));
        assert!(at_least_one("0").is_err() && at_least_one("3").is_ok());
        assert_eq!((switch("YES"), switch("0")), (Ok(true), Ok(false)));
        assert!(switch("maybe").is_err());
    }
}
