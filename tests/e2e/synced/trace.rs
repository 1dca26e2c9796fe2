//! What `strace -f -ttt -T -y -xx` wrote, as a list of system calls.
//!
//! One tracer saw all threads of a program, and a thread goes on only after its tracer has noted what it does. So where the end of a call
//! stands before the begin of another, it came before it: within one program the order of lines is the order of events, whatever the
//! clock says. Only between programs are times compared.

use std::collections::HashMap;

/// One system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// The thread.
    pub(super) thread: u32,
    /// The call's name.
    pub(super) name: String,
    /// What it was about: the number of the first argument and, in angle brackets, what it stands for.
    pub(super) file: String,
    /// The first text among the arguments; all of them, brackets and numbers in between, where there are several.
    pub(super) data: Vec<u8>,
    /// The same as text, for the standard library to search in: its search is optimised in every build.
    text: String,
    /// What it gave, when it has ended.
    pub(super) result: Option<i64>,
    /// The line of its begin, and its time in Unix microseconds.
    pub(super) begun: (usize, u64),
    /// The line of its end, and its time. Both as of the begin when it never ended.
    pub(super) ended: (usize, u64),
}

impl Call {
    /// Takes something in from a socket or file.
    pub(super) fn receives(&self) -> bool {
        matches!(self.name.as_str(), "read" | "readv" | "recvfrom" | "recvmsg")
    }

    /// Gives something out to a socket or file.
    pub(super) fn sends(&self) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "sendto" | "sendmsg")
    }

    /// Makes a file durable.
    pub(super) fn syncs(&self) -> bool {
        matches!(self.name.as_str(), "fdatasync" | "fsync")
    }

    /// Writes to the database's write-ahead log.
    pub(super) fn writes_log(&self) -> bool {
        self.name == "pwrite64" && self.is_on_log()
    }

    /// Is about the database's write-ahead log.
    pub(super) fn is_on_log(&self) -> bool {
        self.file.ends_with("-wal>")
    }

    /// Whether this text is in its data.
    pub(super) fn has(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    /// Whether it had ended before the other began.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.ended.0 < other.begun.0
    }
}

/// A call whose end has not been met.
#[derive(Debug)]
struct Open {
    text: String,
    begun: (usize, u64),
}

/// The calls of a trace, in the order of their begins. Lines about signals and ends of threads are left out.
pub(super) fn parse(trace: &str) -> Vec<Call> {
    let mut open: HashMap<u32, Open> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, at_us, text)) = split(line) else {
            continue;
        };
        if let Some(begin) = text.strip_suffix("<unfinished ...>") {
            let (text, begun) = (begin.to_owned(), (number, at_us));
            open.insert(thread, Open { text, begun });
        } else if let Some(rest) = text.strip_prefix("<... ") {
            let (Some(begin), Some((_, rest))) = (open.remove(&thread), rest.split_once(" resumed>")) else {
                continue;
            };
            calls.extend(call(thread, &(begin.text + rest), begin.begun, Some((number, at_us))));
        } else {
            calls.extend(call(thread, text, (number, at_us), None));
        }
    }
    let never_ended = open.into_iter();
    calls.extend(never_ended.filter_map(|(thread, open)| call(thread, &open.text, open.begun, None)));
    calls.sort_by_key(|call| call.begun);
    calls
}

/// `THREAD SECONDS.MICROSECONDS REST`.
fn split(line: &str) -> Option<(u32, u64, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let (at, text) = rest.trim_start().split_once(' ')?;
    Some((thread.parse().ok()?, microseconds(at)?, text.trim()))
}

/// A time with six places, as strace writes them.
fn microseconds(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.')?;
    if fraction.len() != 6 {
        return None;
    }
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + fraction.parse::<u64>().ok()?)
}

/// `NAME(ARGUMENTS) = RESULT <SECONDS>`, of which an unfinished one lacks the end.
fn call(thread: u32, text: &str, begun: (usize, u64), resumed: Option<(usize, u64)>) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, end) = match rest.rsplit_once(") = ") {
        Some((arguments, end)) => (arguments, Some(end)),
        None => (rest, None),
    };
    let result = end.and_then(|end| end.split_whitespace().next()?.parse().ok());
    let took_us = end
        .and_then(|end| microseconds(end.rsplit_once('<')?.1.strip_suffix('>')?))
        .unwrap_or_default();
    let data = data(arguments);
    let file = arguments.split(',').next().unwrap_or_default().trim();
    Some(Call {
        thread,
        name: name.to_owned(),
        file: String::from_utf8_lossy(&decoded(file)).into_owned(),
        text: String::from_utf8_lossy(&data).into_owned(),
        data,
        result,
        begun,
        ended: resumed.unwrap_or((begun.0, begun.1 + took_us)),
    })
}

/// What stands between the first quotation mark and the last. In hexadecimal no text contains one.
fn data(arguments: &str) -> Vec<u8> {
    let (Some(first), Some(last)) = (arguments.find('"'), arguments.rfind('"')) else {
        return Vec::new();
    };
    arguments.get(first + 1..last).map(decoded).unwrap_or_default()
}

/// The text with every `\xHH` as the byte it stands for.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut parts = text.split("\\x");
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(part.bytes().skip(2));
            }
            None => bytes.extend(part.bytes()),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_put_together_again() {
        let trace = "\
7 100.000001 pwrite64(13<\\x2f\\x61\\x2d\\x77\\x61\\x6c>, \"\\x68\\x69\", 2, 0) = 2 <0.000030>
7 100.000050 fdatasync(13</a-wal> <unfinished ...>
8 100.000060 recvfrom(5<socket:[9]>, 0x7f, 8192, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable) <0.000010>
7 100.000090 <... fdatasync resumed>) = 0 <0.000040>
8 100.000100 writev(5<socket:[9]>, [{iov_base=\"\\x61\", iov_len=1}, {iov_base=\"\\x62\", iov_len=1}], 2) = 2 <0.000010>
8 100.000200 recvfrom(5<socket:[9]>,  <unfinished ...>
7 100.000210 +++ exited with 0 +++
";
        let calls = parse(trace);
        let names: Vec<_> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["pwrite64", "fdatasync", "recvfrom", "writev", "recvfrom"]);
        let [write, sync, nothing, answer, open] = calls.as_slice() else {
            panic!("five calls");
        };
        assert!(write.writes_log() && write.has("hi") && !write.has("ho"));
        assert_eq!(write.ended, (0, 100_000_031));
        assert!(sync.syncs() && sync.is_on_log());
        assert_eq!(
            (sync.result, sync.begun, sync.ended),
            (Some(0), (1, 100_000_050), (3, 100_000_090))
        );
        assert_eq!((nothing.result, nothing.file.as_str()), (Some(-1), "5<socket:[9]>"));
        assert!(write.is_before(sync) && sync.is_before(answer) && !sync.is_before(nothing));
        assert!(answer.sends() && answer.has("a") && answer.has("b") && answer.file == nothing.file);
        assert_eq!(open.result, None);
    }
}
