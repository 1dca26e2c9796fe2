//! The backend and the proxies as child processes on free ports of this machine, each with one worker, keep-alive on both sides, and an
//! access log.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::args::{Args, Via};
use crate::load::LOOK_EVERY;

/// How long a server may take until it listens.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Idle connections to the backend that each proxy may keep: more than there are clients.
const KEEPALIVE: u32 = 1_024;

/// A server. Dropped, it is killed.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers `/BYTES` with so many bytes.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    _process: Process,
}

/// A proxy in front of the backend.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    process: Process,
}

impl Backend {
    /// nginx with constants: files of these sizes, kept open.
    pub(crate) fn start(args: &Args, folder: &Path) -> anyhow::Result<Self> {
        let addr = free_addr()?;
        let root = folder.join("www");
        std::fs::create_dir_all(&root)?;
        for bytes in &args.sizes {
            std::fs::write(root.join(bytes.to_string()), "x".repeat(usize::try_from(*bytes)?))?;
        }
        let mut config = nginx_preamble(&folder.join("backend"))?;
        // The smallest ones as constants in the configuration, which spares the backend a file for each.
        let constants: String = args
            .sizes
            .iter()
            .filter(|bytes| **bytes <= 2048)
            .map(|bytes| {
                format!(
                    "location = /{bytes} {{ return 200 {}; }}\n",
                    "x".repeat(usize::try_from(*bytes).unwrap_or(0))
                )
            })
            .collect();
        write!(
            config,
            "access_log off; sendfile on; open_file_cache max=100 inactive=1h; open_file_cache_valid 1h; keepalive_requests 1000000000;
             server {{ listen {addr} reuseport backlog=4096; root {}; default_type text/plain; {constants} }} }}",
            std::fs::canonicalize(&root)?.display()
        )?;
        let process = nginx(&args.other_cpus, &folder.join("backend"), &config)?;
        let mut backend = Self {
            addr,
            _process: process,
        };
        wait_for(addr, &mut backend._process)?;
        Ok(backend)
    }
}

impl Proxy {
    /// None for the direct way.
    pub(crate) fn start(via: Via, args: &Args, backend: &Backend, folder: &Path) -> anyhow::Result<Option<Self>> {
        let addr = free_addr()?;
        let own = folder.join(via.name());
        std::fs::create_dir_all(&own)?;
        let process = match via {
            Via::Direct => return Ok(None),
            Via::Ours => ours(args, addr, backend.addr, &own)?,
            Via::Nginx => {
                let mut config = nginx_preamble(&own)?;
                write!(
                    config,
                    "access_log {} combined buffer=64k flush=1s; keepalive_requests 1000000000;
                     proxy_buffer_size 16k; proxy_buffers 16 16k; proxy_busy_buffers_size 64k; proxy_max_temp_file_size 0;
                     upstream backend {{ server {}; keepalive {KEEPALIVE}; keepalive_requests 1000000000; }}
                     server {{ listen {addr} reuseport backlog=4096;
                       location / {{
                         proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\";
                         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
                       }} }} }}",
                    own.join("access.log").display(),
                    backend.addr
                )?;
                nginx(&args.proxy_cpus, &own, &config)?
            }
            Via::Haproxy => haproxy(args, addr, backend.addr, &own)?,
        };
        let mut proxy = Self { addr, process };
        wait_for(addr, &mut proxy.process).with_context(|| format!("{} does not listen", via.name()))?;
        Ok(Some(proxy))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

fn ours(args: &Args, addr: SocketAddr, backend: SocketAddr, folder: &Path) -> anyhow::Result<Process> {
    let mut command = pinned(&args.proxy_cpus, &lb_program(args)?);
    command.env("LOG", "warn").env("WORKER_THREADS", "1");
    command.args([
        "--listen",
        &addr.to_string(),
        "--target-url",
        &format!("http://{backend}"),
    ]);
    command.stdout(File::create(folder.join("access.log"))?);
    command.stderr(File::create(folder.join("error.log"))?);
    spawn(command)
}

fn haproxy(args: &Args, addr: SocketAddr, backend: SocketAddr, folder: &Path) -> anyhow::Result<Process> {
    let path = folder.join("haproxy.cfg");
    let config = format!(
        "global\n nbthread 1\n maxconn 4000\n log stdout format raw local0\n\
         defaults\n mode http\n log global\n option httplog\n option forwardfor\n http-reuse always\n\
         \x20timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         frontend front\n bind {addr} backlog 4096\n default_backend back\n\
         backend back\n server one {backend} pool-max-conn -1\n"
    );
    std::fs::write(&path, config)?;
    let mut command = pinned(&args.proxy_cpus, Path::new("haproxy"));
    command.args(["-db", "-f"]).arg(&path);
    command.stdout(File::create(folder.join("access.log"))?);
    command.stderr(File::create(folder.join("error.log"))?);
    spawn(command)
}

/// Everything up to the inside of `http`: one process, no daemon.
fn nginx_preamble(folder: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder)?;
    let folder = std::fs::canonicalize(folder)?;
    let folder = folder.display();
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(temporary, "{kind}_temp_path {folder}/{kind};")?;
    }
    Ok(format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
         events {{ worker_connections 8000; }}
         http {{ {temporary}"
    ))
}

fn nginx(cpus: &str, folder: &Path, config: &str) -> anyhow::Result<Process> {
    let path = folder.join("nginx.conf");
    std::fs::write(&path, config)?;
    let mut command = pinned(cpus, Path::new("nginx"));
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(std::fs::canonicalize(&path)?);
    command.arg("-e").arg(folder.join("start.log"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    spawn(command)
}

/// taskset replaces itself by the program, so the child's process number is the program's.
fn pinned(cpus: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cpus]).arg(program).stdin(Stdio::null());
    command
}

fn spawn(mut command: Command) -> anyhow::Result<Process> {
    Ok(Process(command.spawn().context("cannot start taskset (util-linux)")?))
}

/// A port that was free just now. Whoever takes it before the server does makes its start fail, which is told.
fn free_addr() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn wait_for(addr: SocketAddr, process: &mut Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_WITHIN;
    while TcpStream::connect(addr).is_err() {
        if let Some(status) = process.0.try_wait()? {
            bail!("it ended ({status})");
        }
        if Instant::now() > deadline {
            bail!("nobody listens on {addr} after {START_WITHIN:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn lb_program(args: &Args) -> anyhow::Result<PathBuf> {
    match &args.lb {
        Some(path) => Ok(path.clone()),
        None => Ok(std::env::current_exe()?.with_file_name("lb")),
    }
}

/// What each program says its version is, as far as it is measured.
pub(crate) fn versions(args: &Args) -> Vec<String> {
    let lb = lb_program(args).unwrap_or_default();
    let programs = [
        (Via::Ours, lb.as_path(), "--version"),
        (Via::Nginx, Path::new("nginx"), "-v"),
        (Via::Haproxy, Path::new("haproxy"), "-v"),
    ];
    programs
        .into_iter()
        .filter(|(via, ..)| args.targets.contains(via))
        .filter_map(|(_, program, flag)| {
            let output = Command::new(program).arg(flag).output().ok()?;
            let said = [output.stdout, output.stderr].concat();
            Some(String::from_utf8_lossy(&said).lines().next()?.to_owned())
        })
        .collect()
}
