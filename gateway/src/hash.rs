//! A stable hash, the same in every version and on every machine: for entity tags and for comparing order bodies. Not
//! for security: whoever chooses an idempotency key only ever compares against their own orders.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits, as 16 hexadecimal digits.
pub(crate) fn stable_hash(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn agrees_with_the_published_vectors() {
        assert_eq!(super::stable_hash(b""), "cbf29ce484222325");
        assert_eq!(super::stable_hash(b"a"), "af63dc4c8601ec8c");
        assert_eq!(super::stable_hash(b"foobar"), "85944171f73967e8");
    }
}
