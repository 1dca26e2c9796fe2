//! Nobody is told that a write was made before it is on two disks: seen from outside, in the system calls of real programs.
//!
//! kvstores and kvfront run under strace, on the disk of the build folder. For every change that was acknowledged it is looked up in the
//! traces that at least two kvstores received it, wrote it to the write-ahead log of their database, completed an fdatasync of that log
//! after the last byte of the transaction, and only then sent their answer, all of that before kvfront sent its own.
//!
//! What this shows is that the programs ask for it and wait. That the disk keeps what it has acknowledged is the disk's promise.

mod trace;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use self::trace::{Call, parse};
use crate::process::{Process, program, wait_until};
use crate::system::{body, client, ok, send, turn};

/// Starts a program under strace.
const START_TRACED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/synced/start-traced");
/// How long the traced cluster may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long a tracer may take to write the end of its trace after its program has ended.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// Keys written one after the other: put, made by CAS, and changed by CAS.
const KEYS: usize = 15;
/// Keys of one batch, which several envelopes and transactions share.
const BATCH: usize = 16;
/// Batches.
const BATCHES: usize = 3;
/// Nodes that have to have an acknowledged change on disk.
const COPIES: usize = 2;
/// What the log has before each page: its number, the size of the database when the page ends a transaction (otherwise 0), and checksums.
/// <https://www.sqlite.org/fileformat2.html#walformat>
const FRAME_HEADER_BYTES: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_write_was_synced_on_two_nodes_before() {
    if let Err(reason) = strace_works() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "strace is needed (package strace): {reason}"
        );
        skipped(&reason);
        return;
    }
    let _turn = turn().await;
    let mut cluster = Traced::start().await;
    let writes = cluster.write().await;
    let (mut nodes, front) = cluster.traces().await;
    assert_eq!(writes.len(), 3 * KEYS + BATCHES * BATCH);
    for write in &writes {
        if let Err(wrong) = judge(write, &nodes, &front) {
            panic!("{write:?}: {wrong}\nThe traces are in {}", cluster.keep().display());
        }
    }
    // Programs that do the same without a sync would be found out: were it not so, silence would prove nothing.
    for calls in &mut nodes {
        calls.retain(|call| !call.syncs());
    }
    assert!(writes.iter().all(|write| judge(write, &nodes, &front).is_err()));
}

/// An acknowledged change.
#[derive(Debug)]
struct Written {
    /// What was written; in no other change.
    value: String,
    /// What kvfront called it in its answer; in no other answer.
    version: String,
}

/// Three kvstores and a kvfront, each with a tracer.
struct Traced {
    /// The kvstores, and last the kvfront.
    programs: Vec<Process>,
    dir: TempDir,
}

impl Traced {
    async fn start() -> Self {
        // Not in /tmp, which may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        let start = |name: &str, number: usize, setting: (&str, &str)| {
            let (program, trace) = (program(name), trace_file(dir.path(), number));
            let settings = [
                setting,
                ("PROGRAM", program.to_str().expect("UTF-8")),
                ("TRACE_FILE", trace.to_str().expect("UTF-8")),
            ];
            tokio::task::block_in_place(|| Process::server(START_TRACED, &settings))
        };
        let mut programs: Vec<_> = (0..3)
            .map(|number| {
                let file = dir.path().join(format!("{number}.db"));
                start("kvstore", number, ("DB_FILE", file.to_str().expect("UTF-8")))
            })
            .collect();
        let urls: Vec<_> = programs.iter().map(Process::url).collect();
        let front = start("kvfront", programs.len(), ("BACKENDS", &urls.join(",")));
        let ready = format!("{}/ready", front.url());
        programs.push(front);
        let http = client();
        wait_until(READY_WITHIN, "kvfront is ready", async || ok(http.get(&ready)).await).await;
        Self { programs, dir }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.programs.last().expect("kvfront").url())
    }

    /// Changes one after the other, and batches of them at once.
    async fn write(&self) -> Vec<Written> {
        let http = client();
        let mut writes = Vec::new();
        for key in 0..KEYS {
            let value = format!("put-{key:04}");
            let put = http
                .put(self.url(&format!("/kv/put-{key}")))
                .json(&json!({ "value": value }));
            writes.push(acknowledged(value, &body(send(put).await).await));
            let cas = async |value: String, version: Value| {
                let cas = json!({ "key": format!("cas-{key}"), "version": version, "new": value });
                let answer = body(send(http.post(self.url("/kv/cas")).json(&cas)).await).await;
                acknowledged(value, &answer)
            };
            let made = cas(format!("made-{key:04}"), Value::Null).await;
            let changed = cas(format!("changed-{key:04}"), json!(made.version)).await;
            writes.extend([made, changed]);
        }
        for batch in 0..BATCHES {
            let value = |key: usize| format!("batch-{batch}-{key:04}");
            let put = |key| json!({ "op": "put", "key": format!("batch-{key}"), "value": value(key) });
            let ops: Vec<_> = (0..BATCH).map(put).collect();
            let answer = send(http.post(self.url("/kv/batch")).json(&json!({ "ops": ops }))).await;
            let answer = body(answer).await;
            let results = answer["results"].as_array().expect("results");
            writes.extend(
                results
                    .iter()
                    .enumerate()
                    .map(|(key, result)| acknowledged(value(key), result)),
            );
        }
        writes
    }

    /// Stops everything; what the tracers saw of the kvstores, and of kvfront.
    async fn traces(&mut self) -> (Vec<Vec<Call>>, Vec<Call>) {
        let mut traces = Vec::new();
        // kvfront first: it is not to miss its nodes.
        for (number, process) in self.programs.iter_mut().enumerate().rev() {
            tokio::task::block_in_place(|| process.stop());
            let file = trace_file(self.dir.path(), number);
            let mut text = String::new();
            wait_until(WRITTEN_WITHIN, "the tracer has written the end", async || {
                text = std::fs::read_to_string(&file).expect("a trace");
                is_whole(&text)
            })
            .await;
            traces.push(parse(&text));
        }
        let front = traces.remove(0);
        (traces, front)
    }

    /// The folder with everything, which is then not removed.
    fn keep(mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }
}

fn trace_file(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{number}.trace"))
}

/// Whether the trace tells of the end of the process, which has the number of its first thread.
fn is_whole(trace: &str) -> bool {
    let Some((main, _)) = trace.split_once(' ') else {
        return false;
    };
    let is_end = |line: &str| line.starts_with(&format!("{main} ")) && line.ends_with("+++");
    trace.ends_with('\n') && trace.lines().any(is_end)
}

fn acknowledged(value: String, answer: &Value) -> Written {
    assert_eq!(answer["ok"], true, "{value}: {answer}");
    let version = answer["version"].as_str().expect("a version").to_owned();
    Written { value, version }
}

/// When, by the clock of the machine, in Unix microseconds.
#[derive(Debug, PartialEq, Eq)]
struct Synced {
    at_us: u64,
    answered_at_us: u64,
}

/// Whether enough nodes had the change on disk, and had said so, before kvfront said so.
fn judge(write: &Written, nodes: &[Vec<Call>], front: &[Call]) -> Result<(), String> {
    let answer = front.iter().find(|call| call.sends() && call.has(&write.version));
    let told_at_us = answer.ok_or("kvfront has not sent its version")?.begun.1;
    let mut copies = 0;
    for (node, calls) in nodes.iter().enumerate() {
        let synced = synced(&write.value, calls).map_err(|wrong| format!("kvstore {node} {wrong}"))?;
        let in_time = |synced: &Synced| synced.at_us <= told_at_us && synced.answered_at_us <= told_at_us;
        copies += usize::from(synced.is_some_and(|synced| in_time(&synced)));
    }
    if copies >= COPIES {
        Ok(())
    } else {
        Err(format!(
            "on {copies} disks when kvfront answered, at {told_at_us} us; {COPIES} are promised"
        ))
    }
}

/// When a node first synced a change to its disk and answered; `None` if it never wrote it at somebody's request.
///
/// It is wrong to answer a message whose change was written, but not synced.
fn synced(value: &str, calls: &[Call]) -> Result<Option<Synced>, String> {
    let mut first = None;
    for arrival in calls.iter().filter(|call| call.receives() && call.has(value)) {
        let on_its_way_back = |call: &&Call| call.sends() && call.file == arrival.file && arrival.is_before(call);
        let Some(answer) = calls.iter().find(on_its_way_back) else {
            continue;
        };
        let written = |call: &&Call| call.writes_log() && call.has(value) && arrival.is_before(call);
        let Some(write) = calls.iter().find(written).filter(|write| write.begun < answer.begun) else {
            continue;
        };
        let at_us = synced_after(write, answer, calls)?;
        first = first.or(Some(Synced {
            at_us,
            answered_at_us: answer.begun.1,
        }));
    }
    Ok(first)
}

/// When the transaction of this write to the log was synced, which has to be before the answer.
fn synced_after(write: &Call, answer: &Call, calls: &[Call]) -> Result<u64, String> {
    let line = answer.begun.0 + 1;
    let after = |call: &&Call| call.thread == write.thread && write.is_before(call);
    let mut next = calls.iter().filter(after);
    let Some(sync) = next.find(|call| call.syncs() && call.is_on_log() && call.is_before(answer)) else {
        return Err(format!("answered what was not synced (line {line} of its trace)"));
    };
    if sync.result != Some(0) {
        return Err(format!("answered though its sync failed: {sync:?}"));
    }
    // The last page that was written before the sync has to be the one that ends the transaction.
    let is_header = |call: &&Call| call.writes_log() && call.data.len() == FRAME_HEADER_BYTES;
    let header = calls.iter().rfind(|call| is_header(call) && call.is_before(sync));
    match header.and_then(|header| header.data.get(4..8)) {
        Some([0, 0, 0, 0]) | None => Err(format!("synced half a transaction (line {line} of its trace)")),
        Some(_) => Ok(sync.ended.1),
    }
}

/// Whether strace is there and may be used.
fn strace_works() -> Result<(), String> {
    let mut probe = Command::new("strace");
    probe.args(["-D", "-f", "-y", "-o", "/dev/null", "true"]);
    match probe.stdin(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("strace may not be used here: {status}")),
        Err(error) => Err(format!("strace cannot be started: {error}")),
    }
}

#[expect(clippy::print_stderr, reason = "a test's report")]
fn skipped(reason: &str) {
    eprintln!("skipped: {reason} (package strace)");
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRIVES: &str = "8 100.000100 recvfrom(5<socket:[9]>, \"the-value\", 9, 0, NULL, NULL) = 9 <0.000001>\n";
    const HEADER: &str = "7 100.000200 pwrite64(3</a-wal>, \"\\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x00----------------\", 24, 0) = 24 <0.000001>\n";
    const PAGE: &str = "7 100.000210 pwrite64(3</a-wal>, \"..the-value..\", 13, 24) = 13 <0.000001>\n";
    const LAST_HEADER: &str = "7 100.000220 pwrite64(3</a-wal>, \"\\x00\\x00\\x00\\x04\\x00\\x00\\x00\\x06----------------\", 24, 37) = 24 <0.000001>\n";
    const LAST_PAGE: &str = "7 100.000230 pwrite64(3</a-wal>, \"....\", 4, 61) = 4 <0.000001>\n";
    const SYNC: &str = "7 100.000300 fdatasync(3</a-wal>) = 0 <0.000050>\n";
    const SYNC_BEGINS: &str = "7 100.000300 fdatasync(3</a-wal> <unfinished ...>\n";
    const SYNC_ENDS: &str = "7 100.000450 <... fdatasync resumed>) = 0 <0.000150>\n";
    const ANSWERS: &str = "8 100.000400 writev(5<socket:[9]>, [{iov_base=\"OK\", iov_len=2}], 1) = 2 <0.000001>\n";

    fn node(lines: &[&str]) -> Result<Option<Synced>, String> {
        synced("the-value", &parse(&lines.concat()))
    }

    #[test]
    fn what_was_synced_before_the_answer_is_fine() {
        let good = node(&[ARRIVES, HEADER, PAGE, LAST_HEADER, LAST_PAGE, SYNC, ANSWERS]).unwrap();
        let expected = Synced {
            at_us: 100_000_350,
            answered_at_us: 100_000_400,
        };
        assert_eq!(good, Some(expected));
        assert_eq!(
            node(&[ARRIVES, ANSWERS, HEADER, PAGE]),
            Ok(None),
            "nothing was written for it"
        );
    }

    #[test]
    fn what_was_not_is_found_out() {
        let (frames, not_synced) = ([ARRIVES, HEADER, PAGE, LAST_HEADER, LAST_PAGE].concat(), "not synced");
        for (lines, wrong) in [
            (vec![&*frames, ANSWERS], not_synced),
            (vec![&*frames, ANSWERS, SYNC], not_synced),
            (vec![&*frames, SYNC_BEGINS, ANSWERS, SYNC_ENDS], not_synced),
            (
                vec![ARRIVES, SYNC, HEADER, PAGE, LAST_HEADER, LAST_PAGE, ANSWERS],
                not_synced,
            ),
            (vec![ARRIVES, HEADER, PAGE, SYNC, ANSWERS], "half a transaction"),
            (
                vec![
                    &*frames,
                    "7 100.000300 fdatasync(3</a-wal>) = -1 EIO (I/O error) <0.000001>\n",
                    ANSWERS,
                ],
                "failed",
            ),
        ] {
            let found = node(&lines).unwrap_err();
            assert!(found.contains(wrong), "{lines:?}: {found}");
        }
    }

    #[test]
    fn one_disk_is_not_enough() {
        let write = Written {
            value: "the-value".to_owned(),
            version: "the-version".to_owned(),
        };
        let synced = parse(&[ARRIVES, HEADER, PAGE, LAST_HEADER, LAST_PAGE, SYNC, ANSWERS].concat());
        let front = |at: &str| {
            parse(&format!(
                "9 {at} sendto(5<socket:[1]>, \"the-version\", 11, 0, NULL, 0) = 11 <0.000001>\n"
            ))
        };
        let (late, early) = (front("100.000500"), front("100.000320"));
        assert_eq!(
            judge(&write, &[synced.clone(), synced.clone(), Vec::new()], &late),
            Ok(())
        );
        for (nodes, front) in [
            (vec![synced.clone(), Vec::new(), Vec::new()], &late),
            (vec![synced.clone(), synced.clone(), synced], &early),
        ] {
            assert!(judge(&write, &nodes, front).is_err_and(|wrong| wrong.contains("disks")));
        }
    }
}
