//! What every system under test is asked to do. Each call gives success only when the answer is of the right kind and complete.

use std::future::Future;

/// Length of every value, in bytes of JSON text.
pub(crate) const VALUE_BYTES: usize = 256;

/// An operation that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpError {
    /// The connection is of no use any more.
    #[error("connection: {0}")]
    Connection(String),
    /// The system answered that it did not do it.
    #[error("refused: {0}")]
    Refused(String),
    /// The answer is not one to this question.
    #[error("wrong answer: {0}")]
    Wrong(String),
    /// No answer in time.
    #[error("no answer within {} s", crate::worker::OP_TIMEOUT.as_secs())]
    Timeout,
}

impl OpError {
    /// Under which name it is counted.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Connection(_) => "connection",
            Self::Refused(_) => "refused",
            Self::Wrong(_) => "wrong answer",
            Self::Timeout => "timeout",
        }
    }

    /// Whether the next operation needs a new connection: answers to this one may still arrive on the old one.
    pub(crate) fn is_broken(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    pub(crate) fn wrong(what: impl std::fmt::Display) -> Self {
        Self::Wrong(clip(&what.to_string()))
    }
}

impl From<std::io::Error> for OpError {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

/// The beginning of a text, short enough for a line of a report.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(200).collect()
}

/// What became of a conditional change.
#[derive(Debug)]
pub(crate) enum Swap<V> {
    /// It was made; the key's version now.
    Won(V),
    /// Somebody else was first; the number in the value now, and its version.
    Lost(u64, V),
}

/// One connection to a system.
pub(crate) trait Client: Sized + Send + 'static {
    /// What a conditional change compares: each system's own.
    type Version: Send + Sync;

    /// Reads a key, linearizably where the system can; it must be there.
    fn get(&mut self, key: &str) -> impl Future<Output = Result<(), OpError>> + Send;
    /// Writes a key.
    fn put(&mut self, key: &str, value: &str) -> impl Future<Output = Result<(), OpError>> + Send;
    /// Writes a key only if it is absent; it must be.
    fn create(&mut self, key: &str, value: &str) -> impl Future<Output = Result<(), OpError>> + Send;
    /// The number in a key's value, and its version.
    fn current(&mut self, key: &str) -> impl Future<Output = Result<(u64, Self::Version), OpError>> + Send;
    /// Writes a key only if it still has this version.
    fn swap(
        &mut self,
        key: &str,
        version: &Self::Version,
        value: &str,
    ) -> impl Future<Output = Result<Swap<Self::Version>, OpError>> + Send;
    /// Writes all these distinct keys with one request.
    fn put_all(&mut self, keys: &[String], value: &str) -> impl Future<Output = Result<(), OpError>> + Send;
    /// Reads `limit` keys of the loaded ones and their values, those after `after` where the system keeps an order.
    fn scan(&mut self, after: &str, limit: usize) -> impl Future<Output = Result<(), OpError>> + Send;
    /// Takes a free lock and gives it back.
    fn lock_unlock(&mut self, key: &str) -> impl Future<Output = Result<(), OpError>> + Send;
}

/// A system that clients connect to.
pub(crate) trait Connect: Clone + Send + Sync + 'static {
    /// Its connections.
    type Client: Client;

    /// Opens the connection of the client with this number.
    fn connect(&self, client: usize) -> impl Future<Output = Result<Self::Client, OpError>> + Send;
}

/// The JSON value of [`VALUE_BYTES`] bytes that carries this number.
pub(crate) fn value(number: u64) -> String {
    let head = format!("{{\"n\":{number},\"pad\":\"");
    let pad = VALUE_BYTES - head.len() - 2; // a u64 has at most 20 digits: there is always room
    format!("{head}{}\"}}", "x".repeat(pad))
}

/// The number in a value, if it is one of ours.
pub(crate) fn number_in(value: &[u8]) -> Result<u64, OpError> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let digits = text.strip_prefix("{\"n\":").and_then(|rest| rest.split(',').next());
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(number) if value.len() == VALUE_BYTES => Ok(number),
        _ => Err(OpError::wrong(format!(
            "a value of {VALUE_BYTES} bytes was expected, not {text:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_one_length_and_carry_their_number() {
        for number in [0, 7, 1_000_000, u64::MAX] {
            let text = value(number);
            assert_eq!(text.len(), VALUE_BYTES);
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            assert_eq!(number_in(text.as_bytes()).unwrap(), number);
        }
        assert!(number_in(b"{\"n\":1}").is_err());
    }
}
