//! Connections to gateways, and those of one worker that wait for their next request.
//!
//! Promises: a connection carries one request at a time; the one used last is used first, so that a pool grown by a burst shrinks again;
//! at most `LB_IDLE_PER_GATEWAY` wait per gateway, none longer than `LB_UPSTREAM_IDLE_SEC`, and none that the other end has closed or said
//! something unasked for on is used.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::backends::Backend;
use crate::limits::IDLE_FOR_UNREPEATABLE;

/// A connection in use by one request. Dropping it closes it; [`Pool::put`] keeps it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: TcpStream,
    pub(crate) backend: Arc<Backend>,
    /// It has carried a request before, so the other end may be closing it just now.
    pub(crate) reused: bool,
}

/// Which connections suit a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any: should it prove dead, the request can be repeated.
    Any,
    /// Only one that was busy a moment ago.
    Recent,
    /// A new one.
    Never,
}

#[derive(Debug)]
struct Idle {
    upstream: Upstream,
    since_ms: u64,
}

/// Idle connections of one worker, the oldest first.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
    /// Connections kept per gateway.
    most: usize,
    /// How long one is kept.
    timeout: Duration,
}

impl Pool {
    pub(crate) fn new(most: usize, timeout: Duration) -> Self {
        Self {
            idle: RefCell::default(),
            most,
            timeout,
        }
    }

    /// The connection to a gateway that was used last, if it suits.
    pub(crate) fn take(&self, addr: SocketAddr, reuse: Reuse, now_ms: u64) -> Option<Upstream> {
        let max_idle = match reuse {
            Reuse::Any => self.timeout,
            Reuse::Recent => self.timeout.min(IDLE_FOR_UNREPEATABLE),
            Reuse::Never => return None,
        };
        let mut idle = self.idle.borrow_mut();
        let idle = idle.get_mut(&addr)?;
        while idle.last().is_some_and(|newest| newest.is_young(max_idle, now_ms)) {
            let mut upstream = idle.pop()?.upstream;
            if upstream.is_quiet() {
                upstream.reused = true;
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection for the next request; closes it when enough are waiting.
    pub(crate) fn put(&self, upstream: Upstream, now_ms: u64) {
        let mut idle = self.idle.borrow_mut();
        let idle = idle.entry(upstream.backend.addr).or_default();
        if idle.len() < self.most {
            idle.push(Idle {
                upstream,
                since_ms: now_ms,
            });
        }
    }

    /// Closes what has idled too long, what the other end has closed, and what leads to gateways that are not among those known.
    pub(crate) fn prune(&self, known: &[Arc<Backend>], now_ms: u64) {
        self.idle.borrow_mut().retain(|addr, idle| {
            if !known.iter().any(|backend| backend.addr == *addr) {
                return false;
            }
            idle.retain(|one| one.is_young(self.timeout, now_ms) && one.upstream.is_quiet());
            !idle.is_empty()
        });
    }

    /// Closes all connections to a gateway.
    pub(crate) fn clear(&self, addr: SocketAddr) {
        self.idle.borrow_mut().remove(&addr);
    }
}

impl Idle {
    fn is_young(&self, max_idle: Duration, now_ms: u64) -> bool {
        Duration::from_millis(now_ms.saturating_sub(self.since_ms)) <= max_idle
    }
}

impl Upstream {
    /// Nothing has come on it, not even its end. Costs no system call.
    fn is_quiet(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.stream.poll_read_ready(&mut cx).is_pending()
    }
}
