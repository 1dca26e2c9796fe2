//! Settings: what follows from a gateway's faults.

use clap::Args;
use service::settings::{non_negative, percent, positive};

/// Who is skipped for how long, and how many requests may be sent a second time.
#[derive(Debug, Clone, Args)]
pub struct FaultArgs {
    /// How many requests may be sent a second time, after their gateway broke off, percent of all
    #[arg(long, env = "LB_RETRY_BUDGET_PCT", default_value = "20", value_parser = percent, value_name = "PCT")]
    pub lb_retry_budget_pct: f64,

    /// How many may be in any case, a second
    #[arg(long, env = "LB_RETRY_MIN_PER_SEC", default_value = "10", value_parser = non_negative, value_name = "PER_SEC")]
    pub lb_retry_min_per_sec: f64,

    /// Errors in a row (500, 502, 503, 504, or broken off) after which a gateway is skipped for a while, when others have none; 0 = never
    #[arg(long, env = "LB_EJECT_ERRORS", default_value = "5", value_name = "N")]
    pub lb_eject_errors: u32,

    /// How long a gateway that comes back takes to get its whole share again, seconds; 0 = at once
    #[arg(long, env = "LB_SLOW_START_SEC", default_value = "10", value_parser = non_negative, value_name = "SEC")]
    pub lb_slow_start_sec: f64,

    /// What gateways are asked for to see whether they are well; any answer below 500 is good
    #[arg(long, env = "LB_HEALTH_PATH", default_value = "/health", value_parser = path, value_name = "PATH")]
    pub lb_health_path: String,

    /// How often they are asked, seconds; 0 = never
    #[arg(long, env = "LB_HEALTH_INTERVAL_SEC", default_value = "2", value_parser = non_negative, value_name = "SEC")]
    pub lb_health_interval_sec: f64,

    /// How long the answer may take, milliseconds
    #[arg(long, env = "LB_HEALTH_TIMEOUT_MS", default_value = "1000", value_parser = positive, value_name = "MS")]
    pub lb_health_timeout_ms: f64,

    /// Good answers in a row after which a gateway that was left out is back
    #[arg(long, env = "LB_HEALTH_RISE", default_value = "2", value_parser = times, value_name = "N")]
    pub lb_health_rise: u32,

    /// Failures in a row after which a gateway is left out, as long as half of them remain
    #[arg(long, env = "LB_HEALTH_FALL", default_value = "3", value_parser = times, value_name = "N")]
    pub lb_health_fall: u32,
}

/// A path and perhaps a query, as it stands in a request.
fn path(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        Ok(text.to_owned())
    } else {
        Err("a path that begins with / is expected".to_owned())
    }
}

fn times(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("a whole number of at least 1 is expected".to_owned()),
        Ok(n) => Ok(n),
    }
}
