//! Reading and writing with deadlines, and bodies from one framing into another.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::buffer::Buffer;
use crate::chunked::{BadChunk, Chunked, Piece};
use crate::head::trailers;
use crate::watch::{Elapsed, Side, Watch};

/// Reads what is there; 0 at the end of the stream. Fails when nothing comes within `limit`, and with `Interrupted` once `stop` says so.
pub(crate) async fn fill(
    watch: &Watch,
    side: Side,
    limit: Duration,
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut Buffer,
    stop: impl Fn() -> bool,
) -> io::Result<usize> {
    let read = watch.within(side, limit, |cx| match buffer.poll_fill(from, cx) {
        Poll::Pending if stop() => Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
        polled => polled,
    });
    read.await.unwrap_or_else(|Elapsed| Err(too_slow(limit)))
}

/// Writes all of `head` and then all of `body`, with as few system calls as there can be.
pub(crate) async fn write_all(
    watch: &Watch,
    side: Side,
    limit: Duration,
    to: &mut (impl AsyncWrite + Unpin),
    mut head: &[u8],
    mut body: &[u8],
) -> io::Result<()> {
    while !head.is_empty() || !body.is_empty() {
        let write = watch.within(side, limit, |cx| {
            let to = Pin::new(&mut *to);
            let polled = match (head, body) {
                ([], one) | (one, []) => to.poll_write(cx, one),
                (head, body) => to.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)]),
            };
            match polled {
                Poll::Pending if watch.clock.is_cut() => Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
                polled => polled,
            }
        });
        let written = write.await.unwrap_or_else(|Elapsed| Err(too_slow(limit)))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_head = written.min(head.len());
        head = &head[of_head..];
        body = &body[written - of_head..];
    }
    Ok(())
}

fn too_slow(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("nothing moved for {limit:?}"))
}

/// Takes what there is of a chunked body and appends it to `out`, chunked again or bare. Gives the bytes of data, and whether that was all.
pub(crate) fn recode(
    decoder: &mut Chunked,
    input: &mut Buffer,
    chunked: bool,
    out: &mut Vec<u8>,
) -> Result<(usize, bool), BadChunk> {
    let mut bytes = 0;
    loop {
        match decoder.next(input.data())? {
            Piece::Incomplete if input.is_full() => return Err(BadChunk("a line is too long")),
            Piece::Incomplete => return Ok((bytes, false)),
            Piece::Framing(length) => input.consume(length),
            Piece::Data(length) => {
                append(out, &input.data()[..length], chunked);
                bytes += length;
                input.consume(length);
            }
            Piece::End(length) => {
                if chunked {
                    out.extend_from_slice(b"0\r\n");
                    trailers(out, &input.data()[..length]).map_err(BadChunk)?;
                }
                input.consume(length);
                return Ok((bytes, true));
            }
        }
    }
}

/// Appends data, as a chunk or bare.
pub(crate) fn append(out: &mut Vec<u8>, data: &[u8], chunked: bool) {
    // An empty chunk would end the body.
    if !chunked || data.is_empty() {
        out.extend_from_slice(data);
        return;
    }
    let digits = (usize::BITS - data.len().leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        let nibble = data.len() >> (4 * digit) & 0xf;
        out.push(b"0123456789abcdef"[nibble]);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// What `main` comes to; unless `side` ends before.
pub(crate) async fn race<M, S>(
    main: impl Future<Output = M>,
    mut side: Pin<&mut impl Future<Output = S>>,
) -> Result<M, S> {
    let mut main = pin!(main);
    poll_fn(|cx| {
        if let Poll::Ready(value) = main.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        side.as_mut().poll(cx).map(Err)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::task::Context;

    use proptest::prelude::{ProptestConfig, any, prop};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::buffer::Memory;

    /// Recodes a body that arrives in pieces of this size. None when it has no end.
    fn recoded(wire: &[u8], step: usize, chunked: bool) -> Result<Option<(usize, Vec<u8>)>, BadChunk> {
        let mut buffer = Buffer::new(&Rc::new(Memory::default()));
        let (mut decoder, mut out, mut total) = (Chunked::new(), Vec::new(), 0);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for piece in wire.chunks(step) {
            let mut piece = piece;
            while !piece.is_empty() {
                assert!(
                    buffer.poll_fill(&mut piece, &mut cx).is_ready(),
                    "a slice is always ready"
                );
                let (bytes, ended) = recode(&mut decoder, &mut buffer, chunked, &mut out)?;
                total += bytes;
                if ended {
                    return Ok(Some((total, out)));
                }
            }
        }
        Ok(None)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// However a body was cut into chunks and pieces, its data arrives, bare or in chunks; chunked again and read again it is the same.
        #[test]
        fn data_survives_recoding(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..6),
            trailer in any::<bool>(),
            step in 1_usize..64,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                append(&mut wire, chunk, true);
            }
            wire.extend_from_slice(if trailer { b"0\r\nX-Sum: 1\r\n\r\n" } else { b"0\r\n\r\n" });
            let data = chunks.concat();
            prop_assert_eq!(recoded(&wire, step, false), Ok(Some((data.len(), data.clone()))));
            let again = recoded(&wire, step, true);
            prop_assert!(matches!(again, Ok(Some(_))), "{:?}", again);
            if let Ok(Some((bytes, onward))) = again {
                prop_assert_eq!(bytes, data.len());
                prop_assert_eq!(onward.ends_with(b"X-Sum: 1\r\n\r\n"), trailer);
                prop_assert_eq!(recoded(&onward, step, false), Ok(Some((data.len(), data))));
            }
        }

        /// Whatever comes: no panic, no more data than bytes, the same in pieces of any size.
        #[test]
        fn noise_is_refused_or_read_the_same_way_in_pieces(wire in "[0-9a-f\r\n;: x]{0,80}", step in 1_usize..9) {
            let whole = recoded(wire.as_bytes(), wire.len().max(1), false);
            prop_assert_eq!(&recoded(wire.as_bytes(), step, false), &whole);
            if let Ok(Some((bytes, out))) = whole {
                prop_assert!(bytes <= wire.len() && out.len() == bytes);
            }
        }
    }

    #[test]
    fn chunks_are_written() {
        for length in [1, 15, 16, 255, 256, 65_536] {
            let mut out = Vec::new();
            append(&mut out, &vec![b'x'; length], true);
            assert!(out.starts_with(format!("{length:x}\r\n").as_bytes()));
            assert!(out.ends_with(b"x\r\n"));
        }
        let mut out = Vec::new();
        append(&mut out, b"", true);
        append(&mut out, b"bare", false);
        assert_eq!(out, b"bare");
    }
}
