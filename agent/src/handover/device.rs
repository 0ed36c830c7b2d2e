//! What a clone needs beyond its file: a device, after a reboot; a hash of what it rests on; how full it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use drover_protocol::release::Name;

use super::choice::DriverName;
use super::copy::next_data;
use super::disk::Lost;
use super::driver::{Activity, Driver, MakeError};
use super::master::{Master, MasterError, MasterFile, is_one_file};
use super::open_files::OpenFiles;
use super::record::{self, CloneRecord, CloneState, ClonesLock, RecordError, RecordedMaster};
use super::recover::Outcome;
use super::usage::Usage;
use super::{Handover, LookupError};

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
    /// A crash left it unfinished, or another of its batch that something else has the path of.
    #[error("a crash kept the clone {0} from being finished or removed, and nothing of it is left now; make it anew")]
    Cleaned(Name),
    /// Its disk is not where it should be.
    #[error("the clone {name} can't be used: {lost}; {}", lost.advice(name))]
    Lost {
        /// The clone.
        name: Name,
        /// What is there instead.
        lost: Lost,
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

/// Why what a clone rests on besides the master was not read.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// There is no such clone, or its record is another user's.
    #[error(transparent)]
    Clone(#[from] LookupError),
    /// The system refused.
    #[error("{} can't be read: {source}", path.display())]
    Unreadable {
        /// What it rests on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What a clone rests on besides the master, after all of it was read.
#[derive(Debug)]
pub struct HashedBase {
    /// Whether it has the master's content.
    pub is_right: bool,
    /// Why no note was taken of that, for the makers of other clones, if it could not be.
    pub unnoted: Option<MakeError>,
}

impl Handover {
    /// Makes a clone usable by guests, and says whether it was. A clone that is a file always is.
    pub fn activate(&self, name: &Name) -> Result<Activity, DeviceError> {
        let (_lock, record) = self.finished(name)?;
        self.check_there(&record)?;
        self.activate_record(&record).map_err(|source| DeviceError::Device { name: name.clone(), source })
    }

    /// Makes all finished clones of this user usable by guests, as after a reboot.
    pub fn activate_all(&self) -> Result<Vec<Activated>, DeviceError> {
        let _lock = ClonesLock::acquire(self.state())?;
        let own = self.as_found(record::list_own(self.state())?.records);
        let ready = own.into_iter().filter(|record| record.state == CloneState::Ready);
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
        // The clone's file names it by the path that the record has.
        let confirmed = RecordedMaster { path: record.master.path.clone(), ..RecordedMaster::new(master, &source) };
        // One that lies elsewhere is not what the clone reads.
        let is_its = record.image == master.image && is_one_file(&record.master.path, &master.path);
        if is_its && record.master != confirmed {
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

    /// Reads what a clone rests on besides the master, and says whether it has the master's content. Takes as long as reading
    /// all of it. No clone is made on one that was found wrong, until it was made anew or found right. That is noted with
    /// what the record names, so it must be this user's.
    pub fn hash_base(&self, name: &Name) -> Result<HashedBase, HashError> {
        let record = record::read_own(self.state(), name).map_err(LookupError::from)?;
        let record = record.ok_or_else(|| LookupError::Unknown(name.clone()))?;
        let Some(base) = &record.base else { return Ok(HashedBase { is_right: true, unnoted: None }) };
        let driver = self.driver(record.driver);
        let is_right =
            read_base(driver, base, &record).map_err(|source| HashError::Unreadable { path: base.clone(), source })?;
        Ok(HashedBase { is_right, unnoted: driver.note_base(base, is_right).err() })
    }

    fn activate_record(&self, record: &CloneRecord) -> Result<Activity, MakeError> {
        let driver = self.driver(record.driver);
        let was = driver.activity(record)?;
        if was == Activity::Inactive {
            if let Some(lost) = driver.lost(&[record]).remove(&record.name) {
                return Err(MakeError::Refused(format!("{lost}; {}", lost.advice(&record.name))));
            }
            driver.activate(record)?;
        }
        Ok(was)
    }

    /// A clone that has its name and is not being moved, after what a crash left of it is set right; and the lock under
    /// which it stays as it is.
    pub(super) fn finished(&self, name: &Name) -> Result<(ClonesLock, CloneRecord), DeviceError> {
        let lock = ClonesLock::acquire(self.state())?;
        let read = || record::read_own(self.state(), name)?.ok_or_else(|| DeviceError::Unknown(name.clone()));
        match self.settle(&lock, &read()?)? {
            Some(Outcome::Left(why)) => return Err(DeviceError::Left { name: name.clone(), why }),
            Some(Outcome::Cleaned) => return Err(DeviceError::Cleaned(name.clone())),
            _ => {}
        }
        let record = read()?;
        if record.state != CloneState::Ready || record.moving_to.is_some() {
            return Err(DeviceError::Unfinished(name.clone()));
        }
        Ok((lock, record))
    }
}

/// Makes a base readable if need be, and says whether it is the master, with all that belongs to it.
fn read_base(driver: &dyn Driver, base: &Path, record: &CloneRecord) -> io::Result<bool> {
    let shown = driver.show_base(base).map_err(io::Error::other)?;
    let is_right = is_masters(base, record).and_then(|is| Ok(is && driver.is_base_formed(base, record)?));
    if shown {
        driver.hide_base(base).map_err(io::Error::other)?;
    }
    is_right
}

/// Whether a base is the master with zeros behind it, as far as the clone's disk goes.
fn is_masters(base: &Path, record: &CloneRecord) -> io::Result<bool> {
    let file = File::open(base)?;
    Ok(begins_with(&file, &record.master)? && is_zero(&file, record.master.file.len, record.disk_len)?)
}

/// Whether a file begins with a master's content, after all of that was read.
fn begins_with(file: &File, master: &RecordedMaster) -> io::Result<bool> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(master.file.len))?;
    let is_whole = hasher.count() == master.file.len;
    Ok(is_whole && hasher.finalize().as_bytes() == master.content_hash.as_bytes())
}

/// Whether there is nothing but zeros from one place in a file to another, or to its end.
fn is_zero(mut file: &File, from: u64, to: u64) -> io::Result<bool> {
    let (mut at, mut buffer) = (from, vec![0; 1 << 20]);
    while let Some((start, end)) = next_data(file, at, to).map_err(io::Error::other)? {
        file.seek(SeekFrom::Start(start))?;
        let mut run = file.take(end - start);
        loop {
            match run.read(&mut buffer)? {
                0 => break,
                len if buffer[..len].iter().any(|&byte| byte != 0) => return Ok(false),
                _ => {}
            }
        }
        at = end;
    }
    Ok(true)
}
