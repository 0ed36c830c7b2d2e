//! `drover-tracker members`: who belongs to the cluster, and who does not any more.

use drover_link::identity::unix_now_s;
use drover_tracker::revoked::Revoked;
use drover_tracker::roster::Roster;
use serde_json::json;

use super::{Failure, StateArgument, print};

/// Those that joined or renewed at this tracker, or were connected with it, and whose certificates are still good.
#[derive(clap::Args)]
pub(super) struct MembersArguments {
    #[command(flatten)]
    state: StateArgument,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &MembersArguments) -> Result<(), Failure> {
    let dir = &arguments.state.state;
    let unreadable = |error: std::io::Error| {
        let dir = dir.display();
        Failure::failed(format!("can't read the tracker's folder {dir}: {error}; name it with --state"))
    };
    let now = unix_now_s();
    let revoked: Vec<_> = Revoked::load(dir).map_err(unreadable)?.all();
    let revoked: Vec<_> = revoked.into_iter().filter(|member| member.until_unix_s > now).collect();
    let is_revoked = |peer| revoked.iter().any(|member| member.peer == peer);
    let members = Roster::load(dir).map_err(unreadable)?.all().into_iter();
    let members = members.filter(|&(peer, ref known)| known.certificate_expires_unix_s > now && !is_revoked(peer));
    let members: Vec<_> = members.collect();
    if arguments.json {
        let member = |(peer, known): &(_, drover_tracker::roster::Enrolled)| {
            let expires = known.certificate_expires_unix_s;
            json!({ "peer": peer, "name": known.name, "role": known.role, "certificate_expires_unix_s": expires })
        };
        let members: Vec<_> = members.iter().map(member).collect();
        return print(&format!("{}\n", json!({ "members": members, "revoked": revoked })));
    }
    let mut text = String::new();
    for (peer, known) in &members {
        text += &format!("{peer} {} {}\n", known.role, known.name);
    }
    for member in &revoked {
        text += &format!("{} revoked {}\n", member.peer, member.name.as_deref().unwrap_or("(unknown here)"));
    }
    print(&text)
}
