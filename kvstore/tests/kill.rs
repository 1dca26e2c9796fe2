//! The real program, killed in the middle of writing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Deadline of every request.
const PATIENCE: Duration = Duration::from_secs(20);
/// Writers at work when the process is killed.
const WRITERS: usize = 8;
/// How often it is killed.
const ROUNDS: u64 = 3;
/// Acknowledged writes of each writer before the kill.
const WRITES_BEFORE_KILL: u64 = 40;

/// A running node, ended when dropped.
struct Running {
    process: Child,
    url: String,
}

impl Running {
    /// Starts the program on a free port.
    fn start(db_file: &std::path::Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_kvstore"))
            .env("LISTEN", "127.0.0.1:0")
            .env("DB_FILE", db_file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built with the test");
        let errors = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut lines = errors.lines().map_while(Result::ok);
        let url = lines.find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        // Keeps the pipe open and empty.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            url: url.expect("it says where it listens"),
        }
    }

    /// SIGKILL: no chance to tidy up.
    fn kill(&mut self) {
        // Already ended is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let db_file = dir.path().join("kv.db");
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    // The highest number each writer saw acknowledged; its next one may or may not be there.
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    for round in 1..=ROUNDS {
        let mut running = Running::start(&db_file);
        let killed = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, killed, acknowledged) = (client.clone(), Arc::clone(&killed), Arc::clone(&acknowledged));
                let url = format!("{}/kv/w{writer}", running.url);
                tokio::spawn(async move {
                    let mut number = acknowledged[writer].load(Ordering::SeqCst);
                    while !killed.load(Ordering::SeqCst) {
                        number += 1;
                        let put = client.put(&url).body(format!("{{\"value\":{number}}}")).send().await;
                        match put {
                            Ok(answer) if answer.status().is_success() => {
                                acknowledged[writer].store(number, Ordering::SeqCst);
                            }
                            _ => assert!(killed.load(Ordering::SeqCst), "refused before the kill"),
                        }
                    }
                })
            })
            .collect();
        while acknowledged
            .iter()
            .any(|number| number.load(Ordering::SeqCst) < round * WRITES_BEFORE_KILL)
        {
            assert!(writers.iter().all(|writer| !writer.is_finished()), "a writer gave up");
            tokio::task::yield_now().await;
        }
        killed.store(true, Ordering::SeqCst);
        running.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        let running = Running::start(&db_file);
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let answer = client
                .get(format!("{}/kv/w{writer}", running.url))
                .send()
                .await
                .unwrap();
            let found = answer.json::<serde_json::Value>().await.unwrap()["value"]["data"]
                .as_u64()
                .unwrap();
            let acknowledged = acknowledged.load(Ordering::SeqCst);
            assert!(
                (acknowledged..=acknowledged + 1).contains(&found),
                "{found} after {acknowledged} was acknowledged"
            );
        }
    }
}
