//! The access log: one line per request, when its answer has ended.
//!
//! Promises: a request never waits for the log. It puts its entry into a queue that holds [`ACCESS_QUEUE_MAX`]; a thread of its own
//! writes, at most [`ACCESS_LINGER`] after the first entry, all that has gathered, in one piece. When the reader of the log is too slow,
//! entries are dropped and counted. Whatever a client sends, a line stays one line of printable ASCII.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, Uri, Version};
use prometheus_client::metrics::counter::Counter;

use crate::access_format::format;
use crate::config::AccessFormat;
use crate::limits::{ACCESS_FLUSH_TIMEOUT, ACCESS_LINGER, ACCESS_QUEUE_MAX};

/// What is known about a request. Cheap to make: the URI shares its memory with the request.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) client: IpAddr,
    pub(crate) started: Instant,
    pub(crate) status: u16,
    /// Bytes of the answer's body.
    pub(crate) bytes: u64,
    /// An event stream, whose length is no latency.
    pub(crate) stream: bool,
    pub(crate) visitor: Option<Visitor>,
}

/// What only the combined format shows.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) referer: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
}

/// An entry whose answer has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) entry: Box<Entry>,
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
    entries: Vec<Ended>,
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
                .spawn(move || shared.write_until_closed(format, out))?;
        }
        Ok(log)
    }

    pub(crate) fn format(&self) -> AccessFormat {
        self.format
    }

    /// Notes that an answer has ended.
    pub(crate) fn write(&self, entry: Box<Entry>) {
        let ended = Ended {
            took: entry.started.elapsed(),
            at: SystemTime::now(),
            entry,
        };
        let mut queue = self.shared.lock();
        if queue.writer_ended || queue.entries.len() >= ACCESS_QUEUE_MAX {
            drop(queue);
            self.shared.dropped.inc();
            return;
        }
        queue.entries.push(ended);
        let first = queue.entries.len() == 1;
        drop(queue);
        if first {
            // The writer sleeps only when the queue is empty: no system call for the entries after the first.
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

    fn write_until_closed(&self, format: AccessFormat, mut out: Box<dyn Write + Send>) {
        let mut entries = Vec::new();
        let mut text = Vec::new();
        let mut broken = false;
        loop {
            let closing = self.next_batch(&mut entries);
            text.clear();
            for ended in entries.drain(..) {
                format_into(&mut text, format, &ended);
            }
            if !broken && let Err(error) = out.write_all(&text).and_then(|()| out.flush()) {
                tracing::warn!(%error, "the access log cannot be written any more");
                broken = true;
            }
            if closing {
                break;
            }
        }
        self.lock().writer_ended = true;
        self.ended.notify_all();
    }

    /// Waits for entries, lets more gather for a moment, and takes them all. True when no more will come.
    fn next_batch(&self, entries: &mut Vec<Ended>) -> bool {
        let mut queue = self
            .wake
            .wait_while(self.lock(), |queue| queue.entries.is_empty() && !queue.closing)
            .unwrap_or_else(PoisonError::into_inner);
        if !queue.closing {
            queue = self
                .wake
                .wait_timeout_while(queue, ACCESS_LINGER, |queue| !queue.closing)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        std::mem::swap(entries, &mut queue.entries);
        queue.closing
    }
}

fn format_into(text: &mut Vec<u8>, kind: AccessFormat, ended: &Ended) {
    format(text, kind, ended);
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    pub(crate) fn entry(path: &'static str) -> Box<Entry> {
        Box::new(Entry {
            method: Method::GET,
            uri: Uri::from_static(path),
            version: Version::HTTP_11,
            client: IpAddr::from([192, 0, 2, 1]),
            started: Instant::now(),
            status: 200,
            bytes: 0,
            stream: false,
            visitor: None,
        })
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
        let total = ACCESS_QUEUE_MAX * 3;
        for _ in 0..total {
            log.write(entry("/health"));
        }
        let lost = usize::try_from(dropped.get()).unwrap();
        assert!(lost >= ACCESS_QUEUE_MAX, "the queue is bounded: {lost} dropped");
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
        log.write(entry("/late"));
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
