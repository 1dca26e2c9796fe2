//! The real program, killed in the middle of writing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use register::membership::{NodeRequest, NodeStatus, Peer};
use register::message::{NodeEnvelope, NodeEnvelopeReply};
use register::{Ballot, Envelope, EnvelopeReply, Epoch, HlcTime, Key, Reply, Request, Standing};
use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// A coordinator's call.
async fn ask<T: DeserializeOwned>(running: &Running, path: &str, message: &impl Serialize) -> T {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
    let body = postcard::to_stdvec(message).expect("messages can be encoded");
    let post = client
        .expect("nothing of it is unusual")
        .post(format!("{}{path}", running.url));
    let answer = post.body(body).send().await.expect("the node answers");
    let status = answer.status();
    let body = answer.bytes().await.expect("the answer is whole");
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    postcard::from_bytes(&body).expect("the answer can be read")
}

fn now() -> HlcTime {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is later than 1970");
    HlcTime::from_unix_ms(since_epoch.as_millis().try_into().expect("but not by much"))
}

async fn ask_node(running: &Running, request: NodeRequest) -> NodeStatus {
    let message = NodeEnvelope {
        clock: now(),
        sender: 1,
        epoch: Epoch(7),
        request,
    };
    let reply: NodeEnvelopeReply = ask(running, "/internal/node", &message).await;
    assert!(reply.done, "{reply:?}");
    reply.status
}

#[tokio::test]
async fn what_a_node_was_told_of_itself_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let db_file = dir.path().join("kv.db");
    let mut running = Running::start(&db_file);
    let incarnation = ask_node(&running, NodeRequest::Status).await.incarnation;
    let peers = vec![Peer {
        name: "http://other:9000".into(),
        generation: 3,
        incarnation: 4,
        commit: 5,
    }];
    ask_node(&running, NodeRequest::Remember { peers }).await;
    let admitted = ask_node(&running, NodeRequest::Admit { incarnation, commit: 0 }).await;
    assert_eq!((admitted.standing, admitted.peers.len()), (Standing::Voting, 1));
    let promised = Ballot {
        time: now(),
        incarnation: 9,
    };
    let read_after = async |running: &Running, request: Request| {
        let envelope = Envelope {
            clock: now(),
            sender: 1,
            epoch: Epoch(7),
            requests: vec![(Key::data("a"), request)],
        };
        let reply: EnvelopeReply = ask(running, "/internal/exchange", &envelope).await;
        reply.replies.into_iter().next().unwrap()
    };
    let reply = read_after(&running, Request::Prepare { ballot: promised }).await;
    assert!(matches!(reply, Reply::Promised(_)), "{reply:?}");

    running.kill();
    let mut running = Running::start(&db_file);
    let found = ask_node(&running, NodeRequest::Status).await;
    let expected = NodeStatus {
        standing: Standing::Returned,
        commit: 1,
        ..admitted
    };
    assert_eq!(found, expected);
    let reply = read_after(&running, Request::Read).await;
    assert!(
        matches!(reply, Reply::Failed { .. }),
        "nobody has compared its disk yet: {reply:?}"
    );
    ask_node(&running, NodeRequest::Admit { incarnation, commit: 0 }).await;
    let reply = read_after(&running, Request::Read).await;
    assert!(
        matches!(&reply, Reply::Holds(held) if held.promised == promised),
        "{reply:?}"
    );
    let refill = NodeRequest::Refill {
        incarnation,
        if_commit_below: None,
        generation: 2,
        above: Ballot {
            time: now(),
            incarnation: 0,
        },
    };
    let filling = ask_node(&running, refill).await;

    running.kill();
    let running = Running::start(&db_file);
    assert_eq!(ask_node(&running, NodeRequest::Status).await, filling.after_restart());
    let reply = read_after(&running, Request::Read).await;
    assert!(matches!(reply, Reply::Failed { .. }), "it is not filled yet: {reply:?}");
}
