//! Every tooth, and the worlds that show it.

use register::teeth::Tooth;

use crate::teeth::{Catalogued, ShellTooth, Wrong};

const fn protocol(tooth: Tooth, shown_by: &'static [&'static str], seed: Option<u64>, often: bool) -> Catalogued {
    Catalogued {
        wrong: Wrong::Protocol(tooth),
        shown_by,
        seed,
        often,
    }
}

const fn shell(tooth: ShellTooth, shown_by: &'static [&'static str], seed: Option<u64>, often: bool) -> Catalogued {
    Catalogued {
        wrong: Wrong::Shell(tooth),
        shown_by,
        seed,
        often,
    }
}

/// Every tooth, with the kinds of worlds that show it, a seed of the first of them, and whether CI finds it from fresh seeds too. What is
/// known of those without a seed is told in `docs/results/register-teeth.md`.
pub const TEETH: &[Catalogued] = &[
    protocol(Tooth::EqualBallotPromised, &["plain", "restarts"], None, false),
    protocol(
        Tooth::HintOverNewer,
        &["fences", "retries", "plain"],
        Some(7000069),
        true,
    ),
    protocol(
        Tooth::ForgetWithoutFloor,
        &["first-start", "five", "many-keys"],
        Some(7000010),
        true,
    ),
    protocol(
        Tooth::ForgetBeforeHome,
        &["retries", "plain", "restarts"],
        Some(7000093),
        true,
    ),
    protocol(Tooth::ForgottenWitnessInRead, &["fences"], Some(7001335), false),
    protocol(
        Tooth::ForgottenWitnessInPrepare,
        &["five", "first-start", "many-keys"],
        Some(7000070),
        true,
    ),
    protocol(
        Tooth::FloorClearedByPromise,
        &["five", "two", "retries"],
        Some(7000000),
        true,
    ),
    protocol(Tooth::ReservationNotGranted, &["reserved"], None, false),
    protocol(Tooth::ReservationByRepetition, &["reserved"], None, false),
    protocol(
        Tooth::RefusalFromMemory,
        &["fences", "restarts", "ttl"],
        Some(7000000),
        true,
    ),
    protocol(Tooth::NoWriteBack, &["deletes", "five", "fences"], Some(7000005), true),
    protocol(Tooth::SilentRetry, &["ttl", "two", "five"], Some(7000000), true),
    protocol(
        Tooth::LearnIgnoresDropped,
        &["ttl", "two", "deletes"],
        Some(7000090),
        true,
    ),
    protocol(Tooth::CollectedEarly, &["retries", "ttl", "plain"], Some(7000025), true),
    protocol(Tooth::CollectedUnchosen, &["many-keys", "collecting"], None, false),
    protocol(Tooth::CollectedOnPromise, &["collecting"], None, false),
    protocol(
        Tooth::CollectedWithoutFloor,
        &["five", "two", "first-start"],
        Some(7000000),
        true,
    ),
    protocol(
        Tooth::InstallBelowFloor,
        &["retries", "first-start"],
        Some(7000308),
        true,
    ),
    protocol(Tooth::LostDiskVotes, &["disks", "many-keys"], Some(7000032), true),
    protocol(Tooth::OldDiskVotes, &["disks"], Some(7000064), true),
    protocol(Tooth::RefillWithoutFloor, &["disks"], None, false),
    protocol(
        Tooth::FenceStandsStill,
        &["locks", "disks", "many-keys"],
        Some(7000000),
        true,
    ),
    protocol(Tooth::BlindOverFence, &["fences"], Some(7000006), true),
    protocol(Tooth::LowFencePasses, &["fences"], Some(7000004), true),
    protocol(
        Tooth::RetryTwice,
        &["retries", "disks", "many-keys"],
        Some(7000000),
        true,
    ),
    protocol(
        Tooth::PromiseIgnored,
        &["locks", "retries", "plain"],
        Some(7000002),
        true,
    ),
    protocol(Tooth::SmallQuorum, &["ttl", "fences", "locks"], Some(7000000), true),
    protocol(
        Tooth::SilenceIsNever,
        &["ttl", "first-start", "five"],
        Some(7000000),
        true,
    ),
    protocol(Tooth::ExpiryByOwnClock, &["ttl"], Some(7000144), true),
    shell(ShellTooth::PromiseNotPersisted, &["crashes"], Some(9003262), false),
    shell(
        ShellTooth::AckBeforeFsync,
        &["many-keys", "first-start", "restarts"],
        Some(7000011),
        true,
    ),
    shell(ShellTooth::FloorNotPersisted, &["crashes"], Some(9008704), false),
    shell(ShellTooth::ReadsUncommitted, &["crashes"], Some(9023529), false),
    shell(ShellTooth::IncarnationReused, &["reborn"], None, false),
    shell(
        ShellTooth::SweepByOwnClock,
        &["two", "plain", "deletes"],
        Some(7000000),
        true,
    ),
    shell(
        ShellTooth::DeliveryDenied,
        &["plain", "deletes", "restarts"],
        Some(7000396),
        true,
    ),
];
