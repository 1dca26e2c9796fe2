//! Whole lines out of pieces of any size.

use memchr::memchr_iter;

/// Longest line that is kept while its end has not come, bytes. lb's are below 4 KiB; what is longer is none of its lines.
pub const LINE_MAX_BYTES: usize = 64 << 10;

/// Puts lines together that were cut between two pieces.
#[derive(Debug)]
pub struct Lines {
    /// Longest line.
    max_bytes: usize,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// The line under way is too long: its rest is thrown away.
    skipping: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self::with_max(LINE_MAX_BYTES)
    }
}

impl Lines {
    /// With another longest line than [`LINE_MAX_BYTES`].
    #[must_use]
    pub fn with_max(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            begun: Vec::new(),
            skipping: false,
        }
    }

    /// Gives every line that ends in `piece`, without its line feed. What was cut between pieces is cut off at the longest length.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = piece;
        if !self.begun.is_empty() || self.skipping {
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.begin(rest);
                return;
            };
            self.begin(&rest[..end]);
            each(&self.begun);
            self.begun.clear();
            self.skipping = false;
            rest = &rest[end + 1..];
        }
        let mut from = 0;
        for end in memchr_iter(b'\n', rest) {
            each(&rest[from..end]);
            from = end + 1;
        }
        self.begin(&rest[from..]);
    }

    /// Gives the last line, should it have no line feed.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            each(&self.begun);
        }
        self.begun.clear();
        self.skipping = false;
    }

    fn begin(&mut self, part: &[u8]) {
        let room = self.max_bytes - self.begun.len();
        self.begun.extend_from_slice(&part[..part.len().min(room)]);
        self.skipping = self.begun.len() == self.max_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_MAX_BYTES, Lines};

    fn cut(text: &[u8], len: usize) -> Vec<Vec<u8>> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for piece in text.chunks(len) {
            lines.push(piece, |line| all.push(line.to_vec()));
        }
        lines.finish(|line| all.push(line.to_vec()));
        all
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"one\n\nthree\nno end";
        for len in 1..=text.len() {
            assert_eq!(
                cut(text, len),
                [&b"one"[..], b"", b"three", b"no end"],
                "pieces of {len}"
            );
        }
        assert!(cut(b"", 1).is_empty());
    }

    #[test]
    fn a_line_without_end_takes_no_memory_without_end() {
        let mut text = vec![b'x'; 3 * LINE_MAX_BYTES];
        text.extend_from_slice(b"\nnext\n");
        let lines = cut(&text, 1_000);
        assert_eq!((lines[0].len(), lines[1].as_slice()), (LINE_MAX_BYTES, &b"next"[..]));
    }
}
