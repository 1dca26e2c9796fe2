//! The load balancer as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::program::serve(lb::run)
}
