//! One world from its seed to its verdict.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use linearizability::{Checker, Entry, NEVER, Op, Violation, one_holder};

use crate::kinds::Kind;
use crate::mix::LONG_TTL_MS;
use crate::nemesis::Nemeses;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::teeth::Wrong;
use crate::world::{Arena, CLOCKS_APART_US, Limits, Trouble, US_PER_MS, World};

/// Names one world.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its seed.
    pub seed: u64,
    /// These nemeses, instead of what the seed would draw.
    pub nemeses: Option<Nemeses>,
    /// How much of it is run.
    pub limits: Limits,
    /// What is deliberately wrong.
    pub wrong: Option<Wrong>,
    /// Every event is written down; see [`Runner::trace`].
    pub traced: bool,
}

impl Spec {
    /// The whole world of this kind and seed.
    #[must_use]
    pub fn new(kind: &'static Kind, seed: u64, wrong: Option<Wrong>) -> Self {
        Self {
            kind,
            seed,
            nemeses: None,
            limits: Limits::NONE,
            wrong,
            traced: false,
        }
    }
}

/// What a world came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Worlds.
    pub worlds: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Of those, operations whose outcome is unknown.
    pub unknown: u64,
    /// Of those, operations that were not possible.
    pub unavailable: u64,
    /// Faults with a moment: crashes, cuts, jumps of clocks and so on, not each lost message.
    pub faults: u64,
}

impl Counts {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.unavailable += other.unavailable;
        self.faults += other.faults;
    }
}

/// Why a world is not as it should be.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The clients saw what no register could have shown them.
    History(Box<Violation>),
    /// Two states under one ballot, an answer that contradicts itself, or no rest at the end.
    World(String),
    /// An assertion failed.
    Panic(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::History(violation) => write!(f, "{violation}"),
            Self::World(what) => f.write_str(what),
            Self::Panic(what) => write!(f, "a panic: {what}"),
        }
    }
}

/// Runs worlds one after the other, and reuses their memory.
#[derive(Debug, Default)]
pub struct Runner {
    arena: Arena,
    checker: Checker,
}

impl Runner {
    /// One that has not run anything yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs one world and judges it.
    ///
    /// # Errors
    /// What was wrong, together with what had happened by then.
    pub fn run(&mut self, spec: &Spec) -> Result<Counts, (Failure, Counts)> {
        let Self { arena, checker } = self;
        let mut counts = Counts::default();
        let mut judge = || {
            let trouble = run_world(spec, arena, &mut counts);
            if let Some(trouble) = trouble {
                return Err(Failure::World(match trouble {
                    Trouble::Corrupt(what) => format!("corruption: {what}"),
                    Trouble::Absurd(what) => what,
                    Trouble::Restless(what) => format!("it does not come to rest: {what}"),
                }));
            }
            judge(spec.kind, checker, &arena.history)
        };
        let result = catch_unwind(AssertUnwindSafe(&mut judge)).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Failure::Panic(text.unwrap_or_default()))
        });
        if matches!(result, Err(Failure::Panic(_))) {
            // Whatever was being changed is left as it was.
            *self = Self::default();
        }
        match result {
            Ok(()) => Ok(counts),
            Err(failure) => Err((failure, counts)),
        }
    }

    /// What happened in the last world, one line per event, if it was to be traced.
    #[must_use]
    pub fn trace(&self) -> &str {
        &self.arena.trace
    }

    /// What the clients of the last world saw.
    #[must_use]
    pub fn history(&self) -> &[Entry] {
        &self.arena.history
    }
}

fn run_world(spec: &Spec, arena: &mut Arena, counts: &mut Counts) -> Option<Trouble> {
    let mut rng = Rng::new(spec.seed);
    let plan = Plan::draw(spec.kind, spec.nemeses, &mut rng);
    let mut world = World::new(spec.kind, spec.seed, plan, rng, spec.limits, arena);
    world.traced = spec.traced;
    world.bite(spec.wrong);
    world.run();
    *counts = Counts {
        worlds: 1,
        operations: world.operations,
        unknown: world.unknown,
        unavailable: world.unavailable,
        faults: u64::from(world.faults),
    };
    world.trouble.take()
}

fn judge(kind: &Kind, checker: &mut Checker, history: &[Entry]) -> Result<(), Failure> {
    if !kind.is_judged() {
        return Ok(());
    }
    let work = &kind.work;
    if work.fence_per_mille > 0 {
        let strict = without_refusals_for_nothing(history)?;
        checker.check(&strict).map_err(Failure::History)?;
    } else {
        checker.check(history).map_err(Failure::History)?;
    }
    if work.lock_per_mille > 0 && work.lock_ttl_ms < LONG_TTL_MS {
        let certain = (work.lock_ttl_ms * US_PER_MS).saturating_sub(CLOCKS_APART_US);
        one_holder(history, certain).map_err(Failure::History)?;
    }
    Ok(())
}

/// The history without those refusals that may be for the fence of an operation that has not (yet) taken effect.
///
/// A fence counts from the moment it is *seen*: where a write reached one node only, its fence is kept from then on, as nobody can tell
/// whether it had been chosen; its value may be seen later, or never. So such a refusal is right if somebody has used that fence by then;
/// what it means for the value, nothing, is judged by the other operations. A refusal for a fence that had taken effect is judged in full.
fn without_refusals_for_nothing(history: &[Entry]) -> Result<Vec<Entry>, Failure> {
    let mut strict = Vec::with_capacity(history.len());
    for entry in history {
        let Some(seen) = entry.refused_below else {
            strict.push(*entry);
            continue;
        };
        let same = |other: &&Entry| other.key == entry.key && other.fence == Some(seen);
        if entry.fence.is_none_or(|fence| fence >= seen) || !history.iter().any(|other| same(&other)) {
            return Err(Failure::World(format!("{entry}: no such fence was ever used")));
        }
        let has_taken_effect = |other: &Entry| {
            let missed = matches!(other.op, Op::CasMissed { .. });
            other.called != NEVER && other.refused_below.is_none() && !missed && other.returned < entry.returned
        };
        if history.iter().filter(same).all(has_taken_effect) {
            strict.push(*entry);
        }
    }
    Ok(strict)
}
