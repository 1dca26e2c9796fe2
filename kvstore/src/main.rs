//! The `kvstore` program: one node of the KV cluster.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: service::Allocator = service::Allocator;

fn main() -> ExitCode {
    service::program::serve(kvstore::run)
}
