//! Which drones have fallen silent, and which are heard of again.
//!
//! A drone is *heard of* when something changes in its record that only who flies it writes ([`Drone::sign`]): place, battery, or
//! the heartbeat of one that stands. What the dispatcher or the bus do changes nothing here.
//!
//! Promises:
//! - Time counts only while somebody is heard of. So what silences everybody (the simulator, the KV or this dispatcher away, a
//!   network cut) makes nobody lost, and the broker has no part in it; a single drone never is lost, for want of somebody to compare
//!   with. Between two voices, however far apart, at most [`GAP_SHARE`] of the limit counts: when all come back, the others have time
//!   to speak after the first. A clock that jumps does not matter. After a restart everybody has as much time as ever.
//! - A drone that flies an order is lost after `DRONE_LOST_SEC`. Any other, whose record may rightly stay as it is from heartbeat to
//!   heartbeat, only after [`BEATS`] of them; and never if its record has no heartbeats at all (a script's drone).

use std::collections::HashMap;

use domain::drone::{Drone, DroneStatus, HEARTBEAT_SEC, Sign};

use crate::fleet::{Change, DroneChange};

/// Which part of `DRONE_LOST_SEC` counts at most between two voices.
pub const GAP_SHARE: f64 = 1.0 / 3.0;

/// Heartbeats that a standing drone may miss.
pub const BEATS: f64 = 3.0;

/// When each drone was last heard of.
#[derive(Debug, Default)]
pub struct Silence {
    /// Seconds in which somebody was heard of: the clock of everything here.
    clock_sec: f64,
    /// When somebody was last heard of, Unix seconds.
    voice_at: Option<f64>,
    heard: HashMap<String, Heard>,
}

#[derive(Debug)]
struct Heard {
    sign: Sign,
    at_sec: f64,
    /// Heard of since the last look at the fleet.
    is_new: bool,
    was_lost: bool,
    /// Heard of since it was lost.
    is_back: bool,
}

impl Silence {
    /// Takes note of a record that was read. The first sight of a drone is no sign of life.
    pub fn note(&mut self, drone: &Drone) {
        let (sign, is_lost) = (drone.sign(), drone.status == DroneStatus::Lost);
        let Some(known) = self.heard.get_mut(&drone.id) else {
            let heard = Heard {
                sign,
                at_sec: self.clock_sec,
                is_new: false,
                was_lost: is_lost,
                is_back: false,
            };
            self.heard.insert(drone.id.clone(), heard);
            return;
        };
        if known.sign != sign {
            known.is_back |= known.was_lost;
            known.is_new = true;
            known.sign = sign;
        }
        known.is_back &= is_lost;
        known.was_lost = is_lost;
    }

    /// The whole fleet has been looked at, at `now` (Unix seconds); `is_there` tells of an id whether it is one of the fleet.
    pub fn looked(&mut self, now: f64, lost_sec: f64, is_there: impl Fn(&str) -> bool) {
        self.heard.retain(|id, _| is_there(id));
        if !self.heard.values().any(|heard| heard.is_new) {
            return;
        }
        let gap_sec = self.voice_at.map_or(0.0, |before| now - before);
        self.clock_sec += gap_sec.clamp(0.0, GAP_SHARE * lost_sec);
        self.voice_at = Some(now);
        for heard in self.heard.values_mut().filter(|heard| heard.is_new) {
            heard.is_new = false;
            heard.at_sec = self.clock_sec;
        }
    }

    /// Who is lost now, and who is found again.
    pub fn plan<'a>(&self, drones: impl Iterator<Item = &'a Drone>, lost_sec: f64) -> Vec<DroneChange> {
        let change = |drone: &Drone| {
            let heard = self.heard.get(&drone.id)?;
            if drone.status == DroneStatus::Lost {
                return heard.is_back.then_some((Change::Found, "heard of again"));
            }
            let silent_sec = self.clock_sec - heard.at_sec;
            let is_lost = !heard.is_new && silent_sec >= limit_sec(drone, lost_sec)?;
            is_lost.then_some((Change::Lose { last: heard.sign }, "silent for too long"))
        };
        drones
            .filter_map(|drone| {
                let (change, why) = change(drone)?;
                Some(DroneChange {
                    drone_id: drone.id.clone(),
                    change,
                    why,
                })
            })
            .collect()
    }
}

/// After how many seconds of silence a drone is lost; `None` for one that may be silent.
fn limit_sec(drone: &Drone, lost_sec: f64) -> Option<f64> {
    match drone.status {
        DroneStatus::Busy => Some(lost_sec),
        DroneStatus::Idle | DroneStatus::Charging | DroneStatus::Retiring => {
            drone.seen_at.map(|_| lost_sec.max(BEATS * HEARTBEAT_SEC))
        }
        DroneStatus::Inactive | DroneStatus::Lost => None,
    }
}

#[cfg(test)]
mod tests {
    use domain::drone::{Drone, DroneStatus};
    use domain::geo::Point;

    use super::Silence;
    use crate::testing::drone;

    const LOST_SEC: f64 = 30.0;

    struct Watched {
        silence: Silence,
        fleet: Vec<Drone>,
        now: f64,
    }

    impl Watched {
        fn new(fleet: Vec<Drone>) -> Self {
            let mut watched = Self {
                silence: Silence::default(),
                fleet,
                now: 1_000.0,
            };
            watched.look();
            watched
        }

        fn look(&mut self) {
            for drone in &self.fleet {
                self.silence.note(drone);
            }
            let fleet = &self.fleet;
            self.silence
                .looked(self.now, LOST_SEC, |id| fleet.iter().any(|drone| drone.id == id));
        }

        /// `seconds` pass, looked at every half second, during which these drones beat.
        fn pass(&mut self, seconds: f64, beating: &[usize]) {
            let end = self.now + seconds;
            while self.now < end {
                self.now += 0.5;
                for &index in beating {
                    self.fleet[index].seen_at = Some(self.now);
                }
                self.look();
            }
        }

        fn planned(&self) -> Vec<(String, &'static str)> {
            let plan = self.silence.plan(self.fleet.iter(), LOST_SEC);
            plan.into_iter()
                .map(|change| (change.drone_id, change.change.name()))
                .collect()
        }
    }

    fn fleet() -> Vec<Drone> {
        let at = |number| Drone {
            seen_at: Some(1.0),
            ..drone(number, Point::new(41.9, 12.5), 80.0)
        };
        vec![at(1).take("d").unwrap(), at(2), at(3)]
    }

    fn lose(id: &str) -> Vec<(String, &'static str)> {
        vec![(id.to_owned(), "lose")]
    }

    #[test]
    fn the_one_that_is_silent_among_others_is_lost() {
        let mut watched = Watched::new(fleet());
        watched.pass(29.0, &[1, 2]);
        assert_eq!(watched.planned(), []);
        watched.pass(2.0, &[1, 2]);
        assert_eq!(watched.planned(), lose("drone-1"));
        // One word, and all is well.
        watched.pass(0.5, &[0]);
        assert_eq!(watched.planned(), []);
    }

    #[test]
    fn who_stands_is_given_time_and_a_scripts_drone_all_of_it() {
        let mut drones = fleet();
        drones[2].seen_at = None;
        let mut watched = Watched::new(drones);
        watched.pass(100.0, &[0]);
        assert_eq!(watched.planned(), lose("drone-2"));
        watched.fleet[1].status = DroneStatus::Inactive;
        assert_eq!(watched.planned(), [], "who is parked may be silent");
    }

    #[test]
    fn when_all_are_silent_nobody_is_lost() {
        let mut watched = Watched::new(fleet());
        watched.pass(20.0, &[0, 1, 2]);
        watched.pass(1_000.0, &[]);
        assert_eq!(watched.planned(), [], "the simulator was away");
        // The simulator is back, and one drone speaks first: the others have time yet.
        watched.pass(15.0, &[1]);
        assert_eq!(watched.planned(), []);
        watched.pass(1.0, &[0, 2]);
        watched.pass(25.0, &[1]);
        assert_eq!(watched.planned(), []);
    }

    #[test]
    fn what_nobody_watched_does_not_count() {
        let mut watched = Watched::new(fleet());
        watched.pass(5.0, &[0, 1, 2]);
        watched.now += 3_600.0;
        watched.fleet[1].seen_at = Some(watched.now);
        watched.look();
        assert_eq!(watched.planned(), [], "the dispatcher or the KV was away");
        watched.now -= 7_200.0;
        watched.look();
        watched.pass(5.0, &[0, 1, 2]);
        assert_eq!(watched.planned(), [], "nor does a clock that jumps");
    }

    #[test]
    fn found_when_heard_of_after_it_was_lost() {
        let mut watched = Watched::new(fleet());
        let last = watched.fleet[0].sign();
        watched.fleet[0] = watched.fleet[0].lose(&last).unwrap();
        watched.pass(50.0, &[1, 2]);
        assert_eq!(watched.planned(), []);
        watched.pass(0.5, &[0]);
        assert_eq!(watched.planned(), [("drone-1".to_owned(), "found")]);
        // Also by a dispatcher that has only just started.
        let mut other = Watched::new(watched.fleet.clone());
        assert_eq!(other.planned(), []);
        other.pass(0.5, &[0]);
        assert_eq!(other.planned(), [("drone-1".to_owned(), "found")]);
        let found = watched.fleet[0].found().unwrap();
        watched.fleet[0] = found;
        watched.look();
        assert_eq!(watched.planned(), []);
    }
}
