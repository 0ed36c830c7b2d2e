//! Making clones: all or nothing, also when the machine stops half-way.
//!
//! The order is the protocol:
//! 1. a record in state `making`, with the temporary name, is made durable;
//! 2. a driver makes the file or volume under the temporary name, durably;
//! 3. the record in state `ready` is made durable;
//! 4. the file or volume is renamed to its own name, which must be free, durably;
//! 5. its device is made, if it needs one.
//!
//! So the temporary name tells where a crash happened. In state `making` what has it is unfinished and goes away together
//! with the record. In state `ready` it is whole and only wants its name. In both, what has the clone's own name while
//! the temporary one exists is somebody else's and is not touched. A device is gone after a crash of the machine anyway;
//! `activate` makes it again.
//!
//! Clones that are made together go through each step together, and between 2 and 3 one file says, durably, that all are
//! whole. Before it exists, none is; from then on, recovery completes all, or takes the steps of all back: see `batch`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use drover_protocol::id::ImageId;
use drover_protocol::release::Name;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Handover;
use super::choice::{Choice, DriverName, Hypervisor, Profile};
use super::driver::{Driver, Job, MakeError, NotTaken, Site, Unusable};
use super::master::{Master, MasterError, MasterFile};
use super::place::Place;
use super::record::{self, BatchId, CloneRecord, CloneState, ClonesLock, RECORD_FORMAT, RecordError, RecordedMaster};
use super::remove::RemoveError;
use super::step::{self, Step};
use super::target::{Target, TargetError};

/// What a process has open besides the records of the clones that it makes, with room to spare.
const OTHER_FILES: u64 = 128;
/// Length of a disk's sector in bytes.
pub(super) const SECTOR_LEN: u64 = 512;

/// A clone to be made.
#[derive(Clone, Debug)]
pub struct CloneSpec {
    /// What it is to be called; must be free.
    pub name: Name,
    /// Where it is to be: an absolute path that does not exist, in a folder that does; or a logical volume,
    /// `/dev/GROUP/VOLUME`.
    pub out: PathBuf,
    /// What is to make it.
    pub driver: Choice,
    /// What is to run it.
    pub hypervisor: Hypervisor,
    /// How it is to be laid out; only qcow2 knows any.
    pub profile: Option<Profile>,
    /// Length of its disk in bytes, if longer than the master: a multiple of 512.
    pub disk_len: Option<u64>,
    /// How much of it can be written before a snapshot of fixed size (`dm`, `lvm-thick`) is full, in bytes. By default
    /// all of it.
    pub room_len: Option<u64>,
    /// Which thin pool of the volume group it goes to; by default the only one.
    pub pool: Option<String>,
}

/// A clone that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its record.
    pub record: CloneRecord,
    /// Drivers that come before the one taken, and why they were not. Empty if a driver was named.
    pub not_taken: Vec<NotTaken>,
    /// Drivers that come after the one taken, and so were not tried.
    pub not_tried: Vec<DriverName>,
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
    /// The path is another clone's, whose file was moved or removed by hand.
    #[error(
        "{} is the disk of the clone {name}, there or not; choose another path or `drover clone rm {name}` first",
        path.display()
    )]
    PathTaken {
        /// The clone that has it.
        name: Name,
        /// The path.
        path: PathBuf,
    },
    /// Two clones of one call have the same name or path.
    #[error("{name} at {} was asked for twice: each clone needs a name and a path of its own, with {{}} in both", path.display())]
    Twice {
        /// The name.
        name: Name,
        /// The path.
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

impl CreateError {
    /// Whether the master was read and does not have its content.
    pub fn found_damage(&self) -> bool {
        match self {
            CreateError::Make { source: MakeError::DamagedMaster(_), .. } => true,
            CreateError::LeftBehind { failure, .. } => failure.found_damage(),
            _ => false,
        }
    }
}

impl CloneSpec {
    /// A clone by whatever driver works, as long as its master.
    pub fn new(name: Name, out: PathBuf) -> CloneSpec {
        let (driver, hypervisor) = (Choice::Auto, Hypervisor::Any);
        CloneSpec { name, out, driver, hypervisor, profile: None, disk_len: None, room_len: None, pool: None }
    }
}

impl Handover {
    /// Makes a clone. Blocks: for moments with most drivers, for as long as reading and writing takes with `copy`.
    pub fn create(&self, master: &Master, spec: &CloneSpec) -> Result<Created, CreateError> {
        self.create_all(master, std::slice::from_ref(spec)).map(|mut created| created.remove(0))
    }

    /// Makes clones of one master, all of them or none, also when the machine stops half-way. All are made by the driver
    /// that the first one's choice comes to.
    pub fn create_all(&self, master: &Master, specs: &[CloneSpec]) -> Result<Vec<Created>, CreateError> {
        let Some(first) = specs.first() else { return Ok(Vec::new()) };
        check_distinct(specs)?;
        let source = MasterFile::open(master)?;
        let plans = specs.iter().map(|spec| Plan::new(self.state(), master, spec)).collect::<Result<Vec<_>, _>>()?;
        let count = specs.len() as u64;
        let jobs: Vec<Job<'_>> = plans.iter().map(|plan| plan.job(master, &source, count)).collect();
        let (driver, not_taken) = self.choose(&jobs[0], first)?;
        let order = first.driver.drivers(first.hypervisor);
        let not_tried: Vec<DriverName> = order.into_iter().skip_while(|name| *name != driver.name()).skip(1).collect();
        for pair in jobs.windows(2).filter(|pair| !pair[0].is_like(&pair[1])) {
            driver.probe(&pair[1]).map_err(|reason| CreateError::Unusable { driver: driver.name(), reason })?;
        }
        // Each record is open while its clone is made.
        allow_open_files(specs.len());
        let (records, being_made) = self.begin(driver, &plans, &jobs)?;
        let mut work = Work { handover: self, driver, records, being_made };
        match work.run(&jobs) {
            Ok(notes) => Ok(work.created(plans, notes, &not_taken, &not_tried)),
            Err(failure) => Err(work.undo(failure)),
        }
    }

    fn choose(&self, job: &Job<'_>, spec: &CloneSpec) -> Result<(&dyn Driver, Vec<NotTaken>), CreateError> {
        let named = matches!(spec.driver, Choice::Named(_));
        let mut not_taken = Vec::new();
        for name in spec.driver.drivers(spec.hypervisor) {
            let driver = self.driver(name);
            // Who names a driver, and no hypervisor, knows what for.
            let unfit = name.unfit_for(spec.hypervisor).filter(|_| !named || spec.hypervisor != Hypervisor::Any);
            match unfit.map_or_else(|| driver.probe(job), Err) {
                Ok(()) => return Ok((driver, not_taken)),
                Err(reason) if named => return Err(CreateError::Unusable { driver: name, reason }),
                Err(reason) => not_taken.push(NotTaken { driver: name, reason: reason.to_string() }),
            }
        }
        Err(CreateError::NoDriver(not_taken))
    }

    /// Step 1. The files that are returned mark the clones as being made for as long as they are open.
    fn begin(
        &self,
        driver: &dyn Driver,
        plans: &[Plan<'_>],
        jobs: &[Job<'_>],
    ) -> Result<(Vec<CloneRecord>, Vec<File>), CreateError> {
        let lock = ClonesLock::acquire(self.state())?;
        let batch = (plans.len() > 1).then(|| BatchId(getrandom::u64().unwrap_or_else(|_| random().into())));
        let mut records = Vec::new();
        let taken: BTreeMap<PathBuf, Name> =
            record::list(self.state())?.records.into_iter().map(|other| (other.path, other.name)).collect();
        for (plan, job) in plans.iter().zip(jobs) {
            let name = &plan.spec.name;
            // Removing that one would remove this one's disk.
            if let Some((path, other)) = taken.get_key_value(&plan.target.path()).filter(|(_, other)| *other != name) {
                return Err(CreateError::PathTaken { name: other.clone(), path: path.clone() });
            }
            match record::read_own(self.state(), name) {
                Ok(Some(other)) => drop(self.settle(&lock, &other)?),
                Ok(None) | Err(RecordError::Foreign { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(other) = record::read(self.state(), name)? {
                return Err(CreateError::NameTaken { name: other.name, path: other.path });
            }
            records.push(plan.record(job, driver, batch));
        }
        // Masters are removed under the same lock: from here on the records protect this one.
        MasterFile::check_unchanged(jobs[0].master)?;
        match lock.put_all(&records) {
            Ok(being_made) => Ok((records, being_made)),
            Err(failure) => {
                records.iter().for_each(|record| drop(lock.delete(&record.name)));
                Err(failure.into())
            }
        }
    }
}

/// One clone to be made, checked as far as it can be without a driver.
struct Plan<'a> {
    spec: &'a CloneSpec,
    target: Target,
    disk_len: u64,
    warnings: Vec<String>,
}

impl<'a> Plan<'a> {
    fn new(state: &Path, master: &Master, spec: &'a CloneSpec) -> Result<Self, CreateError> {
        let target = Target::check_beside(&spec.out, state)?;
        let (disk_len, mut warnings) = disk_len(master, spec)?;
        let is_vhd = |extension: &OsStr| extension.eq_ignore_ascii_case("vhd");
        if spec.hypervisor == Hypervisor::HyperV && !spec.out.extension().is_some_and(is_vhd) {
            warnings.push("Hyper-V opens only files whose names end in .vhd: name the clone so with --out".to_owned());
        }
        Ok(Plan { spec, target, disk_len, warnings })
    }

    fn job<'b>(&'b self, master: &'b Master, source: &'b MasterFile, count: u64) -> Job<'b> {
        let Plan { spec, target, disk_len, .. } = self;
        let (profile, room_len) = (spec.profile, spec.room_len);
        let pool = spec.pool.as_deref();
        Job { master, source, target, disk_len: *disk_len, room_len, pool, profile, count }
    }

    fn record(&self, job: &Job<'_>, driver: &dyn Driver, batch: Option<BatchId>) -> CloneRecord {
        CloneRecord {
            format: RECORD_FORMAT,
            name: self.spec.name.clone(),
            state: CloneState::Making,
            image: job.master.image,
            release: job.master.release.clone(),
            driver: driver.name(),
            profile: job.profile,
            path: self.target.path(),
            temporary: self.target.temporary(&self.spec.name, random()),
            place: self.target.folder().ok().and_then(|folder| Place::of(folder).ok()),
            disk: None,
            made_unix_ns: None,
            disk_len: job.disk_len,
            needs_master: driver.needs_master(),
            base: driver.base(job),
            device: driver.device(self.spec),
            batch,
            moving_to: None,
            master: RecordedMaster::new(job.master, job.source),
            created_unix_s: unix_s(),
            tools: [("drover".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into(),
        }
    }
}

/// Clones under way, from their records to their names.
struct Work<'a> {
    handover: &'a Handover,
    driver: &'a dyn Driver,
    records: Vec<CloneRecord>,
    being_made: Vec<File>,
}

impl Work<'_> {
    /// Steps 2 to 5. Gives what the driver has to say of each clone.
    fn run(&mut self, jobs: &[Job<'_>]) -> Result<Vec<Vec<String>>, CreateError> {
        step::reach(Step::Recorded);
        let mut notes = Vec::new();
        for ((job, record), being_made) in jobs.iter().zip(&mut self.records).zip(&self.being_made) {
            let site = Site { temporary: &record.temporary, base: record.base.as_deref(), being_made };
            let failed = |source| CreateError::Make { driver: record.driver, path: record.path.clone(), source };
            let made = self.driver.create(job, &site).map_err(failed)?;
            record.profile = made.profile;
            record.tools.extend(made.tools);
            notes.push(made.warnings);
            step::reach(Step::Made);
        }
        MasterFile::check_unchanged(jobs[0].master)?;
        self.commit()?;
        let _lock = ClonesLock::acquire(self.handover.state())?;
        for record in &self.records {
            let failed = |source| CreateError::Make { driver: record.driver, path: record.path.clone(), source };
            self.driver.activate(record).map_err(failed)?;
            step::reach(Step::Activated);
        }
        Ok(notes)
    }

    /// Steps 3 and 4.
    fn commit(&mut self) -> Result<(), CreateError> {
        let lock = ClonesLock::acquire(self.handover.state())?;
        let batch = self.records[0].batch;
        if let Some(batch) = batch {
            lock.commit(batch)?;
            step::reach(Step::Committed);
        }
        self.records.iter_mut().for_each(|record| become_ready(self.driver, record));
        lock.put_all(&self.records)?;
        step::reach(Step::Ready);
        for record in &self.records {
            self.driver.place(record)?;
            step::reach(Step::Placed);
        }
        self.driver.sync_names(&self.records)?;
        batch.map_or(Ok(()), |batch| lock.forget(batch))?;
        Ok(())
    }

    fn created(
        self,
        plans: Vec<Plan<'_>>,
        notes: Vec<Vec<String>>,
        not_taken: &[NotTaken],
        not_tried: &[DriverName],
    ) -> Vec<Created> {
        let all = self.records.into_iter().zip(plans).zip(notes);
        all.map(|((record, plan), notes)| {
            let warnings = plan.warnings.into_iter().chain(notes).collect();
            Created { record, not_taken: not_taken.to_vec(), not_tried: not_tried.to_vec(), warnings }
        })
        .collect()
    }

    /// Leaves nothing of what was made.
    fn undo(self, failure: CreateError) -> CreateError {
        let undone = || -> Result<(), RemoveError> {
            let lock = ClonesLock::acquire(self.handover.state())?;
            drop(self.being_made);
            match self.records[0].state {
                CloneState::Ready => self.handover.unmake(&lock, &self.records),
                _ => self.handover.discard_all(&lock, &self.records),
            }
        };
        match undone() {
            Ok(()) => failure,
            Err(e) => CreateError::LeftBehind { failure: Box::new(failure), leftover: e.to_string() },
        }
    }
}

/// What a record says of a clone that is whole and has its temporary name still.
pub(super) fn become_ready(driver: &dyn Driver, record: &mut CloneRecord) {
    record.state = CloneState::Ready;
    if record.disk.is_none() {
        record.disk = driver.disk_id(&record.temporary);
    }
    if record.made_unix_ns.is_none() {
        record.made_unix_ns = driver.modified_unix_ns(&record.temporary);
    }
}

impl Job<'_> {
    /// Whether what a driver says of one holds for the other.
    fn is_like(&self, other: &Job<'_>) -> bool {
        let place = |target: &Target| match target {
            Target::File { folder, .. } => folder.clone(),
            Target::Volume { group, .. } => group.into(),
        };
        let same = self.disk_len == other.disk_len
            && self.room_len == other.room_len
            && self.pool == other.pool
            && self.profile == other.profile;
        same && place(self.target) == place(other.target)
    }
}

/// Each name and each path once.
fn check_distinct(specs: &[CloneSpec]) -> Result<(), CreateError> {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    match specs.iter().find(|spec| !names.insert(&spec.name) || !paths.insert(&spec.out)) {
        None => Ok(()),
        Some(twice) => Err(CreateError::Twice { name: twice.name.clone(), path: twice.out.clone() }),
    }
}

/// Sees to it that so many more files can be open, as far as this process may.
fn allow_open_files(count: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = count as u64 + OTHER_FILES;
    if limit.current.is_some_and(|current| current < wanted) {
        let current = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
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
