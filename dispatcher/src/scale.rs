//! How many drones are active: pure functions over a snapshot.
//!
//! Promises: the target is clamp(⌈waiting × `SCALE_RATIO`⌉, `BASE_ACTIVE`, `DRONE_POOL_MAX`), split over the classes by
//! their share of the waiting orders, evenly when none waits. Beyond that plain split, so that nobody starves: each class that
//! exists keeps at least one active drone as far as the target allows, a class with a waiting order always does, no class
//! is given more than it has while another could use the rest, and no class retires drones while one of its orders waits.
//! And so that no order waits beside a parked drone: while orders of a class wait, its busy drones do not count against the
//! ⌈waiting × `SCALE_RATIO`⌉ that it should have, as far as `DRONE_POOL_MAX` allows.

use std::collections::BTreeMap;

use domain::drone::{Drone, DroneStatus, DroneType};

use crate::fleet::{Change, DroneChange};
use crate::rules::Autoscale;

/// A class in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassCount {
    /// Drones of the class that are not lost.
    pub fleet: usize,
    /// Of these, idle, busy or charging.
    pub active: usize,
    /// Of these, busy.
    pub busy: usize,
    /// Waiting orders of the class.
    pub pending: usize,
}

/// How many active drones each class should have.
#[must_use]
pub fn targets(classes: &BTreeMap<DroneType, ClassCount>, scale: Autoscale) -> BTreeMap<DroneType, usize> {
    let pending: usize = classes.values().map(|class| class.pending).sum();
    let total = wanted(pending, scale.scale_ratio)
        .max(scale.base_active)
        .min(scale.pool_max);
    let mut targets: BTreeMap<DroneType, usize> = classes.keys().map(|kind| (*kind, 0)).collect();
    let mut left = total;
    // First one for each class that exists, those with waiting orders first and even beyond the total.
    let mut in_need: Vec<_> = classes.iter().filter(|(_, class)| class.fleet > 0).collect();
    in_need.sort_by_key(|(_, class)| std::cmp::Reverse(class.pending));
    for (kind, class) in in_need {
        if left > 0 || class.pending > 0 {
            targets.insert(*kind, 1);
            left = left.saturating_sub(1);
        }
    }
    // Then one by one to the class that is farthest below its share, as long as it has drones.
    while left > 0 {
        let neediest = classes
            .iter()
            .filter(|(kind, class)| targets[kind] < class.fleet)
            .max_by(|a, b| {
                let lag = |kind: &DroneType, class: &ClassCount| {
                    share(class.pending, pending, classes.len()) * to_f64(total) - to_f64(targets[kind])
                };
                // `max_by` takes the last of equals; reversed kinds make that the lightest.
                lag(a.0, a.1).total_cmp(&lag(b.0, b.1)).then(b.0.cmp(a.0))
            })
            .map(|(kind, _)| *kind);
        let Some(kind) = neediest else { break };
        *targets.entry(kind).or_default() += 1;
        left -= 1;
    }
    let in_use: usize = classes.iter().map(|(kind, class)| targets[kind].max(class.busy)).sum();
    let mut pool_left = scale.pool_max.saturating_sub(in_use);
    for (kind, class) in classes.iter().filter(|(_, class)| class.pending > 0 && class.busy > 0) {
        let target = targets.entry(*kind).or_default();
        let ready = wanted(class.pending, scale.scale_ratio).max(1);
        let more = (class.busy + ready)
            .min(class.fleet)
            .saturating_sub((*target).max(class.busy))
            .min(pool_left);
        if more > 0 {
            *target = (*target).max(class.busy) + more;
            pool_left -= more;
        }
    }
    targets
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and clamped to the fleet's size right after"
)]
fn wanted(pending: usize, ratio: f64) -> usize {
    (to_f64(pending) * ratio).ceil().min(1e9) as usize
}

fn share(of: usize, all: usize, classes: usize) -> f64 {
    if all == 0 {
        1.0 / to_f64(classes.max(1))
    } else {
        to_f64(of) / to_f64(all)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of drones and orders are far below 2^52"
)]
fn to_f64(count: usize) -> f64 {
    count as f64
}

/// The classes in numbers; `pending` are the waiting orders per class.
#[must_use]
pub fn count(drones: &[&Drone], pending: &BTreeMap<DroneType, usize>) -> BTreeMap<DroneType, ClassCount> {
    let mut classes: BTreeMap<DroneType, ClassCount> = DroneType::ALL.map(|kind| (kind, ClassCount::default())).into();
    for drone in drones {
        let class = classes.entry(drone.kind).or_default();
        // Nobody can wake a lost one.
        class.fleet += usize::from(drone.status != DroneStatus::Lost);
        class.active += usize::from(drone.status.is_active());
        class.busy += usize::from(drone.status == DroneStatus::Busy);
    }
    for (kind, waiting) in pending {
        classes.entry(*kind).or_default().pending = *waiting;
    }
    classes
}

/// Who is to be woken.
#[must_use]
pub fn plan_wake(drones: &[&Drone], pending: &BTreeMap<DroneType, usize>, scale: Autoscale) -> Vec<DroneChange> {
    let classes = count(drones, pending);
    let targets = targets(&classes, scale);
    let mut changes = Vec::new();
    for (kind, class) in &classes {
        let missing = targets[kind].saturating_sub(class.active);
        let mut sleeping: Vec<_> = drones
            .iter()
            .filter(|drone| drone.kind == *kind)
            .filter(|drone| matches!(drone.status, DroneStatus::Inactive | DroneStatus::Retiring))
            .collect();
        // Parked ones first, fuller ones first: a retiring drone may still be short of battery.
        sleeping.sort_by(|a, b| {
            let retiring = |drone: &Drone| drone.status == DroneStatus::Retiring;
            retiring(a)
                .cmp(&retiring(b))
                .then(b.battery.total_cmp(&a.battery))
                .then_with(|| a.id.cmp(&b.id))
        });
        for drone in sleeping.into_iter().take(missing) {
            changes.push(DroneChange {
                drone_id: drone.id.clone(),
                change: Change::Wake,
                why: "too few active",
            });
        }
    }
    changes
}

/// Who is to be retired. The caller makes sure that the surplus has lasted a while.
#[must_use]
pub fn plan_retire(drones: &[&Drone], pending: &BTreeMap<DroneType, usize>, scale: Autoscale) -> Vec<DroneChange> {
    let classes = count(drones, pending);
    let targets = targets(&classes, scale);
    let mut changes = Vec::new();
    for (kind, class) in &classes {
        if class.pending > 0 {
            continue;
        }
        let surplus = class.active.saturating_sub(targets[kind]);
        let mut free: Vec<_> = drones
            .iter()
            .filter(|drone| drone.kind == *kind && drone.current_delivery.is_none())
            .filter(|drone| matches!(drone.status, DroneStatus::Idle | DroneStatus::Charging))
            .collect();
        // Charging ones first, emptier ones first: they are the least use now.
        free.sort_by(|a, b| {
            let idle = |drone: &Drone| drone.status == DroneStatus::Idle;
            idle(a)
                .cmp(&idle(b))
                .then(a.battery.total_cmp(&b.battery))
                .then_with(|| a.id.cmp(&b.id))
        });
        for drone in free.into_iter().take(surplus) {
            changes.push(DroneChange {
                drone_id: drone.id.clone(),
                change: Change::Retire,
                why: "too many active",
            });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::drone::{Drone, DroneStatus, DroneType};
    use domain::geo::Point;
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::{ClassCount, plan_retire, plan_wake, targets};
    use crate::fleet::Change;
    use crate::rules::Autoscale;
    use crate::testing::drone;

    const SCALE: Autoscale = Autoscale {
        base_active: 6,
        pool_max: 18,
        scale_ratio: 1.0,
    };

    fn split(fleet: [usize; 3], pending: [usize; 3], scale: Autoscale) -> [usize; 3] {
        let classes: BTreeMap<_, _> = DroneType::ALL
            .into_iter()
            .zip(fleet.into_iter().zip(pending))
            .map(|(kind, (fleet, pending))| {
                (
                    kind,
                    ClassCount {
                        fleet,
                        active: 0,
                        busy: 0,
                        pending,
                    },
                )
            })
            .collect();
        let targets = targets(&classes, scale);
        DroneType::ALL.map(|kind| targets[&kind])
    }

    #[test]
    fn evenly_at_rest_by_share_under_load() {
        assert_eq!(split([6, 6, 6], [0, 0, 0], SCALE), [2, 2, 2]);
        assert_eq!(
            split(
                [6, 6, 6],
                [0, 0, 0],
                Autoscale {
                    base_active: 4,
                    ..SCALE
                }
            ),
            [2, 1, 1]
        );
        assert_eq!(split([6, 6, 6], [6, 3, 3], SCALE), [6, 3, 3]);
        assert_eq!(split([6, 6, 6], [100, 100, 100], SCALE), [6, 6, 6]);
        assert_eq!(
            split(
                [7, 7, 6],
                [5, 0, 0],
                Autoscale {
                    base_active: 4,
                    pool_max: 20,
                    scale_ratio: 0.8
                }
            ),
            [2, 1, 1]
        );
    }

    #[test]
    fn nobody_starves() {
        // One heavy order among many light ones.
        assert!(split([6, 6, 6], [99, 0, 1], SCALE)[2] >= 1);
        assert_eq!(split([20, 6, 6], [99, 0, 1], SCALE), [16, 1, 1]);
        // A target of nothing at all still serves who waits.
        let none = Autoscale {
            base_active: 0,
            pool_max: 18,
            scale_ratio: 0.0,
        };
        assert_eq!(split([6, 6, 6], [1, 0, 1], none), [1, 0, 1]);
        // What a small class cannot use goes to the others.
        assert_eq!(split([1, 6, 6], [9, 0, 0], SCALE).iter().sum::<usize>(), 9);
        // Classes without drones take nothing.
        assert_eq!(split([1, 0, 0], [0, 5, 0], SCALE), [1, 0, 0]);
    }

    #[test]
    fn busy_drones_do_not_make_an_order_wait_beside_a_parked_one() {
        let class = |fleet, active, busy, pending| ClassCount {
            fleet,
            active,
            busy,
            pending,
        };
        let split = |light: ClassCount, pool_max| {
            let classes = [(DroneType::Light, light), (DroneType::Medium, class(6, 2, 0, 0))];
            targets(
                &classes.into(),
                Autoscale {
                    base_active: 4,
                    pool_max,
                    scale_ratio: 1.0,
                },
            )[&DroneType::Light]
        };
        assert_eq!(split(class(6, 3, 3, 1), 18), 4);
        assert_eq!(split(class(6, 4, 4, 1), 18), 5);
        assert_eq!(split(class(6, 6, 6, 9), 18), 6, "there are no more");
        assert_eq!(
            split(class(6, 4, 4, 1), 5),
            3,
            "the pool is full: four busy, and one of the other class"
        );
        assert_eq!(split(class(6, 4, 4, 0), 18), 2, "nothing waits");
    }

    fn fleet(statuses: &[DroneStatus]) -> Vec<Drone> {
        (1..)
            .zip(statuses)
            .map(|(number, status)| Drone {
                status: *status,
                ..drone(number, Point::new(41.9, 12.5), 80.0)
            })
            .collect()
    }

    #[test]
    fn sleeping_ones_wake_parked_first() {
        use DroneStatus::{Idle, Inactive, Retiring};
        // Light: 1 retiring, 4 inactive, 7 retiring.
        let fleet = fleet(&[Retiring, Idle, Idle, Inactive, Idle, Idle, Retiring, Idle, Idle]);
        let pending = BTreeMap::from([(DroneType::Light, 2)]);
        let drones: Vec<_> = fleet.iter().collect();
        let scale = Autoscale {
            base_active: 0,
            ..SCALE
        };
        let woken: Vec<_> = plan_wake(&drones, &pending, scale)
            .into_iter()
            .map(|change| change.drone_id)
            .collect();
        assert_eq!(woken[0], "drone-4");
        let none_parked = [&fleet[0], &fleet[6]];
        assert_eq!(
            plan_wake(&none_parked, &pending, scale).len(),
            2,
            "retiring ones turn round"
        );
    }

    #[test]
    fn too_many_retire_but_not_while_an_order_of_theirs_waits() {
        use DroneStatus::{Charging, Idle};
        let mut fleet = fleet(&[Idle, Idle, Idle, Charging, Idle, Idle, Idle, Idle, Idle]);
        fleet[0] = fleet[0].take("d").unwrap();
        let drones: Vec<_> = fleet.iter().collect();
        let scale = Autoscale {
            base_active: 3,
            ..SCALE
        };
        let retired: Vec<_> = plan_retire(&drones, &BTreeMap::new(), scale);
        assert_eq!(retired.len(), 6, "two of each class");
        assert_eq!(retired[0].drone_id, "drone-4", "the charging one first");
        assert!(
            retired
                .iter()
                .all(|change| change.change == Change::Retire && change.drone_id != "drone-1")
        );
        let waiting = BTreeMap::from([(DroneType::Light, 1)]);
        assert!(
            !plan_retire(&drones, &waiting, scale)
                .iter()
                .any(|change| change.drone_id == "drone-4")
        );
    }

    proptest! {
        #[test]
        fn targets_hold_their_bounds(
            fleet in prop::array::uniform3(0..12_usize), pending in prop::array::uniform3(0..40_usize),
            base in 0..12_usize, pool in 1..25_usize, ratio in 0.0..2.0_f64,
        ) {
            let scale = Autoscale { base_active: base, pool_max: pool, scale_ratio: ratio };
            let got = split(fleet, pending, scale);
            for ((target, fleet), pending) in got.into_iter().zip(fleet).zip(pending) {
                prop_assert!(target <= fleet);
                if fleet > 0 && pending > 0 { prop_assert!(target >= 1); }
            }
            let all_pending: usize = pending.iter().sum();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small")]
            let wanted = ((all_pending as f64 * ratio).ceil() as usize).max(base).min(pool);
            let needy = fleet.iter().zip(pending).filter(|(fleet, pending)| **fleet > 0 && *pending > 0).count();
            let sum: usize = got.iter().sum();
            prop_assert_eq!(sum, wanted.max(needy).min(fleet.iter().sum()));
        }
    }
}
