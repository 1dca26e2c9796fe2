//! The gateways: whose turn it is, and who is skipped for a while because it took no connection or fell silent.
//!
//! Promises: over the gateways that are well, turns go round evenly. One that takes no connection is skipped for [`EJECT_MIN`], twice
//! as long after each further failure, [`EJECT_MAX`] at most; then a single request tries it while the others go on without it. When
//! all are skipped, nobody is: an attempt that may fail beats a refusal that certainly does.
//!
//! One that has requests but has answered none of them for [`SILENT_MAX`] (a frozen process: its kernel still takes connections) is
//! skipped likewise, with a single request to try it every [`EJECT_MAX`], until it answers. A gateway that answers slowly or with errors
//! stays: its answers are the truth about the system behind it, which is the same for all gateways.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;

use crate::limits::{BACKENDS_MAX, EJECT_MAX, EJECT_MIN, SILENT_MAX};
use crate::metrics::LbMetrics;

/// One address of a gateway.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    health: Health,
    picks: Counter,
}

/// A gateway chosen for a request.
#[derive(Debug, Clone)]
pub(crate) struct Pick {
    pub(crate) backend: Arc<Backend>,
    /// This request is the one that finds out whether the gateway is back.
    probe: bool,
}

impl Backend {
    fn new(addr: SocketAddr, metrics: &LbMetrics) -> Arc<Self> {
        Arc::new(Self {
            addr,
            health: Health::new(Instant::now()),
            picks: metrics.picks(addr),
        })
    }

    /// A request is about to be sent to it.
    pub(crate) fn asked(&self) {
        self.health.asked(Instant::now());
    }

    /// It has answered, so it is well.
    pub(crate) fn succeeded(&self) {
        self.health.succeeded();
    }

    /// It takes connections.
    pub(crate) fn connected(&self) {
        self.health.connected(Instant::now());
    }
}

impl Pick {
    /// It takes no connection.
    pub(crate) fn unreachable(&self, error: &std::io::Error, metrics: &LbMetrics) {
        if self.backend.health.failed(Instant::now(), self.probe) {
            metrics.ejections.inc();
            tracing::warn!(backend = %self.backend.addr, %error, "a gateway takes no connection; skipping it for a while");
        }
    }
}

/// Whether a gateway is skipped, in atomics: every request asks.
#[derive(Debug)]
struct Health {
    born: Instant,
    /// Milliseconds since `born`; 0 = not skipped.
    skipped_until_ms: AtomicU64,
    /// When it was asked and has not answered anything since, milliseconds since `born`; 0 = nothing is owed.
    silent_since_ms: AtomicU64,
    failures: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    /// Skipped long enough, or just found silent: one request may try it.
    Due,
    Skipped,
}

impl Health {
    fn new(born: Instant) -> Self {
        Self {
            born,
            skipped_until_ms: AtomicU64::new(0),
            silent_since_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
        }
    }

    fn state(&self, now: Instant) -> State {
        match self.skipped_until_ms.load(Ordering::Relaxed) {
            0 if !self.is_silent(now) => State::Well,
            until if until <= self.ms(now) => State::Due,
            _ => State::Skipped,
        }
    }

    /// Claims the single attempt of a gateway that is due. The others skip it until the attempt must be over.
    fn claim(&self, now: Instant) -> bool {
        let until = self.skipped_until_ms.load(Ordering::Relaxed);
        let next = self.ms(now + EJECT_MAX);
        self.state(now) == State::Due
            && self
                .skipped_until_ms
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// True when this failure starts (or prolongs) the skipping. Of many requests that fail together only the first counts.
    fn failed(&self, now: Instant, probe: bool) -> bool {
        if !probe && self.state(now) == State::Skipped {
            return false;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(16);
        let pause = EJECT_MIN.saturating_mul(1 << failures).min(EJECT_MAX);
        self.skipped_until_ms
            .store(self.ms(now + pause).max(1), Ordering::Relaxed);
        true
    }

    fn asked(&self, now: Instant) {
        // Only the first request after an answer counts; the common case is one that is owed already.
        if self.silent_since_ms.load(Ordering::Relaxed) == 0 {
            self.silent_since_ms.store(self.ms(now).max(1), Ordering::Relaxed);
        }
    }

    fn is_silent(&self, now: Instant) -> bool {
        let since = self.silent_since_ms.load(Ordering::Relaxed);
        since != 0 && self.ms(now).saturating_sub(since) > u64::try_from(SILENT_MAX.as_millis()).unwrap_or(u64::MAX)
    }

    /// It took a connection. That does not break a silence: the kernel takes connections for a frozen process too.
    fn connected(&self, now: Instant) {
        if !self.is_silent(now) {
            self.well();
        }
    }

    fn succeeded(&self) {
        self.silent_since_ms.store(0, Ordering::Relaxed);
        self.well();
    }

    fn well(&self) {
        if self.skipped_until_ms.load(Ordering::Relaxed) != 0 {
            self.skipped_until_ms.store(0, Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

/// All gateways.
#[derive(Debug)]
pub(crate) struct Backends {
    list: RwLock<Arc<[Arc<Backend>]>>,
    turn: AtomicUsize,
    metrics: Arc<LbMetrics>,
    /// Keeps two replacements from mixing.
    replacing: Mutex<()>,
}

impl Backends {
    pub(crate) fn new(metrics: Arc<LbMetrics>) -> Self {
        Self {
            list: RwLock::new(Arc::default()),
            turn: AtomicUsize::new(0),
            metrics,
            replacing: Mutex::new(()),
        }
    }

    /// Those known at present.
    pub(crate) fn list(&self) -> Arc<[Arc<Backend>]> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The gateway whose turn it is, other than those already tried; none when there is no other.
    pub(crate) fn pick(&self, tried: &[SocketAddr], now: Instant) -> Option<Pick> {
        let list = self.list();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let untried = |backend: &&Arc<Backend>| !tried.contains(&backend.addr);
        let open = |backend: &&Arc<Backend>| untried(backend) && backend.health.state(now) != State::Skipped;
        let chosen = |backend: &Arc<Backend>, probe| {
            backend.picks.inc();
            Some(Pick {
                backend: Arc::clone(backend),
                probe,
            })
        };
        let open_count = list.iter().filter(open).count();
        for offset in 0..open_count {
            let nth = turn.wrapping_add(offset) % open_count;
            let Some(backend) = list.iter().filter(open).nth(nth) else {
                break;
            };
            match backend.health.state(now) {
                State::Well => return chosen(backend, false),
                State::Due if backend.health.claim(now) => {
                    if backend.health.is_silent(now) {
                        self.metrics.ejections.inc();
                        tracing::warn!(backend = %backend.addr, "a gateway answers nothing; skipping it but for a request now and then");
                    }
                    return chosen(backend, true);
                }
                // Somebody else has just claimed it.
                State::Due | State::Skipped => {}
            }
        }
        let untried_count = list.iter().filter(untried).count();
        let nth = turn.checked_rem(untried_count)?;
        chosen(list.iter().filter(untried).nth(nth)?, false)
    }

    /// True when this gateway has fallen silent while another has not: it is this one's trouble, not that of the system behind all.
    pub(crate) fn other_is_well(&self, silent: &Backend, now: Instant) -> bool {
        let is_well = |other: &Arc<Backend>| other.addr != silent.addr && other.health.state(now) == State::Well;
        silent.health.is_silent(now) && self.list().iter().any(is_well)
    }

    /// Takes over a new list of addresses. Those that stay keep their connections and their history.
    pub(crate) fn replace(&self, addrs: &[SocketAddr]) {
        let _one_at_a_time = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.list();
        let mut addrs = addrs.to_vec();
        addrs.sort_unstable();
        addrs.dedup();
        addrs.truncate(BACKENDS_MAX);
        if old.iter().map(|backend| backend.addr).eq(addrs.iter().copied()) {
            return;
        }
        tracing::info!(gateways = ?addrs, "gateway addresses changed");
        let new: Arc<[Arc<Backend>]> = addrs
            .iter()
            .map(|addr| {
                old.iter()
                    .find(|backend| backend.addr == *addr)
                    .map_or_else(|| Backend::new(*addr, &self.metrics), Arc::clone)
            })
            .collect();
        self.metrics.backends.set(i64::try_from(new.len()).unwrap_or(i64::MAX));
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = new;
        for gone in old.iter().filter(|backend| !addrs.contains(&backend.addr)) {
            self.metrics.forget(gone.addr);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use service::metrics::Metrics;

    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn three() -> Backends {
        let backends = Backends::new(Arc::new(LbMetrics::new(&Metrics::new("lb"))));
        backends.replace(&[addr(3), addr(1), addr(2), addr(1)]);
        backends
    }

    fn shares(backends: &Backends, tried: &[SocketAddr], now: Instant) -> BTreeMap<u16, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..60 {
            *shares
                .entry(backends.pick(tried, now).unwrap().backend.addr.port())
                .or_default() += 1;
        }
        shares
    }

    #[test]
    fn turns_go_round_evenly() {
        let (backends, now) = (three(), Instant::now());
        assert_eq!(shares(&backends, &[], now), BTreeMap::from([(1, 20), (2, 20), (3, 20)]));
        assert_eq!(shares(&backends, &[addr(2)], now), BTreeMap::from([(1, 30), (3, 30)]));
        assert!(backends.pick(&[addr(1), addr(2), addr(3)], now).is_none());
        assert!(Backends::new(Arc::clone(&backends.metrics)).pick(&[], now).is_none());
    }

    #[test]
    fn one_that_fails_is_skipped_and_then_tried_by_a_single_request() {
        let (backends, start) = (three(), Instant::now());
        let sick = Arc::clone(&backends.list()[0]);
        assert!(sick.health.failed(start, false));
        assert!(
            !sick.health.failed(start, false),
            "failures at the same time count once"
        );
        assert_eq!(shares(&backends, &[], start), BTreeMap::from([(2, 30), (3, 30)]));
        let later = start + EJECT_MIN;
        assert_eq!(shares(&backends, &[], later)[&1], 1, "one probe");
        assert!(sick.health.failed(later, true));
        assert_eq!(
            sick.health.state(later + EJECT_MIN),
            State::Skipped,
            "twice as long now"
        );
        assert_eq!(sick.health.state(later + EJECT_MIN * 2), State::Due);
        sick.succeeded();
        assert_eq!(shares(&backends, &[], later)[&1], 20);
    }

    #[test]
    fn one_that_fell_silent_gets_a_request_now_and_then_until_it_answers() {
        let (backends, start) = (three(), Instant::now());
        let frozen = Arc::clone(&backends.list()[0]);
        frozen.health.asked(start);
        assert_eq!(
            shares(&backends, &[], start + SILENT_MAX)[&1],
            20,
            "slow is not silent yet"
        );
        let mut now = start + SILENT_MAX + EJECT_MIN;
        for _ in 0..3 {
            assert_eq!(shares(&backends, &[], now)[&1], 1, "one probe");
            frozen.health.asked(now);
            frozen.health.connected(now);
            assert_eq!(shares(&backends, &[], now).get(&1), None, "a connection is no answer");
            now += EJECT_MAX;
        }
        assert!(backends.other_is_well(&frozen, now), "its requests may go elsewhere");
        frozen.succeeded();
        assert!(!backends.other_is_well(&frozen, now));
        assert_eq!(shares(&backends, &[], now)[&1], 20);
    }

    #[test]
    fn when_all_are_silent_nobody_is_skipped() {
        let (backends, start) = (three(), Instant::now());
        for backend in backends.list().iter() {
            backend.health.asked(start);
        }
        let later = start + SILENT_MAX + EJECT_MIN;
        assert!(
            !backends.other_is_well(&backends.list()[0], later),
            "nowhere better to go"
        );
        assert_eq!(shares(&backends, &[], later).len(), 3);
        assert_eq!(
            shares(&backends, &[], later),
            BTreeMap::from([(1, 20), (2, 20), (3, 20)])
        );
    }

    #[test]
    fn skipping_never_lasts_longer_than_the_most() {
        let health = Health::new(Instant::now());
        let mut now = health.born;
        for _ in 0..100 {
            assert!(health.failed(now, true));
            now += EJECT_MAX;
            assert_eq!(health.state(now), State::Due);
        }
    }

    #[test]
    fn when_all_fail_nobody_is_skipped() {
        let (backends, now) = (three(), Instant::now());
        for backend in backends.list().iter() {
            backend.health.failed(now, false);
        }
        assert_eq!(shares(&backends, &[], now), BTreeMap::from([(1, 20), (2, 20), (3, 20)]));
    }

    #[test]
    fn those_that_stay_keep_their_history() {
        let (backends, now) = (three(), Instant::now());
        backends.list()[1].health.failed(now, false);
        backends.replace(&[addr(2), addr(4)]);
        assert_eq!(shares(&backends, &[], now), BTreeMap::from([(4, 60)]));
        backends.replace(&[]);
        assert!(backends.pick(&[], now).is_none());
    }
}
