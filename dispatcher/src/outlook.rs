//! When each open order will be picked up and delivered, and why it waits: pure functions over a snapshot and the policy's plan.
//!
//! Promises: a guess for every order that is looked at and that somebody could fly; nothing is decided by it. Orders that fly are
//! measured from where their drone is. Those that wait are played forward: first the plan's own pairs, then the others in the
//! policy's order, each with the drone that could be there first, flight after flight, with the way to a charge point and the
//! time there whenever the battery asks for it (list scheduling). So the guess is right as far as nothing else comes in between.

use std::collections::HashMap;

use domain::delivery::{Delivery, Leg, Outlook};
use domain::drone::Drone;
use domain::energy::loaded_and_home_km;
use domain::zones::ZonesConfig;

use crate::chargers::Chargers;
use crate::limits::{OUTLOOK_ORDERS_MAX, OUTLOOK_REWORD_SEC, OUTLOOK_SLACK_SEC, OUTLOOK_SLACK_SHARE};
use crate::policy::ahead::Ahead;
use crate::policy::{Plan, Snapshot, Unfit, check};
use crate::rules::Rules;

/// The outlook of an order that `drone` flies.
#[must_use]
pub fn flying(order: &Delivery, drone: &Drone, now: f64, zones: &ZonesConfig, rules: &Rules) -> Outlook {
    let km_per_min = rules.pace.km_per_min(drone.kind);
    let frozen_sec = drone.freeze_until.map_or(0.0, |until| (until - now).max(0.0));
    let after = |km: f64| now + frozen_sec + rules.pace.clock_sec(km / km_per_min);
    if order.leg == Some(Leg::ToDestination) {
        return Outlook {
            delivery_at: Some(after(zones.way_km(drone.pos, order.destination))),
            ..Outlook::default()
        };
    }
    let pickup_km = zones.way_km(drone.pos, order.origin);
    Outlook {
        pickup_at: Some(after(pickup_km)),
        delivery_at: Some(after(pickup_km + zones.way_km(order.origin, order.destination))),
        waits_for: None,
    }
}

/// The outlook of waiting orders, by id: those the plan leaves waiting, at most [`OUTLOOK_ORDERS_MAX`].
#[must_use]
pub fn waiting(snapshot: &Snapshot<'_>, plan: &Plan<'_>, rules: &Rules) -> HashMap<String, Outlook> {
    let mut queue = Queue::new(snapshot, rules);
    let orders: HashMap<&str, &Delivery> = (snapshot.pending.iter())
        .map(|order| (order.id.as_str(), *order))
        .collect();
    for pair in &plan.assignments {
        if let (Some(order), Some(drone)) = (orders.get(pair.delivery_id.as_str()), queue.place_of(&pair.drone_id)) {
            queue.take(order, drone);
        }
    }
    let mut found = HashMap::new();
    for promise in &plan.promised {
        let pair = &promise.pair;
        if let (Some(order), Some(drone)) = (orders.get(pair.delivery_id.as_str()), queue.place_of(&pair.drone_id)) {
            let why = next_in(order, promise.free_in_sec);
            found.insert(order.id.clone(), queue.outlook(order, drone, why));
        }
    }
    let room = OUTLOOK_ORDERS_MAX.saturating_sub(found.len());
    for order in plan.unserved.iter().take(room) {
        found.insert(order.id.clone(), queue.unserved(order));
    }
    found
}

fn next_in(order: &Delivery, free_in_sec: f64) -> String {
    let class = order.drone_type().name();
    // Nobody reads more out of a guess.
    let step = if free_in_sec > 20.0 { 5.0 } else { 1.0 };
    format!(
        "no {class} drone free; next in {} s",
        (free_in_sec / step).ceil() * step
    )
}

/// The fleet, played forward order by order.
struct Queue<'a> {
    snapshot: &'a Snapshot<'a>,
    rules: &'a Rules,
    /// As each drone will be after what it was given so far.
    fleet: Vec<Ahead<'a>>,
    places: HashMap<&'a str, usize>,
}

impl<'a> Queue<'a> {
    fn new(snapshot: &'a Snapshot<'a>, rules: &'a Rules) -> Self {
        let chargers = Chargers::new(&snapshot.drones, snapshot.zones, rules);
        let fleet = Ahead::of_fleet(snapshot, &chargers, rules);
        let places = fleet
            .iter()
            .zip(0..)
            .map(|(ahead, place)| (ahead.record.id.as_str(), place));
        Self {
            places: places.collect(),
            snapshot,
            rules,
            fleet,
        }
    }

    fn place_of(&self, drone_id: &str) -> Option<usize> {
        self.places.get(drone_id).copied()
    }

    /// The drone as it will be at the pick-up of `order`, charged before if it must be.
    fn at_origin(&self, order: &Delivery, drone: usize) -> Ahead<'a> {
        let mut ahead = self.fleet[drone].clone();
        let home_km = loaded_and_home_km(order.origin, order.destination, self.snapshot.zones);
        let is_low = ahead.battery_pct <= self.rules.critical_battery_pct;
        if (is_low || !ahead.has_battery_for(order.origin, home_km, self.snapshot.zones, self.rules))
            && let Some((charge, _)) = self.snapshot.zones.nearest_charge(ahead.at)
        {
            ahead.charge(charge, self.snapshot.zones, self.rules);
        }
        ahead.fly(order.origin, self.snapshot.zones, self.rules);
        ahead
    }

    /// Gives `order` to the drone; when it will be picked up and delivered, minutes of flight from now.
    fn take(&mut self, order: &Delivery, drone: usize) -> (f64, f64) {
        let mut ahead = self.at_origin(order, drone);
        let pickup_min = ahead.free_in_min;
        ahead.fly(order.destination, self.snapshot.zones, self.rules);
        let delivery_min = ahead.free_in_min;
        self.fleet[drone] = ahead;
        (pickup_min, delivery_min)
    }

    fn outlook(&mut self, order: &Delivery, drone: usize, waits_for: String) -> Outlook {
        let (pickup_min, delivery_min) = self.take(order, drone);
        let at = |minutes: f64| self.snapshot.now + self.rules.pace.clock_sec(minutes);
        Outlook {
            pickup_at: Some(at(pickup_min)),
            delivery_at: Some(at(delivery_min)),
            waits_for: Some(waits_for),
        }
    }

    fn unserved(&mut self, order: &Delivery) -> Outlook {
        let class = order.drone_type();
        let carriers = (0..self.fleet.len()).filter(|&drone| self.rules.carries(self.fleet[drone].record.kind, class));
        let first = carriers
            .map(|drone| (self.at_origin(order, drone).free_in_min, drone))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, drone)) = first else {
            return Outlook {
                waits_for: Some(format!("no {} drone in service", class.name())),
                ..Outlook::default()
            };
        };
        let why = self.why_not_now(order, drone);
        self.outlook(order, drone, why)
    }

    fn why_not_now(&self, order: &Delivery, drone: usize) -> String {
        let (ahead, rules) = (&self.fleet[drone], self.rules);
        let class = order.drone_type().name();
        if !ahead.is_free() {
            return next_in(order, rules.pace.clock_sec(ahead.free_in_min));
        }
        let pickup_km = self.snapshot.zones.way_km(ahead.at, order.origin);
        let home_km = loaded_and_home_km(order.origin, order.destination, self.snapshot.zones);
        let waited_sec = self.snapshot.now - order.timestamp;
        match check(ahead.battery_pct, pickup_km, home_km, waited_sec, rules) {
            Err(Unfit::TooFar) => format!(
                "no {class} drone near; one that is {pickup_km:.0} km away may come {} s after the order",
                rules.pickup_grace_sec
            ),
            Err(_) => format!("no {class} drone with enough battery; one has to charge first"),
            Ok(()) => "its turn has come".to_owned(),
        }
    }
}

/// Whether `new` differs from what the record of `order` says by enough to be written; `told_sec` is how long ago it was
/// last written.
#[must_use]
pub fn is_news(order: &Delivery, new: &Outlook, now: f64, told_sec: f64) -> bool {
    let moved = |old: Option<f64>, new: Option<f64>| match (old, new) {
        (Some(old), Some(new)) => (old - new).abs() > OUTLOOK_SLACK_SEC.max(OUTLOOK_SLACK_SHARE * (new - now).max(0.0)),
        (old, new) => old.is_some() != new.is_some(),
    };
    // What comes after the semicolon counts down.
    let reason = |text: &Option<String>| text.as_ref().and_then(|text| text.split(';').next().map(str::to_owned));
    moved(order.pickup_eta, new.pickup_at)
        || moved(order.delivery_eta, new.delivery_at)
        || reason(&order.waits_for) != reason(&new.waits_for)
        || (order.waits_for != new.waits_for && told_sec >= OUTLOOK_REWORD_SEC)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use domain::delivery::{Delivery, Leg, Outlook};
    use domain::drone::{Drone, DroneStatus};
    use domain::geo::Point;

    use super::{flying, is_news, waiting};
    use crate::policy::{Policy, Snapshot};
    use crate::testing::{drone, order, rules, zones};

    const HERE: Point = Point::new(41.90, 12.50);
    const THERE: Point = Point::new(41.92, 12.50);

    /// Seconds of clock that a light drone flies for so many km.
    fn flight_sec(km: f64) -> f64 {
        let rules = rules();
        rules
            .pace
            .clock_sec(km / rules.pace.km_per_min(domain::drone::DroneType::Light))
    }

    fn outlooks(
        policy: Policy,
        fleet: &[Drone],
        orders: &[Delivery],
        flights: &[(&str, &Delivery)],
    ) -> HashMap<String, Outlook> {
        let zones = zones();
        let mut rules = rules();
        rules.pools_classes = policy.pools_classes();
        let snapshot = Snapshot {
            now: 0.0,
            zones: &zones,
            pending: orders.iter().collect(),
            drones: fleet.iter().collect(),
            flights: flights.iter().copied().collect(),
            swappable: Vec::new(),
        };
        let plan = policy.plan(&snapshot, &rules);
        waiting(&snapshot, &plan, &rules)
    }

    fn near(got: Option<f64>, wanted: f64) {
        let got = got.unwrap();
        assert!((got - wanted).abs() < 1e-6, "{got} {wanted}");
    }

    #[test]
    fn who_flies_is_measured_from_where_the_drone_is() {
        let flown = order("a", THERE, 1.0).assign("drone-1", 0.0).unwrap();
        let at = drone(1, HERE, 90.0);
        let (empty_km, loaded_km) = (HERE.distance_km(THERE), THERE.distance_km(flown.destination));
        let outlook = flying(&flown, &at, 100.0, &zones(), &rules());
        near(outlook.pickup_at, 100.0 + flight_sec(empty_km));
        near(outlook.delivery_at, 100.0 + flight_sec(empty_km + loaded_km));
        assert_eq!(outlook.waits_for, None);
        let loaded = flown.first_movement(1.0).unwrap().at_origin(2.0).unwrap();
        let frozen = Drone {
            freeze_until: Some(107.0),
            ..drone(1, THERE, 90.0)
        };
        let outlook = flying(&loaded, &frozen, 100.0, &zones(), &rules());
        near(outlook.delivery_at, 107.0 + flight_sec(loaded_km));
        assert_eq!(outlook.pickup_at, None);
    }

    #[test]
    fn who_waits_is_told_for_what_and_how_long() {
        for policy in [Policy::Optimal, Policy::Greedy] {
            let flown = order("f", HERE, 1.0).assign("drone-1", 0.0).unwrap();
            let flown = flown.first_movement(0.0).unwrap().at_origin(0.0).unwrap();
            assert_eq!(flown.leg, Some(Leg::ToDestination));
            let fleet = [drone(1, HERE, 90.0).take("f").unwrap()];
            let orders = [order("a", HERE, 1.0), order("b", HERE, 1.0), order("c", HERE, 9.0)];
            let outlooks = outlooks(policy, &fleet, &orders, &[("drone-1", &flown)]);
            let leg_sec = flight_sec(HERE.distance_km(flown.destination));
            // There with the first, back for the next, there, back for the last.
            let mut pickups: Vec<f64> = ["a", "b"].iter().map(|id| outlooks[*id].pickup_at.unwrap()).collect();
            pickups.sort_by(f64::total_cmp);
            near(Some(pickups[0]), 2.0 * leg_sec);
            near(Some(pickups[1]), 4.0 * leg_sec);
            for id in ["a", "b"] {
                near(outlooks[id].delivery_at, outlooks[id].pickup_at.unwrap() + leg_sec);
                let why = outlooks[id].waits_for.clone().unwrap();
                assert!(
                    why.starts_with("no light drone free; next in ") && why.ends_with(" s"),
                    "{why}"
                );
            }
            assert_eq!(outlooks["c"].waits_for.as_deref(), Some("no heavy drone in service"));
            assert_eq!(outlooks["c"].delivery_at, None);
        }
    }

    #[test]
    fn a_battery_that_is_missing_is_named_and_its_charging_counted() {
        let low = Drone {
            status: DroneStatus::Idle,
            ..drone(1, HERE, 20.0)
        };
        // Idle at critical battery: the policy does not count it in, as charging will take it.
        let fleet = [low, drone(4, HERE, 31.0)];
        let mut far = order("a", THERE, 1.0);
        far.destination = Point::new(41.98, 12.37);
        let outlooks = outlooks(Policy::Greedy, &fleet, &[far], &[]);
        let outlook = &outlooks["a"];
        assert_eq!(
            outlook.waits_for.as_deref(),
            Some("no light drone with enough battery; one has to charge first")
        );
        let charging_sec = rules().pace.clock_sec(rules().pace.charging_min(64.0));
        assert!(outlook.pickup_at.unwrap() > charging_sec);
    }

    #[test]
    fn only_news_is_written() {
        let outlook = |pickup_at, waits_for: &str| Outlook {
            pickup_at: Some(pickup_at),
            delivery_at: Some(200.0),
            waits_for: Some(waits_for.to_owned()),
        };
        let told = order("a", HERE, 1.0).expecting(outlook(140.0, "no light drone free; next in 40 s"));
        let news = |new: &Outlook, told_sec| is_news(&told, new, 100.0, told_sec);
        assert!(!news(&told.outlook(), 1e9));
        assert!(
            !news(&outlook(144.0, "no light drone free; next in 40 s"), 1e9),
            "too little"
        );
        assert!(news(&outlook(160.0, "no light drone free; next in 40 s"), 0.0));
        assert!(
            !news(&outlook(140.0, "no light drone free; next in 35 s"), 5.0),
            "it counts down"
        );
        assert!(news(&outlook(140.0, "no light drone free; next in 30 s"), 10.0));
        assert!(news(&outlook(140.0, "no light drone in service"), 0.0));
        assert!(news(&Outlook::default(), 0.0));
    }
}
