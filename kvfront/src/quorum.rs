//! Whether enough nodes are there: keeps `/ready` and the gauges up to date, and tells a wrong clock of our own from sick nodes.

use std::sync::Arc;
use std::time::Duration;

use register::Standing;
use service::{Heartbeat, Shutdown};
use tokio::time::Instant;

use crate::front::Front;
use crate::transport::NodeStatus;

/// How often it is looked whether a quorum of nodes is there.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// `/ready` turns to 503 when no quorum was there for this long.
pub(crate) const MAX_SILENCE: Duration = Duration::from_secs(2);

/// Runs until the stop. Says in the log when a quorum is missing for long, and when it is there again.
pub(crate) async fn watch(front: Arc<Front>, beat: Heartbeat, stop: Shutdown) {
    let mut missing_since: Option<Instant> = None;
    let mut told = false;
    loop {
        match missing(&front) {
            None => {
                beat.ok();
                if told {
                    tracing::info!("a quorum of nodes answers again");
                }
                (missing_since, told) = (None, false);
            }
            Some(missing) => {
                if !told && missing_since.get_or_insert_with(Instant::now).elapsed() >= MAX_SILENCE {
                    tracing::warn!(missing, "no quorum of nodes");
                    told = true;
                }
                beat.failed(missing);
            }
        }
        if !stop.sleep(CHECK_EVERY).await {
            return;
        }
    }
}

/// Why there is no quorum, if there is none.
fn missing(front: &Front) -> Option<String> {
    let statuses: Vec<_> = (0..front.transport.len())
        .map(|node| front.transport.status(node).0)
        .collect();
    for (status, backend) in statuses.iter().zip(front.ring.backends()) {
        front.metrics.suspected(&backend.name, status.suspected);
        front
            .metrics
            .voting(&backend.name, status.standing == Some(Standing::Voting));
    }
    let away = |node: usize| {
        let status = &statuses[node];
        status.suspected || status.standing != Some(Standing::Voting)
    };
    let count = (0..statuses.len()).filter(|&node| away(node)).count();
    if count <= front.ring.may_be_missing() && front.is_learnt() {
        return None;
    }
    let names = front.describe_nodes(away);
    let clock_error = match front.clocks.ahead_of_wall_ms() {
        Some(ahead_ms) => Some(set_back_error(ahead_ms)),
        None => own_clock_error(&statuses, front.ring.may_be_missing()),
    };
    Some(match clock_error {
        Some(clock) => format!("{clock}; waiting for a quorum of nodes; not there: {names}"),
        None => format!("waiting for a quorum of nodes; not there: {names}"),
    })
}

/// What to do about a wall clock that was ahead and was mended, which the nodes go on refusing.
fn set_back_error(ahead_ms: u64) -> String {
    format!(
        "this machine's clock was set back, and the versions drawn before are {ahead_ms} ms ahead of it; restart this kvfront"
    )
}

/// What is wrong with this machine's clock, when more nodes than may be missing differ from it in the same direction.
pub(crate) fn own_clock_error(statuses: &[NodeStatus], may_be_missing: usize) -> Option<String> {
    let skewed = statuses.iter().filter(|status| status.is_skewed);
    let mut ahead_ms: Vec<i64> = skewed.filter_map(|status| status.clock_ahead_ms).collect();
    ahead_ms.sort_unstable();
    let median_ms = *ahead_ms.get(ahead_ms.len() / 2)?;
    let alike = ahead_ms.iter().filter(|ms| ms.signum() == median_ms.signum()).count();
    let direction = if median_ms > 0 { "behind" } else { "ahead of" };
    (alike > may_be_missing).then(|| {
        let (by_ms, nodes) = (median_ms.unsigned_abs(), statuses.len());
        format!("this machine's clock is {by_ms} ms {direction} the clocks of {alike} of {nodes} nodes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ahead_ms: Option<i64>, is_skewed: bool) -> NodeStatus {
        NodeStatus {
            suspected: is_skewed,
            learnt: false,
            last_answer_ms_ago: None,
            error: None,
            clock_ahead_ms: ahead_ms,
            clock_refusals: 0,
            is_skewed,
            standing: None,
            incarnation: None,
            commit: None,
            floor: None,
        }
    }

    #[test]
    fn a_clock_of_our_own_that_is_off_is_told_from_a_node_s() {
        let fine = || status(Some(3), false);
        let off = |ms| status(Some(ms), true);
        assert_eq!(
            own_clock_error(&[fine(), fine(), off(60_000)], 1),
            None,
            "one sick node"
        );
        assert_eq!(
            own_clock_error(&[off(-60_000), fine(), off(60_000)], 1),
            None,
            "two sick nodes"
        );
        let ahead = own_clock_error(&[off(-60_000), off(-60_007), off(-59_990)], 1).unwrap();
        assert_eq!(
            ahead,
            "this machine's clock is 60000 ms ahead of the clocks of 3 of 3 nodes"
        );
        let behind = own_clock_error(&[off(700), fine(), off(800)], 1).unwrap();
        assert!(behind.contains("800 ms behind the clocks of 2 of 3"), "{behind}");
        assert_eq!(own_clock_error(&[status(None, true)], 0), None);
    }
}
