//! What a client does next.

use rand::RngExt;
use rand::rngs::StdRng;

use super::record::{Kind, Seen};
use super::what::{By, What};

/// Fences grow by one so often, so that most, but not all, are high enough.
const FENCE_GROWS_EVERY_US: u64 = 500_000;

/// The next operation on a key of this kind. `fresh` is an id that nobody has used.
pub(crate) fn choose(kind: Kind, rng: &mut StdRng, now_us: u64, fresh: u32, seen: Seen) -> What {
    match kind {
        Kind::Plain => plain(rng, fresh, seen),
        Kind::Ending => match plain(rng, fresh, seen) {
            What::Put { id, fence, .. } => What::Put { id, ends: true, fence },
            other => other,
        },
        Kind::Fenced => fenced(rng, now_us, fresh, seen),
        Kind::Lock => lock(rng, fresh, seen),
    }
}

fn plain(rng: &mut StdRng, fresh: u32, seen: Seen) -> What {
    match (rng.random_range(0..100), seen) {
        (0..35, _) => What::Get,
        (35..42, _) => What::Delete,
        (
            42..48,
            Seen {
                value: Some(expected),
                version: Some(version),
                ..
            },
        ) => What::DeleteVersion { expected, version },
        (42..68, _) => What::Put {
            id: fresh,
            ends: false,
            fence: None,
        },
        (_, seen) => cas(rng, fresh, seen, None),
    }
}

fn fenced(rng: &mut StdRng, now_us: u64, fresh: u32, seen: Seen) -> What {
    let now = 1 + now_us / FENCE_GROWS_EVERY_US;
    let fence = rng.random_bool(0.7).then(|| now + rng.random_range(0..3));
    match rng.random_range(0..100) {
        0..30 => What::Get,
        30..65 => What::Put {
            id: fresh,
            ends: false,
            fence,
        },
        _ => cas(rng, fresh, seen, fence),
    }
}

/// From what was seen last: by its value, or by its version (none: absent), where that is known.
fn cas(rng: &mut StdRng, id: u32, seen: Seen, fence: Option<u64>) -> What {
    let known = seen.version.is_some() || seen.value.is_none();
    let by = if known && rng.random_bool(0.5) {
        By::Version(seen.version)
    } else {
        By::Value
    };
    What::Cas {
        expected: seen.value,
        by,
        id,
        fence,
    }
}

fn lock(rng: &mut StdRng, fresh: u32, seen: Seen) -> What {
    match (rng.random_range(0..100), seen.holder) {
        (0..30, Some(holder)) => What::Release(Some(holder)),
        (30..50, Some((id, token))) => What::Renew { id, token },
        (95.., _) => What::Release(None),
        (chance, _) => What::Acquire {
            id: fresh,
            owned: chance % 2 == 0,
        },
    }
}
