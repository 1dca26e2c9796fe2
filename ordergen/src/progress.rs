//! A progress bar on standard error, if that is a terminal.

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use crate::report::Summary;

/// Width of the bar, characters.
const WIDTH: usize = 30;
/// It is drawn at most so often.
const EVERY: Duration = Duration::from_millis(100);

/// The bar.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    all: Option<u64>,
    drawn: Option<Instant>,
}

impl Progress {
    /// For `all` orders, if their number is known; never drawn unless `wanted`.
    pub(crate) fn new(wanted: bool, all: Option<u64>) -> Self {
        Self {
            is_shown: wanted && io::stderr().is_terminal(),
            all,
            drawn: None,
        }
    }

    pub(crate) fn sent(&mut self, summary: &Summary) {
        let all = self.all;
        self.draw(|| sent_line(summary, all));
    }

    /// Of `all` accepted orders so many are open.
    pub(crate) fn open(&mut self, open: u64, all: u64) {
        self.drawn = None;
        self.draw(|| format!("{} {open} of {all} orders still open", bar(all - open.min(all), all)));
    }

    /// Takes it off the terminal.
    pub(crate) fn clear(&mut self) {
        if self.is_shown {
            // A terminal that is gone is nobody's loss; likewise below.
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }

    fn draw(&mut self, line: impl FnOnce() -> String) {
        if self.is_shown && self.drawn.is_none_or(|drawn| drawn.elapsed() >= EVERY) {
            self.drawn = Some(Instant::now());
            let _ = write!(io::stderr(), "\r\x1b[2K{}", line());
        }
    }
}

fn sent_line(summary: &Summary, all: Option<u64>) -> String {
    let Summary { accepted, failed, .. } = *summary;
    match all {
        Some(all) => format!(
            "{} {accepted} of {all} orders accepted, {failed} failed",
            bar(accepted + failed, all)
        ),
        None => format!("{accepted} orders accepted, {failed} failed"),
    }
}

fn bar(done: u64, all: u64) -> String {
    let done = done.min(all);
    let of = |whole: u64| u128::from(done) * u128::from(whole) / u128::from(all.max(1));
    let full = usize::try_from(of(WIDTH as u64)).unwrap_or(WIDTH);
    format!("[{}{}] {:>3} %", "#".repeat(full), "-".repeat(WIDTH - full), of(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        assert_eq!(bar(0, 60), format!("[{}]   0 %", "-".repeat(WIDTH)));
        assert_eq!(bar(30, 60), format!("[{}{}]  50 %", "#".repeat(15), "-".repeat(15)));
        assert_eq!(bar(99, 60), format!("[{}] 100 %", "#".repeat(WIDTH)));
        assert_eq!(bar(0, 0), format!("[{}]   0 %", "-".repeat(WIDTH)));
        let summary = Summary {
            accepted: 6,
            ..Summary::default()
        };
        assert!(sent_line(&summary, Some(10)).ends_with("60 % 6 of 10 orders accepted, 0 failed"));
        assert_eq!(sent_line(&summary, None), "6 orders accepted, 0 failed");
    }
}
