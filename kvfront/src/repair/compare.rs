//! What replicas should look like, apart from any node: homes alike, everybody else empty.

use register::Ballot;

use crate::ring::Preference;

/// Whether the nodes' sums (by node) over the same keys of one partition are not as they should be; `None` when a node of the list is
/// missing, so that nobody can tell.
pub(super) fn differs(preference: &Preference, sums: &[Option<u64>]) -> Option<bool> {
    let of_list: Option<Vec<u64>> = preference.nodes.iter().map(|&node| sums[node]).collect();
    let (homes, spares) = of_list.as_ref()?.split_at(preference.homes);
    let homes_differ = homes.windows(2).any(|pair| pair[0] != pair[1]);
    let strangers = sums.iter().enumerate();
    let strangers = strangers.filter(|(node, _)| preference.rank_of(*node).is_none());
    let strays = strangers.filter_map(|(_, sum)| *sum).any(|sum| sum != 0);
    Some(homes_differ || spares.iter().any(|sum| *sum != 0) || strays)
}

/// What is wrong with one key's replicas.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The homes hold different ballots.
    pub(super) homes_differ: bool,
    /// Ranks of spares that hold something.
    pub(super) spares: Vec<usize>,
    /// Nodes outside of the list that hold something.
    pub(super) strays: Vec<usize>,
}

/// Judges the ballots that the nodes (by number) hold of a key; zero for nothing.
pub(super) fn judge(preference: &Preference, accepted: &[Ballot]) -> Finding {
    let (homes, spares) = preference.nodes.split_at(preference.homes);
    let holds = |node: usize| !accepted[node].is_zero();
    Finding {
        homes_differ: homes.windows(2).any(|pair| accepted[pair[0]] != accepted[pair[1]]),
        spares: (preference.homes..)
            .zip(spares)
            .filter(|(_, node)| holds(**node))
            .map(|(rank, _)| rank)
            .collect(),
        strays: (0..accepted.len())
            .filter(|&node| preference.rank_of(node).is_none() && holds(node))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use register::HlcTime;

    use super::*;

    /// Homes 2 and 0, spare 3; node 1 is a stranger.
    fn preference() -> Preference {
        Preference {
            nodes: vec![2, 0, 3],
            names: ["c", "a", "d"].map(Arc::from).to_vec(),
            homes: 2,
        }
    }

    #[test]
    fn homes_are_alike_and_nobody_else_holds_anything() {
        let differs = |sums: [Option<u64>; 4]| differs(&preference(), &sums);
        assert_eq!(differs([Some(7), Some(0), Some(7), Some(0)]), Some(false));
        assert_eq!(differs([Some(7), Some(0), Some(8), Some(0)]), Some(true), "homes");
        assert_eq!(differs([Some(7), Some(0), Some(7), Some(7)]), Some(true), "a spare");
        assert_eq!(differs([Some(7), Some(7), Some(7), Some(0)]), Some(true), "a stray");
        assert_eq!(
            differs([Some(7), None, Some(7), Some(0)]),
            Some(false),
            "no matter to this list"
        );
        assert_eq!(differs([Some(7), Some(0), Some(7), None]), None, "nobody can tell");
    }

    #[test]
    fn a_key_is_judged_by_its_list() {
        let ballot = |n| Ballot {
            time: HlcTime::from_unix_ms(n),
            incarnation: 1,
        };
        let judge = |held: [u64; 4]| {
            let accepted = held.map(|n| if n == 0 { Ballot::ZERO } else { ballot(n) });
            judge(&preference(), &accepted)
        };
        let fine = Finding {
            homes_differ: false,
            spares: vec![],
            strays: vec![],
        };
        assert_eq!(judge([5, 0, 5, 0]), fine);
        assert_eq!(judge([0, 0, 0, 0]), fine);
        assert!(judge([5, 0, 0, 0]).homes_differ);
        assert_eq!(judge([5, 0, 5, 4]).spares, [2]);
        assert_eq!(judge([5, 6, 5, 0]).strays, [1]);
    }
}
