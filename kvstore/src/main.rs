//! The `kvstore` program: one node of the KV cluster.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::program::serve(kvstore::run)
}
