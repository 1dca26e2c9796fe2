//! Names for sets too large to be written down.

/// Well mixed bits (splitmix64, twice), the same in every run.
///
/// Sets are compared by the exclusive or of their members' fingerprints. Two different ones are taken for one with a chance of about
/// (sets seen)² / 2¹²⁸: less than 2⁻⁷⁰ for the default budget, and then a good history might be called wrong, never a wrong one good.
pub(super) fn fingerprint(seed: u64) -> u128 {
    let mix = |seed: u64| {
        let mut bits = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    };
    u128::from(mix(seed.wrapping_mul(2))) << 64 | u128::from(mix(seed.wrapping_mul(2) + 1))
}
