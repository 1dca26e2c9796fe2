use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::without;
use crate::check;
use crate::cut::known_at;
use crate::history::{Entry, ModelKind, NEVER, Op, Value};

const SEEDS: u64 = 150_000;

fn value(rng: &mut StdRng) -> Value {
    rng.random_bool(0.8).then(|| rng.random_range(1..4))
}

fn register(rng: &mut StdRng) -> Op {
    let outcome = rng.random_bool(0.8).then(|| rng.random_bool(0.6));
    match rng.random_range(0..8) {
        0 => Op::Read(value(rng)),
        1..4 => Op::Write(value(rng)),
        4..6 => Op::Cas {
            expected: value(rng),
            new: value(rng),
            swapped: outcome,
        },
        6 => Op::CasMissed {
            expected: None,
            found: value(rng),
        },
        _ => Op::End(rng.random_range(1..4)),
    }
}

fn lock(rng: &mut StdRng) -> Op {
    let outcome = rng.random_bool(0.8).then(|| rng.random_bool(0.7));
    let token = rng.random_range(1..4);
    match rng.random_range(0..8) {
        0..4 => Op::Acquire {
            token,
            owned: rng.random_bool(0.5),
            took: outcome,
        },
        4..6 => Op::Release {
            token: rng.random_bool(0.8).then_some(token),
            freed: outcome,
        },
        6 => Op::Renew { token, held: outcome },
        _ => Op::End(token),
    }
}

fn history(rng: &mut StdRng, model: ModelKind) -> Vec<Entry> {
    let mut history: Vec<Entry> = (0..rng.random_range(2..8))
        .map(|_| {
            let op = match model {
                ModelKind::Register => register(rng),
                ModelKind::Lock => lock(rng),
            };
            let called = rng.random_range(0..15);
            let answered = rng.random_bool(0.8);
            let returned = if answered {
                called + rng.random_range(0..10)
            } else {
                NEVER
            };
            let mut entry = Entry::new(0, 0, called, returned, op);
            if rng.random_bool(0.3) {
                entry.fence = Some(rng.random_range(1..5));
            }
            let refused = answered && rng.random_bool(0.3) && matches!(op, Op::Write(_) | Op::Cas { .. });
            entry.refused_below = entry.fence.filter(|_| refused).map(|fence| fence + 1);
            entry
        })
        .collect();
    history.sort_by_key(|entry| entry.called);
    history
}

/// What all of shrinking rests on: a right history stays right.
#[test]
fn no_step_makes_a_right_history_wrong() {
    let (mut right, mut left_out) = (0, 0);
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let model = [ModelKind::Register, ModelKind::Lock][rng.random_range(0..2)];
        let history = history(&mut rng, model);
        if ModelKind::of(&history) != Some(model) || check(&history).is_err() {
            continue;
        }
        right += 1;
        let (start, end) = (rng.random_range(0..history.len()), rng.random_range(0..=history.len()));
        let shorter = without(&history, start..end.max(start + 1), model);
        left_out += u64::from(shorter.len() < history.len());
        assert!(check(&shorter).is_ok(), "seed {seed}: {history:#?} became {shorter:#?}");
        let earlier: Vec<Entry> = known_at(&history, rng.random_range(0..25))
            .map(|(_, entry)| entry)
            .collect();
        assert!(check(&earlier).is_ok(), "seed {seed}: {history:#?} was {earlier:#?}");
        let mut relaxed = history.clone();
        for entry in &mut relaxed {
            if let Op::Cas {
                new,
                swapped: Some(true),
                ..
            } = entry.op
            {
                entry.op = Op::Write(new);
            }
        }
        assert!(check(&relaxed).is_ok(), "seed {seed}: {history:#?} became {relaxed:#?}");
    }
    assert!(
        right > SEEDS / 50 && left_out > right / 3,
        "{left_out} of {right}: too few to tell"
    );
}
