//! The `kvfront` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::program::serve(kvfront::run)
}
