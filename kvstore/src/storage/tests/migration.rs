//! Databases of an older schema.

use register::hashing::HashTree;
use rusqlite::Connection;

use super::*;

/// A database as version 1 of the schema left it: two records, one of them a hint, and a floor.
fn version_1(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE records (
                 key TEXT NOT NULL PRIMARY KEY, commit_number INTEGER NOT NULL, accepted BLOB, promised BLOB, floor BLOB, hint_for TEXT,
                 version BLOB, fence INTEGER NOT NULL, expires_at_ms INTEGER, lineage BLOB, value TEXT
             ) WITHOUT ROWID, STRICT;
             CREATE INDEX hints ON records (commit_number) WHERE hint_for IS NOT NULL;
             CREATE TABLE node (
                 id INTEGER NOT NULL PRIMARY KEY CHECK (id = 0), incarnation INTEGER NOT NULL, floor BLOB, commit_number INTEGER NOT NULL,
                 clock INTEGER NOT NULL, records INTEGER NOT NULL, hints INTEGER NOT NULL
             ) STRICT;
             INSERT INTO node VALUES (0, 77, x'00000000000000030000000000000009', 5, 50, 2, 1);
             INSERT INTO records VALUES ('da', 4, x'00000000000000280000000000000009', x'00000000000000280000000000000009', NULL, NULL,
                 x'00000000000000280000000000000009', 2, NULL, NULL, '\"old\"');
             INSERT INTO records VALUES ('db', 5, x'00000000000000320000000000000009', x'00000000000000320000000000000009', NULL,
                 'http://home:9000', x'00000000000000320000000000000009', 0, NULL, NULL, NULL);
             PRAGMA user_version = 1;
             PRAGMA application_id = 0x44444B56;",
        )
        .unwrap();
}

#[tokio::test]
async fn a_database_of_version_1_is_migrated() {
    let bench = Bench::new();
    version_1(&bench.path());
    let store = bench.open_unadmitted();
    let (_, status) = store.node(NodeRequest::Status, EPOCH).await.unwrap();
    let expected = NodeStatus {
        generation: 1,
        incarnation: 77,
        // It voted, and has now been started.
        standing: Standing::Returned,
        epoch: None,
        floor: ballot(3),
        commit: 5,
        peers: Vec::new(),
    };
    assert_eq!(status, expected);
    admit(&store).await;
    let a = held(&store, &Key::data("a")).await;
    assert_eq!((value(&a), a.accepted), (Some("\"old\""), ballot(40)));
    assert_eq!(a.state.unwrap().fence, 2);
    let page = store.page(List::Hints { after_commit: 0 }, 9).await.unwrap();
    assert_eq!(page.records[0].hint_for.as_deref(), Some("http://home:9000"));
    let ended = List::Ended {
        after_commit: 0,
        expired_at_ms: 0,
    };
    assert_eq!(
        store.page(ended, 9).await.unwrap().records[0].key,
        Key::data("b"),
        "the new index has old records"
    );
    let mut tree = HashTree::default();
    tree.change(&Key::data("a"), Ballot::ZERO, ballot(40));
    tree.change(&Key::data("b"), Ballot::ZERO, ballot(50));
    assert_eq!(store.hashes(None), tree.roots());
    // A new database looks the same.
    let schema = "SELECT group_concat(sql, char(10)) FROM (SELECT sql FROM sqlite_schema ORDER BY name)";
    let schema_of = |path: &Path| -> String {
        let connection = Connection::open(path).unwrap();
        connection.query_row(schema, [], |row| row.get(0)).unwrap()
    };
    let fresh = Bench::new();
    fresh.open().await;
    let (migrated, fresh) = (schema_of(&bench.path()), schema_of(&fresh.path()));
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(squeezed(&migrated), squeezed(&fresh));
}

#[tokio::test]
async fn a_database_of_version_2_is_migrated() {
    let bench = Bench::new();
    let store = bench.open().await;
    one(&store, &Key::data("a"), accept(7, "1")).await;
    store.close().await;
    let connection = Connection::open(bench.path()).unwrap();
    connection
        .execute_batch(
            "DROP TABLE log; ALTER TABLE node DROP COLUMN log_start; ALTER TABLE node DROP COLUMN log_fresh;
             PRAGMA user_version = 2;",
        )
        .unwrap();
    drop(connection);
    let store = bench.open().await;
    assert_eq!(value(&held(&store, &Key::data("a")).await), Some("1"));
    one(&store, &Key::data("a"), accept(8, "2")).await;
    store.close().await;
    let store = bench.open().await;
    assert_eq!(value(&held(&store, &Key::data("a")).await), Some("2"));
    assert_eq!(store.progress().commit, 2);
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_old_database() {
    let bench = Bench::new();
    version_1(&bench.path());
    let connection = Connection::open(bench.path()).unwrap();
    // In the way of the migration's last statement.
    connection
        .execute_batch("CREATE TABLE ended (x); PRAGMA wal_checkpoint(TRUNCATE);")
        .unwrap();
    drop(connection);
    let error = Store::open(&bench.path(), bench.options()).unwrap_err().to_string();
    assert!(error.contains("ended"), "{error}");
    let connection = Connection::open(bench.path()).unwrap();
    let version: i32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(version, 1);
    connection.execute_batch("DROP TABLE ended").unwrap();
    drop(connection);
    assert_eq!(bench.open().await.progress().commit, 5);
}
