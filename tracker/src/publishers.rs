//! Keys of the publishers that the cluster trusts.
//!
//! `init` puts the first one in, hosts that join with a publisher's token add theirs. The list goes out with every
//! certificate, so hosts learn of a new publisher when they join or renew. Written before it is used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use drover_link::durable::{self, WriteError};
use drover_protocol::announce::MAX_PUBLISHERS;
use drover_protocol::id::PublisherKey;

/// The trusted keys, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Publishers {
    path: PathBuf,
    keys: Mutex<Vec<PublisherKey>>,
}

/// Why a key was not added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    /// There are enough.
    #[error(
        "the cluster trusts {MAX_PUBLISHERS} publishers already, which is the most it can; remove one from \
             publishers.json in the tracker's state folder and restart the tracker"
    )]
    Full,
    /// The disk fails.
    #[error("the tracker can't write its list of publishers; see its log")]
    Write(#[from] WriteError),
}

impl Publishers {
    /// Writes the list of a new cluster.
    pub(crate) fn create(dir: &Path, first: PublisherKey) -> Result<(), WriteError> {
        durable::create(&path(dir), &text(&[first]), durable::PUBLIC)
    }

    /// Reads the list.
    pub(crate) fn load(dir: &Path) -> io::Result<Self> {
        let path = path(dir);
        let keys: Vec<PublisherKey> = serde_json::from_slice(&fs::read(&path)?)?;
        if keys.len() > MAX_PUBLISHERS {
            return Err(io::Error::other(format!("more than {MAX_PUBLISHERS} publishers")));
        }
        Ok(Publishers { path, keys: Mutex::new(keys) })
    }

    /// Trusts one more key, durably. Blocks for the disk.
    pub(crate) fn add(&self, key: PublisherKey) -> Result<(), AddError> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.contains(&key) {
            return Ok(());
        }
        if keys.len() >= MAX_PUBLISHERS {
            return Err(AddError::Full);
        }
        let mut more = keys.clone();
        more.push(key);
        durable::replace(&self.path, &text(&more), durable::PUBLIC)?;
        *keys = more;
        Ok(())
    }

    /// Whether there is room for one more key, or it is in already.
    pub(crate) fn has_room_for(&self, key: PublisherKey) -> bool {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.contains(&key) || keys.len() < MAX_PUBLISHERS
    }

    /// All keys.
    pub(crate) fn all(&self) -> Vec<PublisherKey> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("publishers.json")
}

fn text(keys: &[PublisherKey]) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(keys).expect("keys can be written as JSON");
    text.push(b'\n');
    text
}
