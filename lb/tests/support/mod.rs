//! A load balancer on a free port, gateways that do as they are told, and an access log one can read.

// Each test file uses its own part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use lb::{Config, Lookup, Parts, Resolver, Target};
use service::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// No wait in these tests is longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Collects what is written.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    pub fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone())
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// A running load balancer.
pub struct Lb {
    pub base: String,
    pub addr: SocketAddr,
    pub log: Sink,
    pub client: reqwest::Client,
    pub shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Lb {
    /// Forwards to these addresses, with these further flags.
    pub async fn start(gateways: &[SocketAddr], flags: &[&str]) -> Self {
        Self::start_with(gateways, flags, |_| {}).await
    }

    pub async fn start_with(gateways: &[SocketAddr], flags: &[&str], change: impl FnOnce(&mut Parts)) -> Self {
        let urls: Vec<String> = gateways.iter().map(|addr| format!("http://{addr}")).collect();
        let urls = urls.join(",");
        let mut args = vec!["lb"];
        if !gateways.is_empty() {
            args.extend_from_slice(&["--target-url", &urls]);
        }
        args.extend_from_slice(flags);
        if !flags.contains(&"--lb-health-interval-sec") {
            // Most gateways here count what they are asked.
            args.extend_from_slice(&["--lb-health-interval-sec", "0"]);
        }
        let config: Config = service::settings::try_parse_from(args).unwrap();
        let log = Sink::default();
        let mut parts = Parts::new(&config);
        parts.access_log = Box::new(log.clone());
        change(&mut parts);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(lb::run_with(config, listener, shutdown.clone(), parts));
        let lb = Self {
            base: format!("http://{addr}"),
            addr,
            log,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            shutdown,
            task,
        };
        if !gateways.is_empty() {
            until("lb is ready", async || lb.get("/ready").await.status() == 200).await;
        }
        lb
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, key: Option<&str>, body: impl Into<reqwest::Body>) -> reqwest::Response {
        let mut request = self.client.post(format!("{}{path}", self.base)).body(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        request.send().await.unwrap()
    }

    pub async fn metric(&self, line: &str) -> u64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        text.lines()
            .find_map(|found| found.strip_prefix(line))
            .map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Sends bytes as they are and reads until the server closes or the patience ends.
    pub async fn raw(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn lines(&self, count: usize) -> Vec<String> {
        until("the access log has its lines", async || self.log.lines().len() >= count).await;
        self.log.lines()
    }

    pub async fn stop(self) -> Vec<String> {
        self.shutdown.stop();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.log.lines()
    }
}

/// A gateway that serves a router.
pub struct Gateway {
    pub addr: SocketAddr,
    task: JoinHandle<()>,
    shutdown: Shutdown,
}

impl Gateway {
    pub async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let limits = service::http::Limits {
            grace: Duration::from_millis(200),
            ..service::http::Limits::default()
        };
        let task = tokio::spawn(service::http::serve_router(listener, router, limits, shutdown.clone()));
        Self { addr, task, shutdown }
    }

    /// Stops accepting, closes idle connections, and keeps others from its port.
    pub async fn stop(self) -> Nobody {
        self.shutdown.stop();
        let socket = TcpSocket::new_v4().unwrap();
        // Its old connections may still linger in the system.
        socket.set_reuseaddr(true).unwrap();
        until("the port is free", async || socket.bind(self.addr).is_ok()).await;
        let _ = self.task.await;
        Nobody {
            addr: self.addr,
            _bound: socket,
        }
    }
}

/// A gateway below HTTP: hands every connection to `serve`, with its number.
pub async fn raw_gateway<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(usize, TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    addr
}

/// Reads one request's head (and what came with it).
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// A port where nobody listens, and that no other test is given as long as this lives.
pub struct Nobody {
    pub addr: SocketAddr,
    _bound: TcpSocket,
}

/// Refuses every connection.
pub fn nobody() -> Nobody {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    Nobody {
        addr: socket.local_addr().unwrap(),
        _bound: socket,
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Resolves every name to what the test says; nothing is a failure.
#[derive(Clone, Default)]
pub struct Scripted(pub Arc<Mutex<Vec<SocketAddr>>>);

impl Resolver for Scripted {
    fn resolve<'a>(&'a self, _: &'a Target) -> Lookup<'a> {
        Box::pin(async {
            let addrs = self.0.lock().unwrap().clone();
            if addrs.is_empty() {
                Err(io::Error::other("no DNS today"))
            } else {
                Ok(addrs)
            }
        })
    }
}
