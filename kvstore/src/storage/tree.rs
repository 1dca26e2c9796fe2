//! The node's hash tree, kept up by the writer and shared with those who compare replicas.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use register::hashing::HashTree;
use register::{Ballot, Key};
use rusqlite::Connection;

use super::rows;

/// The tree. Its mutex is held for memory operations only.
#[derive(Debug, Default)]
pub(crate) struct SharedTree(Mutex<HashTree>);

impl SharedTree {
    /// Builds the tree from all records of the database.
    pub(crate) fn rebuild(&self, connection: &Connection) -> rusqlite::Result<()> {
        let started = Instant::now();
        let mut tree = HashTree::default();
        let mut records = 0_u64;
        rows::each_accepted(connection, |key, accepted| {
            tree.change(key, Ballot::ZERO, accepted);
            records += 1;
        })?;
        tracing::info!(
            records,
            milliseconds = started.elapsed().as_millis(),
            "the hash tree was built"
        );
        self.replace(tree);
        Ok(())
    }

    /// Notes changes: a key, the ballot that was accepted, and the one that is.
    pub(crate) fn change<'a>(&self, changes: impl Iterator<Item = (&'a Key, Ballot, Ballot)>) {
        let mut tree = self.lock();
        for (key, before, after) in changes {
            tree.change(key, before, after);
        }
    }

    /// Another tree takes its place.
    pub(crate) fn replace(&self, tree: HashTree) {
        *self.lock() = tree;
    }

    /// The tree as it is (half a megabyte).
    pub(crate) fn copy(&self) -> HashTree {
        self.lock().clone()
    }

    /// The root of every partition; or the leaves of some, in their order.
    pub(crate) fn hashes(&self, partitions: Option<&[u16]>) -> Vec<u64> {
        let tree = self.lock();
        match partitions {
            None => tree.roots(),
            Some(partitions) => partitions
                .iter()
                .flat_map(|partition| tree.leaves(usize::from(*partition)))
                .copied()
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashTree> {
        // Sums in place; the writer rebuilds them should it panic on the way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
