//! Removing a clone: its device, its file or volume, then its record.
//!
//! In this order, so that a crash in between never leaves a file that nobody knows of. The record says first that the clone
//! is to go, and recovery brings to its end what a crash interrupted. A disk that a virtual machine has open is not removed.

use std::io;
use std::path::{Path, PathBuf};

use drover_protocol::release::Name;

use super::Handover;
use super::disk::{Lost, is_own, lost};
use super::driver::{Activity, Driver, MakeError, unreachable};
use super::open_files::OpenFiles;
use super::record::{self, CloneRecord, CloneState, ClonesLock, RecordError};
use super::step::{self, Step};
use super::target::TargetError;

/// A clone that was removed.
#[derive(Clone, Debug)]
pub struct Removed {
    /// Its record, as it was.
    pub record: CloneRecord,
    /// Whether its file was there; somebody may have removed that before.
    pub file_existed: bool,
    /// What it rested on and stays, and why: something that is not ours rests on it, too.
    pub note: Option<String>,
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
    /// It is being moved to another master.
    #[error("the clone {0} is being moved to another master right now; wait for that to end or stop it first")]
    BeingMoved(Name),
    /// Its disk is not where it was, though its place can be reached.
    #[error(
        "there is nothing at {}: the disk of the clone {name} was removed or moved by hand. If it was moved, bring it back \
         first: what it rests on is not kept for it any longer once it is forgotten. If it is gone for good, `drover clone rm \
         --forget {name}` removes the record", path.display()
    )]
    Gone {
        /// The clone.
        name: Name,
        /// Where its disk was.
        path: PathBuf,
    },
    /// Its file system is not mounted, or its volume group is not there.
    #[error("{where_it_is} If it is lost, `drover clone rm --forget {name}` removes its record alone")]
    Unreachable {
        /// The clone.
        name: Name,
        /// Where it is, for people.
        where_it_is: String,
    },
    /// It can be removed and is not to be forgotten.
    #[error("the place of the clone {name} can be reached: without --forget it is removed with what is at {}", path.display())]
    Reachable {
        /// The clone.
        name: Name,
        /// Its file.
        path: PathBuf,
    },
    /// Another file has its name.
    #[error(
        "what is at {} is not the disk that was made for the clone {name}, and is not removed with it; if it is, restored or \
         written anew, `drover clone adopt {name}` takes note of that first; if not, `drover clone rm --forget {name}` removes \
         the record alone", path.display()
    )]
    Replaced {
        /// The clone.
        name: Name,
        /// Its path.
        path: PathBuf,
    },
    /// A machine uses it.
    #[error("the clone {name} is in use: a program has {} open; stop the virtual machine first", path.display())]
    InUse {
        /// The clone.
        name: Name,
        /// Its file.
        path: PathBuf,
    },
    /// It was made together with one that can't get its name, and has been written to since.
    #[error(
        "{} is in the way of a clone that was made together with {name}, and undoing both would lose what was written to \
         {name}; move it away and run `drover clone activate --all`", in_the_way.display()
    )]
    Written {
        /// The clone.
        name: Name,
        /// What has the other's name.
        in_the_way: PathBuf,
    },
    /// Its file could not be removed.
    #[error("can't remove {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its name could not be taken back.
    #[error("can't take back the name of the clone {name}: {source}")]
    Name {
        /// The clone.
        name: Name,
        /// Why not.
        source: TargetError,
    },
    /// Its device could not be taken away.
    #[error("can't take away the device of the clone {name}: {source}")]
    Device {
        /// The clone.
        name: Name,
        /// Why not.
        source: MakeError,
    },
    /// Its record could not be read or removed.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Handover {
    /// Removes a clone and its record. A disk that is gone is no error only where a removal had begun: somebody may have moved
    /// it, and what it rests on would no longer be kept for it.
    pub fn remove(&self, name: &Name) -> Result<Removed, RemoveError> {
        self.remove_one(name, &OpenFiles::default())
    }

    /// [`Handover::remove`], one after the other as it is asked for; what other programs have open is looked for once.
    pub fn remove_all<'a>(
        &'a self,
        names: &'a [Name],
    ) -> impl Iterator<Item = (&'a Name, Result<Removed, RemoveError>)> + 'a {
        let opened = OpenFiles::default();
        names.iter().map(move |name| (name, self.remove_one(name, &opened)))
    }

    fn remove_one(&self, name: &Name, opened: &OpenFiles) -> Result<Removed, RemoveError> {
        let (lock, record) = self.to_remove(name)?;
        let driver = self.driver(record.driver);
        if driver.may_look() && !driver.is_reachable(&record) {
            return Err(RemoveError::Unreachable { name: name.clone(), where_it_is: unreachable(&record) });
        }
        let at_temporary = driver.exists(&record.temporary).map_err(RemoveError::file(&record.temporary))?;
        let (file_existed, note) = if record.state == CloneState::Making || at_temporary {
            (at_temporary, self.discard(&lock, &record)?)
        } else if is_gone(driver, &record)? {
            return Err(RemoveError::Gone { name: name.clone(), path: record.path });
        } else if record.state == CloneState::Ready && is_replaced(driver, &record)? {
            return Err(RemoveError::Replaced { name: name.clone(), path: record.path });
        } else if driver.in_use(&record, opened) {
            return Err(RemoveError::InUse { name: name.clone(), path: record.path });
        } else {
            self.remove_placed(&lock, &record)?
        };
        Ok(Removed { record, file_existed, note })
    }

    /// Removes the record alone of a clone whose place can't be reached, or has something else or nothing in it, or whose disk
    /// somebody made one of its own.
    pub fn forget(&self, name: &Name) -> Result<CloneRecord, RemoveError> {
        let (lock, record) = self.to_remove(name)?;
        let driver = self.driver(record.driver);
        if driver.is_reachable(&record) {
            let is_let_go = is_gone(driver, &record)? || is_replaced(driver, &record)?;
            if is_let_go || matches!(lost(driver, &record), Some(Lost::OtherBase(_))) {
                self.remove_base(driver, &record)?;
                lock.delete(name)?;
                return Ok(record);
            }
            return Err(RemoveError::Reachable { name: name.clone(), path: record.path });
        }
        if matches!(driver.activity(&record), Ok(Activity::Active)) {
            return Err(RemoveError::InUse { name: name.clone(), path: record.path });
        }
        lock.delete(name)?;
        Ok(record)
    }

    /// The record of a clone that nobody is making or moving right now, and the lock under which it stays as it is.
    fn to_remove(&self, name: &Name) -> Result<(ClonesLock, CloneRecord), RemoveError> {
        let lock = ClonesLock::acquire(self.state())?;
        let Some(record) = record::read_own(self.state(), name)? else {
            return Err(RemoveError::Unknown(name.clone()));
        };
        let is_moved = record.moving_to.is_some();
        if (is_moved || record.state == CloneState::Making) && lock.is_being_made(name)? {
            let name = name.clone();
            return Err(if is_moved { RemoveError::BeingMoved(name) } else { RemoveError::BeingMade(name) });
        }
        Ok((lock, record))
    }

    /// Removes a clone that has its own name: its device, its file or volume, what it rested on if nothing else does, its
    /// record. Says whether it was there, and what stays for somebody else's sake.
    pub(super) fn remove_placed(
        &self,
        lock: &ClonesLock,
        record: &CloneRecord,
    ) -> Result<(bool, Option<String>), RemoveError> {
        let driver = self.driver(record.driver);
        // On a full disk removing must work all the same; what a crash leaves then is removed by hand.
        let removing = CloneRecord { state: CloneState::Removing, ..record.clone() };
        lock.put(&removing).map(drop).or_else(RecordError::unless_full)?;
        let existed = match take_away(driver, record) {
            Ok(existed) => existed,
            Err(e) => {
                // Nothing of it is lost, only its device may be gone.
                lock.put(record)?;
                return Err(e);
            }
        };
        step::reach(Step::Removed);
        let note = self.remove_base(driver, record)?;
        lock.delete(&record.name)?;
        Ok((existed, note))
    }

    /// Removes what there is of a clone that never got its own name, and its record. Says what stays for somebody else's
    /// sake.
    pub(super) fn discard(&self, lock: &ClonesLock, record: &CloneRecord) -> Result<Option<String>, RemoveError> {
        let driver = self.driver(record.driver);
        driver.discard(record).map_err(RemoveError::file(&record.temporary))?;
        let note = self.remove_base(driver, record)?;
        lock.delete(&record.name)?;
        Ok(note)
    }

    fn remove_base(&self, driver: &dyn Driver, record: &CloneRecord) -> Result<Option<String>, RemoveError> {
        let Some(base) = &record.base else { return Ok(None) };
        let listing = record::list(self.state())?;
        // A record that can't be read might name it.
        let others = listing.records.iter().any(|other| other.name != record.name && other.base.as_ref() == Some(base));
        if others || !listing.unreadable.is_empty() {
            return Ok(None);
        }
        driver.remove_base(base, record).map_err(RemoveError::file(base))
    }
}

/// Whether a finished clone's disk is gone, and nothing is in its place.
fn is_gone(driver: &dyn Driver, record: &CloneRecord) -> Result<bool, RemoveError> {
    let at = |path: &Path| driver.exists(path).map_err(RemoveError::file(path));
    Ok(record.state == CloneState::Ready && !at(&record.temporary)? && !at(&record.path)?)
}

/// Whether a clone's own disk is gone, and another is in its place.
fn is_replaced(driver: &dyn Driver, record: &CloneRecord) -> Result<bool, RemoveError> {
    let at = |path: &Path| driver.exists(path).map_err(RemoveError::file(path));
    Ok(!at(&record.temporary)? && at(&record.path)? && !is_own(driver, record))
}

/// Removes the device and the file or volume of a clone, and says whether the latter was there. Another in its place stays.
fn take_away(driver: &dyn Driver, record: &CloneRecord) -> Result<bool, RemoveError> {
    if !is_own(driver, record) {
        return Ok(false);
    }
    driver.release(record).map_err(|source| RemoveError::Device { name: record.name.clone(), source })?;
    step::reach(Step::Deactivated);
    driver.remove(&record.path).map_err(RemoveError::file(&record.path))
}

impl RemoveError {
    pub(super) fn file(path: &Path) -> impl Fn(io::Error) -> RemoveError {
        move |source| RemoveError::File { path: path.to_owned(), source }
    }

    pub(super) fn name(record: &CloneRecord) -> impl Fn(TargetError) -> RemoveError {
        move |source| RemoveError::Name { name: record.name.clone(), source }
    }
}
