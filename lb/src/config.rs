//! Settings: where to forward, how often to resolve, how much to let through, what to log.
//!
//! - `timeouts`: how long everything may take. `limits`: how much is taken. `faults`: what follows from a gateway's faults.

mod faults;
mod limits;
mod timeouts;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{Parser, ValueEnum};
use http::Uri;
use ipnet::IpNet;
use service::program::Program;
use service::settings::{CommonArgs, SettingError, non_negative, positive};
use service::traces::TraceArgs;

use crate::limits::HEAD_AND_URI_MAX_BYTES;
use crate::policy::Policy;
use crate::rate_limit::Limit;

pub use faults::FaultArgs;
pub use limits::LimitArgs;
pub use timeouts::TimeoutArgs;

/// Port of `lb` unless `LISTEN` says otherwise.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

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

    /// Which gateway gets the next request: each in turn, the one with the fewest under way, or of two at random the one expected to answer sooner
    #[arg(
        long,
        env = "LB_POLICY",
        default_value = "round_robin",
        value_enum,
        value_name = "POLICY"
    )]
    pub lb_policy: Policy,

    /// How long everything may take.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,

    /// How much is taken.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// What follows from a gateway's faults.
    #[command(flatten)]
    pub faults: FaultArgs,

    /// Proxies before this one, as addresses or networks (10.0.0.0/8) separated by commas: what they say in `X-Forwarded-For` tells who the client is, for
    /// limits and log; what others say in it, or in `X-Forwarded-Proto` and `-Host`, is dropped. Unset: it is handed on, and not believed
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',', value_parser = network, value_name = "NETWORK[,NETWORK]")]
    pub trusted_proxies: Vec<IpNet>,

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

    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceArgs,

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
        self.traces.validate()?;
        self.validate_limits()
    }
}

impl Config {
    fn validate_limits(&self) -> Result<(), SettingError> {
        let (limits, grace_sec) = (&self.limits, self.timeouts.lb_grace_sec);
        if grace_sec > timeouts::GRACE_MAX_SEC {
            return Err(SettingError::new(
                "LB_GRACE_SEC (--lb-grace-sec)",
                grace_sec,
                format!("seconds from 0 to {}", timeouts::GRACE_MAX_SEC),
            ));
        }
        let head_bytes = limits.lb_max_head_bytes.saturating_add(limits.lb_max_uri_bytes);
        if head_bytes > HEAD_AND_URI_MAX_BYTES {
            return Err(SettingError::new(
                "LB_MAX_HEAD_BYTES (--lb-max-head-bytes)",
                limits.lb_max_head_bytes,
                format!("bytes that are, with LB_MAX_URI_BYTES, at most {HEAD_AND_URI_MAX_BYTES} (it is {head_bytes})"),
            ));
        }
        if limits.lb_replay_memory_bytes < limits.lb_replay_body_bytes {
            return Err(SettingError::new(
                "LB_REPLAY_MEMORY_BYTES (--lb-replay-memory-bytes)",
                limits.lb_replay_memory_bytes,
                format!(
                    "at least LB_REPLAY_BODY_BYTES, which is {}",
                    limits.lb_replay_body_bytes
                ),
            ));
        }
        Ok(())
    }

    pub(crate) fn global_limit(&self) -> Option<Limit> {
        Limit::new(self.rl_global_rate, self.rl_global_burst)
    }

    pub(crate) fn client_limit(&self) -> Option<Limit> {
        Limit::new(self.rl_client_rate, self.rl_client_burst)
    }
}

/// An address, or a network of them.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let alone = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(alone)
        .map_err(|_| "an address, or a network such as 10.0.0.0/8, is expected".to_owned())
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
    fn trusted_proxies_are_addresses_and_networks() {
        let config = |list: &str| try_parse_from::<Config>(["lb", "--trusted-proxies", list]);
        let networks = config("10.0.0.0/8, 192.0.2.1,2001:db8::/32,::1")
            .unwrap()
            .trusted_proxies;
        let shown: Vec<_> = networks.iter().map(IpNet::to_string).collect();
        assert_eq!(shown, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128"]);
        for bad in ["10.0.0.0/33", "proxy", "10.0.0.0/8,,10.0.0.1", "10.0.0"] {
            let error = config(bad).unwrap_err().to_string();
            assert!(
                error.contains("TRUSTED_PROXIES") && error.contains("network"),
                "{error}"
            );
        }
        assert!(try_parse_from::<Config>(["lb"]).unwrap().trusted_proxies.is_empty());
    }

    #[test]
    fn policies_have_their_documented_names() {
        let policy = |args: &[&str]| try_parse_from::<Config>([&["lb"], args].concat()).map(|config| config.lb_policy);
        assert_eq!(policy(&[]).unwrap(), Policy::RoundRobin);
        assert_eq!(policy(&["--lb-policy", "least_conn"]).unwrap(), Policy::LeastConn);
        assert_eq!(policy(&["--lb-policy", "p2c_ewma"]).unwrap(), Policy::P2cEwma);
        let error = policy(&["--lb-policy", "random"]).unwrap_err().to_string();
        assert!(error.contains("LB_POLICY") && error.contains("p2c_ewma"), "{error}");
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
    fn limits_that_contradict_each_other_are_refused() {
        for (flag, value, name) in [
            ("--lb-grace-sec", "9", "LB_GRACE_SEC"),
            ("--lb-max-head-bytes", "60000", "LB_MAX_HEAD_BYTES"),
            ("--lb-max-uri-bytes", "40000", "LB_MAX_URI_BYTES"),
            ("--lb-replay-body-bytes", "99999999", "LB_REPLAY_BODY_BYTES"),
        ] {
            let config: Config = try_parse_from(["lb", flag, value]).unwrap();
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("it takes"), "{error}");
        }
        for flag in [
            "--lb-keep-alive-sec",
            "--lb-max-connections",
            "--lb-request-head-sec",
            "--lb-health-path",
            "--lb-health-timeout-ms",
            "--lb-health-rise",
        ] {
            let error = try_parse_from::<Config>(["lb", flag, "0"]).unwrap_err().to_string();
            assert!(error.contains(flag) && error.contains("LB_"), "{error}");
        }
    }

    #[test]
    fn a_bucket_too_small_for_one_token_is_refused() {
        let config: Config = try_parse_from(["lb", "--rl-client-rate", "1", "--rl-client-burst", "0.5"]).unwrap();
        assert!(config.validate().unwrap_err().to_string().contains("RL_CLIENT_BURST"));
    }
}
