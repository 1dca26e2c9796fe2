//! What people get to see.

use linearizability::timeline::{svg, text};
use linearizability::{Entry, NEVER, Op, check};

use crate::workload::{LOCK, REGISTER, Workload};

fn stale_read() -> Vec<Entry> {
    vec![
        Entry::new(0, 4, 0, 5, Op::Write(Some(3))),
        Entry::new(
            1,
            4,
            2,
            9,
            Op::Cas {
                expected: Some(3),
                new: Some(7),
                swapped: Some(true),
            },
        ),
        Entry::new(2, 4, 10, 12, Op::Read(Some(3))),
        Entry::new(1, 4, 11, NEVER, Op::Write(None)),
        Entry::new(9, 4, 6, NEVER, Op::End(7)),
    ]
}

#[test]
fn a_violation_as_text() {
    let text = text(&stale_read());
    let expected = "\
key 4
time  c0  c1  c2  ·
   0  ┬                c0 ▸ write 3
   2  │   ┬            c1 ▸ cas 3→7
   5  ┴   │            c0 ◂ write 3 ok  #1
   6      │       ·    · may end: 7 ends
   9      ┴            c1 ◂ cas 3→7 ok  #2
  10          ┬        c2 ▸ read
  11      ┬   │        c1 ▸ delete ?
  12      │   ┴        c2 ◂ read → 3  ✗
          ?            never answered
wrong: all answers until 9 can be explained (an order that does so ends with 7), but not `read → 3` of client 2,
answered at 12
";
    assert_eq!(text.trim_end(), expected.trim_end(), "got\n{text}");
}

#[test]
fn a_violation_as_an_image() {
    let svg = svg(&stale_read());
    assert!(svg.starts_with("<svg xmlns=") && svg.trim_end().ends_with("</svg>"));
    for part in [
        "cas 3→7 ok",
        "class=\"bar wrong\"",
        "class=\"bar open\"",
        "#2</text>",
        "client 2",
        "read → 3",
        "prefers-color-scheme:dark",
    ] {
        assert!(svg.contains(part), "{part} in {svg}");
    }
    assert_eq!(
        svg.matches("<rect").count(),
        stale_read().len(),
        "a bar for each operation"
    );
    assert_eq!(svg.matches("class=\"bar wrong\"").count(), 1);
    for tag in ["svg", "g", "text", "title", "style"] {
        let opened = svg.matches(&format!("<{tag}>")).count() + svg.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag} is closed");
    }
}

#[test]
fn the_violation_shows_itself() {
    let violation = check(&stale_read()).expect_err("stale");
    let shown = violation.to_string();
    assert!(
        shown.starts_with("key 4 is not linearizable: all answers until 9"),
        "{shown}"
    );
    assert!(shown.contains("read → 3  ✗"), "{shown}");
}

#[test]
fn everything_can_be_drawn_within_the_columns() {
    let crowd = Workload {
        operations: 300,
        clients: 40,
        unknown: 0.1,
        ..REGISTER
    };
    let kinds = [
        REGISTER,
        LOCK,
        crowd,
        Workload { ending: 0.5, ..crowd },
        Workload { fenced: 0.9, ..crowd },
    ];
    for workload in kinds {
        let mut history = workload.history(3);
        let text = text(&history);
        for line in text.lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
        for entry in &history {
            assert!(text.contains(&entry.op.to_string()), "{entry} in {text}");
        }
        assert_eq!(svg(&history).matches("<rect").count(), history.len());
        assert!(!text.contains('✗'), "nothing is wrong");
        history.push(Entry::new(0, 7, 1_000_000, 1_000_001, Op::Read(Some(u32::MAX))));
        if workload.model == REGISTER.model {
            assert!(linearizability::timeline::text(&history).contains('✗'));
        }
    }
}

#[test]
fn a_long_violation_is_shown_where_it_matters() {
    let mut history = Workload {
        operations: 1_000,
        ..REGISTER
    }
    .history(5);
    history.push(Entry::new(0, 7, 1_000_000, 1_000_001, Op::Read(Some(u32::MAX))));
    let shown = check(&history).expect_err("nobody wrote it").to_string();
    assert!(shown.contains("rows before") && shown.contains("✗"), "{shown}");
    assert!(shown.lines().count() < 200);
}

#[test]
fn keys_are_drawn_one_after_the_other() {
    let write = |key| Entry::new(0, key, 0, 1, Op::Write(Some(1)));
    let text = text(&[write(2), write(1)]);
    assert!(text.find("key 1").expect("drawn") < text.find("key 2").expect("drawn"));
    assert_eq!(linearizability::timeline::text(&[]), "");
    assert!(svg(&[]).contains("</svg>"));
}
