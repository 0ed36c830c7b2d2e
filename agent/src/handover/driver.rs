//! What every technique of making a clone has in common, and how one is chosen.
//!
//! A driver tells whether it can work here by trying, never by the name of a file system or a version in a table, and
//! fills a file that the hand-over has already created under a temporary name. It knows nothing of records, of the
//! clone's final name, or of what happens after a crash: those are the same for all.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::master::{Master, MasterFile};
use super::record::CloneRecord;
use super::verify::Finding;

/// A technique of making clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverName {
    /// A raw file that shares the master's blocks on disk (FICLONE).
    Reflink,
    /// A qcow2 file with the master as its backing file.
    Qcow2,
    /// A full copy as a raw file that keeps holes.
    Copy,
}

/// Which driver is to make a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// The first that works, in the order of [`DriverName::ALL`].
    #[default]
    Auto,
    /// This one or none.
    Named(DriverName),
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

/// Programs that drivers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// `qemu-img`, by a path or by a name that is looked for in `PATH`.
    pub qemu_img: PathBuf,
}

/// One clone to be made.
pub(super) struct Job<'a> {
    pub(super) master: &'a Master,
    pub(super) source: &'a MasterFile,
    /// The folder that the clone goes to. It exists and can be written.
    pub(super) folder: &'a Path,
    /// Length of the disk that the guest sees, in bytes: whole sectors, at least the master's length.
    pub(super) disk_len: u64,
    pub(super) profile: Option<Profile>,
}

/// What a driver fills.
pub(super) struct Site<'a> {
    /// The file: it exists, is empty and belongs to this job alone.
    pub(super) file: &'a Path,
    /// Open for as long as somebody is at work on the clone. A program that works on the file gets a copy of it, so that
    /// the clone counts as being made until that ends, also if we are killed before.
    pub(super) being_made: &'a File,
}

/// What a driver did, for the record.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) profile: Option<Profile>,
    pub(super) tools: BTreeMap<String, String>,
}

/// What a driver sees in a clone.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    pub(super) in_use: bool,
    pub(super) findings: Vec<Finding>,
}

/// A technique of making clones.
pub(super) trait Driver {
    /// Its name.
    fn name(&self) -> DriverName;

    /// What people should know when they choose, in one sentence.
    fn note(&self) -> &'static str;

    /// Whether its clones are lost without the master.
    fn needs_master(&self) -> bool;

    /// Whether it can do this job here. Leaves nothing behind.
    fn probe(&self, job: &Job<'_>) -> Result<(), Unusable>;

    /// Fills the site's file. Needs no sync, and need not clean up if it fails.
    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError>;

    /// Looks at an existing clone; the master is looked at elsewhere. Changes nothing.
    fn verify(&self, record: &CloneRecord) -> Inspection;

    /// Removes the clone's file, or says `false` if there was none.
    fn remove(&self, path: &Path) -> io::Result<bool> {
        match std::fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

impl DriverName {
    /// All of them, in the order in which [`Choice::Auto`] tries them: least cost to disk and guest first.
    pub const ALL: [DriverName; 3] = [DriverName::Reflink, DriverName::Qcow2, DriverName::Copy];

    /// The word for it in commands and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            DriverName::Reflink => "reflink",
            DriverName::Qcow2 => "qcow2",
            DriverName::Copy => "copy",
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
        Tools { qemu_img: PathBuf::from("qemu-img") }
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
        if text == "auto" {
            return Ok(Choice::Auto);
        }
        let named = DriverName::ALL.into_iter().find(|driver| driver.as_str() == text);
        named.map(Choice::Named).ok_or_else(|| ParseChoiceError {
            given: text.chars().take(80).collect(),
            what: "driver",
            known: "auto, reflink, qcow2 or copy",
        })
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

/// A clone that is a raw file has no profile to choose.
pub(super) fn refuse_profile(driver: DriverName, job: &Job<'_>) -> Result<(), Unusable> {
    match job.profile {
        None => Ok(()),
        Some(profile) => Err(Unusable(format!("{driver} makes raw files, which know no profile such as {profile}"))),
    }
}
