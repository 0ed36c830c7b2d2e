//! Removing a clone: its file, then its record.
//!
//! In this order, so that a crash in between leaves a record without a file, which can be removed again, and never a
//! file that nobody knows of. A disk that a virtual machine has open is not removed.

use std::io;
use std::path::{Path, PathBuf};

use drover_protocol::release::Name;

use super::Handover;
use super::master::folder_of;
use super::record::{self, CloneRecord, CloneState, ClonesLock, RecordError};
use super::target::sync_folder;
use super::verify::in_use;

/// A clone that was removed.
#[derive(Clone, Debug)]
pub struct Removed {
    /// Its record, as it was.
    pub record: CloneRecord,
    /// Whether its file was there; somebody may have removed that before.
    pub file_existed: bool,
}

/// Why a clone was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none.
    #[error("there is no clone {0}; `drover clone list` shows those that there are")]
    Unknown(Name),
    /// It is being made.
    #[error("the clone {0} is being made right now; wait for that to end or stop it first")]
    BeingMade(Name),
    /// A machine uses it.
    #[error("the clone {name} is in use: a program has locked {}; stop the virtual machine first", path.display())]
    InUse {
        /// The clone.
        name: Name,
        /// Its file.
        path: PathBuf,
    },
    /// Its file could not be removed.
    #[error("can't remove {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its record could not be read or removed.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Handover {
    /// Removes a clone's file and record. A file that is gone already is no error.
    pub fn remove(&self, name: &Name) -> Result<Removed, RemoveError> {
        let lock = ClonesLock::acquire(self.state())?;
        let Some(record) = record::read(self.state(), name)? else { return Err(RemoveError::Unknown(name.clone())) };
        if record.state == CloneState::Making && lock.is_being_made(name)? {
            return Err(RemoveError::BeingMade(name.clone()));
        }
        if record.state == CloneState::Making || record.temporary.symlink_metadata().is_ok() {
            let file_existed = record.temporary.symlink_metadata().is_ok();
            discard(&lock, &record)?;
            return Ok(Removed { record, file_existed });
        }
        if in_use(&record.path) {
            return Err(RemoveError::InUse { name: name.clone(), path: record.path });
        }
        let removed = self.driver(record.driver).remove(&record.path);
        let file_existed = removed.map_err(|source| RemoveError::File { path: record.path.clone(), source })?;
        settle_folder(&record.path)?;
        lock.delete(name)?;
        Ok(Removed { record, file_existed })
    }
}

/// Removes what there is of a clone that never got its own name: the file under the temporary one, and the record.
pub(super) fn discard(lock: &ClonesLock, record: &CloneRecord) -> Result<(), RemoveError> {
    match std::fs::remove_file(&record.temporary) {
        Ok(()) => settle_folder(&record.temporary)?,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(source) => return Err(RemoveError::File { path: record.temporary.clone(), source }),
    }
    Ok(lock.delete(&record.name)?)
}

fn settle_folder(path: &Path) -> Result<(), RemoveError> {
    let folder = folder_of(path);
    match sync_folder(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RemoveError::File { path: path.to_owned(), source: e }),
        _ => Ok(()),
    }
}
