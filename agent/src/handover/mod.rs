//! The hand-over: a sealed master becomes a copy-on-write disk that a virtual machine can start from.
//!
//! A [`Handover`] makes clones in one state folder, lists, checks and removes them. What differs between techniques is
//! in one file each (`reflink`, `qcow2`, `vhd`, `lvm`, `dm`, `copy`) behind one trait; the life of a clone is the same for
//! all: `create` is all or nothing, `recover` finishes what a crash interrupted, `device` brings devices back after a
//! reboot, `rebase` moves a clone to another master, [`record`] keeps what is known.
//!
//! What always holds:
//! - A clone's record is durable before its file or volume exists, and goes after it. No clone is unknown.
//! - Nothing that exists is overwritten, and what is under a clone's own name is whole.
//! - What is removed is the file or volume that was made, not what has its path by now.
//! - A master that a record names is not removed: both happen under one lock, [`record::ClonesLock`].
//! - What clones share besides the master is not removed while anybody's clone rests on it, known to us or not.
//! - A clone is bound to its master's content, by image id, not to a path, and made only of the file that was compared last.
//! - What a record says of paths is acted on only by the user who wrote it.
//!
//! It blocks, reads no settings, and talks to no daemon: the command line runs it in its own process, with the rights
//! that its user has on the target folder. Hashing a master again is the store's work.

mod base;
mod batch;
mod choice;
mod copy;
mod create;
mod device;
mod disk;
mod dm;
mod driver;
mod lvm;
mod machine;
mod master;
mod open_files;
mod place;
mod qcow2;
mod rebase;
pub mod record;
mod recover;
mod reflink;
mod remove;
mod step;
mod target;
#[cfg(test)]
mod tests;
mod tool;
mod usage;
mod verify;
pub(crate) mod vhd;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use drover_protocol::release::Name;
use serde::Serialize;

pub use self::base::BadBase;
pub use self::choice::{Choice, DriverName, Hypervisor, ParseChoiceError, Profile};
pub use self::create::{CloneSpec, CreateError, Created};
pub use self::device::{Activated, ConfirmError, DeviceError, HashError, HashedBase};
pub use self::disk::{DiskId, Lost};
pub use self::driver::{Activity, MakeError, NotTaken, Unusable};
pub use self::machine::{MachineError, qemu_arguments, xen_disk, xml_disk};
pub(crate) use self::master::NEVER_NOTED;
pub use self::master::{FileIdentity, Master, MasterError};
pub use self::place::Place;
pub use self::rebase::{RebaseError, Rebased};
pub use self::record::{CloneRecord, CloneState, ClonesLock, Listing, RecordError};
pub use self::recover::{Outcome, Recovered};
pub use self::remove::{RemoveError, Removed};
pub use self::target::TargetError;
pub use self::tool::ToolError;
pub use self::tool::Tools;
pub use self::usage::Usage;
pub use self::verify::{About, Finding, Severity, ToHash, Verification};

use self::driver::{Driver, Job};
use self::master::MasterFile;
use self::record::BatchId;

/// Makes and keeps the clones of one state folder.
pub struct Handover {
    state: PathBuf,
    drivers: Vec<Box<dyn Driver + Send + Sync>>,
}

/// Why a clone can't be shown or checked.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is none.
    #[error("there is no clone {0}; `drover clone list` shows those that there are")]
    Unknown(Name),
    /// It is being made or moved.
    #[error("the clone {0} is being made or moved right now; wait for that to end or stop it first")]
    BeingMade(Name),
    /// What is at its path is no disk of differences to its master.
    #[error(
        "what is at {} does not name the master that {name} rests on as what lies below it, so it is not that clone, or a copy \
         of it from before `drover clone rebase` moved it, which needs the master that it names and is a clone no more; \
         `drover clone rm --forget {name}` leaves it as it is and removes the record alone", path.display()
    )]
    OtherBase {
        /// The clone.
        name: Name,
        /// Its path.
        path: PathBuf,
    },
    /// What is at its path is a link.
    #[error("{} is a link, and a clone is its disk itself; move that to where the link is and adopt {name} then", path.display())]
    Link {
        /// The clone.
        name: Name,
        /// Its path.
        path: PathBuf,
    },
    /// What is at its path is too short to be its disk.
    #[error("{} is shorter than the disk of {name}, so it is not that clone, or not all of it", path.display())]
    Short {
        /// The clone.
        name: Name,
        /// Its path.
        path: PathBuf,
    },
    /// The records can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What a driver is like, and whether it works for one master and folder.
#[derive(Clone, Debug, Serialize)]
pub struct DriverReport {
    /// The driver.
    pub driver: DriverName,
    /// What people should know when they choose, in one sentence.
    pub note: &'static str,
    /// Why it can't be used, or nothing if it can.
    pub unusable: Option<String>,
}

impl Handover {
    /// The clones of a state folder, made with the programs in `PATH`. Touches nothing yet.
    pub fn new(state: &Path) -> Handover {
        Handover::with_tools(state, Tools::default())
    }

    /// The clones of a state folder, made with these programs.
    pub fn with_tools(state: &Path, tools: Tools) -> Handover {
        let driver = |name: DriverName| -> Box<dyn Driver + Send + Sync> {
            match name {
                DriverName::Reflink => Box::new(reflink::Reflink),
                DriverName::Qcow2 => Box::new(qcow2::Qcow2::new(tools.clone())),
                DriverName::Vhd => Box::new(vhd::Vhd::new(state)),
                DriverName::LvmThin => Box::new(lvm::Lvm::new(tools.clone(), lvm::Kind::Thin)),
                DriverName::LvmThick => Box::new(lvm::Lvm::new(tools.clone(), lvm::Kind::Thick)),
                DriverName::Dm => Box::new(dm::Dm::new(tools.clone())),
                DriverName::Copy => Box::new(copy::Copy),
            }
        };
        Handover { state: state.to_owned(), drivers: DriverName::ALL.into_iter().map(driver).collect() }
    }

    /// All clones, by name, with what can't be read beside them.
    pub fn list(&self) -> Result<Listing, RecordError> {
        record::list(&self.state)
    }

    /// One clone's record.
    pub fn get(&self, name: &Name) -> Result<CloneRecord, LookupError> {
        record::read(&self.state, name)?.ok_or_else(|| LookupError::Unknown(name.clone()))
    }

    /// One clone's record, of a clone that a guest can be given: whole, where its record says, and on the master that the
    /// record says, which is as it was as far as is known. Only looks: what a crash left is set right by other commands.
    pub fn get_finished(&self, name: &Name) -> Result<CloneRecord, DeviceError> {
        let record = record::read(&self.state, name)?.ok_or_else(|| DeviceError::Unknown(name.clone()))?;
        if !self.is_finished(&record) {
            return Err(DeviceError::Unfinished(name.clone()));
        }
        self.check_there(&record)?;
        Ok(record)
    }

    /// Records as people are to see them: a clone that a crash kept from getting its name is not finished, whatever its
    /// record says, nor is one that was made together with it. One question to each driver, not one a clone.
    pub fn as_found(&self, mut records: Vec<CloneRecord>) -> Vec<CloneRecord> {
        let (unnamed, unsettled) = (self.unnamed(&records), self.unsettled(&records));
        let is_unfinished = |record: &CloneRecord| {
            let waits_for_others = || record.batch.is_some_and(|batch| unsettled.contains(&batch));
            record.state == CloneState::Ready && (unnamed.contains(&record.name) || waits_for_others())
        };
        for record in records.iter_mut().filter(|record| is_unfinished(record)) {
            record.state = CloneState::Making;
        }
        records
    }

    /// Names of the clones among these that are whole and have not got their names.
    fn unnamed(&self, records: &[CloneRecord]) -> BTreeSet<Name> {
        let of = |driver: &dyn Driver| {
            let is_its = |record: &&CloneRecord| record.driver == driver.name() && record.state == CloneState::Ready;
            let its: Vec<&CloneRecord> = records.iter().filter(is_its).collect();
            if its.is_empty() { Vec::new() } else { driver.unnamed(&its) }
        };
        self.drivers().flat_map(of).map(|record| record.name.clone()).collect()
    }

    /// The batches of these clones that a crash left open while not all of their clones had got their names.
    fn unsettled(&self, records: &[CloneRecord]) -> BTreeSet<BatchId> {
        let batches = records.iter().filter_map(|record| record.batch);
        let open: BTreeSet<BatchId> = batches.filter(|batch| record::is_open(&self.state, *batch)).collect();
        if open.is_empty() {
            return open;
        }
        let mut members = self.list().unwrap_or_default().records;
        members.retain(|member| member.batch.is_some_and(|batch| open.contains(&batch)));
        let unnamed = self.unnamed(&members);
        let has_no_name = |member: &&CloneRecord| member.state == CloneState::Making || unnamed.contains(&member.name);
        members.iter().filter(has_no_name).filter_map(|member| member.batch).collect()
    }

    /// Of these clones, those that no guest should be given, since their disks are not where they should be or what they rest
    /// on is not as it was, and why. One question to each driver, not one a clone, where a question is dear.
    pub fn lost(&self, records: &[CloneRecord]) -> BTreeMap<Name, Lost> {
        let of = |driver: &dyn Driver| {
            let is_its = |record: &&CloneRecord| record.driver == driver.name() && record.state == CloneState::Ready;
            let its: Vec<&CloneRecord> = records.iter().filter(is_its).collect();
            if its.is_empty() { BTreeMap::new() } else { driver.lost(&its) }
        };
        self.drivers().flat_map(of).collect()
    }

    /// Takes a record over, whoever wrote it: from now on this process's user acts on what it says, and nobody else. What is
    /// at its path counts as the clone's disk. The caller has looked at both.
    pub fn adopt(&self, name: &Name) -> Result<CloneRecord, LookupError> {
        let lock = ClonesLock::acquire(&self.state)?;
        let mut record = self.get(name)?;
        // A new record is one that nobody holds: it would seem to be of a clone that a crash left.
        if lock.is_being_made(name)? {
            return Err(LookupError::BeingMade(name.clone()));
        }
        let driver = self.driver(record.driver);
        // Device mapper's and LVM's paths are links.
        if record.state == CloneState::Ready && !record.path.starts_with("/dev") && record.path.is_symlink() {
            return Err(LookupError::Link { name: name.clone(), path: record.path });
        }
        if record.state == CloneState::Ready && driver.names_base(&record) == Some(false) {
            return Err(LookupError::OtherBase { name: name.clone(), path: record.path });
        }
        if record.state == CloneState::Ready && driver.is_long_enough(&record) == Some(false) {
            return Err(LookupError::Short { name: name.clone(), path: record.path });
        }
        if let (CloneState::Ready, Some(now)) = (record.state, driver.disk_id(&record.path)) {
            record.disk = Some(now);
            record.place = record.place.and_then(|_| Place::of(master::folder_of(&record.path)).ok());
        }
        drop(lock.put(&record)?);
        Ok(record)
    }

    /// Looks at a clone and its master. `master` is what the store holds of the record's image today, if anything.
    pub fn verify(&self, name: &Name, master: Option<&Master>) -> Result<Verification, LookupError> {
        let record = self.found(self.get(name)?);
        let driver = self.driver(record.driver);
        let inspection = match (record.state, driver.exists(&record.temporary)) {
            (CloneState::Ready, Ok(false)) if driver.may_look() && !driver.is_reachable(&record) => {
                driver::Inspection { in_use: false, findings: vec![Finding::fault(driver::unreachable(&record))] }
            }
            (CloneState::Ready, Ok(false)) => looked_into(driver, &record),
            (CloneState::Ready, Err(e)) => driver::Inspection {
                in_use: false,
                findings: vec![Finding::doubt(format!("it can't be looked at: {e}"))],
            },
            _ => driver::Inspection {
                in_use: false,
                findings: vec![Finding::fault(
                    "it is not finished: it is being made or removed, or a crash interrupted that, which `drover clone \
                     activate --all`, run by the user who made it, sets right"
                        .to_owned(),
                )],
            },
        };
        Ok(Verification::new(&record, master, inspection))
    }

    /// Which drivers can make a clone at a place, in the order in which they are tried: of a master if one is given, of any
    /// otherwise. `out` is a path as for a clone. Leaves nothing behind.
    pub fn reports(
        &self,
        master: Option<&Master>,
        out: &Path,
        hypervisor: Hypervisor,
    ) -> Result<Vec<DriverReport>, CreateError> {
        let target = target::Target::check_beside(out, &self.state)?;
        let source = master.map(MasterFile::open).transpose()?;
        let probe = |driver: &dyn Driver| match (master, &source) {
            (Some(master), Some(source)) => {
                let disk_len = master.content_len.next_multiple_of(create::SECTOR_LEN);
                let (room_len, pool, profile) = (None, None, None);
                driver.probe(&Job { master, source, target: &target, disk_len, room_len, pool, profile, count: 1 })
            }
            _ => driver.available(&target),
        };
        let report = |name: DriverName| {
            let driver = self.driver(name);
            let unusable = name.unfit_for(hypervisor).map_or_else(|| probe(driver), Err);
            DriverReport {
                driver: name,
                note: driver.note(),
                unusable: unusable.err().map(|reason| reason.to_string()),
            }
        };
        Ok(Choice::Auto.drivers(hypervisor).into_iter().map(report).collect())
    }

    /// Makes sure that a finished clone's disk is where it should be, and what it rests on is not known to be bad.
    fn check_there(&self, record: &CloneRecord) -> Result<(), DeviceError> {
        let lost = self.driver(record.driver).lost(&[record]).remove(&record.name);
        lost.map_or(Ok(()), |lost| Err(DeviceError::Lost { name: record.name.clone(), lost }))
    }

    fn is_finished(&self, record: &CloneRecord) -> bool {
        record.moving_to.is_none() && self.found(record.clone()).state == CloneState::Ready
    }

    /// [`Handover::as_found`] of one.
    fn found(&self, record: CloneRecord) -> CloneRecord {
        self.as_found(vec![record]).remove(0)
    }

    fn state(&self) -> &Path {
        &self.state
    }

    fn drivers(&self) -> impl Iterator<Item = &dyn Driver> {
        self.drivers.iter().map(|driver| &**driver as &dyn Driver)
    }

    fn driver(&self, name: DriverName) -> &dyn Driver {
        self.drivers().find(|driver| driver.name() == name).expect("there is a driver for each name")
    }
}

/// What a driver sees in a clone, and whether that is what was made.
fn looked_into(driver: &dyn Driver, record: &CloneRecord) -> driver::Inspection {
    if let Err(e) = File::open(&record.path)
        && e.kind() == io::ErrorKind::PermissionDenied
    {
        let doubt = Finding::doubt(format!("{} may not be looked into: {e}", record.path.display()));
        return driver::Inspection { in_use: false, findings: vec![doubt] };
    }
    let mut inspection = driver.verify(record);
    if let Some(lost @ Lost::Replaced(_)) = disk::lost(driver, record) {
        let name = &record.name;
        let text =
            format!("{lost}; if it is the clone, restored or written anew, `drover clone adopt {name}` takes note");
        inspection.findings.push(Finding::doubt(text));
    }
    inspection
}
