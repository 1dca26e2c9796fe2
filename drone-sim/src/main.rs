//! The simulated fleet as a program of its own, with RabbitMQ as its bus.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: service::Allocator = service::Allocator;

fn main() -> ExitCode {
    service::program::serve::<drone_sim::Config, _, _>(drone_sim::run_with_rabbit)
}
