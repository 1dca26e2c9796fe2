//! Memory that bytes are read into.
//!
//! Promises: a buffer holds memory only while it holds bytes or is being read into, so that an idle connection costs none; memory that is
//! given back is used again, the last one first, as it is still in the processor's cache.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::limits::{BUFFER_BYTES, BUFFERS_KEPT};

/// Memory of one worker that waits to be used again.
#[derive(Debug, Default)]
pub(crate) struct Memory(RefCell<Vec<Box<[u8]>>>);

impl Memory {
    fn take(&self) -> Box<[u8]> {
        let kept = self.0.borrow_mut().pop();
        kept.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    fn give(&self, bytes: Box<[u8]>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < BUFFERS_KEPT {
            kept.push(bytes);
        }
    }
}

/// Bytes that were read and not yet used, [`BUFFER_BYTES`] at most.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Rc<Memory>,
    /// Empty while there is nothing to hold.
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn new(memory: &Rc<Memory>) -> Self {
        Self {
            memory: Rc::clone(memory),
            bytes: Box::default(),
            start: 0,
            end: 0,
        }
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() == BUFFER_BYTES
    }

    /// Forgets the first bytes, which have been used.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
        if self.is_empty() {
            self.release();
        }
    }

    /// Reads what is there, after what is held already. 0 is the end of the stream. Must not be called when full.
    pub(crate) fn poll_fill(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() {
            self.bytes = self.memory.take();
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        let polled = Pin::new(from).poll_read(cx, &mut room);
        let read = room.filled().len();
        self.end += read;
        if self.is_empty() {
            self.release();
        }
        polled.map_ok(|()| read)
    }

    fn release(&mut self) {
        self.start = 0;
        self.end = 0;
        if !self.bytes.is_empty() {
            self.memory.give(std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, mut from: &[u8]) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(read) = buffer.poll_fill(&mut from, &mut cx) else {
            panic!("a slice is always ready")
        };
        read.unwrap()
    }

    #[test]
    fn memory_is_held_only_while_needed_and_used_again() {
        let memory = Rc::new(Memory::default());
        let mut buffer = Buffer::new(&memory);
        assert_eq!(fill(&mut buffer, b""), 0);
        assert!(buffer.bytes.is_empty(), "the end of a stream needs no memory");
        assert_eq!(fill(&mut buffer, b"order"), 5);
        buffer.consume(2);
        assert_eq!(buffer.data(), b"der");
        let at = buffer.bytes.as_ptr();
        buffer.consume(3);
        assert!(buffer.bytes.is_empty());
        let mut other = Buffer::new(&memory);
        fill(&mut other, b"x");
        assert_eq!(other.bytes.as_ptr(), at);
        drop(other);
        assert_eq!(memory.0.borrow().len(), 1);
    }

    #[test]
    fn what_is_left_moves_to_the_front_when_there_is_no_room_behind_it() {
        let memory = Rc::new(Memory::default());
        let mut buffer = Buffer::new(&memory);
        assert_eq!(fill(&mut buffer, &vec![b'a'; BUFFER_BYTES * 2]), BUFFER_BYTES);
        assert!(buffer.is_full());
        buffer.consume(BUFFER_BYTES - 2);
        assert_eq!(fill(&mut buffer, b"bcd"), 3);
        assert_eq!(buffer.data(), b"aabcd");
    }
}
