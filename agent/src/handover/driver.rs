//! What every technique of making a clone has in common, and how one is chosen.
//!
//! A driver tells whether it can work here by trying, never by the name of a file system or a version in a table. It
//! makes a clone under a temporary name and gives it its own name when told to; what is recorded when, and what happens
//! after a crash, is the same for all.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::master::{Master, MasterFile, folder_of};
use super::record::CloneRecord;
use super::target::{self, Target, TargetError};
use super::verify::{self, Finding};

/// A technique of making clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverName {
    /// A raw file that shares the master's blocks on disk (FICLONE).
    Reflink,
    /// A qcow2 file with the master as its backing file.
    Qcow2,
    /// A differencing VHD on a fixed VHD that is the master with a footer.
    Vhd,
    /// A thin logical volume with a read-only copy of the master as its external origin.
    LvmThin,
    /// A classic snapshot of a logical volume that is a copy of the master.
    LvmThick,
    /// A device-mapper snapshot of the master's file.
    Dm,
    /// A full copy as a raw file that keeps holes.
    Copy,
}

/// Which driver is to make a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// The first that works, in the order of [`DriverName::ALL`].
    #[default]
    Auto,
    /// The first of the two that make logical volumes.
    Lvm,
    /// This one or none.
    Named(DriverName),
}

/// What virtual machines are to run the clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hypervisor {
    /// Whatever there is.
    #[default]
    Any,
    /// KVM, by qemu.
    Kvm,
    /// Xen: `xl`, XenServer, XCP-ng.
    Xen,
    /// Hyper-V.
    HyperV,
}

/// How a qcow2 clone is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Clusters of 64 KiB: every reader of qcow2 takes it.
    #[default]
    Compat,
    /// Clusters of 128 KiB in 32 subclusters: a guest's write of 4 KiB takes 4 KiB. Needs qemu 5.2 wherever it runs.
    Fast,
}

/// A text that names no driver or profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no {what}: use {known}")]
pub struct ParseChoiceError {
    given: String,
    what: &'static str,
    known: &'static str,
}

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

/// Programs that drivers run, each by a path or by a name that is looked for in `PATH` and where administrators' programs
/// are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// `qemu-img`.
    pub qemu_img: PathBuf,
    /// `dmsetup`.
    pub dmsetup: PathBuf,
    /// `losetup`.
    pub losetup: PathBuf,
    /// `lvm`, the one program behind `lvcreate` and the rest.
    pub lvm: PathBuf,
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

/// How full a clone's room for differences is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// What is full at 100 %: the snapshot's own room, or the data or metadata of the pool that it shares.
    pub of: &'static str,
    /// How full that is, 0 to 100.
    pub percent: f64,
    /// What the kernel says instead of numbers when the clone is lost or stuck: `Invalid`, `Overflow`, `Merge failed`.
    pub fault: Option<&'static str>,
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

impl Usage {
    /// What people should be told of it, if that is anything.
    pub fn alarm(&self) -> Option<String> {
        let (of, percent) = (self.of, self.percent);
        match self.fault {
            Some("Overflow") => {
                Some("Overflow: its room is full and writes fail; what was written before can still be read".to_owned())
            }
            Some(word) => Some(format!("{word}: its differences are lost")),
            None if percent >= ALARM_PERCENT => Some(format!("its {of} is {percent:.0} % full")),
            None => None,
        }
    }

    pub(super) fn finding(&self) -> Option<Finding> {
        let alarm = self.alarm()?;
        Some(if self.fault.is_some() { Finding::fault(alarm) } else { Finding::doubt(alarm) })
    }
}

/// From here on people are warned, in percent.
const ALARM_PERCENT: f64 = 80.0;

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
    /// image. It is made with the first of them and removed with the last.
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
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Gives a finished clone its name, durably, unless something has that name.
    fn place(&self, record: &CloneRecord) -> Result<(), TargetError> {
        target::place(&record.temporary, &record.path)
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

    /// Whether the place of the clone can be seen now; if its disk is not mounted, what is there must not be forgotten.
    fn is_reachable(&self, record: &CloneRecord) -> bool {
        folder_of(&record.temporary).is_dir()
    }

    /// Removes a base that no clone of ours rests on, durably. Says why not if somebody else's rests on it.
    fn remove_base(&self, base: &Path) -> io::Result<Option<String>> {
        target::remove_file(base).map(|_| None)
    }

    /// Whether a program has the clone open.
    fn in_use(&self, record: &CloneRecord) -> bool {
        verify::in_use(&record.path)
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

    /// Moves a clone to another master, so that the guest sees what it saw. If it is interrupted, the clone is whole, on
    /// either of them. `being_moved` is to be held by programs that work on it, as in [`Site::being_made`].
    fn move_to(&self, _record: &CloneRecord, _master: &Path, _being_moved: &File) -> Result<(), MakeError> {
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

impl DriverName {
    /// All of them, in the order in which [`Choice::Auto`] tries them: least cost to disk and guest first.
    pub const ALL: [DriverName; 7] = [
        DriverName::Reflink,
        DriverName::Qcow2,
        DriverName::Vhd,
        DriverName::LvmThin,
        DriverName::LvmThick,
        DriverName::Dm,
        DriverName::Copy,
    ];

    /// The word for it in commands and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            DriverName::Reflink => "reflink",
            DriverName::Qcow2 => "qcow2",
            DriverName::Vhd => "vhd",
            DriverName::LvmThin => "lvm-thin",
            DriverName::LvmThick => "lvm-thick",
            DriverName::Dm => "dm",
            DriverName::Copy => "copy",
        }
    }

    /// How hypervisors call the format of what it makes.
    pub const fn format(self) -> &'static str {
        match self {
            DriverName::Qcow2 => "qcow2",
            DriverName::Vhd => "vhd",
            _ => "raw",
        }
    }

    /// Why clones of this kind are nothing for a hypervisor, if they are not.
    pub(super) fn unfit_for(self, hypervisor: Hypervisor) -> Option<Unusable> {
        let why = match (hypervisor, self) {
            (Hypervisor::Kvm | Hypervisor::Any, DriverName::Vhd) => {
                "qemu reads zeros where a differencing VHD has nothing of its own; it is for Xen and Hyper-V: say \
                 --hypervisor xen or hyperv"
            }
            (Hypervisor::HyperV, driver) if driver != DriverName::Vhd => "Hyper-V takes no disk but VHD",
            _ => return None,
        };
        Some(Unusable(why.to_owned()))
    }
}

impl Choice {
    /// The drivers that may make the clone, in the order in which they are tried.
    pub(super) fn drivers(self, hypervisor: Hypervisor) -> Vec<DriverName> {
        match self {
            Choice::Named(driver) => vec![driver],
            Choice::Lvm => vec![DriverName::LvmThin, DriverName::LvmThick],
            Choice::Auto => {
                let mut all = DriverName::ALL.to_vec();
                if hypervisor == Hypervisor::Xen {
                    // Every Xen reads VHD; only newer ones read qcow2.
                    all.swap(1, 2);
                }
                all
            }
        }
    }
}

impl Profile {
    /// The word for it in commands and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Profile::Compat => "compat",
            Profile::Fast => "fast",
        }
    }
}

impl Default for Tools {
    fn default() -> Self {
        Tools {
            qemu_img: PathBuf::from("qemu-img"),
            dmsetup: PathBuf::from("dmsetup"),
            losetup: PathBuf::from("losetup"),
            lvm: PathBuf::from("lvm"),
        }
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

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Choice {
    type Err = ParseChoiceError;
    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let named = || DriverName::ALL.into_iter().find(|driver| driver.as_str() == text);
        match text {
            "auto" => Ok(Choice::Auto),
            "lvm" => Ok(Choice::Lvm),
            _ => named().map(Choice::Named).ok_or_else(|| ParseChoiceError {
                given: text.chars().take(80).collect(),
                what: "driver",
                known: "auto, reflink, qcow2, vhd, lvm, lvm-thin, lvm-thick, dm or copy",
            }),
        }
    }
}

impl FromStr for Hypervisor {
    type Err = ParseChoiceError;
    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        match text {
            "any" => Ok(Hypervisor::Any),
            "kvm" => Ok(Hypervisor::Kvm),
            "xen" => Ok(Hypervisor::Xen),
            "hyperv" => Ok(Hypervisor::HyperV),
            _ => Err(ParseChoiceError {
                given: text.chars().take(80).collect(),
                what: "hypervisor",
                known: "any, kvm, xen or hyperv",
            }),
        }
    }
}

impl FromStr for Profile {
    type Err = ParseChoiceError;
    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let named = [Profile::Compat, Profile::Fast].into_iter().find(|profile| profile.as_str() == text);
        named.ok_or_else(|| ParseChoiceError {
            given: text.chars().take(80).collect(),
            what: "profile",
            known: "compat or fast",
        })
    }
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
