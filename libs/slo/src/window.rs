//! What happened in the last so many seconds: slots of equal width, of which the oldest are forgotten.

use std::collections::VecDeque;

/// Numbered slots, of which only the newest `keep` are there.
#[derive(Debug, Clone)]
pub struct Slots<T> {
    keep: usize,
    /// Number of the first slot.
    first: u64,
    slots: VecDeque<T>,
}

impl<T: Default> Slots<T> {
    /// None yet; `keep` (at least 1) are kept.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self {
            keep: keep.max(1),
            first: 0,
            slots: VecDeque::new(),
        }
    }

    /// The slot of this number; `None` when it is too old.
    pub fn at(&mut self, number: u64) -> Option<&mut T> {
        let keep = self.keep as u64;
        if self.slots.is_empty() || number >= self.end() + keep {
            // Everything that is there is too old.
            self.slots.clear();
            self.first = number;
        }
        if number < self.first {
            // Lines come almost in order; those a little late get their slot as long as it would still be kept.
            if number + keep < self.end() {
                return None;
            }
            for _ in number..self.first {
                self.slots.push_front(T::default());
            }
            self.first = number;
        }
        while self.end() <= number {
            self.slots.push_back(T::default());
        }
        while self.slots.len() > self.keep {
            self.slots.pop_front();
            self.first += 1;
        }
        self.slots.get_mut(usize::try_from(number - self.first).ok()?)
    }

    /// The slots of the `len` numbers that end with `last`.
    pub fn last(&self, last: u64, len: u64) -> impl Iterator<Item = &T> {
        let from = (last + 1).saturating_sub(len);
        (self.first..)
            .zip(&self.slots)
            .filter(move |(number, _)| (from..=last).contains(number))
            .map(|(_, slot)| slot)
    }

    /// The number after the last.
    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop};
    use proptest::{prop_assert_eq, proptest};

    use super::Slots;

    #[test]
    fn old_ones_are_forgotten_and_late_ones_find_their_place() {
        let mut slots = Slots::<u32>::new(10);
        *slots.at(100).unwrap() += 1;
        *slots.at(97).unwrap() += 2;
        *slots.at(105).unwrap() += 4;
        let sum = |slots: &Slots<u32>, last, len| slots.last(last, len).sum::<u32>();
        assert_eq!(
            (sum(&slots, 105, 10), sum(&slots, 105, 6), sum(&slots, 104, 5)),
            (7, 5, 1)
        );
        *slots.at(108).unwrap() += 8;
        assert!(slots.at(97).is_none(), "it is over");
        assert_eq!(sum(&slots, 108, 100), 13);
        *slots.at(1_000_000_000).unwrap() += 16;
        assert_eq!(sum(&slots, 1_000_000_000, 2_000_000_000), 16);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn sums_are_those_of_the_plain_list(numbers in prop::collection::vec(0..60_u64, 1..80), len in 1..12_u64) {
            let mut slots = Slots::<u64>::new(12);
            for &number in &numbers {
                if let Some(slot) = slots.at(number) {
                    *slot += 1;
                }
            }
            let last = *numbers.iter().max().unwrap();
            let plain = numbers.iter().filter(|number| **number + len > last).count();
            prop_assert_eq!(slots.last(last, len).sum::<u64>(), plain as u64);
        }
    }
}
