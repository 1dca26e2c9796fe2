use super::*;
use crate::ballot::HlcTime;

const EPOCH: Epoch = Epoch(7);

fn above() -> Ballot {
    Ballot {
        time: HlcTime::from_unix_ms(9_000),
        incarnation: 0,
    }
}

/// Some nodes; those that are `up` take part.
struct Cluster {
    nodes: Vec<NodeStatus>,
    up: Vec<bool>,
    drawn: u64,
}

impl Cluster {
    fn new(count: usize) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            up: vec![true; count],
            drawn: 0,
        };
        for _ in 0..count {
            let node = cluster.blank();
            cluster.nodes.push(node);
        }
        cluster
    }

    fn blank(&mut self) -> NodeStatus {
        self.drawn += 1;
        NodeStatus {
            incarnation: self.drawn,
            ..NodeStatus::default()
        }
    }

    fn seen(&self) -> Vec<Seen> {
        let seen = |(place, node): (usize, &NodeStatus)| Seen {
            name: format!("n{place}").into(),
            status: self.up[place].then(|| node.clone()),
        };
        self.nodes.iter().enumerate().map(seen).collect()
    }

    /// Plans and does until there is nothing to do; `lost` of the messages are lost.
    fn settle(&mut self, lost: impl Fn(usize) -> bool) {
        for round in 0..20 {
            let plan = plan(&self.seen(), 1, above());
            if plan.is_empty() {
                return;
            }
            for (i, (place, request)) in plan.into_iter().enumerate() {
                self.drawn += 1;
                if !lost(round + i) || round > 10 {
                    self.say(place, &request);
                }
            }
        }
        panic!("no end: {:#?}", self.nodes);
    }

    fn say(&mut self, place: usize, request: &NodeRequest) -> bool {
        let decision = decide(&self.nodes[place], request, self.drawn, EPOCH);
        if let Some(status) = decision.status {
            self.nodes[place] = status;
        }
        decision.done
    }

    fn standing(&self) -> Vec<Standing> {
        self.nodes.iter().map(|node| node.standing).collect()
    }
}

const FILLING: fn() -> Standing = || Standing::Filling { above: above() };

#[test]
fn a_first_start_admits_everybody_and_they_remember_each_other() {
    for lossy in [false, true] {
        let mut cluster = Cluster::new(3);
        cluster.settle(|i| lossy && i % 2 == 0);
        assert_eq!(cluster.standing(), [Standing::Voting; 3]);
        assert!(
            cluster
                .nodes
                .iter()
                .all(|node| node.peers.len() == 2 && node.generation == 1)
        );
        assert!(cluster.nodes.iter().all(|node| node.epoch == Some(EPOCH)));
    }
}

#[test]
fn a_first_start_does_not_wait_for_one_node_of_three_but_for_two() {
    let mut cluster = Cluster::new(3);
    cluster.up = vec![true, false, false];
    cluster.settle(|_| false);
    assert_eq!(cluster.standing(), [Standing::Blank; 3]);
    cluster.up[1] = true;
    cluster.settle(|_| false);
    assert_eq!(
        cluster.standing(),
        [Standing::Voting, Standing::Voting, Standing::Blank]
    );
    cluster.up[2] = true;
    cluster.settle(|_| false);
    assert_eq!(cluster.standing(), [Standing::Voting; 3]);
}

#[test]
fn a_node_is_remembered_before_it_votes() {
    let mut cluster = Cluster::new(3);
    let first = plan(&cluster.seen(), 1, above());
    assert!(
        first
            .iter()
            .all(|(_, request)| matches!(request, NodeRequest::Remember { .. }))
    );
    // Only one node hears of node 0; that is enough for it, and for nobody else.
    let (to, of_zero) = first.into_iter().find(|(to, _)| *to != 0).unwrap();
    cluster.say(to, &of_zero);
    let admitted: Vec<_> = plan(&cluster.seen(), 1, above())
        .into_iter()
        .filter(|(_, request)| matches!(request, NodeRequest::Admit { .. }))
        .collect();
    assert_eq!(
        admitted,
        [(
            0,
            NodeRequest::Admit {
                incarnation: 1,
                commit: 0
            }
        )]
    );
}

/// Two of five could otherwise lose their disks together, and be taken for new ones although both had voted.
#[test]
fn a_new_node_is_admitted_once_as_many_remember_it_as_may_be_lost() {
    let mut cluster = Cluster::new(5);
    (cluster.up[3], cluster.up[4]) = (false, false);
    let plan = |cluster: &Cluster| plan(&cluster.seen(), 2, above());
    let of_first = |said: &(usize, NodeRequest)| match &said.1 {
        NodeRequest::Admit { .. } => said.0 == 0,
        NodeRequest::Remember { peers } => &*peers[0].name == "n0",
        _ => false,
    };
    for witness in 1..=2 {
        let said: Vec<_> = plan(&cluster).into_iter().filter(of_first).collect();
        assert_eq!(said.len(), 3 - witness, "whoever does not know of it is told: {said:?}");
        assert!(said.iter().all(|(place, _)| *place >= witness));
        assert!(cluster.say(said[0].0, &said[0].1));
    }
    let said: Vec<_> = plan(&cluster).into_iter().filter(of_first).collect();
    assert!(matches!(said[..], [(0, NodeRequest::Admit { .. })]), "{said:?}");
}

#[test]
fn a_lost_disk_is_seen_while_one_other_remembers_and_the_node_is_filled() {
    for silent in [None, Some(1), Some(2)] {
        let mut cluster = Cluster::new(3);
        cluster.settle(|_| false);
        let before = cluster.nodes[0].clone();
        cluster.nodes[0] = cluster.blank();
        if let Some(silent) = silent {
            cluster.up[silent] = false;
        }
        cluster.settle(|_| false);
        assert_eq!(cluster.standing(), [FILLING(), Standing::Voting, Standing::Voting]);
        assert_eq!((cluster.nodes[0].generation, cluster.nodes[0].floor), (2, above()));
        // What was said to the one before is not taken for the one after.
        assert!(!cluster.say(
            0,
            &NodeRequest::Admit {
                incarnation: before.incarnation,
                commit: 0,
            }
        ));
        assert!(!cluster.say(
            0,
            &NodeRequest::Vote {
                incarnation: before.incarnation,
                above: above()
            }
        ));
        let incarnation = cluster.nodes[0].incarnation;
        assert!(!cluster.say(
            0,
            &NodeRequest::Vote {
                incarnation,
                above: Ballot::ZERO
            }
        ));
        assert!(cluster.say(
            0,
            &NodeRequest::Vote {
                incarnation,
                above: above()
            }
        ));
        cluster.up = vec![true; 3];
        cluster.settle(|_| false);
        assert_eq!(
            cluster.standing(),
            [Standing::Voting; 3],
            "the others learn of the new incarnation"
        );
        assert!(cluster.nodes[1].peers.iter().any(|peer| peer.generation == 2));
    }
}

#[test]
fn an_unremembered_node_waits_for_everybody_once_the_cluster_has_begun() {
    let mut cluster = Cluster::new(3);
    cluster.settle(|_| false);
    // Node 0 loses its disk, and the only one that remembers it is away: nobody can tell.
    cluster.nodes[2].peers.retain(|peer| &*peer.name != "n0");
    cluster.nodes[0] = cluster.blank();
    cluster.up = vec![true, false, true];
    cluster.settle(|_| false);
    assert_eq!(cluster.nodes[0].standing, Standing::Blank);
}

#[test]
fn a_disk_that_went_back_in_time_is_filled_unless_it_has_got_on_meanwhile() {
    let mut cluster = Cluster::new(3);
    cluster.settle(|_| false);
    cluster.nodes[0].commit = 100;
    cluster.settle(|_| false);
    assert!(cluster.nodes[1].peers.iter().any(|peer| peer.commit == 100));
    cluster.nodes[0].commit = 60;
    let plan = plan(&cluster.seen(), 1, above());
    let (place, refill) = plan.first().cloned().unwrap();
    assert_eq!(place, 0);
    cluster.nodes[0].commit = 100;
    assert!(
        !cluster.say(0, &refill),
        "the answer that looked like going back was only older"
    );
    cluster.nodes[0].commit = 60;
    assert!(cluster.say(0, &refill));
    assert_eq!(cluster.nodes[0].standing, FILLING());
    assert!(!cluster.say(0, &refill), "once is enough");
}

#[test]
fn a_late_admission_is_not_for_the_older_disk_that_was_put_there_since() {
    let mut cluster = Cluster::new(3);
    cluster.settle(|_| false);
    cluster.nodes[0].commit = 100;
    cluster.nodes[0] = cluster.nodes[0].clone().after_restart();
    let admit = NodeRequest::Admit {
        incarnation: cluster.nodes[0].incarnation,
        commit: 100,
    };
    cluster.nodes[0].commit = 99;
    assert!(!cluster.say(0, &admit));
    cluster.nodes[0].commit = 100;
    assert!(cluster.say(0, &admit));
}

#[test]
fn after_a_restart_a_node_votes_once_its_commits_were_compared() {
    let mut cluster = Cluster::new(3);
    cluster.settle(|_| false);
    cluster.nodes[0].commit = 100;
    cluster.settle(|_| false);
    for (commit, standing) in [(100, Standing::Voting), (99, FILLING())] {
        cluster.nodes[0].commit = commit;
        cluster.nodes[0] = cluster.nodes[0].clone().after_restart();
        assert_eq!(cluster.nodes[0].standing, Standing::Returned);
        cluster.up = vec![true, false, false];
        cluster.settle(|_| false);
        assert_eq!(cluster.nodes[0].standing, Standing::Returned, "nobody to ask");
        cluster.up[1] = true;
        cluster.settle(|_| false);
        assert_eq!(cluster.nodes[0].standing, standing);
    }
    // All at once.
    let mut cluster = Cluster::new(3);
    cluster.settle(|_| false);
    cluster.nodes = cluster.nodes.into_iter().map(NodeStatus::after_restart).collect();
    cluster.settle(|_| false);
    assert_eq!(cluster.standing(), [Standing::Voting; 3]);
}

#[test]
fn an_old_copy_of_an_earlier_generation_is_seen() {
    let mut cluster = Cluster::new(3);
    cluster.settle(|_| false);
    let old = cluster.nodes[0].clone();
    cluster.nodes[0] = cluster.blank();
    cluster.settle(|_| false);
    let incarnation = cluster.nodes[0].incarnation;
    cluster.say(
        0,
        &NodeRequest::Vote {
            incarnation,
            above: above(),
        },
    );
    cluster.settle(|_| false);
    cluster.nodes[0] = old;
    cluster.settle(|_| false);
    assert_eq!(cluster.nodes[0].standing, FILLING());
    assert_eq!(cluster.nodes[0].generation, 3);
}

#[test]
fn a_copy_from_before_it_was_admitted_is_an_old_copy() {
    let mut cluster = Cluster::new(3);
    let old = cluster.nodes[0].clone();
    cluster.settle(|_| false);
    cluster.nodes[0].commit = 100;
    cluster.settle(|_| false);
    cluster.nodes[0] = old.after_restart();
    cluster.settle(|_| false);
    assert_eq!(cluster.nodes[0].standing, FILLING());
}

#[test]
fn a_node_that_ends_while_it_is_filled_is_filled_from_the_start() {
    let mut cluster = Cluster::new(3);
    cluster.settle(|_| false);
    cluster.nodes[0] = cluster.blank();
    cluster.settle(|_| false);
    let filling = cluster.nodes[0].clone();
    let vote = NodeRequest::Vote {
        incarnation: filling.incarnation,
        above: above(),
    };
    // A disk from the middle of the filling, put back in the middle of it, or after it, when all know the new incarnation.
    for voted in [false, true] {
        cluster.nodes[0] = filling.clone();
        if voted {
            assert!(cluster.say(0, &vote));
            cluster.settle(|_| false);
        }
        cluster.nodes[0] = filling.clone().after_restart();
        assert_eq!(cluster.nodes[0].standing, Standing::Blank);
        assert!(!cluster.say(0, &vote), "late");
        cluster.settle(|_| false);
        assert_eq!(cluster.nodes[0].standing, FILLING());
        assert_ne!(cluster.nodes[0].incarnation, filling.incarnation);
        assert!(!cluster.say(0, &vote), "late");
        let remembered = cluster.nodes[1].peers.iter().find(|peer| &*peer.name == "n0").unwrap();
        assert!(cluster.nodes[0].generation > remembered.generation);
    }
}

#[test]
fn a_half_filled_node_that_nobody_remembers_is_not_new() {
    let mut cluster = Cluster::new(3);
    cluster.settle(|_| false);
    cluster.nodes[0] = cluster.blank();
    cluster.settle(|_| false);
    // As when all nodes have got other names.
    cluster.nodes.iter_mut().for_each(|node| node.peers.clear());
    cluster.nodes = cluster.nodes.into_iter().map(NodeStatus::after_restart).collect();
    cluster.settle(|_| false);
    assert_eq!(cluster.standing(), [FILLING(), Standing::Voting, Standing::Voting]);
}

#[test]
fn a_lone_node_admits_itself() {
    let mut cluster = Cluster::new(1);
    cluster.settle(|_| false);
    assert_eq!(cluster.standing(), [Standing::Voting]);
}

#[test]
fn what_is_dropped() {
    let (low, high) = (
        Ballot {
            incarnation: 1,
            ..Ballot::ZERO
        },
        above(),
    );
    let promises = DropRecords::Promises { up_to: low };
    assert!(promises.drops(Ballot::ZERO, low));
    assert!(!promises.drops(Ballot::ZERO, high) && !promises.drops(low, low));
    let accepted = DropRecords::Accepted { up_to: low };
    assert!(accepted.drops(low, high) && accepted.drops(Ballot::ZERO, high));
    assert!(!accepted.drops(high, high) && !DropRecords::None.drops(low, low));
}
