//! A history that no register could have given, or that could not be judged.

use std::error::Error;
use std::fmt;

use crate::history::{Entry, ModelKind};
use crate::timeline;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ViolationKind {
    /// No order of the operations explains every answer.
    NotLinearizable,
    /// Two clients held the lock at once.
    TwoHolders,
    /// The search gave up after its budget: nothing is known. Never to be taken for a pass.
    Undecided,
    /// No history: an answer before its question, or operations of locks and of registers on one key.
    Malformed,
}

/// The history of one key that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: u32,
    /// What is wrong.
    pub kind: ViolationKind,
    /// What the key was held to; `None` when its operations do not tell.
    pub model: Option<ModelKind>,
    /// All operations of the key, sorted by their call.
    pub history: Vec<Entry>,
    /// The longest order found that explains its operations, as places in `history`; from there on, nothing fits.
    pub order: Vec<usize>,
    /// Places in `history` of the operations of which one had to come next, and none could.
    pub stuck: Vec<usize>,
    /// One or more lines for people: what was expected, and what was found.
    pub explanation: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ViolationKind::NotLinearizable => "is not linearizable",
            ViolationKind::TwoHolders => "had two holders at once",
            ViolationKind::Undecided => "could not be judged",
            ViolationKind::Malformed => "has no proper history",
        };
        writeln!(f, "key {} {what}: {}", self.key, self.explanation)?;
        f.write_str(&timeline::of_violation(self))
    }
}

impl Error for Violation {}
