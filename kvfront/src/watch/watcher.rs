//! One stream: takes from the tails, merges, and sends at the pace of its reader.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use register::change::Command;
use register::message::{AcceptedChange, ChangesReply, Held, List, PageReply, Reply};
use register::proposer::{Consistency, Event, Outcome};
use register::{HlcTime, Key, Request, Standing};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::Hub;
use super::event;
use super::merger::Merger;
use super::position::{Cursor, Position};
use super::tail::{Found, STRETCH_LIMIT, is_whole};
use crate::front::Front;
use crate::ring::Preference;
use crate::transport::Mailbox;
use crate::transport::changes::{ChangesLine, Stretch};

/// Bytes of events after which a piece is sent; one event may be longer.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// Something is sent at least this often, so that both sides know that the other is there, and where to resume.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// Keys that one watcher settles at a time.
const MAX_SETTLES: usize = 8;
/// How long nodes may take to say what they hold.
const READ_TIMEOUT: Duration = Duration::from_millis(700);
/// Records asked for at once when a hole is filled.
const PAGE_RECORDS: u32 = 512;
/// Pause before a node is asked again that could not be.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Why continuity is lost.
#[derive(Debug, Clone, Copy)]
enum Gap {
    Forgotten,
    Undecided,
}

impl Gap {
    /// For the metrics.
    fn cause(self) -> &'static str {
        match self {
            Self::Forgotten => "forgotten",
            Self::Undecided => "undecided",
        }
    }

    /// For the reader.
    fn reason(self) -> &'static str {
        match self {
            Self::Forgotten => "too many nodes no longer have the changes after this position",
            Self::Undecided => "more changes are undecided than can be kept",
        }
    }
}

/// What was asked for aside, and came back.
enum Done {
    /// A stretch of a node's feed from before what its tail keeps.
    Fetched {
        node: usize,
        asked: Instant,
        reply: Result<ChangesReply, String>,
    },
    /// A page of what a node holds.
    Listed {
        node: usize,
        /// Which hole it is for.
        hole: u64,
        page: Result<PageReply, String>,
    },
    /// A key was read, and these nodes said what they hold of it.
    Settled {
        key: Key,
        begun_ms: u64,
        answers: Option<Vec<(usize, Held)>>,
    },
}

/// One node as a watcher takes from it.
#[derive(Debug, Default)]
struct Source {
    /// The node itself is being asked for its feed.
    fetching: bool,
    /// Not asked before this time.
    not_before: Option<Instant>,
    /// Counts holes: answers for an earlier one are of no use.
    hole: u64,
}

/// See the [module](self).
pub(super) struct Watcher {
    hub: Arc<Hub>,
    prefix: String,
    merger: Merger,
    sources: Vec<Source>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    settling: usize,
    /// What was accepted before this is not looked for when a node counts anew.
    since: HlcTime,
    moved: watch::Receiver<()>,
    pieces: mpsc::Sender<Bytes>,
    /// Events not sent yet.
    text: String,
    last_sent: Instant,
    /// A piece waits for a slow reader.
    waits: bool,
}

impl Watcher {
    pub(super) fn new(hub: Arc<Hub>, prefix: String, position: &Position, pieces: mpsc::Sender<Bytes>) -> Self {
        let nodes = hub.tails.len();
        let names: Vec<u64> = (0..nodes).map(|node| hub.name_hash(node)).collect();
        Self {
            prefix,
            merger: Merger::new(&names, position),
            sources: (0..nodes).map(|_| Source::default()).collect(),
            jobs: FuturesUnordered::new(),
            settling: 0,
            since: position.newest,
            moved: hub.moved.subscribe(),
            pieces,
            text: String::new(),
            last_sent: Instant::now(),
            waits: false,
            hub,
        }
    }

    /// Sends events until the reader or the service has gone.
    pub(super) async fn run(mut self) {
        let stop = self.hub.stop.clone();
        let pieces = self.pieces.clone();
        tokio::select! {
            () = stop.stopped() => return,
            () = pieces.closed() => {}
            () = self.go_on() => {}
        }
        if self.waits {
            self.hub.front.metrics.watcher_dropped();
        }
    }

    async fn go_on(&mut self) {
        if !self.send_position().await {
            return;
        }
        loop {
            self.moved.mark_unchanged();
            let mut more = false;
            for node in 0..self.sources.len() {
                more |= self.take_from(node);
            }
            if self.merger.is_overfull() {
                self.gap(Gap::Undecided);
            }
            self.begin_settling();
            if !self.deliver().await {
                return;
            }
            if self.last_sent.elapsed() >= HEARTBEAT_EVERY && !self.send_position().await {
                return;
            }
            if !more {
                self.wait().await;
            }
        }
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self) {
        let wake = self.merger.next_wake_ms().filter(|_| self.settling < MAX_SETTLES);
        let wake = wake.map(|at_ms| self.hub.started + Duration::from_millis(at_ms));
        let asked_again = self.sources.iter().filter_map(|source| source.not_before).min();
        let until = [wake, asked_again].into_iter().flatten().min();
        let until = until.map_or(self.last_sent + HEARTBEAT_EVERY, |at| {
            at.min(self.last_sent + HEARTBEAT_EVERY)
        });
        let done = tokio::select! {
            Some(done) = self.jobs.next() => Some(done),
            _ = self.moved.changed() => None,
            () = sleep_until(until) => None,
        };
        if let Some(done) = done {
            self.done(done);
        }
    }

    /// Delivers what can be delivered now; false when nobody reads any more.
    async fn deliver(&mut self) -> bool {
        while let Some(delivery) = self.merger.next(self.now_ms()) {
            event::change(&mut self.text, &delivery, &self.merger.position());
            self.hub.front.metrics.watch_event("change");
            if self.text.len() >= PIECE_BYTES && !self.send().await {
                return false;
            }
        }
        self.text.is_empty() || self.send().await
    }

    /// Sends a sign of life.
    async fn send_position(&mut self) -> bool {
        event::position(&mut self.text, &self.merger.position());
        self.hub.front.metrics.watch_event("position");
        self.send().await
    }

    /// Sends the events so far; waits while the reader is slow. False when it has gone.
    async fn send(&mut self) -> bool {
        self.last_sent = Instant::now();
        self.waits = self.pieces.capacity() == 0;
        if self.waits {
            self.hub.front.metrics.watch_waits();
        }
        let piece = Bytes::from(std::mem::take(&mut self.text));
        let sent = self.pieces.send(piece).await.is_ok();
        self.waits &= !sent;
        sent
    }

    /// Takes in what a node's tail has; true when there is more.
    fn take_from(&mut self, node: usize) -> bool {
        if self.sources[node].fetching {
            return false;
        }
        if let Some(at) = self.sources[node].not_before {
            if Instant::now() < at {
                return false;
            }
            self.sources[node].not_before = None;
        }
        let limit = usize::try_from(STRETCH_LIMIT).unwrap_or(usize::MAX);
        match self.hub.tails[node].after(self.merger.cursor(node), limit) {
            Found::Here {
                changes,
                cursor,
                as_of,
                more,
            } => {
                self.take_in(node, &changes, cursor, as_of.filter(|_| !more));
                more
            }
            Found::Elsewhere => {
                self.fetch(node);
                false
            }
            Found::OtherIncarnation(cursor) => {
                self.lost(node, cursor);
                false
            }
            Found::Unknown => false,
        }
    }

    fn take_in(&mut self, node: usize, changes: &[Arc<AcceptedChange>], cursor: Cursor, as_of: Option<Instant>) {
        let now_ms = self.now_ms();
        for change in changes {
            if self.is_watched(&change.key) {
                let place = self.hub.front.ring.preference(&change.key);
                self.merger.show(now_ms, node, change, place);
            }
        }
        let as_of_ms = as_of.map(|as_of| self.hub.ms_of(as_of));
        self.merger.reached(node, cursor, as_of_ms);
    }

    /// Asks the node itself for what its tail does not keep.
    fn fetch(&mut self, node: usize) {
        let Some(cursor) = self.merger.cursor(node) else { return };
        self.sources[node].fetching = true;
        let front = Arc::clone(&self.hub.front);
        self.jobs.push(Box::pin(async move {
            let asked = Instant::now();
            let stretch = Stretch {
                incarnation: cursor.incarnation,
                after_commit: cursor.commit,
                limit: STRETCH_LIMIT,
                wait: Duration::ZERO,
            };
            let reply = ChangesLine::default().ask(&front, node, stretch).await;
            Done::Fetched { node, asked, reply }
        }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Fetched { node, asked, reply } => {
                self.sources[node].fetching = false;
                self.fetched(node, asked, reply);
            }
            Done::Listed { node, hole, page } if hole == self.sources[node].hole => self.listed(node, page),
            Done::Listed { .. } => {}
            Done::Settled { key, begun_ms, answers } => {
                self.settling -= 1;
                self.merger.settled(self.now_ms(), begun_ms, &key, answers.as_deref());
            }
        }
    }

    fn fetched(&mut self, node: usize, asked: Instant, reply: Result<ChangesReply, String>) {
        let before = self.merger.cursor(node);
        match reply {
            Ok(reply) if reply.standing == Standing::Voting => {
                let cursor = Cursor {
                    incarnation: reply.incarnation,
                    commit: reply.commit,
                };
                if reply.lost {
                    return self.lost(node, cursor);
                }
                let as_of = is_whole(&reply).then_some(asked);
                let changes: Vec<_> = reply.changes.into_iter().map(Arc::new).collect();
                self.take_in(node, &changes, cursor, as_of);
                if before == Some(cursor) {
                    // Ahead of the tail, which will come here soon.
                    self.sources[node].not_before = Some(Instant::now() + ASK_AGAIN_AFTER);
                }
            }
            // No source now, or away: it is a source again later, or says that it has lost something.
            _ => self.sources[node].not_before = Some(Instant::now() + ASK_AGAIN_AFTER),
        }
    }

    /// A node no longer has what comes after our cursor. Others have, unless too many have lost it: what was chosen is on a quorum.
    fn lost(&mut self, node: usize, cursor: Cursor) {
        // The node's clock, which came with its answer, is not ahead of ours any more, and its ballots are not ahead of it.
        let until = self.hub.front.clocks.tick();
        let holes = self.merger.lost(node, cursor, until);
        self.sources[node].hole += 1;
        if holes >= self.hub.front.ring.quorum() {
            self.gap(Gap::Forgotten);
        } else {
            tracing::debug!(node, "a node's feed has a hole for a watcher; listing what it holds");
            self.list(node, None, Duration::ZERO);
        }
    }

    /// Lists what a node holds, so that its hole hides nothing that another hole could hide as well.
    fn list(&mut self, node: usize, after: Option<String>, pause: Duration) {
        let front = Arc::clone(&self.hub.front);
        let prefix = Key::data(&self.prefix).as_text().to_owned();
        let hole = self.sources[node].hole;
        self.jobs.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let list = List::Keys {
                prefix,
                after: after.clone(),
                reverse: false,
            };
            let page = front.transport.page(node, list, PAGE_RECORDS).await;
            let page = page.map_err(|e| e.reason).and_then(|page| match page.standing {
                Standing::Voting => Ok(page),
                _ => Err("the node does not vote".to_owned()),
            });
            match page {
                Ok(page) => Done::Listed {
                    node,
                    hole,
                    page: Ok(page),
                },
                // Asked again from where it was.
                Err(_) => Done::Listed {
                    node,
                    hole,
                    page: Err(after.unwrap_or_default()),
                },
            }
        }));
    }

    fn listed(&mut self, node: usize, page: Result<PageReply, String>) {
        let page = match page {
            Ok(page) => page,
            Err(after) => {
                let after = (!after.is_empty()).then_some(after);
                return self.list(node, after, ASK_AGAIN_AFTER);
            }
        };
        let now_ms = self.now_ms();
        let before_hole = self.merger.before_hole(node).flatten();
        for record in &page.records {
            let Some(state) = &record.held.state else { continue };
            let in_hole = match before_hole {
                Some(cursor) if cursor.incarnation == page.incarnation => record.commit > cursor.commit,
                _ => record.held.accepted.time >= self.since,
            };
            if in_hole {
                let change = AcceptedChange {
                    commit: record.commit,
                    key: record.key.clone(),
                    accepted: record.held.accepted,
                    state: state.clone(),
                };
                let place = self.hub.front.ring.preference(&record.key);
                self.merger.holds(now_ms, node, &Arc::new(change), place);
            }
        }
        match page.records.last() {
            Some(last) if !page.end => self.list(node, Some(last.key.as_text().to_owned()), Duration::ZERO),
            _ => self.merger.hole_filled(node, now_ms),
        }
    }

    fn begin_settling(&mut self) {
        let now_ms = self.now_ms();
        let room = MAX_SETTLES - self.settling;
        for (key, place) in self.merger.due(now_ms, room) {
            self.settling += 1;
            let front = Arc::clone(&self.hub.front);
            self.jobs.push(Box::pin(async move {
                let answers = settle(&front, &key, &place).await;
                Done::Settled {
                    key,
                    begun_ms: now_ms,
                    answers,
                }
            }));
        }
    }

    /// Tells that continuity is lost, and goes on from now.
    fn gap(&mut self, gap: Gap) {
        self.since = self.hub.front.clocks.tick();
        let cursors: Vec<Option<Cursor>> = (0..self.sources.len()).map(|node| self.hub.end(node)).collect();
        for source in &mut self.sources {
            source.hole += 1;
        }
        self.merger.break_off(&cursors);
        event::gap(&mut self.text, gap.reason(), &self.merger.position());
        self.hub.front.metrics.watch_event("gap");
        self.hub.front.metrics.watch_gap(gap.cause());
    }

    fn is_watched(&self, key: &Key) -> bool {
        key.is_data() && key.name().starts_with(&self.prefix)
    }

    fn now_ms(&self) -> u64 {
        self.hub.ms_of(Instant::now())
    }
}

/// Reads a key, which brings its newest state to a quorum, and asks the nodes of its list what they hold. None when it cannot be read.
async fn settle(front: &Front, key: &Key, place: &Preference) -> Option<Vec<(usize, Held)>> {
    match front.run(key, Command::Get, Consistency::Quorum).await {
        Outcome::Answered { .. } => {}
        _ => return None,
    }
    let mailbox = Mailbox::new();
    for (rank, &node) in place.nodes.iter().enumerate() {
        front
            .transport
            .send(node, key.clone(), Request::Read, &mailbox, 1, rank);
    }
    let mut answers = Vec::new();
    let mut left = place.nodes.len();
    let collect = async {
        while left > 0 {
            for event in mailbox.take().await {
                left = left.saturating_sub(1);
                if let Event::Reply {
                    rank,
                    reply: Reply::Holds(held),
                    ..
                } = event
                {
                    answers.push((place.nodes[rank], held));
                }
            }
        }
    };
    // Those that do not answer in time are no witnesses.
    let _ = timeout(READ_TIMEOUT, collect).await;
    Some(answers)
}
