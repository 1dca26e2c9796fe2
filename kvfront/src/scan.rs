//! Scans: pages of all nodes merged in key order, each key as a read of its own would answer it.
//!
//! What it promises: whatever was acknowledged before the scan began and not changed since is in it, and nothing it shows is un-read by
//! a later read. How:
//!
//! - A page says nothing about keys behind its last record. So only keys up to the smallest last key of the pages that are not at their
//!   end are judged; the next round begins there. Every round asks all nodes for the same range, so that each range is judged from
//!   answers that belong together.
//! - A key is taken as it is when a quorum of its list holds exactly the newest ballot seen, not expired. All else (a copy behind, a
//!   value past its end, a possible tombstone) is read by a proper get.
//! - Nodes may be missing as long as every preference list still has a quorum among the others (RF = 2: one). Fewer is a 503: a scan
//!   that silently lacks keys is worse than none. A node that does not vote counts as missing, whatever it holds.
//! - While a node is missing, a record can hide: its home was asked before a hand-over, its spare after it had forgotten. Forgetting
//!   raises the spare's floor, so a round counts only when no floor differs from the one known before the round began.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use kv_api::{Item, ScanAnswer};
use register::change::{Answer, Command};
use register::message::{Held, List, PageReply};
use register::proposer::{Consistency, Outcome};
use register::{Ballot, Key};

use crate::front::Front;
use crate::ops::{OpError, failure, item};
use crate::ring::Preference;
use crate::transport::why_not_voting;

/// Doubtful keys that are read at a time.
pub(crate) const PARALLEL_READS: usize = 32;
/// Ranges one call goes through before it answers with fewer items than asked for, and a `next` (a desert of deleted keys).
const ROUNDS_MAX: usize = 16;
/// Times a range is asked again because a floor rose.
const FLOOR_ROUNDS_MAX: usize = 4;
/// Bytes of values after which a page of items ends early, with a `next`.
const ANSWER_MAX_BYTES: usize = 8 << 20;
/// Records a node is asked for beyond the limit, for tombstones and copies among them.
const PAGE_MARGIN: usize = 16;

/// What to scan.
#[derive(Debug, Clone)]
pub(crate) struct ScanRange {
    /// Only names that start with this.
    pub(crate) prefix: String,
    /// Only names after this one (before it, in reverse).
    pub(crate) after: Option<String>,
    /// From the last name to the first.
    pub(crate) reverse: bool,
}

/// One page of items.
pub(crate) async fn scan(front: &Arc<Front>, mut range: ScanRange, limit: usize) -> Result<ScanAnswer, OpError> {
    let mut items = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS_MAX {
        let pages = stable_pages(front, &range, limit + PAGE_MARGIN - items.len()).await?;
        let bound = safe_bound(&pages, range.reverse);
        let candidates = candidates(pages, bound.as_ref(), range.reverse);
        let mut judged = stream::iter(candidates)
            .map(|candidate| async move {
                let name = candidate.key.name().to_owned();
                read(front, candidate).await.map(|item| (name, item))
            })
            .buffered(PARALLEL_READS);
        while let Some(next) = judged.next().await {
            let (name, item) = next?;
            range.after = Some(name);
            if let Some(item) = item {
                bytes += item.value.get().len();
                items.push(item);
                if items.len() == limit || bytes >= ANSWER_MAX_BYTES {
                    return Ok(ScanAnswer {
                        items,
                        next: range.after,
                    });
                }
            }
        }
        let Some(bound) = bound else {
            return Ok(ScanAnswer { items, next: None });
        };
        range.after = Some(bound.name().to_owned());
    }
    Ok(ScanAnswer {
        items,
        next: range.after,
    })
}

/// A key that some node knows of, and what each answering node holds of it (nodes without a record are not in `held`).
#[derive(Debug)]
struct Candidate {
    key: Key,
    held: Vec<(usize, Held)>,
    /// The nodes whose pages cover the key.
    answered: Arc<[usize]>,
}

/// What the pages say about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Value { value: Arc<str>, version: Ballot },
    Absent,
    Doubt,
}

async fn read(front: &Front, candidate: Candidate) -> Result<Option<Item>, OpError> {
    let Candidate { key, held, answered } = candidate;
    match judge(
        front.ring.preference(&key),
        &held,
        &answered,
        front.clocks.now_unix_ms(),
    ) {
        Verdict::Value { value, version } => item(key.name(), &value, version).map(Some),
        Verdict::Absent => Ok(None),
        Verdict::Doubt => {
            front.metrics.scan_doubt();
            match front.run(&key, Command::Get, Consistency::Quorum).await {
                Outcome::Answered {
                    answer: Answer::Value { value, version },
                    ..
                } => item(key.name(), &value, version).map(Some),
                Outcome::Answered { .. } => Ok(None),
                failed => Err(failure(front, &key, failed)),
            }
        }
    }
}

fn judge(preference: &Preference, held: &[(usize, Held)], answered: &[usize], now_unix_ms: u64) -> Verdict {
    let of_list = |node: &usize| preference.rank_of(*node).is_some();
    let newest = held
        .iter()
        .filter(|(node, _)| of_list(node))
        .max_by_key(|(_, held)| held.accepted);
    let newest = newest.map(|(_, held)| held).filter(|held| !held.accepted.is_zero());
    let Some(newest) = newest else {
        // Every quorum includes a home, so homes that all know nothing settle it.
        let homes = &preference.nodes[..preference.homes];
        return if homes.iter().all(|home| answered.contains(home)) {
            Verdict::Absent
        } else {
            Verdict::Doubt
        };
    };
    let copies = held
        .iter()
        .filter(|(node, held)| of_list(node) && held.accepted == newest.accepted);
    // Two states under one ballot are corruption, which the get reports.
    let alike = copies.clone().all(|(_, held)| held.state == newest.state);
    match &newest.state {
        Some(state) if alike && copies.count() >= preference.quorum() && !state.is_expired(now_unix_ms) => {
            match &state.value {
                Some(value) => Verdict::Value {
                    value: Arc::clone(value),
                    version: state.version,
                },
                None => Verdict::Absent,
            }
        }
        _ => Verdict::Doubt,
    }
}

/// The last key up to which all pages are complete; `None` when all are complete to the end.
fn safe_bound(pages: &[Option<PageReply>], reverse: bool) -> Option<Key> {
    let last_keys = pages
        .iter()
        .flatten()
        .filter(|page| !page.end)
        .filter_map(|page| page.records.last());
    let keys = last_keys.map(|record| record.key.clone());
    if reverse { keys.max() } else { keys.min() }
}

/// The keys of all pages up to the bound, in the order of the scan.
fn candidates(pages: Vec<Option<PageReply>>, bound: Option<&Key>, reverse: bool) -> Vec<Candidate> {
    let answered: Arc<[usize]> = pages
        .iter()
        .enumerate()
        .filter(|(_, page)| page.is_some())
        .map(|(node, _)| node)
        .collect();
    let mut keys: BTreeMap<Key, Vec<(usize, Held)>> = BTreeMap::new();
    for (node, page) in pages.into_iter().enumerate() {
        for record in page.into_iter().flat_map(|page| page.records) {
            let safe = bound.is_none_or(|bound| {
                if reverse {
                    record.key >= *bound
                } else {
                    record.key <= *bound
                }
            });
            if safe && record.key.is_data() {
                keys.entry(record.key).or_default().push((node, record.held));
            }
        }
    }
    let candidate = |(key, held)| Candidate {
        key,
        held,
        answered: Arc::clone(&answered),
    };
    if reverse {
        keys.into_iter().rev().map(candidate).collect()
    } else {
        keys.into_iter().map(candidate).collect()
    }
}

/// The pages of one range, by node, from answers that belong together; `None` for missing nodes, of which there are few enough.
async fn stable_pages(front: &Front, range: &ScanRange, records: usize) -> Result<Vec<Option<PageReply>>, OpError> {
    let nodes = front.transport.len();
    let may_be_missing = front.ring.may_be_missing();
    let mut known_floors: Vec<Option<Ballot>> = (0..nodes).map(|node| front.transport.status(node).0.floor).collect();
    for _ in 0..FLOOR_ROUNDS_MAX {
        // A suspected node would only be waited for; it is asked when it is needed.
        let suspected = (0..nodes).filter(|&node| front.transport.is_suspected(node)).count();
        let skip = suspected <= may_be_missing;
        let pages = join_all((0..nodes).map(|node| async move {
            if skip && front.transport.is_suspected(node) {
                return Err("suspected to be away".to_owned());
            }
            page(front, node, range, records).await
        }))
        .await;
        let missing = pages.iter().filter(|page| page.is_err()).count();
        if missing > may_be_missing {
            return Err(too_few(front, &pages));
        }
        let pages: Vec<Option<PageReply>> = pages.into_iter().map(Result::ok).collect();
        let floors: Vec<Option<Ballot>> = pages.iter().map(|page| page.as_ref().map(|page| page.floor)).collect();
        let still = floors
            .iter()
            .zip(&known_floors)
            .all(|(now, known)| now.is_none() || now == known);
        if missing == 0 || still {
            return Ok(pages);
        }
        known_floors = floors;
    }
    let silent = (0..nodes)
        .filter(|&node| front.transport.is_suspected(node))
        .map(|node| shown(front, node))
        .collect();
    let reason = "while a node is missing, others keep moving records to their homes; try again".to_owned();
    let answered = nodes - may_be_missing;
    Err(OpError::Unavailable {
        answered,
        needed: answered,
        of: nodes,
        silent,
        reason,
    })
}

async fn page(front: &Front, node: usize, range: &ScanRange, records: usize) -> Result<PageReply, String> {
    let text = |name: &str| Key::data(name).as_text().to_owned();
    let list = List::Keys {
        prefix: text(&range.prefix),
        after: range.after.as_deref().map(text),
        reverse: range.reverse,
    };
    let limit = u32::try_from(records).unwrap_or(u32::MAX);
    let page = front.transport.page(node, list, limit).await.map_err(|e| e.reason)?;
    // What a node holds that does not vote is no evidence of anything.
    why_not_voting(page.standing).map_or(Ok(page), |why| Err(why.to_owned()))
}

fn too_few(front: &Front, pages: &[Result<PageReply, String>]) -> OpError {
    let nodes = pages.len();
    let failed: Vec<_> = pages
        .iter()
        .enumerate()
        .filter_map(|(node, page)| page.as_ref().err().map(|e| (node, e)))
        .collect();
    let reason = failed
        .iter()
        .map(|(node, e)| format!("{}: {e}", shown(front, *node)))
        .collect::<Vec<_>>()
        .join("; ");
    OpError::Unavailable {
        answered: nodes - failed.len(),
        needed: nodes - front.ring.may_be_missing(),
        of: nodes,
        silent: failed.iter().map(|(node, _)| shown(front, *node)).collect(),
        reason,
    }
}

fn shown(front: &Front, node: usize) -> String {
    front.ring.backends()[node].to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use register::message::{Held, PageRecord, PageReply};
    use register::{Ballot, HlcTime, Key, State};

    use super::{Verdict, candidates, judge, safe_bound};
    use crate::ring::Preference;

    fn ballot(n: u64) -> Ballot {
        Ballot {
            time: HlcTime::from_unix_ms(n),
            incarnation: 1,
        }
    }

    fn held(n: u64, value: Option<&str>, expires_at_ms: Option<u64>) -> Held {
        let state = State {
            value: value.map(Arc::from),
            version: ballot(n),
            fence: 0,
            expires_at_ms,
            lineage: register::Lineage::default(),
        };
        Held {
            accepted: ballot(n),
            state: Some(state),
            promised: Ballot::ZERO,
            floor: Ballot::ZERO,
        }
    }

    fn nothing(floor: u64) -> Held {
        Held {
            accepted: Ballot::ZERO,
            state: None,
            promised: ballot(9),
            floor: ballot(floor),
        }
    }

    /// Homes 2 and 0, spare 1.
    fn preference() -> Preference {
        Preference {
            nodes: vec![2, 0, 1],
            names: ["c", "a", "b"].map(Arc::from).to_vec(),
            homes: 2,
        }
    }

    #[test]
    fn only_what_a_quorum_agrees_on_is_taken_as_it_is() {
        let judge = |held: &[(usize, Held)], answered: &[usize]| judge(&preference(), held, answered, 1_000);
        let value = Verdict::Value {
            value: "1".into(),
            version: ballot(5),
        };
        let five = || held(5, Some("1"), None);
        assert_eq!(judge(&[(0, five()), (2, five())], &[0, 1, 2]), value);
        assert_eq!(
            judge(&[(0, five()), (1, five())], &[0, 1]),
            value,
            "home and spare are a quorum too"
        );
        assert_eq!(judge(&[(0, five())], &[0, 1]), Verdict::Doubt, "one copy only");
        assert_eq!(
            judge(&[(0, five()), (2, held(4, Some("0"), None))], &[0, 1, 2]),
            Verdict::Doubt,
            "a copy behind"
        );
        let newer = held(6, Some("2"), None);
        assert_eq!(
            judge(&[(0, five()), (2, five()), (1, newer)], &[0, 1, 2]),
            Verdict::Doubt,
            "something newer about"
        );
        assert_eq!(
            judge(&[(0, five()), (2, held(5, Some("2"), None))], &[0, 1, 2]),
            Verdict::Doubt,
            "corruption"
        );
        let (ended, running) = (held(5, Some("1"), Some(1_000)), held(5, Some("1"), Some(1_001)));
        assert_eq!(
            judge(&[(0, ended.clone()), (2, ended)], &[0, 1, 2]),
            Verdict::Doubt,
            "expired"
        );
        assert_eq!(judge(&[(0, running.clone()), (2, running)], &[0, 1, 2]), value);
        let deleted = || held(7, None, None);
        assert_eq!(judge(&[(0, deleted()), (2, deleted())], &[0, 1, 2]), Verdict::Absent);
        assert_eq!(judge(&[(0, deleted())], &[0, 1, 2]), Verdict::Doubt);
        assert_eq!(
            judge(&[(0, nothing(3)), (2, nothing(0))], &[0, 1, 2]),
            Verdict::Absent,
            "both homes know nothing"
        );
        assert_eq!(judge(&[(0, nothing(3))], &[0, 1]), Verdict::Doubt, "a home is missing");
        assert_eq!(
            judge(&[(7, five()), (8, five())], &[7, 8]),
            Verdict::Doubt,
            "nodes that are not of the list do not count"
        );
    }

    fn page(keys: &[&str], end: bool) -> Option<PageReply> {
        let records = keys
            .iter()
            .map(|key| PageRecord {
                key: Key::data(key),
                commit: 1,
                held: held(5, Some("1"), None),
                hint_for: None,
            })
            .collect();
        Some(PageReply {
            clock: HlcTime::ZERO,
            floor: Ballot::ZERO,
            incarnation: 1,
            standing: register::Standing::Voting,
            records,
            end,
        })
    }

    #[test]
    fn nothing_behind_the_shortest_page_is_judged() {
        let names = |pages: Vec<Option<PageReply>>, reverse: bool| {
            let bound = safe_bound(&pages, reverse);
            let keys: Vec<String> = candidates(pages, bound.as_ref(), reverse)
                .into_iter()
                .map(|c| c.key.name().to_owned())
                .collect();
            (keys.join(""), bound.map(|b| b.name().to_owned()))
        };
        // The second page might hold another "d" or "e".
        assert_eq!(
            names(
                vec![page(&["a", "d", "e"], false), page(&["b", "c"], false), None],
                false
            ),
            ("abc".into(), Some("c".into()))
        );
        assert_eq!(
            names(vec![page(&["a", "d"], true), page(&["b"], true)], false),
            ("abd".into(), None)
        );
        assert_eq!(
            names(vec![page(&["a", "z"], true), page(&["b", "c"], false)], false),
            ("abc".into(), Some("c".into()))
        );
        assert_eq!(
            names(vec![page(&["e", "d", "a"], false), page(&["c", "b"], false)], true),
            ("edcb".into(), Some("b".into()))
        );
        assert_eq!(names(vec![page(&[], true), None], false), (String::new(), None));
    }
}
