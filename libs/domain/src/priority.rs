//! How urgent an order is.

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// Highest number that is taken for a priority.
pub const PRIORITY_NUMBER_MAX: u8 = 9;

/// How urgent an order is. Read from its name, or from a number as older writers have it: 0 to 3 normal, 4 to 6 high, 7 to 9
/// critical. Written as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "Value")]
pub enum Priority {
    /// When there is nothing better to do.
    Low,
    /// What an order has that says nothing.
    #[default]
    Normal,
    /// Before normal ones.
    High,
    /// Before all others.
    Critical,
}

/// Something that is no priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("got {0}; expected low, normal, high, critical or a whole number in [0, 9]")]
pub struct NoPriority(String);

impl Priority {
    /// All of them, the least urgent first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    const fn from_number(number: u64) -> Option<Self> {
        match number {
            0..=3 => Some(Self::Normal),
            4..=6 => Some(Self::High),
            7..=9 => Some(Self::Critical),
            _ => None,
        }
    }
}

impl std::fmt::Display for Priority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<Value> for Priority {
    type Error = NoPriority;

    fn try_from(value: Value) -> Result<Self, NoPriority> {
        let found = match &value {
            Value::String(name) => Self::ALL.into_iter().find(|priority| priority.name() == name),
            Value::Number(number) => whole(number).and_then(Self::from_number),
            _ => None,
        };
        found.ok_or_else(|| NoPriority(value.to_string()))
    }
}

/// A whole number in JSON is one however it is written: `6.0` is 6.
fn whole(number: &Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let value = number.as_f64()?;
        let is_whole = value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, and in the range of u32"
        )]
        is_whole.then_some(value as u64)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::{PRIORITY_NUMBER_MAX, Priority};

    #[test]
    fn names_and_numbers_are_read_and_names_written() {
        for priority in Priority::ALL {
            assert_eq!(to_value(priority).unwrap(), json!(priority.name()));
            assert_eq!(from_value::<Priority>(json!(priority.to_string())).unwrap(), priority);
        }
        let of = |number: u8| from_value::<Priority>(json!(number));
        assert_eq!(of(0).unwrap(), Priority::default());
        assert_eq!(
            (of(4).unwrap(), of(PRIORITY_NUMBER_MAX).unwrap()),
            (Priority::High, Priority::Critical)
        );
        assert_eq!(
            from_value::<Priority>(json!(6.0)).unwrap(),
            Priority::High,
            "a whole number"
        );
        for bad in [
            json!(10),
            json!(10.0),
            json!(-1),
            json!(-1.0),
            json!(1.5),
            json!("urgent"),
            json!("High"),
            json!(null),
            json!({}),
        ] {
            let error = from_value::<Priority>(bad.clone()).unwrap_err().to_string();
            assert!(
                error.contains(&bad.to_string()) && error.contains("critical"),
                "{error}"
            );
        }
        assert!(Priority::Low < Priority::Normal && Priority::High < Priority::Critical);
    }
}
