//! Records as rows: the schema, and the way between a [`Record`] and its columns.
//!
//! Ballots are 16-byte blobs, big endian, so that they order like ballots; zero is NULL. Unsigned 64-bit numbers are kept bit for bit in
//! SQLite's signed integers; nothing compares them in SQL.

use std::sync::Arc;

use register::{Ballot, HlcTime, Key, Lineage, Record, RequestId, State};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// `PRAGMA application_id` of our files: "DDKV".
pub(crate) const APPLICATION_ID: i32 = 0x4444_4B56;
/// `PRAGMA user_version`: the schema this code reads and writes.
pub(crate) const SCHEMA_VERSION: i32 = 1;

/// The schema. `WITHOUT ROWID`: one tree per table, so an insert dirties one leaf and a lookup walks once. The partial index lists hints in
/// the order in which they were taken, and costs nothing for records that are none. `node` has one row, rewritten by each commit.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE records (
        key TEXT NOT NULL PRIMARY KEY,
        commit_number INTEGER NOT NULL,
        accepted BLOB,
        promised BLOB,
        floor BLOB,
        hint_for TEXT,
        version BLOB,
        fence INTEGER NOT NULL,
        expires_at_ms INTEGER,
        lineage BLOB,
        value TEXT
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX hints ON records (commit_number) WHERE hint_for IS NOT NULL;
    CREATE TABLE node (
        id INTEGER NOT NULL PRIMARY KEY CHECK (id = 0),
        incarnation INTEGER NOT NULL,
        floor BLOB,
        commit_number INTEGER NOT NULL,
        clock INTEGER NOT NULL,
        records INTEGER NOT NULL,
        hints INTEGER NOT NULL
    ) STRICT;
";

/// Columns of a record in the order [`record_from_row`] expects, the key last.
macro_rules! columns {
    () => {
        "commit_number, accepted, promised, floor, hint_for, version, fence, expires_at_ms, lineage, value, key"
    };
}
pub(crate) use columns;

/// A record as it is kept: with the number of the commit that last wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// The number of the change that last wrote it.
    pub commit: u64,
}

/// The row of table `node`: what the node keeps of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// Drawn when the database was created.
    pub(crate) incarnation: u64,
    /// Nothing dropped is above it.
    pub(crate) floor: Ballot,
    /// Number of the last change.
    pub(crate) commit: u64,
    /// High-water mark of the node's clock: no ballot that is stored or was drawn for a stored change is above it.
    pub(crate) clock: HlcTime,
    /// Rows in `records`.
    pub(crate) records: u64,
    /// Rows in `records` that are hints.
    pub(crate) hints: u64,
}

impl NodeRow {
    pub(crate) fn create(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO node (id, incarnation, floor, commit_number, clock, records, hints) VALUES (0, ?, ?, ?, ?, ?, ?)";
        let numbers = (self.commit.cast_signed(), self.clock.to_bits().cast_signed());
        let counts = (self.records.cast_signed(), self.hints.cast_signed());
        let floor = ballot_to_sql(self.floor);
        connection.execute(
            sql,
            params![
                self.incarnation.cast_signed(),
                floor,
                numbers.0,
                numbers.1,
                counts.0,
                counts.1
            ],
        )?;
        Ok(())
    }

    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT incarnation, floor, commit_number, clock, records, hints FROM node WHERE id = 0";
        connection.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self {
                incarnation: unsigned(row, 0)?,
                floor: ballot_from_sql(row, 1)?,
                commit: unsigned(row, 2)?,
                clock: HlcTime::from_bits(unsigned(row, 3)?),
                records: unsigned(row, 4)?,
                hints: unsigned(row, 5)?,
            })
        })
    }

    pub(crate) fn update(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "UPDATE node SET floor = ?, commit_number = ?, clock = ?, records = ?, hints = ? WHERE id = 0";
        let numbers = (self.commit.cast_signed(), self.clock.to_bits().cast_signed());
        let counts = (self.records.cast_signed(), self.hints.cast_signed());
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute(params![
            ballot_to_sql(self.floor),
            numbers.0,
            numbers.1,
            counts.0,
            counts.1
        ])?;
        Ok(())
    }
}

/// The record of a key, if there is one.
pub(crate) fn read_record(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Stored>> {
    let sql = concat!("SELECT ", columns!(), " FROM records WHERE key = ?");
    connection
        .prepare_cached(sql)?
        .query_row([key.as_text()], stored_from_row)
        .optional()
}

/// Inserts or replaces the record of a key.
pub(crate) fn write_record(connection: &Connection, key: &Key, stored: &Stored) -> rusqlite::Result<()> {
    let sql = concat!(
        "INSERT OR REPLACE INTO records (",
        columns!(),
        ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    let record = &stored.record;
    let state = record.state.as_ref();
    connection.prepare_cached(sql)?.execute(params![
        stored.commit.cast_signed(),
        ballot_to_sql(record.accepted),
        ballot_to_sql(record.promised),
        ballot_to_sql(record.floor),
        record.hint_for.as_deref(),
        state.and_then(|s| ballot_to_sql(s.version)),
        state.map_or(0, |s| s.fence.cast_signed()),
        state.and_then(|s| s.expires_at_ms).map(u64::cast_signed),
        state.and_then(|s| lineage_to_sql(&s.lineage)),
        state.and_then(|s| s.value.as_deref()),
        key.as_text(),
    ])?;
    Ok(())
}

/// Deletes the record of a key.
pub(crate) fn delete_record(connection: &Connection, key: &Key) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM records WHERE key = ?")?
        .execute([key.as_text()])?;
    Ok(())
}

/// A record from a row of [`columns`].
pub(crate) fn stored_from_row(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let accepted = ballot_from_sql(row, 1)?;
    let state = if accepted.is_zero() {
        None
    } else {
        Some(State {
            value: text(row, 9)?,
            version: ballot_from_sql(row, 5)?,
            fence: unsigned(row, 6)?,
            expires_at_ms: row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned),
            lineage: lineage_from_sql(row, 8)?,
        })
    };
    let record = Record {
        accepted,
        state,
        promised: ballot_from_sql(row, 2)?,
        floor: ballot_from_sql(row, 3)?,
        hint_for: text(row, 4)?,
    };
    Ok(Stored {
        record,
        commit: unsigned(row, 0)?,
    })
}

/// The key from a row of [`columns`].
pub(crate) fn key_from_row(row: &Row<'_>) -> rusqlite::Result<Key> {
    const COLUMN: usize = 10;
    let text = row.get_ref(COLUMN)?.as_str()?;
    Key::from_text(text).ok_or_else(|| unreadable(COLUMN, Type::Text, format!("key {text:?} is in no known namespace")))
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Arc<str>>> {
    Ok(row.get_ref(column)?.as_str_or_null()?.map(Arc::from))
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

/// A ballot as 16 bytes that order like ballots; nothing for zero.
fn ballot_to_sql(ballot: Ballot) -> Option<[u8; 16]> {
    (!ballot.is_zero()).then(|| ballot_bytes(ballot))
}

fn ballot_from_sql(row: &Row<'_>, column: usize) -> rusqlite::Result<Ballot> {
    let Some(blob) = row.get_ref(column)?.as_blob_or_null()? else {
        return Ok(Ballot::ZERO);
    };
    let bytes = blob.try_into().map_err(|_| {
        unreadable(
            column,
            Type::Blob,
            format!("a ballot has 16 bytes, found {}", blob.len()),
        )
    })?;
    Ok(ballot_of(bytes))
}

fn ballot_bytes(ballot: Ballot) -> [u8; 16] {
    ((u128::from(ballot.time.to_bits()) << 64) | u128::from(ballot.incarnation)).to_be_bytes()
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half of 128 bits is meant")]
fn ballot_of(bytes: [u8; 16]) -> Ballot {
    let bits = u128::from_be_bytes(bytes);
    Ballot {
        time: HlcTime::from_bits((bits >> 64) as u64),
        incarnation: bits as u64,
    }
}

/// A lineage as the 16 bytes of `since` and 24 for each change, its ballot and its request id; nothing for an empty one.
fn lineage_to_sql(lineage: &Lineage) -> Option<Vec<u8>> {
    if *lineage == Lineage::default() {
        return None;
    }
    let mut bytes = ballot_bytes(lineage.since).to_vec();
    for (ballot, request) in &lineage.changes {
        bytes.extend(ballot_bytes(*ballot));
        bytes.extend(request.0.to_be_bytes());
    }
    Some(bytes)
}

fn lineage_from_sql(row: &Row<'_>, column: usize) -> rusqlite::Result<Lineage> {
    let Some(blob) = row.get_ref(column)?.as_blob_or_null()? else {
        return Ok(Lineage::default());
    };
    let wrong = || {
        unreadable(
            column,
            Type::Blob,
            format!("a lineage has 16 + 24·n bytes, found {}", blob.len()),
        )
    };
    let (since, changes) = blob.split_first_chunk::<16>().ok_or_else(wrong)?;
    let (changes, rest) = changes.as_chunks::<24>();
    if !rest.is_empty() {
        return Err(wrong());
    }
    let change = |bytes: &[u8; 24]| {
        let (mut ballot, mut request) = ([0; 16], [0; 8]);
        ballot.copy_from_slice(&bytes[..16]);
        request.copy_from_slice(&bytes[16..]);
        (ballot_of(ballot), RequestId(u64::from_be_bytes(request)))
    };
    Ok(Lineage {
        since: ballot_of(*since),
        changes: changes.iter().map(change).collect(),
    })
}

fn unreadable(column: usize, sql_type: Type, why: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, sql_type, why.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ballots() -> impl Strategy<Value = Ballot> {
        (any::<u64>(), any::<u64>()).prop_map(|(time, incarnation)| Ballot {
            time: HlcTime::from_bits(time),
            incarnation,
        })
    }

    fn states() -> impl Strategy<Value = State> {
        let changes = proptest::collection::vec((ballots(), any::<u64>().prop_map(RequestId)), 0..8);
        let lineage = (ballots(), changes).prop_map(|(since, changes)| Lineage { since, changes });
        (
            proptest::option::of(".{0,40}"),
            ballots(),
            any::<u64>(),
            proptest::option::of(any::<u64>()),
            lineage,
        )
            .prop_map(|(value, version, fence, expires_at_ms, lineage)| State {
                value: value.map(Into::into),
                version,
                fence,
                expires_at_ms,
                lineage,
            })
    }

    fn records() -> impl Strategy<Value = Record> {
        let accepted = (1u64.., any::<u64>()).prop_map(|(time, incarnation)| Ballot {
            time: HlcTime::from_bits(time),
            incarnation,
        });
        let hint = proptest::option::of("[a-z:/0-9]{1,20}");
        (proptest::option::of((accepted, states())), ballots(), ballots(), hint).prop_map(
            |(accepted, promised, floor, hint_for)| {
                let (accepted, state) = accepted.map_or((Ballot::ZERO, None), |(b, s)| (b, Some(s)));
                Record {
                    accepted,
                    state,
                    promised,
                    floor,
                    hint_for: hint_for.map(Into::into),
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(record in records(), name in ".{0,30}", commit in 0u64..=i64::MAX as u64) {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(SCHEMA).unwrap();
            let key = Key::data(&name);
            let stored = Stored { record, commit };
            write_record(&connection, &key, &stored).unwrap();
            prop_assert_eq!(read_record(&connection, &key).unwrap(), Some(stored));
            delete_record(&connection, &key).unwrap();
            prop_assert_eq!(read_record(&connection, &key).unwrap(), None);
        }
    }

    #[test]
    fn a_damaged_row_is_an_error_and_not_an_absence() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let sql = "INSERT INTO records (key, commit_number, accepted, fence) VALUES ('da', 1, x'0102', 0)";
        connection.execute_batch(sql).unwrap();
        let error = read_record(&connection, &Key::data("a")).unwrap_err().to_string();
        assert!(error.contains("16 bytes"), "{error}");
    }
}
