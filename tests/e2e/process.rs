//! One program of ours as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take until it says where it listens.
const START_WITHIN: Duration = Duration::from_secs(20);
/// How long a program may take to end after SIGTERM.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The program `name`, built beside this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    // target/PROFILE/deps/e2e-HASH → target/PROFILE/NAME
    let path = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("two folders up")
        .join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

/// A running (or killed) program. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    settings: Vec<(String, String)>,
    /// Where it listens; stays the same when it is started again.
    pub(crate) addr: Option<SocketAddr>,
    child: Child,
}

impl Process {
    /// Starts a server on a free port and waits until it says which.
    pub(crate) fn server(name: &str, settings: &[(&str, &str)]) -> Self {
        let mut process = Self::start(name, settings, Some("127.0.0.1:0"));
        process.addr = Some(process.announced());
        process
    }

    /// Starts another one with the same settings, on a port of its own.
    pub(crate) fn another(&self) -> Self {
        self.another_with(&[])
    }

    /// The same, with some settings of its own.
    pub(crate) fn another_with(&self, own: &[(&str, &str)]) -> Self {
        let shared = self.settings.iter();
        let mut settings: Vec<_> = shared.map(|(key, value)| (key.as_str(), value.as_str())).collect();
        // Of a setting that is given twice the last one counts.
        settings.extend(own);
        Self::server(&self.name, &settings)
    }

    /// Starts a program that does not listen.
    pub(crate) fn worker(name: &str, settings: &[(&str, &str)]) -> Self {
        let mut process = Self::start(name, settings, None);
        process.drain();
        process
    }

    fn start(name: &str, settings: &[(&str, &str)], listen: Option<&str>) -> Self {
        let settings: Vec<_> = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let child = spawn(name, &settings, listen);
        Self {
            name: name.to_owned(),
            settings,
            addr: None,
            child,
        }
    }

    /// Base URL of a server.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr.expect("a server has an address"))
    }

    /// `kill -9`: no goodbye, no flush.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end. Gives how long that took; fails when it takes too long.
    pub(crate) fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        self.signal("TERM");
        wait_until_blocking(STOP_WITHIN, &format!("{} ends after SIGTERM", self.name), || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        begun.elapsed()
    }

    /// Sends a signal by name, as `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), pid.as_str()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {pid}");
    }

    /// Physical memory it holds now, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).expect("it runs, on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("{path} has no VmRSS: {status}"))
    }

    /// Starts it again after a kill or stop, on the port it had.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        let addr = self.addr.map(|addr| addr.to_string());
        self.child = spawn(&self.name, &self.settings, addr.as_deref());
        if self.addr.is_some() {
            self.announced();
        } else {
            self.drain();
        }
    }

    /// Reads standard error until the program says where it listens; the rest is passed on to the test's own output.
    fn announced(&mut self) -> SocketAddr {
        let (tell, told) = mpsc::channel();
        let lines = BufReader::new(self.child.stderr.take().expect("piped")).lines();
        let name = self.name.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, addr)) = line.split_once("listening on http://")
                    && let Ok(addr) = addr.trim().parse::<SocketAddr>()
                {
                    let _ = tell.send(addr);
                }
                show(&name, &line);
            }
        });
        told.recv_timeout(START_WITHIN)
            .unwrap_or_else(|_| panic!("{} did not say where it listens", self.name))
    }

    fn drain(&mut self) {
        let lines = BufReader::new(self.child.stderr.take().expect("piped")).lines();
        let name = self.name.clone();
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| show(&name, &line)));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(name: &str, settings: &[(String, String)], listen: Option<&str>) -> Child {
    let mut command = Command::new(program(name));
    command
        .env("LOG", "warn")
        .envs(settings.iter().map(|(key, value)| (key, value)));
    if let Some(listen) = listen {
        command.env("LISTEN", listen);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    child.unwrap_or_else(|error| panic!("cannot start {name}: {error}"))
}

/// Waits for a condition; fails with `what` when it does not come true in time.
pub(crate) fn wait_until_blocking(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Waits for a condition; fails with `what` when it does not come true in time. Gives how long it took.
pub(crate) async fn wait_until(within: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    begun.elapsed()
}

/// A wait with an end, which counts the time in which this process was awake: a machine that stood still has kept everybody else waiting too.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
    looked: Instant,
}

impl Patience {
    /// Most time that counts between two looks.
    const STEP_MAX: Duration = Duration::from_secs(10);

    pub(crate) fn new(within: Duration) -> Self {
        Self {
            left: within,
            looked: Instant::now(),
        }
    }

    /// The time that counts since the last look.
    pub(crate) fn step(&mut self) -> Duration {
        let now = Instant::now();
        let step = (now - self.looked).min(Self::STEP_MAX);
        self.looked = now;
        self.left = self.left.saturating_sub(step);
        step
    }

    /// Whether the wait is over. To be asked at least so often.
    pub(crate) fn is_over(&mut self) -> bool {
        self.step();
        self.left.is_zero()
    }
}

/// What a program said is shown when its test fails.
#[expect(clippy::print_stderr, reason = "a test's report")]
fn show(name: &str, line: &str) {
    eprintln!("[{name}] {line}");
}
