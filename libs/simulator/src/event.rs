//! What can happen in a world.

use register::membership::{NodeRequest, NodeStatus};
use register::{Ballot, HlcTime, Reply, Request};

use crate::nemesis::{Heal, Nemesis};
use crate::slab::Id;

/// Whom an answer is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) front: u8,
    pub(crate) machine: Id,
}

/// A request on its way to a node.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) node: u8,
    pub(crate) rank: u8,
    pub(crate) key: u16,
    pub(crate) round: u32,
    pub(crate) to: Address,
    /// The same message once more; nobody waits for its answer.
    pub(crate) copy: bool,
    /// The sender's clock.
    pub(crate) clock: HlcTime,
    pub(crate) request: Request,
}

/// What happens. What is large is boxed: most of what happens are timers, and each is moved several times.
#[derive(Debug)]
pub(crate) enum What {
    /// A request reaches a node.
    Arrive(Box<Message>),
    /// A node's writer commits.
    Commit { node: u8, start: u32 },
    /// An answer reaches a coordinator.
    Answer {
        to: Address,
        round: u32,
        rank: u8,
        clock: HlcTime,
        reply: Box<Reply>,
    },
    /// A coordinator learns that no answer will come.
    Fail {
        to: Address,
        round: u32,
        rank: u8,
        delivered: bool,
    },
    /// A coordinator's timer runs out.
    Wake { to: Address, timer: u32 },
    /// A client does what it does next.
    Step { client: u8 },
    /// A client's call reaches a coordinator.
    Called { call: Id, front: u8 },
    /// A coordinator looks after things.
    Background { front: u8, start: u32 },
    /// A machine of a coordinator's background begins.
    Begin { to: Address },
    /// And is given up, if it has not ended by itself.
    GiveUp { to: Address },
    /// A coordinator that has just started asks a node for its clock.
    Hello { front: u8, start: u32, node: u8 },
    /// And is told.
    HelloBack {
        front: u8,
        start: u32,
        node: u8,
        clock: HlcTime,
    },
    /// A coordinator asks all nodes how they are.
    NodePass { front: u8, start: u32 },
    /// A question to a node about itself arrives.
    NodeAsk {
        front: u8,
        start: u32,
        /// The round of asking it belongs to.
        pass: u32,
        node: u8,
        clock: HlcTime,
        request: Box<NodeRequest>,
    },
    /// And its answer.
    NodeTold {
        front: u8,
        start: u32,
        pass: u32,
        node: u8,
        clock: HlcTime,
        raised: Option<Ballot>,
        status: Box<NodeStatus>,
    },
    /// A coordinator makes something of what the nodes said of themselves.
    NodePlan { front: u8, start: u32 },
    /// Something goes wrong.
    Strike(Nemesis),
    /// And is over.
    Heal(Heal),
    /// A node throws away what it thinks is old: only for a tooth.
    SweepByOwnClock { node: u8 },
}
