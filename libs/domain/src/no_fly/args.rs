//! The setting `NO_FLY_ZONES`, for all programs that take it.

use clap::Args;

use super::NoFly;

/// To be flattened into a program's settings.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct NoFlyArgs {
    /// Zones that nobody flies over, and from and to which no orders go: corners "lat,lon" in degrees, separated by spaces, zones by semicolons;
    /// empty: none. To a gateway it counts only until zones are stored in the KV
    #[arg(
        long,
        env = "NO_FLY_ZONES",
        default_value = "",
        hide_default_value = true,
        value_name = "ZONES"
    )]
    pub no_fly_zones: NoFly,
}
