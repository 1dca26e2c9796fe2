//! Breadth first: every world within the bounds, once, and the shortest way to a wrong one.

use std::collections::BTreeSet;
use std::fmt;

use register::teeth::{Tooth, bite_with};

use crate::configuration::Configuration;
use crate::engine::Engine;
use crate::fingerprint::Seen;
use crate::start;
use crate::story;
use crate::world::{Happens, MAX_WORDS, Next, World};

/// Something that must never happen, and how it comes to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample {
    /// What is wrong.
    pub wrong: String,
    /// What happens, in order, a line each. No shorter sequence leads to anything wrong.
    pub steps: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>3}. {step}", number + 1)?;
        }
        f.write_str(&self.wrong)
    }
}

/// What an exploration has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Distinct worlds.
    pub states: u64,
    /// Things that happened in them.
    pub transitions: u64,
    /// Most things that happen one after the other, by the shortest way to each world.
    pub depth: u32,
    /// Things that were left out because a bound forbids them.
    pub beyond: u64,
    /// The distinct histories of clients, all judged, a line each.
    pub histories: BTreeSet<String>,
    /// Distinct forms of a node, of a process, of a message.
    pub forms: (usize, usize, usize),
    /// What went wrong, if anything.
    pub wrong: Option<Counterexample>,
    /// False when it was given up at the limit of states.
    pub complete: bool,
}

/// Explores all executions of `plan`, with one mistake put into the protocol or with none, up to `most_states` worlds.
///
/// # Panics
/// When the plan does not fit together; see [`Configuration::validate`].
#[must_use]
pub fn explore(plan: &Configuration, tooth: Option<Tooth>, most_states: u64) -> Report {
    if let Err(error) = plan.validate() {
        panic!("{plan}: {error}");
    }
    bite_with(tooth);
    let report = Search::new(plan).run(most_states);
    bite_with(None);
    report
}

/// How a world was first reached: from which, and by what.
type Way = (u32, Happens);

struct Search<'a> {
    engine: Engine<'a>,
    seen: Seen,
    ways: Vec<Way>,
    first: World,
    report: Report,
}

/// Worlds of one depth: the number of each, its length, its words.
type Level = Vec<u32>;

impl<'a> Search<'a> {
    fn new(plan: &'a Configuration) -> Self {
        let mut engine = Engine::new(plan);
        let first = start::world(&mut engine);
        Self {
            engine,
            seen: Seen::default(),
            ways: Vec::new(),
            first,
            report: Report {
                states: 0,
                transitions: 0,
                depth: 0,
                beyond: 0,
                histories: BTreeSet::new(),
                forms: (0, 0, 0),
                wrong: None,
                complete: true,
            },
        }
    }

    fn run(mut self, most_states: u64) -> Report {
        let mut level = Level::new();
        self.note(&self.first.clone(), (0, Happens::Call(0)), &mut level);
        let mut next = Next::default();
        while !level.is_empty() && self.report.complete && self.report.wrong.is_none() {
            level = self.deepen(&level, &mut next, most_states);
            self.report.depth += u32::from(!level.is_empty());
        }
        self.report.histories = self.engine.all_histories();
        self.report.forms = self.engine.forms();
        self.report
    }

    fn deepen(&mut self, level: &[u32], next: &mut Next, most_states: u64) -> Level {
        let mut deeper = Level::new();
        let mut rest = level;
        while let [number, length, words @ ..] = rest {
            let (words, behind) = words.split_at(*length as usize);
            rest = behind;
            let world = World::read(words);
            if let Err((last, wrong)) = self.engine.next(&world, next) {
                self.report.wrong = Some(self.tell(*number, last, wrong));
                return deeper;
            }
            self.report.transitions += next.worlds.len() as u64;
            for (happens, world) in &next.worlds {
                self.note(world, (*number, *happens), &mut deeper);
            }
            if self.report.states >= most_states {
                self.report.complete = false;
                return deeper;
            }
        }
        self.report.beyond += std::mem::take(&mut next.beyond);
        deeper
    }

    fn note(&mut self, world: &World, way: Way, level: &mut Level) {
        if !self.seen.insert(world.fingerprint()) {
            return;
        }
        let number = u32::try_from(self.ways.len()).expect("fewer than 2^32 worlds fit into memory");
        self.ways.push(way);
        self.report.states += 1;
        let mut words = [0; MAX_WORDS];
        let length = world.write(&mut words);
        level.extend([number, u32::try_from(length).unwrap_or(u32::MAX)]);
        level.extend_from_slice(&words[..length]);
    }

    /// The way to world `number`, and what happened there.
    fn tell(&mut self, number: u32, last: Happens, wrong: String) -> Counterexample {
        let mut way = vec![last];
        let mut at = number;
        while at != 0 {
            let (from, happens) = self.ways[at as usize];
            way.push(happens);
            at = from;
        }
        way.reverse();
        Counterexample {
            wrong,
            steps: story::tell(&mut self.engine, &self.first, &way),
        }
    }
}
