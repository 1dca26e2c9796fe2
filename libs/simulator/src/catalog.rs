//! Every tooth, and the worlds that show it.

use register::teeth::Tooth;

use crate::kinds::Kind;
use crate::teeth::{Catalogued, ShellTooth, Wrong};

const fn protocol(tooth: Tooth, shown_by: &'static [&'static str], often: bool) -> Catalogued {
    Catalogued {
        wrong: Wrong::Protocol(tooth),
        shown_by,
        often,
    }
}

const fn shell(tooth: ShellTooth, shown_by: &'static [&'static str], often: bool) -> Catalogued {
    Catalogued {
        wrong: Wrong::Shell(tooth),
        shown_by,
        often,
    }
}

/// Every tooth, with the kinds of worlds that show it, and whether CI finds it from fresh seeds too. How soon each is found is told in
/// `docs/results/register-teeth.md`.
pub const TEETH: &[Catalogued] = &[
    protocol(Tooth::EqualBallotPromised, &["meeting"], true),
    protocol(Tooth::HintOverNewer, &["fences", "retries", "plain"], true),
    protocol(Tooth::ForgetWithoutFloor, &["first-start", "five", "many-keys"], true),
    protocol(Tooth::ForgetBeforeHome, &["retries", "plain", "restarts"], true),
    protocol(Tooth::ForgottenWitnessInRead, &["fences"], false),
    protocol(
        Tooth::ForgottenWitnessInPrepare,
        &["five", "first-start", "many-keys"],
        true,
    ),
    protocol(Tooth::FloorClearedByPromise, &["five", "two", "retries"], true),
    protocol(Tooth::ReservationNotGranted, &["apart", "reserved"], true),
    protocol(Tooth::ReservationByRepetition, &["apart", "reserved"], true),
    protocol(Tooth::RefusalFromMemory, &["fences", "restarts", "ttl"], true),
    protocol(Tooth::NoWriteBack, &["deletes", "five", "fences"], true),
    protocol(Tooth::SilentRetry, &["ttl", "two", "five"], true),
    protocol(Tooth::LearnIgnoresDropped, &["ttl", "two", "deletes"], true),
    protocol(Tooth::CollectedEarly, &["retries", "ttl", "plain"], true),
    protocol(Tooth::CollectedUnchosen, &["halfway"], true),
    protocol(Tooth::CollectedOnPromise, &["late-copies"], true),
    protocol(Tooth::CollectedWithoutFloor, &["five", "two", "first-start"], true),
    protocol(Tooth::InstallBelowFloor, &["retries", "first-start"], true),
    protocol(Tooth::LostDiskVotes, &["disks", "many-keys"], true),
    protocol(Tooth::OldDiskVotes, &["disks"], true),
    protocol(Tooth::RefillWithoutFloor, &["swapped"], false),
    protocol(Tooth::FenceStandsStill, &["locks", "disks", "many-keys"], true),
    protocol(Tooth::BlindOverFence, &["fences"], true),
    protocol(Tooth::LowFencePasses, &["fences"], true),
    protocol(Tooth::RetryTwice, &["retries", "disks", "many-keys"], true),
    protocol(Tooth::PromiseIgnored, &["locks", "retries", "plain"], true),
    protocol(Tooth::SmallQuorum, &["ttl", "fences", "locks"], true),
    protocol(Tooth::SilenceIsNever, &["ttl", "first-start", "five"], true),
    protocol(Tooth::ExpiryByOwnClock, &["ttl"], true),
    shell(ShellTooth::PromiseNotPersisted, &["crashes"], false),
    shell(
        ShellTooth::AckBeforeFsync,
        &["many-keys", "first-start", "restarts"],
        true,
    ),
    shell(ShellTooth::FloorNotPersisted, &["late-changes"], true),
    shell(ShellTooth::ReadsUncommitted, &["slow-disks"], true),
    shell(ShellTooth::IncarnationReused, &["coarse-clocks"], true),
    shell(ShellTooth::SweepByOwnClock, &["two", "plain", "deletes"], true),
    shell(ShellTooth::DeliveryDenied, &["plain", "deletes", "restarts"], true),
];

/// The pinned world of a tooth: its kind and its seed.
#[must_use]
pub fn pinned(wrong: Wrong) -> Option<(&'static Kind, u64)> {
    let name = wrong.to_string();
    let line = PINS
        .lines()
        .find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '))?;
    let (kind, seed) = line.split_once(' ')?;
    Some((Kind::named(kind)?, seed.parse().ok()?))
}

const PINS: &str = include_str!("../pins.txt");
