//! The servers under test as child processes, on free ports of this machine, with their data in one folder.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::client::OpError;
use crate::etcd::Etcd;
use crate::ours::Ours;
use crate::process::{LOOK_EVERY, Process, START_WITHIN};
use crate::redis::Redis;
use crate::worker::timed;

/// Nodes of ours and of etcd.
const NODES: usize = 3;
/// etcd's limit of its database, bytes; at its default of 2 GiB long runs end in refusals.
const ETCD_QUOTA: &str = "--quota-backend-bytes=8589934592";
/// kvfront's limit of operations under way: 256 clients with batches of 100 are above its default.
const KVFRONT_OPS: &str = "--max-concurrent-ops=65536";

/// How to reach a system.
#[derive(Debug)]
pub(crate) enum System {
    Ours(Ours),
    Etcd(Etcd),
    Redis(Redis),
}

/// A system that runs, and its processes.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) system: System,
    /// The servers' process numbers.
    pub(crate) pids: Vec<u32>,
    /// Kept to be killed in the end.
    _processes: Vec<Process>,
}

impl Running {
    /// A system that somebody else started.
    pub(crate) fn elsewhere(system: System, pids: Vec<u32>) -> Self {
        Self {
            system,
            pids,
            _processes: Vec::new(),
        }
    }

    async fn when_ready(system: System, mut processes: Vec<Process>) -> anyhow::Result<Self> {
        let deadline = Instant::now() + START_WITHIN;
        while let Err(error) = timed(is_ready(&system)).await {
            processes.iter_mut().try_for_each(Process::check)?;
            if Instant::now() > deadline {
                return Err(error).context(format!("not ready within {START_WITHIN:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Self {
            system,
            pids: processes.iter().map(Process::pid).collect(),
            _processes: processes,
        })
    }
}

async fn is_ready(system: &System) -> Result<(), OpError> {
    match system {
        System::Ours(ours) => ours.is_ready().await,
        System::Etcd(etcd) => etcd.is_ready().await,
        System::Redis(redis) => redis.is_ready().await,
    }
}

/// Starts three kvstores and a kvfront from the programs in `programs`. Their other settings come from the environment.
pub(crate) async fn ours(programs: &Path, data: &Path) -> anyhow::Result<Running> {
    let server = |name: &str, log: &str| {
        let mut command = Command::new(programs.join(name));
        command.env("LOG", "warn").args(["--listen", "127.0.0.1:0"]);
        (command, data.join(log).with_extension("log"))
    };
    let mut processes = Vec::new();
    let mut backends = Vec::new();
    for node in 0..NODES {
        let name = format!("kvstore-{node}");
        let (mut command, log) = server("kvstore", &name);
        command.arg("--db-file").arg(data.join(&name).with_extension("db"));
        let mut process = Process::start(&mut command, log)?;
        backends.push(format!("{name}=http://{}", process.announced().await?));
        processes.push(process);
    }
    let (mut command, log) = server("kvfront", "kvfront");
    command.arg("--backends").arg(backends.join(",")).arg(KVFRONT_OPS);
    let mut front = Process::start(&mut command, log)?;
    let authority = front.announced().await?;
    processes.push(front);
    Running::when_ready(System::Ours(Ours { authority }), processes).await
}

/// Starts a cluster of three etcds; clients use all of them, or the leader only.
pub(crate) async fn etcd(data: &Path, leader_only: bool) -> anyhow::Result<Running> {
    let ports = free_ports(2 * NODES)?;
    let (clients, peers) = ports.split_at(NODES);
    let url = |port: &u16| format!("http://127.0.0.1:{port}");
    let cluster: Vec<_> = peers
        .iter()
        .enumerate()
        .map(|(node, port)| format!("etcd-{node}={}", url(port)))
        .collect();
    let mut processes = Vec::new();
    for (node, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let name = format!("etcd-{node}");
        let mut command = foreign("etcd");
        command.args(["--name", &name, "--initial-cluster", &cluster.join(",")]);
        command.arg("--data-dir").arg(data.join(&name));
        command.args([
            "--listen-client-urls",
            &url(client),
            "--advertise-client-urls",
            &url(client),
        ]);
        command.args([
            "--listen-peer-urls",
            &url(peer),
            "--initial-advertise-peer-urls",
            &url(peer),
        ]);
        command.args([
            "--initial-cluster-state=new",
            "--logger=zap",
            "--log-level=error",
            ETCD_QUOTA,
        ]);
        processes.push(Process::start(&mut command, data.join(name).with_extension("log"))?);
    }
    let members = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut running = Running::when_ready(System::Etcd(Etcd { members }), processes).await?;
    if let (true, System::Etcd(etcd)) = (leader_only, &running.system) {
        running.system = System::Etcd(timed(etcd.leader_only()).await?);
    }
    Ok(running)
}

/// Starts one Redis that syncs its log before it answers.
pub(crate) async fn redis(data: &Path) -> anyhow::Result<Running> {
    let [port] = free_ports(1)?[..] else {
        bail!("no free port")
    };
    let folder = data.join("redis");
    std::fs::create_dir_all(&folder)?;
    let mut command = foreign("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.arg("--dir").arg(&folder);
    // No snapshots besides: the log is what makes it durable.
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    let process = Process::start(&mut command, data.join("redis.log"))?;
    let addr = format!("127.0.0.1:{port}");
    Running::when_ready(System::Redis(Redis { addr }), vec![process]).await
}

/// A program of others, without our environment: their defaults count.
fn foreign(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.env(
        "PATH",
        std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")),
    );
    command
}

/// Ports that were free just now. Whoever takes one before the server does makes its start fail, which is told.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let open: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    open.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// What a program says its version is: its first three words, as `etcd Version: 3.4.23`.
pub(crate) fn version(program: &Path) -> String {
    match Command::new(program).arg("--version").output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            said.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
        }
        Err(error) => format!("unknown: {error}"),
    }
}
