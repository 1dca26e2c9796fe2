//! What can go wrong, told apart by what became of the operation.

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The cluster said no for now (503: no quorum, shutting down, too many requests) or, for a read, gave no usable answer.
    /// Nothing was changed.
    #[error("KV unavailable: {detail}")]
    Unavailable {
        /// Which call, where, and what the server said.
        detail: String,
    },
    /// A write that may or may not have taken effect, now or a little later: the server said so, or the connection was lost
    /// or the time was up after sending it. Read before writing again.
    #[error("KV outcome unknown: {detail}")]
    Unknown {
        /// Which call, where, and what happened.
        detail: String,
    },
    /// No kvfront could be connected to. Nothing was sent.
    #[error("KV unreachable: {detail}")]
    Unreachable {
        /// Which call, where, and why.
        detail: String,
    },
    /// The server will not do this, however often it is asked (4xx).
    #[error("KV rejected it ({status}): {detail}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// What the server found wrong.
        detail: String,
    },
    /// This client will not send it: a bad URL, key, time to live, number of operations, or a value that is no JSON.
    #[error("KV call is not valid: {detail}")]
    Invalid {
        /// The field, the value, what was expected.
        detail: String,
    },
    /// The answer came, but is not what the API or the asked-for type says. A write that ends so has been carried out.
    #[error("KV answer cannot be read: {detail}")]
    Decode {
        /// Which call or key, and where the shape differs.
        detail: String,
    },
}

impl KvError {
    /// True when nothing was changed and the same call may well succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unreachable { .. })
    }

    /// True when the operation may or may not have taken effect.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid { detail: detail.into() }
    }

    pub(crate) fn decode(what: &str, detail: impl std::fmt::Display) -> Self {
        Self::Decode {
            detail: format!("{what}: {detail}"),
        }
    }
}

impl From<kv_api::ApiRuleError> for KvError {
    fn from(error: kv_api::ApiRuleError) -> Self {
        Self::invalid(error.to_string())
    }
}
