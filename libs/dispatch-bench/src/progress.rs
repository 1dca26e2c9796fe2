//! A progress bar on standard error, if that is a terminal.

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

/// Width of the bar, characters.
const WIDTH: usize = 40;

/// The bar is drawn at most so often.
const EVERY: Duration = Duration::from_millis(100);

/// A bar for `all` steps.
pub(crate) struct Bar {
    all: usize,
    is_terminal: bool,
    drawn: Option<Instant>,
}

impl Bar {
    /// A bar that is not shown yet.
    pub(crate) fn new(all: usize) -> Self {
        Self {
            all,
            is_terminal: io::stderr().is_terminal(),
            drawn: None,
        }
    }

    /// Shows that `done` steps are done, unless it was drawn a moment ago.
    pub(crate) fn show(&mut self, done: usize) {
        if !self.is_terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        // A terminal that is gone is nobody's loss; likewise below.
        let _ = write!(io::stderr(), "\r{}", line(done, self.all));
    }

    /// Takes the bar off the terminal.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}

fn line(done: usize, all: usize) -> String {
    let done = done.min(all);
    let full = (done * WIDTH).checked_div(all).unwrap_or(WIDTH);
    let percent = (done * 100).checked_div(all).unwrap_or(100);
    format!("[{}{}] {percent:>3} %", "#".repeat(full), "-".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::{WIDTH, line};

    #[test]
    fn bars_fill() {
        assert_eq!(line(0, 80), format!("[{}]   0 %", "-".repeat(WIDTH)));
        assert_eq!(line(40, 80), format!("[{}{}]  50 %", "#".repeat(20), "-".repeat(20)));
        assert_eq!(line(99, 80), format!("[{}] 100 %", "#".repeat(WIDTH)));
        assert_eq!(line(0, 0), format!("[{}] 100 %", "#".repeat(WIDTH)));
    }
}
