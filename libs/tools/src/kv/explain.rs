//! `dronedispatch kv explain KEY`: where a key lives, what each of its nodes has of it, and which hint waits where.
//!
//! kvfront's `/explain/{key}` says where; what a quorum makes of it is read beside it.

use std::fmt::Write as _;

use anyhow::ensure;
use clap::Args as ClapArgs;
use kv_api::{check_key, encode_key};
use kv_client::{Kv, KvError, RawValue};
use serde::{Deserialize, Serialize};

use crate::gateway::Gateway;
use crate::screen;

/// The settings of `kv explain`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// The key
    pub key: String,
}

/// What a quorum says of a key, and what its nodes hold.
#[derive(Serialize)]
pub(super) struct Explained {
    #[serde(flatten)]
    journey: Journey,
    /// What a quorum says.
    quorum_version: Option<String>,
    value: Option<Box<RawValue>>,
    quorum_error: Option<String>,
}

/// As kvfront tells it.
#[derive(Deserialize, Serialize)]
struct Journey {
    key: String,
    partition: usize,
    epoch: String,
    nodes: Vec<Copy>,
}

/// What one node holds.
#[derive(Deserialize, Serialize)]
struct Copy {
    name: String,
    url: String,
    role: String,
    state: String,
    has: String,
    version: Option<String>,
    written_at: Option<f64>,
    deleted: bool,
    value_bytes: Option<usize>,
    hint_for: Option<String>,
    error: Option<String>,
}

pub(super) async fn main(kv: &Kv, urls: &str, args: &Args, json: bool) -> anyhow::Result<u8> {
    let explained = explain(kv, urls, args).await?;
    let text = if json {
        format!("{}\n", serde_json::to_string(&explained)?)
    } else {
        explained.text()
    };
    screen::print(&text)?;
    Ok(u8::from(explained.quorum_version.is_none()))
}

/// Asks the first kvfront that answers.
pub(super) async fn explain(kv: &Kv, urls: &str, args: &Args) -> anyhow::Result<Explained> {
    check_key(&args.key).map_err(KvError::from)?;
    let path = format!("/explain/{}", encode_key(&args.key));
    let mut asked = Err(anyhow::anyhow!("no kvfront is named"));
    for url in urls.split(',').map(|url| url.trim().trim_end_matches('/')) {
        asked = match Gateway::new(url) {
            Ok(front) => front.get::<Journey>(&path).await,
            Err(error) => Err(error),
        };
        if asked.is_ok() {
            break;
        }
    }
    let journey = asked?;
    ensure!(
        journey.key == args.key,
        "kvfront told of another key, {:?}",
        journey.key
    );
    // A quorum that does not answer is just what somebody may want to look at.
    let (found, quorum_error) = match kv.get::<Box<RawValue>>(&args.key).await {
        Ok(found) => (found, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (quorum_version, value) = found.map(|found| (found.version.0, found.value)).unzip();
    Ok(Explained {
        journey,
        quorum_version,
        value,
        quorum_error,
    })
}

impl Explained {
    pub(super) fn text(&self) -> String {
        let journey = &self.journey;
        let mut text = format!(
            "key {}: partition {} of the ring {}\n",
            journey.key, journey.partition, journey.epoch
        );
        // Writing to a string cannot fail.
        let _ = match (&self.value, &self.quorum_version, &self.quorum_error) {
            (Some(value), Some(version), _) => writeln!(text, "a quorum says: {} (version {version})", value.get()),
            (_, _, Some(error)) => writeln!(text, "no quorum: {error}"),
            _ => writeln!(text, "a quorum says: there is no such key"),
        };
        let _ = writeln!(
            text,
            "{:<14} {:<6} {:<10} {:<8} version",
            "node", "role", "state", "has"
        );
        for copy in &journey.nodes {
            let _ = write!(
                text,
                "{:<14} {:<6} {:<10} {:<8} {}",
                copy.name,
                copy.role,
                copy.state,
                copy.has,
                copy.version.as_deref().unwrap_or("-")
            );
            if copy.deleted {
                text.push_str(", deleted");
            }
            if let Some(home) = &copy.hint_for {
                let _ = write!(text, ", a hint for {home}");
            }
            if let Some(error) = &copy.error {
                let _ = write!(text, "  {error}");
            }
            text.push('\n');
        }
        text
    }
}
