//! Log lines on standard error, as text for people or JSON for machines. Standard output stays free for access logs and status lines.
//!
//! What is logged on behalf of a request, wherever that is, has the request's id and its trace's (`request_id`, `trace_id`), if it has one.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

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
        LogFormat::Json => builder
            .json()
            .event_format(OnBehalf {
                line: format::format().json().flatten_event(true),
                kind: LogFormat::Json,
            })
            .try_init(),
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            builder
                .with_ansi(ansi)
                .event_format(OnBehalf {
                    line: format::format().with_ansi(ansi),
                    kind: LogFormat::Text,
                })
                .try_init()
        }
    };
    Ok(())
}

/// Lines that say on whose behalf they are. The others cost nothing more.
struct OnBehalf<F> {
    line: F,
    kind: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for OnBehalf<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let ids = trace::with_current(|scope| ids(&scope.context)).unwrap_or_default();
        if ids == [None, None] {
            return self.line.format_event(ctx, out, event);
        }
        let mut line = String::new();
        self.line.format_event(ctx, Writer::new(&mut line), event)?;
        let fields = ids.iter().flatten();
        match self.kind {
            LogFormat::Json => {
                out.write_char('{')?;
                for (name, id) in fields {
                    // A text is always JSON.
                    let id = serde_json::to_string(id).unwrap_or_default();
                    write!(out, "\"{name}\":{id},")?;
                }
                out.write_str(line.strip_prefix('{').unwrap_or(&line))
            }
            LogFormat::Text => {
                out.write_str(line.trim_end_matches('\n'))?;
                for (name, id) in fields {
                    write!(out, " {name}={id}")?;
                }
                out.write_char('\n')
            }
        }
    }
}

fn ids(context: &trace::Context) -> [Option<(&'static str, String)>; 2] {
    let request = context.request_id.as_deref();
    [
        request.map(|id| ("request_id", id.to_owned())),
        context.span.map(|span| ("trace_id", span.trace_id.to_string())),
    ]
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

    /// Lines written to memory.
    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(kind: LogFormat) -> Vec<String> {
        let lines = Lines::default();
        let out = lines.clone();
        let builder = tracing_subscriber::fmt()
            .with_writer(move || out.clone())
            .with_ansi(false);
        let subscriber: Box<dyn Subscriber + Send + Sync> = match kind {
            LogFormat::Json => {
                let line = format::format().json().flatten_event(true);
                Box::new(builder.json().event_format(OnBehalf { line, kind }).finish())
            }
            LogFormat::Text => {
                let line = format::format().with_ansi(false);
                Box::new(builder.event_format(OnBehalf { line, kind }).finish())
            }
        };
        tracing::subscriber::with_default(subscriber, || {
            let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let context = trace::Context::read(Some(parent), None, Some("id\"7"));
            let scope = trace::Scope::new(context, &trace::Tracer::off());
            scope.run(|| tracing::info!(delivery = "d1", "assigned"));
            tracing::info!("nobody's");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_say_on_whose_behalf_they_are() {
        let text = logged(LogFormat::Text);
        let expected = "assigned delivery=\"d1\" request_id=id\"7 trace_id=0af7651916cd43dd8448eb211c80319c";
        assert!(text[0].ends_with(expected), "{text:?}");
        assert!(text[1].ends_with("nobody's"), "{text:?}");
        let json: Vec<serde_json::Value> = logged(LogFormat::Json)
            .iter()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        assert_eq!(
            (&json[0]["message"], &json[0]["delivery"]),
            (&"assigned".into(), &"d1".into())
        );
        assert_eq!(json[0]["request_id"], "id\"7");
        assert_eq!(json[0]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert!(json[1].get("trace_id").is_none() && json[1]["level"] == "INFO");
    }

    #[test]
    fn libraries_that_repeat_us_are_silent_unless_asked_for() {
        assert!(filter("debug").unwrap().to_string().contains("lapin=off"));
        let asked = filter("info,lapin=debug").unwrap().to_string();
        assert!(!asked.contains("lapin=off"), "{asked}");
    }
}
