//! What is answered without the writer: records, pages, hashes, changes.

use std::sync::Arc;
use std::time::Duration;

use register::message::{List, Reply, Request};
use register::scan::ScanRange;
use register::{Ballot, Key, Standing, acceptor};

use super::feed::Stretch;
use super::rows::Stored;
use super::view::Known;
use super::{Page, ScanPage, Store, StoreError};

/// A record and the floor to tell when there is none.
type RecordResult = Result<(Option<Arc<Stored>>, Ballot), StoreError>;

impl Store {
    /// What a coordinator is told of keys, in their order: from memory, else from the database, as the node's standing allows. Never waits
    /// for the writer. A record that cannot be read fails its key alone.
    pub async fn read(&self, keys: &[Key]) -> Vec<Reply> {
        let failed = |reason: String| Reply::Failed { reason };
        let (standing, records) = self.read_records(keys).await;
        let Some(standing) = standing else {
            let reason = "this node's standing changed while it was reading; ask again";
            return vec![failed(reason.to_owned()); keys.len()];
        };
        let reply = |found| match found {
            Ok((stored, floor)) => {
                let stored: Option<Arc<Stored>> = stored;
                let record = stored.as_deref().map(|stored| &stored.record);
                acceptor::decide_as(standing, record, floor, &Request::Read).reply
            }
            Err(error) => failed(StoreError::to_string(&error)),
        };
        records.into_iter().map(reply).collect()
    }

    /// The records of keys, in their order; with each the floor to tell when there is none (from a cached record nobody needs it). The
    /// standing is that of the moment they are from; none when it changed meanwhile.
    async fn read_records(&self, keys: &[Key]) -> (Option<Standing>, Vec<RecordResult>) {
        let looked = self.view.look_up(keys.iter());
        let found = looked.found;
        let missing: Vec<Key> = keys
            .iter()
            .zip(&found)
            .filter(|(_, found)| matches!(found, Known::AskTable))
            .map(|(key, _)| key.clone())
            .collect();
        let known = |found: Known| match found {
            Known::Record(stored) => Some(Ok((Some(stored), Ballot::ZERO))),
            Known::Dropped => Some(Ok((None, looked.floor))),
            Known::AskTable => None,
        };
        self.metrics.cache_hits.inc_by((keys.len() - missing.len()) as u64);
        self.metrics.cache_misses.inc_by(missing.len() as u64);
        if missing.is_empty() {
            return (looked.standing, found.into_iter().filter_map(known).collect());
        }
        let mut rows = match self.readers.records(missing).await {
            Ok(rows) => rows,
            Err(error) => {
                let record = |found| known(found).unwrap_or_else(|| Err(error.clone()));
                return (looked.standing, found.into_iter().map(record).collect());
            }
        };
        let filled = self.view.fill(looked.ticket, &mut rows);
        self.metrics.show_cache(self.view.cache_size());
        let mut rows = rows.into_iter().map(|(_, row)| row);
        let row_or_gone = |row: Option<Result<_, String>>| match row {
            Some(row) => row.map_err(|reason| StoreError::Failed { reason }),
            None => Err(StoreError::Failed {
                reason: "a row went missing".to_owned(),
            }),
        };
        let records = found
            .into_iter()
            .map(|found| known(found).unwrap_or_else(|| row_or_gone(rows.next()).map(|stored| (stored, filled.floor))))
            .collect();
        (looked.standing.filter(|_| filled.same_standing), records)
    }

    /// The record of one key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn record(&self, key: &Key) -> Result<Option<Arc<Stored>>, StoreError> {
        let (_, mut found) = self.read_records(std::slice::from_ref(key)).await;
        found
            .pop()
            .map_or(Err(StoreError::Closed), |found| found.map(|(stored, _)| stored))
    }

    /// A page of at most `limit` records, ending early when its values grow over [`super::MAX_PAGE_BYTES`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn page(&self, list: List, limit: usize) -> Result<Page, StoreError> {
        self.readers.page(&self.view, list, limit).await
    }

    /// A page of a scan, of at most `limit` records, ending early when it grows over [`super::MAX_PAGE_BYTES`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn scan(&self, range: ScanRange, limit: usize) -> Result<ScanPage, StoreError> {
        self.readers.scan(&self.view, range, limit).await
    }

    /// The root of every partition of the hash tree; or the leaves of some partitions, in their order.
    #[must_use]
    pub fn hashes(&self, partitions: Option<&[u16]>) -> Vec<u64> {
        self.tree.hashes(partitions)
    }

    /// What was accepted after `after_commit` of this incarnation, at most `limit` changes. Waits for something to tell for at most `wait`,
    /// or not at all when too many wait already.
    pub async fn changes(&self, incarnation: u64, after_commit: u64, limit: usize, wait: Duration) -> Stretch {
        let deadline = tokio::time::Instant::now() + wait;
        let (place, mut moved) = (self.feed.place_to_wait(), self.feed.subscribe());
        let mut told = after_commit;
        loop {
            let stopping = *moved.borrow_and_update();
            let stretch = self.feed.stretch(incarnation, told, limit);
            if stopping || place.is_none() || stretch.lost || !stretch.changes.is_empty() {
                return stretch;
            }
            told = stretch.commit;
            match tokio::time::timeout_at(deadline, moved.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return stretch,
            }
        }
    }

    /// Nobody waits for changes any more: the node is stopping.
    pub fn end_waits(&self) {
        self.feed.end_waits();
    }
}
