//! `dronedispatch`: the whole system with one command.

use std::process::ExitCode;

fn main() -> ExitCode {
    dronedispatch::main()
}
