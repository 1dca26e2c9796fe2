//! Logs with known answers: what is printed, and the line at which each verdict flips.

use slo::{Order, Report, Spec, Tracker, Verdict};

/// 21 November 2025, 05:59:25.
const START_SEC: u64 = 1_763_704_765;

fn spec(text: &str) -> Spec {
    Spec::parse(text).expect("a good SLO file")
}

/// At most 1 of 100 may be bad; two lines a second do not count before there are 20.
fn answered() -> Spec {
    spec(
        r#"{"long_sec":60,"short_sec":10,"burn_limit":2,"risk_budget_percent":25,"min_events":20,
            "objectives":[{"name":"answered","of":"requests","target_percent":99}]}"#,
    )
}

fn text(status: u16) -> String {
    format!("lb-1  | [access] GET /zones {status} 12.5ms\n")
}

fn json(sec: u64, status: u16) -> String {
    format!(
        "{{\"method\":\"GET\",\"ms\":12.5,\"path\":\"/zones\",\"status\":{status},\"stream\":false,\"time\":{}.5}}\n",
        START_SEC + sec
    )
}

/// The verdict after each line, as runs: the verdict and the number of the first line that has it, from 1.
fn flips(tracker: &mut Tracker, lines: impl IntoIterator<Item = String>) -> Vec<(u64, Verdict)> {
    let mut flips: Vec<(u64, Verdict)> = Vec::new();
    for (number, line) in (1..).zip(lines) {
        tracker.feed(line.as_bytes(), None);
        let verdict = Report::new(tracker, None).verdict;
        if flips.last().is_none_or(|(_, last)| *last != verdict) {
            flips.push((number, verdict));
        }
    }
    flips
}

#[test]
fn without_times_verdicts_flip_at_exactly_the_right_line() {
    let mut tracker = Tracker::new(answered(), None);
    // 20 good ones are enough; then a bad one each at lines 101, 402, 800, and at last 801.
    let bad = [101, 402, 800, 801];
    let lines = (1..=900).map(|number| text(if bad.contains(&number) { 503 } else { 200 }));
    assert_eq!(
        flips(&mut tracker, lines),
        [
            (1, Verdict::NotEnoughData),
            (20, Verdict::Kept),
            // 1 of 101 is within the budget of 1.01, of which less than a quarter is left,
            (101, Verdict::AtRisk),
            // until 1 of 134 leaves more than that,
            (134, Verdict::Kept),
            // as 2 of 402, 3 of 800 and 4 of 801 do.
        ]
    );
    let mut tracker = Tracker::new(answered(), None);
    let lines = (1..=900).map(|number| text(if number == 60 || number == 300 { 500 } else { 200 }));
    assert_eq!(
        flips(&mut tracker, lines),
        [
            (1, Verdict::NotEnoughData),
            (20, Verdict::Kept),
            // 1 of 60 is more than 1 of 100; 1 of 100 is not; 1 of 134 leaves a quarter of the budget.
            (60, Verdict::Broken),
            (100, Verdict::AtRisk),
            (134, Verdict::Kept),
            // Likewise 2 of 300 and 2 of 267.
        ]
    );
}

#[test]
fn with_times_a_fast_burn_in_both_windows_is_a_risk() {
    let mut tracker = Tracker::new(answered(), None);
    // Ten a second, and the lines 1,001 to 1,012 are bad. A minute has 600 lines, so 12 bad ones are 2 %; but before that the budget of all
    // lines is nearly spent, and then more than spent.
    let line = |number: u64| {
        json(
            (number - 1) / 10,
            if (1_001..=1_012).contains(&number) { 500 } else { 200 },
        )
    };
    let found = flips(&mut tracker, (1..=1_300).map(line));
    assert_eq!(found[..2], [(1, Verdict::NotEnoughData), (20, Verdict::Kept)]);
    assert_eq!(
        found[2],
        (1_008, Verdict::AtRisk),
        "8 bad of 1,008: less than a quarter of the budget is left"
    );
    assert_eq!(found[3], (1_011, Verdict::Broken), "11 bad of 1,011 are too many");
    assert_eq!(found[4..], [(1_200, Verdict::AtRisk)], "12 of 1,200 are not");
}

#[test]
fn the_burn_rate_alone_flips_the_verdict() {
    let mut tracker = Tracker::new(answered(), None);
    // A second each of 10 lines: 100,000 good ones, so that there is budget enough.
    (0..100_000).for_each(|number| tracker.feed(json(number / 10, 200).as_bytes(), None));
    assert_eq!(Report::new(&tracker, None).verdict, Verdict::Kept);
    // From second 10,000 on every line is bad. The last minute then has 590 good ones and those: n of 590 + n is 2 % from n = 13 on
    // (12.04), but at n = 11 the second is over, and so the window has moved on: 580 good ones, of which n is 2 % from n = 12 on (11.8).
    let storm: Vec<_> = (0..20).map(|number| json(10_000 + number / 10, 500)).collect();
    assert_eq!(flips(&mut tracker, storm), [(1, Verdict::Kept), (12, Verdict::AtRisk)]);
    // It is over when the short window no longer has 2 %: 10 s after the last bad one (in second 10,001), whatever the long one says.
    let calm_again = (0..200).map(|number| json(10_002 + number / 10, 200));
    assert_eq!(
        flips(&mut tracker, calm_again),
        [(1, Verdict::AtRisk), (91, Verdict::Kept)]
    );
    let report = Report::new(&tracker, None);
    let line = &report.objectives[0];
    assert_eq!(
        (line.burn_short, line.burn_long.map(|burn| burn > 2.0)),
        (Some(0.0), Some(true))
    );
}

#[test]
fn a_window_forgets() {
    let mut tracker = Tracker::new(answered(), Some(100));
    let lines = (0..300).map(|number| json(number, if number < 30 { 500 } else { 200 }));
    // Less than a hundred of 100 s: the first bad one leaves the window in second 100, the last in second 129.
    assert_eq!(
        flips(&mut tracker, lines),
        [
            (1, Verdict::NotEnoughData),
            (20, Verdict::Broken),
            (129, Verdict::AtRisk),
            (130, Verdict::Kept)
        ]
    );
    let report = Report::new(&tracker, None);
    assert_eq!((report.objectives[0].events, report.objectives[0].good), (100, 100));
    // Seen later, less is left: nothing in the end.
    let later = |sec: u64| Report::new(&tracker, Some((START_SEC + sec) * 1_000)).objectives[0].events;
    assert_eq!((later(299), later(309), later(1_000)), (100, 90, 0));
}

#[test]
fn known_answers_are_printed_exactly() {
    let mut tracker = Tracker::new(
        spec(
            r#"{"objectives":[
                {"name":"answered","of":"requests","target_percent":99},
                {"name":"orders","of":"requests","method":"POST","path":"/deliveries","max_ms":50,"target_percent":50},
                {"name":"one order","of":"requests","path":"/deliveries/*","max_ms":300,"target_percent":95}]}"#,
        ),
        None,
    );
    for ms in 1..=100 {
        let line = format!(
            "lb_1        | [access] GET /deliveries/x 200 {ms}.0ms\nlb_1  | [access] POST /deliveries 201 {ms}.4ms\r\n"
        );
        tracker.feed(line.as_bytes(), None);
    }
    tracker.feed(
        b"lb-1  | [access] GET /events 200 51234.1ms stream\nlb_1  | starting\n",
        None,
    );
    tracker.feed(
        b"[access] POST /deliveries 429 0.1ms\n[access] GET /health 503 2000.0ms",
        None,
    );
    tracker.finish(None);
    let report = Report::new(&tracker, None);
    assert_eq!(
        report.table(),
        "\
objective              target %    events       p50       p95       p99    good % budget %   burn 1h   burn 5m  verdict
answered                     99       201   51.0 ms   96.0 ms  100.0 ms    99.502     50.2      0.50      0.50  kept
orders                       50       100   50.4 ms   95.4 ms   99.4 ms    49.000     -2.0      1.02      1.02  broken
one order                    95       100   50.0 ms   95.0 ms   99.0 ms   100.000    100.0      0.00      0.00  kept
204 lines: 202 requests (1 refused by a rate limit), 1 event streams, 1 others; they have no times, so every window is the whole input
verdict: broken
"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["verdict"], &json["exit_code"]), (&"broken".into(), &2.into()));
    assert_eq!(json["lines"]["streams"], 1);
    let orders = &json["objectives"][1];
    assert_eq!(
        (&orders["name"], &orders["of"], &orders["verdict"]),
        (&"orders".into(), &"requests".into(), &"broken".into())
    );
    assert_eq!(
        (&orders["events"], &orders["good"], &orders["p50_ms"]),
        (&100.into(), &49.into(), &50.4.into())
    );
}

#[test]
fn a_format_without_latencies_is_not_enough_for_promises_about_them() {
    let mut tracker = Tracker::new(Spec::default(), None);
    let line = "192.0.2.1 - - [21/Nov/2025:05:59:25 +0000] \"GET /zones HTTP/1.1\" 200 17 \"-\" \"curl/8\"\n";
    tracker.feed(line.repeat(50).as_bytes(), None);
    let report = Report::new(&tracker, None);
    let verdicts: Vec<_> = report.objectives.iter().map(|line| line.verdict).collect();
    assert_eq!(
        verdicts,
        [Verdict::Kept, Verdict::NotEnoughData, Verdict::NotEnoughData]
    );
    assert_eq!((report.verdict, report.exit_code), (Verdict::NotEnoughData, 3));
    assert_eq!((report.from, report.at), (Some(START_SEC), Some(START_SEC)));
}

#[test]
fn lines_without_times_can_have_those_of_their_arrival() {
    let mut tracker = Tracker::new(answered(), Some(60));
    for sec in 0..100 {
        tracker.feed(text(200).as_bytes(), Some((START_SEC + sec) * 1_000));
    }
    assert_eq!(Report::new(&tracker, None).objectives[0].events, 60);
}

#[test]
fn orders_are_judged_and_the_oldest_open_one_is_told() {
    let mut tracker = Tracker::new(Spec::default(), Some(3_600));
    let now = 2_000_000.0;
    let order = |age: f64, status: &str, assigned: Option<f64>, delivered: Option<f64>| Order {
        id: format!("o{age}"),
        status: status.into(),
        timestamp: now - age,
        assigned_at: assigned.map(|sec| now - age + sec),
        delivered_at: delivered.map(|sec| now - age + sec),
        ..Order::default()
    };
    let mut orders: Vec<_> = (0..95)
        .map(|n| order(500.0 + f64::from(n), "delivered", Some(5.0), Some(60.0)))
        .collect();
    orders.push(order(400.0, "delivered", Some(41.0), Some(100.0)));
    orders.push(order(300.0, "pending", None, None));
    orders.push(order(12.5, "pending", None, None));
    orders.push(order(90.0, "in_flight", Some(1.0), None));
    tracker.set_orders(&orders, now, false);
    let report = Report::new(&tracker, None);
    // Orders have a time of their own.
    assert!(report.objectives[3].burn_long.is_some() && report.objectives[0].burn_long.is_none());
    // Of 97 decided ones 95 were assigned in 40 s; the young one and the late one's end are told apart.
    let found: Vec<_> = report.objectives[3..]
        .iter()
        .map(|line| (line.events, line.good, line.p50_ms))
        .collect();
    assert_eq!(found, [(98, 96, Some(5_000.2)), (97, 96, Some(60_003.2))]);
    assert_eq!(
        (report.objectives[3].verdict, report.objectives[4].verdict),
        (Verdict::Kept, Verdict::Kept)
    );
    let open = report.orders.as_ref().unwrap();
    assert_eq!(
        (open.open, open.by_status["pending"], open.by_status["in_flight"]),
        (3, 2, 1)
    );
    assert_eq!(
        (open.oldest_sec, open.oldest_id.as_deref()),
        (Some(300.0), Some("o300"))
    );
    assert!(
        report
            .table()
            .contains("\n3 orders in flight, 1 in_flight, 2 pending; the oldest is 300.0 s old: o300\n"),
        "{}",
        report.table()
    );
}

#[test]
fn the_empty_log_says_nothing() {
    let report = Report::new(&Tracker::new(Spec::default(), None), None);
    assert_eq!(
        (report.verdict, report.exit_code, report.objectives.len()),
        (Verdict::NotEnoughData, 3, 3)
    );
    assert!(report.table().contains("0 lines"));
}
