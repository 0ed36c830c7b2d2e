//! `drover join`: makes this host a member of a cluster.

use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use clap::Args;
use drover_link::enrol::{JoinError, JoinOptions, join};
use drover_link::token::JoinToken;
use drover_protocol::id::PublisherKey;
use serde::Serialize;

use super::output::say;
use super::{Common, Exit};
use crate::control::{Code, Problem};
use crate::daemon::IDENTITY;

/// Make this host a member of a cluster, with a one-use token
///
/// The token carries the pin of the cluster's CA: it is sent to no other tracker.
#[derive(Args, Debug)]
pub(super) struct Join {
    /// A tracker of the cluster, HOST:PORT
    tracker: String,
    /// The token that `drover-tracker token` gave out; - reads it from standard input, out of sight of other users
    token: String,
    /// What to call this host (default: its host name)
    #[arg(long, value_name = "HOST")]
    name: Option<String>,
    /// With a publisher's token: the private key that this host will sign releases with
    #[arg(long, value_name = "FILE")]
    publisher_key: Option<PathBuf>,
}

/// What `join --json` prints.
#[derive(Serialize)]
struct Joined {
    name: String,
    role: String,
    peer: String,
    state: PathBuf,
    trackers: Vec<String>,
    publishers: Vec<PublisherKey>,
    certificate_expires_unix_s: u64,
}

impl Join {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let token = self.read_token()?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        let publisher = match &self.publisher_key {
            None => None,
            Some(path) => {
                let key = super::publish::read_key(path)?;
                Some(PublisherKey::from_bytes(key.verifying_key().to_bytes()))
            }
        };
        let options = JoinOptions { tracker: &self.tracker, token: &token, name: &name, publisher };
        let folder = common.state.join(IDENTITY);
        let state_is_new = !common.state.exists();
        let identity = join(&options, &folder).await.map_err(|error| refuse(&self.tracker, &error))?;
        if state_is_new {
            // Joining makes folders for its owner only, and this one is for the daemon's group, too.
            let opened = std::fs::set_permissions(&common.state, PermissionsExt::from_mode(0o750));
            opened.map_err(|error| Problem::failed(format!("chmod 750 {}", common.state.display()), error))?;
        }
        give_to_owner_of(&common.state, &folder).map_err(|error| {
            Problem::failed(format!("give {} to the daemon's user", folder.display()), error)
                .todo(format!("joined all the same; chown -R it to the owner of {}", common.state.display()))
        })?;
        let member = identity.member();
        let joined = Joined {
            name: member.name.clone(),
            role: member.role.to_string(),
            peer: member.peer.to_string(),
            state: common.state.clone(),
            trackers: identity.trackers().to_vec(),
            publishers: identity.publishers().to_vec(),
            certificate_expires_unix_s: identity.expires_unix_s(),
        };
        common.output().print(&joined, |joined| format!("{} {} {}", joined.role, joined.name, joined.peer))?;
        say(&format!("joined; next: drover daemon --state {}", common.state.display()));
        Ok(Exit::Done)
    }

    fn read_token(&self) -> Result<JoinToken, Problem> {
        let mut text = self.token.clone();
        if text == "-" {
            text.clear();
            let read = std::io::stdin().take(LONGEST_TOKEN).read_to_string(&mut text);
            read.map_err(|error| Problem::failed("read the token from standard input", error))?;
        }
        text.trim()
            .parse()
            .map_err(|error: drover_link::token::ParseTokenError| Problem::explained(Code::Usage, "join", &error))
    }
}

/// Root joins, the daemon runs as another user: what root wrote in that user's folder is to be the user's.
fn give_to_owner_of(state: &Path, folder: &Path) -> io::Result<()> {
    let owner = std::fs::metadata(state)?;
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        lchown(entry?.path(), Some(owner.uid()), Some(owner.gid()))?;
    }
    lchown(folder, Some(owner.uid()), Some(owner.gid()))
}

fn host_name() -> Result<String, Problem> {
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    drover_link::member::check_host_name(&name)
        .map(|()| name)
        .map_err(|error| Problem::new(Code::Usage, "join", error).todo("give this host a name with --name"))
}

fn refuse(tracker: &str, error: &JoinError) -> Problem {
    let code = match error {
        JoinError::AlreadyJoined(_)
        | JoinError::Refused(_)
        | JoinError::NoTracker { .. }
        | JoinError::OtherCluster(_) => Code::Refused,
        JoinError::Name(_) | JoinError::NoPublisherKey | JoinError::Resolve { .. } => Code::Usage,
        JoinError::NoAnswer(_) | JoinError::Connection { .. } | JoinError::NoReply { .. } => Code::TrackerUnreachable,
        _ => Code::Failed,
    };
    Problem::explained(code, format!("join {tracker}"), error)
}

/// A token has under a hundred characters.
const LONGEST_TOKEN: u64 = 4096;
