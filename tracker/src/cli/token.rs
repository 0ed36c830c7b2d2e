//! `drover-tracker token`: a one-use token on stdout, for `TOKEN=$(drover-tracker token ...)`.

use std::time::Duration;

use drover_link::identity::{Role, unix_now_s};
use drover_tracker::cluster;
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
    let refuse = || format!("{text:?} is no time: write 90s, 30m or 1h");
    let unit = text.chars().last().ok_or_else(refuse)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(refuse()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| refuse())?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_ttl("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_ttl("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "h", "5", "5é", "-1h", "99999999999999999999h", "18446744073709551615h"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong:?}");
        }
    }
}
