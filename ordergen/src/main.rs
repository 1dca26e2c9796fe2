//! The order generator as a program of its own.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: service::Allocator = service::Allocator;

fn main() -> ExitCode {
    service::program::work(ordergen::run_and_report)
}
