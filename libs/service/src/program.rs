//! The common `main` of every program.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;

use crate::settings::{CommonArgs, SettingError};
use crate::{Shutdown, logging, net, settings};

/// How long a health check may take in all.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// After the signal, how long a program may take to end before it is ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What [`serve`] and [`work`] need to know of a program's settings.
pub trait Program: Parser {
    /// The program's name, as users and logs know it.
    const NAME: &'static str;

    /// The common settings.
    fn common(&self) -> &CommonArgs;

    /// The address to listen on, for servers.
    fn listen(&self) -> Option<SocketAddr>;

    /// Threads that serve requests on a machine with so many processors, unless `WORKER_THREADS` says otherwise.
    #[must_use]
    fn worker_threads(processors: usize) -> usize {
        processors
    }

    /// Checks that go beyond a single value.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    fn validate(&self) -> Result<(), SettingError> {
        Ok(())
    }
}

/// A server's `main`: reads settings, opens the port, runs until SIGINT or SIGTERM, and explains what went wrong.
pub fn serve<C, F, Fut>(run: F) -> ExitCode
where
    C: Program,
    F: FnOnce(C, TcpListener, Shutdown) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let config: C = settings::parse();
    let Some(addr) = config.listen() else {
        settings::exit_with("this program does not listen")
    };
    if config.common().check_health {
        return match check_health(addr) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("{} on {addr} is not ready: {error}", C::NAME)),
        };
    }
    start(config, |config, shutdown| async move {
        let listener = net::bind(C::NAME, addr, "choose another with LISTEN (--listen ADDRESS:PORT)").await?;
        announce(C::NAME, &listener);
        run(config, listener, shutdown).await
    })
}

/// The `main` of a program that does not listen.
pub fn work<C, F, Fut>(run: F) -> ExitCode
where
    C: Program,
    F: FnOnce(C, Shutdown) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let config: C = settings::parse();
    start(config, run)
}

fn start<C, F, Fut>(config: C, run: F) -> ExitCode
where
    C: Program,
    F: FnOnce(C, Shutdown) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    if let Err(error) = config.validate().and_then(|()| logging::init(config.common())) {
        settings::exit_with(&error.to_string());
    }
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = config.common().worker_threads.map(NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.unwrap_or_else(|| C::worker_threads(processors)))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        let running = run(config, shutdown.clone());
        tokio::pin!(running);
        tokio::select! {
            result = &mut running => return result,
            () = shutdown.stopped() => {}
        }
        tokio::time::timeout(EXIT_TIMEOUT, running).await.unwrap_or_else(|_| {
            tracing::warn!("did not stop within {EXIT_TIMEOUT:?}; ending anyway");
            Ok(())
        })
    });
    runtime.shutdown_timeout(Duration::from_millis(500));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// Says where a server listens, whatever the log level: port 0 takes a free port, and whoever asked for it needs to know which.
#[expect(
    clippy::print_stderr,
    reason = "part of the programs' contract: the address of port 0"
)]
pub fn announce(service: &str, listener: &TcpListener) {
    if let Ok(addr) = listener.local_addr() {
        eprintln!("[{service}] listening on http://{addr}");
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the program ends here; its last word goes to whoever started it"
)]
fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

/// Asks `GET /ready` of a server on this machine. Plain blocking I/O: a container's health check should start fast.
fn check_health(listen: SocketAddr) -> Result<(), String> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, listen.port()), HEALTH_TIMEOUT)?;
        stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
        stream.set_write_timeout(Some(HEALTH_TIMEOUT))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(64 * 1024).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        Ok(())
    } else {
        Err(answer.lines().last().unwrap_or_default().to_owned())
    }
}
