//! What is half-done: orders and drones that are not bound to each other as they will be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use domain::delivery::DeliveryStatus;

use super::picture::Picture;

/// Something that somebody still has to mend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loose {
    /// An open order that no sweep lists: nobody would ever wake it.
    Unlisted { order: String },
    /// An order that waits, and a drone that is busy with it.
    HalfMade { order: String, drone: String },
    /// An order that is given to a drone which does not hold it.
    Unheld { order: String, drone: String },
    /// A drone that is busy with an order which has another drone, has ended, or is not there.
    Astray { order: String, drone: String },
    /// An order that two drones hold.
    Doubled { order: String },
    /// Two orders that are given to one drone.
    Overbooked { order: String, drone: String },
    /// An order that has ended and is still listed among the open ones.
    StillListed { order: String },
}

impl Loose {
    /// The order that it is about.
    pub(super) fn order(&self) -> &str {
        match self {
            Self::Unlisted { order } | Self::Doubled { order } | Self::StillListed { order } => order,
            Self::HalfMade { order, .. }
            | Self::Unheld { order, .. }
            | Self::Astray { order, .. }
            | Self::Overbooked { order, .. } => order,
        }
    }

    /// Its kind, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Unlisted { .. } => "open and not listed",
            Self::HalfMade { .. } => "waiting with a drone busy for it",
            Self::Unheld { .. } => "given to a drone that does not hold it",
            Self::Astray { .. } => "held by a drone that it does not have",
            Self::Doubled { .. } => "held by two drones",
            Self::Overbooked { .. } => "given to a drone that has another",
            Self::StillListed { .. } => "ended and still listed",
        }
    }
}

impl fmt::Display for Loose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {} is {}", self.order(), self.kind())?;
        match self {
            Self::HalfMade { drone, .. }
            | Self::Unheld { drone, .. }
            | Self::Astray { drone, .. }
            | Self::Overbooked { drone, .. } => write!(f, " ({drone})"),
            Self::Unlisted { .. } | Self::Doubled { .. } | Self::StillListed { .. } => Ok(()),
        }
    }
}

/// Everything that is half-done in this picture.
pub(super) fn loose(picture: &Picture) -> BTreeSet<Loose> {
    let mut found = BTreeSet::new();
    let mut holders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (drone, known) in &picture.drones {
        if let Some(order) = known.record.current_delivery.as_deref() {
            holders.entry(order).or_default().push(drone);
        }
    }
    for (id, drones) in &holders {
        if drones.len() > 1 {
            found.insert(Loose::Doubled {
                order: (*id).to_owned(),
            });
        }
        let record = picture.orders.get(*id).map(|known| &known.record);
        for drone in drones {
            let (order, drone) = ((*id).to_owned(), (*drone).to_owned());
            match record {
                Some(record) if record.status == DeliveryStatus::Pending => {
                    found.insert(Loose::HalfMade { order, drone });
                }
                Some(record) if record.status.has_drone() && record.drone_id.as_deref() == Some(&drone) => {}
                _ => {
                    found.insert(Loose::Astray { order, drone });
                }
            }
        }
    }
    let mut given = BTreeSet::new();
    for (id, known) in &picture.orders {
        let (record, order) = (&known.record, id.clone());
        if !record.status.is_open() {
            continue;
        }
        if !picture.lists(id) {
            found.insert(Loose::Unlisted { order: order.clone() });
        }
        let Some(drone) = record.drone_id.as_ref().filter(|_| record.status.has_drone()) else {
            continue;
        };
        if !holders
            .get(id.as_str())
            .is_some_and(|drones| drones.contains(&drone.as_str()))
        {
            let drone = drone.clone();
            found.insert(Loose::Unheld {
                order: order.clone(),
                drone,
            });
        }
        if !given.insert(drone) {
            let drone = drone.clone();
            found.insert(Loose::Overbooked { order, drone });
        }
    }
    let ended = |id: &&str| picture.status(id).is_some_and(|status| !status.is_open());
    found.extend(
        picture
            .listed()
            .filter(ended)
            .map(|id| Loose::StillListed { order: id.to_owned() }),
    );
    found
}
