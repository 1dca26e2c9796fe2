use std::path::Path;

use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use kv_client::testing::{Call, FakeKv, Fault};
use serde_json::json;
use service::Shutdown;
use tokio::net::TcpListener;

use super::{Args, told};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// The exit code of `kv` with these words.
async fn kv(url: &str, words: &[&str]) -> u8 {
    let args = Cli::try_parse_from([&["kv", "--url", url], words].concat())
        .unwrap_or_else(|error| panic!("{error}"))
        .args;
    told(&args, Shutdown::new()).await.unwrap()
}

#[tokio::test]
async fn reads_and_writes_give_their_exit_codes() {
    let fake = FakeKv::start().await;
    let url = fake.url.as_str();
    assert_eq!(kv(url, &["get", "a"]).await, 1);
    assert_eq!(kv(url, &["put", "a", r#"{"n":1}"#]).await, 0);
    assert_eq!(kv(url, &["get", "a"]).await, 0);
    assert_eq!(kv(url, &["--json", "get", "a"]).await, 0);
    assert_eq!(kv(url, &["cas", "a", "--old", r#"{"n":2}"#, "3"]).await, 1);
    assert_eq!(kv(url, &["cas", "a", "--old", r#"{"n":1}"#, "-3"]).await, 0);
    assert_eq!(kv(url, &["cas", "a", "--absent", "4"]).await, 1);
    assert_eq!(kv(url, &["put", "b", "--string", "two words", "--ttl", "60"]).await, 0);
    let found = fake.client().get::<serde_json::Value>("a").await.unwrap().unwrap();
    assert_eq!(found.value, json!(-3));
    assert_eq!(
        fake.client().get::<String>("b").await.unwrap().unwrap().value,
        "two words"
    );
    assert_eq!(kv(url, &["cas", "a", "--version", &found.version.0, "5"]).await, 0);
    assert_eq!(kv(url, &["del", "a", "--version", &found.version.0]).await, 1);
    assert_eq!(kv(url, &["del", "a"]).await, 0);
    assert_eq!(kv(url, &["scan", "--keys", "--json"]).await, 0);
}

#[tokio::test]
async fn what_became_of_it_is_in_the_exit_code() {
    let fake = FakeKv::start().await;
    assert_eq!(kv(&fake.url, &["put", "a", "{"]).await, 2, "no JSON");
    assert_eq!(kv(&fake.url, &["get", "."]).await, 2, "no key");
    assert_eq!(kv("http://127.0.0.1:1", &["put", "a", "1"]).await, 4, "nobody there");
    fake.outage(Some(Fault::UnknownNotDone));
    assert_eq!(kv(&fake.url, &["--json", "put", "a", "1"]).await, 3);
    fake.outage(Some(Fault::Unavailable));
    assert_eq!(kv(&fake.url, &["put", "a", "1"]).await, 4);
}

fn words<'a>(flags: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["lock"], flags, &["--", "sh", "-c", script]].concat()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn a_command_runs_under_the_lock_with_its_fence() {
    let fake = FakeKv::start().await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let script = format!("echo $LOCK_NAME $LOCK_FENCE > {}; exit 7", out.display());
    assert_eq!(kv(&fake.url, &words(&["job"], &script)).await, 7);
    let (name, fence) = text(&out)
        .trim()
        .split_once(' ')
        .map(|(name, fence)| (name.to_owned(), fence.parse::<u64>().unwrap()))
        .unwrap();
    assert_eq!(name, "job");
    assert!(fence > 0);
    // It was given back: the next has it at once, with a higher fence.
    assert_eq!(kv(&fake.url, &words(&["job"], &script)).await, 7);
    assert!(text(&out).trim().split_once(' ').unwrap().1.parse::<u64>().unwrap() > fence);
    assert_eq!(kv(&fake.url, &["lock", "job", "--", "/nonexistent/program"]).await, 127);
    assert_eq!(kv(&fake.url, &words(&["job"], "kill -9 $$")).await, 137);
}

#[tokio::test]
async fn somebody_elses_lock_is_waited_for_and_then_given_up() {
    let fake = FakeKv::start().await;
    let held = fake
        .client()
        .lock("job", "ann", std::time::Duration::from_secs(600))
        .await
        .unwrap()
        .guard()
        .unwrap();
    assert_eq!(kv(&fake.url, &words(&["job", "--wait", "0.3"], "exit 0")).await, 75);
    let waiting = words(&["job", "--wait", "60"], "exit 0");
    let (code, released) = tokio::join!(kv(&fake.url, &waiting), held.release());
    assert_eq!((code, released), (0, Ok(true)));
}

#[tokio::test]
async fn a_long_command_keeps_the_lock() {
    let fake = FakeKv::start().await;
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.02; done", go.display());
    let command = words(&["job", "--ttl", "2"], &script);
    // It ends only after some renewals, and the lock is held all the while.
    let watch = async {
        while fake.count(Call::Renew) < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let other = fake
            .client()
            .lock("job", "bob", std::time::Duration::from_secs(1))
            .await
            .unwrap();
        std::fs::write(&go, "").unwrap();
        other.guard().is_none()
    };
    assert_eq!(tokio::join!(kv(&fake.url, &command), watch), (0, true));
}

#[tokio::test]
async fn a_command_that_loses_its_lock_is_ended() {
    let fake = FakeKv::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (begun, ended) = (folder.path().join("begun"), folder.path().join("ended"));
    let script = format!(
        "trap 'echo told > {}; exit 0' TERM; echo > {}; while :; do sleep 0.02; done",
        ended.display(),
        begun.display()
    );
    let command = words(&["job", "--ttl", "1"], &script);
    let steal = async {
        while !begun.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        fake.outage(Some(Fault::Unavailable));
    };
    assert_eq!(tokio::join!(kv(&fake.url, &command), steal).0, 76);
    assert_eq!(text(&ended), "told\n");
}

#[tokio::test]
async fn watch_resumes_where_it_was_left() {
    // Each stream tells one change and breaks off; the next must go on after it.
    let told = |after: Option<String>| {
        let n: u32 = after.map_or(0, |id| id.parse().unwrap());
        let data = json!({"key": format!("k{n}"), "value": n, "version": format!("{n}"), "deleted": false});
        format!(
            "id: {n}\nevent: position\ndata: {{}}\n\nid: {}\nevent: change\ndata: {data}\n\n",
            n + 1
        )
    };
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&asked);
    let stream = move |query: axum::extract::Query<std::collections::HashMap<String, String>>| async move {
        seen.lock().unwrap().push(query.get("after").cloned());
        told(query.get("after").cloned())
    };
    let url = serve(Router::new().route("/watch", get(stream))).await;
    assert_eq!(kv(&url, &["watch", "k", "--count", "3"]).await, 0);
    assert_eq!(
        *asked.lock().unwrap(),
        [None, Some("1".to_owned()), Some("2".to_owned())]
    );
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn explain_shows_what_each_node_holds_and_what_a_quorum_says() {
    const NEW: &str = "01a1fcda67d20000-f850a5e424b0bfbe";
    const OLD: &str = "01a1fcda67d10000-f850a5e424b0bfbe";
    let node = |name: &str, role: &str, has: &str, version: Option<&str>| {
        json!({"name": name, "url": format!("http://{name}"), "role": role, "state": "up", "has": has, "version": version,
            "written_at": null, "deleted": false, "value_bytes": 1, "hint_for": null})
    };
    let mut spare = node("c", "spare", "newest", Some(NEW));
    spare["hint_for"] = json!("b");
    let mut away = node("d", "spare", "unknown", None);
    away["error"] = json!("no answer");
    let nodes = [
        node("a", "home", "newest", Some(NEW)),
        node("b", "home", "older", Some(OLD)),
        spare,
        away,
    ];
    let journey = json!({"key": "a k", "partition": 7, "epoch": "e1", "homes": 2, "quorum": 2, "version": NEW, "copies": 2, "nodes": nodes});
    let item = json!({"key": "a k", "value": 1, "version": NEW});
    let front = serve(
        Router::new()
            .route("/explain/a%20k", get(|| async move { Json(journey) }))
            .route("/kv/a%20k", get(|| async move { Json(item) })),
    )
    .await;
    // The first kvfront of the list does not answer.
    let urls = format!("http://127.0.0.1:1,{front}");
    let args = ["kv", "--url", &urls, "explain", "a k"];
    let args = Cli::try_parse_from(args).unwrap().args;
    assert_eq!(told(&args, Shutdown::new()).await.unwrap(), 0);
    let super::Command::Explain(explained) = &args.command else {
        panic!("explain")
    };
    let client = kv_client::Kv::new(&front, kv_client::Options::default()).unwrap();
    let found = super::explain::explain(&client, &urls, explained).await.unwrap();
    let text = found.text();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1].join(" "), format!("a quorum says: 1 (version {NEW})"));
    assert_eq!(lines[3], ["a", "home", "up", "newest", NEW]);
    assert_eq!(lines[4], ["b", "home", "up", "older", OLD]);
    assert_eq!(lines[5][..4], ["c", "spare", "up", "newest"]);
    assert!(lines[5].join(" ").ends_with("a hint for b"), "{text}");
    assert!(lines[6].join(" ").ends_with("unknown - no answer"), "{text}");
}
