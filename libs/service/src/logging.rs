//! Log lines on standard error, as text for people or JSON for machines. Standard output stays free for access logs and status lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::{CommonArgs, LogFormat, SettingError};

/// Libraries whose own lines are left out unless the filter names them: what they tell, we tell better, and once.
const SILENCED: [&str; 1] = ["lapin"];

/// Sets logging up for the whole process. A second call changes nothing.
///
/// # Errors
/// When `LOG` is no filter.
pub fn init(args: &CommonArgs) -> Result<(), SettingError> {
    init_to(args, std::io::stderr)
}

/// As [`init`], with lines written elsewhere than plainly to standard error: each line is one `write`, its end included. Colours are
/// used when standard error is a terminal.
///
/// # Errors
/// When `LOG` is no filter.
pub fn init_to<W>(args: &CommonArgs, writer: W) -> Result<(), SettingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&args.log)?)
        .with_writer(writer);
    // A logger that is already set (tests, the one-process run) stays.
    let _ = match args.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, SettingError> {
    let refused = |error: String| {
        SettingError::new(
            "LOG (--log)",
            format!("{text:?} ({error})"),
            "error, warn, info, debug, trace, off, or a filter such as info,kvfront=debug",
        )
    };
    // A lone word that is no level would be taken for a module, and a misspelt level would silence everything. Brackets, which may hold
    // commas of their own, are left to the filter.
    if !text.contains('[')
        && let Some(word) = text
            .split(',')
            .find(|part| !part.contains('=') && part.parse::<LevelFilter>().is_err())
    {
        return Err(refused(format!("{word:?} is no level")));
    }
    let mut filter = EnvFilter::try_new(text).map_err(|error| refused(error.to_string()))?;
    for library in SILENCED.into_iter().filter(|library| !text.contains(library)) {
        if let Ok(directive) = format!("{library}=off").parse() {
            filter = filter.add_directive(directive);
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_taken_and_misspelt_levels_are_not() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,kvfront=debug",
            "warn,bus=trace",
            "[request]=debug",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["verbose", "info,kvfront", "kvfront=loud=very", "a=b=c"] {
            let error = filter(bad).expect_err(bad).to_string();
            assert!(
                error.contains("LOG (--log)") && error.contains("info,kvfront=debug"),
                "{error}"
            );
        }
    }

    #[test]
    fn libraries_that_repeat_us_are_silent_unless_asked_for() {
        assert!(filter("debug").unwrap().to_string().contains("lapin=off"));
        let asked = filter("info,lapin=debug").unwrap().to_string();
        assert!(!asked.contains("lapin=off"), "{asked}");
    }
}
