//! What is to happen, in the order of its time: a heap of small keys over a slab of events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events in the order of their times; those of one time in the order in which they were put in.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// Time, then order, then slot, in one integer each.
    heap: BinaryHeap<Reverse<u128>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    order: u32,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            order: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Empty again, with the memory it had.
    pub(crate) fn clear(&mut self) {
        self.heap.clear();
        self.slots.clear();
        self.free.clear();
        self.order = 0;
    }

    pub(crate) fn push(&mut self, time: u64, event: T) {
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(event);
            slot
        } else {
            self.slots.push(Some(event));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        self.order += 1;
        let key = u128::from(time) << 64 | u128::from(self.order) << 32 | u128::from(slot);
        self.heap.push(Reverse(key));
    }

    /// The next event, unless it is later than `end`.
    #[expect(clippy::cast_possible_truncation, reason = "the parts of a packed integer")]
    pub(crate) fn pop(&mut self, end: u64) -> Option<(u64, T)> {
        let Reverse(key) = *self.heap.peek()?;
        let (time, slot) = ((key >> 64) as u64, key as u32);
        if time > end {
            return None;
        }
        self.heap.pop();
        let event = self.slots[slot as usize].take()?;
        self.free.push(slot);
        Some((time, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_put_in() {
        let mut queue = Queue::default();
        for (time, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            queue.push(time, event);
        }
        let mut seen = String::new();
        while let Some((_, event)) = queue.pop(4) {
            seen.push(event);
        }
        queue.push(5, 'e');
        while let Some((_, event)) = queue.pop(u64::MAX) {
            seen.push(event);
        }
        assert_eq!(seen, "abcde");
    }
}
