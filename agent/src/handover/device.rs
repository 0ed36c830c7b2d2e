//! What a clone needs beyond its file: a device, after a reboot; a hash of what it rests on; how full it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use drover_protocol::release::Name;

use super::Handover;
use super::choice::DriverName;
use super::driver::{Activity, MakeError};
use super::master::{Master, MasterError, MasterFile};
use super::open_files::OpenFiles;
use super::record::{self, CloneRecord, CloneState, ClonesLock, RecordError, RecordedMaster};
use super::recover::Outcome;
use super::usage::Usage;

/// A clone whose device was asked for.
#[derive(Debug)]
pub struct Activated {
    /// The clone.
    pub name: Name,
    /// How it was before, or why it could not be made usable.
    pub was: Result<Activity, MakeError>,
}

/// Why a clone's device is as it was.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no such clone.
    #[error("there is no clone {0}; `drover clone list` shows those that there are")]
    Unknown(Name),
    /// It is not finished.
    #[error(
        "the clone {0} is not finished: it is being made, moved or removed, or a crash interrupted that; `drover clone \
         activate --all`, run by the user who made it, sets that right"
    )]
    Unfinished(Name),
    /// A crash left it unfinished, and that can't be set right now.
    #[error("the clone {name} is not finished, and can't be now: {why}")]
    Left {
        /// The clone.
        name: Name,
        /// Why not.
        why: String,
    },
    /// A machine uses it.
    #[error("the clone {0} is in use: stop the virtual machine first")]
    InUse(Name),
    /// The driver failed.
    #[error("the device of the clone {name}: {source}")]
    Device {
        /// The clone.
        name: Name,
        /// Why.
        source: MakeError,
    },
    /// The records can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Why a master's file is not taken note of.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// There is no such clone, or it is not finished.
    #[error(transparent)]
    Clone(#[from] DeviceError),
    /// The master is no good.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The record can't be written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Handover {
    /// Makes a clone usable by guests, and says whether it was. A clone that is a file always is.
    pub fn activate(&self, name: &Name) -> Result<Activity, DeviceError> {
        let (_lock, record) = self.finished(name)?;
        self.activate_record(&record).map_err(|source| DeviceError::Device { name: name.clone(), source })
    }

    /// Makes all finished clones of this user usable by guests, as after a reboot.
    pub fn activate_all(&self) -> Result<Vec<Activated>, DeviceError> {
        let _lock = ClonesLock::acquire(self.state())?;
        let ready =
            record::list_own(self.state())?.records.into_iter().filter(|record| record.state == CloneState::Ready);
        let activate = |record: CloneRecord| Activated { was: self.activate_record(&record), name: record.name };
        Ok(ready.map(activate).collect())
    }

    /// Takes a clone's device away, and says whether it had one.
    pub fn deactivate(&self, name: &Name) -> Result<Activity, DeviceError> {
        let (_lock, record) = self.finished(name)?;
        let driver = self.driver(record.driver);
        let failed = |source| DeviceError::Device { name: name.clone(), source };
        let was = driver.activity(&record).map_err(failed)?;
        if was == Activity::Active {
            if driver.in_use(&record, &OpenFiles::default()) {
                return Err(DeviceError::InUse(name.clone()));
            }
            driver.deactivate(&record).map_err(failed)?;
        }
        Ok(was)
    }

    /// Takes note that the master's content was compared with its image a moment ago and is right, whatever became of its
    /// file: it may have been mended. From now on the file is known as it is.
    pub fn confirm(&self, name: &Name, master: &Master) -> Result<(), ConfirmError> {
        let (lock, record) = self.finished(name)?;
        let source = MasterFile::open(master)?;
        let confirmed = RecordedMaster::new(master, &source);
        if record.image == master.image && record.master != confirmed {
            lock.put(&CloneRecord { master: confirmed, ..record })?;
        }
        Ok(())
    }

    /// How full the clones are whose room is bounded, by name. One question to each driver, not one a clone.
    pub fn usage(&self, records: &[CloneRecord]) -> BTreeMap<String, Usage> {
        let mut usage = BTreeMap::new();
        for name in DriverName::ALL {
            let is_its = |record: &&CloneRecord| record.driver == name && record.state == CloneState::Ready;
            let its: Vec<&CloneRecord> = records.iter().filter(is_its).collect();
            if !its.is_empty() {
                usage.extend(self.driver(name).usage(&its));
            }
        }
        usage
    }

    /// Reads what a clone rests on besides the master, and says whether it begins with the master's content. Takes as long
    /// as reading all of it.
    pub fn hash_base(&self, record: &CloneRecord) -> io::Result<bool> {
        let Some(base) = &record.base else { return Ok(true) };
        let driver = self.driver(record.driver);
        let shown = driver.show_base(base).map_err(io::Error::other)?;
        let is_masters = begins_with_master(base, record);
        if shown {
            driver.hide_base(base).map_err(io::Error::other)?;
        }
        is_masters
    }

    fn activate_record(&self, record: &CloneRecord) -> Result<Activity, MakeError> {
        let driver = self.driver(record.driver);
        let was = driver.activity(record)?;
        if was == Activity::Inactive {
            driver.activate(record)?;
        }
        Ok(was)
    }

    /// A clone that has its name and is not being moved, after what a crash left of it is set right; and the lock under
    /// which it stays as it is.
    pub(super) fn finished(&self, name: &Name) -> Result<(ClonesLock, CloneRecord), DeviceError> {
        let lock = ClonesLock::acquire(self.state())?;
        let read = || record::read_own(self.state(), name)?.ok_or_else(|| DeviceError::Unknown(name.clone()));
        if let Some(Outcome::Left(why)) = self.settle(&lock, &read()?)? {
            return Err(DeviceError::Left { name: name.clone(), why });
        }
        let record = read()?;
        if record.state != CloneState::Ready || record.moving_to.is_some() {
            return Err(DeviceError::Unfinished(name.clone()));
        }
        Ok((lock, record))
    }
}

fn begins_with_master(base: &Path, record: &CloneRecord) -> io::Result<bool> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(base)?.take(record.master.file.len))?;
    let whole = hasher.count() == record.master.file.len;
    Ok(whole && hasher.finalize().as_bytes() == record.master.content_hash.as_bytes())
}
