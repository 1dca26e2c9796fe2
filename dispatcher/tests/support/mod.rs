//! A city without network and without waiting: an in-memory KV that can crash at any operation and checks the house's
//! invariants at every write, a clock that only moves when told to, and a small simulator of the fleet.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dispatcher::clock::Clock;
use dispatcher::engine::{Engine, Parts};
use dispatcher::hints::Hints;
use dispatcher::metrics::DispatchMetrics;
use dispatcher::policy::Policy;
use dispatcher::rules::{Autoscale, Pace, Rules};
use dispatcher::store::Store;
use domain::chargers;
use domain::delivery::{Delivery, DeliveryStatus, Leg, OpenEntry};
use domain::drone::{Drone, DroneStatus, HEARTBEAT_SEC};
use domain::energy::EnergyModel;
use domain::events::DeliveryStatusChanged;
use domain::geo::Point;
use domain::keys;
use domain::order::NewOrder;
use domain::zones::ZonesConfig;
use kv_api::{LockAnswer, RawValue};
use kv_client::{BatchOp, KvError, OpResult, Page, Swap, Version, Versioned};
use serde::Serialize;
use serde_json::Value;
use service::metrics::Metrics;
use tokio::sync::{Notify, mpsc};

/// An order may be neither queued nor with exactly one drone for so many seconds: what a crash leaves half-done is repaired within.
const UNBOUND_MAX_SEC: f64 = 3.0;

/// Seconds per step of the world.
pub(crate) const STEP_SEC: f64 = 0.2;

/// When every world begins, Unix seconds.
const BEGIN_SEC: u64 = 1_700_000_000;

/// A clock that stands still between steps.
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, seconds: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "test steps are small and positive"
        )]
        self.0.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }

    /// The clock jumps back.
    pub(crate) fn set_back(&self, seconds: u64) {
        self.0.fetch_sub(seconds * 1_000_000, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit well enough")]
    fn now_unix_sec(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// What happens to the operation at which the KV stops answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashMode {
    /// It is not carried out.
    Before,
    /// It is carried out, and nobody learns of it.
    After,
}

/// How a step of the world ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The dispatcher had its round.
    Done,
    /// It was killed in the middle and started again.
    Crashed,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<String, (Value, u64)>,
    locks: BTreeMap<String, (String, f64)>,
    counter: u64,
    /// Writes per key.
    writes: BTreeMap<String, usize>,
    ops: usize,
    crash_at: Option<(usize, CrashMode)>,
    down: bool,
}

/// The KV.
pub(crate) struct MemoryKv {
    clock: Arc<ManualClock>,
    inner: Mutex<Inner>,
}

impl MemoryKv {
    fn new(clock: Arc<ManualClock>) -> Self {
        Self {
            clock,
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops answering at the `at`-th operation from now (counted from 0), until [`Self::recover`].
    pub(crate) fn crash_at(&self, at: usize, mode: CrashMode) {
        let mut inner = self.lock();
        inner.ops = 0;
        inner.crash_at = Some((at, mode));
    }

    /// Answers again; true when it had stopped.
    pub(crate) fn recover(&self) -> bool {
        let mut inner = self.lock();
        inner.crash_at = None;
        std::mem::take(&mut inner.down)
    }

    pub(crate) fn set<T: Serialize>(&self, key: &str, value: &T) {
        let value = serde_json::to_value(value).unwrap();
        self.lock().write(key, value);
    }

    pub(crate) fn value(&self, key: &str) -> Option<Value> {
        self.lock().entries.get(key).map(|(value, _)| value.clone())
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        self.lock()
            .entries
            .keys()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// Writes so far to keys that begin so.
    pub(crate) fn writes(&self, prefix: &str) -> usize {
        let inner = self.lock();
        let keys = inner.writes.iter().filter(|(key, _)| key.starts_with(prefix));
        keys.map(|(_, count)| count).sum()
    }

    /// Operations since the last [`Self::crash_at`].
    pub(crate) fn ops(&self) -> usize {
        self.lock().ops
    }

    pub(crate) fn locks_held(&self) -> usize {
        let now = self.clock.now_unix_sec();
        self.lock().locks.values().filter(|(_, until)| *until > now).count()
    }

    /// Makes `name` locked by somebody else for `seconds`.
    pub(crate) fn hold_lock(&self, name: &str, seconds: f64) {
        let until = self.clock.now_unix_sec() + seconds;
        self.lock()
            .locks
            .insert(name.to_owned(), ("somebody".to_owned(), until));
    }
}

impl Inner {
    fn write(&mut self, key: &str, value: Value) -> u64 {
        check_transition(key, self.entries.get(key).map(|(value, _)| value), &value);
        self.counter += 1;
        *self.writes.entry(key.to_owned()).or_default() += 1;
        self.entries.insert(key.to_owned(), (value, self.counter));
        self.counter
    }

    fn versioned(&self, key: &str) -> Option<Versioned<Value>> {
        let (value, version) = self.entries.get(key)?;
        Some(Versioned {
            value: value.clone(),
            version: Version(version.to_string()),
            key: key.to_owned(),
        })
    }

    fn run(&mut self, op: BatchOp, now: f64) -> OpResult {
        match op {
            BatchOp::Get { key } => OpResult::Got(self.versioned(&key)),
            BatchOp::Cas { key, version, new, .. } => {
                let expected = version
                    .expect("the dispatcher swaps by version")
                    .map(|version| version.0);
                let current = self.entries.get(&key).map(|(_, version)| version.to_string());
                if expected == current {
                    let new = serde_json::from_str(new.get()).unwrap();
                    return OpResult::Cas(Swap::Done(Version(self.write(&key, new).to_string())));
                }
                let current = self.entries.get(&key);
                OpResult::Cas(Swap::Refused {
                    current: current.map(|(value, _)| RawValue::from_string(value.to_string()).unwrap()),
                    version: current.map(|(_, version)| Version(version.to_string())),
                })
            }
            BatchOp::Delete { key, version } => {
                let current = self.entries.get(&key).map(|(_, version)| Version(version.to_string()));
                if version.is_some() && current.is_some() && version != current {
                    return OpResult::DeleteRefused { version: current };
                }
                self.entries.remove(&key);
                OpResult::Deleted
            }
            BatchOp::Lock { key, ttl_sec, .. } => {
                if self.locks.get(&key).is_some_and(|(_, until)| *until > now) {
                    return OpResult::Lock(LockAnswer::default());
                }
                self.counter += 1;
                let token = self.counter.to_string();
                self.locks.insert(key, (token.clone(), now + ttl_sec.unwrap()));
                OpResult::Lock(LockAnswer {
                    ok: true,
                    token: Some(token),
                    ..LockAnswer::default()
                })
            }
            BatchOp::Unlock { key, token } => {
                let held = self
                    .locks
                    .get(&key)
                    .is_some_and(|(holder, _)| Some(holder) == token.as_ref());
                if held {
                    self.locks.remove(&key);
                }
                OpResult::Unlocked(held)
            }
            BatchOp::Put { .. } => panic!("the dispatcher never writes blindly"),
        }
    }
}

/// No write may skip a step of the life of a delivery, or move a drone from one delivery straight to another.
fn check_transition(key: &str, old: Option<&Value>, new: &Value) {
    let Some(old) = old else { return };
    if key.starts_with(keys::DRONE_PREFIX) {
        let (old, new) = (&old["current_delivery"], &new["current_delivery"]);
        assert!(
            old.is_null() || new.is_null() || old == new,
            "{key}: from {old} straight to {new}"
        );
    }
    if key.starts_with(keys::DELIVERY_PREFIX) {
        let status = |value: &Value| value["status"].as_str().unwrap_or("?").to_owned();
        let ended = ["delivered", "cancelled", "failed"];
        assert!(
            !ended.contains(&status(old).as_str()),
            "{key}: ended as {old}, then written as {new}"
        );
        let (from, to) = (&old["drone_id"], &new["drone_id"]);
        assert!(
            from.is_null() || to.is_null() || from == to,
            "{key}: from drone {from} straight to {to}"
        );
    }
}

/// A way to the KV on which one call is held up as long as one likes: its dispatcher is stopped there (SIGSTOP, a pause of the
/// machine, a slow network) and later goes on as if nothing had happened.
pub(crate) struct LateKv {
    kv: Arc<MemoryKv>,
    calls_left: AtomicUsize,
    is_open: AtomicBool,
    reached: Notify,
    opened: Notify,
}

impl LateKv {
    /// Holds up the call number `at`, counted from 0.
    pub(crate) fn new(kv: &Arc<MemoryKv>, at: usize) -> Arc<Self> {
        Arc::new(Self {
            kv: Arc::clone(kv),
            calls_left: AtomicUsize::new(at + 1),
            is_open: AtomicBool::new(false),
            reached: Notify::new(),
            opened: Notify::new(),
        })
    }

    /// Waits until the call has come.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets it pass.
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
        self.opened.notify_waiters();
    }

    async fn pass(&self) {
        if self.is_open.load(Ordering::Relaxed) || self.calls_left.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.calls_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let opened = self.opened.notified();
            self.reached.notify_one();
            opened.await;
        }
    }
}

#[async_trait]
impl Store for LateKv {
    async fn batch(&self, ops: Vec<BatchOp>, ordered: bool) -> Result<Vec<OpResult>, KvError> {
        self.pass().await;
        self.kv.batch(ops, ordered).await
    }

    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page<Value>, KvError> {
        self.pass().await;
        self.kv.scan(prefix, after, limit).await
    }
}

fn down() -> KvError {
    KvError::Unknown {
        detail: "the test stopped the KV here".to_owned(),
    }
}

#[async_trait]
impl Store for MemoryKv {
    async fn batch(&self, ops: Vec<BatchOp>, ordered: bool) -> Result<Vec<OpResult>, KvError> {
        // Lets other engines in between any two calls.
        tokio::task::yield_now().await;
        let now = self.clock.now_unix_sec();
        let mut inner = self.lock();
        let mut results = Vec::new();
        let mut stopped = false;
        for op in ops {
            if inner.down {
                return Err(down());
            }
            if stopped {
                results.push(OpResult::NotRun);
                continue;
            }
            let number = inner.ops;
            inner.ops += 1;
            let crash = inner.crash_at.filter(|(at, _)| *at == number).map(|(_, mode)| mode);
            if crash == Some(CrashMode::Before) {
                inner.down = true;
                return Err(down());
            }
            let result = inner.run(op, now);
            stopped = ordered && (!result.is_done() || matches!(result, OpResult::Got(None)));
            results.push(result);
            if crash == Some(CrashMode::After) {
                inner.down = true;
                return Err(down());
            }
        }
        Ok(results)
    }

    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page<Value>, KvError> {
        tokio::task::yield_now().await;
        let inner = self.lock();
        if inner.down {
            return Err(down());
        }
        let mut keys = inner
            .entries
            .keys()
            .filter(|key| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        let some: Vec<String> = keys.by_ref().take(limit).cloned().collect();
        let next = keys.next().and(some.last().cloned());
        Ok(Page {
            items: some.iter().filter_map(|key| inner.versioned(key)).map(Ok).collect(),
            next,
        })
    }
}

/// The rules of the tests: the documented defaults, with a fleet that is left alone unless a test says otherwise.
pub(crate) fn rules() -> Rules {
    Rules {
        energy: EnergyModel {
            battery_per_km: 2.0,
            safety_margin_pct: 5.0,
        },
        pace: Pace {
            time_scale: 28.0,
            speed_base_kmh: 120.0,
            charge_pct_per_sec: 25.0,
        },
        pools_classes: false,
        swaps_max: 3,
        swap_gain_min: 0.5,
        near_eps_km: 0.2,
        max_pickup_km: 20.0,
        pickup_grace_sec: 30.0,
        arrive_eps_km: 0.02,
        critical_battery_pct: 30.0,
        charger_slots: 0,
        full_after_pct: 95.0,
        top_up_below_pct: 0.0,
        early_charge_threshold: 5,
        drone_lost_sec: 30.0,
        pending_scan_limit: 500,
        max_assign_per_round: 100,
        autoscale: None,
        debug_charge: false,
    }
}

pub(crate) const fn autoscale(base_active: usize) -> Autoscale {
    Autoscale {
        base_active,
        pool_max: 20,
        scale_ratio: 0.8,
    }
}

/// The whole city.
pub(crate) struct World {
    pub(crate) kv: Arc<MemoryKv>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) zones: ZonesConfig,
    pub(crate) policy: Policy,
    pub(crate) rules: Rules,
    /// Kilometres a drone flies per step.
    pub(crate) km_per_step: f64,
    /// An order that the test itself has given to two drones.
    pub(crate) given_to_two: Option<String>,
    /// Whether light drones fly 1.2 times as far, heavy ones 0.8 times.
    pub(crate) by_class: bool,
    /// Percent a drone charges per step.
    pub(crate) charge_per_step: f64,
    pub(crate) messages: mpsc::Receiver<DeliveryStatusChanged>,
    outbox: mpsc::Sender<DeliveryStatusChanged>,
    pub(crate) engine: Engine,
    orders: u32,
    /// Open orders that nobody would ever wake as things are: since when.
    unbound: RefCell<BTreeMap<String, f64>>,
}

impl World {
    /// A city with drones `drone-1` … `drone-N`, full, at their charge points, and the policy `greedy`.
    pub(crate) fn new(drones: u32, rules: Rules) -> Self {
        Self::under(Policy::Greedy, drones, rules)
    }

    /// The same under another policy.
    pub(crate) fn under(policy: Policy, drones: u32, mut rules: Rules) -> Self {
        rules.pools_classes = policy.pools_classes();
        if !policy.swaps() {
            rules.swaps_max = 0;
        }
        let clock = Arc::new(ManualClock(AtomicU64::new(BEGIN_SEC * 1_000_000)));
        let kv = Arc::new(MemoryKv::new(Arc::clone(&clock)));
        let zones = ZonesConfig::rome(2, 2).unwrap();
        kv.set(keys::ZONES_CONFIG, &zones);
        for number in 1..=drones {
            let drone = Drone::new(number, &zones);
            kv.set(&keys::drone(&drone.id), &drone);
        }
        let (outbox, messages) = mpsc::channel(10_000);
        let engine = engine(Arc::clone(&kv) as Arc<dyn Store>, &clock, policy, &rules, &outbox);
        Self {
            kv,
            clock,
            zones,
            policy,
            rules,
            km_per_step: 1.0,
            given_to_two: None,
            by_class: false,
            charge_per_step: 5.0,
            messages,
            outbox,
            engine,
            orders: 0,
            unbound: RefCell::default(),
        }
    }

    /// Somebody draws these no-fly zones, as settings have them.
    pub(crate) fn draw(&mut self, no_fly: &str) {
        let (zones, no_fly) = (self.zones.clone(), no_fly.parse().unwrap());
        self.zones = zones.with_no_fly(no_fly).unwrap();
        self.kv.set(keys::ZONES_CONFIG, &self.zones);
    }

    /// Another dispatcher over the same city.
    pub(crate) fn another_engine(&self) -> Engine {
        self.engine_over(Arc::clone(&self.kv) as Arc<dyn Store>)
    }

    /// Another dispatcher, which reaches the KV by a way of its own.
    pub(crate) fn engine_over(&self, store: Arc<dyn Store>) -> Engine {
        engine(store, &self.clock, self.policy, &self.rules, &self.outbox)
    }

    /// The dispatcher is killed and started again: it has forgotten everything.
    pub(crate) fn restart(&mut self) {
        self.engine = self.another_engine();
        // It has not looked yet.
        self.unbound.borrow_mut().clear();
    }

    pub(crate) fn now(&self) -> f64 {
        self.clock.now_unix_sec()
    }

    /// An order as a gateway stores it: the open entry first, then the record. Answers its id.
    pub(crate) fn order(&mut self, origin: Point, destination: Point, weight: f64) -> String {
        self.orders += 1;
        let id = format!("0190-{:06}", self.orders);
        let order = NewOrder {
            origin,
            destination,
            weight,
            priority: None,
            deadline: None,
        };
        let record = Delivery::new(id.clone(), &order, &self.zones, self.now());
        self.kv.set(
            &keys::open(&id),
            &OpenEntry {
                id: id.clone(),
                timestamp: self.now(),
            },
        );
        self.kv.set(&keys::delivery(&id), &record);
        id
    }

    pub(crate) fn delivery(&self, id: &str) -> Delivery {
        serde_json::from_value(self.kv.value(&keys::delivery(id)).unwrap()).unwrap()
    }

    pub(crate) fn status(&self, id: &str) -> DeliveryStatus {
        self.delivery(id).status
    }

    pub(crate) fn drone(&self, number: u32) -> Drone {
        serde_json::from_value(self.kv.value(&keys::drone(&format!("drone-{number}"))).unwrap()).unwrap()
    }

    /// Changes a drone's record as a script would.
    pub(crate) fn edit_drone(&self, number: u32, edit: impl FnOnce(&mut Drone)) {
        let mut drone = self.drone(number);
        edit(&mut drone);
        drone.at_charge = self.zones.zones.iter().any(|zone| drone.pos.is_at_charge(zone.charge));
        self.kv.set(&keys::drone(&drone.id), &drone);
    }

    pub(crate) fn fleet(&self) -> Vec<Drone> {
        let keys = self.kv.keys(keys::DRONE_PREFIX);
        keys.iter()
            .filter_map(|key| {
                serde_json::from_value::<Drone>(self.kv.value(key)?)
                    .ok()
                    .map(|drone| (key, drone))
            })
            // One under another's key would be written to the wrong place.
            .filter(|(key, drone)| **key == keys::drone(&drone.id))
            .map(|(_, drone)| drone)
            .collect()
    }

    /// The fleet moves for one step, and time passes.
    pub(crate) fn simulate(&self) {
        self.clock.advance(STEP_SEC);
        let fleet = self.fleet();
        let slots = u32::try_from(self.rules.charger_slots).unwrap();
        let places = chargers::places(&fleet, &self.zones, slots, self.now());
        for drone in fleet.iter().filter(|drone| !drone.is_frozen(self.now())) {
            let mut next = self.moved(&drone.placed(places.get(&drone.id).copied()));
            let is_quiet = drone.seen_at.is_none_or(|at| self.now() - at >= HEARTBEAT_SEC);
            if next != *drone || is_quiet {
                next.seen_at = Some(self.now());
                self.kv.set(&keys::drone(&drone.id), &next);
            }
        }
    }

    fn moved(&self, drone: &Drone) -> Drone {
        let target = match drone.status {
            DroneStatus::Busy => {
                let id = drone.current_delivery.as_deref().unwrap_or_default();
                let record = self.kv.value(&keys::delivery(id));
                record
                    .and_then(|record| serde_json::from_value::<Delivery>(record).ok())
                    .and_then(|record| record.target())
            }
            DroneStatus::Charging | DroneStatus::Retiring => Some(drone.charge_target(&self.zones)),
            DroneStatus::Idle | DroneStatus::Inactive | DroneStatus::Lost => None,
        };
        let charges = |pos: Point| self.zones.zones.iter().any(|zone| pos.is_at_charge(zone.charge));
        match target.filter(|target| *target != drone.pos) {
            Some(target) => {
                let scale = if self.by_class { drone.kind.cruise_scale() } else { 1.0 };
                let (pos, km) = self.zones.way(drone.pos, target).after(self.km_per_step * scale);
                let spent = km * self.rules.energy.battery_per_km;
                assert!(drone.battery > spent, "it would fall from the sky: {drone:?}");
                drone.moved(pos, drone.battery - spent, charges(pos))
            }
            None if charges(drone.pos) && drone.charge_queue == Some(0) => {
                drone.moved(drone.pos, drone.battery + self.charge_per_step, true)
            }
            None => drone.clone(),
        }
    }

    /// One step: the fleet moves, then the dispatcher has a round. A KV that stopped answering is a dispatcher killed there:
    /// both come back, the dispatcher with an empty head.
    pub(crate) async fn step(&mut self) -> Step {
        self.simulate();
        let result = self.engine.round(Hints::default()).await;
        let step = if result.is_err() {
            assert!(self.kv.recover(), "the round failed though the KV answered: {result:?}");
            self.restart();
            Step::Crashed
        } else {
            Step::Done
        };
        self.check();
        step
    }

    /// Steps until `done`, at most for `seconds` of the world's time.
    pub(crate) async fn until(&mut self, seconds: f64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now() + seconds;
        while self.now() < end {
            self.step().await;
            if done(self) {
                return true;
            }
        }
        false
    }

    /// What must hold at every moment.
    pub(crate) fn check(&self) {
        let mut flown = BTreeMap::new();
        for key in self.kv.keys(keys::DELIVERY_PREFIX) {
            let Some(Ok(record)) = self.kv.value(&key).map(serde_json::from_value::<Delivery>) else {
                continue;
            };
            if record.status.has_drone() {
                let before = flown.insert(record.drone_id.clone(), record.id.clone());
                assert!(
                    before.is_none(),
                    "{:?} has {before:?} and {}",
                    record.drone_id,
                    record.id
                );
            }
            let open = self.kv.value(&keys::open(&record.id)).is_some();
            assert!(
                open || !record.status.is_open(),
                "{} is {:?} without an open entry",
                record.id,
                record.status
            );
        }
        let mut held = BTreeMap::new();
        for drone in self.fleet() {
            if let Some(id) = drone.current_delivery {
                let before = held.insert(id.clone(), drone.id.clone());
                let is_given_to_two = self.given_to_two.as_ref() == Some(&id);
                assert!(
                    before.is_none() || is_given_to_two,
                    "{before:?} and {} have {id}",
                    drone.id
                );
            }
        }
        self.check_bound();
    }

    /// Every open order is either in the queue or bound to exactly one drone, but for an instant: none that nobody will ever wake.
    fn check_bound(&self) {
        let fleet = self.fleet();
        let is_bound = |record: &Delivery| {
            let mut holders = fleet.iter().filter(|drone| {
                drone.status == DroneStatus::Busy && drone.current_delivery.as_ref() == Some(&record.id)
            });
            let (first, second) = (holders.next(), holders.next());
            let holder = first.map(|drone| &drone.id);
            // With the parcel on board it may have to charge before it can go on.
            let carrier = fleet.iter().find(|drone| Some(&drone.id) == record.drone_id.as_ref());
            let charges = carrier.is_some_and(|drone| drone.status == DroneStatus::Charging);
            let is_carried = record.leg == Some(Leg::ToDestination) && charges && first.is_none();
            is_carried
                || second.is_none()
                    && holder == record.drone_id.as_ref()
                    && match record.status {
                        DeliveryStatus::Pending => self.engine.has_queued(&record.id),
                        _ => holder.is_some() && self.engine.status_of(&record.id).is_some(),
                    }
        };
        let open = (self.kv.keys(keys::DELIVERY_PREFIX).into_iter())
            .filter_map(|key| serde_json::from_value::<Delivery>(self.kv.value(&key)?).ok())
            .filter(|record| record.status.is_open());
        let mut before = self.unbound.borrow_mut();
        let mut now_unbound = BTreeMap::new();
        for record in open.filter(|record| !is_bound(record)) {
            let since = before.get(&record.id).map_or(self.now(), |since| since.min(self.now()));
            let for_sec = self.now() - since;
            assert!(
                for_sec <= UNBOUND_MAX_SEC,
                "for {for_sec} s nobody minds {record:?}: {fleet:?}"
            );
            now_unbound.insert(record.id, since);
        }
        *before = now_unbound;
    }

    /// What must hold at rest.
    pub(crate) fn check_at_rest(&self) {
        self.check();
        assert_eq!(self.kv.keys(keys::OPEN_PREFIX), Vec::<String>::new());
        for drone in self.fleet() {
            assert!(drone.is_consistent() && drone.current_delivery.is_none(), "{drone:?}");
        }
    }

    /// The types of the messages about an order so far.
    pub(crate) fn told(&mut self, id: &str) -> Vec<&'static str> {
        let mut told = Vec::new();
        while let Ok(message) = self.messages.try_recv() {
            if message.delivery_id == id {
                told.push(message.kind.name());
            }
        }
        told
    }
}

fn engine(
    store: Arc<dyn Store>,
    clock: &Arc<ManualClock>,
    policy: Policy,
    rules: &Rules,
    outbox: &mpsc::Sender<DeliveryStatusChanged>,
) -> Engine {
    Engine::new(Parts {
        store,
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        rules: rules.clone(),
        policy,
        owner: "test".to_owned(),
        outbox: outbox.clone(),
        metrics: DispatchMetrics::new(&Metrics::new("dispatcher")),
    })
}
