//! Weight classes: which drone carries which parcel, and how fast each flies.

use serde::{Deserialize, Serialize};

/// A weight class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DroneType {
    /// Parcels up to 3 kg.
    Light,
    /// Parcels above 3 and up to 7 kg.
    Medium,
    /// Parcels above 7 kg.
    Heavy,
}

impl DroneType {
    /// All classes, lightest first; also the round-robin order of a new fleet.
    pub const ALL: [Self; 3] = [Self::Light, Self::Medium, Self::Heavy];

    /// The class that carries a parcel of `weight_kg`.
    #[must_use]
    pub fn for_weight(weight_kg: f64) -> Self {
        match weight_kg {
            kg if kg <= 3.0 => Self::Light,
            kg if kg <= 7.0 => Self::Medium,
            _ => Self::Heavy,
        }
    }

    /// The heaviest parcel of the class in kilograms; `None` for heavy, which has no limit.
    #[must_use]
    pub const fn max_kg(self) -> Option<f64> {
        match self {
            Self::Light => Some(3.0),
            Self::Medium => Some(7.0),
            Self::Heavy => None,
        }
    }

    /// `speed` of the class: the fraction of the remaining way covered per tick under `MOTION=fraction`.
    #[must_use]
    pub const fn fraction(self) -> f64 {
        match self {
            Self::Light => 0.40,
            Self::Medium => 0.25,
            Self::Heavy => 0.15,
        }
    }

    /// Factor on `SPEED_BASE_KMH` under `MOTION=cruise`: a lighter drone flies faster, and medium sets the base.
    #[must_use]
    pub const fn cruise_scale(self) -> f64 {
        match self {
            Self::Light => 1.2,
            Self::Medium => 1.0,
            Self::Heavy => 0.8,
        }
    }

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Medium => "medium",
            Self::Heavy => "heavy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DroneType;

    #[test]
    fn classes_by_weight() {
        for (kg, kind) in [
            (0.1, DroneType::Light),
            (3.0, DroneType::Light),
            (3.01, DroneType::Medium),
        ] {
            assert_eq!(DroneType::for_weight(kg), kind);
        }
        assert_eq!(DroneType::for_weight(7.0), DroneType::Medium);
        assert_eq!(DroneType::for_weight(7.01), DroneType::Heavy);
        assert_eq!(DroneType::for_weight(1e6), DroneType::Heavy);
    }
}
