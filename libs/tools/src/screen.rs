//! What people see: standard output, redrawn in place when it is a terminal.

use std::io::{self, IsTerminal as _, Write as _};

/// Goes to the terminal's top.
const HOME: &str = "\x1b[H";
/// Takes off what was right of here in this line, then goes to the next.
const END_OF_LINE: &str = "\x1b[K\n";
/// Takes off what was below.
const END_OF_SCREEN: &str = "\x1b[J";

/// Writes to standard output.
///
/// # Errors
/// When nobody reads any more: a tool that goes on for ever should end then.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Shows the newest picture of something that changes: in the place of the last on a terminal, below it elsewhere.
///
/// # Errors
/// As [`print`].
pub fn redraw(text: &str) -> io::Result<()> {
    if io::stdout().is_terminal() {
        // Written over and not cleared first, which would flicker.
        print(&format!("{HOME}{}{END_OF_SCREEN}", text.replace('\n', END_OF_LINE)))
    } else {
        print(&format!("{text}\n"))
    }
}

/// Writes a line to standard error.
pub fn complain(line: &str) {
    // Nobody reads a broken terminal, so a failed write is nobody's loss.
    let _ = writeln!(io::stderr(), "{line}");
}
