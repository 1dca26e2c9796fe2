//! The node's side of the protocol: a pure decision per request.
//!
//! [`decide`] is given what the node holds of the key and the node's floor, and says what to answer and what to change. The shell around
//! it makes the change durable *before* the answer leaves, and gives each request what the request before it left.
//!
//! Invariants it keeps, for every order, repetition and loss of requests:
//! - `promised` and `accepted` of a record never fall, and the node's floor never falls.
//! - Nothing at or below the promise (below, for an accept), the accepted ballot or the floor is ever taken again.
//! - A ballot names one state: a second, different one is [`Reply::Corrupt`], never a choice.

use crate::ballot::Ballot;
use crate::membership::Standing;
use crate::message::{Held, Reply, Request, Retired};
use crate::state::{Record, State};
use crate::teeth::{Tooth, bites};

/// What to do about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to answer, once the change is durable.
    pub reply: Reply,
    /// What to change.
    pub change: Change,
}

/// A change of what the node holds of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing; the reply may leave at once.
    Nothing,
    /// The record is this now.
    Put(Record),
    /// The record, if there was one, is gone, and the node's floor is at least `floor` from the same transaction on.
    Remove {
        /// The node's new floor: not below its old one.
        floor: Ballot,
    },
}

/// Decides one request to a node that may not vote, or not on this key. `record` is what it holds of the key, `floor` its floor.
///
/// A node that is being filled after the loss of its disk has broken its promises: of a key it holds only what was chosen after it began
/// anew, and until it holds that, it says nothing that anybody could count.
#[must_use]
pub fn decide_as(standing: Standing, record: Option<&Record>, floor: Ballot, request: &Request) -> Decision {
    let above = match standing {
        Standing::Voting => return decide(record, floor, request),
        Standing::Blank => return Decision::failed("this node is new, and has not been admitted to the cluster yet"),
        Standing::Returned => {
            return Decision::failed(
                "this node has just started, and it was not compared yet whether its disk is the newest",
            );
        }
        Standing::Filling { above } => above,
    };
    match request {
        _ if record.is_some_and(|record| record.accepted > above) => decide(record, floor, request),
        // Chosen by others after it began anew: as good as any replica's. What it held before is not, promises included.
        Request::Install { ballot, state } if *ballot > above => install(None, floor.max(above), *ballot, state),
        _ => Decision::failed("this node's disk was lost, and this key has not been filled from the others yet"),
    }
}

/// Decides one request to a node that votes. `record` is what the node holds of the key, `floor` the node's floor.
#[must_use]
pub fn decide(record: Option<&Record>, floor: Ballot, request: &Request) -> Decision {
    match request {
        Request::Read => Decision::only(Reply::Holds(held(record, floor))),
        Request::Prepare { ballot } => prepare(record, floor, *ballot),
        Request::Accept {
            ballot,
            state,
            blind,
            reserve,
            hint_for,
        } => {
            let asked = Asked {
                ballot: *ballot,
                state,
                blind: *blind,
                reserve: *reserve,
            };
            let mut decision = accept(record, floor, &asked);
            if let Change::Put(record) = &mut decision.change
                && record.accepted == *ballot
            {
                record.hint_for.clone_from(hint_for);
            }
            decision
        }
        Request::Install { ballot, state } => install(record, floor, *ballot, state),
        Request::Forget { ballot } => forget(record, floor, *ballot),
        Request::Retire { ballot } => retire(record, floor, *ballot),
        Request::Collect { ballot } => collect(record, floor, *ballot),
    }
}

/// What the node answers to a read of a key.
#[must_use]
pub fn held(record: Option<&Record>, floor: Ballot) -> Held {
    let Some(record) = record else {
        return Held {
            accepted: Ballot::ZERO,
            state: None,
            promised: Ballot::ZERO,
            floor,
        };
    };
    // While nothing is accepted, the floor of the time the record was made stands for what may have been dropped before.
    let floor = if record.accepted.is_zero() && !bites(Tooth::FloorClearedByPromise) {
        record.floor
    } else {
        Ballot::ZERO
    };
    Held {
        accepted: record.accepted,
        state: record.state.clone(),
        promised: record.promised,
        floor,
    }
}

struct Asked<'a> {
    ballot: Ballot,
    state: &'a State,
    blind: bool,
    reserve: Option<Ballot>,
}

fn prepare(record: Option<&Record>, floor: Ballot, ballot: Ballot) -> Decision {
    let bar = record.map_or(floor, |record| record.promised.max(record.accepted));
    // Equal is refused too: one ballot promised twice lets two changes through under it.
    if ballot < bar || ballot == bar && !bites(Tooth::EqualBallotPromised) {
        return Decision::only(Reply::Refused { higher: bar });
    }
    let mut promised = record.cloned().unwrap_or_else(|| Record::empty(floor));
    promised.promised = ballot;
    Decision {
        reply: Reply::Promised(held(Some(&promised), floor)),
        change: Change::Put(promised),
    }
}

fn accept(record: Option<&Record>, floor: Ballot, asked: &Asked<'_>) -> Decision {
    let ballot = asked.ballot;
    let Some(record) = record else {
        if ballot <= floor {
            return Decision::only(Reply::Refused { higher: floor });
        }
        return store(Record::empty(floor), asked);
    };
    if record.accepted == ballot && !ballot.is_zero() {
        return accept_again(record, asked);
    }
    if ballot < record.promised && !bites(Tooth::PromiseIgnored) || ballot <= record.accepted {
        return Decision::only(Reply::Refused {
            higher: record.promised.max(record.accepted),
        });
    }
    if asked.blind
        && let Some(seen) = record.state.as_ref().map(|state| state.fence)
        && seen > asked.state.fence
        && !bites(Tooth::BlindOverFence)
    {
        return Decision::only(Reply::Fenced { fence: seen });
    }
    store(record.clone(), asked)
}

fn store(mut record: Record, asked: &Asked<'_>) -> Decision {
    record.accepted = asked.ballot;
    record.state = Some(asked.state.clone());
    // A node need not grant what is asked for with the first accept: the worlds of two teeth.
    let grants = !bites(Tooth::ReservationNotGranted) && !bites(Tooth::ReservationByRepetition);
    let reserve = asked.reserve.filter(|_| grants);
    record.promised = record.promised.max(asked.ballot).max(reserve.unwrap_or_default());
    Decision {
        reply: Reply::Accepted {
            reserved: reserve.is_some(),
        },
        change: Change::Put(record),
    }
}

/// The same message once more. Applying it twice is applying it once, but a reservation may be granted only now, and only while
/// nobody else was promised more in the meantime.
fn accept_again(record: &Record, asked: &Asked<'_>) -> Decision {
    if record.state.as_ref() != Some(asked.state) {
        return Decision::only(Reply::Corrupt { ballot: asked.ballot });
    }
    match asked.reserve {
        Some(_) if bites(Tooth::ReservationByRepetition) => Decision::only(Reply::Accepted { reserved: true }),
        Some(reserve) if reserve > record.promised => {
            let reserved = Record {
                promised: reserve,
                ..record.clone()
            };
            Decision {
                reply: Reply::Accepted { reserved: true },
                change: Change::Put(reserved),
            }
        }
        Some(reserve) => Decision::only(Reply::Accepted {
            reserved: reserve == record.promised,
        }),
        None => Decision::only(Reply::Accepted { reserved: false }),
    }
}

fn install(record: Option<&Record>, floor: Ballot, ballot: Ballot, state: &State) -> Decision {
    let (accepted, own_floor) = record.map_or((Ballot::ZERO, floor), |record| (record.accepted, record.floor));
    if accepted == ballot
        && record
            .and_then(|record| record.state.as_ref())
            .is_some_and(|held| held != state)
    {
        return Decision::only(Reply::Corrupt { ballot });
    }
    let refused = ballot <= own_floor && !bites(Tooth::InstallBelowFloor);
    if ballot <= accepted && !bites(Tooth::HintOverNewer) || refused {
        return Decision::only(Reply::Installed);
    }
    let mut installed = record.cloned().unwrap_or_else(|| Record::empty(floor));
    installed.accepted = ballot;
    installed.state = Some(state.clone());
    Decision {
        reply: Reply::Installed,
        change: Change::Put(installed),
    }
}

fn forget(record: Option<&Record>, floor: Ballot, ballot: Ballot) -> Decision {
    let Some(record) = record.filter(|record| !record.accepted.is_zero() && record.accepted <= ballot) else {
        return Decision::only(Reply::Forgotten);
    };
    remove(record, floor, bites(Tooth::ForgetWithoutFloor))
}

/// A node without an accepted state refuses everything up to `ballot` from now on. A promise is not enough for that: an install passes it.
fn retire(record: Option<&Record>, floor: Ballot, ballot: Ballot) -> Decision {
    let Some(record) = record else {
        let change = if floor < ballot {
            Change::Remove { floor: ballot }
        } else {
            Change::Nothing
        };
        return Decision {
            reply: Reply::Retired(Retired::Refuses),
            change,
        };
    };
    let where_it_stands = match record.accepted {
        accepted if accepted.is_zero() => Retired::Refuses,
        accepted if accepted == ballot => Retired::Holds,
        accepted if accepted < ballot => Retired::Older,
        _ => Retired::Newer,
    };
    let mut decision = Decision::only(Reply::Retired(where_it_stands));
    let promise_will_do = bites(Tooth::CollectedOnPromise);
    if where_it_stands == Retired::Refuses && (record.promised < ballot || record.floor < ballot && !promise_will_do) {
        decision.change = Change::Put(Record {
            promised: record.promised.max(ballot),
            floor: if promise_will_do {
                record.floor
            } else {
                record.floor.max(ballot)
            },
            ..record.clone()
        });
    }
    decision
}

fn collect(record: Option<&Record>, floor: Ballot, ballot: Ballot) -> Decision {
    let dropped = record.filter(|record| match &record.state {
        Some(state) => record.accepted == ballot && state.is_tombstone(),
        // Dropping a promise while raising the floor over it refuses more than keeping it would.
        None => record.promised <= ballot,
    });
    match dropped {
        Some(record) => remove(record, floor, bites(Tooth::CollectedWithoutFloor)),
        None => Decision::only(Reply::Forgotten),
    }
}

/// Drops a record. What is dropped, its promise included, may never be taken again.
fn remove(record: &Record, floor: Ballot, keep_floor: bool) -> Decision {
    let raised = floor.max(record.accepted).max(record.promised).max(record.floor);
    Decision {
        reply: Reply::Forgotten,
        change: Change::Remove {
            floor: if keep_floor { floor } else { raised },
        },
    }
}

impl Decision {
    fn failed(reason: &str) -> Self {
        Self::only(Reply::Failed {
            reason: reason.to_owned(),
        })
    }

    fn only(reply: Reply) -> Self {
        Self {
            reply,
            change: Change::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::ballot::HlcTime;

    fn ballot(time: u64) -> Ballot {
        Ballot {
            time: HlcTime::from_bits(time),
            incarnation: 1,
        }
    }

    fn state(time: u64) -> State {
        State {
            value: Some(Arc::from(time.to_string())),
            version: ballot(time),
            fence: 0,
            expires_at_ms: None,
            lineage: crate::state::Lineage::default(),
        }
    }

    fn accept(time: u64) -> Request {
        Request::Accept {
            ballot: ballot(time),
            state: state(time),
            blind: false,
            reserve: None,
            hint_for: None,
        }
    }

    /// A node with one key, for tests.
    #[derive(Debug, Clone, Default)]
    struct Node {
        record: Option<Record>,
        floor: Ballot,
    }

    impl Node {
        fn ask(&mut self, request: &Request) -> Reply {
            let decision = decide(self.record.as_ref(), self.floor, request);
            match decision.change {
                Change::Nothing => {}
                Change::Put(record) => self.record = Some(record),
                Change::Remove { floor } => {
                    assert!(floor >= self.floor, "a floor never falls");
                    self.record = None;
                    self.floor = floor;
                }
            }
            decision.reply
        }
    }

    #[test]
    fn an_equal_ballot_is_not_promised_twice() {
        let mut node = Node::default();
        assert!(matches!(
            node.ask(&Request::Prepare { ballot: ballot(5) }),
            Reply::Promised(_)
        ));
        assert_eq!(
            node.ask(&Request::Prepare { ballot: ballot(5) }),
            Reply::Refused { higher: ballot(5) }
        );
        assert_eq!(node.ask(&accept(4)), Reply::Refused { higher: ballot(5) });
        assert_eq!(node.ask(&accept(5)), Reply::Accepted { reserved: false });
        assert_eq!(
            node.ask(&Request::Prepare { ballot: ballot(5) }),
            Reply::Refused { higher: ballot(5) }
        );
    }

    #[test]
    fn a_repeated_accept_is_one_accept_and_another_state_is_corruption() {
        let mut node = Node::default();
        assert_eq!(node.ask(&accept(5)), Reply::Accepted { reserved: false });
        assert_eq!(node.ask(&accept(5)), Reply::Accepted { reserved: false });
        let other = Request::Accept {
            ballot: ballot(5),
            state: state(6),
            blind: false,
            reserve: None,
            hint_for: None,
        };
        assert_eq!(node.ask(&other), Reply::Corrupt { ballot: ballot(5) });
        assert_eq!(
            node.ask(&Request::Install {
                ballot: ballot(5),
                state: state(6)
            }),
            Reply::Corrupt { ballot: ballot(5) }
        );
    }

    #[test]
    fn what_was_forgotten_never_comes_back() {
        let mut node = Node::default();
        node.ask(&Request::Prepare { ballot: ballot(7) });
        node.ask(&accept(7));
        assert_eq!(node.ask(&Request::Forget { ballot: ballot(6) }), Reply::Forgotten);
        assert!(
            node.record.is_some(),
            "it holds something newer than was asked to forget"
        );
        node.ask(&Request::Forget { ballot: ballot(7) });
        assert_eq!((node.record.as_ref(), node.floor), (None, ballot(7)));
        assert_eq!(node.ask(&accept(7)), Reply::Refused { higher: ballot(7) });
        assert_eq!(
            node.ask(&Request::Install {
                ballot: ballot(7),
                state: state(7)
            }),
            Reply::Installed
        );
        assert_eq!(node.record, None);
        let Reply::Promised(held) = node.ask(&Request::Prepare { ballot: ballot(9) }) else {
            panic!("above the floor")
        };
        assert_eq!(
            held.floor,
            ballot(7),
            "a promise does not hide that something was dropped"
        );
        node.ask(&Request::Install {
            ballot: ballot(6),
            state: state(6),
        });
        assert!(
            node.record.as_ref().unwrap().accepted.is_zero(),
            "a late install stays below the record's own floor"
        );
    }

    #[test]
    fn an_install_passes_a_promise_and_keeps_it() {
        let mut node = Node::default();
        node.ask(&Request::Prepare { ballot: ballot(9) });
        node.ask(&Request::Install {
            ballot: ballot(5),
            state: state(5),
        });
        let record = node.record.clone().unwrap();
        assert_eq!((record.accepted, record.promised), (ballot(5), ballot(9)));
        assert_eq!(node.ask(&accept(8)), Reply::Refused { higher: ballot(9) });
    }

    #[test]
    fn a_reservation_is_a_promise_and_is_not_granted_over_another() {
        let reserve = |to| Request::Accept {
            ballot: ballot(5),
            state: state(5),
            blind: false,
            reserve: Some(ballot(to)),
            hint_for: None,
        };
        let mut node = Node::default();
        assert_eq!(node.ask(&reserve(6)), Reply::Accepted { reserved: true });
        assert_eq!(
            node.ask(&Request::Prepare { ballot: ballot(6) }),
            Reply::Refused { higher: ballot(6) }
        );
        assert!(matches!(
            node.ask(&Request::Prepare { ballot: ballot(8) }),
            Reply::Promised(_)
        ));
        assert_eq!(
            node.ask(&reserve(6)),
            Reply::Accepted { reserved: false },
            "8 was promised meanwhile"
        );
    }

    #[test]
    fn a_blind_write_does_not_pass_a_fence_it_does_not_know() {
        let mut node = Node::default();
        let mut fenced = state(5);
        fenced.fence = 3;
        node.ask(&Request::Accept {
            ballot: ballot(5),
            state: fenced,
            blind: false,
            reserve: None,
            hint_for: None,
        });
        let blind = Request::Accept {
            ballot: ballot(6),
            state: state(6),
            blind: true,
            reserve: None,
            hint_for: None,
        };
        assert_eq!(node.ask(&blind), Reply::Fenced { fence: 3 });
        assert_eq!(node.record.as_ref().unwrap().accepted, ballot(5));
    }

    fn request() -> impl Strategy<Value = Request> {
        let time = 1..12_u64;
        prop_oneof![
            Just(Request::Read),
            time.clone().prop_map(|t| Request::Prepare { ballot: ballot(t) }),
            time.clone().prop_map(accept),
            (time.clone(), 0..3_u64).prop_map(|(t, more)| Request::Accept {
                ballot: ballot(t),
                state: state(t),
                blind: true,
                reserve: Some(ballot(t + 1 + more)),
                hint_for: Some(Arc::from("home")),
            }),
            time.clone().prop_map(|t| Request::Install {
                ballot: ballot(t),
                state: state(t)
            }),
            time.prop_map(|t| Request::Forget { ballot: ballot(t) }),
        ]
    }

    proptest! {
        /// Whatever arrives in whatever order: nothing falls, a promise binds, what was dropped stays dropped, and every message sent
        /// a second time changes nothing more.
        #[test]
        fn promises_bind_and_nothing_falls(requests in proptest::collection::vec(request(), 1..60)) {
            let mut node = Node::default();
            for request in &requests {
                let before = node.clone();
                let reply = node.ask(request);
                prop_assert!(node.floor >= before.floor);
                if let (Some(old), Some(new)) = (&before.record, &node.record) {
                    prop_assert!(new.accepted >= old.accepted && new.promised >= old.promised);
                    prop_assert_eq!(new.floor, old.floor);
                }
                if let Some(record) = &node.record {
                    prop_assert_eq!(record.accepted.is_zero(), record.state.is_none());
                    prop_assert!(record.accepted.is_zero() || record.accepted > record.floor, "below the floor it came back");
                }
                match (request, &reply) {
                    (Request::Prepare { ballot }, Reply::Promised(_)) => {
                        let old = before.record.as_ref();
                        prop_assert!(*ballot > old.map_or(before.floor, |r| r.promised.max(r.accepted)));
                    }
                    (Request::Accept { ballot, .. }, Reply::Accepted { .. }) => {
                        let old = before.record.as_ref();
                        prop_assert!(old.is_none_or(|r| r.accepted == *ballot || r.promised <= *ballot));
                        prop_assert_eq!(node.record.as_ref().map(|r| r.accepted), Some(*ballot));
                    }
                    (_, Reply::Refused { .. } | Reply::Fenced { .. } | Reply::Corrupt { .. } | Reply::Holds(_)) => {
                        prop_assert_eq!(&node.record, &before.record);
                    }
                    _ => {}
                }
                let once = node.clone();
                node.ask(request);
                prop_assert_eq!((&node.record, node.floor), (&once.record, once.floor), "a repeated message changed something");
            }
        }
    }
}
