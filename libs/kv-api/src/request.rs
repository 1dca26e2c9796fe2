//! Names of requests: what makes a change that is sent again take effect once.

use std::fmt;
use std::str::FromStr;

use register::RequestId;
use register::hashing::stable_hash;

/// Header that names a change: a UUID of version 7, the same in every attempt at it.
pub const REQUEST_ID_HEADER: &str = "Request-Id";
/// Header that numbers the attempts at a named change, from 1. Without it, any attempt may be a repetition.
pub const REQUEST_ATTEMPT_HEADER: &str = "Request-Attempt";

/// A change as its client named it: a UUID of version 7 (RFC 9562, §5.7), which carries the time of the first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestName(u128);

/// A text that is no UUID of version 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a UUID of version 7 is expected, like 019a1b2c-3d4e-7f00-8a1b-2c3d4e5f6071")]
pub struct ParseRequestNameError;

impl RequestName {
    const VERSION: u128 = 7;
    const VARIANT: u128 = 0b10;
    /// Where a hyphen stands in the text.
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];

    /// A name for a change that is first sent now. `random` should be just that.
    #[must_use]
    pub const fn new(now_unix_ms: u64, random: u128) -> Self {
        let fixed = (now_unix_ms as u128) << 80 | Self::VERSION << 76 | Self::VARIANT << 62;
        // 12 and 62 random bits, around version and variant.
        Self(fixed | random & 0x0fff_3fff_ffff_ffff_ffff)
    }

    /// When the first attempt was made, in Unix milliseconds by its client's clock.
    #[must_use]
    pub const fn first_attempt_unix_ms(&self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// The name as states remember it: from all bits, because some generators count where others are random.
    #[must_use]
    pub fn id(&self) -> RequestId {
        // 0 names nobody.
        RequestId(stable_hash(&self.0.to_be_bytes()).max(1))
    }

    /// The token of a lock that is asked for under this name, so that every attempt asks for the same. As hard to guess as the name.
    #[must_use]
    pub fn lock_token(&self) -> String {
        let half = |salt: u8| {
            let mut bytes = self.0.to_be_bytes().to_vec();
            bytes.push(salt);
            stable_hash(&bytes)
        };
        format!("{:016x}{:016x}", half(1), half(2))
    }
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl FromStr for RequestName {
    type Err = ParseRequestNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_shaped = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match byte {
                b'-' => Self::HYPHENS.contains(&at),
                byte => byte.is_ascii_hexdigit() && !Self::HYPHENS.contains(&at),
            });
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let bits = u128::from_str_radix(&digits, 16).map_err(|_| ParseRequestNameError)?;
        let is_v7 = bits >> 76 & 0xf == Self::VERSION && bits >> 62 & 0b11 == Self::VARIANT;
        if is_shaped && is_v7 {
            Ok(Self(bits))
        } else {
            Err(ParseRequestNameError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_uuids_of_version_7() {
        // The example of RFC 9562, appendix A.6.
        let text = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        let name: RequestName = text.parse().unwrap();
        assert_eq!(name.first_attempt_unix_ms(), 1_645_557_742_000);
        assert_eq!(name.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(name));
        assert_eq!(name.id(), text.parse::<RequestName>().unwrap().id());
        let made = RequestName::new(1_795_243_575_552, u128::MAX);
        assert_eq!(made.to_string().parse(), Ok(made));
        assert_eq!(made.first_attempt_unix_ms(), 1_795_243_575_552);
        assert_ne!(made.id(), RequestName::new(1_795_243_575_552, u128::MAX - 1).id());
        assert_eq!(made.lock_token().len(), 32);
        assert_ne!(made.lock_token(), name.lock_token());
        for bad in [
            "",
            "1",
            "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
            "017f22e279b07cc398c4dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
            "+17f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        ] {
            assert_eq!(bad.parse::<RequestName>(), Err(ParseRequestNameError), "{bad}");
        }
    }
}
