//! Server-Sent Events out of pieces of any size: as much of WHATWG HTML §9.2 as a kvfront uses.

use slo::lines::Lines;

/// Longest line of a stream, bytes: a change may carry the largest value that a kvfront takes, and its key.
const LINE_MAX_BYTES: usize = 16 << 20;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// What to resume after.
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) data: String,
}

/// Puts events together.
#[derive(Debug)]
pub(super) struct Events {
    lines: Lines,
    begun: Event,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            lines: Lines::with_max(LINE_MAX_BYTES),
            begun: Event::default(),
        }
    }
}

impl Events {
    /// The events that end in `piece`.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<Event> {
        let (begun, mut ended) = (&mut self.begun, Vec::new());
        self.lines.push(piece, |line| {
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
            if line.is_empty() {
                if !begun.kind.is_empty() {
                    ended.push(std::mem::take(begun));
                }
                return;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => value.clone_into(&mut begun.id),
                "event" => value.clone_into(&mut begun.kind),
                "data" => value.clone_into(&mut begun.data),
                _ => {}
            }
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Events};

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = "id: 1-80\nevent: position\ndata: {}\n\n: comment\n\nid: 1-81\r\nevent: change\r\ndata: {\"key\":\"a: b\"}\r\n\r\nid: 2";
        for len in 1..text.len() {
            let mut events = Events::default();
            let found: Vec<Event> = text
                .as_bytes()
                .chunks(len)
                .flat_map(|piece| events.push(piece))
                .collect();
            let kinds: Vec<_> = found
                .iter()
                .map(|event| (event.id.as_str(), event.kind.as_str(), event.data.as_str()))
                .collect();
            assert_eq!(
                kinds,
                [("1-80", "position", "{}"), ("1-81", "change", "{\"key\":\"a: b\"}")],
                "pieces of {len}"
            );
        }
    }
}
