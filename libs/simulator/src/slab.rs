//! Things that come and go, each under a number that is never given to another.

/// Names one thing in a [`Slab`]; stays invalid once the thing is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    slot: u32,
    turn: u32,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}.{}", self.slot, self.turn)
    }
}

/// Things under [`Id`]s.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Empty again, with the memory it had.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
    }

    pub(crate) fn insert(&mut self, thing: T) -> Id {
        if let Some(slot) = self.free.pop() {
            let (turn, place) = &mut self.slots[slot as usize];
            *place = Some(thing);
            return Id { slot, turn: *turn };
        }
        self.slots.push((0, Some(thing)));
        let slot = u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX);
        Id { slot, turn: 0 }
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let (turn, thing) = self.slots.get_mut(id.slot as usize)?;
        if *turn == id.turn { thing.as_mut() } else { None }
    }

    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        let (turn, thing) = self.slots.get(id.slot as usize)?;
        if *turn == id.turn { thing.as_ref() } else { None }
    }

    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        let (turn, thing) = self.slots.get_mut(id.slot as usize)?;
        if *turn != id.turn {
            return None;
        }
        let thing = thing.take()?;
        *turn += 1;
        self.free.push(id.slot);
        Some(thing)
    }

    /// All ids for which `wanted` holds, in the order of their slots.
    pub(crate) fn ids(&self, wanted: impl Fn(&T) -> bool) -> Vec<Id> {
        let all = (0..).zip(&self.slots);
        all.filter(|(_, (_, thing))| thing.as_ref().is_some_and(&wanted))
            .map(|(slot, (turn, _))| Id { slot, turn: *turn })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_dies_with_its_thing() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.ids(|_| true), [second]);
    }
}
