//! `dronedispatch up`, as somebody runs it who has just cloned the repository.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{program, wait_until_blocking};
use crate::system::{all_delivered, body, client, delivery, id_of, order, send, turn};

/// The page answers that long after the start.
const UP_WITHIN: Duration = Duration::from_secs(5);
/// Ctrl-C ends everything within this time.
const STOP_WITHIN: Duration = Duration::from_secs(5);

struct Up {
    child: Child,
    lb: String,
    lines: mpsc::Receiver<String>,
    up_after: Duration,
}

impl Up {
    fn start(data: &Path, flags: &[&str]) -> Self {
        let begun = Instant::now();
        let mut child = Command::new(program("dronedispatch"))
            .args(["up", "--port-base", "0", "--data-dir"])
            .arg(data)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dronedispatch starts");
        let (tell, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        thread::spawn(move || output.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let lb = loop {
            let line = lines
                .recv_timeout(Duration::from_secs(30))
                .expect("it says where to look");
            if let Some((_, url)) = line.split_once("dashboard  ") {
                break url.trim_end_matches("/dashboard").to_owned();
            }
        };
        Self {
            child,
            lb,
            lines,
            up_after: begun.elapsed(),
        }
    }

    fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().expect("kill");
        wait_until_blocking(STOP_WITHIN, "Ctrl-C ends everything", || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        let status = self.child.wait().expect("it has ended");
        assert!(status.success(), "{status}");
        begun.elapsed()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn twenty_orders_at_one_a_second_are_all_delivered_and_state_survives() {
    let _turn = turn().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let mut up = Up::start(data.path(), &["--orders", "none"]);
    assert!(up.up_after < UP_WITHIN, "the page answered after {:?}", up.up_after);
    let http = client();
    assert_eq!(send(http.get(format!("{}/dashboard", up.lb))).await.status(), 200);

    let mut ids = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for n in 0..20 {
        ticks.tick().await;
        let answer = send(http.post(format!("{}/deliveries", up.lb)).json(&order(n))).await;
        assert_eq!(answer.status(), 201, "order {n}");
        ids.push(id_of(answer).await);
    }
    let took = all_delivered(&http, &up.lb, &ids, Duration::from_secs(90)).await;
    let mut to_assign = Vec::new();
    for id in &ids {
        let record = delivery(&http, &up.lb, id).await;
        let time = |field: &str| record[field].as_f64().unwrap_or_else(|| panic!("{field} of {record}"));
        assert!(time("timestamp") <= time("assigned_at") && time("assigned_at") <= time("picked_up_at"));
        assert!(time("picked_up_at") <= time("delivered_at"));
        to_assign.push(time("assigned_at") - time("timestamp"));
    }
    to_assign.sort_by(f64::total_cmp);
    println!(
        "up after {:?}; all delivered {took:?} after the last order; seconds to assign: {to_assign:.2?}",
        up.up_after
    );
    assert!(
        to_assign[ids.len() / 2] < 2.0,
        "with drones free, half are assigned within 2 s: {to_assign:.2?}"
    );
    wait_until_blocking(Duration::from_secs(15), "the status line counts them", || {
        up.lines.try_iter().any(|line| line.contains("20 delivered"))
    });
    let stopped = up.stop();
    println!("Ctrl-C took {stopped:?}");

    let mut again = Up::start(data.path(), &["--orders", "none"]);
    for id in &ids {
        assert_eq!(
            delivery(&http, &again.lb, id).await["status"],
            "delivered",
            "state survives a restart"
        );
    }
    let second = Command::new(program("dronedispatch"))
        .args(["--port-base", "0", "--data-dir"])
        .arg(data.path())
        .output();
    let second = second.expect("it runs");
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && error.contains("--data-dir"),
        "two in one folder: {error}"
    );
    again.stop();
}

#[tokio::test]
async fn the_order_generator_keeps_drones_busy() {
    let _turn = turn().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let mut up = Up::start(data.path(), &["--drones", "9", "--gateways", "1"]);
    let http = client();
    let begun = Instant::now();
    let delivered = loop {
        let list = body(send(http.get(format!("{}/deliveries?limit=100", up.lb))).await).await;
        let items = list["items"].as_array().expect("items").clone();
        let delivered = items.iter().filter(|item| item["status"] == "delivered").count();
        if delivered > 0 {
            break delivered;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nothing delivered within 60 s: {list}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    println!(
        "{delivered} delivered {:?} after the start",
        begun.elapsed() + up.up_after
    );
    let drones: Value = body(send(http.get(format!("{}/drones", up.lb))).await).await;
    assert_eq!(drones["count"], 9);
    up.stop();
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_service_and_the_flag_that_helps() {
    // The taken port is the first gateway's. Below those that outgoing connections are given, or one of them may have another port that
    // the program needs.
    let from = 12_000 + u16::try_from(std::process::id() % 10_000).expect("less than 10,000");
    let taken = (from..32_000).find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok());
    let taken = taken.expect("a free port");
    let base = taken.local_addr().expect("bound").port().to_string();
    let data = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(program("dronedispatch"))
        .args(["--port-base", &base, "--data-dir"])
        .arg(data.path())
        .output();
    let output = output.expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for part in [base.as_str(), "gateway", "--port-base", "taken"] {
        assert!(error.contains(part), "{error:?} should contain {part:?}");
    }
}
