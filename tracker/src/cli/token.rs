//! `drover-tracker token`: a one-use token on stdout, for `TOKEN=$(drover-tracker token ...)`.

use std::time::Duration;

use drover_link::identity::{Role, unix_now_s};
use drover_tracker::cluster;
use drover_tracker::config::parse_duration;
use drover_tracker::tokens::DEFAULT_TTL;
use serde_json::json;

use super::{Failure, StateArgument, print};

#[derive(clap::Args)]
pub(super) struct TokenArguments {
    #[command(flatten)]
    state: StateArgument,
    /// What the host becomes: host or publisher.
    #[arg(long, default_value_t = Role::Host)]
    role: Role,
    /// How long the token is good for: 90s, 30m, 1h; at most 24h.
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &TokenArguments) -> Result<(), Failure> {
    let ttl = arguments.ttl.unwrap_or(DEFAULT_TTL);
    let token = cluster::new_token(&arguments.state.state, arguments.role, ttl).map_err(Failure::failed)?;
    if !arguments.json {
        return print(&format!("{token}\n"));
    }
    let object = json!({
        "token": token.to_string(),
        "role": arguments.role,
        "expires_unix_s": unix_now_s() + ttl.as_secs(),
        "ca_pin": token.pin().to_string(),
    });
    print(&format!("{object}\n"))
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is no time: write 90s, 30m or 1h"))
}
