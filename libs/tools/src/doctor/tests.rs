use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::machine::Container;
use super::services::{Answer, Probes};
use super::{Diagnosis, Finding, State};

const ALL: [&str; 8] = [
    "kvstore_a",
    "kvstore_b",
    "kvstore_c",
    "kvfront",
    "gateway",
    "lb",
    "dispatcher",
    "drone",
];

fn all_ready_but(changed: &[(&'static str, Answer)]) -> Vec<(&'static str, Answer)> {
    let answer = |name: &&'static str| {
        changed
            .iter()
            .find(|(other, _)| other == name)
            .map_or(Answer::Ready, |(_, answer)| answer.clone())
    };
    ALL.iter().map(|name| (*name, answer(name))).collect()
}

fn of<'a>(findings: &'a [Finding], what: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.what == what).unwrap()
}

fn container(service: &str, status: &str) -> Container {
    Container {
        service: service.to_owned(),
        name: format!("demo_{service}_1"),
        status: status.to_owned(),
    }
}

#[test]
fn all_ready_is_well() {
    let findings = Probes::with(&all_ready_but(&[]), Vec::new(), None).findings();
    assert!(
        findings.len() == ALL.len() && findings.iter().all(|finding| finding.state == State::Ok),
        "{findings:?}"
    );
}

#[test]
fn one_node_down_is_the_nodes_matter_and_nobody_elses() {
    let probes = Probes::with(&all_ready_but(&[("kvstore_b", Answer::Nobody)]), Vec::new(), None);
    let findings = probes.findings();
    assert_eq!(of(&findings, "kvstore_b").state, State::Ill);
    assert!(of(&findings, "kvstore_b").advice.contains("start it"), "{findings:?}");
    assert_eq!(findings.iter().filter(|finding| finding.state != State::Ok).count(), 1);
}

#[test]
fn those_who_wait_say_for_whom() {
    let not_ready = |why: &str| Answer::NotReady(why.to_owned());
    let changed = [
        ("kvstore_a", Answer::Nobody),
        ("kvstore_b", Answer::Silent),
        ("kvfront", not_ready("quorum (1 of 3)")),
        ("gateway", not_ready("kv (503)")),
        ("dispatcher", not_ready("rounds (503)")),
    ];
    let findings = Probes::with(&all_ready_but(&changed), Vec::new(), None).findings();
    let advice = |what: &str| of(&findings, what).advice.as_str();
    assert_eq!(
        advice("kvfront"),
        "it waits for kvstore_a and kvstore_b: mend that first"
    );
    assert_eq!(advice("gateway"), "it waits for kvfront: mend that first");
    assert_eq!(advice("dispatcher"), "it waits for kvfront: mend that first");
    assert!(of(&findings, "kvfront").found.contains("quorum (1 of 3)"));
    assert!(of(&findings, "kvstore_b").found.contains("paused"));
}

#[test]
fn containers_tell_of_what_is_not_published() {
    let changed = [
        ("gateway", Answer::Nobody),
        ("dispatcher", Answer::Nobody),
        ("drone", Answer::Nobody),
    ];
    let containers = vec![
        container("gateway", "Up 3 minutes (healthy)"),
        container("dispatcher", "Exited (137) 2 minutes ago"),
        container("drone", "Up 5 seconds (health: starting)"),
        container("rabbitmq", "Exited (0) 1 minute ago"),
    ];
    let findings = Probes::with(&all_ready_but(&changed), containers, None).findings();
    let state = |what: &str| of(&findings, what).state;
    assert_eq!(
        [state("gateway"), state("dispatcher"), state("drone"), state("rabbitmq")],
        [State::Ok, State::Ill, State::Ill, State::Hint]
    );
    assert!(
        of(&findings, "dispatcher")
            .advice
            .starts_with("start it (`docker compose start dispatcher`)")
    );
}

#[test]
fn nothing_runs() {
    let findings = Probes::with(&[], Vec::new(), None).findings();
    assert!(
        findings.iter().all(|finding| finding.state != State::Ill),
        "{findings:?}"
    );
    assert!(of(&findings, "system").advice.contains("docker compose up"));
    let strange = Probes::with(
        &[("lb", Answer::Stranger("another program".to_owned()))],
        Vec::new(),
        None,
    )
    .findings();
    assert!(of(&strange, "lb").state == State::Ill && of(&strange, "lb").advice.contains("LB_PORT"));
}

#[test]
fn the_cluster_tells_of_its_nodes() {
    let node = |name: &str, up: bool, standing: &str, ahead: i64| json!({"name": name, "up": up, "standing": standing, "clock_ahead_ms": ahead, "error": if up { Value::Null } else { "refused".into() }});
    let cluster = |nodes: [Value; 3]| Some(json!({"hints_waiting": 16, "nodes": nodes}));
    let well = cluster([
        node("a", true, "voting", 3),
        node("b", true, "voting", -2),
        node("c", true, "voting", 0),
    ]);
    let findings = Probes::with(&all_ready_but(&[]), Vec::new(), well).findings();
    assert_eq!(of(&findings, "cluster").found, "3 nodes up, 16 hints waiting");
    let sick = cluster([
        node("a", false, "voting", 0),
        node("b", true, "filling", 0),
        node("c", true, "voting", 2_000),
    ]);
    let findings = Probes::with(&all_ready_but(&[]), Vec::new(), sick).findings();
    let found: Vec<_> = findings[8..]
        .iter()
        .map(|finding| (finding.state, finding.found.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (State::Ill, "kvfront suspects a: refused"),
            (State::Hint, "b is filling"),
            (State::Ill, "c is 2000 ms ahead of kvfront")
        ]
    );
}

async fn serve(router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// What the service named `gateway`, whose port is the base, is found to be.
async fn asked(port: u16) -> Finding {
    let findings = Probes::ask("127.0.0.1", port, Vec::new()).await.unwrap().findings();
    of(&findings, "gateway").clone()
}

#[tokio::test]
async fn services_are_asked() {
    let ready = json!({"status": "ready", "checks": {"kv": {"ok": true, "last_success_sec_ago": 0.1, "error": null}}});
    let well = serve(Router::new().route("/ready", get(|| async move { Json(ready) }))).await;
    assert_eq!(asked(well).await.state, State::Ok);
    let not = json!({"status": "not ready", "checks": {"kv": {"ok": false, "last_success_sec_ago": null, "error": "503"}, "index": {"ok": true}}});
    let sick = serve(Router::new().route(
        "/ready",
        get(|| async move { (StatusCode::SERVICE_UNAVAILABLE, Json(not)) }),
    ))
    .await;
    let found = asked(sick).await;
    assert!(
        found.state == State::Ill && found.found.ends_with("not ready: kv (503)"),
        "{found:?}"
    );
    let other = serve(Router::new().route("/", get(|| async { "hello" }))).await;
    assert!(asked(other).await.found.contains("another program"));
}

#[test]
fn people_see_what_to_do() {
    let findings = vec![
        Finding::ok("docker", "28.5.1"),
        Finding::ill("lb", "port 8080: nobody listens", "start it"),
    ];
    let text = Diagnosis {
        state: State::Ill,
        findings,
    }
    .text();
    assert_eq!(
        text,
        "ok    docker        28.5.1\nILL   lb            port 8080: nobody listens\n                    → start it\nsomething has to be mended\n"
    );
}
