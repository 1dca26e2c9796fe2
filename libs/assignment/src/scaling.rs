//! Good prices for a problem about which nothing is known yet, by an auction with ε-scaling.
//!
//! Searches alone would find the optimum from any prices, but far from it every path is long. In an auction whose bids are too high by a
//! large ε prices are soon about right everywhere; another one with a smaller ε, starting from those, makes them better (Bertsekas,
//! *The auction algorithm: a distributed relaxation method for the assignment problem*, 1988). As vertices may stay unmatched, whoever was
//! made too dear by an early auction and is wanted by nobody bids in turn for partners of its own: the combination of forward and reverse
//! auction of Bertsekas, Castañón and Tsaknakis (*Reverse auction and the solution of inequality constrained assignment problems*, 1993).
//!
//! All this only estimates. Reduced costs are never negative, and in the end only those matches are kept that are tight, so what
//! remains to be done exactly is what bids and searches do anyway, but little of it.

use crate::bidding::bid;
use crate::graph::{FAR, NONE, Side};
use crate::limit::{Enough, Meter};

/// The first ε is the greatest possible gain divided by this.
const FIRST_PART: i64 = 8;

/// Each ε is the one before divided by this.
const FACTOR: i64 = 5;

/// The last ε is about the typical difference between a row's candidates divided by this. Measured: with a smaller one auctions
/// scan more edges than the searches saved.
const LAST_PART: i64 = 64;

/// Bids per bidder and auction; usually a tenth is enough. What goes on longer is a fight of many for few, for which searches are better.
const BIDS_EACH: usize = 100;

/// How much costs differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    /// The most that matching a row can save.
    pub(crate) most: i64,
    /// Between the best and the worst candidate of a row, on the average.
    pub(crate) typical: i64,
}

/// Finds prices from a proper state; the new one is proper too, also when stopped.
pub(crate) fn scale(near: &mut Side, far: &mut Side, spread: Spread, meter: &mut Meter<'_>) -> Result<(), Enough> {
    let mut epsilon = spread.most / FIRST_PART;
    let last = (spread.typical / LAST_PART).max(1);
    let mut outcome = Ok(());
    while epsilon >= last && outcome.is_ok() {
        outcome = bid(near, far, epsilon, BIDS_EACH, meter).and_then(|()| bid(far, near, epsilon, BIDS_EACH, meter));
        epsilon /= FACTOR;
        let is_over = epsilon < last || outcome.is_err();
        let slack = if is_over { 0 } else { epsilon };
        tighten(near, far, slack, meter);
        tighten(far, near, slack, meter);
    }
    outcome
}

/// Lowers the potentials of `near` as far as edges allow, and parts those whose edge's reduced cost is still above `slack`.
fn tighten(near: &mut Side, far: &mut Side, slack: i64, meter: &mut Meter<'_>) {
    for number in near.numbers() {
        let vertex = near.vertex(number);
        let mate = vertex.mate;
        if mate == NONE && !vertex.is_active() {
            continue;
        }
        let (mut value, mut mate_offer) = (-vertex.floor, FAR);
        let mut scanned = 1;
        for edge in near.edges(number) {
            if edge.number() > value && (mate == NONE || mate_offer != FAR) {
                break;
            }
            scanned += 1;
            let offer = edge.number() + far.vertex(edge.vertex()).above_floor();
            value = value.min(offer);
            if edge.vertex() == mate {
                mate_offer = offer;
            }
        }
        meter.spend(scanned);
        let vertex = near.vertex_mut(number);
        vertex.potential = -value;
        if mate != NONE && mate_offer - value > slack {
            vertex.mate = NONE;
            far.vertex_mut(mate).mate = NONE;
        }
    }
}
