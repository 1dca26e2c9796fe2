//! The picture as SVG: a lane per client, time flowing to the right, one step per call or answer.

use std::fmt::Write as _;

use super::Picture;
use super::lanes::{Event, Layout};
use crate::history::{NEVER, Op};

// All sizes in pixels.
/// Between one call or answer and the next, at least.
const STEP: usize = 16;
const LANE: usize = 38;
const BAR: usize = 22;
const LEFT: usize = 64;
const HEAD: usize = 44;
const FOOT: usize = 34;
const RIGHT: usize = 40;
const OPEN: usize = 160;
/// Width of a letter, about: room for labels is reckoned by it.
const LETTER: usize = 7;

/// Colours for light surroundings, and others for dark ones. All selectors are the picture's own, as it may stand in a page.
const STYLE: &str = "
.timeline{font:12px ui-sans-serif,system-ui,sans-serif;background:#fff}
.timeline text{fill:#1c1e21}
.timeline .lane{stroke:#d5d9de}
.timeline .bar{fill:#cfe3fb;stroke:#4a86c8}
.timeline .open{fill:#eceef1;stroke:#8a929c;stroke-dasharray:4 3}
.timeline .wrong{fill:#fbd3d0;stroke:#c62f26;stroke-width:2}
.timeline .place{font-size:10px;font-weight:600}
.timeline .time{font-size:9px;opacity:.7}
@media (prefers-color-scheme:dark){
.timeline{background:#16181d}
.timeline text{fill:#e6e8eb}
.timeline .lane{stroke:#3a3f47}
.timeline .bar{fill:#24466e;stroke:#6aa5e8}
.timeline .open{fill:#2b2f36;stroke:#9aa3ae}
.timeline .wrong{fill:#6b2320;stroke:#ff7b72}
}
";

pub(super) fn draw(pictures: &[Picture]) -> String {
    let (mut body, mut width, mut top) = (String::new(), LEFT + RIGHT, 0);
    for picture in pictures {
        let layout = Layout::of(&picture.history);
        let remark = picture.remark.as_deref().unwrap_or_default();
        width = width
            .max(end_of(&positions(picture, &layout)) + RIGHT)
            .max(LEFT + remark.chars().count() * LETTER);
        draw_one(&mut body, picture, &layout, top);
        top += height_of(&layout);
    }
    let height = top.max(HEAD);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" class=\"timeline\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\"><title>Timeline of a history</title><style>{STYLE}</style>\n{body}</svg>\n"
    )
}

fn height_of(layout: &Layout) -> usize {
    HEAD + layout.lanes.len() * LANE + FOOT
}

/// Where each call and answer stands: in order, and so that every operation has room for its label.
fn positions(picture: &Picture, layout: &Layout) -> Vec<usize> {
    let mut free_from = vec![0; layout.lanes.len()];
    let mut x = LEFT;
    let place = |event: &Event| {
        let free_from = &mut free_from[layout.lane_of[event.entry]];
        x = (x + STEP).max(*free_from);
        if event.is_call {
            *free_from = x + label_width(picture, event.entry);
        }
        x
    };
    layout.events.iter().map(place).collect()
}

fn label_width(picture: &Picture, entry: usize) -> usize {
    picture.history[entry].to_string().chars().count() * LETTER + LETTER
}

/// Where the lanes end: with room for the label of what is never answered.
fn end_of(positions: &[usize]) -> usize {
    positions.last().map_or(LEFT, |last| last + OPEN)
}

fn draw_one(body: &mut String, picture: &Picture, layout: &Layout, top: usize) {
    let positions = positions(picture, layout);
    let end = end_of(&positions);
    // Writing to a string cannot fail.
    let _ = writeln!(body, "<text x=\"8\" y=\"{}\">key {}</text>", top + 16, picture.key);
    for (i, lane) in layout.lanes.iter().enumerate() {
        let middle = top + HEAD + i * LANE + LANE / 2;
        let name = lane
            .client
            .map_or_else(|| "ends".to_owned(), |client| format!("client {client}"));
        let _ = writeln!(
            body,
            "<line class=\"lane\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{middle}\" y2=\"{middle}\"/>\
             <text x=\"8\" y=\"{}\">{name}</text>",
            middle + 4
        );
    }
    let mut called = vec![0; picture.history.len()];
    let mut free_from = 0;
    for (event, &x) in layout.events.iter().zip(&positions) {
        // Where there is room: times that overlap could not be read.
        let time = event.at.to_string();
        let half = time.len() * LETTER / 2;
        if x >= free_from + half {
            let y = top + HEAD - 6;
            let _ = writeln!(
                body,
                "<text class=\"time\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{time}</text>"
            );
            free_from = x + half;
        }
        if event.is_call {
            called[event.entry] = x;
        }
        let never = picture.history[event.entry].returned == NEVER;
        if !event.is_call || never {
            let until = if never { end } else { x };
            let y = top + HEAD + layout.lane_of[event.entry] * LANE + (LANE - BAR) / 2;
            draw_bar(body, picture, event.entry, (called[event.entry], until, y));
        }
    }
    if let Some(remark) = &picture.remark {
        let y = top + height_of(layout) - FOOT / 2;
        let _ = writeln!(body, "<text x=\"8\" y=\"{y}\">{}</text>", escaped(remark));
    }
}

fn draw_bar(body: &mut String, picture: &Picture, entry: usize, (from, until, y): (usize, usize, usize)) {
    let of = &picture.history[entry];
    let is_end = matches!(of.op, Op::End(_));
    let class = match (picture.wrong[entry], of.returned == NEVER) {
        (true, _) => "bar wrong",
        (_, true) => "bar open",
        _ => "bar",
    };
    // An end is a moment from which on it may happen, not somebody's waiting.
    let width = if is_end {
        BAR / 2
    } else {
        until.saturating_sub(from).max(STEP / 2)
    };
    let answered = if of.returned == NEVER {
        "never".to_owned()
    } else {
        of.returned.to_string()
    };
    let label = escaped(&of.to_string());
    let _ = write!(
        body,
        "<g><title>client {}: {label}\ncalled {}, answered {answered}</title>\
         <rect class=\"{class}\" x=\"{from}\" y=\"{y}\" width=\"{width}\" height=\"{BAR}\" rx=\"4\"/>\
         <text x=\"{}\" y=\"{}\">{label}</text>",
        of.client,
        of.called,
        from + 4,
        y + BAR - 7
    );
    if let Some(place) = picture.places[entry] {
        let _ = write!(
            body,
            "<text class=\"place\" x=\"{from}\" y=\"{}\">#{place}</text>",
            y.saturating_sub(2)
        );
    }
    body.push_str("</g>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
