//! How Compose is called here: `docker compose` where there is one, else `docker-compose`.

use std::process::{Command, Stdio};

use anyhow::bail;

/// The words that Compose is called with.
#[must_use]
pub fn words() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    let answers = |words: &&&[&str]| {
        let mut version = Command::new(words[0]);
        version.args(&words[1..]).arg("version");
        let status = version
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    WAYS.iter().find(answers).copied()
}

/// A command of Compose with these arguments.
///
/// # Errors
/// When neither way of calling it is there.
pub fn command(args: &[&str]) -> anyhow::Result<Command> {
    let Some(words) = words() else {
        bail!("neither `docker compose` nor `docker-compose` is there; give a file, or - and pipe the log in");
    };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(args);
    Ok(command)
}
