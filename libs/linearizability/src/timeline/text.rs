//! The picture as text: a row for each call and answer.

use std::fmt::Write as _;
use std::ops::Range;

use super::Picture;
use super::lanes::{Event, Lane, Layout};
use crate::history::Op;

/// Above the first column.
const TIME: &str = "time";
/// No row is longer.
const COLUMNS: usize = 120;
/// What the labels get at least.
const LABEL_COLUMNS: usize = 48;
/// Of a long history, rows shown after what is wrong.
const ROWS_AFTER: usize = 10;
/// Between two lanes at most.
const LANE_COLUMNS: usize = 4;

/// Draws at most so many rows, those around what is wrong; `None` for all.
pub(super) fn draw(picture: &Picture, rows_max: Option<usize>) -> String {
    let layout = Layout::of(&picture.history);
    let time_columns = layout
        .events
        .iter()
        .map(|event| event.at.to_string().len())
        .max()
        .unwrap_or(0)
        .max(TIME.len());
    let room = COLUMNS.saturating_sub(time_columns + 2 + LABEL_COLUMNS);
    let pitch = (room / layout.lanes.len().max(1)).clamp(1, LANE_COLUMNS);
    let mut drawn = format!("key {}\n", picture.key);
    // Writing to a string cannot fail.
    let heads = heads(&layout.lanes, pitch);
    let _ = writeln!(drawn, "{TIME:>time_columns$}  {}", heads.trim_end());
    let mut busy: Vec<Option<usize>> = vec![None; layout.lanes.len()];
    let shown = shown(picture, &layout, rows_max);
    if shown.start > 0 {
        let _ = writeln!(drawn, "… {} rows before", shown.start);
    }
    for (row, event) in layout.events.iter().enumerate() {
        if shown.contains(&row) {
            let marks = marks(&layout, event, &busy, pitch);
            let row = format!("{:>time_columns$}  {marks} {}", event.at, label(picture, event));
            drawn.extend(row.chars().take(COLUMNS));
            drawn.push('\n');
        }
        let lane = &mut busy[layout.lane_of[event.entry]];
        *lane = (event.is_call && !matches!(picture.history[event.entry].op, Op::End(_))).then_some(event.entry);
    }
    let after = layout.events.len() - shown.end;
    if after > 0 {
        let _ = writeln!(drawn, "… {after} rows after");
    } else if busy.iter().any(Option::is_some) {
        let open: String = busy
            .iter()
            .map(|lane| cell(if lane.is_some() { '?' } else { ' ' }, pitch))
            .collect();
        let _ = writeln!(drawn, "{:>time_columns$}  {open} never answered", "");
    }
    for line in picture.remark.iter().flat_map(|remark| wrapped(remark)) {
        drawn.push_str(&line);
        drawn.push('\n');
    }
    drawn
}

/// The rows to show: the last of them soon after what is wrong was answered.
fn shown(picture: &Picture, layout: &Layout, rows_max: Option<usize>) -> Range<usize> {
    let rows = layout.events.len();
    let Some(rows_max) = rows_max.filter(|&most| most < rows) else {
        return 0..rows;
    };
    let last_wrong = layout.events.iter().rposition(|event| picture.wrong[event.entry]);
    let end = last_wrong
        .map_or(rows, |row| (row + ROWS_AFTER).min(rows))
        .max(rows_max);
    end - rows_max..end
}

/// The clients' numbers above their lanes, as far as there is room for them.
fn heads(lanes: &[Lane], pitch: usize) -> String {
    let head = |lane: &Lane| match lane.client {
        Some(client) => format!("c{client}"),
        None => "·".to_owned(),
    };
    let heads = lanes.iter().map(head);
    heads
        .map(|head| {
            if head.chars().count() <= pitch {
                format!("{head:<pitch$}")
            } else {
                cell(' ', pitch)
            }
        })
        .collect()
}

fn cell(mark: char, pitch: usize) -> String {
    format!("{mark:<pitch$}")
}

fn marks(layout: &Layout, event: &Event, busy: &[Option<usize>], pitch: usize) -> String {
    let mine = layout.lane_of[event.entry];
    let mark = |(lane, busy): (usize, &Option<usize>)| match (lane == mine, event.is_call, busy) {
        (true, _, _) if layout.lanes[lane].client.is_none() => '·',
        (true, true, _) => '┬',
        (true, false, _) => '┴',
        (false, _, Some(_)) => '│',
        (false, _, None) => ' ',
    };
    busy.iter().enumerate().map(|lane| cell(mark(lane), pitch)).collect()
}

/// `c1 ▸ cas 3→7` when asked, `c1 ◂ cas 3→7 ok  #4` when answered.
fn label(picture: &Picture, event: &Event) -> String {
    let entry = &picture.history[event.entry];
    match entry.op {
        Op::End(_) if event.is_call => format!("· may end: {}", picture.label(event.entry)),
        Op::End(_) => format!("· has ended: {}", entry.op),
        _ if !event.is_call => format!("c{} ◂ {}", entry.client, picture.label(event.entry)),
        _ if entry.returned == crate::NEVER => format!("c{} ▸ {}", entry.client, picture.label(event.entry)),
        _ => format!("c{} ▸ {}", entry.client, entry.op),
    }
}

/// Lines of at most [`COLUMNS`].
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
