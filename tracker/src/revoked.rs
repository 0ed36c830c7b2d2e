//! The keys that this tracker has revoked: `DIR/revoked.json`, which `drover-tracker revoke` adds to, also while the tracker
//! runs.
//!
//! Trackers of one cluster have a list each, and do not tell each other; agents join what all of them say.

use std::io;
use std::path::{Path, PathBuf};

use drover_link::durable::WriteError;
use drover_protocol::id::PeerId;
use drover_protocol::revocation::{MAX_REVOKED, REVOKED_FOR_S, Revocation};
use serde::{Deserialize, Serialize};

use crate::list_file::{ListFile, ListName, ReadListError};

const LIST: ListName = ListName { file: "revoked.json", most: MAX_REVOKED, may_be_missing: true };

/// The revoked keys, in memory and on disk.
#[derive(Debug)]
pub struct Revoked(ListFile<RevokedMember>);

/// A member that was shut out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedMember {
    /// Its key.
    pub peer: PeerId,
    /// What it was called, if this tracker knew.
    pub name: Option<String>,
    /// When it was shut out, in seconds since 1970 (UTC).
    pub revoked_unix_s: u64,
    /// Until when its key counts for nothing, in seconds since 1970 (UTC).
    pub until_unix_s: u64,
}

/// Why nobody was shut out.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// There are enough.
    #[error(
        "{MAX_REVOKED} keys are revoked already, which is the most there can be; the first is free again in {0} days"
    )]
    Full(u64),
    /// The list can't be read.
    #[error("can't read {path}: {cause}; restore it: a JSON list of revoked keys")]
    Read {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: io::Error,
    },
    /// The disk fails.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Revoked {
    /// Reads the list in the state folder `dir`; none is an empty one.
    pub fn load(dir: &Path) -> io::Result<Self> {
        ListFile::load(dir, LIST).map(Revoked)
    }

    /// Writes the list of another tracker of the same cluster.
    pub(crate) fn create(dir: &Path, members: &[RevokedMember]) -> Result<(), WriteError> {
        ListFile::create(dir, LIST, members)
    }

    /// Shuts members out (key, and name if known), durably, from the time `now_unix_s` on for as long as a certificate can
    /// live. Gives those that were not before. Blocks for the disk.
    pub fn add(&self, now_unix_s: u64, who: &[(PeerId, Option<String>)]) -> Result<Vec<RevokedMember>, RevokeError> {
        let mut added = Vec::new();
        self.0.change::<RevokeError>(|members| {
            members.retain(|member| member.until_unix_s > now_unix_s);
            for (peer, name) in who {
                if members.iter().any(|member| member.peer == *peer) {
                    continue;
                }
                if members.len() >= MAX_REVOKED {
                    let first = members.iter().map(|member| member.until_unix_s).min().unwrap_or(now_unix_s);
                    return Err(RevokeError::Full((first - now_unix_s).div_ceil(24 * 3600)));
                }
                let until_unix_s = now_unix_s + REVOKED_FOR_S;
                let member =
                    RevokedMember { peer: *peer, name: name.clone(), revoked_unix_s: now_unix_s, until_unix_s };
                members.push(member.clone());
                added.push(member);
            }
            Ok(!added.is_empty())
        })?;
        Ok(added)
    }

    /// All that are on the list.
    pub fn all(&self) -> Vec<RevokedMember> {
        self.0.all()
    }

    /// The same, as members are told.
    pub(crate) fn told(&self) -> Vec<Revocation> {
        let told = |member: RevokedMember| Revocation { peer: member.peer, until_unix_s: member.until_unix_s };
        self.all().into_iter().map(told).collect()
    }
}

impl From<ReadListError> for RevokeError {
    fn from(error: ReadListError) -> Self {
        RevokeError::Read { path: error.path, cause: error.cause }
    }
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    LIST.path(dir)
}
