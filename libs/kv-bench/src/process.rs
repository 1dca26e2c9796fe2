//! A server as a child process, with what it says in a file.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long servers may take until they do their work.
pub const START_WITHIN: Duration = Duration::from_secs(30);
/// Pause between two looks at whether they do.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A server. Dropped, it is killed: its data is of no use to anybody.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; everything it says goes to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started, or the file not be written.
    pub fn start(command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, log })
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// The last that it said.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(5)..].join("\n");
            bail!("a server ended ({status}), {}:\n{last}", self.log.display());
        }
        Ok(())
    }

    /// Where it says that it listens, as our programs do: `host:port`.
    ///
    /// # Errors
    /// When it ends, or does not say so within [`START_WITHIN`].
    pub async fn announced(&mut self) -> anyhow::Result<String> {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let said = std::fs::read_to_string(&self.log)?;
            let mut lines = said.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some((_, addr)) = lines.find_map(|line| line.split_once("listening on http://")) {
                return Ok(addr.trim().to_owned());
            }
            self.check()?;
            if Instant::now() > deadline {
                bail!(
                    "{}: no word of where it listens within {START_WITHIN:?}",
                    self.log.display()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
