//! Schedules of one writer and some readers.

use std::collections::HashMap;

use proptest::prelude::*;
use register::Record;

use super::*;

fn stored(commit: u64) -> Arc<Stored> {
    Arc::new(Stored {
        record: Record::empty(Ballot::ZERO),
        commit,
    })
}

const fn progress(commit: u64) -> Progress {
    Progress {
        commit,
        floor: Ballot::ZERO,
        incarnation: 1,
        standing: Standing::Voting,
        epoch: None,
    }
}

/// One step of the schedule of one writer and some readers.
#[derive(Debug, Clone)]
enum Step {
    LookUp { reader: usize, key: u8 },
    ReadRow { reader: usize },
    Fill { reader: usize },
    Begin { keys: Vec<u8> },
    Commit,
    Publish,
    Abort,
}

fn schedules() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..3, 0u8..3).prop_map(|(reader, key)| Step::LookUp { reader, key }),
        4 => (0usize..3).prop_map(|reader| Step::ReadRow { reader }),
        4 => (0usize..3).prop_map(|reader| Step::Fill { reader }),
        3 => proptest::collection::vec(0u8..3, 1..3).prop_map(|keys| Step::Begin { keys }),
        3 => Just(Step::Commit),
        3 => Just(Step::Publish),
        1 => Just(Step::Abort),
    ];
    proptest::collection::vec(step, 0..150)
}

#[derive(Debug, Clone, Default)]
struct Reader {
    looked_up: Option<(u8, Ticket)>,
    row: Option<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// Whatever the interleaving and however little fits into the cache: what a lookup gives is never older than what anybody saw
    /// before, and never newer than what is committed.
    #[test]
    fn no_interleaving_brings_an_older_version_back(schedule in schedules(), items in 1usize..4) {
        let view = View::new(CacheLimits { items, bytes: usize::MAX }, progress(0));
        let name = |key: u8| Key::data(&key.to_string());
        let mut database: HashMap<u8, u64> = (0..3).map(|key| (key, 0)).collect();
        let mut seen: HashMap<u8, u64> = HashMap::new();
        let mut readers = vec![Reader::default(); 3];
        let mut next_commit = 1;
        // Keys, and whether the commit has happened.
        let mut writing: Option<(Vec<u8>, bool)> = None;
        for step in schedule {
            match step {
                Step::LookUp { reader, key } => {
                    let keys = [name(key)];
                    let Looked { found, ticket, .. } = view.look_up(keys.iter());
                    readers[reader] = Reader::default();
                    match &found[0] {
                        Some(stored) => {
                            prop_assert!(stored.commit <= database[&key], "uncommitted");
                            let newest = seen.entry(key).or_default();
                            prop_assert!(stored.commit >= *newest, "went back from {} to {}", newest, stored.commit);
                            *newest = stored.commit;
                        }
                        None => readers[reader].looked_up = Some((key, ticket)),
                    }
                }
                Step::ReadRow { reader } => {
                    if let Some((key, _)) = readers[reader].looked_up {
                        readers[reader].row = Some(database[&key]);
                        // A read of the database counts as seen at the moment of its snapshot.
                        let newest = seen.entry(key).or_default();
                        *newest = (*newest).max(database[&key]);
                    }
                }
                Step::Fill { reader } => {
                    let Reader { looked_up: Some((key, ticket)), row: Some(row) } = std::mem::take(&mut readers[reader])
                    else { continue };
                    view.fill(ticket, [(name(key), stored(row))].into_iter());
                }
                Step::Begin { keys } if writing.is_none() => {
                    let names: Vec<Key> = keys.iter().map(|key| name(*key)).collect();
                    view.begin(names.iter(), Ballot::ZERO);
                    writing = Some((keys, false));
                }
                Step::Commit => {
                    if let Some((keys, committed @ false)) = &mut writing {
                        for key in keys {
                            database.insert(*key, next_commit);
                        }
                        *committed = true;
                        next_commit += 1;
                    }
                }
                Step::Publish => {
                    if let Some((keys, true)) = &writing {
                        let rows = keys.iter().map(|key| (name(*key), Some(stored(database[key]))));
                        view.publish(rows, progress(next_commit - 1));
                        writing = None;
                    }
                }
                Step::Abort => {
                    if let Some((keys, false)) = &writing {
                        let names: Vec<Key> = keys.iter().map(|key| name(*key)).collect();
                        view.abort(names.iter());
                        writing = None;
                    }
                }
                Step::Begin { .. } => {}
            }
        }
    }
}

#[test]
fn readers_hear_of_a_raised_floor_before_the_row_can_be_gone() {
    let view = View::new(CacheLimits { items: 1, bytes: 1_000 }, progress(0));
    let floor = Ballot {
        time: register::HlcTime::from_unix_ms(5),
        incarnation: 1,
    };
    let key = Key::data("a");
    let ticket = view.look_up([&key].into_iter()).ticket;
    view.begin([&key].into_iter(), floor);
    assert_eq!(view.fill(ticket, std::iter::empty()).floor, floor);
    assert_eq!(view.progress().floor, Ballot::ZERO, "but it is not told as durable yet");
    view.abort([&key].into_iter());
    assert_eq!(view.fill(ticket, std::iter::empty()).floor, Ballot::ZERO);
}

/// One step of the schedule of a writer that changes the node itself, and some readers.
#[derive(Debug, Clone)]
enum NodeStep {
    LookUp {
        reader: usize,
    },
    ReadRow {
        reader: usize,
    },
    Fill {
        reader: usize,
    },
    /// Writes the key, with something accepted at this.
    Write {
        accepted: u64,
    },
    /// Begins anew above this.
    Refill {
        above: u64,
    },
    /// Drops what is not above this, and votes.
    Vote,
    Commit,
    End {
        failed: bool,
    },
}

fn node_schedules() -> impl Strategy<Value = Vec<NodeStep>> {
    let step = prop_oneof![
        4 => (0usize..3).prop_map(|reader| NodeStep::LookUp { reader }),
        4 => (0usize..3).prop_map(|reader| NodeStep::ReadRow { reader }),
        4 => (0usize..3).prop_map(|reader| NodeStep::Fill { reader }),
        2 => (1u64..9).prop_map(|accepted| NodeStep::Write { accepted }),
        2 => (1u64..9).prop_map(|above| NodeStep::Refill { above }),
        2 => Just(NodeStep::Vote),
        5 => Just(NodeStep::Commit),
        5 => prop::bool::weighted(0.2).prop_map(|failed| NodeStep::End { failed }),
    ];
    proptest::collection::vec(step, 0..150)
}

fn at(time: u64) -> Ballot {
    Ballot {
        time: register::HlcTime::from_bits(time),
        incarnation: 1,
    }
}

fn accepted(time: u64) -> Arc<Stored> {
    let mut record = Record::empty(Ballot::ZERO);
    record.accepted = at(time);
    Arc::new(Stored { record, commit: time })
}

/// What is committed: the standing, and what the key holds.
type Held = (Standing, Option<u64>);

#[derive(Debug, Clone, Default)]
struct NodeReader {
    /// When it looked up: the number of commits that had happened.
    looked_up: Option<(usize, Ticket, Option<Standing>)>,
    row: Option<Option<u64>>,
}

/// A change under way: what it commits, what it drops, whether it is one of the node, and whether the commit has happened.
struct UnderWay {
    next: Held,
    drop: DropRecords,
    is_node: bool,
    committed: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// Whatever the interleaving: a record is told only under the standing of a moment at which it was held, between question and answer.
    #[test]
    fn no_record_is_told_under_the_standing_of_another_moment(schedule in node_schedules()) {
        let key = Key::data("a");
        let node = |held: &Held| Progress { standing: held.0, ..progress(0) };
        let view = View::new(CacheLimits { items: 1, bytes: usize::MAX }, progress(0));
        let mut history: Vec<Held> = vec![(Standing::Voting, None)];
        let mut readers = vec![NodeReader::default(); 3];
        let mut writing: Option<UnderWay> = None;
        for step in schedule {
            let now = *history.last().unwrap();
            match step {
                NodeStep::LookUp { reader } => {
                    let Looked { found, standing, ticket } = view.look_up([&key].into_iter());
                    readers[reader] = NodeReader::default();
                    match &found[0] {
                        Some(stored) => {
                            if let Some(standing) = standing {
                                prop_assert_eq!((standing, Some(stored.commit)), now, "from the cache");
                            }
                        }
                        None => readers[reader].looked_up = Some((history.len() - 1, ticket, standing)),
                    }
                }
                NodeStep::ReadRow { reader } => {
                    if readers[reader].looked_up.is_some() {
                        readers[reader].row = Some(now.1);
                    }
                }
                NodeStep::Fill { reader } => {
                    let NodeReader { looked_up: Some((since, ticket, standing)), row: Some(row) } = std::mem::take(&mut readers[reader])
                    else { continue };
                    let filled = view.fill(ticket, row.map(|row| (key.clone(), accepted(row))).into_iter());
                    if filled.same_standing && let Some(standing) = standing {
                        prop_assert!(history[since..].contains(&(standing, row)), "{:?} of {:?}", (standing, row), &history[since..]);
                    }
                }
                NodeStep::Write { accepted } if writing.is_none() => {
                    view.begin([&key].into_iter(), Ballot::ZERO);
                    let next = (now.0, Some(accepted));
                    writing = Some(UnderWay { next, drop: DropRecords::None, is_node: false, committed: false });
                }
                NodeStep::Refill { above } if writing.is_none() => {
                    let next = (Standing::Filling { above: at(above) }, now.1);
                    view.begin_node(&node(&next), DropRecords::None);
                    writing = Some(UnderWay { next, drop: DropRecords::None, is_node: true, committed: false });
                }
                NodeStep::Vote if writing.is_none() => {
                    let Standing::Filling { above } = now.0 else { continue };
                    let drop = DropRecords::Accepted { up_to: above };
                    let next = (Standing::Voting, now.1.filter(|accepted| at(*accepted) > above));
                    view.begin_node(&node(&next), drop);
                    writing = Some(UnderWay { next, drop, is_node: true, committed: false });
                }
                NodeStep::Commit => {
                    if let Some(change @ UnderWay { committed: false, .. }) = &mut writing {
                        history.push(change.next);
                        change.committed = true;
                    }
                }
                NodeStep::End { failed } => {
                    let Some(change) = writing.take_if(|change| change.committed || failed) else { continue };
                    prop_assert!(change.drop == DropRecords::None || change.is_node);
                    match (change.is_node, change.committed) {
                        (true, _) => view.end_node(node(history.last().unwrap())),
                        (false, true) => {
                            let row = now.1.map(accepted);
                            view.publish([(key.clone(), row)].into_iter(), node(&now));
                        }
                        (false, false) => view.abort([&key].into_iter()),
                    }
                }
                NodeStep::Write { .. } | NodeStep::Refill { .. } | NodeStep::Vote => {}
            }
        }
    }
}
