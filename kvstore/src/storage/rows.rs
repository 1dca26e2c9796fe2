//! Records as rows: the way between a [`Record`] and its columns.
//!
//! Ballots are 16-byte blobs, big endian, so that they order like ballots; zero is NULL. Unsigned 64-bit numbers are kept bit for bit in
//! SQLite's signed integers.

use std::sync::Arc;

use register::hashing::{Digest, partition_of_text};
use register::membership::DropRecords;
use register::scan::{BallotBytes, Partitions, ScanRecord, Told};
use register::{Ballot, Key, Lineage, Record, State};
use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

/// Columns of a record in the order [`stored_from_row`] expects.
macro_rules! record_columns {
    () => {
        "commit_number, accepted, promised, floor, hint_for, version, fence, expires_at_ms, lineage, value"
    };
}

/// As `record_columns`, with the key last.
macro_rules! columns {
    () => {
        "commit_number, accepted, promised, floor, hint_for, version, fence, expires_at_ms, lineage, value, key"
    };
}
pub(crate) use columns;
/// Which of them is the key.
pub(crate) const KEY_COLUMN: usize = 10;

/// A record as it is kept: with the number of the commit that last wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// The number of the change that last wrote it.
    pub commit: u64,
}

/// The record of a key, if there is one.
pub(crate) fn read_record(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Stored>> {
    RecordQuery::new(connection)?.read(key)
}

/// [`read_record`] for several keys, with the statement at hand.
pub(crate) struct RecordQuery<'a>(CachedStatement<'a>);

impl<'a> RecordQuery<'a> {
    pub(crate) fn new(connection: &'a Connection) -> rusqlite::Result<Self> {
        let sql = concat!("SELECT ", record_columns!(), " FROM records WHERE key = ?");
        connection.prepare_cached(sql).map(Self)
    }

    /// The record of a key, if there is one.
    pub(crate) fn read(&mut self, key: &Key) -> rusqlite::Result<Option<Stored>> {
        self.0.query_row([key.as_text()], stored_from_row).optional()
    }
}

/// Writes the record of a key: a new one, or over the one that is there (`exists`). Telling saves SQLite a deletion and an insertion, in the
/// table and in its indexes.
pub(crate) fn write_record(connection: &Connection, key: &Key, stored: &Stored, exists: bool) -> rusqlite::Result<()> {
    let sql = if exists {
        "UPDATE records SET commit_number = ?, accepted = ?, promised = ?, floor = ?, hint_for = ?, version = ?, fence = ?,
            expires_at_ms = ?, lineage = ?, value = ? WHERE key = ?"
    } else {
        concat!(
            "INSERT INTO records (",
            columns!(),
            ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
    };
    let record = &stored.record;
    let state = record.state.as_ref();
    let written = connection.prepare_cached(sql)?.execute(params![
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
    if written == 1 {
        Ok(())
    } else {
        // Nothing of the transaction is kept.
        Err(rusqlite::Error::StatementChangedRows(written))
    }
}

/// Whether there is a record of a key.
pub(crate) fn has_record(connection: &Connection, key: &Key) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM records WHERE key = ?")?;
    statement.exists([key.as_text()])
}

/// Deletes the record of a key.
pub(crate) fn delete_record(connection: &Connection, key: &Key) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM records WHERE key = ?")?
        .execute([key.as_text()])?;
    Ok(())
}

/// Calls `tell` for every record with something accepted. One that cannot be read is left out; it fails whoever asks for it.
pub(crate) fn each_accepted(connection: &Connection, mut tell: impl FnMut(&Key, Ballot)) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT key, accepted FROM records WHERE accepted IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match (key_at(row, 0), ballot_from_sql(row, 1)) {
            (Ok(key), Ok(accepted)) => tell(&key, accepted),
            (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "a damaged record"),
        }
    }
    Ok(())
}

/// Which records [`DropRecords`] drops, and their bound. The first names the index of records without a value.
fn dropped_where(drop: DropRecords) -> Option<(&'static str, Ballot)> {
    match drop {
        DropRecords::None => None,
        DropRecords::Promises { up_to } => Some((
            "value IS NULL AND accepted IS NULL AND (promised IS NULL OR promised <= ?1)",
            up_to,
        )),
        DropRecords::Accepted { up_to } => Some(("accepted IS NULL OR accepted <= ?1", up_to)),
    }
}

/// Calls `tell` with key, accepted ballot and whether it is a hint for every record that is to be dropped. One that cannot be read is not
/// told, but dropped.
pub(crate) fn each_dropped(
    connection: &Connection,
    drop: DropRecords,
    mut tell: impl FnMut(&Key, Ballot, bool),
) -> rusqlite::Result<()> {
    let Some((condition, up_to)) = dropped_where(drop) else {
        return Ok(());
    };
    let sql = format!("SELECT key, accepted, hint_for IS NOT NULL FROM records WHERE {condition}");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([ballot_bytes(up_to)])?;
    while let Some(row) = rows.next()? {
        match (key_at(row, 0), ballot_from_sql(row, 1)) {
            (Ok(key), Ok(accepted)) => tell(&key, accepted, row.get(2)?),
            (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "a damaged record is dropped"),
        }
    }
    Ok(())
}

/// Deletes the records that are to be dropped; gives how many they were.
pub(crate) fn drop_records(connection: &Connection, drop: DropRecords) -> rusqlite::Result<u64> {
    let Some((condition, up_to)) = dropped_where(drop) else {
        return Ok(0);
    };
    let sql = format!("DELETE FROM records WHERE {condition}");
    connection
        .execute(&sql, [ballot_bytes(up_to)])
        .map(|count| count as u64)
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

/// The commit number from a row of [`columns`].
pub(crate) fn commit_from_row(row: &Row<'_>) -> rusqlite::Result<u64> {
    unsigned(row, 0)
}

/// Whether a row of [`columns`] holds a value that goes on after `time_ms`. Looks at the value itself as little as it can.
pub(crate) fn ends_after(row: &Row<'_>, time_ms: u64) -> rusqlite::Result<bool> {
    let ends_at_ms = row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned);
    Ok(ends_at_ms.is_some_and(|at| at > time_ms) && row.get_ref(9)?.data_type() != Type::Null)
}

/// Columns of a record in the order [`scan_record_from_row`] expects.
macro_rules! scan_columns {
    () => {
        "key, accepted, version, fence, expires_at_ms, lineage, value"
    };
}
pub(crate) use scan_columns;
/// Which of them is the key.
pub(crate) const SCAN_KEY_COLUMN: usize = 0;

/// What a scan is told of a record, from a row of [`scan_columns`]; its value only when its key's partition is one of `tell`. Nothing is
/// copied.
pub(crate) fn scan_record_from_row<'a>(row: &'a Row<'_>, tell: &Partitions) -> rusqlite::Result<ScanRecord<'a>> {
    let key = row.get_ref(0)?.as_str()?;
    let accepted = ballot_bytes_at(row, 1)?;
    if accepted.is_zero() {
        return Ok(ScanRecord {
            key,
            accepted,
            digest: 0,
            told: None,
        });
    }
    let columns = ScanColumns {
        version: ballot_bytes_at(row, 2)?,
        fence: unsigned(row, 3)?,
        expires_at_ms: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
        lineage: row.get_ref(5)?.as_blob_or_null()?,
        value: row.get_ref(6)?.as_str_or_null()?,
    };
    Ok(columns.record(key, accepted, tell))
}

/// As [`scan_record_from_row`], of a record that is not in the table: shows it to `show`.
pub(crate) fn with_scan_record<T>(
    key: &Key,
    stored: &Stored,
    tell: &Partitions,
    show: impl FnOnce(&ScanRecord<'_>) -> T,
) -> T {
    let accepted = ballot_to_sql(stored.record.accepted);
    let Some(state) = &stored.record.state else {
        return show(&ScanRecord {
            key: key.as_text(),
            accepted: BallotBytes::ZERO,
            digest: 0,
            told: None,
        });
    };
    let (version, lineage) = (ballot_to_sql(state.version), lineage_to_sql(&state.lineage));
    let columns = ScanColumns {
        version: bytes_of(version.as_ref()),
        fence: state.fence,
        expires_at_ms: state.expires_at_ms,
        lineage: lineage.as_deref(),
        value: state.value.as_deref(),
    };
    show(&columns.record(key.as_text(), bytes_of(accepted.as_ref()), tell))
}

fn bytes_of(ballot: Option<&[u8; 16]>) -> BallotBytes<'_> {
    ballot.map_or(BallotBytes::ZERO, BallotBytes::of)
}

/// What a scan's record is made of.
struct ScanColumns<'a> {
    version: BallotBytes<'a>,
    fence: u64,
    expires_at_ms: Option<u64>,
    lineage: Option<&'a [u8]>,
    value: Option<&'a str>,
}

impl<'a> ScanColumns<'a> {
    fn record(&self, key: &'a str, accepted: BallotBytes<'a>, tell: &Partitions) -> ScanRecord<'a> {
        let digest = Digest::default()
            .bytes(self.version.as_bytes())
            .number(self.fence)
            .maybe(
                self.expires_at_ms
                    .map(u64::to_le_bytes)
                    .as_ref()
                    .map(<[u8; 8]>::as_slice),
            )
            .maybe(self.lineage)
            .maybe(self.value.map(str::as_bytes));
        let told = tell.contains(partition_of_text(key)).then_some(Told {
            value: self.value,
            version: self.version,
            expires_at_ms: self.expires_at_ms,
        });
        ScanRecord {
            key,
            accepted,
            digest: digest.finish(),
            told,
        }
    }
}

fn ballot_bytes_at<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<BallotBytes<'a>> {
    let blob = row.get_ref(column)?.as_blob_or_null()?.unwrap_or_default();
    BallotBytes::new(blob).ok_or_else(|| not_16_bytes(column, blob))
}

/// The key from a row of [`columns`].
pub(crate) fn key_from_row(row: &Row<'_>) -> rusqlite::Result<Key> {
    key_at(row, KEY_COLUMN)
}

fn key_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Key> {
    let text = row.get_ref(column)?.as_str()?;
    Key::from_text(text).ok_or_else(|| unreadable(column, Type::Text, format!("key {text:?} is in no known namespace")))
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Arc<str>>> {
    Ok(row.get_ref(column)?.as_str_or_null()?.map(Arc::from))
}

pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

/// A ballot as 16 bytes that order like ballots; nothing for zero.
pub(crate) fn ballot_to_sql(ballot: Ballot) -> Option<[u8; 16]> {
    (!ballot.is_zero()).then(|| ballot_bytes(ballot))
}

pub(crate) fn ballot_from_sql(row: &Row<'_>, column: usize) -> rusqlite::Result<Ballot> {
    let Some(blob) = row.get_ref(column)?.as_blob_or_null()? else {
        return Ok(Ballot::ZERO);
    };
    let bytes = blob.try_into().map_err(|_| not_16_bytes(column, blob))?;
    Ok(ballot_of(bytes))
}

fn not_16_bytes(column: usize, blob: &[u8]) -> rusqlite::Error {
    let why = format!("a ballot has 16 bytes, found {}", blob.len());
    unreadable(column, Type::Blob, why)
}

fn ballot_bytes(ballot: Ballot) -> [u8; 16] {
    ballot.to_bytes()
}

fn ballot_of(bytes: [u8; 16]) -> Ballot {
    Ballot::from_bytes(bytes)
}

fn lineage_to_sql(lineage: &Lineage) -> Option<Vec<u8>> {
    Some(lineage.to_bytes()).filter(|bytes| !bytes.is_empty())
}

fn lineage_from_sql(row: &Row<'_>, column: usize) -> rusqlite::Result<Lineage> {
    let Some(blob) = row.get_ref(column)?.as_blob_or_null()? else {
        return Ok(Lineage::default());
    };
    Lineage::from_bytes(blob).ok_or_else(|| {
        let why = format!("{} bytes are no lineage", blob.len());
        unreadable(column, Type::Blob, why)
    })
}

pub(crate) fn unreadable(column: usize, sql_type: Type, why: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, sql_type, why.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use register::{HlcTime, RequestId};

    use super::super::schema::create_tables;
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
        fn what_is_written_is_read(before in records(), record in records(), name in ".{0,30}", commit in 1u64..=i64::MAX as u64) {
            let connection = Connection::open_in_memory().unwrap();
            create_tables(&connection).unwrap();
            let key = Key::data(&name);
            let before = Stored { record: before, commit: commit - 1 };
            let stored = Stored { record, commit };
            prop_assert!(write_record(&connection, &key, &stored, true).is_err(), "it does not exist");
            write_record(&connection, &key, &before, false).unwrap();
            prop_assert_eq!(read_record(&connection, &key).unwrap(), Some(before));
            prop_assert!(write_record(&connection, &key, &stored, false).is_err(), "it exists");
            write_record(&connection, &key, &stored, true).unwrap();
            prop_assert_eq!(read_record(&connection, &key).unwrap(), Some(stored));
            delete_record(&connection, &key).unwrap();
            prop_assert_eq!(read_record(&connection, &key).unwrap(), None);
        }
    }

    #[test]
    fn a_damaged_row_is_an_error_and_not_an_absence() {
        let connection = Connection::open_in_memory().unwrap();
        create_tables(&connection).unwrap();
        let sql = "INSERT INTO records (key, commit_number, accepted, fence) VALUES ('da', 1, x'0102', 0)";
        connection.execute_batch(sql).unwrap();
        let error = read_record(&connection, &Key::data("a")).unwrap_err().to_string();
        assert!(error.contains("16 bytes"), "{error}");
    }
}
