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
//!
//! Of each partition one node tells the values: the first of its list that is there. The others tell the ballots of what they hold, and a
//! digest by which two copies are compared. What a node tells is copied once, from the message into the answer.

use std::sync::Arc;

use futures_util::future::join_all;
use kv_api::{write_json_text, write_open_item};
use register::change::{Answer, Command};
use register::hashing::{PARTITIONS, partition_of_text};
use register::proposer::{Consistency, Outcome};
use register::scan::{self, Partitions, ScanRecord, Told};
use register::{Ballot, Key};

use crate::front::{Asked, Front};
use crate::ops::{OpError, failure};
use crate::ring::Preference;
use crate::transport::{ScanPage, why_not_voting};

/// Doubtful keys that are read at a time.
pub(crate) const PARALLEL_READS: usize = 32;
/// Ranges one call goes through before it answers with fewer items than asked for, and a `next` (a desert of deleted keys).
const ROUNDS_MAX: usize = 16;
/// Times a range is asked again because a floor rose, or because a node that was to tell values did not answer.
const PAGE_ROUNDS_MAX: usize = 4;
/// Bytes of values after which a page of items ends early, with a `next`.
const ANSWER_MAX_BYTES: usize = 8 << 20;
/// Records a node is asked for beyond its share, for tombstones and copies among them.
const PAGE_MARGIN: usize = 16;
/// How many standard deviations beyond its share: keys are spread by their hashes.
const PAGE_DEVIATIONS: usize = 3;
/// Bytes of an item besides its key and value.
const ITEM_BYTES: usize = 80;

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

/// One page of items: a [`kv_api::ScanAnswer`] as JSON.
pub(crate) async fn scan(front: &Front, mut range: ScanRange, limit: usize) -> Result<Vec<u8>, OpError> {
    let mut items = Items::new(limit);
    for _ in 0..ROUNDS_MAX {
        let pages = stable_pages(front, &range, limit - items.count).await?;
        let records = records(front, &pages, range.reverse)?;
        let bound = safe_bound(&pages, &records, range.reverse);
        let now_unix_ms = front.clocks.now_unix_ms();
        let judged = judge_all(&records, bound, range.reverse, limit - items.count, |key, copies| {
            let preference = front.ring.preference_of_partition(partition_of_text(key));
            preference.map_or(Verdict::Doubt, |preference| {
                judge(preference, copies, |node| records[node].is_some(), now_unix_ms)
            })
        });
        let mut read = read_all(front, &judged).await.into_iter();
        for (key, verdict) in judged {
            let name = key.get(1..).unwrap_or_default();
            match verdict {
                Verdict::Value { value, version } => items.add(name, value, version),
                Verdict::Absent => {}
                Verdict::Doubt => {
                    if let Some((value, version)) = read.next().transpose()?.flatten() {
                        items.add(name, &value, version);
                    }
                }
            }
            if items.are_enough() {
                return Ok(items.end(Some(name)));
            }
            range.after = Some(name.to_owned());
        }
        let Some(bound) = bound else {
            return Ok(items.end(None));
        };
        range.after = Some(bound.get(1..).unwrap_or_default().to_owned());
    }
    Ok(items.end(range.after.as_deref()))
}

/// The answer as it is being written.
struct Items {
    out: Vec<u8>,
    limit: usize,
    count: usize,
    value_bytes: usize,
}

impl Items {
    fn new(limit: usize) -> Self {
        Self {
            out: b"{\"items\":[".to_vec(),
            limit,
            count: 0,
            value_bytes: 0,
        }
    }

    fn add(&mut self, name: &str, value: &str, version: Ballot) {
        if self.count > 0 {
            self.out.push(b',');
        } else {
            // The others will be about as large.
            let room = self.limit * (name.len() + value.len() + ITEM_BYTES);
            self.out.reserve(room.min(ANSWER_MAX_BYTES));
        }
        write_open_item(&mut self.out, name, value, version);
        self.out.push(b'}');
        self.count += 1;
        self.value_bytes += value.len();
    }

    fn are_enough(&self) -> bool {
        self.count >= self.limit || self.value_bytes >= ANSWER_MAX_BYTES
    }

    fn end(mut self, next: Option<&str>) -> Vec<u8> {
        self.out.extend_from_slice(b"],\"next\":");
        match next {
            Some(next) => write_json_text(&mut self.out, next),
            None => self.out.extend_from_slice(b"null"),
        }
        self.out.push(b'}');
        self.out
    }
}

/// What the pages say about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict<'a> {
    Value { value: &'a str, version: Ballot },
    Absent,
    Doubt,
}

/// A copy of a key: the node, and what it tells.
type KeyCopy<'a> = (usize, ScanRecord<'a>);

fn judge<'a>(
    preference: &Preference,
    copies: &[KeyCopy<'a>],
    answered: impl Fn(usize) -> bool,
    now_unix_ms: u64,
) -> Verdict<'a> {
    let of_list = copies.iter().filter(|(node, _)| preference.rank_of(*node).is_some());
    let newest = of_list.clone().map(|(_, record)| record.accepted).max();
    let Some(newest) = newest.filter(|newest| !newest.is_zero()) else {
        // Every quorum includes a home, so homes that all know nothing settle it.
        let homes = &preference.nodes[..preference.homes];
        return if homes.iter().all(|&home| answered(home)) {
            Verdict::Absent
        } else {
            Verdict::Doubt
        };
    };
    let (mut count, mut digest, mut told) = (0, None, None);
    for (_, record) in of_list.filter(|(_, record)| record.accepted == newest) {
        if *digest.get_or_insert(record.digest) != record.digest {
            // Two states under one ballot are corruption, which the get reports.
            return Verdict::Doubt;
        }
        count += 1;
        told = told.or(record.told);
    }
    let is_expired = |told: &Told<'_>| told.value.is_some() && told.expires_at_ms.is_some_and(|at| at <= now_unix_ms);
    match told {
        Some(told) if count >= preference.quorum() && !is_expired(&told) => match told.value {
            Some(value) => Verdict::Value {
                value,
                version: told.version.ballot(),
            },
            None => Verdict::Absent,
        },
        _ => Verdict::Doubt,
    }
}

/// Reads the keys in doubt, each by a get of its own: what they hold, in their order.
async fn read_all(front: &Front, judged: &[(&str, Verdict<'_>)]) -> Vec<Result<Option<(Arc<str>, Ballot)>, OpError>> {
    let in_doubt = judged.iter().filter(|(_, verdict)| *verdict == Verdict::Doubt);
    let keys: Vec<Key> = in_doubt.filter_map(|(key, _)| Key::from_text(key)).collect();
    if keys.is_empty() {
        return Vec::new();
    }
    let get = |key: &Key| {
        front.metrics.scan_doubt();
        Asked {
            key: key.clone(),
            command: Command::Get,
            consistency: Consistency::Quorum,
            request: None,
        }
    };
    let outcomes = front.run_all(keys.iter().map(get).collect(), PARALLEL_READS).await;
    let read = |(key, outcome)| match outcome {
        Outcome::Answered {
            answer: Answer::Value { value, version },
            ..
        } => Ok(Some((value, version))),
        Outcome::Answered { .. } => Ok(None),
        failed => Err(failure(front, key, failed)),
    };
    keys.iter().zip(outcomes).map(read).collect()
}

/// The records of each page, by node; none for missing nodes.
fn records<'a>(
    front: &Front,
    pages: &'a [Option<ScanPage>],
    reverse: bool,
) -> Result<Vec<Option<Vec<ScanRecord<'a>>>>, OpError> {
    let read = |(node, page): (usize, &'a Option<ScanPage>)| {
        let records = page.as_ref().map(|page| page.records(reverse)).transpose();
        records.map_err(|error| OpError::Internal(format!("{}: its page: {error}", shown(front, node))))
    };
    pages.iter().enumerate().map(read).collect()
}

/// The last key up to which all pages are complete; `None` when all are complete to the end.
fn safe_bound<'a>(
    pages: &[Option<ScanPage>],
    records: &[Option<Vec<ScanRecord<'a>>>],
    reverse: bool,
) -> Option<&'a str> {
    let last_key = |(page, records): (&Option<ScanPage>, &Option<Vec<ScanRecord<'a>>>)| match (page, records) {
        (Some(page), Some(records)) if !page.head.end => records.last().map(|record| record.key),
        _ => None,
    };
    let keys = pages.iter().zip(records).filter_map(last_key);
    if reverse { keys.max() } else { keys.min() }
}

/// Merges the records: the keys of all pages up to the bound in the order of the scan, each with what `judge` says of its copies, until
/// there are `wanted` values or too many bytes of them. Data keys only.
fn judge_all<'a>(
    records: &[Option<Vec<ScanRecord<'a>>>],
    bound: Option<&str>,
    reverse: bool,
    wanted: usize,
    judge: impl Fn(&'a str, &[KeyCopy<'a>]) -> Verdict<'a>,
) -> Vec<(&'a str, Verdict<'a>)> {
    let mut ahead: Vec<&[ScanRecord<'a>]> = records
        .iter()
        .map(|records| records.as_deref().unwrap_or_default())
        .collect();
    let (mut judged, mut copies) = (Vec::with_capacity(wanted), Vec::with_capacity(ahead.len()));
    let (mut values, mut value_bytes) = (0, 0);
    while values < wanted && value_bytes < ANSWER_MAX_BYTES {
        let next_keys = ahead.iter().filter_map(|ahead| ahead.first()).map(|record| record.key);
        let Some(key) = (if reverse { next_keys.max() } else { next_keys.min() }) else {
            break;
        };
        let is_behind = |bound: &str| if reverse { key < bound } else { key > bound };
        if bound.is_some_and(is_behind) {
            break;
        }
        copies.clear();
        for (node, ahead) in ahead.iter_mut().enumerate() {
            if let Some((record, behind)) = ahead.split_first()
                && record.key == key
            {
                copies.push((node, *record));
                *ahead = behind;
            }
        }
        if !key.starts_with(Key::DATA) {
            continue;
        }
        let verdict = judge(key, &copies);
        if let Verdict::Value { value, .. } = &verdict {
            values += 1;
            value_bytes += value.len();
        }
        judged.push((key, verdict));
    }
    judged
}

/// How many records to ask a node for that is a home of so many partitions, when `wanted` keys are to be judged.
fn page_limit(home_partitions: usize, wanted: usize) -> usize {
    // Binomial: each key is one of the node's with the same chance.
    let share = wanted * home_partitions / PARTITIONS;
    let deviation = (share * (PARTITIONS - home_partitions) / PARTITIONS).isqrt();
    (share + PAGE_DEVIATIONS * deviation).min(wanted) + PAGE_MARGIN
}

/// The pages of one range, by node, from answers that belong together; `None` for missing nodes, of which there are few enough.
async fn stable_pages(front: &Front, range: &ScanRange, wanted: usize) -> Result<Vec<Option<ScanPage>>, OpError> {
    let nodes = front.transport.len();
    let may_be_missing = front.ring.may_be_missing();
    let homes = front.ring.home_partitions();
    let mut known_floors: Vec<Option<Ballot>> = (0..nodes).map(|node| front.transport.status(node).0.floor).collect();
    // Why those have failed that were asked.
    let mut failed: Vec<Option<String>> = vec![None; nodes];
    for _ in 0..PAGE_ROUNDS_MAX {
        // A suspected node would only be waited for; it is asked when it is needed.
        let suspected = (0..nodes).filter(|&node| front.transport.is_suspected(node)).count();
        let skip = suspected <= may_be_missing;
        let leave_out: Vec<Option<String>> = (0..nodes)
            .map(|node| match &failed[node] {
                None if skip && front.transport.is_suspected(node) => Some("suspected to be away".to_owned()),
                failed => failed.clone(),
            })
            .collect();
        let all_there = leave_out.iter().all(Option::is_none);
        let tell = front.ring.first_of(|node| leave_out[node].is_none());
        let ask = |((node, why_not), tell): ((usize, &Option<String>), Partitions)| {
            let why_not = why_not.clone();
            // Where a home is missing, spares may have any share.
            let share = if all_there { homes[node] } else { PARTITIONS };
            async move {
                match why_not {
                    Some(why) => Err(why),
                    None => page(front, node, range, tell, page_limit(share, wanted)).await,
                }
            }
        };
        let pages = join_all(leave_out.iter().enumerate().zip(tell).map(ask)).await;
        let missing = pages.iter().filter(|page| page.is_err()).count();
        if missing > may_be_missing {
            return Err(too_few(front, &pages));
        }
        let mut is_untold = false;
        for (node, page) in pages.iter().enumerate() {
            if let Err(why) = page
                && leave_out[node].is_none()
            {
                // What it was to tell, somebody else has to.
                failed[node] = Some(why.clone());
                is_untold = true;
            }
        }
        let pages: Vec<Option<ScanPage>> = pages.into_iter().map(Result::ok).collect();
        let floors: Vec<Option<Ballot>> = pages
            .iter()
            .map(|page| page.as_ref().map(|page| page.head.floor))
            .collect();
        let still = floors
            .iter()
            .zip(&known_floors)
            .all(|(now, known)| now.is_none() || now == known);
        if missing == 0 || still && !is_untold {
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

async fn page(
    front: &Front,
    node: usize,
    range: &ScanRange,
    tell: Partitions,
    limit: usize,
) -> Result<ScanPage, String> {
    let text = |name: &str| Key::data(name).as_text().to_owned();
    let range = scan::ScanRange {
        prefix: text(&range.prefix),
        after: range.after.as_deref().map(text),
        reverse: range.reverse,
        tell,
    };
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let page = front.transport.scan(node, range, limit).await.map_err(|e| e.reason)?;
    // What a node holds that does not vote is no evidence of anything.
    why_not_voting(page.head.standing).map_or(Ok(page), |why| Err(why.to_owned()))
}

fn too_few(front: &Front, pages: &[Result<ScanPage, String>]) -> OpError {
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

    use register::scan::{BallotBytes, ScanRecord, Told};
    use register::{Ballot, HlcTime};

    use super::{KeyCopy, Verdict, judge, judge_all, page_limit, safe_bound};
    use crate::ring::{PARTITIONS, Preference};
    use crate::transport::ScanPage;

    fn ballot(n: u64) -> Ballot {
        Ballot {
            time: HlcTime::from_unix_ms(n),
            incarnation: 1,
        }
    }

    /// The bytes of ballots 0 to 9, for as long as the tests run.
    fn bytes(n: usize) -> BallotBytes<'static> {
        static BYTES: std::sync::LazyLock<Vec<[u8; 16]>> =
            std::sync::LazyLock::new(|| (0..10).map(|n| ballot(n).to_bytes()).collect());
        BallotBytes::new(&BYTES[n]).unwrap()
    }

    /// A copy whose node tells it.
    fn told(n: usize, value: Option<&str>, expires_at_ms: Option<u64>) -> ScanRecord<'_> {
        ScanRecord {
            key: "dk",
            accepted: bytes(n),
            digest: value.map_or(0, |value| value.len() as u64 + 1),
            told: Some(Told {
                value,
                version: bytes(n),
                expires_at_ms,
            }),
        }
    }

    /// A copy whose node only compares it.
    fn compared(n: usize, value: &str) -> ScanRecord<'_> {
        ScanRecord {
            told: None,
            ..told(n, Some(value), None)
        }
    }

    fn nothing() -> ScanRecord<'static> {
        ScanRecord {
            key: "dk",
            accepted: BallotBytes::ZERO,
            digest: 0,
            told: None,
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
        let judge = |copies: &[KeyCopy<'static>], answered: &[usize]| {
            judge(&preference(), copies, |node| answered.contains(&node), 1_000)
        };
        let value = Verdict::Value {
            value: "1",
            version: ballot(5),
        };
        let (five, also_five) = (told(5, Some("1"), None), compared(5, "1"));
        assert_eq!(judge(&[(0, also_five), (2, five)], &[0, 1, 2]), value);
        assert_eq!(
            judge(&[(0, five), (1, also_five)], &[0, 1]),
            value,
            "home and spare are a quorum too"
        );
        assert_eq!(judge(&[(0, five)], &[0, 1]), Verdict::Doubt, "one copy only");
        assert_eq!(
            judge(&[(0, also_five), (1, also_five)], &[0, 1]),
            Verdict::Doubt,
            "nobody tells the value"
        );
        for behind in [compared(4, "1"), nothing()] {
            assert_eq!(
                judge(&[(0, five), (2, behind)], &[0, 1, 2]),
                Verdict::Doubt,
                "a copy behind"
            );
        }
        assert_eq!(
            judge(&[(0, five), (1, compared(4, "0")), (2, also_five)], &[0, 1, 2]),
            value,
            "a third copy behind"
        );
        assert_eq!(
            judge(&[(0, five), (2, also_five), (1, compared(6, "2"))], &[0, 1, 2]),
            Verdict::Doubt,
            "something newer about"
        );
        assert_eq!(
            judge(
                &[(0, told(4, Some("0"), None)), (2, also_five), (1, also_five)],
                &[0, 1, 2]
            ),
            Verdict::Doubt,
            "the one who tells is behind"
        );
        assert_eq!(
            judge(&[(0, five), (2, compared(5, "22"))], &[0, 1, 2]),
            Verdict::Doubt,
            "corruption"
        );
        let (ended, running) = (told(5, Some("1"), Some(1_000)), told(5, Some("1"), Some(1_001)));
        assert_eq!(judge(&[(0, ended), (2, ended)], &[0, 1, 2]), Verdict::Doubt, "expired");
        assert_eq!(judge(&[(0, running), (2, running)], &[0, 1, 2]), value);
        let deleted = told(7, None, None);
        assert_eq!(judge(&[(0, deleted), (2, deleted)], &[0, 1, 2]), Verdict::Absent);
        assert_eq!(judge(&[(0, deleted)], &[0, 1, 2]), Verdict::Doubt);
        assert_eq!(
            judge(&[(0, nothing()), (2, nothing())], &[0, 1, 2]),
            Verdict::Absent,
            "mere promises"
        );
        assert_eq!(judge(&[(0, nothing())], &[0, 1]), Verdict::Doubt, "a home is missing");
        assert_eq!(
            judge(&[(7, five), (8, five)], &[7, 8]),
            Verdict::Doubt,
            "not of the list"
        );
    }

    /// A page of these keys, all of them held alike.
    fn page(keys: &'static [&'static str], end: bool) -> ScanPage {
        let records: Vec<_> = keys.iter().map(|key| ScanRecord { key, ..nothing() }).collect();
        ScanPage::of(end, &records)
    }

    /// The keys that are judged, with the nodes that hold them, and the bound.
    fn merged(pages: &[Option<ScanPage>], reverse: bool, wanted: usize) -> (Vec<(String, Vec<usize>)>, Option<String>) {
        let records: Vec<_> = pages
            .iter()
            .map(|page| page.as_ref().map(|page| page.records(reverse).unwrap()))
            .collect();
        let bound = safe_bound(pages, &records, reverse);
        let holders = std::cell::RefCell::new(Vec::new());
        let judged = judge_all(&records, bound, reverse, wanted, |key, copies| {
            let nodes = copies.iter().map(|(node, _)| *node).collect();
            holders.borrow_mut().push((key.to_owned(), nodes));
            Verdict::Value {
                value: "1",
                version: ballot(1),
            }
        });
        assert_eq!(judged.len(), holders.borrow().len());
        (holders.into_inner(), bound.map(str::to_owned))
    }

    #[test]
    fn only_keys_that_every_page_reaches_are_judged() {
        let expected = |keys: &[(&str, &[usize])]| -> Vec<(String, Vec<usize>)> {
            keys.iter()
                .map(|(key, nodes)| ((*key).to_owned(), nodes.to_vec()))
                .collect()
        };
        let pages = [
            Some(page(&["da", "db", "dd"], false)),
            None,
            Some(page(&["da", "dc", "de"], false)),
            Some(page(&["db"], true)),
        ];
        let all: &[(&str, &[usize])] = &[("da", &[0, 2]), ("db", &[0, 3]), ("dc", &[2]), ("dd", &[0])];
        assert_eq!(merged(&pages, false, 9), (expected(all), Some("dd".to_owned())));
        assert_eq!(merged(&pages, false, 2).0, expected(&all[..2]), "as many as wanted");
        let backwards = [Some(page(&["de", "db", "da"], false)), Some(page(&["de", "dc"], false))];
        assert_eq!(
            merged(&backwards, true, 9),
            (expected(&[("de", &[0, 1]), ("dc", &[1])]), Some("dc".to_owned()))
        );
        let ended = [Some(page(&["da", "la"], true)), Some(page(&[], true))];
        assert_eq!(merged(&ended, false, 9), (expected(&[("da", &[0])]), None), "no locks");
    }

    #[test]
    fn a_page_out_of_order_is_no_page() {
        assert!(page(&["da", "db"], true).records(false).is_ok());
        assert!(page(&["db", "da"], true).records(true).is_ok());
        for (keys, reverse) in [
            (["db", "da"], false),
            (["da", "db"], true),
            (["da", "da"], false),
            (["da", "da"], true),
        ] {
            let records: Vec<_> = keys.iter().map(|key| ScanRecord { key, ..nothing() }).collect();
            assert!(
                ScanPage::of(true, &records).records(reverse).is_err(),
                "{keys:?} {reverse}"
            );
        }
    }

    #[test]
    fn a_node_is_asked_for_its_share_and_some() {
        assert_eq!(page_limit(PARTITIONS, 100), 100 + 16);
        assert_eq!(page_limit(PARTITIONS / 2, 1_000), 500 + 3 * 15 + 16);
        assert_eq!(page_limit(PARTITIONS / 2, 1), 16);
    }
}
