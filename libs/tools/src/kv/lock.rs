//! `dronedispatch kv lock NAME -- COMMAND`: the command runs while the lock is held, and no longer.
//!
//! The lock is renewed three times in its time to live. `LOCK_FENCE` in the command's environment goes with every write that must not come from
//! somebody who has lost it (`kv put --fence`). When the lock is lost, or cannot be renewed until its time is up, the command is ended.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args as ClapArgs, ValueEnum};
use kv_client::{Acquired, Kv, LockGuard};
use serde_json::json;
use service::Shutdown;
use service::settings::{non_negative, positive};

use crate::screen;

/// Exit code: somebody else holds the lock.
const HELD: u8 = 75;
/// Exit code: the lock was lost and the command ended because of that.
const LOST: u8 = 76;
/// Exit code: the command cannot be started.
const NOT_STARTED: u8 = 127;
/// Renewals in a time to live.
const RENEWALS: u32 = 3;
/// While somebody else holds it, it is asked for this often.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How often it is looked whether the command has ended.
const CHILD_POLL: Duration = Duration::from_millis(20);
/// A command that is told to end has this long before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// What happens to the command when the lock is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnLost {
    /// It is ended: SIGTERM, and SIGKILL 5 s later.
    Kill,
    /// It is told about, and goes on.
    Warn,
}

/// The settings of `kv lock`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// The lock's name
    pub name: String,
    /// Time to live: so long others wait when this process dies, seconds
    #[arg(long, default_value = "30", value_parser = positive, value_name = "SEC")]
    pub ttl: f64,
    /// While somebody else holds it, wait up to so many seconds
    #[arg(long, default_value = "0", value_parser = non_negative, value_name = "SEC")]
    pub wait: f64,
    /// Who holds it, for people who look; by default this machine's user and the process
    #[arg(long)]
    pub owner: Option<String>,
    /// When the lock is lost while the command runs
    #[arg(long, value_enum, default_value = "kill")]
    pub on_lost: OnLost,
    /// The command and its arguments; it gets LOCK_NAME and LOCK_FENCE in its environment
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// How the time with the lock ended.
#[derive(Debug)]
enum Outcome {
    Exited(ExitStatus),
    Lost,
}

/// Takes the lock, runs the command, gives the lock back.
pub(super) async fn main(kv: &Kv, args: &Args, json: bool, shutdown: Shutdown) -> anyhow::Result<u8> {
    let ttl = Duration::try_from_secs_f64(args.ttl).context("--ttl")?;
    let guard = match acquire(kv, args, ttl, &shutdown).await? {
        Acquired::Yes(guard) => guard,
        Acquired::No(held) => {
            let expires_in_sec = held.expires_in.map(|left| left.as_secs_f64());
            tell(
                json,
                &json!({"lock": args.name, "held": false, "expires_in_sec": expires_in_sec}),
            );
            let left = expires_in_sec.map_or_else(String::new, |sec| format!(", for up to {sec:.1} s"));
            screen::complain(&format!("lock {:?}: somebody else holds it{left}", args.name));
            return Ok(HELD);
        }
    };
    let fence = guard.fence;
    let child = match start(args, fence) {
        Ok(child) => child,
        Err(error) => {
            screen::complain(&format!(
                "lock {:?}: cannot run {:?}: {error}",
                args.name, args.command[0]
            ));
            guard.release().await?;
            return Ok(NOT_STARTED);
        }
    };
    let (outcome, guard) = Holder {
        guard,
        ttl,
        on_lost: args.on_lost,
        is_lost: false,
    }
    .hold(child, &shutdown)
    .await?;
    let code = match &outcome {
        Outcome::Lost => LOST,
        // As shells do it: 128 and the signal.
        Outcome::Exited(status) => {
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
        }
    };
    let released = guard.release().await;
    tell(
        json,
        &json!({"lock": args.name, "held": true, "fence": fence, "lost": matches!(outcome, Outcome::Lost), "exit_code": code}),
    );
    if let Err(error) = released {
        screen::complain(&format!(
            "lock {:?}: it was not given back and ends by itself: {error}",
            args.name
        ));
    }
    Ok(code)
}

/// With `--json` the result goes to standard error: standard output is the command's.
fn tell(json: bool, result: &serde_json::Value) {
    if json {
        screen::complain(&result.to_string());
    }
}

async fn acquire(kv: &Kv, args: &Args, ttl: Duration, shutdown: &Shutdown) -> anyhow::Result<Acquired> {
    let owner = args.owner.clone().unwrap_or_else(|| {
        let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
        format!("{user}, process {}", std::process::id())
    });
    let give_up = Instant::now() + Duration::try_from_secs_f64(args.wait).context("--wait")?;
    loop {
        let held = match kv.lock(&args.name, &owner, ttl).await? {
            Acquired::No(held) => held,
            guard => return Ok(guard),
        };
        let pause = held.expires_in.unwrap_or(ASK_AGAIN).min(ASK_AGAIN);
        if Instant::now() + pause > give_up || !shutdown.sleep(pause).await {
            return Ok(Acquired::No(held));
        }
    }
}

fn start(args: &Args, fence: u64) -> std::io::Result<Child> {
    let mut command = Command::new(&args.command[0]);
    command
        .args(&args.command[1..])
        .env("LOCK_NAME", &args.name)
        .env("LOCK_FENCE", fence.to_string());
    command.spawn()
}

struct Holder {
    guard: LockGuard,
    ttl: Duration,
    on_lost: OnLost,
    is_lost: bool,
}

impl Holder {
    /// Renews until the command has ended.
    async fn hold(mut self, mut child: Child, shutdown: &Shutdown) -> anyhow::Result<(Outcome, LockGuard)> {
        let mut next = Instant::now() + self.ttl / RENEWALS;
        let mut is_told = false;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((Outcome::Exited(status), self.guard));
            }
            if shutdown.is_stopping() && !is_told {
                // On a terminal Ctrl-C has reached the command as well; a second word does no harm.
                is_told = true;
                signal(&child, "TERM");
            }
            if !self.is_lost && Instant::now() >= next {
                self.renew().await;
                next = Instant::now() + (self.ttl / RENEWALS).min(self.guard.remaining() / 2).max(CHILD_POLL);
                if self.is_lost && self.on_lost == OnLost::Kill {
                    end(&mut child).await?;
                    return Ok((Outcome::Lost, self.guard));
                }
            }
            tokio::time::sleep(CHILD_POLL).await;
        }
    }

    /// Holds on; notes when the lock is lost, or when its time is up without an answer.
    async fn renew(&mut self) {
        let (name, left) = (self.guard.name().to_owned(), self.guard.remaining());
        let why = match tokio::time::timeout(left, self.guard.renew(self.ttl)).await {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => "somebody else may hold it now".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "nobody answered in time".to_owned(),
        };
        self.is_lost = self.guard.remaining().is_zero();
        let what = if self.is_lost {
            "it is lost"
        } else {
            "it could not be renewed yet"
        };
        screen::complain(&format!("lock {name:?}: {what}: {why}"));
    }
}

/// Ends the command: at first politely.
async fn end(child: &mut Child) -> anyhow::Result<()> {
    signal(child, "TERM");
    let kill_at = Instant::now() + GRACE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= kill_at {
            child.kill()?;
        }
        tokio::time::sleep(CHILD_POLL).await;
    }
    Ok(())
}

/// The standard library only knows how to kill; the system's own `kill` knows the rest.
fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status();
    if !sent.is_ok_and(|status| status.success()) {
        screen::complain(&format!(
            "the signal {name} could not be sent to process {}",
            child.id()
        ));
    }
}
