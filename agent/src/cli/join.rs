//! `drover join`: makes this host a member of a cluster, for the first time or again, when its certificate has expired.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use drover_link::durable;
use drover_link::enrol::{JoinError, JoinOptions, join};
use drover_link::identity::{Identity, Role};
use drover_link::token::JoinToken;
use drover_protocol::id::PublisherKey;
use serde::Serialize;

use super::output::say;
use super::passphrase::Passphrase;
use super::{Common, Exit, key};
use crate::control::{Code, Problem};
use crate::daemon::IDENTITY;

/// Make this host a member of a cluster, with a one-use token
///
/// The token carries the pin of the cluster's CA: it is sent to no other tracker. A host whose certificate has expired
/// joins again in the same way; its key and name stay, and a daemon that runs goes on by itself.
#[derive(Args, Debug)]
pub(super) struct Join {
    /// A tracker of the cluster, HOST:PORT
    tracker: String,
    /// The token that `drover-tracker token` gave out; - reads it from standard input, out of sight of other users
    token: String,
    /// What to call this host (default: what it was called before, else its host name)
    #[arg(long, value_name = "HOST")]
    name: Option<String>,
    /// With a publisher's token: the private key that this host will sign releases with (default: a new one, which
    /// `publish` finds by itself)
    #[arg(long, value_name = "FILE")]
    publisher_key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: Passphrase,
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
    /// Where the key is that this host signs releases with, if it is a publisher.
    publisher_key: Option<PathBuf>,
    certificate_expires_unix_s: u64,
}

impl Join {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        common.check_state()?;
        let token = self.read_token()?;
        let folder = common.state.join(IDENTITY);
        // Root writes keys there, and who owns the state folder may be against it.
        if folder.is_symlink() {
            let why = "it is a link, and nothing is written to where it leads";
            return Err(Problem::new(Code::Refused, folder.display().to_string(), why).todo("remove it"));
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => earlier_name(&folder).map_or_else(host_name, Ok)?,
        };
        let state_is_new = !common.state.exists();
        let (publisher_key, key_is_new) = self.publisher_key(&token, &folder)?;
        let publisher = publisher_key.as_deref().map(|key| key::read(key, &self.passphrase)).transpose()?;
        let publisher = publisher.as_ref().map(key::public_half);
        let options = JoinOptions { tracker: &self.tracker, token: &token, name: &name, publisher };
        let identity = join(&options, &folder).await.map_err(|error| {
            // Unless the tracker may know the key by now, nothing is left of an attempt that failed.
            let known = matches!(error, JoinError::NoReply { .. } | JoinError::Save(_));
            if let Some(key) = publisher_key.as_deref().filter(|_| key_is_new && !known) {
                remove_key(key, state_is_new.then_some(&common.state));
            }
            refuse(&self.tracker, &error)
        })?;
        if state_is_new {
            // Joining makes folders for its owner only, and this one is for the daemon's group, too.
            let opened = std::fs::set_permissions(&common.state, PermissionsExt::from_mode(0o750));
            opened.map_err(|error| Problem::failed(format!("chmod 750 {}", common.state.display()), error))?;
        }
        let member = identity.member();
        let joined = Joined {
            name: member.name.clone(),
            role: member.role.to_string(),
            peer: member.peer.to_string(),
            state: common.state.clone(),
            trackers: identity.trackers().to_vec(),
            publishers: identity.publishers().to_vec(),
            publisher_key: publisher_key.filter(|_| member.role == Role::Publisher),
            certificate_expires_unix_s: identity.expires_unix_s(),
        };
        common.output().print(&joined, |joined| format!("{} {} {}", joined.role, joined.name, joined.peer))?;
        if let Some(key) = &joined.publisher_key {
            say(&format!("releases are signed with {}: a secret, keep a copy of it", key.display()));
        }
        say(&format!("joined; next: drover daemon --state {}", common.state.display()));
        Ok(Exit::Done)
    }

    /// Where the key to sign releases with is, for a publisher's token or if one was given, and whether it was made now.
    fn publisher_key(&self, token: &JoinToken, folder: &Path) -> Result<(Option<PathBuf>, bool), Problem> {
        if self.publisher_key.is_some() || token.role() != Role::Publisher {
            return Ok((self.publisher_key.clone(), false));
        }
        let path = folder.join(PUBLISHER_KEY);
        let new = !path.exists();
        if new {
            let made = durable::private_folder(folder).and_then(|()| key::make(&path, None));
            made.map_err(|error| Problem::explained(Code::Failed, "make a publisher's key", &error))?;
        }
        Ok((Some(path), new))
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

/// Removes a key that nobody knows of, and the folders that were made for it.
fn remove_key(path: &Path, new_state: Option<&PathBuf>) {
    // What can't be removed, since something else is in it, stays.
    let _ = std::fs::remove_file(path);
    let _ = path.parent().map(std::fs::remove_dir);
    let _ = new_state.map(std::fs::remove_dir);
}

/// What a host is called that joins again.
fn earlier_name(folder: &Path) -> Option<String> {
    Some(Identity::load(folder).ok()?.member().name.clone())
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

/// In the identity's folder: the key that `publish` signs releases with.
pub(super) const PUBLISHER_KEY: &str = "publisher.key";
/// A token has under a hundred characters.
const LONGEST_TOKEN: u64 = 4096;
