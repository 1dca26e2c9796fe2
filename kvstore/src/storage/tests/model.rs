//! The store against a model: the pure acceptor and the pure membership rules over a map.

use std::collections::BTreeMap;

use register::hashing::{HashTree, leaf_of};
use register::membership::{self, DropRecords, Peer};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Decide(Vec<(u8, Request)>),
    Read(u8),
    Node(Wish),
    Reopen,
    /// The process dies, and the next one finds the files as they are.
    Crash,
}

/// A request about the node; what it has to know of the node is filled in when it is made.
#[derive(Debug, Clone)]
enum Wish {
    Status,
    Admit { right: bool },
    Remember { name: u8, generation: u64, commit: u64 },
    Refill { above: u64, if_commit_below: Option<u64> },
    Raise { floor: u64 },
    Vote { right: bool },
}

fn wishes() -> impl Strategy<Value = Wish> {
    let times = 1u64..12;
    prop_oneof![
        1 => Just(Wish::Status),
        6 => prop::bool::weighted(0.9).prop_map(|right| Wish::Admit { right }),
        1 => (0u8..3, 1u64..3, 0u64..9).prop_map(|(name, generation, commit)| Wish::Remember { name, generation, commit }),
        2 => (times.clone(), prop::option::weighted(0.3, 0u64..40))
            .prop_map(|(above, if_commit_below)| Wish::Refill { above, if_commit_below }),
        1 => times.prop_map(|floor| Wish::Raise { floor }),
        3 => prop::bool::weighted(0.9).prop_map(|right| Wish::Vote { right }),
    ]
}

/// Larger than what the commit log takes.
const LARGE: usize = 40_000;

fn requests() -> impl Strategy<Value = Request> {
    // Mostly later than what is there, so that most changes are made.
    let times = prop_oneof![1u64..12, 1u64..90];
    let install = |time: u64| Request::Install {
        ballot: ballot(time),
        state: state(&time.to_string(), ballot(time)),
    };
    let ending = |(time, ends_at_ms): (u64, Option<u64>)| {
        let mut request = accept(time, &time.to_string());
        if let Request::Accept { state, .. } = &mut request {
            match ends_at_ms {
                Some(at) => state.expires_at_ms = Some(at),
                None => state.value = None,
            }
        }
        request
    };
    prop_oneof![
        1 => Just(Request::Read),
        1 => times.clone().prop_map(|time| Request::Prepare { ballot: ballot(time) }),
        4 => times.clone().prop_map(|time| accept(time, &time.to_string())),
        2 => (times.clone(), prop::option::of(1u64..9)).prop_map(ending),
        1 => times.clone().prop_map(|time| hint(time, &time.to_string())),
        1 => times.clone().prop_map(|time| accept(time, &"x".repeat(LARGE))),
        1 => times.clone().prop_map(|time| accept(time, &"y".repeat(5_000))),
        1 => times.clone().prop_map(install),
        1 => times.clone().prop_map(|time| Request::Forget { ballot: ballot(time) }),
        1 => times.clone().prop_map(|time| Request::Retire { ballot: ballot(time) }),
        1 => times.prop_map(|time| Request::Collect { ballot: ballot(time) }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        16 => proptest::collection::vec((0u8..6, requests()), 1..6).prop_map(Step::Decide),
        4 => (0u8..4).prop_map(Step::Read),
        3 => wishes().prop_map(Step::Node),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..50)
}

fn name(key: u8) -> Key {
    Key::data(&key.to_string())
}

/// What the store should be.
struct Model {
    status: NodeStatus,
    records: BTreeMap<u8, (register::Record, u64)>,
    /// Accepted since the feed began: commit, key, ballot.
    feed: Vec<(u64, u8, Ballot)>,
    feed_after: u64,
}

impl Model {
    fn decide(&mut self, key: u8, request: &Request) -> Reply {
        let record = self.records.get(&key).map(|(record, _)| record);
        let before = record.map(|record| record.accepted).unwrap_or_default();
        let decision = acceptor::decide_as(self.status.standing, record, self.status.floor, request);
        match decision.change {
            acceptor::Change::Nothing => {}
            acceptor::Change::Put(record) => {
                self.status.commit += 1;
                if record.accepted != before {
                    self.feed.push((self.status.commit, key, record.accepted));
                }
                self.records.insert(key, (record, self.status.commit));
            }
            acceptor::Change::Remove { floor } => {
                self.status.commit += 1;
                self.status.floor = floor;
                self.records.remove(&key);
            }
        }
        decision.reply
    }

    fn request(&self, wish: &Wish) -> NodeRequest {
        let incarnation = |right: bool| self.status.incarnation.wrapping_add(u64::from(!right));
        let above = match self.status.standing {
            Standing::Filling { above } => above,
            _ => Ballot::ZERO,
        };
        match *wish {
            Wish::Status => NodeRequest::Status,
            Wish::Admit { right } => NodeRequest::Admit {
                incarnation: incarnation(right),
                commit: 0,
            },
            Wish::Remember {
                name,
                generation,
                commit,
            } => NodeRequest::Remember {
                peers: vec![Peer {
                    name: name.to_string().into(),
                    generation,
                    incarnation: generation,
                    commit,
                }],
            },
            Wish::Refill { above, if_commit_below } => NodeRequest::Refill {
                incarnation: self.status.incarnation,
                if_commit_below,
                generation: self.status.generation + 1,
                above: ballot(above),
            },
            Wish::Raise { floor } => NodeRequest::Raise { floor: ballot(floor) },
            Wish::Vote { right } => NodeRequest::Vote {
                incarnation: incarnation(right),
                above,
            },
        }
    }

    /// Takes over a decision whose fresh incarnation, if it needed one, was `fresh`.
    fn node(&mut self, request: &NodeRequest, fresh: u64) -> bool {
        let decision = membership::decide(&self.status, request, fresh, EPOCH);
        if let Some(status) = decision.status {
            if status.incarnation != self.status.incarnation {
                self.feed.clear();
                self.feed_after = self.status.commit;
            }
            self.status = status;
        }
        self.records
            .retain(|_, (record, _)| !decision.drop.drops(record.accepted, record.promised));
        assert!(decision.done || decision.drop == DropRecords::None);
        decision.done
    }

    fn reopen(&mut self) {
        self.status = self.status.clone().after_restart();
        self.feed.clear();
        self.feed_after = self.status.commit;
    }

    /// What a list should hold: keys with their commits.
    fn listed(&self, wanted: impl Fn(u8, &register::Record) -> bool) -> Vec<(Key, u64)> {
        let records = self.records.iter().filter(|(key, (record, _))| wanted(**key, record));
        records.map(|(key, (_, commit))| (name(*key), *commit)).collect()
    }

    async fn check(&self, store: &Store) -> Result<(), TestCaseError> {
        let (_, status) = store.node(NodeRequest::Status, EPOCH).await.unwrap();
        prop_assert_eq!(&status, &self.status);
        let progress = store.progress();
        prop_assert_eq!(
            (progress.commit, progress.floor, progress.standing),
            (status.commit, status.floor, status.standing)
        );

        let mut tree = HashTree::default();
        for (key, (record, _)) in &self.records {
            tree.change(&name(*key), Ballot::ZERO, record.accepted);
        }
        prop_assert_eq!(store.hashes(None), tree.roots());

        let ended = |_, record: &register::Record| match &record.state {
            None => true,
            Some(state) => state.value.is_none() || state.expires_at_ms.is_some_and(|at| at <= 5),
        };
        let leaves = [0, 2].map(|key| u32::try_from(leaf_of(&name(key))).unwrap());
        let lists = [
            (
                List::Hints { after_commit: 0 },
                self.listed(|_, record| record.hint_for.is_some()),
                true,
            ),
            (
                List::Ended {
                    after_commit: 0,
                    expired_at_ms: 5,
                },
                self.listed(ended),
                true,
            ),
            (
                List::Leaves {
                    leaves: leaves.to_vec(),
                    after: None,
                },
                self.listed(|key, _| key == 0 || key == 2),
                false,
            ),
        ];
        for (list, mut expected, by_commit) in lists {
            if by_commit {
                expected.sort_by_key(|(_, commit)| *commit);
            }
            let page = store.page(list, 100).await.unwrap();
            let found: Vec<_> = page
                .records
                .into_iter()
                .map(|record| (record.key, record.commit))
                .collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!((page.commit, page.standing), (status.commit, status.standing));
        }

        for reverse in [false, true] {
            let mut expected: Vec<_> = self.listed(|_, _| true);
            if reverse {
                expected.reverse();
            }
            prop_assert_eq!(in_pages(store, reverse).await, expected);
        }

        let told = store
            .changes(status.incarnation, self.feed_after, 100, Duration::ZERO)
            .await;
        prop_assert_eq!((told.lost, told.commit), (false, status.commit));
        let told: Vec<_> = told
            .changes
            .into_iter()
            .map(|change| (change.commit, change.key, change.accepted))
            .collect();
        let expected: Vec<_> = self
            .feed
            .iter()
            .map(|(commit, key, accepted)| (*commit, name(*key), *accepted))
            .collect();
        prop_assert_eq!(told, expected);

        store.probe().await.unwrap();
        let counts = (store.metrics.records.get(), store.metrics.hints.get());
        let hints = self.records.values().filter(|(record, _)| record.hint_for.is_some());
        let expected = (self.records.len(), hints.count());
        prop_assert_eq!(counts, (expected.0.try_into().unwrap(), expected.1.try_into().unwrap()));
        Ok(())
    }
}

/// All keys with their commits, two at a time.
async fn in_pages(store: &Store, reverse: bool) -> Vec<(Key, u64)> {
    let (mut found, mut after): (Vec<(Key, u64)>, Option<String>) = (Vec::new(), None);
    loop {
        let prefix = Key::DATA.to_string();
        let list = List::Keys { prefix, after, reverse };
        let page = store.page(list, 2).await.unwrap();
        assert!(
            page.records.len() <= 2 && (page.end || page.records.len() == 2),
            "{page:?}"
        );
        found.extend(page.records.into_iter().map(|record| (record.key, record.commit)));
        if page.end {
            return found;
        }
        after = found.last().map(|(key, _)| key.as_text().to_owned());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// With cache, batches, SQLite and restarts the store answers exactly like the pure rules over a map; and hash tree, lists and feed are
    /// what they would be if they were made anew from what is held.
    #[test]
    fn the_store_is_the_acceptor(steps in steps(), items in 0usize..4) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new();
            bench.cache = CacheLimits { items, bytes: 1 << 20 };
            let mut store = bench.open().await;
            let (mut path, mut crashes) = (bench.path(), 0);
            let (_, status) = store.node(NodeRequest::Status, EPOCH).await.unwrap();
            let mut model = Model { status, records: BTreeMap::new(), feed: Vec::new(), feed_after: 0 };
            for step in steps {
                match step {
                    Step::Decide(requests) => {
                        let named = requests.iter().map(|(key, request)| (name(*key), request.clone())).collect();
                        let expected: Vec<Reply> = requests.iter().map(|(key, request)| model.decide(*key, request)).collect();
                        prop_assert_eq!(store.decide(named).await.unwrap(), expected);
                    }
                    Step::Read(key) => {
                        let found = store.read(&[name(key)]).await;
                        prop_assert_eq!(found, vec![model.decide(key, &Request::Read)]);
                    }
                    Step::Node(wish) => {
                        let request = model.request(&wish);
                        let (done, status) = store.node(request.clone(), EPOCH).await.unwrap();
                        prop_assert_eq!(done, model.node(&request, status.incarnation));
                        prop_assert_eq!(status, model.status.clone());
                    }
                    Step::Reopen => {
                        store.close().await;
                        store = Store::open(&path, bench.options()).unwrap();
                        model.reopen();
                    }
                    Step::Crash => {
                        crashes += 1;
                        let copy = bench.dir.path().join(format!("{crashes}.db"));
                        crash_copy(&path, &copy);
                        path = copy;
                        store.close().await;
                        store = Store::open(&path, bench.options()).unwrap();
                        model.reopen();
                    }
                }
                model.check(&store).await?;
            }
            store.close().await;
            Ok(())
        })?;
    }
}
