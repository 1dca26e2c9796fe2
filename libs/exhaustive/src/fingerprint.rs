//! Fingerprints of 128 bits, and hashing that is fast on the small numbers a world is made of.

use std::fmt::{Debug, Write};
use std::hash::{BuildHasherDefault, Hasher};

/// Identifies something by 128 bits: among 100 million things the chance that any two share one is below 10^-22.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(u64, u64);

/// Odd, with half of their bits set: the first digits of π and e.
const PI: u64 = 0x243f_6a88_85a3_08d3;
const E: u64 = 0xb7e1_5162_8aed_2a6b;

impl Fingerprint {
    /// Of numbers: of a world.
    pub(crate) fn of_words(words: &[u32]) -> Self {
        let mut lanes = Lanes::new();
        for pair in words.chunks(2) {
            let high = pair.get(1).map_or(u64::from(u32::MAX), |word| u64::from(*word));
            lanes.add(u64::from(pair[0]) | high << 32);
        }
        lanes.end(words.len())
    }

    /// Of anything, by its `Debug` form. What derives `Debug` shows all its fields there, so two things with one form are equal. Slow, but
    /// it needs nothing of the types, and parts of worlds are fingerprinted a thousand times less often than worlds.
    pub(crate) fn of_form(thing: &impl Debug) -> Self {
        let mut form = Form {
            lanes: Lanes::new(),
            block: [0; 8],
            filled: 0,
            length: 0,
        };
        // Writing into a fingerprint cannot fail, and a derived `Debug` passes on what its writer says.
        let _ = write!(form, "{thing:?}");
        form.lanes.add(u64::from_le_bytes(form.block));
        form.lanes.end(form.length)
    }
}

struct Lanes(u64, u64);

impl Lanes {
    const fn new() -> Self {
        Self(PI, E)
    }

    #[inline]
    fn add(&mut self, word: u64) {
        // The first lane folds a product, the second is a bijection of what was before: no common weakness.
        self.0 = fold(self.0 ^ word, E);
        let mixed = (self.1 ^ word).wrapping_mul(PI);
        self.1 = (mixed ^ mixed >> 32).wrapping_mul(E).rotate_left(29);
    }

    fn end(mut self, length: usize) -> Fingerprint {
        self.add(length as u64);
        Fingerprint(fold(self.0, PI), fold(self.1 ^ self.0.rotate_left(32), PI))
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Fingerprints what is written to it.
struct Form {
    lanes: Lanes,
    block: [u8; 8],
    filled: usize,
    length: usize,
}

impl Write for Form {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.block[self.filled] = byte;
            self.filled += 1;
            if self.filled == self.block.len() {
                self.lanes.add(u64::from_le_bytes(self.block));
                (self.block, self.filled) = ([0; 8], 0);
            }
        }
        self.length += text.len();
        Ok(())
    }
}

/// A hasher for keys that are a few numbers.
#[derive(Debug, Default)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.unsigned_abs() as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = fold(self.0 ^ number ^ PI, E);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by a few numbers.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Mixer>>;
/// A set of fingerprints.
pub(crate) type Seen = std::collections::HashSet<Fingerprint, BuildHasherDefault<Mixer>>;

/// Gives equal things one number, from 0 on.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    things: Vec<T>,
    numbers: Map<Fingerprint, u32>,
}

impl<T: Debug> Interner<T> {
    pub(crate) fn new() -> Self {
        Self {
            things: Vec::new(),
            numbers: Map::default(),
        }
    }

    /// The number of this thing.
    ///
    /// # Panics
    /// When there are more than 2^32 things: memory ends long before.
    pub(crate) fn number(&mut self, thing: T) -> u32 {
        let Self { things, numbers } = self;
        *numbers.entry(Fingerprint::of_form(&thing)).or_insert_with(|| {
            things.push(thing);
            u32::try_from(things.len() - 1).expect("fewer than 2^32 things fit into memory")
        })
    }

    /// The thing of this number, which must have been given out.
    pub(crate) fn thing(&self, number: u32) -> &T {
        &self.things[number as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.things.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_worlds_that_differ_little_have_a_million_fingerprints() {
        let mut seen = Seen::default();
        for a in 0..100 {
            for b in 0..100 {
                for c in 0..100 {
                    assert!(seen.insert(Fingerprint::of_words(&[a, 0, b, c, 0])));
                }
            }
        }
        assert!(seen.insert(Fingerprint::of_words(&[0, 0, 0, 0])), "the length counts");
    }

    #[test]
    fn equal_things_have_one_number() {
        let mut interner = Interner::new();
        let words = ["", "a", "b", "a longer one than a block", "a longer one than a blocK"];
        let numbers = words.map(|word| interner.number(word));
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        assert_eq!(words.map(|word| interner.number(word)), numbers);
        assert_eq!(*interner.thing(3), words[3]);
    }
}
