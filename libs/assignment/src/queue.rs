//! The queue of a search: what comes out is never less than what came out before, so buckets do instead of a heap.

use crate::graph::Packed;

/// One bucket per bit in which a number may first differ from the one taken last, and one for those equal to it.
const BUCKETS: usize = 65;

/// A radix heap (Ahuja, Mehlhorn, Orlin, Tarjan: *Faster algorithms for the shortest path problem*, 1990). Ordered by the number alone; of equal
/// ones that came in last is mostly taken first, and the same calls give the same order.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    buckets: [Vec<Packed>; BUCKETS],
    /// Bit `b` is set if bucket `b + 1` is not empty.
    filled: u64,
    last: i64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            buckets: [const { Vec::new() }; BUCKETS],
            filled: 0,
            last: 0,
        }
    }
}

impl Queue {
    /// Empties it; from now on numbers from 0 up may come.
    pub(crate) fn clear(&mut self) {
        self.buckets[0].clear();
        while self.filled != 0 {
            self.buckets[self.filled.trailing_zeros() as usize + 1].clear();
            self.filled &= self.filled - 1;
        }
        self.last = 0;
    }

    /// `item`'s number must not be below the one taken last.
    pub(crate) fn push(&mut self, item: Packed) {
        debug_assert!(item.number() >= self.last);
        let bucket = (i64::BITS - (item.number() ^ self.last).leading_zeros()) as usize;
        self.buckets[bucket].push(item);
        if bucket > 0 {
            self.filled |= 1 << (bucket - 1);
        }
    }

    /// Takes one with the least number.
    pub(crate) fn pop(&mut self) -> Option<Packed> {
        if self.buckets[0].is_empty() {
            if self.filled == 0 {
                return None;
            }
            let bucket = self.filled.trailing_zeros() as usize + 1;
            self.filled &= self.filled - 1;
            let mut items = std::mem::take(&mut self.buckets[bucket]);
            // The bucket is not empty, as its bit was set.
            self.last = items.iter().map(|item| item.number()).min().unwrap_or(self.last);
            // All share the bits above, so each goes to a lower bucket.
            for item in items.drain(..) {
                self.push(item);
            }
            self.buckets[bucket] = items;
        }
        self.buckets[0].pop()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::Queue;
    use crate::graph::Packed;

    proptest! {
        #[test]
        fn what_comes_out_is_the_least(steps in prop::collection::vec(prop::option::of(0..1_i64 << 32), 0..300), small in 0..32_u32) {
            let mut queue = Queue::default();
            for round in 0..2 {
                queue.clear();
                let (mut inside, mut last) = (Vec::new(), 0);
                for step in &steps {
                    if let Some(more) = step {
                        let item = Packed::new(last + (more >> small), round);
                        queue.push(item);
                        inside.push(item.number());
                    } else {
                        let popped = queue.pop().map(Packed::number);
                        prop_assert_eq!(popped, inside.iter().min().copied());
                        if let Some(popped) = popped {
                            prop_assert!(popped >= last);
                            last = popped;
                            let at = inside.iter().position(|number| *number == popped);
                            inside.swap_remove(at.expect("it was the least"));
                        }
                    }
                }
            }
        }
    }
}
