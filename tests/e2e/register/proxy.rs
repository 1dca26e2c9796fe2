//! A TCP proxy of ours: the wire between a kvfront and a kvstore, which tests cut, slow down and sever.
//!
//! A cut wire loses nothing and says nothing: bytes stay where they are and travel on when it is whole again, as TCP does with a real
//! partition. So requests that everybody has given up on arrive late, which is the point of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes that one direction of one connection takes in before the other end has taken them.
const BUFFER_BYTES: usize = 16 << 10;

/// What the wire does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wire {
    /// Requests reach the kvstore.
    pub(crate) there: bool,
    /// Answers reach the kvfront.
    pub(crate) back: bool,
    /// Added to each chunk, in each direction.
    pub(crate) delay: Duration,
}

impl Wire {
    /// As if it were not there.
    pub(crate) const WHOLE: Self = Self {
        there: true,
        back: true,
        delay: Duration::ZERO,
    };
    /// Nothing passes.
    pub(crate) const CUT: Self = Self {
        there: false,
        back: false,
        ..Self::WHOLE
    };
    /// Requests arrive, answers do not.
    pub(crate) const NO_ANSWERS: Self = Self {
        back: false,
        ..Self::WHOLE
    };

    /// Whole, but slow.
    pub(crate) const fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::WHOLE }
    }
}

/// One proxy, on a port of its own that stays the same whatever happens behind it. Dropped, it is gone with its connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    wire: watch::Sender<Wire>,
    /// Where connections go; counted up when those there are have to end.
    target: watch::Sender<(SocketAddr, u64)>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (wire, target) = (watch::Sender::new(Wire::WHOLE), watch::Sender::new((target, 0)));
        let ends = Ends {
            wire: wire.subscribe(),
            target: target.subscribe(),
        };
        Self {
            addr,
            wire,
            target,
            accepting: tokio::spawn(accept(listener, ends)),
        }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// Sends new connections to `target`, and ends those there are.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.send_modify(|(addr, severed)| {
            *addr = target;
            *severed += 1;
        });
    }

    /// Ends every connection; new ones are taken.
    pub(crate) fn sever(&self) {
        self.target.send_modify(|(_, severed)| *severed += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Debug, Clone)]
struct Ends {
    wire: watch::Receiver<Wire>,
    target: watch::Receiver<(SocketAddr, u64)>,
}

async fn accept(listener: TcpListener, ends: Ends) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(carry(stream, ends.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, from the kvfront's side, until either end has closed or it is severed.
async fn carry(front: TcpStream, mut ends: Ends) {
    let (target, severed) = *ends.target.borrow_and_update();
    let both_ways = async {
        // The first bytes of a cut wire do not even get as far as a connection.
        passes(&ends.wire, |wire| wire.there).await?;
        let store = TcpStream::connect(target).await?;
        for stream in [&front, &store] {
            stream.set_nodelay(true)?;
        }
        let (from_front, to_front) = front.into_split();
        let (from_store, to_store) = store.into_split();
        let there = pump(from_front, to_store, &ends.wire, |wire| wire.there);
        let back = pump(from_store, to_front, &ends.wire, |wire| wire.back);
        // Each ends its direction, which ends the other one in turn.
        let _ = tokio::join!(there, back);
        io::Result::Ok(())
    };
    tokio::select! {
        _ = ends.target.wait_for(|(_, now)| *now != severed) => {}
        // A connection that cannot be made is to the kvfront as if refused, a little late.
        _ = both_ways => {}
    }
}

/// Carries bytes one way, and the end of them.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wire: &watch::Receiver<Wire>,
    open: impl Fn(&Wire) -> bool + Copy,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await;
        passes(wire, open).await?;
        match read {
            Ok(0) => return to.shutdown().await,
            Ok(bytes) => to.write_all(&buffer[..bytes]).await?,
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the wire is open this way, and for as long as it delays.
async fn passes(wire: &watch::Receiver<Wire>, open: impl Fn(&Wire) -> bool) -> io::Result<()> {
    let delay = wire
        .clone()
        .wait_for(|wire| open(wire))
        .await
        .map_err(|_| io::Error::other("the proxy is gone"))?
        .delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    Ok(())
}
