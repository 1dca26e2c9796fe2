//! The gateways: whose turn it is, and who is skipped for a while because it took no connection or fell silent.
//!
//! Promises: over the gateways that are well, turns go round evenly. One that takes no connection is skipped for `EJECT_MIN`, twice
//! as long after each further failure, `EJECT_MAX` at most; then a single request tries it while the others go on without it. When
//! all are skipped, nobody is: an attempt that may fail beats a refusal that certainly does.
//!
//! One that has requests but has answered none of them for `SILENT_MAX` (a frozen process: its kernel still takes connections) is
//! skipped likewise, with a single request to try it every `EJECT_MAX`, until it answers. A gateway that answers slowly or with errors
//! stays as long as the others do the same: its answers are then the truth about the system behind all. One that answers `LB_EJECT_ERRORS` times in a
//! row with errors (or breaks off) while another has none is skipped like one that takes no connection, unless fewer than half of the gateways would
//! be left. One that fails its health checks (`check`) is left out under the same condition. Whoever comes back gets its share little by little,
//! over `LB_SLOW_START_SEC`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::health::{Health, State};
use crate::limits::{BACKENDS_MAX, seconds};
use crate::metrics::{BackendCounters, LbMetrics};
use crate::policy::{Dice, Load, Policy, UnderWay};
use crate::retry::RetryBudget;

/// One address of a gateway.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    health: Health,
    load: Load,
    counters: BackendCounters,
}

/// A gateway chosen for a request.
#[derive(Debug, Clone)]
pub(crate) struct Pick {
    pub(crate) backend: Arc<Backend>,
    /// This request is the one that finds out whether the gateway is back.
    probe: bool,
}

impl Backend {
    fn new(addr: SocketAddr, now_ms: u64, metrics: &LbMetrics) -> Arc<Self> {
        Arc::new(Self {
            addr,
            health: Health::new(Instant::now()),
            load: Load::new(now_ms),
            counters: metrics.backend(addr),
        })
    }

    /// A request is about to be sent to it.
    pub(crate) fn asked(&self) {
        self.health.asked(Instant::now());
    }

    /// It takes connections.
    pub(crate) fn connected(&self) {
        self.health.connected(Instant::now());
    }
}

impl Pick {
    fn of(backend: &Arc<Backend>, probe: bool) -> Self {
        Self {
            backend: Arc::clone(backend),
            probe,
        }
    }

    /// It takes no connection.
    pub(crate) fn unreachable(&self, error: &std::io::Error, metrics: &LbMetrics) {
        if self.backend.health.failed(Instant::now(), self.probe) {
            metrics.ejections.inc();
            tracing::warn!(backend = %self.backend.addr, %error, "a gateway takes no connection; skipping it for a while");
        }
    }
}

/// Whether an answer says that the gateway could not do its work, rather than that there is something about the request.
fn is_error(status: u16) -> bool {
    matches!(status, 500 | 502..=504)
}

/// Whether so many gateways are enough to leave the others out.
fn is_half(left: usize, all: usize) -> bool {
    left * 2 >= all
}

/// The settings about gateways.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    /// Repetitions allowed per request.
    pub(crate) retry_share: f64,
    /// Repetitions a second allowed in any case.
    pub(crate) retry_min_per_sec: f64,
    /// Errors in a row after which a gateway is skipped; 0 = never.
    pub(crate) eject_errors: u32,
    /// How long one that comes back takes to get its whole share.
    pub(crate) slow_start: Duration,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        Self {
            policy: config.lb_policy,
            retry_share: config.faults.lb_retry_budget_pct / 100.0,
            retry_min_per_sec: config.faults.lb_retry_min_per_sec,
            eject_errors: config.faults.lb_eject_errors,
            slow_start: seconds(config.faults.lb_slow_start_sec),
        }
    }
}

#[cfg(test)]
impl Rules {
    /// Those of a load balancer with no settings of its own.
    pub(crate) fn usual() -> Self {
        Self::from(&service::settings::try_parse_from::<Config>(["lb"]).unwrap())
    }
}

/// All gateways.
#[derive(Debug)]
pub(crate) struct Backends {
    list: RwLock<Arc<[Arc<Backend>]>>,
    turn: AtomicUsize,
    rules: Rules,
    dice: Dice,
    retries: RetryBudget,
    born: Instant,
    metrics: Arc<LbMetrics>,
    /// Keeps two replacements from mixing.
    replacing: Mutex<()>,
}

impl Backends {
    /// None yet. `seed`: of the random choices that some policies make.
    pub(crate) fn new(rules: Rules, seed: u64, metrics: Arc<LbMetrics>) -> Self {
        let now = Instant::now();
        Self {
            list: RwLock::new(Arc::default()),
            turn: AtomicUsize::new(0),
            rules,
            dice: Dice::new(seed),
            retries: RetryBudget::new(rules.retry_share, rules.retry_min_per_sec, now),
            born: now,
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
        let chosen = match self.rules.policy {
            Policy::RoundRobin => self.in_turn(&list, turn, untried, now),
            Policy::LeastConn | Policy::P2cEwma => self.by_load(&list, turn, untried, now),
        };
        let pick = match chosen {
            Some(pick) => pick,
            None => {
                let count = list.iter().filter(untried).count();
                let nth = turn.checked_rem(count)?;
                Pick::of(list.iter().filter(untried).nth(nth)?, false)
            }
        };
        pick.backend.counters.picks.inc();
        Some(pick)
    }

    /// The one whose turn it is among those that are well or may be tried.
    fn in_turn(
        &self,
        list: &[Arc<Backend>],
        turn: usize,
        untried: impl Fn(&&Arc<Backend>) -> bool,
        now: Instant,
    ) -> Option<Pick> {
        let open = |backend: &&Arc<Backend>| untried(backend) && backend.health.state(now) != State::Skipped;
        let open_count = list.iter().filter(open).count();
        let mut returning = None;
        for offset in 0..open_count {
            let nth = turn.wrapping_add(offset) % open_count;
            let backend = list.iter().filter(open).nth(nth)?;
            match backend.health.state(now) {
                State::Well if self.takes_its_turn(backend, now) => return Some(Pick::of(backend, false)),
                State::Well => returning = returning.or(Some(backend)),
                // Somebody else may have just claimed it.
                State::Due if self.claim(backend, now) => return Some(Pick::of(backend, true)),
                State::Due | State::Skipped => {}
            }
        }
        returning.map(|backend| Pick::of(backend, false))
    }

    /// False now and then for one that has just come back.
    fn takes_its_turn(&self, backend: &Backend, now: Instant) -> bool {
        let share = backend.health.share(now, self.rules.slow_start);
        share.is_none_or(|share| self.dice.says_yes(share))
    }

    /// What this would be for one that has its whole share, as a cost.
    fn weighed(&self, cost: f32, backend: &Backend, now: Instant) -> f32 {
        cost / backend.health.share(now, self.rules.slow_start).unwrap_or(1.0)
    }

    /// One that waits for its trial, else the one that costs least.
    fn by_load(
        &self,
        list: &[Arc<Backend>],
        turn: usize,
        untried: impl Fn(&&Arc<Backend>) -> bool,
        now: Instant,
    ) -> Option<Pick> {
        let is_due = |backend: &&Arc<Backend>| untried(backend) && backend.health.state(now) == State::Due;
        if let Some(backend) = list.iter().filter(is_due).find(|backend| self.claim(backend, now)) {
            return Some(Pick::of(backend, true));
        }
        let well = |backend: &&Arc<Backend>| untried(backend) && backend.health.state(now) == State::Well;
        let count = list.iter().filter(well).count();
        let backend = match self.rules.policy {
            Policy::P2cEwma if count > 1 => {
                let (one, other) = self.dice.two_below(count);
                let (one, other) = (list.iter().filter(well).nth(one)?, list.iter().filter(well).nth(other)?);
                let now_ms = self.ms(now);
                let cost = |backend: &Backend| self.weighed(backend.load.cost(now_ms), backend, now);
                if cost(other) < cost(one) { other } else { one }
            }
            // Of those equally busy, in turn.
            _ => {
                let from = turn.checked_rem(count)?;
                let rotated = list.iter().filter(well).skip(from).chain(list.iter().filter(well));
                let cost = |backend: &Backend| self.weighed(backend.load.requests(), backend, now);
                rotated
                    .take(count)
                    .min_by(|one, other| cost(one).total_cmp(&cost(other)))?
            }
        };
        Some(Pick::of(backend, false))
    }

    /// True when this request is the one that tries a gateway.
    fn claim(&self, backend: &Backend, now: Instant) -> bool {
        let claimed = backend.health.claim(now);
        if claimed && backend.health.is_silent(now) {
            self.metrics.ejections.inc();
            tracing::warn!(backend = %backend.addr, "a gateway answers nothing; skipping it but for a request now and then");
        }
        claimed
    }

    /// A request is under way at this gateway until the guard is dropped. Costs nothing where the policy does not ask.
    pub(crate) fn begin<'a>(&self, backend: &'a Backend) -> Option<UnderWay<'a>> {
        self.rules.policy.measures().then(|| backend.load.begin())
    }

    /// It has begun an answer, `took` after it was asked.
    pub(crate) fn answered(&self, backend: &Backend, status: u16, took: Duration, now: Instant) {
        backend.counters.answered(took);
        let is_error = is_error(status);
        if is_error {
            let errors = backend.health.answered_badly(now);
            self.judge(backend, errors, now);
        } else {
            backend.health.succeeded(now);
        }
        if self.rules.policy.measures() {
            if is_error {
                backend.load.failed(took, self.ms(now));
            } else {
                backend.load.answered(took, self.ms(now));
            }
        }
    }

    /// It broke off, or did not answer in time: an error like those that are answered.
    pub(crate) fn broke_off(&self, backend: &Backend, took: Duration, now: Instant) {
        self.judge(backend, backend.health.erred(), now);
        self.failed(backend, took, now);
    }

    /// A request that it was given, `took` ago, got no answer.
    pub(crate) fn failed(&self, backend: &Backend, took: Duration, now: Instant) {
        if self.rules.policy.measures() {
            backend.load.failed(took, self.ms(now));
        }
    }

    /// Skips a gateway for its errors, when it is the only one that has them and enough are left.
    fn judge(&self, backend: &Backend, errors: u32, now: Instant) {
        let limit = self.rules.eject_errors;
        // Not at each further one: when all fail, the lock would be fought for.
        if limit == 0 || !errors.is_multiple_of(limit) || backend.health.state(now) != State::Well {
            return;
        }
        let _one_at_a_time = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let list = self.list();
        let is_well_too = |other: &&Arc<Backend>| other.addr != backend.addr && other.health.state(now) == State::Well;
        let left = list.iter().filter(is_well_too).count();
        let another_is_clean = list.iter().filter(is_well_too).any(|other| other.health.is_clean());
        if another_is_clean && is_half(left, list.len()) {
            backend.health.eject(now);
            self.metrics.ejections.inc();
            tracing::warn!(backend = %backend.addr, errors, "a gateway fails and others do not; skipping it for a while");
        }
    }

    /// The checks say that this gateway is not well: leaves it out, if enough are left.
    pub(crate) fn put_out(&self, backend: &Backend, error: &std::io::Error) {
        if backend.health.is_put_out() {
            return;
        }
        let _one_at_a_time = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let list = self.list();
        let is_left = |other: &&Arc<Backend>| other.addr != backend.addr && !other.health.is_left_out();
        if is_half(list.iter().filter(is_left).count(), list.len()) && backend.health.put_out() {
            self.metrics.ejections.inc();
            tracing::warn!(backend = %backend.addr, %error, "a gateway fails its health checks; leaving it out");
        }
    }

    /// The checks say that it is well.
    pub(crate) fn bring_back(&self, backend: &Backend, now: Instant) {
        if backend.health.bring_back(now) {
            tracing::info!(backend = %backend.addr, "a gateway that was left out is back");
        }
    }

    /// Whether one more request may be sent a second time; takes it from the budget.
    pub(crate) fn may_repeat(&self, now: Instant) -> bool {
        self.retries.take(self.turn.load(Ordering::Relaxed), now)
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
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
                old.iter().find(|backend| backend.addr == *addr).map_or_else(
                    || Backend::new(*addr, self.ms(Instant::now()), &self.metrics),
                    Arc::clone,
                )
            })
            .collect();
        // Of fewer gateways, fewer may be left out; the checks soon say which.
        let now = Instant::now();
        while let Some(out) = new.iter().find(|backend| backend.health.is_put_out())
            && !is_half(
                new.iter().filter(|backend| !backend.health.is_left_out()).count(),
                new.len(),
            )
        {
            self.bring_back(out, now);
        }
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
    use crate::limits::{EJECT_MAX, EJECT_MIN, SILENT_MAX};

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn three() -> Backends {
        three_by(Policy::RoundRobin)
    }

    fn three_by(policy: Policy) -> Backends {
        let rules = Rules {
            policy,
            slow_start: Duration::ZERO,
            ..Rules::usual()
        };
        three_with(rules)
    }

    fn three_with(rules: Rules) -> Backends {
        let backends = Backends::new(rules, 1, Arc::new(LbMetrics::new(&Metrics::new("lb"))));
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
        assert!(
            Backends::new(Rules::usual(), 1, Arc::clone(&backends.metrics))
                .pick(&[], now)
                .is_none()
        );
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
        sick.health.succeeded(later);
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
        frozen.health.succeeded(now);
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

    #[test]
    fn the_least_busy_is_chosen_and_equals_in_turn() {
        let (backends, now) = (three_by(Policy::LeastConn), Instant::now());
        assert_eq!(shares(&backends, &[], now), BTreeMap::from([(1, 20), (2, 20), (3, 20)]));
        let list = backends.list();
        let held = [
            backends.begin(&list[0]),
            backends.begin(&list[0]),
            backends.begin(&list[1]),
        ];
        assert!(held.iter().all(Option::is_some));
        assert_eq!(shares(&backends, &[], now), BTreeMap::from([(3, 60)]));
        assert_eq!(shares(&backends, &[addr(3)], now), BTreeMap::from([(2, 60)]));
        drop(held);
        assert_eq!(shares(&backends, &[], now).len(), 3);
    }

    #[test]
    fn the_slow_and_the_failing_get_little_and_the_others_share() {
        let (backends, now) = (three_by(Policy::P2cEwma), Instant::now());
        let even = shares(&backends, &[], now);
        assert!(even.len() == 3 && even.values().all(|share| *share > 8), "{even:?}");
        let list = backends.list();
        backends.answered(&list[0], 503, Duration::ZERO, now);
        backends.answered(&list[1], 200, Duration::from_millis(50), now);
        backends.answered(&list[2], 200, Duration::from_millis(50), now);
        let shared = shares(&backends, &[], now);
        assert_eq!(shared.get(&1), None, "one that fails fast is not fast: {shared:?}");
        backends.failed(&list[2], Duration::ZERO, now);
        let shared = shares(&backends, &[], now);
        assert!(shared[&2] > 30, "{shared:?}");
        // Much later nothing is known any more, and they are equals again.
        let later = now + Duration::from_secs(3600);
        assert!(shares(&backends, &[], later).values().all(|share| *share > 8));
        assert_eq!(shares(&backends, &[addr(2), addr(3)], now), BTreeMap::from([(1, 60)]));
    }

    #[test]
    fn one_that_fails_is_tried_by_a_single_request_whatever_the_policy() {
        for policy in [Policy::LeastConn, Policy::P2cEwma] {
            let (backends, start) = (three_by(policy), Instant::now());
            let sick = Arc::clone(&backends.list()[0]);
            assert!(sick.health.failed(start, false));
            assert_eq!(shares(&backends, &[], start).get(&1), None);
            assert_eq!(shares(&backends, &[], start + EJECT_MIN)[&1], 1, "one probe");
            for backend in backends.list().iter() {
                backend.health.failed(start, true);
            }
            assert_eq!(
                shares(&backends, &[], start).len(),
                3,
                "when all are skipped, nobody is"
            );
        }
    }

    #[test]
    fn round_robin_measures_nothing() {
        let backends = three();
        let list = backends.list();
        assert!(backends.begin(&list[0]).is_none());
        backends.answered(&list[0], 200, Duration::from_secs(9), Instant::now());
        assert_eq!(
            shares(&backends, &[], Instant::now()),
            BTreeMap::from([(1, 20), (2, 20), (3, 20)])
        );
    }

    /// This gateway answers so many times with an error.
    fn err(backends: &Backends, index: usize, times: u32, now: Instant) {
        for _ in 0..times {
            backends.answered(&backends.list()[index], 500, Duration::ZERO, now);
        }
    }

    #[test]
    fn one_that_alone_answers_errors_is_skipped() {
        let (backends, now) = (three(), Instant::now());
        let limit = Rules::usual().eject_errors;
        err(&backends, 0, limit - 1, now);
        backends.answered(&backends.list()[0], 404, Duration::ZERO, now);
        err(&backends, 0, limit - 1, now);
        assert_eq!(shares(&backends, &[], now)[&1], 20, "not in a row");
        backends.broke_off(&backends.list()[0], Duration::ZERO, now);
        assert_eq!(shares(&backends, &[], now), BTreeMap::from([(2, 30), (3, 30)]));
        assert_eq!(shares(&backends, &[], now + EJECT_MIN)[&1], 1, "one trial");
        err(&backends, 1, limit, now);
        assert_eq!(
            shares(&backends, &[], now),
            BTreeMap::from([(2, 30), (3, 30)]),
            "fewer than half would be left"
        );
        backends.answered(&backends.list()[0], 200, Duration::ZERO, now);
        assert_eq!(shares(&backends, &[], now)[&1], 20);
    }

    #[test]
    fn when_all_answer_errors_it_is_the_system_behind_them() {
        let (backends, now) = (three(), Instant::now());
        for _ in 0..20 {
            for index in 0..3 {
                err(&backends, index, 1, now);
            }
        }
        assert_eq!(shares(&backends, &[], now), BTreeMap::from([(1, 20), (2, 20), (3, 20)]));
    }

    #[test]
    fn one_that_comes_back_gets_less_at_first_whatever_the_policy() {
        for policy in [Policy::RoundRobin, Policy::LeastConn, Policy::P2cEwma] {
            let backends = three_with(Rules {
                policy,
                ..Rules::usual()
            });
            let now = Instant::now();
            let back = Arc::clone(&backends.list()[0]);
            back.health.failed(now, false);
            back.health.succeeded(now);
            let early = shares(&backends, &[], now).get(&1).copied().unwrap_or(0);
            assert!(early < 8, "{policy:?}: {early}");
            assert_eq!(
                shares(&backends, &[addr(2), addr(3)], now)[&1],
                60,
                "but all when it is the only one"
            );
            let later = now + Rules::usual().slow_start * 2;
            assert!(shares(&backends, &[], later)[&1] > 8, "{policy:?}");
        }
    }

    #[test]
    fn judgements_and_checks_together_leave_half() {
        let (backends, now) = (three(), Instant::now());
        let list = backends.list();
        err(&backends, 0, Rules::usual().eject_errors, now);
        let error = std::io::Error::other("no answer");
        backends.put_out(&list[1], &error);
        assert_eq!(shares(&backends, &[], now), BTreeMap::from([(2, 30), (3, 30)]));
        // The one that was judged may be put out for longer.
        backends.put_out(&list[0], &error);
        assert_eq!(
            shares(&backends, &[], now + EJECT_MAX),
            BTreeMap::from([(2, 30), (3, 30)])
        );
        // Of two addresses one may be left out, of a single one none.
        backends.replace(&[addr(1), addr(2)]);
        assert_eq!(shares(&backends, &[], now), BTreeMap::from([(2, 60)]));
        backends.replace(&[addr(1)]);
        assert_eq!(backends.list()[0].health.state(now), State::Well);
        backends.put_out(&backends.list()[0], &error);
        assert_eq!(backends.list()[0].health.state(now), State::Well);
    }
}
