//! Schedules of one writer and some readers.

use std::collections::HashMap;

use proptest::prelude::*;
use register::Record;

use super::super::batch::Slot;
use super::*;

fn stored(commit: u64) -> Arc<Stored> {
    Arc::new(Stored {
        record: Record::empty(Ballot::ZERO),
        commit,
    })
}

fn node(commit: u64) -> NodeRow {
    NodeRow {
        commit,
        standing: Standing::Voting,
        ..NodeRow::blank(1)
    }
}

/// One step of the schedule of one writer and some readers.
#[derive(Debug, Clone)]
enum Step {
    LookUp {
        reader: usize,
        key: u8,
    },
    ReadRow {
        reader: usize,
    },
    Fill {
        reader: usize,
    },
    /// A commit to the table.
    Begin {
        keys: Vec<u8>,
    },
    /// A commit to the log, which brings at most so many records of the generation before into the table, or begins a new one.
    BeginLogged {
        keys: Vec<u8>,
        share: usize,
        begins: bool,
    },
    Commit,
    Publish,
    Abort,
}

fn schedules() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..3, 0u8..3).prop_map(|(reader, key)| Step::LookUp { reader, key }),
        4 => (0usize..3).prop_map(|reader| Step::ReadRow { reader }),
        4 => (0usize..3).prop_map(|reader| Step::Fill { reader }),
        1 => proptest::collection::vec(0u8..3, 1..3).prop_map(|keys| Step::Begin { keys }),
        4 => (proptest::collection::btree_set(0u8..3, 1..3), 0usize..3, any::<bool>())
            .prop_map(|(keys, share, begins)| Step::BeginLogged { keys: keys.into_iter().collect(), share, begins }),
        3 => Just(Step::Commit),
        3 => Just(Step::Publish),
        1 => Just(Step::Abort),
    ];
    proptest::collection::vec(step, 0..150)
}

#[derive(Debug, Clone, Default)]
struct Reader {
    /// The key, and the newest version that anybody had seen by then.
    looked_up: Option<(u8, Ticket, u64)>,
    row: Option<u64>,
}

/// A commit under way.
struct Writing {
    keys: Vec<u8>,
    /// It goes to the log, with this share of what was there before, and begins a generation or not.
    logged: Option<(Vec<(Key, Later)>, bool)>,
    committed: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    /// Whatever the interleaving and however little fits into the cache: what a lookup gives is never older than what anybody saw
    /// before, and never newer than what is committed; and what is not found has its last version in the table.
    #[test]
    fn no_interleaving_brings_an_older_version_back(schedule in schedules(), items in 1usize..4) {
        let view = View::new(CacheLimits { items, bytes: usize::MAX }, Unapplied::none(node(0)));
        let name = |key: u8| Key::data(&key.to_string());
        let mut table: HashMap<u8, u64> = (0..3).map(|key| (key, 0)).collect();
        let mut durable = table.clone();
        let mut seen: HashMap<u8, u64> = HashMap::new();
        let mut readers = vec![Reader::default(); 3];
        let mut next_commit = 1;
        let mut writing: Option<Writing> = None;
        for step in schedule {
            match step {
                Step::LookUp { reader, key } => {
                    let keys = [name(key)];
                    let Looked { found, ticket, .. } = view.look_up(keys.iter());
                    readers[reader] = Reader::default();
                    let newest = seen.entry(key).or_default();
                    match &found[0] {
                        Known::Record(stored) => {
                            prop_assert!(stored.commit <= durable[&key], "uncommitted");
                            prop_assert!(stored.commit >= *newest, "went back from {} to {}", newest, stored.commit);
                            *newest = stored.commit;
                        }
                        Known::AskTable => {
                            prop_assert!(table[&key] >= *newest, "the table has {}, {} was seen", table[&key], newest);
                            readers[reader].looked_up = Some((key, ticket, *newest));
                        }
                        Known::Dropped => prop_assert!(false, "nothing is dropped"),
                    }
                }
                Step::ReadRow { reader } => {
                    if let Some((key, ..)) = readers[reader].looked_up {
                        readers[reader].row = Some(table[&key]);
                    }
                }
                Step::Fill { reader } => {
                    let Reader { looked_up: Some((key, ticket, before)), row: Some(row) } = std::mem::take(&mut readers[reader])
                    else { continue };
                    let mut rows = [(name(key), Ok(Some(stored(row))))];
                    view.fill(ticket, &mut rows);
                    let Ok(Some(told)) = &rows[0].1 else { panic!("{rows:?}") };
                    prop_assert!(told.commit <= durable[&key], "uncommitted");
                    prop_assert!(told.commit >= before, "{} was seen before it asked, it is told {}", before, told.commit);
                    let newest = seen.entry(key).or_default();
                    *newest = (*newest).max(told.commit);
                }
                Step::Begin { keys } if writing.is_none() => {
                    let names: Vec<Key> = keys.iter().map(|key| name(*key)).collect();
                    view.begin(names.iter(), Ballot::ZERO);
                    writing = Some(Writing { keys, logged: None, committed: false });
                }
                Step::BeginLogged { keys, share, begins } if writing.is_none() => {
                    let slots: Vec<_> = keys.iter().map(|key| (name(*key), Slot::changed_to(stored(next_commit)))).collect();
                    let unapplied = view.unapplied();
                    let count = if begins { unapplied.left() } else { share };
                    let share = unapplied.share(count, &slots);
                    view.begin_logged(Ballot::ZERO);
                    writing = Some(Writing { keys, logged: Some((share, begins)), committed: false });
                }
                Step::Commit => {
                    let Some(Writing { keys, logged, committed: committed @ false }) = &mut writing else { continue };
                    for key in keys {
                        durable.insert(*key, next_commit);
                        if logged.is_none() {
                            table.insert(*key, next_commit);
                        }
                    }
                    let applied = match logged {
                        Some((share, _)) => share.clone(),
                        None => view.unapplied().all(&[]),
                    };
                    for (key, later) in applied {
                        let key = key.name().parse().unwrap();
                        let commit = later.stored.unwrap().commit;
                        table.entry(key).and_modify(|row| *row = commit.max(*row));
                    }
                    *committed = true;
                    next_commit += 1;
                }
                Step::Publish => {
                    let Some(Writing { keys, logged, .. }) = writing.take_if(|writing| writing.committed) else { continue };
                    let rows = keys.iter().map(|key| (name(*key), Some(stored(durable[key]))));
                    match logged {
                        None => view.publish(rows, node(next_commit - 1)),
                        Some((share, begins)) => view.end_logged(rows.clone(), |unapplied| {
                            let changes = rows.map(|(key, stored)| (key, stored, true));
                            unapplied.committed(node(next_commit - 1), begins, &share, changes);
                        }),
                    }
                }
                Step::Abort => {
                    let Some(Writing { keys, logged, .. }) = writing.take_if(|writing| !writing.committed) else { continue };
                    let names: Vec<Key> = keys.iter().filter(|_| logged.is_none()).map(|key| name(*key)).collect();
                    view.abort(names.iter());
                }
                Step::Begin { .. } | Step::BeginLogged { .. } => {}
            }
        }
    }
}

#[test]
fn readers_hear_of_a_raised_floor_before_the_row_can_be_gone() {
    let view = View::new(CacheLimits { items: 1, bytes: 1_000 }, Unapplied::none(node(0)));
    let floor = Ballot {
        time: register::HlcTime::from_unix_ms(5),
        incarnation: 1,
    };
    let key = Key::data("a");
    let ticket = view.look_up([&key].into_iter()).ticket;
    view.begin([&key].into_iter(), floor);
    assert_eq!(view.fill(ticket, &mut []).floor, floor);
    assert_eq!(view.progress().floor, Ballot::ZERO, "but it is not told as durable yet");
    view.abort([&key].into_iter());
    assert_eq!(view.fill(ticket, &mut []).floor, Ballot::ZERO);
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
        let node = |held: &Held| NodeRow { standing: held.0, ..node(0) };
        let view = View::new(CacheLimits { items: 1, bytes: usize::MAX }, Unapplied::none(node(&(Standing::Voting, None))));
        let mut history: Vec<Held> = vec![(Standing::Voting, None)];
        let mut readers = vec![NodeReader::default(); 3];
        let mut writing: Option<UnderWay> = None;
        for step in schedule {
            let now = *history.last().unwrap();
            match step {
                NodeStep::LookUp { reader } => {
                    let Looked { found, standing, ticket, .. } = view.look_up([&key].into_iter());
                    readers[reader] = NodeReader::default();
                    match &found[0] {
                        Known::Record(stored) => {
                            if let Some(standing) = standing {
                                prop_assert_eq!((standing, Some(stored.commit)), now, "from the cache");
                            }
                        }
                        _ => readers[reader].looked_up = Some((history.len() - 1, ticket, standing)),
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
                    let mut rows = [(key.clone(), Ok(row.map(accepted)))];
                    let filled = view.fill(ticket, &mut rows);
                    let row = rows[0].1.as_ref().unwrap().as_ref().map(|stored| stored.commit);
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
                    view.begin_node(&progress(&node(&next)), DropRecords::None);
                    writing = Some(UnderWay { next, drop: DropRecords::None, is_node: true, committed: false });
                }
                NodeStep::Vote if writing.is_none() => {
                    let Standing::Filling { above } = now.0 else { continue };
                    let drop = DropRecords::Accepted { up_to: above };
                    let next = (Standing::Voting, now.1.filter(|accepted| at(*accepted) > above));
                    view.begin_node(&progress(&node(&next)), drop);
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
                        (true, committed) => view.end_node(committed.then(|| node(&now))),
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
