//! Ten thousand idle connections and a thousand that send a byte now and then: others are served while all of them are open.
//!
//! The load balancer runs as a program of its own, so that each side has its own limit of open files.

#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use futures_util::{StreamExt, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::Gateway;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const IDLE: usize = 10_000;
const SLOW: usize = 1_000;

/// For everything else that is open, here and there.
const SPARE_FILES: u64 = 500;

/// Connections from one source address, so that its ports suffice however often this runs.
const PER_SOURCE: usize = 500;

/// No step takes longer, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(180);

/// Ended when the test is, whatever becomes of it.
struct Program {
    process: Child,
    addr: SocketAddr,
}

impl Program {
    fn start(gateway: SocketAddr) -> Self {
        let target = format!("http://{gateway}");
        let mut process = Command::new(env!("CARGO_BIN_EXE_lb"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--target-url",
                &target,
                "--access-log",
                "off",
            ])
            // Nobody is given up while this test is slow.
            .args(["--lb-keep-alive-sec", "3600", "--lb-request-head-sec", "3600"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let addr = lines
            .find_map(|line| line.unwrap().split_once("listening on http://")?.1.trim().parse().ok())
            .expect("it says where it listens");
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, addr }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[expect(
    clippy::print_stdout,
    reason = "whoever reads the test's output should know what it showed"
)]
/// How many connections of each kind the limit of open files allows.
fn crowd() -> (usize, usize) {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(allowed.saturating_sub(SPARE_FILES)).unwrap_or(usize::MAX);
    if room >= IDLE + SLOW {
        return (IDLE, SLOW);
    }
    println!("only {allowed} files may be open (ulimit -Hn), so the crowd is smaller than {IDLE} and {SLOW}");
    (room / 11 * 10, room / 11)
}

async fn connect(to: SocketAddr, number: usize) -> TcpStream {
    let source = u8::try_from(number / PER_SOURCE + 2).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 1, source), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Reads an answer of the gateway below to its end.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\nok") {
        assert_ne!(
            stream.read_buf(&mut text).await.unwrap(),
            0,
            "closed by the load balancer"
        );
    }
    String::from_utf8(text).unwrap()
}

async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(answer(stream).await.starts_with("HTTP/1.1 200 "));
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

#[tokio::test]
async fn others_are_served_beside_many_idle_and_slow_connections() {
    let (idle_count, slow_count) = crowd();
    let gateway = Gateway::start(Router::new().fallback(any(|| async { "ok" }))).await;
    let lb = Program::start(gateway.addr);
    let idle = stream::iter(0..idle_count).map(|number| async move {
        let mut stream = connect(lb.addr, number).await;
        ask(&mut stream).await;
        stream
    });
    let mut idle: Vec<_> = within(
        "idle connections, each with an answer",
        idle.buffer_unordered(64).collect(),
    )
    .await;
    let slow = stream::iter(0..slow_count).map(|number| async move {
        let mut stream = connect(lb.addr, idle_count + number).await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            .await
            .unwrap();
        stream
    });
    let mut slow: Vec<_> = within("slow connections", slow.buffer_unordered(64).collect()).await;
    let mut other = connect(lb.addr, idle_count + slow_count).await;
    for _ in 0..20 {
        for stream in &mut slow {
            stream.write_all(b"y").await.unwrap();
        }
        for _ in 0..10 {
            within("another client's answer", ask(&mut other)).await;
        }
        let mut fresh = connect(lb.addr, idle_count + slow_count + 1).await;
        within("a new client's answer", ask(&mut fresh)).await;
    }
    // All of them were there all the time.
    for stream in idle.iter_mut().step_by(50) {
        within("the answer of an idle one", ask(stream)).await;
    }
    for stream in &mut slow {
        stream.write_all(b"\r\n\r\n").await.unwrap();
        assert!(
            within("the answer of a slow one", answer(stream))
                .await
                .starts_with("HTTP/1.1 200 ")
        );
    }
}
