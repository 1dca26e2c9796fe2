//! The `dispatcher` program.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: service::Allocator = service::Allocator;

fn main() -> ExitCode {
    service::program::serve::<dispatcher::Config, _, _>(dispatcher::run_with_rabbit)
}
