//! Where a key lives: key → partition → preference list of distinct nodes, homes first.
//!
//! What it promises: the same set of node names and the same RF give the same lists in every kvfront and every version, whatever the
//! order of `BACKENDS` (otherwise two coordinators would write one key to different homes). Every list names each node at most once.
//!
//! Nothing here leans on an unspecified hash: positions on the ring are [`stable_hash`], which `register` spells out and golden tests
//! pin. `hashring` keeps the circle and is asked once, when the table is filled: its `get_with_replicas` answers *virtual* nodes and
//! copies the whole ring per call, so we walk on until enough distinct nodes were met, and never ask it again.

mod backend;

use std::fmt::Write as _;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashring::HashRing;
use register::hashing::{PARTITION_BITS, partition_of};
use register::scan::Partitions;
use register::{Epoch, Key};

pub use register::hashing::{PARTITIONS, stable_hash};

pub use self::backend::{Backend, NODES_MAX, RingError};

/// Virtual nodes per node: the shares of the nodes then differ by about a tenth.
pub const VNODES_PER_NODE: usize = 128;

/// The preference list of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// Node numbers (indices into [`Ring::backends`]), homes first, then spares. A place in this list is a *rank*.
    pub nodes: Vec<usize>,
    /// The nodes' names in the same order.
    pub names: Vec<Arc<str>>,
    /// How many of them are homes.
    pub homes: usize,
}

impl Preference {
    /// A majority of the list: for RF = 2, two of three.
    #[must_use]
    pub fn quorum(&self) -> usize {
        quorum_of(self.nodes.len())
    }

    /// The rank of a node in this list.
    #[must_use]
    pub fn rank_of(&self, node: usize) -> Option<usize> {
        self.nodes.iter().position(|&n| n == node)
    }
}

/// A majority of `members`.
#[must_use]
pub fn quorum_of(members: usize) -> usize {
    members / 2 + 1
}

/// The table partition → preference list.
#[derive(Debug)]
pub struct Ring {
    backends: Vec<Backend>,
    epoch: Epoch,
    rf: usize,
    list_len: usize,
    table: Vec<Arc<Preference>>,
}

impl Ring {
    /// Fills the table. `backends` as [`Backend::parse_list`] gives them.
    pub fn new(mut backends: Vec<Backend>, rf: usize) -> Result<Self, RingError> {
        backends.sort();
        let nodes = backends.len();
        if nodes == 0 {
            return Err(RingError::NoBackends);
        }
        if rf == 0 || rf > nodes {
            return Err(RingError::BadRf { rf, nodes });
        }
        let list_len = (2 * rf - 1).min(nodes);
        let mut circle = HashRing::with_hasher(PointHasher::default());
        circle.batch_add(
            backends
                .iter()
                .enumerate()
                .flat_map(|(node, backend)| {
                    (0..VNODES_PER_NODE).map(move |i| VNode {
                        point: stable_hash(format!("{}#{i}", backend.name).as_bytes()),
                        node,
                    })
                })
                .collect(),
        );
        let mut table: Vec<Arc<Preference>> = Vec::with_capacity(PARTITIONS);
        let mut last_owner: Option<VNode> = None;
        for partition in 0..PARTITIONS as u64 {
            let start = Point(partition << (u64::BITS - PARTITION_BITS));
            let owner = circle.get(&start).copied().expect("the ring holds at least one node");
            // The walk from one virtual node is the same for every partition that begins at it.
            let list = match (last_owner, table.last()) {
                (Some(last), Some(list)) if last == owner => Arc::clone(list),
                _ => Arc::new(walk(&circle, start, &backends, rf, list_len)),
            };
            last_owner = Some(owner);
            table.push(list);
        }
        Ok(Self {
            epoch: epoch_of(&backends, rf),
            backends,
            rf,
            list_len,
            table,
        })
    }

    /// Where a key lives.
    #[must_use]
    pub fn preference(&self, key: &Key) -> &Arc<Preference> {
        &self.table[partition_of(key)]
    }

    /// Where the keys of a partition live; `None` for a number that is not below [`PARTITIONS`].
    #[must_use]
    pub fn preference_of_partition(&self, partition: usize) -> Option<&Arc<Preference>> {
        self.table.get(partition)
    }

    /// The ring as runs of partitions with the same list: where each begins, in order. The first begins at 0.
    #[must_use]
    pub fn ranges(&self) -> Vec<(usize, &Preference)> {
        let mut ranges: Vec<(usize, &Preference)> = Vec::new();
        for (partition, list) in self.table.iter().enumerate() {
            if ranges.last().is_none_or(|(_, last)| last.nodes != list.nodes) {
                ranges.push((partition, list));
            }
        }
        ranges
    }

    /// The nodes, sorted by name. A node's number is its place here.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Names this ring: rings of other nodes, another RF or another way of spreading keys are called otherwise. URLs are no part of it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Copies of a key at rest.
    #[must_use]
    pub fn rf(&self) -> usize {
        self.rf
    }

    /// Nodes of a preference list: 2·RF − 1, or all there are.
    #[must_use]
    pub fn list_len(&self) -> usize {
        self.list_len
    }

    /// A majority of a preference list.
    #[must_use]
    pub fn quorum(&self) -> usize {
        quorum_of(self.list_len)
    }

    /// How many nodes may be missing so that each preference list still has a quorum of the others, wherever its nodes are.
    #[must_use]
    pub fn may_be_missing(&self) -> usize {
        self.list_len - self.quorum()
    }

    /// Per node: the partitions of which it is the first in the list among those that are there. Each partition is some node's, as long as no
    /// more are missing than [`Self::may_be_missing`].
    #[must_use]
    pub fn first_of(&self, is_there: impl Fn(usize) -> bool) -> Vec<Partitions> {
        let mut firsts = vec![Partitions::default(); self.backends.len()];
        for (partition, list) in self.table.iter().enumerate() {
            if let Some(&first) = list.nodes.iter().find(|&&node| is_there(node)) {
                firsts[first].insert(partition);
            }
        }
        firsts
    }

    /// Per node: of how many partitions it is a home.
    #[must_use]
    pub fn home_partitions(&self) -> Vec<usize> {
        let mut counts = vec![0; self.backends.len()];
        for list in &self.table {
            for &node in &list.nodes[..list.homes] {
                counts[node] += 1;
            }
        }
        counts
    }
}

/// The first `list_len` distinct nodes met clockwise from `start`.
fn walk(
    circle: &HashRing<VNode, PointHasher>,
    start: Point,
    backends: &[Backend],
    rf: usize,
    list_len: usize,
) -> Preference {
    // `n` here means n + 1 virtual nodes: with all of them, every node is met.
    let vnodes = circle
        .get_with_replicas(&start, circle.len() - 1)
        .expect("the ring holds at least one node");
    let mut nodes = Vec::with_capacity(list_len);
    for vnode in vnodes {
        if nodes.len() == list_len {
            break;
        }
        if !nodes.contains(&vnode.node) {
            nodes.push(vnode.node);
        }
    }
    let names = nodes.iter().map(|&node| Arc::clone(&backends[node].name)).collect();
    Preference {
        nodes,
        names,
        homes: rf,
    }
}

/// Part of what coordinators and nodes of all versions agree on, like the hash it is made with.
fn epoch_of(backends: &[Backend], rf: usize) -> Epoch {
    let mut text = format!("rf={rf} partitions={PARTITIONS} vnodes={VNODES_PER_NODE}");
    for backend in backends {
        // Writing to a `String` cannot fail. No name contains a line's end.
        let _ = write!(text, "\n{}", backend.name);
    }
    Epoch(stable_hash(text.as_bytes()))
}

/// A virtual node: its place on the circle is computed by us, `hashring` only sorts by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct VNode {
    point: u64,
    node: usize,
}

impl Hash for VNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.point);
    }
}

/// A place on the circle to look up.
#[derive(Debug, Clone, Copy)]
struct Point(u64);

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Hands a position through unchanged, so that no library's hash decides where data lives.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct PointHasher(u64);

impl Hasher for PointHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = stable_hash(bytes);
    }

    fn write_u64(&mut self, point: u64) {
        self.0 = point;
    }
}

impl BuildHasher for PointHasher {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_assert_eq, proptest};

    use register::Key;
    use register::hashing::partition_of;

    use super::{Backend, PARTITIONS, Ring, RingError, stable_hash};

    fn ring(list: &str, rf: usize) -> Ring {
        Ring::new(Backend::parse_list(list).unwrap(), rf).unwrap()
    }

    const THREE: &str = "http://kvstore_a:9000,http://kvstore_b:9000,http://kvstore_c:9000";

    // The golden values of both tests come from a program of its own, in another language, written from the description above.
    #[test]
    fn the_hash_is_pinned() {
        assert_eq!(stable_hash(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(stable_hash(b"dzones:config"), 0xaf01_984f_4dbf_ed28);
        assert_eq!(partition_of(&Key::data("zones:config")), 2_800);
        assert_eq!(partition_of(&Key::data("ü/:")), 3_116);
    }

    #[test]
    fn the_lists_of_the_demo_are_pinned() {
        let ring = ring(THREE, 2);
        let lists: Vec<Vec<usize>> = (0..8)
            .map(|i| ring.preference(&Key::data(&format!("delivery:{i}"))).nodes.clone())
            .collect();
        let (abc, bca, cab) = ([0, 1, 2], [1, 2, 0], [2, 0, 1]);
        let (acb, bac, cba) = ([0, 2, 1], [1, 0, 2], [2, 1, 0]);
        assert_eq!(lists, [bac, bca, abc, cab, abc, acb, bac, cba]);
    }

    #[test]
    fn names_place_keys_and_urls_do_not() {
        let (plain, elsewhere) = (
            ring("a=http://x:1,b=http://x:2,c=http://x:3", 2),
            "c=http://z:9,b=http://y:2,a=http://x:3",
        );
        let moved = ring(elsewhere, 2);
        for i in 0..50 {
            let key = Key::data(&format!("delivery:{i}"));
            assert_eq!(plain.preference(&key), moved.preference(&key));
        }
        assert_eq!(plain.epoch(), moved.epoch());
        assert_eq!(&*moved.backends()[0].url, "http://x:3");
    }

    #[test]
    fn another_ring_has_another_epoch() {
        let epochs: Vec<_> = [
            (THREE, 2),
            (THREE, 1),
            (
                "a=http://kvstore_a:9000,b=http://kvstore_b:9000,c=http://kvstore_c:9000",
                2,
            ),
            ("http://kvstore_a:9000,http://kvstore_b:9000", 2),
        ]
        .map(|(list, rf)| ring(list, rf).epoch())
        .to_vec();
        assert_eq!(epochs.iter().collect::<HashSet<_>>().len(), epochs.len());
        assert_eq!(epochs[0].0, 0x545f_8d31_97a8_318c, "computed by a program of its own");
    }

    #[test]
    fn ranges_tell_every_partitions_list() {
        let ring = ring(THREE, 2);
        let ranges = ring.ranges();
        assert_eq!(ranges[0].0, 0);
        assert!(ranges.len() > 3 && ranges.len() <= 3 * super::VNODES_PER_NODE);
        let ends = ranges.iter().skip(1).map(|(from, _)| *from).chain([PARTITIONS]);
        for ((from, list), end) in ranges.iter().zip(ends) {
            for partition in *from..end {
                assert_eq!(ring.preference_of_partition(partition).unwrap().nodes, list.nodes);
            }
        }
        assert!(
            ranges.windows(2).all(|pair| pair[0].1.nodes != pair[1].1.nodes),
            "runs are as long as can be"
        );
    }

    #[test]
    fn rf_has_to_fit() {
        let one = Backend::parse_list("http://a:1").unwrap();
        assert_eq!(
            Ring::new(one.clone(), 2).unwrap_err(),
            RingError::BadRf { rf: 2, nodes: 1 }
        );
        assert_eq!(Ring::new(one, 0).unwrap_err(), RingError::BadRf { rf: 0, nodes: 1 });
    }

    #[test]
    fn shares_are_balanced() {
        for nodes in [3, 5, 8] {
            let list = (0..nodes)
                .map(|i| format!("http://node{i}:9000"))
                .collect::<Vec<_>>()
                .join(",");
            let ring = ring(&list, 2);
            let fair = PARTITIONS * 2 / nodes;
            for share in ring.home_partitions() {
                assert!(
                    share > fair * 7 / 10 && share < fair * 13 / 10,
                    "{share} of a fair {fair} with {nodes} nodes"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn lists_are_distinct_and_do_not_depend_on_the_order(
            (list, shuffled, rf) in (1usize..7).prop_flat_map(|n| {
                let list: Vec<String> = (0..n).map(|i| format!("http://node{i}:{}", 9000 + i)).collect();
                (Just(list.clone()), Just(list).prop_shuffle(), 1..=n)
            }),
            keys in proptest::collection::vec(".{0,40}", 1..50),
        ) {
            let (a, b) = (ring(&list.join(","), rf), ring(&shuffled.join(","), rf));
            for key in keys {
                let key = Key::data(&key);
                let preference = a.preference(&key);
                prop_assert_eq!(preference, b.preference(&key));
                prop_assert_eq!(preference.nodes.len(), (2 * rf - 1).min(list.len()));
                prop_assert_eq!(preference.nodes.iter().collect::<HashSet<_>>().len(), preference.nodes.len());
                prop_assert!(preference.homes == rf && preference.homes <= preference.nodes.len());
            }
        }

        #[test]
        fn a_new_node_takes_keys_only_for_itself(n in 2usize..6, keys in proptest::collection::vec(".{0,40}", 1..50)) {
            let list = |n: usize| (0..n).map(|i| format!("http://node{i}:9000")).collect::<Vec<_>>().join(",");
            let (before, after) = (ring(&list(n), 1), ring(&list(n + 1), 1));
            for key in keys {
                let key = Key::data(&key);
                let (old, new) = (&before.preference(&key).names, &after.preference(&key).names);
                let newcomer = format!("http://node{n}:9000");
                prop_assert!(old == new || *new[0] == newcomer);
            }
        }
    }
}
