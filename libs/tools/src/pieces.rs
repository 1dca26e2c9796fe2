//! The log, piece by piece, from wherever it comes. A thread of its own reads, so that reading and counting overlap.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::compose;

/// Bytes read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that may wait to be counted.
const PIECES_WAITING: usize = 8;
/// How often the end of a followed file is looked at.
const FILE_POLL: Duration = Duration::from_millis(200);
/// The service whose log is read.
const SERVICE: &str = "lb";

/// Where the log comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `docker compose logs lb`, with Docker's times.
    Compose {
        /// Only what comes from now on.
        from_now: bool,
    },
    /// Standard input.
    Input,
    /// A file.
    File(PathBuf),
}

impl Source {
    /// What `FILE` on the command line means.
    pub(crate) fn of(file: Option<&str>) -> Self {
        match file {
            None => Self::Compose { from_now: false },
            Some("-") => Self::Input,
            Some(path) => Self::File(path.into()),
        }
    }
}

/// The pieces, until the log or the listener ends.
pub(crate) type Pieces = mpsc::Receiver<io::Result<Vec<u8>>>;

/// Opens the log. `follow`: its end is waited at.
pub(crate) fn open(source: &Source, follow: bool) -> anyhow::Result<Pieces> {
    let (tell, pieces) = mpsc::channel(PIECES_WAITING);
    match source {
        Source::Compose { from_now } => from_compose(*from_now, follow, tell)?,
        Source::Input => {
            // Its end is the end, followed or not.
            thread::spawn(move || copy(&mut io::stdin().lock(), &tell));
        }
        Source::File(path) => {
            let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            let path = path.clone();
            thread::spawn(move || {
                while copy(&mut file, &tell) && follow && !tell.is_closed() {
                    thread::sleep(FILE_POLL);
                    begin_anew_when_replaced(&mut file, &path);
                }
            });
        }
    }
    Ok(pieces)
}

/// Copies what there is; true when its end was reached and somebody still listens.
fn copy(from: &mut impl Read, tell: &mpsc::Sender<io::Result<Vec<u8>>>) -> bool {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = match from.read(&mut piece) {
            Ok(0) => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read,
        };
        let is_end = read.is_err();
        let piece = read.map(|len| {
            piece.truncate(len);
            piece
        });
        if tell.blocking_send(piece).is_err() || is_end {
            return false;
        }
    }
}

/// A log that was cut off or replaced begins anew.
fn begin_anew_when_replaced(file: &mut File, path: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(at), Ok(is), Ok(was)) = (file.stream_position(), std::fs::metadata(path), file.metadata()) else {
        return; // it is away for the moment
    };
    if (is.dev(), is.ino()) != (was.dev(), was.ino()) {
        if let Ok(new) = File::open(path) {
            *file = new;
        }
    } else if is.len() < at {
        let _ = file.seek(SeekFrom::Start(0));
    }
}

fn from_compose(from_now: bool, follow: bool, tell: mpsc::Sender<io::Result<Vec<u8>>>) -> anyhow::Result<()> {
    let mut args = vec!["logs", "--no-color", "--timestamps"];
    if follow {
        args.push("--follow");
    }
    if from_now {
        args.push("--tail=0");
    }
    args.push(SERVICE);
    let mut command = compose::command(&args)?;
    // What Compose complains of goes to our standard error.
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = Arc::new(Mutex::new(command.spawn().context("Compose does not start")?));
    let out = lock(&child).stdout.take().context("Compose has no output")?;
    let (reader, listener) = (Arc::clone(&child), tell.clone());
    thread::spawn(move || end_of_compose(out, &reader, &tell));
    tokio::spawn(async move {
        listener.closed().await;
        // It may have ended by itself.
        let _ = lock(&child).kill();
    });
    Ok(())
}

/// Copies what Compose says, and tells when it fails.
fn end_of_compose(mut out: ChildStdout, child: &Mutex<Child>, tell: &mpsc::Sender<io::Result<Vec<u8>>>) {
    if !copy(&mut out, tell) {
        return;
    }
    // Its output has ended, so it is about to.
    if let Ok(status) = lock(child).wait()
        && !status.success()
    {
        let _ = tell.blocking_send(Err(io::Error::other(format!("`compose logs` failed: {status}"))));
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}
