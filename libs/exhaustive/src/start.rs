//! The first world: what was written before anything is explored, by the real state machines too.

use register::RequestId;
use register::proposer::{Action, memory::MemoryLimits};
use register::proposer::{Consistency, Coordinator, Event, Operation, Outcome, Retry};

use crate::configuration::{FIRST_VALUE, NODES, Start, Verb};
use crate::engine::{EPOCH_MS, Engine};
use crate::history::History;
use crate::node::Node;
use crate::process::{self, key, members};
use crate::world::World;

/// How long ago the first value was written, in milliseconds.
const AGO_MS: u64 = 1_000;
/// The incarnation of the coordinator that wrote it, and the number of its request.
const WRITER: u64 = 9;

pub(crate) fn world(engine: &mut Engine<'_>) -> World {
    let nodes = match engine.plan.start {
        Start::Empty => Default::default(),
        Start::Holding { tombstone, without } => written(tombstone, without),
    };
    let nodes = nodes.map(|node| engine.node(node));
    let reserve = engine.plan.reserve;
    let coordinators = 0..engine.plan.clocks_ahead_ms.len();
    let coordinators: Vec<u32> = coordinators
        .map(|number| engine.coordinators.number(process::coordinator(number, reserve)))
        .collect();
    let history = engine.judged_number(History::default());
    World::new(nodes, &coordinators, history)
}

/// A put (or delete) that did not reach one node.
fn written(tombstone: bool, without: usize) -> [Node; NODES] {
    let verb = if tombstone {
        Verb::Delete
    } else {
        Verb::Put(FIRST_VALUE)
    };
    let retry = Retry::Never(RequestId(WRITER));
    let mut operation = Operation::new(key(), verb.command(), retry, Consistency::Quorum, members(), true);
    let limits = process::coordinator(0, false).limits;
    let mut writer = Coordinator::new(WRITER, 0, limits, 0).with_memory(MemoryLimits::NONE);
    let mut nodes: [Node; NODES] = Default::default();
    let mut actions = operation.handle(&mut writer, EPOCH_MS - AGO_MS, Event::Start);
    while !actions.is_empty() {
        let mut more = Vec::new();
        for action in actions {
            let Action::Send { round, rank, request } = action else {
                if let Action::Done(outcome) = action {
                    assert!(
                        matches!(outcome, Outcome::Answered { .. }),
                        "two of three nodes are enough"
                    );
                }
                continue;
            };
            let event = if rank == without {
                // The spares are asked when a home does not answer.
                Event::Failed {
                    round,
                    rank,
                    delivered: true,
                    reason: String::new(),
                }
            } else {
                let asked = nodes[rank].ask(&request);
                nodes[rank] = asked.node;
                Event::Reply {
                    round,
                    rank,
                    reply: asked.reply,
                }
            };
            more.extend(operation.handle(&mut writer, EPOCH_MS - AGO_MS, event));
        }
        actions = more;
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_that_answered_hold_it() {
        for without in 0..NODES {
            let holds = written(false, without).map(|node| node.accepted().is_some());
            for (rank, holds) in holds.into_iter().enumerate() {
                assert_eq!(holds, rank != without, "n{rank} without n{without}");
            }
        }
    }
}
