//! The gateway as a program of its own, with RabbitMQ as its bus.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::program::serve::<gateway::Config, _, _>(gateway::run_with_rabbit)
}
