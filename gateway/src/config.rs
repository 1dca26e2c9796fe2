//! The gateway's settings.

use std::net::{Ipv4Addr, SocketAddr};

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;
use domain::keys;
use domain::zones::{DEFAULT_GRID_COLS, DEFAULT_GRID_ROWS, MAX_GRID_SIDE};
use service::program::Program;
use service::settings::{CommonArgs, SettingError};

/// Port of the gateway unless `LISTEN` says otherwise.
const DEFAULT_PORT: u16 = 8000;

/// The public REST API and the dashboard.
#[derive(Debug, Clone, Parser)]
#[command(name = "gateway", version, about)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one and prints it
    #[arg(long, env = "LISTEN", default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)), value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// kvfront's address, http://host:port; several are separated by commas
    #[arg(long, env = "KV_URL", default_value = kv_client::DEFAULT_URL, value_name = "URL")]
    pub kv_url: String,

    /// RabbitMQ's address, amqp://user:password@host:port/vhost
    #[arg(long, env = "RABBIT_URL", default_value = bus::DEFAULT_URL, value_name = "URL")]
    pub rabbit_url: String,

    /// Rows of the zone grid, 1 to 32; counts only until the grid is stored in the KV
    #[arg(long, env = "GRID_ROWS", default_value_t = DEFAULT_GRID_ROWS, value_parser = grid_side, value_name = "N")]
    pub grid_rows: u32,

    /// Columns of the zone grid, 1 to 32; counts only until the grid is stored in the KV
    #[arg(long, env = "GRID_COLS", default_value_t = DEFAULT_GRID_COLS, value_parser = grid_side, value_name = "N")]
    pub grid_cols: u32,

    /// Queue that announces accepted orders to the dispatcher
    #[arg(long, env = "DELIVERY_REQ_QUEUE", default_value = keys::DELIVERY_REQ_QUEUE, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub delivery_req_queue: String,

    /// Name under which the dispatcher announces changes of deliveries to every gateway
    #[arg(long, env = "DELIVERY_STATUS_QUEUE", default_value = keys::DELIVERY_STATUS_QUEUE, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub delivery_status_queue: String,

    /// Settings every program has.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn grid_side(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(side) if (1..=MAX_GRID_SIDE).contains(&side) => Ok(side),
        _ => Err(format!("a whole number from 1 to {MAX_GRID_SIDE} is expected")),
    }
}

impl Program for Config {
    const NAME: &'static str = "gateway";

    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn listen(&self) -> Option<SocketAddr> {
        Some(self.listen)
    }

    fn validate(&self) -> Result<(), SettingError> {
        kv_client::check_url(&self.kv_url).map_err(|error| {
            SettingError::new(
                "KV_URL (--kv-url)",
                format!("{:?} ({error})", self.kv_url),
                "http://host:port",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use service::settings::try_parse_from;

    use super::*;

    #[test]
    fn defaults_and_bad_values() {
        let config: Config = try_parse_from(["gateway"]).unwrap();
        assert_eq!((config.grid_rows, config.grid_cols, config.listen.port()), (2, 2, 8000));
        config.validate().unwrap();
        let error = try_parse_from::<Config>(["gateway", "--grid-rows", "0"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("GRID_ROWS") && error.contains("1 to 32"), "{error}");
        let config: Config = try_parse_from(["gateway", "--kv-url", "ftp://x"]).unwrap();
        assert!(config.validate().unwrap_err().to_string().contains("KV_URL"));
    }
}
