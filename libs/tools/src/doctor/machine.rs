//! The machine: Docker and Compose, memory, disk, clock. Each is asked with the system's own tools; what is missing is no failure.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Finding;
use crate::compose;

/// Oldest Compose that understands `compose.yml` (profiles came with 1.28).
const COMPOSE_MIN: (u32, u32) = (1, 28);
/// The demo in containers takes about 300 MiB, and the same again while RabbitMQ starts.
const MEMORY_MIN_MIB: u64 = 600;
/// Below this the stores may soon have no place to write to.
const DISK_MIN_MIB: u64 = 1_024;

/// A container of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    /// The service of `compose.yml`.
    pub(super) service: String,
    pub(super) name: String,
    /// Docker's words: `Up 3 minutes (healthy)`.
    pub(super) status: String,
}

/// Looks at all of it.
pub(super) fn examine(data_dir: &Path) -> Vec<Finding> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut findings = vec![docker(), compose_version(), memory(&meminfo), disk(data_dir)];
    findings.extend(
        said(Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]))
            .map(|text| clock(&text)),
    );
    findings
}

/// What a command says on standard output, if it is there and succeeds.
fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn docker() -> Finding {
    const ADVICE: &str = "containers need it; the system in one process (`cargo run --release`) does not";
    let version =
        |side: &str| said(Command::new("docker").args(["version", "--format", &format!("{{{{.{side}.Version}}}}")]));
    match (version("Client"), version("Server")) {
        (_, Some(server)) if !server.is_empty() => Finding::ok("docker", server),
        (Some(client), _) => Finding::hint(
            "docker",
            format!("client {client}, but its server does not answer"),
            format!("start it, or let this user reach it: {ADVICE}"),
        ),
        // Without its server the client's version comes with an error.
        (None, _) if said(Command::new("docker").arg("--version")).is_some() => Finding::hint(
            "docker",
            "its server does not answer",
            format!("start it, or let this user reach it: {ADVICE}"),
        ),
        (None, _) => Finding::hint("docker", "not there", ADVICE),
    }
}

fn compose_version() -> Finding {
    let Some(words) = compose::words() else {
        return Finding::hint(
            "compose",
            "not there",
            "containers need `docker compose`, or docker-compose from 1.28 on",
        );
    };
    let version = said(Command::new(words[0]).args(&words[1..]).args(["version", "--short"])).unwrap_or_default();
    compose_of(&words.join(" "), &version)
}

fn compose_of(command: &str, version: &str) -> Finding {
    let found = format!("{command} {version}");
    let mut numbers = version
        .trim_start_matches('v')
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < COMPOSE_MIN => {
            Finding::ill("compose", found, "compose.yml needs 1.28 or newer")
        }
        (Some(_), Some(_)) => Finding::ok("compose", found),
        _ => Finding::hint("compose", found, "its version cannot be read; 1.28 or newer is needed"),
    }
}

fn memory(meminfo: &str) -> Finding {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (Some(available), Some(total)) = (kib("MemAvailable:"), kib("MemTotal:")) else {
        return Finding::hint("memory", "not known", "");
    };
    let (available, total) = (available / 1_024, total / 1_024);
    let found = format!("{available} of {total} MiB available");
    if available < MEMORY_MIN_MIB {
        Finding::hint(
            "memory",
            found,
            format!("the demo in containers wants {MEMORY_MIN_MIB} MiB"),
        )
    } else {
        Finding::ok("memory", found)
    }
}

fn disk(folder: &Path) -> Finding {
    // The folder may not be there yet.
    let there = folder
        .ancestors()
        .find(|path| path.exists() && !path.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let table = said(Command::new("df").arg("-Pk").arg(there)).unwrap_or_default();
    disk_of(&there.display().to_string(), &table)
}

/// Reads what `df -Pk` says: the second line's fourth column is what is available, KiB.
fn disk_of(folder: &str, table: &str) -> Finding {
    let available = table
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    let Some(mib) = available.map(|kib| kib / 1_024) else {
        return Finding::hint("disk", format!("of {folder}: not known"), "");
    };
    let found = format!("{mib} MiB available at {folder}");
    if mib < DISK_MIN_MIB {
        Finding::ill(
            "disk",
            found,
            "a kvstore that cannot write is not ready: make room, or use --data-dir elsewhere",
        )
    } else {
        Finding::ok("disk", found)
    }
}

fn clock(synchronized: &str) -> Finding {
    match synchronized {
        "yes" => Finding::ok("clock", "kept by NTP"),
        _ => Finding::hint(
            "clock",
            "not kept by NTP",
            "machines whose clocks differ by more than MAX_CLOCK_SKEW_MS refuse each other; on one machine it does not matter",
        ),
    }
}

/// The system's containers, running or not; none without Docker.
pub(super) fn containers() -> Vec<Container> {
    const FORMAT: &str = "{{.Label \"com.docker.compose.service\"}}\t{{.Names}}\t{{.Status}}";
    let filter = "label=com.docker.compose.service";
    let listed = said(Command::new("docker").args(["ps", "--all", "--filter", filter, "--format", FORMAT]));
    containers_of(&listed.unwrap_or_default())
}

fn containers_of(listed: &str) -> Vec<Container> {
    let container = |line: &str| {
        let mut columns = line.splitn(3, '\t').map(str::to_owned);
        Some(Container {
            service: columns.next()?,
            name: columns.next()?,
            status: columns.next()?,
        })
    };
    listed.lines().filter_map(container).collect()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::{clock, compose_of, containers_of, disk_of, memory};

    #[test]
    fn versions_of_compose() {
        for (version, state) in [
            ("1.29.2", State::Ok),
            ("v2.40.3", State::Ok),
            ("2.40.3-desktop.1", State::Ok),
            ("1.25.0", State::Ill),
            ("", State::Hint),
        ] {
            assert_eq!(compose_of("docker compose", version).state, state, "{version}");
        }
    }

    #[test]
    fn memory_and_disk() {
        let meminfo = "MemTotal:       16000000 kB\nMemFree:         1 kB\nMemAvailable:    2048000 kB\n";
        assert_eq!(
            (memory(meminfo).state, memory(meminfo).found.as_str()),
            (State::Ok, "2000 of 15625 MiB available")
        );
        assert_eq!(memory(&meminfo.replace("2048000", "2048")).state, State::Hint);
        assert_eq!(memory("").state, State::Hint);
        let df = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n/dev/sda1         20000000 10000000   9000000      53% /\n";
        assert_eq!(
            (disk_of("/d", df).state, disk_of("/d", df).found.as_str()),
            (State::Ok, "8789 MiB available at /d")
        );
        let full = disk_of("/d", &df.replace("9000000", "900000"));
        assert_eq!(full.state, State::Ill);
        assert!(full.advice.contains("--data-dir"));
        assert_eq!((clock("yes").state, clock("no").state), (State::Ok, State::Hint));
    }

    #[test]
    fn containers() {
        let listed = "lb\tdemo_lb_1\tUp 3 minutes (healthy)\nkvstore_b\tdemo_kvstore_b_1\tExited (137) 2 minutes ago\n";
        let found = containers_of(listed);
        assert_eq!(
            (found.len(), found[1].service.as_str(), found[1].status.as_str()),
            (2, "kvstore_b", "Exited (137) 2 minutes ago")
        );
    }
}
