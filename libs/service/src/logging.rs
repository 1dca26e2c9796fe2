//! Log lines on standard error, as text for people or JSON for machines. Standard output stays free for access logs and status lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::settings::{CommonArgs, LogFormat, SettingError};

/// Sets logging up for the whole process. A second call changes nothing.
///
/// # Errors
/// When `LOG` is no filter.
pub fn init(args: &CommonArgs) -> Result<(), SettingError> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| SettingError::new("LOG (--log)", format!("{:?} ({error})", args.log), "a level or filter"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A logger that is already set (tests, the one-process run) stays.
    let _ = match args.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    Ok(())
}
