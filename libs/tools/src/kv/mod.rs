//! `dronedispatch kv`: the KV from the command line.
//!
//! Exit codes: 0 done; 1 the answer is no (absent, refused); 2 a wrong call; 3 it is not known whether it was done; 4 it was not done (no quorum, nobody
//! answers). `kv lock` gives the command's own, or one of [`lock`]'s.

mod explain;
mod lock;
mod sse;
#[cfg(test)]
mod tests;
mod watch;

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use kv_client::{BatchOp, Kv, KvError, OpResult, Options, Put, PutOptions, RawValue, Swap, Version};
use serde::Serialize;
use service::Shutdown;
use service::settings::positive;

use crate::{COULD_NOT_RUN, ended, run, screen};

/// The answer is no.
const NO: u8 = 1;
/// A wrong call.
const WRONG_CALL: u8 = 2;
/// It may or may not have been done.
const UNKNOWN: u8 = 3;
/// A change whose answer gets lost is sent so often again; it takes effect once all the same.
const WRITE_RETRIES: u32 = 3;
/// Largest value that is read from standard input, bytes.
const VALUE_MAX_BYTES: u64 = 16 << 20;

/// Read, write, watch and lock keys of the KV
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// kvfront, http://host:port; several are separated by commas
    #[arg(long, env = "KVFRONT_URL", default_value = kv_client::DEFAULT_URL, value_name = "URL", global = true)]
    pub url: String,

    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print a key's value; exit code 1 when it is absent
    Get {
        /// The key
        key: String,
        /// Print a text without its quotes
        #[arg(long, short)]
        string: bool,
    },
    /// Write a key, whatever is there
    Put {
        /// The key
        key: String,
        /// What is written
        #[command(flatten)]
        new: NewValue,
        /// The value ends after so many seconds
        #[arg(long, value_parser = positive, value_name = "SEC")]
        ttl: Option<f64>,
        /// Refused when lower than the fence that the key has seen
        #[arg(long, value_name = "N")]
        fence: Option<u64>,
    },
    /// Write a key if it still is as expected; exit code 1 when it is not
    Cas {
        /// The key
        key: String,
        /// What has to be there
        #[command(flatten)]
        expected: Expected,
        /// What is written
        #[command(flatten)]
        new: NewValue,
        /// Refused when lower than the fence that the key has seen
        #[arg(long, value_name = "N")]
        fence: Option<u64>,
    },
    /// Delete a key; no error when it is not there
    Del {
        /// The key
        key: String,
        /// Only while it has this version; exit code 1 when it has another
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
    },
    /// List keys in their order: one per line, a tab, the value
    Scan {
        /// Only keys that start with this
        #[arg(default_value = "")]
        prefix: String,
        /// Most keys listed
        #[arg(long, default_value = "100", value_parser = service::settings::at_least_one, value_name = "N")]
        limit: usize,
        /// Go on after this key
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        /// From the last to the first
        #[arg(long)]
        reverse: bool,
        /// Keys without values
        #[arg(long)]
        keys: bool,
    },
    /// Print changes as they happen, until Ctrl-C; goes on by itself after a break
    Watch(watch::Args),
    /// Run a command while holding a lock
    Lock(lock::Args),
    /// Where a key lives, which version each node has, how many hints wait
    Explain(explain::Args),
}

/// A value on the command line.
#[derive(Debug, Clone, ClapArgs)]
pub struct NewValue {
    /// The value, JSON; - reads it from standard input
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub value: String,
    /// It is a text, not JSON
    #[arg(long, short)]
    pub string: bool,
}

/// What a swap expects: one of these.
#[derive(Debug, Clone, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct Expected {
    /// Expect this value, JSON
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub old: Option<String>,
    /// Expect this version
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Expect that there is none
    #[arg(long)]
    pub absent: bool,
}

/// The command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    ended(run(|shutdown| told(args, shutdown)), COULD_NOT_RUN)
}

/// Does it, and tells errors of the KV with the exit code that says what became of it.
async fn told(args: &Args, shutdown: Shutdown) -> anyhow::Result<u8> {
    let error = match act(args, shutdown).await {
        Err(error) => error,
        code => return code,
    };
    let Some(kv_error) = error.downcast_ref::<KvError>() else {
        return Err(error);
    };
    let code = match kv_error {
        KvError::Unknown { .. } => UNKNOWN,
        KvError::Invalid { .. } | KvError::Rejected { .. } => WRONG_CALL,
        KvError::Unavailable { .. } | KvError::Unreachable { .. } | KvError::Decode { .. } => COULD_NOT_RUN,
    };
    if args.json {
        let outcome = if code == UNKNOWN { "unknown" } else { "not_done" };
        let _ = print_json(&serde_json::json!({"error": kv_error.to_string(), "outcome": outcome}));
    }
    screen::complain(&format!("error: {kv_error}"));
    Ok(code)
}

async fn act(args: &Args, shutdown: Shutdown) -> anyhow::Result<u8> {
    let kv = Kv::new(
        &args.url,
        Options {
            write_retries: WRITE_RETRIES,
            ..Options::default()
        },
    )?;
    match &args.command {
        Command::Get { key, string } => get(&kv, key, *string, args.json).await,
        Command::Put { key, new, ttl, fence } => {
            let ttl = ttl.map(Duration::try_from_secs_f64).transpose().context("--ttl")?;
            let put = kv
                .put_with(key, &new.json()?, PutOptions { ttl, fence: *fence })
                .await?;
            show_change(&Change::of_put(put), args.json)
        }
        Command::Cas {
            key,
            expected,
            new,
            fence,
        } => {
            let swap = cas(&kv, key, expected, new, *fence).await?;
            show_change(&Change::of_swap(swap), args.json)
        }
        Command::Del { key, version } => {
            let ok = match version {
                Some(version) => kv.delete_version(key, &Version(version.clone())).await?,
                None => kv.delete(key).await.map(|()| true)?,
            };
            show_change(
                &Change {
                    ok,
                    ..Change::default()
                },
                args.json,
            )
        }
        Command::Scan {
            prefix,
            limit,
            after,
            reverse,
            keys,
        } => {
            let what = Scan {
                prefix,
                limit: *limit,
                after: after.clone(),
                reverse: *reverse,
                keys: *keys,
                json: args.json,
            };
            scan(&kv, what).await
        }
        Command::Watch(watched) => watch::main(&args.url, watched, args.json, shutdown).await,
        Command::Lock(locked) => lock::main(&kv, locked, args.json, shutdown).await,
        Command::Explain(explained) => explain::main(&kv, &args.url, explained, args.json).await,
    }
}

/// A value and its key, with every digit as it was stored.
#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    value: Option<&'a RawValue>,
    version: Option<&'a str>,
}

async fn get(kv: &Kv, key: &str, string: bool, json: bool) -> anyhow::Result<u8> {
    let found = kv.get::<Box<RawValue>>(key).await?;
    let shown = Shown {
        key,
        value: found.as_ref().map(|found| &*found.value),
        version: found.as_ref().map(|found| found.version.0.as_str()),
    };
    if json {
        print_json(&shown)?;
    } else if let Some(value) = shown.value {
        let text = if string {
            serde_json::from_str::<String>(value.get()).ok()
        } else {
            None
        };
        screen::print(&format!("{}\n", text.as_deref().unwrap_or(value.get())))?;
    } else {
        screen::complain(&format!("{key}: there is no such key"));
    }
    Ok(if found.is_some() { 0 } else { NO })
}

async fn cas(kv: &Kv, key: &str, expected: &Expected, new: &NewValue, fence: Option<u64>) -> anyhow::Result<Swap> {
    let new = new.json()?;
    let Some(old) = &expected.old else {
        let version = expected.version.clone().map(Version);
        return Ok(kv.cas_version(key, version.as_ref(), &new, fence).await?);
    };
    let old = serde_json::from_str(old).map_err(|error| invalid("--old", old, &error))?;
    let op = BatchOp::Cas {
        key: key.to_owned(),
        old: Some(old),
        version: None,
        new,
        fence,
    };
    match kv.batch(vec![op], false).await?.pop() {
        Some(OpResult::Cas(swap)) => Ok(swap),
        Some(OpResult::Failed(error)) => Err(error.into()),
        other => anyhow::bail!("the answer to a swap was expected, not {other:?}"),
    }
}

/// What became of a change.
#[derive(Default, Serialize)]
struct Change {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    /// What is there instead of what was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence_seen: Option<u64>,
}

impl Change {
    fn of_put(put: Put) -> Self {
        match put {
            Put::Done(version) => Self {
                ok: true,
                version: Some(version),
                ..Self::default()
            },
            Put::FenceTooLow { seen } => Self {
                fence_seen: Some(seen),
                ..Self::default()
            },
        }
    }

    fn of_swap(swap: Swap) -> Self {
        match swap {
            Swap::Done(version) => Self {
                ok: true,
                version: Some(version),
                ..Self::default()
            },
            Swap::Refused { current, version } => Self {
                version,
                current,
                ..Self::default()
            },
            Swap::FenceTooLow { seen } => Self {
                fence_seen: Some(seen),
                ..Self::default()
            },
        }
    }
}

fn show_change(change: &Change, json: bool) -> anyhow::Result<u8> {
    if json {
        print_json(change)?;
    } else if change.ok {
        screen::print(&format!(
            "{}\n",
            change.version.as_ref().map_or("ok", |version| &version.0)
        ))?;
    } else {
        let why = match (&change.fence_seen, &change.current, &change.version) {
            (Some(seen), ..) => format!("the key has seen the fence {seen}"),
            (_, Some(current), Some(version)) => format!("there is {} ({})", current.get(), version.0),
            _ => "another version is there, or none".to_owned(),
        };
        screen::complain(&format!("refused: {why}"));
    }
    Ok(if change.ok { 0 } else { NO })
}

struct Scan<'a> {
    prefix: &'a str,
    limit: usize,
    after: Option<String>,
    reverse: bool,
    keys: bool,
    json: bool,
}

/// Prints page by page, so that memory stays small.
async fn scan(kv: &Kv, mut what: Scan<'_>) -> anyhow::Result<u8> {
    loop {
        let page = kv
            .scan::<Box<RawValue>>(what.prefix, what.after.as_deref(), what.limit, what.reverse)
            .await?;
        let mut text = String::new();
        for item in page.items {
            let item = item?;
            let value = (!what.keys).then_some(&*item.value);
            text.push_str(&match (what.json, value) {
                (true, value) => serde_json::to_string(&Shown {
                    key: &item.key,
                    value,
                    version: Some(&item.version.0),
                })?,
                (false, Some(value)) => format!("{}\t{}", item.key, value.get()),
                (false, None) => item.key,
            });
            text.push('\n');
            what.limit = what.limit.saturating_sub(1);
        }
        screen::print(&text)?;
        match page.next {
            Some(next) if what.limit > 0 => what.after = Some(next),
            Some(next) => {
                screen::complain(&format!("there are more: go on with --after {next}"));
                return Ok(0);
            }
            None => return Ok(0),
        }
    }
}

impl NewValue {
    fn json(&self) -> anyhow::Result<Box<RawValue>> {
        let mut text = self.value.clone();
        if text == "-" {
            text.clear();
            let mut input = std::io::stdin().lock().take(VALUE_MAX_BYTES + 1);
            input
                .read_to_string(&mut text)
                .context("standard input cannot be read as UTF-8")?;
            if text.len() as u64 > VALUE_MAX_BYTES {
                return Err(KvError::Invalid {
                    detail: format!("VALUE: more than {VALUE_MAX_BYTES} bytes"),
                }
                .into());
            }
        }
        if self.string {
            return Ok(serde_json::value::to_raw_value(&text)?);
        }
        RawValue::from_string(text.trim().to_owned()).map_err(|error| invalid("VALUE", &text, &error).into())
    }
}

fn invalid(field: &str, got: &str, error: &serde_json::Error) -> KvError {
    /// So much of a bad value is repeated, characters.
    const SHOWN: usize = 60;
    let got: String = got.chars().take(SHOWN).collect();
    KvError::Invalid {
        detail: format!("{field}: got {got:?}; JSON is expected ({error}); -s takes it as a text"),
    }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(screen::print(&format!("{}\n", serde_json::to_string(value)?))?)
}
