//! The access log: one line per request, when its answer has ended.
//!
//! Promises: a request never waits for the log. It appends its line to a queue of [`ACCESS_QUEUE_MAX_BYTES`]; a thread of its own
//! writes, at most [`ACCESS_LINGER`] after the first line, all that has gathered, in one piece. When the reader of the log is too slow,
//! lines are dropped and counted. Whatever a client sends, a line stays one line of printable ASCII.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::counter::Counter;
use trace::Span;

use crate::access_format::format;
use crate::config::AccessFormat;
use crate::limits::{ACCESS_FLUSH_TIMEOUT, ACCESS_LINGER, ACCESS_QUEUE_MAX_BYTES};

/// What is known about a request. Each connection has one and uses it for all its requests, memory included.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) client: IpAddr,
    pub(crate) method: Vec<u8>,
    /// Without the query.
    pub(crate) path: Vec<u8>,
    pub(crate) is_http10: bool,
    pub(crate) referer: Vec<u8>,
    pub(crate) user_agent: Vec<u8>,
    pub(crate) request_id: Vec<u8>,
    pub(crate) started: Instant,
    pub(crate) status: u16,
    /// Bytes of the answer's body.
    pub(crate) bytes: u64,
    /// An event stream or a tunnel, whose length is no latency.
    pub(crate) stream: bool,
    /// The gateway that answered, and how long it took to begin.
    pub(crate) upstream: Option<(SocketAddr, Duration)>,
    /// The span of the request, where traces are exported.
    pub(crate) span: Option<Span>,
}

impl Entry {
    pub(crate) fn new(client: IpAddr) -> Self {
        Self {
            client,
            method: Vec::new(),
            path: Vec::new(),
            is_http10: false,
            referer: Vec::new(),
            user_agent: Vec::new(),
            request_id: Vec::new(),
            started: Instant::now(),
            status: 0,
            bytes: 0,
            stream: false,
            upstream: None,
            span: None,
        }
    }

    /// Readies it for the next request.
    pub(crate) fn begin(&mut self, now: Instant) {
        for text in [
            &mut self.method,
            &mut self.path,
            &mut self.referer,
            &mut self.user_agent,
            &mut self.request_id,
        ] {
            text.clear();
        }
        self.started = now;
        self.status = 0;
        self.bytes = 0;
        self.stream = false;
        self.upstream = None;
        self.span = None;
    }
}

/// When and how an answer ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) took: Duration,
    pub(crate) at: SystemTime,
}

/// The front end: clones share the queue.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    format: AccessFormat,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the writer: there is something to write, or the end has come.
    wake: Condvar,
    /// Wakes whoever waits for the writer's end.
    ended: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Queue {
    text: Vec<u8>,
    closing: bool,
    writer_ended: bool,
}

impl AccessLog {
    /// Starts the writer, unless nothing is to be logged.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(format: AccessFormat, out: Box<dyn Write + Send>, dropped: Counter) -> io::Result<Self> {
        let log = Self {
            format,
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                wake: Condvar::new(),
                ended: Condvar::new(),
                dropped,
            }),
        };
        if format == AccessFormat::Off {
            log.shared.lock().writer_ended = true;
        } else {
            let shared = Arc::clone(&log.shared);
            std::thread::Builder::new()
                .name("access-log".to_owned())
                .spawn(move || shared.write_until_closed(out))?;
        }
        Ok(log)
    }

    /// Notes that an answer has ended. `scratch` is memory to write the line in before the queue is touched.
    pub(crate) fn write(&self, entry: &Entry, now: Instant, scratch: &mut Vec<u8>) {
        if self.format == AccessFormat::Off {
            return;
        }
        // Plain text has no date, so the clock need not be asked for it.
        let at = match self.format {
            AccessFormat::Text | AccessFormat::Off => SystemTime::UNIX_EPOCH,
            AccessFormat::Json | AccessFormat::Combined => SystemTime::now(),
        };
        let took = now.saturating_duration_since(entry.started);
        scratch.clear();
        format(scratch, self.format, entry, Ended { took, at });
        scratch.push(b'\n');
        let mut queue = self.shared.lock();
        if queue.writer_ended || queue.text.len() + scratch.len() > ACCESS_QUEUE_MAX_BYTES {
            drop(queue);
            self.shared.dropped.inc();
            return;
        }
        let first = queue.text.is_empty();
        queue.text.extend_from_slice(scratch);
        drop(queue);
        if first {
            // The writer sleeps only when the queue is empty: no system call for the lines after the first.
            self.shared.wake.notify_one();
        }
    }

    /// Writes what is waiting and ends the writer; gives up after [`ACCESS_FLUSH_TIMEOUT`] when nobody reads. Blocks.
    pub(crate) fn close(&self) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        self.shared.wake.notify_one();
        let _ = self
            .shared
            .ended
            .wait_timeout_while(queue, ACCESS_FLUSH_TIMEOUT, |queue| !queue.writer_ended);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole at every point where a panic could happen, so a poisoned lock is still good.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_until_closed(&self, mut out: Box<dyn Write + Send>) {
        let mut text = Vec::new();
        let mut broken = false;
        loop {
            let closing = self.next_batch(&mut text);
            if !broken && let Err(error) = out.write_all(&text).and_then(|()| out.flush()) {
                tracing::warn!(%error, "the access log cannot be written any more");
                broken = true;
            }
            text.clear();
            if closing {
                break;
            }
        }
        self.lock().writer_ended = true;
        self.ended.notify_all();
    }

    /// Waits for lines, lets more gather for a moment, and takes them all. True when no more will come.
    fn next_batch(&self, text: &mut Vec<u8>) -> bool {
        let mut queue = self
            .wake
            .wait_while(self.lock(), |queue| queue.text.is_empty() && !queue.closing)
            .unwrap_or_else(PoisonError::into_inner);
        if !queue.closing {
            queue = self
                .wake
                .wait_timeout_while(queue, ACCESS_LINGER, |queue| !queue.closing)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        std::mem::swap(text, &mut queue.text);
        queue.closing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn entry(path: &str) -> Entry {
        let mut entry = Entry::new(IpAddr::from([192, 0, 2, 1]));
        entry.method.extend_from_slice(b"GET");
        entry.path.extend_from_slice(path.as_bytes());
        entry.status = 200;
        entry
    }

    /// Hands every write to the test, and blocks while nobody takes it.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.send(text.to_vec()).map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_but_never_blocks() {
        let dropped = Counter::default();
        let (sender, receiver) = mpsc::sync_channel(0);
        let log = AccessLog::start(AccessFormat::Text, Box::new(Slow(sender)), dropped.clone()).unwrap();
        let (entry, mut scratch) = (entry(&"/x".repeat(500)), Vec::new());
        let fit = ACCESS_QUEUE_MAX_BYTES / 1000;
        let total = fit * 3;
        for _ in 0..total {
            log.write(&entry, entry.started, &mut scratch);
        }
        let lost = usize::try_from(dropped.get()).unwrap();
        assert!(lost >= fit / 2, "the queue is bounded: {lost} dropped");
        let closing = log.clone();
        let closer = std::thread::spawn(move || closing.close());
        let mut lines = 0;
        while let Ok(text) = receiver.recv_timeout(Duration::from_secs(5)) {
            lines += text.iter().filter(|byte| **byte == b'\n').count();
            if lines + lost == total {
                break;
            }
        }
        assert_eq!(lines + lost, total, "every line is written or counted as dropped");
        closer.join().unwrap();
        log.write(&entry, entry.started, &mut scratch);
        assert_eq!(usize::try_from(dropped.get()).unwrap(), lost + 1);
    }

    #[test]
    fn off_starts_nothing_and_closes_at_once() {
        let log = AccessLog::start(AccessFormat::Off, Box::new(io::sink()), Counter::default()).unwrap();
        let started = Instant::now();
        log.close();
        assert!(started.elapsed() < ACCESS_FLUSH_TIMEOUT);
    }
}
