//! Deliberately wrong protocols, to see whether the simulator and the checker would notice.
//!
//! Compiled in only with the feature `teeth`, which nothing but the package `register-with-teeth` (the same sources, for the simulator)
//! turns on. Without it [`bites`] is a constant `false` and leaves no trace in the programs.

/// A rule that can be taken out, or a mistake that can be put in. Those of a node's shell (what is durable when) are the simulator's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tooth {
    /// An acceptor promises a ballot that it has promised before. Shows only where ballots meet: otherwise they are drawn once each.
    EqualBallotPromised,
    /// A record handed over is written over newer data.
    HintOverNewer,
    /// A spare forgets without raising its floor.
    ForgetWithoutFloor,
    /// A spare forgets though a home has not got the record.
    ForgetBeforeHome,
    /// A spare that forgot counts as a witness of absence in a read.
    ForgottenWitnessInRead,
    /// A spare that forgot counts as a witness of absence in a prepare quorum.
    ForgottenWitnessInPrepare,
    /// A mere promise makes a node tell no floor any more.
    FloorClearedByPromise,
    /// A reservation is used though no quorum granted it. The nodes grant none, as they may. (Whoever takes an accept here has promised
    /// what was asked for along with it, or more, granted or not: to use it nevertheless would harm nobody.)
    ReservationNotGranted,
    /// A repeated accept grants a reservation without promising it. The nodes grant none with the first, as they may, and coordinators
    /// send the accept once more to ask for one. (Otherwise the first is missing only where the state came from elsewhere, and hardly
    /// ever from enough nodes.)
    ReservationByRepetition,
    /// A refusal is answered from what the coordinator remembers.
    RefusalFromMemory,
    /// A read does not write back what only some hold.
    NoWriteBack,
    /// An accept that only some took is sent again at a higher ballot.
    SilentRetry,
    /// One that was lost is taken for dead though it may have been chosen and collected.
    LearnIgnoresDropped,
    /// A tombstone is collected when only a quorum, not everybody, has agreed.
    CollectedEarly,
    /// A tombstone is collected before it was chosen.
    CollectedUnchosen,
    /// A mere promise is taken for refusal when a tombstone is collected.
    CollectedOnPromise,
    /// A tombstone is collected without raising the floor.
    CollectedWithoutFloor,
    /// A chosen state is installed below the floor of a record that holds only a promise.
    InstallBelowFloor,
    /// A node whose disk is new votes at once.
    LostDiskVotes,
    /// A node votes at once after a restart, whatever its disk holds.
    OldDiskVotes,
    /// A refilled node votes though the others still take what is below its floor.
    RefillWithoutFloor,
    /// A lock's fence does not grow past the one before.
    FenceStandsStill,
    /// Copies of blind writes are spread over a fence that they do not know.
    BlindOverFence,
    /// A put or CAS with too low a fence is let through.
    LowFencePasses,
    /// A retried request takes effect again.
    RetryTwice,
    /// An accept below a promise is taken.
    PromiseIgnored,
    /// One replica less than a majority is a quorum.
    SmallQuorum,
    /// Silence is taken for "never arrived".
    SilenceIsNever,
    /// Expiry is told without a tombstone having been committed.
    ExpiryByOwnClock,
}

impl Tooth {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::EqualBallotPromised,
        Self::HintOverNewer,
        Self::ForgetWithoutFloor,
        Self::ForgetBeforeHome,
        Self::ForgottenWitnessInRead,
        Self::ForgottenWitnessInPrepare,
        Self::FloorClearedByPromise,
        Self::ReservationNotGranted,
        Self::ReservationByRepetition,
        Self::RefusalFromMemory,
        Self::NoWriteBack,
        Self::SilentRetry,
        Self::LearnIgnoresDropped,
        Self::CollectedEarly,
        Self::CollectedUnchosen,
        Self::CollectedOnPromise,
        Self::CollectedWithoutFloor,
        Self::InstallBelowFloor,
        Self::LostDiskVotes,
        Self::OldDiskVotes,
        Self::RefillWithoutFloor,
        Self::FenceStandsStill,
        Self::BlindOverFence,
        Self::LowFencePasses,
        Self::RetryTwice,
        Self::PromiseIgnored,
        Self::SmallQuorum,
        Self::SilenceIsNever,
        Self::ExpiryByOwnClock,
    ];
}

#[cfg(feature = "teeth")]
mod switch {
    use std::cell::Cell;

    use super::Tooth;

    thread_local! {
        static TOOTH: Cell<Option<Tooth>> = const { Cell::new(None) };
    }

    /// Puts one mistake (or none) into everything this thread does from now on.
    pub fn bite_with(tooth: Option<Tooth>) {
        TOOTH.set(tooth);
    }

    pub(crate) fn bites(tooth: Tooth) -> bool {
        TOOTH.get() == Some(tooth)
    }
}

#[cfg(feature = "teeth")]
pub use switch::bite_with;
#[cfg(feature = "teeth")]
pub(crate) use switch::bites;

/// Whether this mistake is to be made here.
#[cfg(not(feature = "teeth"))]
pub(crate) const fn bites(_: Tooth) -> bool {
    false
}
