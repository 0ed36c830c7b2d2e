//! A list in the tracker's state folder that commands change while the tracker runs: one JSON file, replaced whole, and
//! read again whenever it has changed. Written before it is used.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use drover_link::durable::{self, WriteError};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{info, warn};

/// Where a list is, and how long it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListName {
    /// The file's name in the state folder.
    pub(crate) file: &'static str,
    /// Most entries.
    pub(crate) most: usize,
    /// Whether it is empty where there is no file.
    pub(crate) may_be_missing: bool,
}

/// The list, in memory and on disk.
#[derive(Debug)]
pub(crate) struct ListFile<T> {
    dir: PathBuf,
    name: ListName,
    known: Mutex<Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    entries: Vec<T>,
    /// The file that they were read from; `None` if there was none.
    from: Option<Version>,
}

/// Tells one content of the file from another: each is a file of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Version {
    inode: u64,
    changed: (i64, i64),
}

/// The list can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read {path}: {cause}")]
pub(crate) struct ReadListError {
    pub(crate) path: PathBuf,
    #[source]
    pub(crate) cause: io::Error,
}

impl ListName {
    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.file)
    }
}

impl<T: Serialize + DeserializeOwned + Clone> ListFile<T> {
    /// Writes the list of a new tracker.
    pub(crate) fn create(dir: &Path, name: ListName, entries: &[T]) -> Result<(), WriteError> {
        durable::create(&name.path(dir), &text(entries), durable::PUBLIC)
    }

    /// Reads the list in the state folder `dir`.
    pub(crate) fn load(dir: &Path, name: ListName) -> io::Result<Self> {
        Ok(ListFile { dir: dir.to_owned(), name, known: Mutex::new(read(dir, name)?) })
    }

    /// All entries, as the file has them now. If it can't be read, as it had them before.
    pub(crate) fn all(&self) -> Vec<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if Version::of(&self.name.path(&self.dir)).ok() != known.from {
            match read(&self.dir, self.name) {
                Ok(fresh) => {
                    info!(count = fresh.entries.len(), "{} was changed", self.name.file);
                    *known = fresh;
                }
                Err(error) => warn!(%error, "can't read {}; going by what it said before", self.name.file),
            }
        }
        known.entries.clone()
    }

    /// Changes the list as it is on disk, durably, one change at a time, whichever process makes it. The change says
    /// whether there was one. Blocks for the disk.
    pub(crate) fn change<E: From<ReadListError> + From<WriteError>>(
        &self,
        change: impl FnOnce(&mut Vec<T>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let path = self.name.path(&self.dir);
        let unreadable = |cause| ReadListError { path: path.clone(), cause };
        let folder = File::open(&self.dir).map_err(unreadable)?;
        flock(&folder, FlockOperation::LockExclusive).map_err(|error| unreadable(error.into()))?;
        let mut entries = read(&self.dir, self.name).map_err(unreadable)?.entries;
        if change(&mut entries)? {
            durable::replace(&path, &text(&entries), durable::PUBLIC)?;
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

fn read<T: DeserializeOwned>(dir: &Path, name: ListName) -> io::Result<Known<T>> {
    let path = name.path(dir);
    // Looked at before it is read: a change in between is then found the next time.
    let from = match Version::of(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.may_be_missing && dir.is_dir() => {
            return Ok(Known { entries: Vec::new(), from: None });
        }
        found => found?,
    };
    let entries: Vec<T> = serde_json::from_slice(&fs::read(&path)?)?;
    if entries.len() > name.most {
        return Err(io::Error::other(format!("it has more than {} entries", name.most)));
    }
    Ok(Known { entries, from: Some(from) })
}

fn text<T: Serialize>(entries: &[T]) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(entries).expect("entries can be written as JSON");
    text.push(b'\n');
    text
}
