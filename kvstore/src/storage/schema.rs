//! The tables, and how an older database gets the newer ones.
//!
//! A new database is made by the very steps an older one is migrated by, so that both look the same.

use register::Standing;
use rusqlite::{Connection, TransactionBehavior};

use super::node_row::{self, NodeRow};

/// `PRAGMA application_id` of our files: "DDKV".
pub(crate) const APPLICATION_ID: i32 = 0x4444_4B56;
/// `PRAGMA user_version`: the schema this code reads and writes.
pub(crate) const SCHEMA_VERSION: i32 = 3;
/// The oldest schema that is migrated.
pub(crate) const OLDEST_SCHEMA_VERSION: i32 = 1;

/// Version 1. The partial index lists hints in
/// the order in which they were taken, and costs nothing for records that are none. `node` has one row.
const VERSION_1: &str = "
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

/// What version 2 adds: whether the node counts, its ring, whom it remembers; and the index of records that may be collected, which plain
/// values are not in.
const VERSION_2: &str = "
    ALTER TABLE node ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE node ADD COLUMN standing INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE node ADD COLUMN filling_above BLOB;
    ALTER TABLE node ADD COLUMN returned_commit INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE node ADD COLUMN epoch INTEGER;
    CREATE TABLE peers (
        name TEXT NOT NULL PRIMARY KEY,
        generation INTEGER NOT NULL,
        incarnation INTEGER NOT NULL,
        commit_number INTEGER NOT NULL
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX ended ON records (commit_number) WHERE value IS NULL OR expires_at_ms IS NOT NULL;
";

/// What version 3 adds: the commit log, see [`super::log`]. And `records` becomes a table with row numbers: a tree `WITHOUT ROWID` keeps whole
/// rows on its inner pages too, of which nine fit, so that a million records were six levels deep. Now keys have a tree of their own, with a
/// hundred on a page, and new records go side by side to the end of theirs.
const VERSION_3: &str = "
    ALTER TABLE node ADD COLUMN log_start INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE node ADD COLUMN log_fresh INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE log (
        slot INTEGER NOT NULL PRIMARY KEY,
        bytes BLOB NOT NULL
    ) STRICT;
    DROP INDEX hints;
    DROP INDEX ended;
    ALTER TABLE records RENAME TO records_2;
    CREATE TABLE records (
        key TEXT NOT NULL UNIQUE,
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
    ) STRICT;
    INSERT INTO records SELECT * FROM records_2 ORDER BY key;
    DROP TABLE records_2;
    CREATE INDEX hints ON records (commit_number) WHERE hint_for IS NOT NULL;
    CREATE INDEX ended ON records (commit_number) WHERE value IS NULL OR expires_at_ms IS NOT NULL;
";

/// The tables of a new database.
pub(crate) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(VERSION_1)?;
    connection.execute_batch(VERSION_2)?;
    connection.execute_batch(VERSION_3)
}

/// Tables, marks and the node's row in one transaction: a crash leaves an empty database or a whole one. The node is blank.
pub(crate) fn create(connection: &mut Connection, incarnation: u64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    create_tables(&transaction)?;
    NodeRow::blank(incarnation).create(&transaction)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

/// Brings an older database to [`SCHEMA_VERSION`] in one transaction. A node of version 1 voted: there was nothing else.
pub(crate) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let found: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if found < 2 {
        transaction.execute_batch(VERSION_2)?;
    }
    transaction.execute_batch(VERSION_3)?;
    if found < 2 {
        let mut node = NodeRow::read(&transaction)?;
        node.generation = node_row::FIRST_GENERATION;
        node.standing = Standing::Voting;
        node.update_all(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    tracing::info!(from = found, to = SCHEMA_VERSION, "the database was migrated");
    Ok(())
}
