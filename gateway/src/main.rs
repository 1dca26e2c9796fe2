//! The gateway as a program of its own, with RabbitMQ as its bus.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: service::Allocator = service::Allocator;

fn main() -> ExitCode {
    service::program::serve::<gateway::Config, _, _>(gateway::run_with_rabbit)
}
