//! What every technique of making a clone has in common, and how one is chosen.
//!
//! A driver tells whether it can work here by trying, never by the name of a file system or a version in a table. It
//! makes a clone under a temporary name and gives it its own name when told to; what is recorded when, and what happens
//! after a crash, is the same for all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use drover_protocol::release::Name;
use serde::Serialize;

use super::base::{Bases, is_absence, lost_master};
use super::choice::{DriverName, Profile};
use super::disk::{self, DiskId, Lost};
use super::master::{FileIdentity, Master, MasterFile, folder_of};
use super::open_files::OpenFiles;
use super::place::Place;
use super::record::{CloneRecord, CloneState};
use super::target::{self, Target, TargetError};
use super::usage::Usage;
use super::verify::{self, Finding};

/// Why a driver can't make this clone here, and where there is a way, what to do about it. Text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// A driver that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotTaken {
    /// The driver.
    pub driver: DriverName,
    /// Why not, for people.
    pub reason: String,
}

/// Why a driver failed at filling the clone's file.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The disk is full.
    #[error("there is no space left; free some or choose another folder")]
    NoSpace,
    /// Something is in the way, for people.
    #[error("{0}")]
    Refused(String),
    /// The master was read, and does not have its content.
    #[error("{0}")]
    DamagedMaster(String),
    /// A file could not be made or synced.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A tool could not be run or failed.
    #[error(transparent)]
    Tool(#[from] super::tool::ToolError),
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// One clone to be made.
pub(super) struct Job<'a> {
    pub(super) master: &'a Master,
    pub(super) source: &'a MasterFile,
    /// Where it goes. Of a file, the folder exists and can be written.
    pub(super) target: &'a Target,
    /// Length of the disk that the guest sees, in bytes: whole sectors, at least the master's length.
    pub(super) disk_len: u64,
    /// How much a guest can write before a snapshot of fixed size is full, in bytes, if that was given.
    pub(super) room_len: Option<u64>,
    /// Which thin pool of the volume group, if that was given.
    pub(super) pool: Option<&'a str>,
    pub(super) profile: Option<Profile>,
    /// How many such clones are to be made together.
    pub(super) count: u64,
}

/// Where a driver makes a clone.
pub(super) struct Site<'a> {
    /// What it is called while it is made; nothing of that name exists.
    pub(super) temporary: &'a Path,
    /// What it rests on besides the master, which is to be made if it is not there: see [`Driver::base`].
    pub(super) base: Option<&'a Path>,
    /// Open for as long as somebody is at work on the clone. A program that works on the file gets a copy of it, so that
    /// the clone counts as being made until that ends, also if we are killed before.
    pub(super) being_made: &'a File,
}

/// What a driver did, for the record.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) profile: Option<Profile>,
    pub(super) tools: BTreeMap<String, String>,
    /// What the clone's maker should know, for people.
    pub(super) warnings: Vec<String>,
}

/// What a driver sees in a clone.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    pub(super) in_use: bool,
    pub(super) findings: Vec<Finding>,
}

/// Whether a guest can use a clone now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// It is a file: there is nothing to activate.
    File,
    /// Its device is there.
    Active,
    /// Its device has to be made first, as after a reboot.
    Inactive,
}

/// A technique of making clones.
pub(super) trait Driver {
    /// Its name.
    fn name(&self) -> DriverName;

    /// What people should know when they choose, in one sentence.
    fn note(&self) -> &'static str;

    /// Whether its clones are lost without the master.
    fn needs_master(&self) -> bool;

    /// Whether it works at such a place at all, whatever the master. Leaves nothing behind.
    fn available(&self, target: &Target) -> Result<(), Unusable>;

    /// Whether it can do this job here. Leaves nothing behind.
    fn probe(&self, job: &Job<'_>) -> Result<(), Unusable>;

    /// What its clones at this target rest on besides the master and share: a file or volume whose name follows from the
    /// image, and from how many of that name are left to other clones. It is made with the first of them and removed with the
    /// last, whoever has that.
    fn base(&self, _job: &Job<'_>) -> Option<PathBuf> {
        None
    }

    /// Where a guest finds the disk, if that is not the clone's own path.
    fn device(&self, _spec: &super::CloneSpec) -> Option<PathBuf> {
        None
    }

    /// Makes the clone under its temporary name, and its base if need be, durably. Need not clean up if it fails.
    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError>;

    /// Looks at an existing clone; the master is looked at elsewhere. Changes nothing.
    fn verify(&self, record: &CloneRecord) -> Inspection;

    /// Whether something of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool> {
        match path.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(e) if is_absence(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// What the file or volume of this name is known by, if that can be told.
    fn disk_id(&self, path: &Path) -> Option<DiskId> {
        DiskId::of_file(path)
    }

    /// When the file of this name was last written to, in nanoseconds since 1970, if that tells of all that guests write.
    fn modified_unix_ns(&self, path: &Path) -> Option<i64> {
        path.symlink_metadata().ok().map(|facts| FileIdentity::of(&facts).modified_unix_ns)
    }

    /// Whether the file at a clone's path says of itself that it rests on what the clone rests on; nothing where files do not
    /// say such things.
    fn names_base(&self, _record: &CloneRecord) -> Option<bool> {
        None
    }

    /// Whether the file at a clone's path is as long as it must be at least: as the disk, where its bytes are the disk's, or as
    /// the tables that its header names.
    fn is_long_enough(&self, _record: &CloneRecord) -> Option<bool> {
        None
    }

    /// Of finished clones that have their names, those that are lost by their own disks or by what they rest on, and how.
    fn lost(&self, records: &[&CloneRecord]) -> BTreeMap<Name, Lost> {
        let mut bases = Bases::default();
        let mut look = |record| disk::lost(self, record).or_else(|| bases.lost(self, record));
        records.iter().filter_map(|record| Some((record.name.clone(), look(record)?))).collect()
    }

    /// How a clone is lost by what it rests on, if it is, as far as that shows without reading it.
    fn lost_base(&self, record: &CloneRecord) -> Option<Lost> {
        record.needs_master.then(|| lost_master(record)).flatten()
    }

    /// Which of these clones, whose records say that they are finished, have their temporary names still.
    fn unnamed<'a>(&self, records: &[&'a CloneRecord]) -> Vec<&'a CloneRecord> {
        let is_unnamed = |record: &&CloneRecord| self.exists(&record.temporary).unwrap_or(false);
        records.iter().copied().filter(is_unnamed).collect()
    }

    /// Gives a finished clone its name, unless something has that name.
    fn place(&self, record: &CloneRecord) -> Result<(), TargetError> {
        target::take_name(&record.temporary, &record.path)
    }

    /// Makes the names of clones durable that were just placed: one sync for each folder, however many lie in it.
    fn sync_names(&self, records: &[CloneRecord]) -> Result<(), TargetError> {
        let folders: BTreeSet<&Path> = records.iter().map(|record| folder_of(&record.path)).collect();
        folders.into_iter().try_for_each(|folder| {
            let failed = |source| TargetError::Io { doing: "sync", path: folder.to_owned(), source };
            target::sync_folder(folder).map_err(failed)
        })
    }

    /// Removes what is under one of the clone's names, durably, or says `false` if there is nothing.
    fn remove(&self, path: &Path) -> io::Result<bool> {
        target::remove_file(path)
    }

    /// Removes what a maker that was killed left of a clone that has no name of its own, durably.
    fn discard(&self, record: &CloneRecord) -> io::Result<()> {
        self.remove(&record.temporary).map(drop)
    }

    /// Whether this process may look at its clones at all. Volumes are root's, and the daemon is not root; what is to be
    /// set right about them waits for `drover clone activate --all`.
    fn may_look(&self) -> bool {
        true
    }

    /// Makes a base readable, and says whether that had to be done.
    fn show_base(&self, _base: &Path) -> Result<bool, MakeError> {
        Ok(false)
    }

    /// Undoes what [`Driver::show_base`] had to do.
    fn hide_base(&self, _base: &Path) -> Result<(), MakeError> {
        Ok(())
    }

    /// Whether the place of the clone can be seen now; if its disk is not mounted, what is there must not be forgotten.
    fn is_reachable(&self, record: &CloneRecord) -> bool {
        let is_there = |path: &Path| self.exists(path).unwrap_or(false);
        // In state `making`, what has its own name is somebody else's.
        if is_there(&record.temporary) || record.state != CloneState::Making && is_there(&record.path) {
            return true;
        }
        let folder = folder_of(&record.temporary);
        let is_now = Place::of(folder);
        folder.is_dir() && record.place.is_none_or(|place| is_now.is_ok_and(|now| place.is(&now)))
    }

    /// Whether a base has what belongs to it besides the master's content.
    fn is_base_formed(&self, _base: &Path, _record: &CloneRecord) -> io::Result<bool> {
        Ok(true)
    }

    /// Takes note of whether a base, read in full, was found right: no clone is made on one that is not.
    fn note_base(&self, _base: &Path, _is_right: bool) -> Result<(), MakeError> {
        Ok(())
    }

    /// Removes the base of a clone, on which no clone of ours rests any more, durably. Says why it stays if somebody else's
    /// rests on it, or what has its name was not made by us.
    fn remove_base(&self, _base: &Path, _record: &CloneRecord) -> io::Result<Option<String>> {
        Ok(None)
    }

    /// Whether a program has the clone open.
    fn in_use(&self, record: &CloneRecord, opened: &OpenFiles) -> bool {
        verify::in_use(&record.path, opened)
    }

    /// Whether a guest can use it now.
    fn activity(&self, _record: &CloneRecord) -> Result<Activity, MakeError> {
        Ok(Activity::File)
    }

    /// Makes its device, if it needs one and has none.
    fn activate(&self, _record: &CloneRecord) -> Result<(), MakeError> {
        Ok(())
    }

    /// Takes its device away, if it has one. Nothing of the clone is lost.
    fn deactivate(&self, _record: &CloneRecord) -> Result<(), MakeError> {
        Ok(())
    }

    /// Why its clones can't be moved to another master, and what to do instead, if they can't.
    fn unmovable(&self) -> Option<&'static str> {
        Some("it stands alone and rests on no master; make a new clone of the other version")
    }

    /// Moves a clone to another master, so that the guest sees what it saw. The masters differ in these parts, in bytes and in
    /// their order. If it is interrupted, the clone is whole, on either of them. `being_moved` is to be held by programs that
    /// work on it, as in [`Site::being_made`].
    fn move_to(
        &self,
        _record: &CloneRecord,
        _differing: &[Range<u64>],
        _master: &Path,
        _being_moved: &File,
    ) -> Result<(), MakeError> {
        Err(MakeError::Refused(self.unmovable().unwrap_or_default().to_owned()))
    }

    /// The path of the master that a clone rests on, as its own metadata say.
    fn rests_on(&self, record: &CloneRecord) -> Result<PathBuf, MakeError> {
        Ok(record.master.path.clone())
    }

    /// Lets go of what would keep the clone from being removed.
    fn release(&self, record: &CloneRecord) -> Result<(), MakeError> {
        self.deactivate(record)
    }

    /// How full the clones are whose room is bounded; those that can't be asked are missing.
    fn usage(&self, _records: &[&CloneRecord]) -> BTreeMap<String, Usage> {
        BTreeMap::new()
    }
}

impl MakeError {
    /// Tells a full disk from the rest.
    pub(super) fn io(doing: &'static str) -> impl Fn(io::Error) -> MakeError {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => MakeError::NoSpace,
            _ => MakeError::Io { doing, source },
        }
    }
}

/// What to say of a clone that is not reachable.
pub(super) fn unreachable(record: &CloneRecord) -> String {
    let place = folder_of(&record.temporary).display();
    format!("{place}, where the clone {} is, can't be reached; is it mounted?", record.name)
}

/// Only qcow2 has profiles to choose from.
pub(super) fn refuse_profile(driver: DriverName, job: &Job<'_>) -> Result<(), Unusable> {
    match job.profile {
        None => Ok(()),
        Some(profile) => Err(Unusable(format!("{driver} knows no profile such as {profile}; only qcow2 does"))),
    }
}

/// Only snapshots have a bounded room for differences.
pub(super) fn refuse_room(driver: DriverName, job: &Job<'_>) -> Result<(), Unusable> {
    match job.room_len {
        None => Ok(()),
        Some(_) => {
            Err(Unusable(format!("{driver} grows with what is written and knows no --room; dm and lvm-thick do")))
        }
    }
}

/// Only thin volumes lie in a pool.
pub(super) fn refuse_pool(driver: DriverName, job: &Job<'_>) -> Result<(), Unusable> {
    match job.pool {
        None => Ok(()),
        Some(pool) => Err(Unusable(format!("{driver} knows no pool such as {pool}; only lvm-thin does"))),
    }
}

/// What reads the master's file as long as the clone lives can't rest on a file that its owner may change.
pub(super) fn refuse_in_place(job: &Job<'_>, instead: &str) -> Result<(), Unusable> {
    if !job.master.in_place {
        return Ok(());
    }
    Err(Unusable(format!(
        "the master is published in place ({}) and not sealed: a change of that file would reach the clone; publish a \
         copy, or {instead}",
        job.master.path.display()
    )))
}
