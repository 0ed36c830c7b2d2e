//! A file that is served in place: the user's own, which may change under us.
//!
//! Three nets, each finer than the one before: the file's size, time, inode and device are compared before every read;
//! every chunk is verified as it is read; and what is noticed once is noted beside the manifest, so that the image
//! stays withdrawn over restarts, until the file is published again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::disk_error::{DiskError, Doing};
use super::layout::{SOURCE, WITHDRAWN, write_file};
use crate::handover::FileIdentity;

/// What tells a file from another, or from itself after a change, without reading it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) mtime_ns: i128,
    pub(super) inode: u64,
    pub(super) device: u64,
}

impl Source {
    pub(super) fn of(path: &Path, metadata: &fs::Metadata) -> Self {
        Source {
            path: path.to_owned(),
            len: metadata.len(),
            mtime_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// What has become different about the file, if anything has.
    pub(super) fn difference(&self) -> Option<String> {
        let path = self.path.display();
        let now = match fs::metadata(&self.path) {
            Ok(metadata) => Source::of(&self.path, &metadata),
            Err(error) => return Some(format!("{path} can't be found any more: {error}")),
        };
        if (now.device, now.inode) != (self.device, self.inode) {
            return Some(format!("{path} is another file now"));
        }
        if now.len != self.len {
            return Some(format!("{path} has {} bytes now, not {}", now.len, self.len));
        }
        (now.mtime_ns != self.mtime_ns).then(|| format!("{path} was modified"))
    }

    /// Whether the last change was so long before this that any later one shows in the time: file systems count time in
    /// steps, of 2 s at the most.
    pub(super) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.mtime_ns + SETTLED_NS < now.as_nanos() as i128
    }

    /// As it was, without its path and device.
    pub(super) fn identity(&self) -> FileIdentity {
        let modified_unix_ns = i64::try_from(self.mtime_ns).unwrap_or(i64::MAX);
        FileIdentity { len: self.len, inode: self.inode, modified_unix_ns }
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), DiskError> {
        let json = serde_json::to_vec_pretty(self).expect("paths in the store are text");
        write_file(&folder.join(SOURCE), &json)
    }

    /// The source of the master in `folder`, if it is one in place.
    pub(super) fn load(folder: &Path) -> Result<Option<Self>, DiskError> {
        let path = folder.join(SOURCE);
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => {
                let bytes = read.doing("read", &path)?;
                serde_json::from_slice(&bytes).map(Some).map_err(std::io::Error::from).doing("read", &path)
            }
        }
    }
}

/// Watches one file.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    source: Arc<Source>,
    folder: PathBuf,
    withdrawn: Arc<OnceLock<String>>,
}

impl Watch {
    /// Of the master in `folder`; withdrawn at once if the file is not what it was.
    pub(super) fn new(source: Source, folder: PathBuf) -> Self {
        let watch = Watch { source: Arc::new(source), folder, withdrawn: Arc::default() };
        match fs::read_to_string(watch.folder.join(WITHDRAWN)) {
            Ok(reason) => drop(watch.withdrawn.set(reason)),
            Err(_) => drop(watch.check()),
        }
        watch
    }

    pub(super) fn path(&self) -> &Path {
        &self.source.path
    }

    /// What the file was when it was published.
    pub(super) fn identity(&self) -> FileIdentity {
        self.source.identity()
    }

    /// Makes sure that the file looks as it did when it was published; otherwise says what is different.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(reason) = self.withdrawn() {
            return Err(reason);
        }
        match self.source.difference() {
            Some(reason) => Err(self.withdraw(reason)),
            None => Ok(()),
        }
    }

    /// Why it is withdrawn, if it is.
    pub(super) fn withdrawn(&self) -> Option<String> {
        self.withdrawn.get().cloned()
    }

    /// Withdraws it; gives the reason that counts, which is the first.
    pub(super) fn withdraw(&self, reason: String) -> String {
        let reason = self.withdrawn.get_or_init(|| reason).clone();
        if let Err(error) = write_file(&self.folder.join(WITHDRAWN), reason.as_bytes()) {
            tracing::warn!("{error}; the change is noticed again after a restart");
        }
        reason
    }
}

/// Two steps of the coarsest clock, in nanoseconds.
const SETTLED_NS: i128 = 4_000_000_000;
