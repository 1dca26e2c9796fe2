//! The services: who listens, who is ready, and who only waits for somebody else.
//!
//! Each is asked where it publishes its port: compose.yml and `dronedispatch up` agree about those. Of what containers do not publish, Docker's own health
//! checks tell.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Finding;
use super::machine::Container;
use crate::gateway;

/// How long a port may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Clocks that differ by more are refused, milliseconds: the default of `MAX_CLOCK_SKEW_MS`.
const CLOCK_SKEW_MAX_MS: i64 = 500;

/// A service as people know it.
struct Service {
    name: &'static str,
    /// Its port above the port base.
    offset: u16,
    /// The variable of compose.yml that moves it; `None`: containers do not publish it.
    variable: Option<&'static str>,
    /// Whom it cannot do without.
    needs: &'static [&'static str],
    advice: &'static str,
}

const KVSTORES: [&str; 3] = ["kvstore_a", "kvstore_b", "kvstore_c"];

/// From the bottom up: what is wrong with one explains what is wrong with those after it.
const SERVICES: [Service; 8] = [
    Service {
        name: KVSTORES[0],
        offset: 1_001,
        variable: Some("KVSTORE_A_PORT"),
        needs: &[],
        advice: KVSTORE_ADVICE,
    },
    Service {
        name: KVSTORES[1],
        offset: 1_002,
        variable: Some("KVSTORE_B_PORT"),
        needs: &[],
        advice: KVSTORE_ADVICE,
    },
    Service {
        name: KVSTORES[2],
        offset: 1_003,
        variable: Some("KVSTORE_C_PORT"),
        needs: &[],
        advice: KVSTORE_ADVICE,
    },
    Service {
        name: "kvfront",
        offset: 1_000,
        variable: Some("KVFRONT_PORT"),
        needs: &KVSTORES,
        advice: "compare its BACKENDS with where the kvstores listen, and look at its log",
    },
    Service {
        name: "gateway",
        offset: 0,
        variable: None,
        needs: &["kvfront"],
        advice: "look at its log; lb sends requests to the others meanwhile",
    },
    Service {
        name: "lb",
        offset: 80,
        variable: Some("LB_PORT"),
        needs: &["gateway"],
        advice: "compare its TARGET_URL with where the gateways listen",
    },
    Service {
        name: "dispatcher",
        offset: 100,
        variable: None,
        needs: &["kvfront"],
        advice: "orders wait meanwhile and none is lost; look at its log",
    },
    Service {
        name: "drone",
        offset: 200,
        variable: None,
        needs: &["kvfront"],
        advice: "drones stand still meanwhile; look at its log",
    },
];

const KVSTORE_ADVICE: &str =
    "one of three may be away; look at its log and its disk (docs/operations.md, \"A node lost its disk\")";

/// What a service said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Ready,
    /// Its failing checks.
    NotReady(String),
    /// Something listens there that is no service of ours.
    Stranger(String),
    /// Nobody listens.
    Nobody,
    /// Somebody does, and says nothing.
    Silent,
}

/// What all of them said.
#[derive(Debug, Default)]
pub(super) struct Probes {
    answers: Vec<(&'static str, u16, Answer)>,
    containers: Vec<Container>,
    cluster: Option<Value>,
}

/// The body of `/ready`.
#[derive(Deserialize)]
struct Ready {
    status: String,
    #[serde(default)]
    checks: std::collections::BTreeMap<String, Check>,
}

#[derive(Deserialize)]
struct Check {
    ok: bool,
    error: Option<String>,
}

impl Probes {
    /// Asks everybody.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub(super) async fn ask(host: &str, port_base: u16, mut containers: Vec<Container>) -> anyhow::Result<Self> {
        containers.retain(|container| is_ours(&container.service));
        let client = gateway::client()?;
        let mut answers = Vec::new();
        for service in &SERVICES {
            let port = service.port(port_base);
            answers.push((service.name, port, ask(&client, &format!("http://{host}:{port}")).await));
        }
        let kvfront = SERVICES.iter().find(|service| service.name == "kvfront");
        let cluster = match kvfront.map(|service| format!("http://{host}:{}", service.port(port_base))) {
            Some(url) => gateway::Gateway::new(&url)?.get("/cluster").await.ok(),
            None => None,
        };
        Ok(Self {
            answers,
            containers,
            cluster,
        })
    }

    /// A finding per service, and one per node that the cluster suspects.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let is_up = self
            .answers
            .iter()
            .any(|(_, _, answer)| matches!(answer, Answer::Ready | Answer::NotReady(_) | Answer::Silent));
        let mut findings = Vec::new();
        for (service, (name, port, answer)) in SERVICES.iter().zip(&self.answers) {
            findings.push(match answer {
                Answer::Stranger(what) => Finding::ill(
                    *name,
                    format!("port {port}: {what}"),
                    "stop the program that listens there, or move ours (--port-base, LB_PORT and its like)",
                ),
                Answer::Ready => Finding::ok(*name, format!("port {port}: ready")),
                Answer::NotReady(why) => self.ill(service, format!("port {port}: not ready: {why}")),
                Answer::Silent => self.ill(
                    service,
                    format!("port {port}: it takes connections and says nothing: it hangs or is paused"),
                ),
                Answer::Nobody => self.absent(service, *port, is_up),
            });
        }
        findings.extend(
            self.containers
                .iter()
                .filter(|container| container.service == "rabbitmq")
                .map(broker),
        );
        findings.extend(self.nodes());
        if !is_up && self.containers.is_empty() {
            let advice = "`cargo run --release`, or `docker compose up -d --build --scale gateway=3`";
            findings.push(Finding::hint("system", "nothing runs, and the ports are free", advice));
        }
        findings
    }

    /// Nobody listens at its port: containers may not publish it, or it is not running.
    fn absent(&self, service: &Service, port: u16, is_up: bool) -> Finding {
        let mut containers = self
            .containers
            .iter()
            .filter(|container| container.service == service.name)
            .peekable();
        if containers.peek().is_none() {
            return if is_up {
                self.ill(service, format!("port {port}: nobody listens"))
            } else {
                Finding::ok(service.name, format!("port {port}: free"))
            };
        }
        let sick: Vec<_> = containers
            .clone()
            .filter(|container| !is_well(&container.status))
            .collect();
        match sick.first() {
            Some(container) => self.ill(service, format!("{}: {}", container.name, container.status)),
            None => Finding::ok(
                service.name,
                containers
                    .map(|container| format!("{}: {}", container.name, container.status))
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
        }
    }

    /// What is wrong with a service, and what to do: first of all about whom it waits for.
    fn ill(&self, service: &Service, found: String) -> Finding {
        let down: Vec<_> = service
            .needs
            .iter()
            .filter(|name| self.is_down(name))
            .copied()
            .collect();
        // A kvfront does with two of its three nodes.
        let is_explained = if service.name == "kvfront" {
            down.len() >= 2
        } else {
            !down.is_empty()
        };
        if is_explained {
            return Finding::ill(
                service.name,
                found,
                format!("it waits for {}: mend that first", down.join(" and ")),
            );
        }
        let start = if found.contains("nobody listens") || found.contains("Exited") {
            format!("start it (`docker compose start {}`); ", service.name)
        } else {
            String::new()
        };
        Finding::ill(service.name, found, format!("{start}{}", service.advice))
    }

    fn is_down(&self, name: &str) -> bool {
        let said = self
            .answers
            .iter()
            .find(|(asked, ..)| *asked == name)
            .map(|(_, _, answer)| answer);
        match said {
            Some(Answer::Ready) | None => false,
            Some(Answer::Nobody) => {
                let mut containers = self
                    .containers
                    .iter()
                    .filter(|container| container.service == name)
                    .peekable();
                // Several may run: one that is well is enough.
                containers.peek().is_none() || !containers.any(|container| is_well(&container.status))
            }
            Some(_) => true,
        }
    }

    /// What kvfront says of its nodes.
    fn nodes(&self) -> Vec<Finding> {
        let Some(nodes) = self.cluster.as_ref().and_then(|cluster| cluster["nodes"].as_array()) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        for node in nodes {
            let name = node["name"].as_str().unwrap_or("?");
            let error = node["error"].as_str().unwrap_or("it does not answer");
            let ahead_ms = node["clock_ahead_ms"].as_i64().unwrap_or(0);
            if node["up"] == false {
                findings.push(Finding::ill(
                    "cluster",
                    format!("kvfront suspects {name}: {error}"),
                    "nothing is lost while it is one of three: start it, hints and filling do the rest",
                ));
            } else if let Some(standing) = node["standing"].as_str().filter(|standing| *standing != "voting") {
                findings.push(Finding::hint(
                    "cluster",
                    format!("{name} is {standing}"),
                    "it is being filled or compared by itself: keep the other nodes up meanwhile",
                ));
            }
            if ahead_ms.abs() > CLOCK_SKEW_MAX_MS {
                findings.push(Finding::ill(
                    "clock",
                    format!("{name} is {ahead_ms} ms ahead of kvfront"),
                    "mend the clock of the machine that is wrong (NTP)",
                ));
            }
        }
        let waiting = self
            .cluster
            .as_ref()
            .and_then(|cluster| cluster["hints_waiting"].as_u64())
            .unwrap_or(0);
        if findings.is_empty() {
            findings.push(Finding::ok(
                "cluster",
                format!("{} nodes up, {waiting} hints waiting", nodes.len()),
            ));
        }
        findings
    }
}

impl Service {
    fn port(&self, port_base: u16) -> u16 {
        let moved = self
            .variable
            .and_then(|name| std::env::var(name).ok()?.trim().parse().ok());
        moved.unwrap_or(port_base.saturating_add(self.offset))
    }
}

fn is_ours(service: &str) -> bool {
    service == "rabbitmq" || SERVICES.iter().any(|known| known.name == service)
}

/// Whether Docker says that a container is well.
fn is_well(status: &str) -> bool {
    status.starts_with("Up")
        && !status.contains("(unhealthy)")
        && !status.contains("(Paused)")
        && !status.contains("(health: starting)")
}

/// Nobody waits for the broker, so its absence is worth a hint and no more.
fn broker(container: &Container) -> Finding {
    let found = format!("{}: {}", container.name, container.status);
    if is_well(&container.status) {
        Finding::ok("rabbitmq", found)
    } else {
        Finding::hint(
            "rabbitmq",
            found,
            "everything goes on, a little later; `docker compose start rabbitmq`",
        )
    }
}

async fn ask(client: &reqwest::Client, base: &str) -> Answer {
    let answer = match client.get(format!("{base}/ready")).timeout(ASK_TIMEOUT).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return Answer::Nobody,
        Err(error) if error.is_timeout() => return Answer::Silent,
        Err(_) => return Answer::Stranger("something that does not speak HTTP listens there".to_owned()),
    };
    let status = answer.status();
    let ready = match answer.bytes().await {
        Ok(body) => serde_json::from_slice::<Ready>(&body).ok(),
        Err(_) => None,
    };
    match ready {
        None => Answer::Stranger(format!(
            "another program listens there (GET /ready was answered with {status})"
        )),
        Some(ready) if ready.status == "ready" => Answer::Ready,
        Some(ready) => Answer::NotReady(ready.why()),
    }
}

impl Ready {
    fn why(&self) -> String {
        let failing = self.checks.iter().filter(|(_, check)| !check.ok);
        let lines: Vec<_> = failing
            .map(|(name, check)| format!("{name} ({})", check.error.as_deref().unwrap_or("not yet")))
            .collect();
        if lines.is_empty() {
            self.status.clone()
        } else {
            lines.join(", ")
        }
    }
}

#[cfg(test)]
impl Probes {
    pub(super) fn with(answers: &[(&'static str, Answer)], containers: Vec<Container>, cluster: Option<Value>) -> Self {
        let answer = |service: &Service| {
            let found = answers.iter().find(|(name, _)| *name == service.name);
            (
                service.name,
                service.port(8_000),
                found.map_or(Answer::Nobody, |(_, answer)| answer.clone()),
            )
        };
        Self {
            answers: SERVICES.iter().map(answer).collect(),
            containers,
            cluster,
        }
    }
}
