//! Keys of the publishers that the cluster trusts.
//!
//! `init` puts the first one in, hosts that join with a publisher's token add theirs, and `drover-tracker publishers`
//! adds and removes, also while the tracker runs: the file is read again whenever it has changed. The list goes out with
//! every certificate, so hosts learn of it when they join or renew. Trackers of one cluster have a list each, and do not
//! tell each other. Written before it is used.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use drover_link::durable::{self, WriteError};
use drover_protocol::announce::MAX_PUBLISHERS;
use drover_protocol::id::PublisherKey;
use rustix::fs::{FlockOperation, flock};
use tracing::{info, warn};

/// The trusted keys, in memory and on disk.
#[derive(Debug)]
pub struct Publishers {
    dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    keys: Vec<PublisherKey>,
    /// The file that they were read from.
    from: Version,
}

/// Tells one content of the file from another: each is a file of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Version {
    inode: u64,
    changed: (i64, i64),
}

/// Why the list was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There are enough.
    #[error(
        "the cluster trusts {MAX_PUBLISHERS} publishers already, which is the most it can; remove one with \
             `drover-tracker publishers --remove KEY`"
    )]
    Full,
    /// Not in the list.
    #[error("the cluster does not trust {0}; `drover-tracker publishers` lists those that it does")]
    Unknown(PublisherKey),
    /// The list can't be read.
    #[error("can't read {path}: {cause}; restore it: a JSON list of publishers' keys")]
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

impl Publishers {
    /// Writes the list of a new tracker.
    pub(crate) fn create(dir: &Path, keys: &[PublisherKey]) -> Result<(), WriteError> {
        durable::create(&path(dir), &text(keys), durable::PUBLIC)
    }

    /// Reads the list in the state folder `dir`.
    pub fn load(dir: &Path) -> io::Result<Self> {
        Ok(Publishers { dir: dir.to_owned(), known: Mutex::new(read(dir)?) })
    }

    /// Trusts one more key, durably. Blocks for the disk.
    pub fn add(&self, key: PublisherKey) -> Result<(), ChangeError> {
        self.change(|keys| {
            if keys.contains(&key) {
                return Ok(false);
            }
            if keys.len() >= MAX_PUBLISHERS {
                return Err(ChangeError::Full);
            }
            keys.push(key);
            Ok(true)
        })
    }

    /// Trusts a key no longer, durably. Releases that it signed before stay. Blocks for the disk.
    pub fn remove(&self, key: PublisherKey) -> Result<(), ChangeError> {
        self.change(|keys| {
            let before = keys.len();
            keys.retain(|&other| other != key);
            if keys.len() == before { Err(ChangeError::Unknown(key)) } else { Ok(true) }
        })
    }

    /// Whether there is room for one more key, or it is in already.
    pub(crate) fn has_room_for(&self, key: PublisherKey) -> bool {
        let keys = self.all();
        keys.contains(&key) || keys.len() < MAX_PUBLISHERS
    }

    /// All keys.
    pub fn all(&self) -> Vec<PublisherKey> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match Version::of(&path(&self.dir)) {
            Ok(now) if now == known.from => {}
            _ => match read(&self.dir) {
                Ok(fresh) => {
                    info!(count = fresh.keys.len(), "the list of publishers was changed");
                    *known = fresh;
                }
                Err(error) => warn!(%error, "can't read publishers.json; going by what it said before"),
            },
        }
        known.keys.clone()
    }

    /// Changes the list as it is on disk, one change at a time, whichever process makes it.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<PublisherKey>) -> Result<bool, ChangeError>,
    ) -> Result<(), ChangeError> {
        let unreadable = |cause| ChangeError::Read { path: path(&self.dir), cause };
        let folder = File::open(&self.dir).map_err(unreadable)?;
        flock(&folder, FlockOperation::LockExclusive).map_err(|error| unreadable(error.into()))?;
        let mut keys = read(&self.dir).map_err(unreadable)?.keys;
        if change(&mut keys)? {
            let path = path(&self.dir);
            durable::replace(&path, &text(&keys), durable::PUBLIC)?;
            crate::cluster::give_to_owner_of(&self.dir, &path).map_err(|cause| WriteError { path, cause })?;
        }
        Ok(())
    }
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Version { inode: found.ino(), changed: (found.mtime(), found.mtime_nsec()) })
    }
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("publishers.json")
}

fn read(dir: &Path) -> io::Result<Known> {
    let path = path(dir);
    // Looked at before it is read: a change in between is then found the next time.
    let from = Version::of(&path)?;
    let keys: Vec<PublisherKey> = serde_json::from_slice(&fs::read(&path)?)?;
    if keys.len() > MAX_PUBLISHERS {
        return Err(io::Error::other(format!("more than {MAX_PUBLISHERS} publishers")));
    }
    Ok(Known { keys, from })
}

fn text(keys: &[PublisherKey]) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(keys).expect("keys can be written as JSON");
    text.push(b'\n');
    text
}
