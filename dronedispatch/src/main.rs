//! `dronedispatch`: the whole system with one command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: service::Allocator = service::Allocator;

fn main() -> ExitCode {
    dronedispatch::main()
}
