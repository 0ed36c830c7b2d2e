//! Who has a certificate, by name: `DIR/members/<key>.json`, one small file each, so that a member can be named that is not
//! connected now.
//!
//! Written when a host joins or renews here, and for members of other trackers once they have been connected for a while.
//! Nothing rests on it: a member that is not in it can be named by its key, which `drover status` shows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use drover_link::durable::{self, WriteError};
use drover_link::identity::Role;
use drover_link::member::Member;
use drover_protocol::id::PeerId;
use serde::{Deserialize, Serialize};
use tracing::warn;

const SUFFIX: &str = ".json";

/// The members that have a certificate, in memory and on disk.
#[derive(Debug)]
pub struct Roster {
    dir: PathBuf,
    known: Mutex<BTreeMap<PeerId, Enrolled>>,
}

/// A member that was given a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// What it is called. Two members may be called the same.
    pub name: String,
    /// What it may be.
    pub role: Role,
    /// Until when its certificate is good, as far as this tracker knows, in seconds since 1970 (UTC).
    pub certificate_expires_unix_s: u64,
}

impl Roster {
    /// Reads the roster in the state folder `dir`. A file that can't be read is left out.
    pub fn load(dir: &Path) -> io::Result<Self> {
        let folder = folder(dir);
        let mut known = BTreeMap::new();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            entries => Some(entries?),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX));
            let Some(Ok(peer)) = name.map(str::parse::<PeerId>) else { continue };
            match fs::read(&path).map_err(|error| error.to_string()).and_then(|text| read(&text)) {
                Ok(enrolled) => drop(known.insert(peer, enrolled)),
                Err(error) => {
                    warn!(error, "can't read {}; it is written again when this member renews", path.display());
                }
            }
        }
        Ok(Roster { dir: dir.to_owned(), known: Mutex::new(known) })
    }

    /// Notes that a member has a certificate. Blocks for the disk if that is news.
    pub(crate) fn note(&self, member: &Member, certificate_expires_unix_s: u64) -> Result<(), WriteError> {
        let enrolled = Enrolled { name: member.name.clone(), role: member.role, certificate_expires_unix_s };
        if self.known().get(&member.peer).is_some_and(|known| known.is_at_least(&enrolled)) {
            return Ok(());
        }
        let folder = folder(&self.dir);
        durable::private_folder(&folder)?;
        let text = serde_json::to_vec(&enrolled).expect("an entry can be written as JSON");
        durable::replace(&self.path(member.peer), &text, durable::PRIVATE)?;
        self.known().insert(member.peer, enrolled);
        Ok(())
    }

    /// Members of this name, or the one with this key (64 hexadecimal digits), whether it is known or not.
    pub fn find(&self, who: &str) -> Vec<(PeerId, Option<Enrolled>)> {
        if let Ok(peer) = who.parse::<PeerId>() {
            return vec![(peer, self.known().get(&peer).cloned())];
        }
        let known = self.known();
        let named = known.iter().filter(|(_, enrolled)| enrolled.name == who);
        named.map(|(&peer, enrolled)| (peer, Some(enrolled.clone()))).collect()
    }

    /// All members, by key.
    pub fn all(&self) -> Vec<(PeerId, Enrolled)> {
        self.known().iter().map(|(&peer, enrolled)| (peer, enrolled.clone())).collect()
    }

    /// Forgets members whose certificates have expired. Blocks for the disk.
    pub(crate) fn sweep(&self, now_unix_s: u64) -> io::Result<()> {
        let expired = |enrolled: &Enrolled| enrolled.certificate_expires_unix_s <= now_unix_s;
        let gone: Vec<PeerId> =
            self.all().into_iter().filter(|(_, known)| expired(known)).map(|(peer, _)| peer).collect();
        for peer in gone {
            match fs::remove_file(self.path(peer)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => drop(self.known().remove(&peer)),
            }
        }
        Ok(())
    }

    fn path(&self, peer: PeerId) -> PathBuf {
        folder(&self.dir).join(format!("{peer}{SUFFIX}"))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PeerId, Enrolled>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Enrolled {
    /// Whether this says as much as `other`.
    fn is_at_least(&self, other: &Enrolled) -> bool {
        (&self.name, self.role) == (&other.name, other.role)
            && self.certificate_expires_unix_s >= other.certificate_expires_unix_s
    }
}

fn read(text: &[u8]) -> Result<Enrolled, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("members")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8, name: &str) -> Member {
        Member { peer: PeerId::from_bytes([number; 32]), role: Role::Host, name: name.to_owned() }
    }

    #[test]
    fn members_are_found_by_name_and_key_also_after_a_restart_until_their_certificates_end() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let roster = Roster::load(dir.path()).expect("an empty one");
        for (number, name) in [(1, "web"), (2, "db"), (3, "web")] {
            roster.note(&member(number, name), 100 + u64::from(number)).expect("noted");
        }
        roster.note(&member(2, "db"), 50).expect("an older certificate is no news");
        fs::write(dir.path().join("members/nonsense.json"), "{}").expect("written");
        fs::write(dir.path().join("members").join(format!("{}.json", PeerId::from_bytes([9; 32]))), "{")
            .expect("written");

        let roster = Roster::load(dir.path()).expect("the same again");
        let found = |who: &str| roster.find(who).into_iter().map(|(peer, _)| peer).collect::<Vec<_>>();
        let key = |number| PeerId::from_bytes([number; 32]);
        assert_eq!((found("web"), found("db"), found("other")), (vec![key(1), key(3)], vec![key(2)], vec![]));
        assert_eq!(roster.find(&key(2).to_string())[0].1.as_ref().expect("known").certificate_expires_unix_s, 102);
        assert_eq!(roster.find(&key(7).to_string()), [(key(7), None)], "a key can be named that nobody knows");
        roster.sweep(102).expect("swept");
        let left: Vec<PeerId> =
            Roster::load(dir.path()).expect("again").all().into_iter().map(|(peer, _)| peer).collect();
        assert_eq!(left, [key(3)]);
    }
}
