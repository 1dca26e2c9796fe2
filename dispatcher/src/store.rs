//! What the dispatcher needs of the KV, as a small trait: batches and scans. [`kv_client::Kv`] is the real one; tests bring
//! one that fails and crashes on command.

use async_trait::async_trait;
use kv_client::{BatchOp, Kv, KvError, OpResult, Page};
use serde_json::Value;

/// The KV as the dispatcher sees it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// As [`Kv::batch`].
    async fn batch(&self, ops: Vec<BatchOp>, ordered: bool) -> Result<Vec<OpResult>, KvError>;

    /// As [`Kv::scan`], in key order.
    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page<Value>, KvError>;
}

#[async_trait]
impl Store for Kv {
    async fn batch(&self, ops: Vec<BatchOp>, ordered: bool) -> Result<Vec<OpResult>, KvError> {
        Self::batch(self, ops, ordered).await
    }

    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page<Value>, KvError> {
        Self::scan(self, prefix, after, limit, false).await
    }
}
