//! Which of two coordinators is preferred for a key: for liveness only, nothing is safe because of it.
//!
//! Two coordinators that change one key at the same time refuse each other. If both come back at once, they do so again; so the one that
//! is not preferred pauses longer ([`DEFERENCE`](super::DEFERENCE)), and the other gets through. Preference is a rendezvous hash
//! (Thaler & Ravishankar 1998) of key and incarnation: every coordinator computes the same order without asking anybody, and the keys are
//! spread evenly over the coordinators.

use crate::hashing::stable_hash;
use crate::state::Key;

/// True when the coordinator of incarnation `other` goes before that of incarnation `own`. Nobody has incarnation 0: a refusal by a
/// node's bare floor is no reason to give way.
pub(super) fn goes_before(key: &Key, other: u64, own: u64) -> bool {
    other != 0 && other != own && (rank(key, other), other) > (rank(key, own), own)
}

fn rank(key: &Key, incarnation: u64) -> u64 {
    let key = stable_hash(key.as_text().as_bytes()).to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key);
    bytes[8..].copy_from_slice(&incarnation.to_be_bytes());
    stable_hash(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_of_two_is_preferred_and_each_has_its_share() {
        let keys = (0..1_000).map(|i| Key::data(&i.to_string()));
        let first = keys
            .map(|key| {
                let first = goes_before(&key, 7, 9);
                assert_ne!(first, goes_before(&key, 9, 7), "both see the same order");
                first
            })
            .filter(|first| *first)
            .count();
        assert!((400..600).contains(&first), "{first} of 1000");
    }

    #[test]
    fn nobody_gives_way_to_itself_or_to_a_floor() {
        let key = Key::data("a");
        assert!(!goes_before(&key, 7, 7) && !goes_before(&key, 0, 7));
    }
}
