//! A cheap start: active vertices of one side (*near*) bid for their best partners on the other (*far*).
//!
//! This is the auction of Bertsekas (*A distributed algorithm for the assignment problem*, 1979). The bidder raises the potential of its
//! best partner so far that its second choice (or staying unmatched) is better by `epsilon`, takes it, and whoever had it bids next. With
//! `epsilon` 0 bids are never too high, and it is the augmenting row reduction of Jonker and Volgenant (1987). Every state in between
//! is as good as the one at the end, so bidding may stop anywhere.

use std::collections::VecDeque;

use crate::graph::{NONE, Side};
use crate::limit::{Enough, Meter};

/// Lets all active vertices of `near` bid, up to `bids_each` times as often as there are bidders. Reduced costs do not become negative;
/// those of matched edges are at most `epsilon`, if they were. If stopped, this holds too.
pub(crate) fn bid(
    near: &mut Side,
    far: &mut Side,
    epsilon: i64,
    bids_each: usize,
    meter: &mut Meter<'_>,
) -> Result<(), Enough> {
    let mut bidders: VecDeque<u32> = near
        .numbers()
        .filter(|&vertex| near.vertex(vertex).is_active())
        .collect();
    let mut bids = bidders.len().saturating_mul(bids_each);
    while let Some(bidder) = bidders.pop_front() {
        if bids == 0 {
            break;
        }
        bids -= 1;
        let unmatched = -near.vertex(bidder).floor;
        let (mut best, mut best_at) = (unmatched, NONE);
        let (mut second, mut second_at) = (unmatched, NONE);
        let mut scanned = 1;
        for edge in near.edges(bidder) {
            if edge.number() >= second {
                break;
            }
            scanned += 1;
            let offer = edge.number() + far.vertex(edge.vertex()).above_floor();
            if offer < best {
                (second, second_at) = (best, best_at);
                (best, best_at) = (offer, edge.vertex());
            } else if offer < second {
                (second, second_at) = (offer, edge.vertex());
            }
        }
        meter.add(scanned)?;
        near.vertex_mut(bidder).potential = -second;
        if best_at == NONE {
            continue; // nothing is better than staying unmatched: it lies at its floor now
        }
        let mut wanted = best_at;
        if epsilon == 0 && best == second && far.vertex(wanted).mate != NONE {
            // Taking it would only pass the question on. A tie with a free partner, or with staying unmatched, settles it.
            if second_at == NONE || far.vertex(second_at).mate != NONE {
                continue;
            }
            wanted = second_at;
        }
        let target = far.vertex_mut(wanted);
        if wanted == best_at {
            target.potential += second - best + epsilon;
        }
        let loser = std::mem::replace(&mut target.mate, bidder);
        near.vertex_mut(bidder).mate = wanted;
        if loser != NONE {
            near.vertex_mut(loser).mate = NONE;
            if near.vertex(loser).is_active() {
                bidders.push_back(loser);
            }
        }
    }
    Ok(())
}
