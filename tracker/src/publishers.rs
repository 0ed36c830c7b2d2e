//! Keys of the publishers that the cluster trusts.
//!
//! `init` puts the first one in, hosts that join with a publisher's token add theirs, and `drover-tracker publishers`
//! adds and removes, also while the tracker runs: the file is read again whenever it has changed. The list goes out with
//! every certificate, and hosts that are connected are told when it has changed. Trackers of one cluster have a list each,
//! and do not tell each other. Written before it is used.

use std::io;
use std::path::{Path, PathBuf};

use drover_link::durable::WriteError;
use drover_protocol::announce::MAX_PUBLISHERS;
use drover_protocol::id::PublisherKey;

use crate::list_file::{ListFile, ListName, ReadListError};

const LIST: ListName = ListName { file: "publishers.json", most: MAX_PUBLISHERS, may_be_missing: false };

/// The trusted keys, in memory and on disk.
#[derive(Debug)]
pub struct Publishers(ListFile<PublisherKey>);

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
        ListFile::create(dir, LIST, keys)
    }

    /// Reads the list in the state folder `dir`.
    pub fn load(dir: &Path) -> io::Result<Self> {
        ListFile::load(dir, LIST).map(Publishers)
    }

    /// Trusts one more key, durably. Blocks for the disk.
    pub fn add(&self, key: PublisherKey) -> Result<(), ChangeError> {
        self.0.change(|keys| {
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
        self.0.change(|keys| {
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
        self.0.all()
    }
}

impl From<ReadListError> for ChangeError {
    fn from(error: ReadListError) -> Self {
        ChangeError::Read { path: error.path, cause: error.cause }
    }
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    LIST.path(dir)
}
