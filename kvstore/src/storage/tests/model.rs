//! The store against the pure acceptor.

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Decide(Vec<(u8, Request)>),
    Read(u8),
    Reopen,
}

fn requests() -> impl Strategy<Value = Request> {
    let times = 1u64..12;
    let install = |time: u64| Request::Install {
        ballot: ballot(time),
        state: state(&time.to_string(), ballot(time)),
    };
    prop_oneof![
        1 => Just(Request::Read),
        1 => times.clone().prop_map(|time| Request::Prepare { ballot: ballot(time) }),
        4 => times.clone().prop_map(|time| accept(time, &time.to_string())),
        1 => times.clone().prop_map(|time| hint(time, &time.to_string())),
        1 => times.clone().prop_map(install),
        1 => times.prop_map(|time| Request::Forget { ballot: ballot(time) }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => proptest::collection::vec((0u8..4, requests()), 1..6).prop_map(Step::Decide),
        4 => (0u8..4).prop_map(Step::Read),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// With cache, batches, SQLite and restarts the store answers exactly like the pure acceptor over a map.
    #[test]
    fn the_store_is_the_acceptor(steps in steps(), items in 0usize..4) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new();
            bench.cache = CacheLimits { items, bytes: 1 << 20 };
            let mut store = bench.open().await;
            let mut model: std::collections::BTreeMap<u8, register::Record> = std::collections::BTreeMap::new();
            let mut floor = Ballot::ZERO;
            for step in steps {
                match step {
                    Step::Decide(requests) => {
                        let named = requests.iter().map(|(key, request)| (Key::data(&key.to_string()), request.clone())).collect();
                        let expected: Vec<Reply> = requests
                            .iter()
                            .map(|(key, request)| {
                                let decision = acceptor::decide(model.get(key), floor, request);
                                match decision.change {
                                    acceptor::Change::Nothing => {}
                                    acceptor::Change::Put(record) => drop(model.insert(*key, record)),
                                    acceptor::Change::Remove { floor: raised } => {
                                        floor = raised;
                                        model.remove(key);
                                    }
                                }
                                decision.reply
                            })
                            .collect();
                        prop_assert_eq!(store.decide(named).await.unwrap(), expected);
                    }
                    Step::Read(key) => {
                        let found = held(&store, &Key::data(&key.to_string())).await;
                        prop_assert_eq!(found, acceptor::held(model.get(&key), floor));
                    }
                    Step::Reopen => {
                        store.close().await;
                        store = bench.open().await;
                    }
                }
                prop_assert_eq!(store.progress().floor, floor);
                let hints = model.values().filter(|record| record.hint_for.is_some()).count();
                let page = store.page(List::Hints { after_commit: 0 }, 100).await.unwrap();
                prop_assert_eq!(page.records.len(), hints);
                prop_assert_eq!(page.commit, store.progress().commit);
                store.probe().await.unwrap();
                prop_assert_eq!(usize::try_from(store.metrics.records.get()).unwrap(), model.len());
                prop_assert_eq!(usize::try_from(store.metrics.hints.get()).unwrap(), hints);
            }
            store.close().await;
            Ok(())
        })?;
    }
}
