//! A private RabbitMQ for tests: a child process with its own ports, data and cookie, gone with the test whatever becomes of it.
//!
//! Blocking calls: from async tests, use `spawn_blocking`.

use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for a broker to answer. A cold start takes some 7 s alone on two cores, and tests run beside compilers.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// Longest wait for a broker to end.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Pause between two looks at a condition.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Where packages put the broker's start script. Debian's wrapper in `/usr/sbin` insists on a user of its own, so it comes last.
const SERVER_PATHS: [&str; 4] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
    "/usr/sbin/rabbitmq-server",
];

/// What watches over the broker and Erlang's port mapper, from outside their process group.
///
/// It reads its standard input: `stop` ends the broker gracefully, `kill` at once, both keeping its data. The end of the input
/// means that the test is gone, however it ended, and takes everything along, the directory included.
const KEEPER: &str = r#"
"$EPMD" -port "$ERL_EPMD_PORT" </dev/null >/dev/null 2>&1 &
epmd=$!
setsid "$SERVER" </dev/null >"$DIR/server.log" 2>&1 &
server=$!
read -r order
if [ "$order" = stop ]; then
    kill -s TERM -- "-$server"
    left=60
    while [ $left -gt 0 ] && kill -s 0 -- "-$server" 2>/dev/null; do sleep 0.2; left=$((left - 1)); done
fi
kill -s KILL -- "-$server"
kill -s KILL "$epmd"
wait
[ -n "$order" ] || rm -rf "$DIR"
"#;

/// A running broker (or a stopped one, between [`Broker::stop`] and [`Broker::start_again`]). Dropped, it is killed and its data
/// deleted.
#[derive(Debug)]
pub struct Broker {
    /// Where to connect, with credentials: `amqp://guest:guest@127.0.0.1:PORT`.
    pub url: String,
    server: PathBuf,
    directory: PathBuf,
    ports: Ports,
    running: Option<Keeper>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    amqp: u16,
    distribution: u16,
    epmd: u16,
}

#[derive(Debug)]
struct Keeper {
    shell: Child,
    orders: ChildStdin,
}

impl Broker {
    /// True if this machine has a RabbitMQ to start.
    #[must_use]
    pub fn installed() -> bool {
        server_path().is_some()
    }

    /// Starts a broker of its own and waits until it speaks AMQP.
    ///
    /// Fails if RabbitMQ (Debian: package `rabbitmq-server`) is not installed, or does not start.
    pub fn start() -> Result<Self, String> {
        let server = server_path().ok_or("RabbitMQ is not installed: install the package rabbitmq-server")?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(format!("bus-broker-{id}"));
        fs::create_dir_all(&directory).map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
        // Read by RabbitMQ in place of what the package has set up for the system's own broker.
        for (name, content) in [
            ("plugins", "[].\n"),
            ("rabbitmq.conf", ""),
            ("advanced.config", "[].\n"),
            ("env.conf", ""),
        ] {
            let path = directory.join(name);
            fs::write(&path, content).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        let ports = free_ports().map_err(|error| format!("no free ports: {error}"))?;
        let mut broker = Self {
            url: format!("amqp://guest:guest@127.0.0.1:{}", ports.amqp),
            server,
            directory,
            ports,
            running: None,
        };
        broker.start_again()?;
        Ok(broker)
    }

    /// Starts a stopped broker on the same port with the data it had. Does nothing while it runs.
    pub fn start_again(&mut self) -> Result<(), String> {
        if self.running.is_some() {
            return Ok(());
        }
        let mut shell = self
            .command()
            .spawn()
            .map_err(|error| format!("cannot start sh: {error}"))?;
        let orders = shell.stdin.take().ok_or("the shell has no standard input")?;
        let keeper = self.running.insert(Keeper { shell, orders });
        let deadline = Instant::now() + START_DEADLINE;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.amqp));
        while !speaks_amqp(address) {
            if !matches!(keeper.shell.try_wait(), Ok(None)) || Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.join("server.log")).unwrap_or_default();
                self.kill();
                return Err(format!(
                    "RabbitMQ did not start within {} s; it said:\n{log}",
                    START_DEADLINE.as_secs()
                ));
            }
            thread::sleep(POLL_EVERY);
        }
        Ok(())
    }

    /// Stops the broker gracefully, as a restart for maintenance does. Its port and data stay for [`Broker::start_again`].
    pub fn stop(&mut self) {
        self.end(b"stop\n");
    }

    /// Kills the broker, as a power cut does. Its port and data stay for [`Broker::start_again`].
    pub fn kill(&mut self) {
        self.end(b"kill\n");
    }

    /// Process numbers of the broker itself, by its folder in `/proc`; none while it is stopped, or where there is no `/proc`.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let home = self.directory.as_os_str().as_encoded_bytes();
        let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).any(|argument| argument == home)
        })
        .collect()
    }

    fn end(&mut self, order: &[u8]) {
        if let Some(mut keeper) = self.running.take() {
            // If the shell is gone already there is nobody to take orders.
            let _ = keeper.orders.write_all(order);
            drop(keeper.orders);
            wait_for(&mut keeper.shell);
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", KEEPER])
            // Apart from the test's group, so that Ctrl-C at the test does not reach it before its input ends.
            .process_group(0)
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env("SERVER", &self.server)
            .env("EPMD", "epmd")
            .env("DIR", &self.directory)
            .env("HOME", &self.directory)
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env(
                "RABBITMQ_NODENAME",
                format!("bus-{}-{}@localhost", std::process::id(), self.ports.amqp),
            )
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.ports.amqp.to_string())
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            // Signals reach the broker itself: left to its script, a stop is another Erlang's work and takes a dozen seconds more.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            // Few threads, as several brokers share a small machine; and no port mapper that would outlive the keeper.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 1:1 +sbwt none -start_epmd false",
            );
        for (variable, name) in [
            ("RABBITMQ_MNESIA_BASE", "data"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_PID_FILE", "pid"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
            ("RABBITMQ_CONF_ENV_FILE", "env.conf"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
        ] {
            command.env(variable, self.directory.join(name));
        }
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.running.take() {
            // The end of its input tells the keeper to take everything along.
            drop(keeper.orders);
            wait_for(&mut keeper.shell);
        }
        // Left over if the broker was stopped.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn server_path() -> Option<PathBuf> {
    SERVER_PATHS
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists())
        .map(Path::to_path_buf)
}

/// Ports nobody uses now. All are held while the next is chosen, so that they differ.
fn free_ports() -> std::io::Result<Ports> {
    let listeners = [free_port()?, free_port()?, free_port()?];
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    Ok(Ports {
        amqp: port(&listeners[0])?,
        distribution: port(&listeners[1])?,
        epmd: port(&listeners[2])?,
    })
}

/// Holds a port below those that the system gives out by itself: the broker takes seconds until it binds its ports, is stopped and started
/// again, and any connection that another test makes meanwhile may be given one of the others.
fn free_port() -> std::io::Result<TcpListener> {
    const LOWEST: u16 = 20_000;
    const TRIES: u16 = 100;
    let highest = first_ephemeral_port().filter(|first| *first > LOWEST + TRIES);
    if let Some(highest) = highest {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..TRIES {
            // Apart from those of other processes and of earlier runs.
            let place = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let mixed = BuildHasherDefault::<DefaultHasher>::default().hash_one(place);
            #[expect(clippy::cast_possible_truncation, reason = "less than a port's range")]
            let port = LOWEST + (mixed % u64::from(highest - LOWEST)) as u16;
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                return Ok(listener);
            }
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

/// The first port the system gives out by itself, where that can be found out.
fn first_ephemeral_port() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

/// True if whoever listens there answers AMQP's greeting with a method frame: an open port alone may not be ready.
fn speaks_amqp(address: SocketAddr) -> bool {
    let greet = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut frame_type = [0];
        stream.read_exact(&mut frame_type)?;
        Ok(frame_type[0])
    };
    const METHOD_FRAME: u8 = 1;
    greet().is_ok_and(|frame_type| frame_type == METHOD_FRAME)
}

fn wait_for(child: &mut Child) {
    let deadline = Instant::now() + STOP_DEADLINE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            // The keeper itself hangs; without it nothing is left to try.
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(POLL_EVERY);
    }
}
