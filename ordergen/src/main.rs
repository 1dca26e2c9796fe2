//! The order generator as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::program::work(ordergen::run)
}
