//! The chunked transfer coding (RFC 9112, 7.1), read strictly.
//!
//! Promises: lines end with CRLF and nothing else; a size is 1 to 15 hexadecimal digits, so it cannot overflow; extensions are dropped, as
//! nobody here uses them and servers read them differently; trailers are bounded and checked like headers. What is not understood is an
//! error, never a guess.

use crate::limits::{CHUNK_LINE_MAX_BYTES, TRAILERS_MAX_BYTES};

const SIZE_DIGITS_MAX: usize = 15;

/// Where a chunked body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunked(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Ended,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Not enough to tell.
    Incomplete,
    /// So many bytes speak about the framing only.
    Framing(usize),
    /// So many bytes are data.
    Data(usize),
    /// So many bytes are trailers with their final empty line, and the body ends with them.
    End(usize),
}

/// Not a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed: {0}")]
pub(crate) struct BadChunk(pub(crate) &'static str);

impl Chunked {
    pub(crate) fn new() -> Self {
        Self(State::Size)
    }

    /// Looks at the bytes that come next. The caller takes as many away as the answer says.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<Piece, BadChunk> {
        match self.0 {
            State::Size => self.size(input),
            State::Data(left) => {
                let data = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                if data == 0 {
                    return Ok(Piece::Incomplete);
                }
                let left = left - data as u64;
                self.0 = if left == 0 { State::DataEnd } else { State::Data(left) };
                Ok(Piece::Data(data))
            }
            State::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.0 = State::Size;
                    Ok(Piece::Framing(2))
                }
                [] | [b'\r'] => Ok(Piece::Incomplete),
                _ => Err(BadChunk("no CRLF after a chunk's data")),
            },
            State::Trailers => self.trailers(input),
            State::Ended => Ok(Piece::End(0)),
        }
    }

    fn size(&mut self, input: &[u8]) -> Result<Piece, BadChunk> {
        let digits = input.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > SIZE_DIGITS_MAX {
            return Err(BadChunk("a chunk's size has more than 15 digits"));
        }
        let Some(after) = input.get(digits) else {
            return Ok(Piece::Incomplete);
        };
        if digits == 0 || !matches!(after, b'\r' | b';') {
            return Err(BadChunk("a chunk's size is expected in hexadecimal digits"));
        }
        let Some(line) = line(input, CHUNK_LINE_MAX_BYTES)? else {
            return Ok(Piece::Incomplete);
        };
        let size = input[..digits].iter().fold(0, |size: u64, digit| {
            size * 16 + u64::from(char::from(*digit).to_digit(16).unwrap_or(0))
        });
        self.0 = if size == 0 { State::Trailers } else { State::Data(size) };
        Ok(Piece::Framing(line))
    }

    fn trailers(&mut self, input: &[u8]) -> Result<Piece, BadChunk> {
        let mut end = 0;
        loop {
            let Some(length) = line(&input[end..], TRAILERS_MAX_BYTES)? else {
                if input.len() > TRAILERS_MAX_BYTES {
                    return Err(BadChunk("the trailers are too long"));
                }
                return Ok(Piece::Incomplete);
            };
            end += length;
            if end > TRAILERS_MAX_BYTES {
                return Err(BadChunk("the trailers are too long"));
            }
            if length == 2 {
                self.0 = State::Ended;
                return Ok(Piece::End(end));
            }
        }
    }
}

/// Length of the first line with its CRLF; none while it has not ended.
fn line(input: &[u8], max_bytes: usize) -> Result<Option<usize>, BadChunk> {
    let seen = &input[..input.len().min(max_bytes)];
    let Some(end) = seen.iter().position(|byte| !is_line_byte(*byte)) else {
        return if seen.len() == max_bytes {
            Err(BadChunk("a line is too long"))
        } else {
            Ok(None)
        };
    };
    match &input[end..] {
        [b'\r', b'\n', ..] => Ok(Some(end + 2)),
        [b'\r'] => Ok(None),
        _ => Err(BadChunk("a line holds a control character or does not end with CRLF")),
    }
}

fn is_line_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop};
    use proptest::{prop_assert_eq, proptest};

    use super::*;

    /// Data, trailers, and what is left over.
    type Parts = (Vec<u8>, Vec<u8>, Vec<u8>);

    /// Reads a body that arrives in pieces of this size.
    fn read(wire: &[u8], step: usize) -> Result<Option<Parts>, BadChunk> {
        let (mut decoder, mut held, mut data) = (Chunked::new(), Vec::new(), Vec::new());
        let mut pieces = wire.chunks(step);
        loop {
            match decoder.next(&held)? {
                Piece::Incomplete => match pieces.next() {
                    Some(piece) => held.extend_from_slice(piece),
                    None => return Ok(None),
                },
                Piece::Framing(n) => drop(held.drain(..n)),
                Piece::Data(n) => data.extend(held.drain(..n)),
                Piece::End(n) => {
                    let trailers = held.drain(..n).collect();
                    held.extend(pieces.flatten());
                    return Ok(Some((data, trailers, held)));
                }
            }
        }
    }

    /// A second reading of a whole body, for nothing but clarity: its data and its trailers.
    fn by_the_grammar(mut wire: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut data = Vec::new();
        loop {
            let end = wire.windows(2).position(|pair| pair == b"\r\n")?;
            let line = std::str::from_utf8(&wire[..end]).ok()?;
            let digits = line.split(';').next()?;
            let is_size = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let size = usize::from_str_radix(digits, 16).ok().filter(|_| is_size)?;
            wire = &wire[end + 2..];
            if size == 0 {
                return Some((data, wire.to_vec()));
            }
            data.extend_from_slice(wire.get(..size)?);
            wire = wire[size..].strip_prefix(b"\r\n")?;
        }
    }

    #[test]
    fn well_formed_bodies_are_read_however_they_arrive() {
        let wire = b"5\r\norder\r\nA;name=value;x\r\n0123456789\r\n000\r\nX-Sum: 1\r\n\r\nGET /";
        for step in 1..=wire.len() {
            let (data, trailers, rest) = read(wire, step).unwrap().unwrap();
            assert_eq!(data, b"order0123456789");
            assert_eq!(trailers, b"X-Sum: 1\r\n\r\n");
            assert_eq!(rest, b"GET /");
        }
    }

    #[test]
    fn everything_else_is_an_error() {
        let long_line = format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(CHUNK_LINE_MAX_BYTES));
        let long_trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(TRAILERS_MAX_BYTES));
        for wire in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\nx\r\n",
            "1 \r\nx\r\n",
            "1\nx\r\n",
            "1\r\nxy\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1;a\nb\r\nx\r\n",
            "1;a\rb\r\nx\r\n",
            "1000000000000000\r\n",
            "fffffffffffffffff\r\n",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "0\r\na: \0\r\n\r\n",
            &long_line,
            &long_trailers,
        ] {
            for step in [1, wire.len()] {
                assert!(read(wire.as_bytes(), step).is_err(), "{wire:?} in pieces of {step}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn what_was_written_is_read(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            step in 1_usize..64,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (data, ..) = read(&wire, step).unwrap().unwrap();
            prop_assert_eq!(data, chunks.concat());
            prop_assert_eq!(read(&wire[..wire.len() - 1], step), Ok(None));
        }

        /// Well-formed bodies with something that parsers disagree about put in or taken out: never a panic, the same verdict in pieces of any size, and
        /// what is taken has sizes, line ends and trailers as the grammar has them.
        #[test]
        fn spoiled_bodies_are_refused_or_read_as_the_grammar_has_it(
            at in any::<prop::sample::Index>(),
            length in 0_usize..4,
            spice in prop::sample::select(&[
                "", "\r\n", "\n", "\r", "0\r\n\r\n", ";x", " ", "\t", "0x", "-", "+", "_", "\0", "fffffffffffffffff", "X: y\r\n",
            ][..]),
            step in 1_usize..9,
        ) {
            let mut wire = b"5;a=b\r\norder\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n".to_vec();
            let at = at.index(wire.len() + 1);
            let end = (at + length).min(wire.len());
            wire.splice(at..end, spice.bytes());
            let whole = read(&wire, wire.len().max(1));
            prop_assert_eq!(&read(&wire, step), &whole);
            if let Ok(Some((data, trailers, rest))) = whole {
                let taken = &wire[..wire.len() - rest.len()];
                prop_assert_eq!(by_the_grammar(taken), Some((data, trailers)));
            }
        }

        /// The verdict on any bytes is the same whether they come at once or one by one.
        #[test]
        fn pieces_make_no_difference(wire in "[0-9a-f\r\n;x ]{0,60}") {
            prop_assert_eq!(read(wire.as_bytes(), 1), read(wire.as_bytes(), wire.len().max(1)));
        }
    }
}
