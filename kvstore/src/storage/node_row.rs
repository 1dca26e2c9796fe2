//! What the node keeps of itself: one row of numbers, and whom it remembers.

use std::sync::Arc;

use register::membership::{NodeStatus, Peer};
use register::{Ballot, Epoch, HlcTime, Standing};
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::rows::{ballot_from_sql, ballot_to_sql, unreadable, unsigned};

/// Generation of a node that has always had the same disk.
pub(crate) const FIRST_GENERATION: u64 = 1;

/// The row of table `node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// Drawn when the database was created, and again when the node is to be filled.
    pub(crate) incarnation: u64,
    /// How often the node began anew.
    pub(crate) generation: u64,
    /// Whether it counts.
    pub(crate) standing: Standing,
    /// The ring it belongs to.
    pub(crate) epoch: Option<Epoch>,
    /// Nothing dropped is above it.
    pub(crate) floor: Ballot,
    /// Number of the last change.
    pub(crate) commit: u64,
    /// The commit number the node had when it came back, while it has [`Standing::Returned`].
    pub(crate) returned_commit: u64,
    /// High-water mark of the node's clock: no ballot that is stored or was drawn for a stored change is above it.
    pub(crate) clock: HlcTime,
    /// Records there are.
    pub(crate) records: u64,
    /// Records that are hints.
    pub(crate) hints: u64,
    /// Position in the commit log from which on its records may be missing in the table.
    pub(crate) log_start: u64,
    /// Position from which on they certainly are.
    pub(crate) log_fresh: u64,
}

impl NodeRow {
    /// A node whose database is new.
    pub(crate) fn blank(incarnation: u64) -> Self {
        Self {
            incarnation,
            generation: 0,
            standing: Standing::Blank,
            epoch: None,
            floor: Ballot::ZERO,
            commit: 0,
            returned_commit: 0,
            clock: HlcTime::ZERO,
            records: 0,
            hints: 0,
            log_start: 0,
            log_fresh: 0,
        }
    }

    /// The node as coordinators know it.
    pub(crate) fn status(&self, peers: &[Peer]) -> NodeStatus {
        NodeStatus {
            generation: self.generation,
            incarnation: self.incarnation,
            standing: self.standing,
            epoch: self.epoch,
            floor: self.floor,
            commit: self.told_commit(),
            peers: peers.to_vec(),
        }
    }

    /// The commit number coordinators are told. While it is not known whether the disk is an old copy, that is the one it was found with:
    /// changes through the node's own API must not make it look newer.
    pub(crate) fn told_commit(&self) -> u64 {
        match self.standing {
            Standing::Returned => self.returned_commit,
            _ => self.commit,
        }
    }

    /// The node as one whose process has just begun.
    pub(crate) fn begin(&mut self, peers: &[Peer]) {
        let before = self.standing;
        self.take_over(&self.status(peers).after_restart());
        if self.standing != before {
            self.returned_commit = self.commit;
        }
    }

    /// Takes over what a decision made of the node. The commit number is the writer's own.
    pub(crate) fn take_over(&mut self, status: &NodeStatus) {
        self.generation = status.generation;
        self.incarnation = status.incarnation;
        self.standing = status.standing;
        self.epoch = status.epoch;
        self.floor = status.floor;
    }

    /// Makes the row of a new database.
    pub(crate) fn create(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO node (id, incarnation, commit_number, clock, records, hints) VALUES (0, 0, 0, 0, 0, 0)";
        connection.execute(sql, [])?;
        self.update_all(connection)
    }

    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT incarnation, floor, commit_number, clock, records, hints, generation, standing, filling_above, epoch, \
                   returned_commit, log_start, log_fresh FROM node WHERE id = 0";
        connection.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self {
                incarnation: unsigned(row, 0)?,
                floor: ballot_from_sql(row, 1)?,
                commit: unsigned(row, 2)?,
                clock: HlcTime::from_bits(unsigned(row, 3)?),
                records: unsigned(row, 4)?,
                hints: unsigned(row, 5)?,
                generation: unsigned(row, 6)?,
                standing: standing_from_sql(row, 7, 8)?,
                epoch: row.get::<_, Option<i64>>(9)?.map(|epoch| Epoch(epoch.cast_unsigned())),
                returned_commit: unsigned(row, 10)?,
                log_start: unsigned(row, 11)?,
                log_fresh: unsigned(row, 12)?,
            })
        })
    }

    /// Writes what changes with commits of records.
    pub(crate) fn update(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "UPDATE node SET floor = ?, commit_number = ?, clock = ?, records = ?, hints = ?, log_start = ?, log_fresh = ? \
                   WHERE id = 0";
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute(params![
            ballot_to_sql(self.floor),
            self.commit.cast_signed(),
            self.clock.to_bits().cast_signed(),
            self.records.cast_signed(),
            self.hints.cast_signed(),
            self.log_start.cast_signed(),
            self.log_fresh.cast_signed(),
        ])?;
        Ok(())
    }

    /// Writes the whole row.
    pub(crate) fn update_all(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.update(connection)?;
        let sql = "UPDATE node SET incarnation = ?, generation = ?, standing = ?, filling_above = ?, epoch = ?, returned_commit = ? \
                   WHERE id = 0";
        let (standing, above) = standing_to_sql(self.standing);
        connection.prepare_cached(sql)?.execute(params![
            self.incarnation.cast_signed(),
            self.generation.cast_signed(),
            standing,
            ballot_to_sql(above),
            self.epoch.map(|epoch| epoch.0.cast_signed()),
            self.returned_commit.cast_signed(),
        ])?;
        Ok(())
    }
}

const BLANK: i64 = 0;
const FILLING: i64 = 1;
const VOTING: i64 = 2;
const RETURNED: i64 = 3;

fn standing_to_sql(standing: Standing) -> (i64, Ballot) {
    match standing {
        Standing::Blank => (BLANK, Ballot::ZERO),
        Standing::Filling { above } => (FILLING, above),
        Standing::Voting => (VOTING, Ballot::ZERO),
        Standing::Returned => (RETURNED, Ballot::ZERO),
    }
}

fn standing_from_sql(row: &Row<'_>, standing: usize, above: usize) -> rusqlite::Result<Standing> {
    match row.get::<_, i64>(standing)? {
        BLANK => Ok(Standing::Blank),
        FILLING => Ok(Standing::Filling {
            above: ballot_from_sql(row, above)?,
        }),
        VOTING => Ok(Standing::Voting),
        RETURNED => Ok(Standing::Returned),
        other => Err(unreadable(
            standing,
            Type::Integer,
            format!("{other} is no standing of a node"),
        )),
    }
}

/// Whom the node remembers, by name.
pub(crate) fn read_peers(connection: &Connection) -> rusqlite::Result<Vec<Peer>> {
    let sql = "SELECT name, generation, incarnation, commit_number FROM peers ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    let peers = statement.query_map([], |row| {
        Ok(Peer {
            name: Arc::from(row.get_ref(0)?.as_str()?),
            generation: unsigned(row, 1)?,
            incarnation: unsigned(row, 2)?,
            commit: unsigned(row, 3)?,
        })
    })?;
    peers.collect()
}

/// Replaces everybody remembered: they are few.
pub(crate) fn write_peers(connection: &Connection, peers: &[Peer]) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM peers")?.execute([])?;
    let sql = "INSERT INTO peers (name, generation, incarnation, commit_number) VALUES (?, ?, ?, ?)";
    let mut insert = connection.prepare_cached(sql)?;
    for peer in peers {
        insert.execute(params![
            peer.name.as_ref(),
            peer.generation.cast_signed(),
            peer.incarnation.cast_signed(),
            peer.commit.cast_signed(),
        ])?;
    }
    Ok(())
}
