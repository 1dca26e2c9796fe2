//! What is refused, and that it is left alone.

use super::*;

fn refuse(path: &Path) -> String {
    open(path, 1, false).unwrap_err().to_string()
}

#[test]
fn a_new_database_keeps_its_incarnation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.db");
    assert_eq!(open(&path, 7, false).unwrap().node.incarnation, 7);
    assert_eq!(open(&path, 8, false).unwrap().node.incarnation, 7);
}

#[test]
fn a_missing_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = refuse(&dir.path().join("missing/kv.db"));
    assert!(
        error.contains("missing") && error.contains("does not exist") && error.contains("DB_FILE"),
        "{error}"
    );
}

#[test]
fn a_file_in_place_of_the_directory_and_a_directory_in_place_of_the_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    assert!(matches!(
        open(&dir.path().join("file/kv.db"), 1, false),
        Err(OpenError::NoDirectory { .. })
    ));
    std::fs::create_dir(dir.path().join("kv.db")).unwrap();
    assert!(refuse(&dir.path().join("kv.db")).contains("is a directory"));
}

#[test]
fn what_is_no_database_is_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.db");
    std::fs::write(&path, "dear diary").unwrap();
    let error = refuse(&path);
    assert!(
        error.contains("kv.db") && error.contains("not a SQLite database"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"dear diary");
}

#[test]
fn another_programs_database_is_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.db");
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE bookmarks (url TEXT); PRAGMA application_id = 77;")
        .unwrap();
    drop(other);
    let before = std::fs::read(&path).unwrap();
    let error = refuse(&path);
    assert!(error.contains("another program (application id 77"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn newer_schemas_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.db");
    open(&path, 1, false)
        .unwrap()
        .writer
        .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    assert!(matches!(open(&path, 1, false), Err(OpenError::TooNew { .. })));
}

#[test]
fn two_processes_cannot_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.db");
    let first = open(&path, 1, false).unwrap();
    assert!(refuse(&path).contains("in use by another kvstore"));
    drop(first);
    open(&path, 1, false).unwrap();
}

#[test]
fn damage_is_found_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.db");
    let opened = open(&path, 1, false).unwrap();
    for number in 0..2_000 {
        let sql = "INSERT INTO records (key, commit_number, fence, value) VALUES (?, ?, 0, ?)";
        opened
            .writer
            .execute(sql, (format!("dkey-{number}"), number, "x".repeat(100)))
            .unwrap();
    }
    opened.writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(opened);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 8_192] {
        *byte ^= 0xA5;
    }
    std::fs::write(&path, &bytes).unwrap();
    let error = refuse(&path);
    assert!(
        error.contains("damaged") && error.contains("kv.db") && error.contains("backup"),
        "{error}"
    );
    std::fs::write(&path, &bytes[..middle]).unwrap();
    assert!(refuse(&path).contains("damaged"), "a truncated file too");
}
