//! The store as a whole, on real files.

mod durability;
mod failures;
mod group_commit;
mod lists;
mod log;
mod membership;
mod migration;
mod model;
mod serving;
mod speed;

use std::path::{Path, PathBuf};
use std::time::Instant;

use proptest::prelude::*;
use register::message::{Held, List, PageReply};
use register::{HlcTime, State, acceptor};
use service::metrics::Metrics;
use tempfile::TempDir;

use super::*;
use service::clock::system_clock;

/// Deadline of every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    dir: TempDir,
    cache: CacheLimits,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            cache: CacheLimits {
                items: 100,
                bytes: 1 << 20,
            },
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("kv.db")
    }

    /// The store of a node that votes.
    async fn open(&self) -> Store {
        self.open_at(&self.path()).await
    }

    async fn open_at(&self, path: &Path) -> Store {
        let store = Store::open(path, self.options()).unwrap();
        admit(&store).await;
        store
    }

    /// The store as its process finds it.
    fn open_unadmitted(&self) -> Store {
        Store::open(&self.path(), self.options()).unwrap()
    }

    fn options(&self) -> StoreOptions {
        StoreOptions {
            cache: self.cache,
            max_clock_skew_ms: 500,
            wall: system_clock(),
            new_incarnation: rand::random(),
            adopt_ring: false,
            metrics: StoreMetrics::new(&Metrics::new("kvstore")),
        }
    }
}

/// The ring of these tests.
const EPOCH: Epoch = Epoch(7);

async fn admit(store: &Store) {
    let incarnation = store.progress().incarnation;
    let (done, status) = store
        .node(NodeRequest::Admit { incarnation, commit: 0 }, EPOCH)
        .await
        .unwrap();
    assert!(done && status.standing == Standing::Voting, "{status:?}");
}

fn ballot(time: u64) -> Ballot {
    Ballot {
        time: HlcTime::from_bits(time),
        incarnation: 9,
    }
}

fn state(value: &str, at: Ballot) -> State {
    State {
        value: Some(value.into()),
        version: at,
        fence: 0,
        expires_at_ms: None,
        lineage: register::Lineage::blind(Ballot::ZERO, RequestId(3)),
    }
}

fn accept(time: u64, value: &str) -> Request {
    let ballot = ballot(time);
    Request::Accept {
        ballot,
        state: state(value, ballot),
        blind: true,
        reserve: None,
        hint_for: None,
    }
}

fn hint(time: u64, value: &str) -> Request {
    let ballot = ballot(time);
    let hint_for = Some("http://home:9000".into());
    Request::Accept {
        ballot,
        state: state(value, ballot),
        blind: true,
        reserve: None,
        hint_for,
    }
}

async fn one(store: &Store, key: &Key, request: Request) -> Reply {
    store.decide(vec![(key.clone(), request)]).await.unwrap().pop().unwrap()
}

async fn held(store: &Store, key: &Key) -> Held {
    match store.read(std::slice::from_ref(key)).await.pop() {
        Some(Reply::Holds(held)) => held,
        other => panic!("{other:?}"),
    }
}

fn value(held: &Held) -> Option<&str> {
    held.state.as_ref()?.value.as_deref()
}

/// Files as a crash at this moment would leave them.
fn crash_copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        std::fs::copy(name(from), name(to)).unwrap();
    }
}
