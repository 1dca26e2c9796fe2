//! What coordinators want of the node itself: decided on what is durable, and durable before it is told.
//!
//! None of it takes a commit number: coordinators remember commit numbers, telling them what is remembered must not move them.

use register::Epoch;
use register::Standing;
use register::hashing::HashTree;
use register::membership::{self, DropRecords, NodeRequest, NodeStatus};

use super::job::CommitError;
use super::node_row::{self, NodeRow};
use super::rows;
use super::writer::{Writer, not_written, progress};
use super::{MAX_PEERS, RingError, StoreError};

/// What a transaction dropped.
struct Dropped {
    records: u64,
    hints: u64,
    /// The hash tree without them.
    tree: Option<HashTree>,
}

impl Writer {
    /// Decides one request. The flag is false when it does not fit the node, and changed nothing.
    pub(super) fn decide_node(
        &mut self,
        request: &NodeRequest,
        epoch: Epoch,
    ) -> Result<(bool, NodeStatus), StoreError> {
        let before = self.node.status(&self.peers);
        if let Some(own) = before.epoch.filter(|own| *own != epoch) {
            return Err(RingError { own, sender: epoch }.into());
        }
        let decision = membership::decide(&before, request, rand::random(), epoch);
        let mut after = decision.status.unwrap_or_else(|| before.clone());
        if after.epoch.is_none() && counts(after.standing) {
            // Its database was migrated, or it was told to forget its ring.
            after.epoch = Some(epoch);
        }
        if after.peers.len() > MAX_PEERS {
            let reason = format!("peers: {} to remember; at most {MAX_PEERS} are", after.peers.len());
            return Err(StoreError::Failed { reason });
        }
        if after == before && decision.drop == DropRecords::None {
            return Ok((decision.done, before));
        }
        match self.watched(|writer| writer.commit_node(&after, decision.drop)) {
            Ok(()) => {}
            Err(CommitError::Nothing(reason)) => return Err(StoreError::Failed { reason }),
            Err(CommitError::Unknown(reason)) => return Err(StoreError::Unknown { reason }),
        }
        if (before.standing, before.epoch, before.incarnation) != (after.standing, after.epoch, after.incarnation) {
            tracing::info!(
                standing = ?after.standing,
                generation = after.generation,
                epoch = ?after.epoch,
                incarnation = after.incarnation,
                "this node's place in the cluster has changed"
            );
        }
        Ok((decision.done, after))
    }

    /// Makes the node what `after` says, and drops records, in one transaction; then shows it.
    fn commit_node(&mut self, after: &NodeStatus, drop: DropRecords) -> Result<(), CommitError> {
        let mut node = self.node;
        node.take_over(after);
        node.clock = self.clock_mark(&node);
        (node.log_start, node.log_fresh) = (self.log.next(), self.log.next());
        self.view.begin_node(&progress(&node), drop);
        let dropped = match self.write_node(&mut node, after, drop) {
            Ok(dropped) => dropped,
            Err(error) => {
                self.roll_back();
                self.view.end_node(None);
                return Err(error);
            }
        };
        let began_anew = node.incarnation != self.node.incarnation;
        self.node = node;
        self.peers.clone_from(&after.peers);
        if dropped.records > 0 {
            tracing::info!(
                records = dropped.records,
                hints = dropped.hints,
                ?drop,
                "records were dropped"
            );
        }
        if let Some(tree) = dropped.tree {
            self.tree.replace(tree);
        }
        if began_anew {
            self.clock.set_incarnation(node.incarnation);
            self.feed.reset(node.incarnation, node.commit);
        }
        self.metrics.show_records(node.records, node.hints);
        self.metrics.show_standing(node.standing);
        self.view.end_node(Some(node));
        self.metrics.show_cache(self.view.cache_size());
        Ok(())
    }

    fn write_node(
        &mut self,
        node: &mut NodeRow,
        after: &NodeStatus,
        drop: DropRecords,
    ) -> Result<Dropped, CommitError> {
        self.begin().map_err(not_written)?;
        self.empty_log().map_err(not_written)?;
        let mut dropped = Dropped {
            records: 0,
            hints: 0,
            tree: None,
        };
        if drop != DropRecords::None {
            // Walked first and deleted then: what is dropped may be most of the table, and is not kept in memory.
            let mut tree = self.tree.copy();
            rows::each_dropped(&self.connection, drop, |key, accepted, is_hint| {
                tree.change(key, accepted, register::Ballot::ZERO);
                dropped.hints += u64::from(is_hint);
            })
            .map_err(not_written)?;
            dropped.records = rows::drop_records(&self.connection, drop).map_err(not_written)?;
            dropped.tree = Some(tree);
        }
        node.records = node.records.saturating_sub(dropped.records);
        node.hints = node.hints.saturating_sub(dropped.hints);
        if after.peers != self.peers {
            node_row::write_peers(&self.connection, &after.peers).map_err(not_written)?;
        }
        node.update_all(&self.connection).map_err(not_written)?;
        self.commit_open()?;
        Ok(dropped)
    }
}

/// Whether a node's answers count for anything.
pub(super) fn counts(standing: Standing) -> bool {
    match standing {
        Standing::Voting | Standing::Filling { .. } => true,
        Standing::Blank | Standing::Returned => false,
    }
}
