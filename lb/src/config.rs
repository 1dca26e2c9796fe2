//! Settings: where to forward, how often to resolve, how much to let through, what to log.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use clap::{Parser, ValueEnum};
use http::Uri;
use service::program::Program;
use service::settings::{CommonArgs, SettingError, at_least_one, non_negative, positive};

use crate::rate_limit::Limit;

/// Port of `lb` unless `LISTEN` says otherwise.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// The load balancer: a streaming reverse proxy with retries, rate limits and an access log.
///
/// Answers `/ready` and `/metrics` itself (they describe the load balancer); everything else, `/health` included, is forwarded.
#[derive(Debug, Clone, Parser)]
#[command(name = "lb", version)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one and prints it
    #[arg(long, env = "LISTEN", default_value_t = DEFAULT_LISTEN, value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    /// Where to forward: an `http://host:port`, or several separated by commas; every address they resolve to takes its turn
    #[arg(long, env = "TARGET_URL", default_value = "http://gateway:8000", value_delimiter = ',',
          value_parser = Target::parse, value_name = "URL[,URL]")]
    pub target_url: Vec<Target>,

    /// How often the targets' names are resolved again, seconds
    #[arg(long, env = "LB_RESOLVE_TTL_SEC", default_value = "5", value_parser = positive, value_name = "SEC")]
    pub lb_resolve_ttl_sec: f64,

    /// How long connecting to a gateway may take, milliseconds, before another is tried
    #[arg(long, env = "LB_CONNECT_TIMEOUT_MS", default_value = "1000", value_parser = positive, value_name = "MS")]
    pub lb_connect_timeout_ms: f64,

    /// How long a gateway may take to begin its answer once it has the request, seconds; then 504
    #[arg(long, env = "LB_RESPONSE_TIMEOUT_SEC", default_value = "30", value_parser = positive, value_name = "SEC")]
    pub lb_response_timeout_sec: f64,

    /// Requests forwarded at once, open event streams included; further ones are answered 503
    #[arg(long, env = "LB_MAX_REQUESTS", default_value = "4096", value_parser = at_least_one, value_name = "N")]
    pub lb_max_requests: usize,

    /// Requests a second let through in all; 0 = no limit
    #[arg(long, env = "RL_GLOBAL_RATE", default_value = "0", value_parser = non_negative, value_name = "PER_SEC")]
    pub rl_global_rate: f64,

    /// Requests let through at once in all, at least 1; 0 = as many as a second's rate
    #[arg(long, env = "RL_GLOBAL_BURST", default_value = "0", value_parser = non_negative, value_name = "N")]
    pub rl_global_burst: f64,

    /// Requests a second let through per client address; 0 = no limit
    #[arg(long, env = "RL_CLIENT_RATE", default_value = "0", value_parser = non_negative, value_name = "PER_SEC")]
    pub rl_client_rate: f64,

    /// Requests let through at once per client address, at least 1; 0 = as many as a second's rate
    #[arg(long, env = "RL_CLIENT_BURST", default_value = "0", value_parser = non_negative, value_name = "N")]
    pub rl_client_burst: f64,

    /// How a request is logged on standard output
    #[arg(long, env = "ACCESS_LOG", default_value = "text", value_enum, value_name = "FORMAT")]
    pub access_log: AccessFormat,

    /// Logging of the program itself.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessFormat {
    /// `[access] METHOD /path STATUS 12.3ms`
    Text,
    /// One JSON object per line.
    Json,
    /// The combined log format of Apache and nginx.
    Combined,
    /// No access log.
    Off,
}

impl Program for Config {
    const NAME: &'static str = "lb";

    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn listen(&self) -> Option<SocketAddr> {
        Some(self.listen)
    }

    fn validate(&self) -> Result<(), SettingError> {
        for (name, burst) in [
            ("RL_GLOBAL_BURST (--rl-global-burst)", self.rl_global_burst),
            ("RL_CLIENT_BURST (--rl-client-burst)", self.rl_client_burst),
        ] {
            // A bucket that cannot hold one token would refuse everything for ever.
            if burst > 0.0 && burst < 1.0 {
                return Err(SettingError::new(name, burst, "0, or a number of at least 1"));
            }
        }
        Ok(())
    }
}

impl Config {
    pub(crate) fn global_limit(&self) -> Option<Limit> {
        Limit::new(self.rl_global_rate, self.rl_global_burst)
    }

    pub(crate) fn client_limit(&self) -> Option<Limit> {
        Limit::new(self.rl_client_rate, self.rl_client_burst)
    }
}

/// A host and port to forward to. The host is a name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Target {
    /// Reads `http://host[:port]`, with or without a final slash. The port is 80 when none is given.
    ///
    /// # Errors
    /// What was expected, for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "http://host:port without path, query or user is expected";
        let uri: Uri = text.trim().parse().map_err(|error| format!("{EXPECTED} ({error})"))?;
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        let authority = uri
            .authority()
            .filter(|authority| plain && !authority.as_str().contains('@'))
            .ok_or(EXPECTED)?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            Some(port) => port.trim_start_matches(':').parse().map_err(|_| EXPECTED)?,
            None => return Err(EXPECTED.to_owned()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || port == 0 {
            return Err(EXPECTED.to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use service::settings::try_parse_from;

    use super::*;

    #[test]
    fn targets_are_read_and_shown() {
        for (text, shown) in [
            ("http://gateway:8000", "http://gateway:8000"),
            ("http://gateway:8000/", "http://gateway:8000"),
            ("http://gateway", "http://gateway:80"),
            ("http://[::1]:8000", "http://[::1]:8000"),
        ] {
            assert_eq!(Target::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "gateway:8000",
            "https://gateway",
            "http://",
            "http://gateway:0",
            "http://gateway:x",
            "http://gateway:70000",
            "http://gateway:8000/api",
            "http://gateway/?a=1",
            "http://user@gateway",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?} should be refused");
        }
    }

    #[test]
    fn several_targets_and_limits_are_taken() {
        let config: Config = try_parse_from([
            "lb",
            "--target-url",
            "http://127.0.0.1:8000,http://127.0.0.1:8001",
            "--rl-global-rate",
            "10",
        ])
        .unwrap();
        assert_eq!(config.target_url.len(), 2);
        assert!(config.validate().is_ok());
        assert!(config.global_limit().is_some() && config.client_limit().is_none());
    }

    #[test]
    fn a_bad_target_names_the_variable() {
        let error = try_parse_from::<Config>(["lb", "--target-url", "ftp://x"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("TARGET_URL") && error.contains("http://host:port"),
            "{error}"
        );
    }

    #[test]
    fn a_bucket_too_small_for_one_token_is_refused() {
        let config: Config = try_parse_from(["lb", "--rl-client-rate", "1", "--rl-client-burst", "0.5"]).unwrap();
        assert!(config.validate().unwrap_err().to_string().contains("RL_CLIENT_BURST"));
    }
}
