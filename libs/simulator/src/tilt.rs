//! Dice that are loaded: what a kind of world has otherwise than all others, so that what hardly ever meets does meet.
//!
//! Everything here may happen to real machines, only not so often: any message may be lost or late, any disk slow, any clock coarse.
//! A tilt draws nothing where it says nothing, so that the worlds of kinds without one stay what they are.

use register::Request;
use register::proposer::Limits;

use crate::rng::Rng;
use crate::world::US_PER_MS;

/// What is not left to the plan's dice.
#[derive(Debug, Clone, Copy)]
pub struct Tilt {
    /// What befalls requests of certain sorts, beside what befalls all.
    pub requests: &'static [Burden],
    /// How long operations may take.
    pub limits: Option<Limits>,
    /// Longest pause between two passes of a coordinator's background, in milliseconds.
    pub background_ms: Option<u64>,
    /// Longest time from a change's arrival at a node until it is durable, in milliseconds.
    pub commit_ms: Option<u64>,
    /// Longest pause of a client between two calls, in milliseconds.
    pub think_ms: Option<u64>,
    /// Longest pause between two faults of one nemesis, in milliseconds.
    pub fault_pause_ms: Option<u64>,
    /// Longest time that a fault lasts, in milliseconds.
    pub fault_lasts_ms: Option<u64>,
    /// Wall clocks show multiples of so many milliseconds only.
    pub clock_step_ms: u64,
}

/// What befalls requests of one sort.
#[derive(Debug, Clone, Copy)]
pub struct Burden {
    /// Of which sort.
    pub of: Sort,
    /// To the node of this rank in each key's list; none: to all.
    pub rank: Option<u8>,
    /// How many of a thousand are lost.
    pub lost_per_mille: u32,
    /// How many of a thousand are late.
    pub late_per_mille: u32,
    /// How late those are: from and up to, in milliseconds.
    pub late_ms: (u64, u64),
}

/// Requests that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Prepares.
    Prepare,
    /// Accepts.
    Accept,
    /// Chosen states given to nodes that lack them.
    Install,
    /// The second step of a collection.
    Collect,
}

impl Tilt {
    /// Nothing is otherwise.
    pub(crate) const NONE: Self = Self {
        requests: &[],
        limits: None,
        background_ms: None,
        commit_ms: None,
        think_ms: None,
        fault_pause_ms: None,
        fault_lasts_ms: None,
        clock_step_ms: 1,
    };

    /// What befalls a request to the node of this rank.
    pub(crate) fn burden(&self, request: &Request, rank: u8) -> Option<&'static Burden> {
        let is_borne = |burden: &&Burden| burden.of.includes(request) && burden.rank.is_none_or(|only| only == rank);
        self.requests.iter().find(is_borne)
    }
}

impl Sort {
    fn includes(self, request: &Request) -> bool {
        match self {
            Self::Prepare => matches!(request, Request::Prepare { .. }),
            Self::Accept => matches!(request, Request::Accept { .. }),
            Self::Install => matches!(request, Request::Install { .. }),
            Self::Collect => matches!(request, Request::Collect { .. }),
        }
    }
}

impl Burden {
    /// None yet, on requests of this sort to any node.
    pub(crate) const fn on(of: Sort) -> Self {
        Self {
            of,
            rank: None,
            lost_per_mille: 0,
            late_per_mille: 0,
            late_ms: (0, 0),
        }
    }

    /// How late one of those that are late is.
    pub(crate) fn late_us(&self, rng: &mut Rng) -> u64 {
        let (from_ms, to_ms) = self.late_ms;
        rng.range(from_ms * US_PER_MS, to_ms * US_PER_MS)
    }
}
