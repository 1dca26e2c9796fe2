//! Where a key lives: key → partition → preference list of distinct nodes, homes first.
//!
//! What it promises: the same set of backend URLs and the same RF give the same lists in every kvfront and every version, whatever the
//! order of `BACKENDS` (otherwise two coordinators would write one key to different homes). Every list names each node at most once.
//!
//! Nothing here leans on an unspecified hash: positions on the ring are [`stable_hash`], which this file spells out and golden tests
//! pin. `hashring` keeps the circle and is asked once, when the table is filled: its `get_with_replicas` answers *virtual* nodes and
//! copies the whole ring per call, so we walk on until enough distinct nodes were met, and never ask it again.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashring::HashRing;
use register::Key;

/// Virtual nodes per node: the shares of the nodes then differ by about a tenth.
pub const VNODES_PER_NODE: usize = 128;
/// Partitions of the key space: the table that a key is looked up in. A power of two.
pub const PARTITIONS: usize = 1 << PARTITION_BITS;
/// Bits of a key's hash that choose its partition.
const PARTITION_BITS: u32 = 12;
/// More nodes than this are a mistake in `BACKENDS`.
pub const NODES_MAX: usize = 256;

/// Why no ring can be built of these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// `BACKENDS` names nothing.
    #[error("BACKENDS is empty: expected at least one URL like http://kvstore_a:9000, comma-separated")]
    NoBackends,
    /// One entry is no plain `http://host:port` URL.
    #[error("BACKENDS entry {entry:?}: {problem}; expected http://HOST:PORT without a path")]
    BadUrl {
        /// The entry as given.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One node is named twice.
    #[error("BACKENDS names {0} twice: each node may appear once")]
    Duplicate(String),
    /// Too many nodes.
    #[error("BACKENDS names {0} nodes, at most {NODES_MAX} are possible")]
    TooMany(usize),
    /// `RF` does not fit.
    #[error("RF={rf} with {nodes} backend(s): RF must be at least 1 and at most the number of nodes in BACKENDS")]
    BadRf {
        /// The replication factor asked for.
        rf: usize,
        /// Nodes there are.
        nodes: usize,
    },
}

/// A backend URL in its one canonical form, `http://host:port` in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// `http://host:port`: the node's name everywhere (ring, hints, answers).
    pub url: Arc<str>,
    /// `host:port`, to connect to and for the `Host` header.
    pub authority: Arc<str>,
}

impl Backend {
    /// Parses one entry of `BACKENDS`. A missing port means 80; a single trailing slash is forgiven.
    pub fn parse(entry: &str) -> Result<Self, RingError> {
        let bad = |problem: String| RingError::BadUrl {
            entry: entry.to_owned(),
            problem,
        };
        let uri: http::Uri = entry.trim().parse().map_err(|e| bad(format!("not a URL ({e})")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => return Err(bad(format!("scheme {other} is not supported"))),
            None => return Err(bad("the scheme is missing".to_owned())),
        }
        let authority = uri.authority().ok_or_else(|| bad("the host is missing".to_owned()))?;
        if authority.as_str().contains('@') {
            return Err(bad("user names are not supported".to_owned()));
        }
        if authority.host().is_empty() {
            return Err(bad("the host is missing".to_owned()));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(bad(format!("the path {:?} is not supported", uri.path())));
        }
        // Not `authority.port()`, which is silent about a port that is no number.
        let after_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match after_host.strip_prefix(':') {
            Some(port) => port
                .parse::<u16>()
                .map_err(|_| bad(format!("the port {port:?} is no number up to 65535")))?,
            None => 80,
        };
        let authority = format!("{}:{port}", authority.host().to_ascii_lowercase());
        Ok(Self {
            url: format!("http://{authority}").into(),
            authority: authority.into(),
        })
    }

    /// Parses the whole of `BACKENDS`: distinct nodes, sorted by URL. The order of the sorted list is the nodes' numbering in this
    /// process; no answer depends on the order they were given in.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, RingError> {
        let mut backends = list
            .split(',')
            .filter(|entry| !entry.trim().is_empty())
            .map(Self::parse)
            .collect::<Result<Vec<_>, _>>()?;
        backends.sort();
        if let Some(pair) = backends.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(RingError::Duplicate(pair[0].url.to_string()));
        }
        match backends.len() {
            0 => Err(RingError::NoBackends),
            n if n > NODES_MAX => Err(RingError::TooMany(n)),
            _ => Ok(backends),
        }
    }
}

/// The preference list of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// Node numbers (indices into [`Ring::backends`]), homes first, then spares. A place in this list is a *rank*.
    pub nodes: Vec<usize>,
    /// The nodes' URLs in the same order.
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
                        point: stable_hash(format!("{}#{i}", backend.url).as_bytes()),
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
            backends,
            rf,
            list_len,
            table,
        })
    }

    /// Which partition a key falls into.
    #[must_use]
    pub fn partition(key: &Key) -> usize {
        usize::try_from(stable_hash(key.as_text().as_bytes()) >> (u64::BITS - PARTITION_BITS))
            .expect("twelve bits fit every usize")
    }

    /// Where a key lives.
    #[must_use]
    pub fn preference(&self, key: &Key) -> &Arc<Preference> {
        &self.table[Self::partition(key)]
    }

    /// The nodes, sorted by URL. A node's number is its place here.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
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
    let names = nodes.iter().map(|&node| Arc::clone(&backends[node].url)).collect();
    Preference {
        nodes,
        names,
        homes: rf,
    }
}

/// The hash of ring positions and keys: 64-bit FNV-1a, then MurmurHash3's 64-bit finaliser, because FNV alone leaves the high bits,
/// which choose the partition, almost untouched by the last bytes of a key. Part of the data format: never change it.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = FNV_OFFSET;
    for &byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
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

    use super::{Backend, PARTITIONS, Ring, RingError, stable_hash};
    use register::Key;

    fn ring(list: &str, rf: usize) -> Ring {
        Ring::new(Backend::parse_list(list).unwrap(), rf).unwrap()
    }

    const THREE: &str = "http://kvstore_a:9000,http://kvstore_b:9000,http://kvstore_c:9000";

    // The golden values of both tests come from a program of its own, in another language, written from the description above.
    #[test]
    fn the_hash_is_pinned() {
        assert_eq!(stable_hash(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(stable_hash(b"dzones:config"), 0xaf01_984f_4dbf_ed28);
        assert_eq!(Ring::partition(&Key::data("zones:config")), 2_800);
        assert_eq!(Ring::partition(&Key::data("ü/:")), 3_116);
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
    fn urls_have_one_form() {
        for (given, url) in [
            ("http://A:9000", "http://a:9000"),
            (" http://a:9000/ ", "http://a:9000"),
            ("http://a", "http://a:80"),
            ("http://[::1]:7", "http://[::1]:7"),
            ("http://kvstore_a:9000", "http://kvstore_a:9000"),
        ] {
            assert_eq!(&*Backend::parse(given).unwrap().url, url);
        }
        for bad in [
            "",
            "a:9000",
            "https://a:1",
            "http://",
            "http://a:99999",
            "http://a:1/x",
            "http://u@a:1",
            "http://a:1?x=1",
            "http://a:",
        ] {
            assert!(matches!(Backend::parse(bad), Err(RingError::BadUrl { .. })), "{bad:?}");
        }
    }

    #[test]
    fn bad_lists_are_named() {
        assert_eq!(Backend::parse_list(" , "), Err(RingError::NoBackends));
        assert_eq!(
            Backend::parse_list("http://a:1,http://A:1/"),
            Err(RingError::Duplicate("http://a:1".into()))
        );
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
