//! `drover-tracker revoke`: shuts a host out.

use drover_link::identity::unix_now_s;
use drover_tracker::revoked::Revoked;
use drover_tracker::roster::Roster;
use serde_json::json;

use super::{Failure, StateArgument, print};

/// The tracker may run meanwhile: it closes the host's connections and tells all agents, which close theirs and keep that
/// in mind, also while no tracker answers. If the tracker does not run, this counts from its next start. It can't be taken
/// back; the host comes in again with a new key, when its folder STATE/identity has been moved away, and a new token.
///
/// Each tracker of a cluster has its own list: repeat it at the others, or they renew the host's certificate. What the host
/// has of masters stays there. If releases were signed on it, take its key from `drover-tracker publishers`, too.
#[derive(clap::Args)]
pub(super) struct RevokeArguments {
    #[command(flatten)]
    state: StateArgument,
    /// The host's name, as in `drover-tracker members`, or its key: 64 hexadecimal digits, as in `drover status --json`. If
    /// several hosts have the name, all are shut out.
    host: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &RevokeArguments) -> Result<(), Failure> {
    let (dir, host) = (&arguments.state.state, &arguments.host);
    let unreadable = |error: std::io::Error| {
        let dir = dir.display();
        Failure::failed(format!("can't read the tracker's folder {dir}: {error}; name it with --state"))
    };
    let found = Roster::load(dir).map_err(unreadable)?.find(host);
    if found.is_empty() {
        return Err(Failure::failed(format!(
            "no member is called {host:?}; `drover-tracker members` lists those that are known here. One that joined at \
             another tracker can be named by its key, which `drover status --json` shows as \"peer\""
        )));
    }
    let who: Vec<_> = found.into_iter().map(|(peer, known)| (peer, known.map(|known| known.name))).collect();
    let added = Revoked::load(dir).map_err(unreadable)?.add(unix_now_s(), &who).map_err(Failure::failed)?;
    if arguments.json {
        return print(&format!("{}\n", json!({ "revoked": added })));
    }
    if added.is_empty() {
        return print(&format!("{host} was revoked before\n"));
    }
    let line = |member: &drover_tracker::revoked::RevokedMember| {
        format!("revoked {} {}\n", member.peer, member.name.as_deref().unwrap_or("(unknown here)"))
    };
    print(&added.iter().map(line).collect::<String>())
}
