//! The `dispatcher` program.

use std::process::ExitCode;

use bus::Rabbit;
use dispatcher::Config;
use service::program;

fn main() -> ExitCode {
    program::serve(|config: Config, listener, shutdown| async move {
        let bus = Rabbit::connect(&config.rabbit_url, shutdown.token())?;
        dispatcher::run(config, listener, bus, shutdown).await
    })
}
