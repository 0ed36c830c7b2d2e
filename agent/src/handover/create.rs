//! Making a clone: all or nothing, also when the machine stops half-way.
//!
//! The order is the protocol:
//! 1. a record in state `making`, with the temporary name, is made durable;
//! 2. the file is made under the temporary name, filled by a driver, and synced;
//! 3. the record in state `ready` is made durable;
//! 4. the file is renamed to its own name, which must be free, and the folder synced.
//!
//! So the temporary file tells where a crash happened. In state `making` it is unfinished and goes away together with
//! the record. In state `ready` it is whole and only wants its name. In both, a file that has the clone's own name while
//! the temporary one exists is somebody else's and is not touched.

use std::fs::File;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use drover_protocol::id::ImageId;
use drover_protocol::release::Name;

use super::driver::{Choice, Driver, DriverName, Job, Made, MakeError, NotTaken, Profile, Site, Unusable};
use super::master::{Master, MasterError, MasterFile};
use super::record::{self, CloneRecord, CloneState, ClonesLock, RECORD_FORMAT, RecordError, RecordedMaster};
use super::recover;
use super::target::{Target, TargetError, make_empty, place, sync_file};
use super::{Handover, remove};

/// Length of a disk's sector in bytes.
const SECTOR_LEN: u64 = 512;

/// A clone to be made.
#[derive(Clone, Debug)]
pub struct CloneSpec {
    /// What it is to be called; must be free.
    pub name: Name,
    /// Where its file is to be: an absolute path that does not exist, in a folder that does.
    pub out: PathBuf,
    /// What is to make it.
    pub driver: Choice,
    /// How it is to be laid out; only qcow2 knows any.
    pub profile: Option<Profile>,
    /// Length of its disk in bytes, if longer than the master: a multiple of 512.
    pub disk_len: Option<u64>,
}

/// A clone that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its record.
    pub record: CloneRecord,
    /// Drivers that come before the one taken, and why they were not. Empty if a driver was named.
    pub not_taken: Vec<NotTaken>,
    /// What its maker should know, for people.
    pub warnings: Vec<String>,
}

/// Why a clone was not made. Nothing is left behind, unless [`CreateError::LeftBehind`] says so.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is in use.
    #[error("there is a clone {name} already, at {}; choose another name or `drover clone rm {name}` first", path.display())]
    NameTaken {
        /// The name.
        name: Name,
        /// The file of the clone that has it.
        path: PathBuf,
    },
    /// The disk would be cut.
    #[error("a disk of {disk_len} bytes can't hold the master's {content_len}: a clone can only be made larger")]
    TooSmall {
        /// What was asked for, in bytes.
        disk_len: u64,
        /// Length of the master, in bytes.
        content_len: u64,
    },
    /// The disk would end within a sector.
    #[error("{disk_len} bytes are no whole number of 512-byte sectors; use {}", next_sector(*disk_len))]
    NotSectors {
        /// What was asked for, in bytes.
        disk_len: u64,
    },
    /// The target is no good.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The master is no good.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The driver that was named does not work here.
    #[error("driver {driver} can't be used here: {reason}")]
    Unusable {
        /// The driver.
        driver: DriverName,
        /// Why not.
        reason: Unusable,
    },
    /// No driver works here.
    #[error("no driver can make this clone:{}", listed(.0))]
    NoDriver(Vec<NotTaken>),
    /// The driver failed.
    #[error("driver {driver} could not make {}: {source}", path.display())]
    Make {
        /// The driver.
        driver: DriverName,
        /// The clone's file.
        path: PathBuf,
        /// Why.
        source: MakeError,
    },
    /// The records can't be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It failed, and so did cleaning up. The next start of the daemon tries again.
    #[error("{failure}; cleaning up failed, too: {}", leftover)]
    LeftBehind {
        /// Why the clone was not made.
        failure: Box<CreateError>,
        /// What could not be removed, and why.
        leftover: String,
    },
}

impl Handover {
    /// Makes a clone. Blocks: for moments with most drivers, for as long as reading and writing takes with `copy`.
    pub fn create(&self, master: &Master, spec: &CloneSpec) -> Result<Created, CreateError> {
        let target = Target::check(&spec.out)?;
        let source = MasterFile::open(master)?;
        let (disk_len, warnings) = disk_len(master, spec)?;
        let profile = spec.profile;
        let job = Job { master, source: &source, folder: &target.folder, disk_len, profile };
        let (driver, not_taken) = self.choose(&job, spec.driver)?;
        let (record, being_made) = self.begin(&job, spec, &target, driver)?;
        match self.make(&job, driver, &record, &being_made) {
            Ok(record) => Ok(Created { record, not_taken, warnings }),
            Err(failure) => Err(self.clean_up(&record, being_made, failure)),
        }
    }

    fn choose(&self, job: &Job<'_>, choice: Choice) -> Result<(&dyn Driver, Vec<NotTaken>), CreateError> {
        if let Choice::Named(driver) = choice {
            let driver = self.driver(driver);
            return match driver.probe(job) {
                Ok(()) => Ok((driver, Vec::new())),
                Err(reason) => Err(CreateError::Unusable { driver: driver.name(), reason }),
            };
        }
        let mut not_taken = Vec::new();
        for driver in self.drivers() {
            match driver.probe(job) {
                Ok(()) => return Ok((driver, not_taken)),
                Err(reason) => not_taken.push(NotTaken { driver: driver.name(), reason: reason.to_string() }),
            }
        }
        Err(CreateError::NoDriver(not_taken))
    }

    /// Step 1. The file that is returned marks the clone as being made for as long as it is open.
    fn begin(
        &self,
        job: &Job<'_>,
        spec: &CloneSpec,
        target: &Target,
        driver: &dyn Driver,
    ) -> Result<(CloneRecord, File), CreateError> {
        let lock = ClonesLock::acquire(self.state())?;
        if let Some(other) = record::read(self.state(), &spec.name)? {
            recover::settle(&lock, &other)?;
        }
        if let Some(other) = record::read(self.state(), &spec.name)? {
            return Err(CreateError::NameTaken { name: other.name, path: other.path });
        }
        // Masters are removed under the same lock: from here on the record protects this one.
        job.source.check_unchanged(job.master)?;
        let record = CloneRecord {
            format: RECORD_FORMAT,
            name: spec.name.clone(),
            state: CloneState::Making,
            image: job.master.image,
            release: job.master.release.clone(),
            driver: driver.name(),
            profile: job.profile,
            path: target.path.clone(),
            temporary: target.temporary(&spec.name, random()),
            disk_len: job.disk_len,
            needs_master: driver.needs_master(),
            master: recorded(job),
            created_unix_s: unix_s(),
            tools: [("drover".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into(),
        };
        let being_made = lock.put(&record)?;
        Ok((record, being_made))
    }

    /// Steps 2 to 4.
    fn make(
        &self,
        job: &Job<'_>,
        driver: &dyn Driver,
        begun: &CloneRecord,
        being_made: &File,
    ) -> Result<CloneRecord, CreateError> {
        make_empty(&begun.temporary)?;
        let made = driver
            .create(job, &Site { file: &begun.temporary, being_made })
            .map_err(|source| CreateError::Make { driver: driver.name(), path: begun.path.clone(), source })?;
        sync_file(&begun.temporary)?;
        job.source.check_unchanged(job.master)?;
        let record = finished(begun, made);
        let lock = ClonesLock::acquire(self.state())?;
        lock.put(&record)?;
        place(&record.temporary, &record.path)?;
        Ok(record)
    }

    fn clean_up(&self, record: &CloneRecord, being_made: File, failure: CreateError) -> CreateError {
        let cleaned = ClonesLock::acquire(self.state()).map_err(|e| e.to_string()).and_then(|lock| {
            drop(being_made);
            remove::discard(&lock, record).map_err(|e| e.to_string())
        });
        match cleaned {
            Ok(()) => failure,
            Err(leftover) => CreateError::LeftBehind { failure: Box::new(failure), leftover },
        }
    }
}

/// How long the disk is to be, and what to say about it.
fn disk_len(master: &Master, spec: &CloneSpec) -> Result<(u64, Vec<String>), CreateError> {
    let content_len = master.content_len;
    match spec.disk_len {
        Some(disk_len) if disk_len < content_len => Err(CreateError::TooSmall { disk_len, content_len }),
        Some(disk_len) if !disk_len.is_multiple_of(SECTOR_LEN) => Err(CreateError::NotSectors { disk_len }),
        Some(disk_len) => Ok((disk_len, Vec::new())),
        None if content_len.is_multiple_of(SECTOR_LEN) => Ok((content_len, Vec::new())),
        // A guest's disk has whole sectors. qemu would add the missing zeros, a loop device would cut the last bytes off.
        None => {
            let disk_len = next_sector(content_len);
            let warning = format!(
                "the master's {content_len} bytes are no whole number of 512-byte sectors: the clone's disk has {} zero \
                 bytes after them",
                disk_len - content_len
            );
            Ok((disk_len, vec![warning]))
        }
    }
}

/// The end of the sector that a disk of this length ends within.
fn next_sector(len: u64) -> u64 {
    (len / SECTOR_LEN + 1).saturating_mul(SECTOR_LEN)
}

fn recorded(job: &Job<'_>) -> RecordedMaster {
    RecordedMaster {
        path: job.master.path.clone(),
        content_hash: job.master.content_hash,
        in_place: job.master.in_place,
        file: job.source.identity,
    }
}

fn finished(begun: &CloneRecord, made: Made) -> CloneRecord {
    let mut record = begun.clone();
    record.state = CloneState::Ready;
    record.profile = made.profile;
    record.tools.extend(made.tools);
    record
}

fn listed(not_taken: &[NotTaken]) -> String {
    not_taken.iter().map(|NotTaken { driver, reason }| format!("\n  {driver}: {reason}")).collect()
}

/// Keeps apart two makers of one clone name in one folder; nothing rests on it being unpredictable.
fn random() -> u32 {
    getrandom::u32().unwrap_or(std::process::id())
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl CreateError {
    /// The image whose master is no good, if that is why.
    pub fn bad_master(&self) -> Option<ImageId> {
        match self {
            CreateError::Master(MasterError::Missing { image, .. } | MasterError::Changed { image, .. }) => {
                Some(*image)
            }
            _ => None,
        }
    }
}
