//! The `dispatcher` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::program::serve::<dispatcher::Config, _, _>(dispatcher::run_with_rabbit)
}
