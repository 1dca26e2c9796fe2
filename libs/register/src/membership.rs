//! Which nodes vote: the first start of a cluster, and a node whose disk was lost or went back in time.
//!
//! A node that has lost its database has broken its promises, and nobody can see that from the node itself: an empty database looks the
//! same at a cluster's first start. So nodes remember each other ([`Peer`]): under which incarnation a node votes, and how far its commits
//! had got. Coordinators carry that memory around; nodes do not know each other. A node with a new database is *blank* and counts for
//! nothing until a coordinator has asked the others what they remember:
//!
//! - nobody remembers it: it is new. The others are told to remember it *first*, then it is admitted and votes.
//! - they remember another incarnation, or more commits than it has: its disk was lost, or is an old copy. It is *filled*: it gets a floor
//!   above any ballot it can have promised; the other nodes raise their floors to it, so that nothing that counted on the lost answers can
//!   be chosen any more ([`NodeRequest::Raise`]); each key that any of them holds is committed again above that floor and given to the node
//!   ([`crate::refill`]); then it votes again.
//!
//! A node whose process ended and began again may have been given an old copy of its disk meanwhile. It has [`Standing::Returned`] until its
//! commit number was compared, which takes one exchange. An old copy is seen when it is older than what the others, or the coordinator
//! that admits it, remember; coordinators refresh that memory every few seconds. While it was being filled nobody remembered its commits,
//! though it counted for the keys that were there already: whoever begins with such a disk is blank again, and filled from the start.
//!
//! [`plan`] is what a coordinator does about all this: a pure function of what the nodes said, run again and again until it has nothing
//! more to say. Every request may be lost, repeated, late, or sent by several coordinators.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ballot::Ballot;
use crate::teeth::{Tooth, bites};

/// Names a ring: nodes, their number of copies, how keys are spread. Coordinators and nodes of different rings refuse each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// Whether a node counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Standing {
    /// Its database is new, and nobody has said yet what that means. It takes part in nothing.
    #[default]
    Blank,
    /// Its disk was lost. It counts only for keys whose record was accepted above this ballot.
    Filling {
        /// Above any ballot it can have promised or accepted before.
        above: Ballot,
    },
    /// Its process has ended and begun again, and nobody has said yet whether its disk is still the newest: it may be an old copy. It
    /// takes part in nothing until a coordinator has compared its commit number with what the others remember, and admits it.
    Returned,
    /// It counts.
    Voting,
}

/// What is remembered of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Its name in the ring.
    pub name: Arc<str>,
    /// How often it began anew; 1 at the first start. Of two memories the higher generation is the newer one.
    pub generation: u64,
    /// The random number it drew when it began.
    pub incarnation: u64,
    /// It had come at least this far.
    pub commit: u64,
}

/// What a node keeps of itself, durably.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// See [`Peer::generation`]; 0 while it is new.
    pub generation: u64,
    /// Drawn when the database was made, and again when it is to be filled.
    pub incarnation: u64,
    /// Whether it counts.
    pub standing: Standing,
    /// The ring it was admitted to.
    pub epoch: Option<Epoch>,
    /// Nothing dropped is above it.
    pub floor: Ballot,
    /// Number of its last commit.
    pub commit: u64,
    /// Whom it remembers.
    pub peers: Vec<Peer>,
}

impl NodeStatus {
    /// The node as its shell has to take it up when its process begins with this in the database: one that voted has [`Standing::Returned`]
    /// until it is admitted again. One that was being filled is [`Standing::Blank`], as if its disk had been lost once more: the disk may
    /// be a copy from the middle of a filling, older than promises made since, and there is no commit number to see that by.
    #[must_use]
    pub fn after_restart(self) -> Self {
        match self.standing {
            Standing::Voting if !bites(Tooth::OldDiskVotes) => Self {
                standing: Standing::Returned,
                ..self
            },
            // It keeps its generation, by which it is told from a node that is new.
            Standing::Filling { .. } => Self {
                standing: Standing::Blank,
                ..self
            },
            _ => self,
        }
    }
}

/// A question or order to a node about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRequest {
    /// How are you?
    Status,
    /// Remember these, unless something newer is remembered.
    Remember {
        /// Whom.
        peers: Vec<Peer>,
    },
    /// To a blank or returned node of this incarnation: vote.
    Admit {
        /// Of which incarnation.
        incarnation: u64,
        /// The commit number it showed, which was compared: when it has less, its disk was put back to an older copy since.
        commit: u64,
    },
    /// To a node of this incarnation: your disk was lost; begin anew.
    Refill {
        /// Of which incarnation.
        incarnation: u64,
        /// Only if its commit number is below this: it may have got on since it was suspected.
        if_commit_below: Option<u64>,
        /// Its next generation.
        generation: u64,
        /// Its new floor.
        above: Ballot,
    },
    /// Raise your floor to this, and drop promises up to it.
    Raise {
        /// The floor.
        floor: Ballot,
    },
    /// To a node of this incarnation that is being filled above this ballot: all keys are there; drop what is older, and vote.
    Vote {
        /// Of which incarnation.
        incarnation: u64,
        /// The ballot it was filled above.
        above: Ballot,
    },
}

/// What a node does about a [`NodeRequest`], in one durable transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDecision {
    /// False when the request does not fit the node, and nothing changes.
    pub done: bool,
    /// The node after it; none when nothing changes.
    pub status: Option<NodeStatus>,
    /// Records to drop.
    pub drop: DropRecords,
}

/// Records that a [`NodeDecision`] drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropRecords {
    /// None.
    None,
    /// Those that hold nothing accepted, and a promise not above this.
    Promises {
        /// Not above this.
        up_to: Ballot,
    },
    /// Those whose accepted ballot is not above this, and mere promises.
    Accepted {
        /// Not above this.
        up_to: Ballot,
    },
}

impl DropRecords {
    /// Whether a record is one of those.
    #[must_use]
    pub fn drops(self, accepted: Ballot, promised: Ballot) -> bool {
        match self {
            Self::None => false,
            Self::Promises { up_to } => accepted.is_zero() && promised <= up_to,
            Self::Accepted { up_to } => accepted <= up_to,
        }
    }
}

/// Decides one request. `fresh_incarnation` is a random number that is used when the node has to begin anew; `epoch` the sender's ring.
#[must_use]
pub fn decide(node: &NodeStatus, request: &NodeRequest, fresh_incarnation: u64, epoch: Epoch) -> NodeDecision {
    let changed = |status: NodeStatus| NodeDecision {
        done: true,
        status: (status != *node).then_some(status),
        drop: DropRecords::None,
    };
    let refused = NodeDecision {
        done: false,
        status: None,
        drop: DropRecords::None,
    };
    match request {
        NodeRequest::Status => changed(node.clone()),
        NodeRequest::Remember { peers } => changed(NodeStatus {
            peers: remember(&node.peers, peers),
            ..node.clone()
        }),
        NodeRequest::Admit { incarnation, commit } => match node.standing {
            Standing::Blank | Standing::Returned if node.incarnation == *incarnation && node.commit >= *commit => {
                changed(NodeStatus {
                    generation: node.generation.max(1),
                    standing: Standing::Voting,
                    epoch: Some(epoch),
                    ..node.clone()
                })
            }
            // Said before.
            Standing::Voting if node.incarnation == *incarnation => changed(node.clone()),
            _ => refused,
        },
        NodeRequest::Refill {
            incarnation,
            if_commit_below,
            generation,
            above,
        } => {
            let behind = if_commit_below.is_none_or(|commit| node.commit < commit);
            if node.incarnation != *incarnation || node.generation >= *generation || !behind {
                return refused;
            }
            changed(NodeStatus {
                generation: *generation,
                incarnation: fresh_incarnation,
                standing: if bites(Tooth::LostDiskVotes) {
                    Standing::Voting
                } else {
                    Standing::Filling { above: *above }
                },
                epoch: Some(epoch),
                floor: if bites(Tooth::LostDiskVotes) {
                    node.floor
                } else {
                    node.floor.max(*above)
                },
                ..node.clone()
            })
        }
        NodeRequest::Raise { floor } => {
            if bites(Tooth::RefillWithoutFloor) {
                return changed(node.clone());
            }
            NodeDecision {
                drop: DropRecords::Promises { up_to: *floor },
                ..changed(NodeStatus {
                    floor: node.floor.max(*floor),
                    ..node.clone()
                })
            }
        }
        NodeRequest::Vote { incarnation, above } => match node.standing {
            Standing::Filling { above: mine } if node.incarnation == *incarnation && mine == *above => NodeDecision {
                drop: DropRecords::Accepted { up_to: *above },
                ..changed(NodeStatus {
                    standing: Standing::Voting,
                    floor: node.floor.max(*above),
                    ..node.clone()
                })
            },
            Standing::Voting if node.incarnation == *incarnation => changed(node.clone()),
            _ => refused,
        },
    }
}

/// What is remembered after being told `news`: of each name the newest.
fn remember(known: &[Peer], news: &[Peer]) -> Vec<Peer> {
    let mut known = known.to_vec();
    for peer in news {
        match known.iter_mut().find(|old| old.name == peer.name) {
            None => known.push(peer.clone()),
            Some(old) if old.generation < peer.generation => old.clone_from(peer),
            Some(old) if old.generation == peer.generation && old.incarnation == peer.incarnation => {
                old.commit = old.commit.max(peer.commit);
            }
            // Older news, or a name clash that `plan` settles by a new generation.
            Some(_) => {}
        }
    }
    known.sort_by(|a, b| a.name.cmp(&b.name));
    known
}

/// A node as a coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name in the ring.
    pub name: Arc<str>,
    /// What it last said of itself; none when it does not answer.
    pub status: Option<NodeStatus>,
}

impl Seen {
    fn peer(&self, status: &NodeStatus) -> Peer {
        Peer {
            name: Arc::clone(&self.name),
            generation: status.generation.max(1),
            incarnation: status.incarnation,
            commit: status.commit,
        }
    }
}

/// What to say to which node (by its place in `nodes`), so that blank nodes are admitted, lost disks are seen, and nodes remember each
/// other. Said again until nothing is left to say; nodes that are being filled are left to the filling.
///
/// `may_be_missing` is how many nodes may be away while every key still has a quorum. `above` is the floor of a node whose disk was lost:
/// above any ballot that can have been drawn by now.
#[must_use]
pub fn plan(nodes: &[Seen], may_be_missing: usize, above: Ballot) -> Vec<(usize, NodeRequest)> {
    let mut said = Vec::new();
    for (place, seen) in nodes.iter().enumerate() {
        let Some(status) = &seen.status else { continue };
        let me = seen.peer(status);
        let memories: Vec<&Peer> = others(nodes, place)
            .filter_map(|(_, other)| other.status.as_ref())
            .flat_map(|other| other.peers.iter().filter(|peer| peer.name == seen.name))
            .collect();
        if let Some(refill) = lost(status, &me, &memories, above) {
            said.push((place, refill));
            continue;
        }
        // Those that may be lost together with a new node must not be all that remember it: nobody would know that it had ever voted.
        let witnesses = match status.standing {
            Standing::Blank => may_be_missing.max(1),
            _ => 1,
        };
        match status.standing {
            Standing::Blank | Standing::Returned if nodes.len() == 1 || memories.len() >= witnesses => said.push((
                place,
                NodeRequest::Admit {
                    incarnation: status.incarnation,
                    commit: status.commit,
                },
            )),
            Standing::Blank | Standing::Returned
                if memories.is_empty() && !is_certainly_new(nodes, place, may_be_missing) => {}
            Standing::Filling { .. } => {}
            Standing::Blank | Standing::Returned | Standing::Voting => {
                let forgetful = others(nodes, place).filter(|(_, other)| {
                    let known = other.status.as_ref();
                    known.is_some_and(|known| !known.peers.contains(&me))
                });
                said.extend(forgetful.map(|(other, _)| {
                    (
                        other,
                        NodeRequest::Remember {
                            peers: vec![me.clone()],
                        },
                    )
                }));
            }
        }
    }
    said
}

fn others(nodes: &[Seen], place: usize) -> impl Iterator<Item = (usize, &Seen)> {
    nodes.iter().enumerate().filter(move |(other, _)| *other != place)
}

/// The order to begin anew, when the others remember more of a node than it does itself.
fn lost(status: &NodeStatus, me: &Peer, memories: &[&Peer], above: Ballot) -> Option<NodeRequest> {
    let newest = memories.iter().map(|peer| peer.generation).max();
    // Its filling was cut off: whether anybody remembers it or not, it is not new.
    let half_filled = status.standing == Standing::Blank && status.generation > 0;
    let another = memories.iter().any(|peer| {
        peer.generation > me.generation || peer.generation == me.generation && peer.incarnation != me.incarnation
    });
    let refill = |if_commit_below| NodeRequest::Refill {
        incarnation: status.incarnation,
        if_commit_below,
        generation: newest.unwrap_or_default().max(status.generation) + 1,
        above,
    };
    if another || half_filled {
        return Some(refill(None));
    }
    let commit = memories
        .iter()
        .filter(|peer| peer.generation == me.generation)
        .map(|peer| peer.commit)
        .max()?;
    // While it is being filled nothing it held before counts. A blank one may be a copy from before it was first admitted.
    let went_back = !matches!(status.standing, Standing::Filling { .. }) && status.commit < commit;
    went_back.then(|| refill(Some(commit)))
}

/// Whether a blank node that nobody remembers cannot have voted before: either every other node has said so, or this is a cluster's first
/// start, where a quorum of everything is blank. (A quorum of disks lost at once is data lost, whatever one does.)
fn is_certainly_new(nodes: &[Seen], place: usize, may_be_missing: usize) -> bool {
    let all_answered = others(nodes, place).all(|(_, other)| other.status.is_some());
    let silent = nodes.iter().filter(|seen| seen.status.is_none()).count();
    let blank = |seen: &Seen| {
        let standing = seen.status.as_ref().map(|status| status.standing);
        standing.is_none_or(|standing| standing == Standing::Blank)
    };
    all_answered || silent <= may_be_missing && nodes.iter().all(blank)
}
