//! What goes wrong: one letter each.

use std::fmt;

use register::membership::Standing;

use crate::kinds::Kind;
use crate::node::{Disk, Node};
use crate::world::{US_PER_MS, What, World, small};

/// An hour, in milliseconds.
const HOUR_MS: i64 = 3_600_000;

/// It takes at least that long to give a node another disk, in microseconds: longer than a round in which a coordinator asks all nodes.
/// (It compares a returned node with what the others remember, and must not have asked those before the node went on for the last time.)
const OTHER_DISK_US: u64 = 500 * US_PER_MS;

/// One way for things to go wrong, named by a letter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nemesis(u8);

/// The letters and what they stand for, for `--help` and for the page on failing seeds.
pub const LETTERS: [(char, &str); 14] = [
    ('l', "messages are lost"),
    ('u', "messages arrive a second time, much later"),
    (
        'd',
        "messages are delayed for up to seconds, and so overtake each other",
    ),
    ('c', "a node crashes, losing what was not durable, and starts again"),
    ('p', "a node is paused: it does nothing, and then everything at once"),
    (
        'i',
        "links are cut: between a coordinator and a node or a node and all, both ways or one way",
    ),
    ('w', "a node's disk is lost, and it starts with an empty one"),
    ('b', "a node's disk goes back to an older copy"),
    ('f', "a node's disk is full for a while"),
    ('k', "clocks are up to 150 ms off and jump"),
    ('h', "one machine's clock jumps by up to an hour, ahead or back"),
    (
        's',
        "a coordinator is paused: its timers fire late, and its answers come from the past",
    ),
    ('r', "a coordinator dies, and its successor knows nothing"),
    ('a', "all nodes crash at once"),
];

/// A set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nemeses(u32);

impl Nemeses {
    /// The set of these letters.
    ///
    /// # Errors
    /// A letter that stands for nothing.
    pub fn parse(letters: &str) -> Result<Self, String> {
        let mut set = Self::default();
        for letter in letters.chars() {
            let known = LETTERS.iter().position(|(known, _)| *known == letter);
            let place = known.ok_or_else(|| format!("{letter:?} names no nemesis"))?;
            set.0 |= 1 << place;
        }
        Ok(set)
    }

    /// Of letters that are known to stand for something.
    pub(crate) fn of(letters: &str) -> Self {
        Self::parse(letters).unwrap_or_default()
    }

    pub(crate) fn has(self, letter: char) -> bool {
        self.iter().any(|nemesis| nemesis.letter() == letter)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Nemesis> {
        (0..small(LETTERS.len()))
            .filter(move |place| self.0 >> place & 1 == 1)
            .map(Nemesis)
    }
}

impl Nemesis {
    fn letter(self) -> char {
        LETTERS[usize::from(self.0)].0
    }
}

impl fmt::Debug for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.letter(), LETTERS[usize::from(self.0)].1)
    }
}

impl fmt::Display for Nemeses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|nemesis| write!(f, "{}", nemesis.letter()))
    }
}

/// The end of a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heal {
    Node(u8),
    NodeGoesOn(u8),
    FrontGoesOn(u8),
    Disk(u8),
    NodeClock(u8),
    FrontClock(u8),
    Link { front: u8, requests: u32, answers: u32 },
}

impl World<'_> {
    /// One fault of this kind, if there may be one now; then the next is put on the list.
    pub(crate) fn strike(&mut self, nemesis: Nemesis) {
        if self.calm {
            return;
        }
        let mut after = self.plan.fault_pause_us(&mut self.rng);
        if nemesis.letter() == 'r' {
            // Whatever such a coordinator was about has an unknown outcome: too often, and nothing is learnt.
            after *= 4;
        }
        self.after(after, What::Strike(nemesis));
        if self.faults >= self.limits.faults {
            return;
        }
        let node = self.rng.index(self.nodes.len());
        let front = self.rng.index(self.fronts.len());
        let lasts = self.plan.fault_lasts_us(&mut self.rng);
        let struck = match nemesis.letter() {
            'c' => self.crash(node, lasts),
            'p' => self.pause_node(node, lasts),
            'i' => self.cut(node, front, lasts),
            'w' => self.lose_disk(node, lasts),
            'b' => self.roll_back(node, lasts),
            'f' => self.fill_disk(node, lasts),
            'k' => self.bend_clock(node, front, lasts, Self::small_jump),
            'h' => self.bend_clock(node, front, lasts, Self::big_jump),
            's' => self.pause_front(front, lasts),
            'a' => self.crash_all(lasts),
            'r' => self.kill_front(front),
            // Those of messages have no moments.
            _ => false,
        };
        self.faults += u32::from(struck);
    }

    /// Whether one node more may be away: never more than a minority of any key's list, so that work goes on.
    fn may_break(&self, node: usize) -> bool {
        let broken = (0..self.nodes.len()).filter(|node| self.is_broken(*node)).count();
        !self.is_broken(node) && broken < usize::from(self.kind.list - 1) / 2
    }

    fn is_broken(&self, node: usize) -> bool {
        let cut_off = self
            .fronts
            .iter()
            .all(|front| (front.requests_cut | front.answers_cut) >> node & 1 == 1);
        let node = &self.nodes[node];
        let wrong_clock = node.offset_ms.unsigned_abs() > crate::plan::Plan::MAX_OFFSET_MS;
        !node.votes() || node.paused || node.full || wrong_clock || cut_off
    }

    fn crash(&mut self, node: usize, lasts_us: u64) -> bool {
        // A paused one may be killed too.
        if !self.nodes[node].up || !self.nodes[node].paused && !self.may_break(node) {
            return false;
        }
        self.nodes[node].crash(self.wrong);
        self.after(lasts_us, What::Heal(Heal::Node(small(node))));
        true
    }

    fn crash_all(&mut self, lasts_us: u64) -> bool {
        // Any number may go at once, as nothing durable is lost; but a disk that is gone needs the others.
        if !self.nodes.iter().all(Node::votes) {
            return false;
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].crash(self.wrong);
            let after = self.rng.below(lasts_us);
            self.after(after, What::Heal(Heal::Node(small(node))));
        }
        true
    }

    fn pause_node(&mut self, node: usize, lasts_us: u64) -> bool {
        if !self.may_break(node) {
            return false;
        }
        self.nodes[node].paused = true;
        self.after(lasts_us, What::Heal(Heal::NodeGoesOn(small(node))));
        true
    }

    fn cut(&mut self, node: usize, front: usize, lasts_us: u64) -> bool {
        let bit = 1 << node;
        let (requests, answers) = match self.rng.below(4) {
            0 => (bit, 0),
            1 => (0, bit),
            _ => (bit, bit),
        };
        // From everybody, or from one.
        let fronts = if self.rng.per_mille(300) {
            if !self.may_break(node) {
                return false;
            }
            0..self.fronts.len()
        } else {
            front..front + 1
        };
        for front in fronts {
            self.fronts[front].requests_cut |= requests;
            self.fronts[front].answers_cut |= answers;
            let front = small(front);
            self.after(
                lasts_us,
                What::Heal(Heal::Link {
                    front,
                    requests,
                    answers,
                }),
            );
        }
        true
    }

    fn lose_disk(&mut self, node: usize, lasts_us: u64) -> bool {
        if !self.may_lose_disk(node) {
            return false;
        }
        let incarnation = self.new_incarnation();
        let keys = self.places.len();
        self.nodes[node].crash(self.wrong);
        self.nodes[node].disk = Disk::new(keys, incarnation);
        self.nodes[node].backup = None;
        self.after(lasts_us, What::Heal(Heal::Node(small(node))));
        true
    }

    /// Takes a copy of the disk, or goes back to the one it took.
    fn roll_back(&mut self, node: usize, lasts_us: u64) -> bool {
        if self.nodes[node].backup.is_none() {
            let standing = self.nodes[node].disk.status.standing;
            if self.nodes[node].up && matches!(standing, Standing::Voting | Standing::Filling { .. }) {
                self.nodes[node].backup = Some(self.nodes[node].disk.clone());
            }
            return false;
        }
        if !self.may_lose_disk(node) || !self.is_remembered_beyond_backup(node) {
            return false;
        }
        self.nodes[node].crash(self.wrong);
        if let Some(disk) = self.nodes[node].backup.take() {
            self.nodes[node].disk = disk;
        }
        self.after(lasts_us.max(OTHER_DISK_US), What::Heal(Heal::Node(small(node))));
        true
    }

    /// One lost disk at a time, anywhere; and the others have to be there to fill it again.
    fn may_lose_disk(&self, node: usize) -> bool {
        self.may_break(node) && self.nodes.iter().all(Node::votes)
    }

    fn fill_disk(&mut self, node: usize, lasts_us: u64) -> bool {
        if !self.may_break(node) {
            return false;
        }
        self.nodes[node].full = true;
        self.after(lasts_us, What::Heal(Heal::Disk(small(node))));
        true
    }

    fn small_jump(&mut self) -> i64 {
        self.plan.offset_ms(&mut self.rng)
    }

    fn big_jump(&mut self) -> i64 {
        let ms = match self.rng.below(3) {
            0 => HOUR_MS,
            1 => 600,
            _ => 10_000,
        };
        if self.rng.per_mille(500) { ms } else { -ms }
    }

    fn bend_clock(&mut self, node: usize, front: usize, lasts_us: u64, jump: fn(&mut Self) -> i64) -> bool {
        let offset_ms = jump(self);
        let far = offset_ms.unsigned_abs() > crate::plan::Plan::MAX_OFFSET_MS;
        if self.rng.per_mille(500) {
            if far && !self.may_break(node) {
                return false;
            }
            self.nodes[node].offset_ms = offset_ms;
            if far {
                self.after(lasts_us, What::Heal(Heal::NodeClock(small(node))));
            }
        } else {
            self.fronts[front].offset_ms = offset_ms;
            if far {
                self.after(lasts_us, What::Heal(Heal::FrontClock(small(front))));
            }
        }
        true
    }

    fn pause_front(&mut self, front: usize, lasts_us: u64) -> bool {
        if self.fronts[front].paused {
            return false;
        }
        self.fronts[front].paused = true;
        self.after(lasts_us, What::Heal(Heal::FrontGoesOn(small(front))));
        true
    }

    fn kill_front(&mut self, front: usize) -> bool {
        self.restart_front(front);
        true
    }

    /// A fault is over.
    pub(crate) fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Node(node) => self.start_node(usize::from(node)),
            Heal::NodeGoesOn(node) => self.node_goes_on(usize::from(node)),
            Heal::FrontGoesOn(front) => self.front_goes_on(usize::from(front)),
            Heal::Disk(node) => self.nodes[usize::from(node)].full = false,
            Heal::NodeClock(node) => self.nodes[usize::from(node)].offset_ms = 0,
            Heal::FrontClock(front) => self.fronts[usize::from(front)].offset_ms = 0,
            Heal::Link {
                front,
                requests,
                answers,
            } => {
                let front = &mut self.fronts[usize::from(front)];
                front.requests_cut &= !requests;
                front.answers_cut &= !answers;
            }
        }
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        if !self.nodes[node].up {
            self.nodes[node].restart();
            self.look_at_nodes_soon();
        }
    }

    /// What reached a node while it was paused is processed now, in that order.
    pub(crate) fn node_goes_on(&mut self, node: usize) {
        self.nodes[node].paused = false;
        let deferred = std::mem::take(&mut self.nodes[node].deferred);
        for (place, what) in (0..).zip(deferred) {
            self.after(place, what);
        }
    }

    /// A coordinator that goes on finds its sockets and its timers ready at once, and takes them in any order.
    pub(crate) fn front_goes_on(&mut self, front: usize) {
        self.fronts[front].paused = false;
        let deferred = std::mem::take(&mut self.fronts[front].deferred);
        for what in deferred {
            let after = self.rng.below(3 * US_PER_MS);
            self.after(after, what);
        }
    }
}

impl Kind {
    /// One or two of the kind's nemeses, on top of those that are always there.
    pub(crate) fn draw_nemeses(&self, rng: &mut crate::rng::Rng) -> Nemeses {
        let all: Vec<Nemesis> = Nemeses::of(self.nemeses).iter().collect();
        let mut drawn = Nemeses::of(self.always);
        for _ in 0..=rng.below(2) {
            if !all.is_empty() {
                drawn.0 |= 1 << all[rng.index(all.len())].0;
            }
        }
        drawn
    }
}
