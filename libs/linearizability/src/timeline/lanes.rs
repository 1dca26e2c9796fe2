//! Who is drawn where, and when.

use std::collections::BTreeMap;

use crate::history::{Entry, NEVER, Op, Time};

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: Time,
    /// Its place in the history.
    pub(super) entry: usize,
    pub(super) is_call: bool,
}

/// One column (or row) of operations that do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    /// `None` for what nobody asked for.
    pub(super) client: Option<u32>,
}

/// The lanes of a history, and what happens in which order.
pub(super) struct Layout {
    pub(super) lanes: Vec<Lane>,
    /// By entry: its lane.
    pub(super) lane_of: Vec<usize>,
    /// Answers after calls of the same moment: such operations overlap.
    pub(super) events: Vec<Event>,
}

impl Layout {
    /// Lays out a history that is sorted by call. A client with several operations at once gets several lanes.
    pub(super) fn of(history: &[Entry]) -> Self {
        let mut by_client: BTreeMap<(bool, u32), Vec<Time>> = BTreeMap::new();
        let mut places = Vec::new();
        for entry in history {
            let nobody = matches!(entry.op, Op::End(_));
            let client = (nobody, if nobody { 0 } else { entry.client });
            let free_from = by_client.entry(client).or_default();
            // An end takes no time in its lane: it is a moment from which on something may happen.
            let until = if nobody { entry.called } else { entry.returned };
            let lane = free_from.iter().position(|&free| free != NEVER && free < entry.called);
            let lane = lane.unwrap_or_else(|| {
                free_from.push(0);
                free_from.len() - 1
            });
            free_from[lane] = until;
            places.push((client, lane));
        }
        let mut lanes = Vec::new();
        let mut first_of = BTreeMap::new();
        for (&(nobody, client), used) in &by_client {
            first_of.insert((nobody, client), lanes.len());
            let lane = Lane {
                client: (!nobody).then_some(client),
            };
            lanes.extend(used.iter().map(|_| lane));
        }
        Self {
            lanes,
            lane_of: places
                .into_iter()
                .map(|(client, lane)| first_of[&client] + lane)
                .collect(),
            events: events(history),
        }
    }
}

fn events(history: &[Entry]) -> Vec<Event> {
    let mut events = Vec::new();
    for (place, entry) in history.iter().enumerate() {
        let event = |at, is_call| Event {
            at,
            entry: place,
            is_call,
        };
        events.push(event(entry.called, true));
        if entry.returned != NEVER {
            events.push(event(entry.returned, false));
        }
    }
    events.sort_by_key(|event| (event.at, !event.is_call));
    events
}
