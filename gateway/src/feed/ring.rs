//! The newest frames, numbered.

use std::collections::VecDeque;

use bytes::Bytes;

/// Frames kept: a minute's worth at the default interval.
const FRAMES_MAX: usize = 600;
/// Bytes of frames kept. Above this the oldest go, and viewers who come back for them get a snapshot.
const BYTES_MAX: usize = 8 << 20;

/// The newest frames.
#[derive(Debug)]
pub(super) struct Ring {
    /// Names this ring: an id of another gateway, or of the time before a restart, means nothing here.
    epoch: u32,
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Number of the newest frame; the first is 1.
    head: u64,
    /// The snapshot that belongs to `head`.
    snapshot: Option<Bytes>,
}

impl Ring {
    pub(super) fn new(epoch: u32) -> Self {
        Self {
            epoch,
            frames: VecDeque::new(),
            bytes: 0,
            head: 0,
            snapshot: None,
        }
    }

    /// Number of the newest frame, 0 before the first.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Number of the frame that comes next.
    pub(super) fn next(&self) -> u64 {
        self.head + 1
    }

    /// The id of events of frame `number`.
    pub(super) fn id(&self, number: u64) -> String {
        format!("{:08x}-{number}", self.epoch)
    }

    /// The number in an id of this ring.
    pub(super) fn place_of(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        (u32::from_str_radix(epoch, 16) == Ok(self.epoch)).then(|| number.parse().ok())?
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        self.head += 1;
        self.snapshot = None;
        while self.frames.len() > FRAMES_MAX || (self.bytes > BYTES_MAX && self.frames.len() > 1) {
            let oldest = self.frames.pop_front();
            self.bytes -= oldest.map_or(0, |frame| frame.len());
        }
    }

    /// The frames after number `place`; `None` when one of them is gone, or there is no such place.
    pub(super) fn after(&self, place: u64) -> Option<Vec<Bytes>> {
        let missing = usize::try_from(self.head.checked_sub(place)?).ok()?;
        let skip = self.frames.len().checked_sub(missing)?;
        Some(self.frames.iter().skip(skip).cloned().collect())
    }

    /// Nobody can go on from before now.
    pub(super) fn forget(&mut self) {
        self.frames.clear();
        self.bytes = 0;
        // A place right at the head would still be good; the number that is left out makes it a gap.
        self.head += 1;
        self.snapshot = None;
    }

    /// The snapshot that belongs to the newest frame, made when there is none yet.
    pub(super) fn snapshot(&mut self, make: impl FnOnce() -> Bytes) -> Bytes {
        self.snapshot.get_or_insert_with(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(frames: Option<Vec<Bytes>>) -> Option<Vec<String>> {
        frames.map(|frames| {
            frames
                .iter()
                .map(|frame| String::from_utf8_lossy(frame).into_owned())
                .collect()
        })
    }

    #[test]
    fn what_is_kept_can_be_had_again_and_the_rest_is_told_apart() {
        let mut ring = Ring::new(7);
        assert_eq!(numbers(ring.after(0)), Some(vec![]));
        for number in 1..=700 {
            ring.push(Bytes::from(number.to_string()));
        }
        assert_eq!(numbers(ring.after(698)), Some(vec!["699".to_owned(), "700".to_owned()]));
        assert_eq!(numbers(ring.after(700)), Some(vec![]));
        assert_eq!(ring.after(100).map(|frames| frames.len()), Some(600));
        assert_eq!(ring.after(99), None, "too old");
        assert_eq!(ring.after(701), None, "never was");
        ring.forget();
        assert_eq!(ring.after(700), None);
        assert_eq!(numbers(ring.after(701)), Some(vec![]));
    }

    #[test]
    fn its_bytes_are_bounded() {
        let mut ring = Ring::new(7);
        for _ in 0..20 {
            ring.push(Bytes::from(vec![b'x'; 1 << 20]));
        }
        assert!(ring.after(12).is_some() && ring.after(11).is_none());
        ring.push(Bytes::from(vec![b'x'; BYTES_MAX + 1]));
        assert_eq!(
            ring.after(20).map(|frames| frames.len()),
            Some(1),
            "the newest is always there"
        );
    }

    #[test]
    fn ids_of_others_mean_nothing() {
        let ring = Ring::new(0xabc);
        assert_eq!(ring.place_of(&ring.id(12)), Some(12));
        for id in ["", "-", "12", "00000abc", "00000abd-12", "00000abc-x", "zz-1"] {
            assert_eq!(ring.place_of(id), None, "{id}");
        }
    }
}
