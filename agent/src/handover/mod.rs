//! The hand-over: a sealed master becomes a copy-on-write disk that a virtual machine can start from.
//!
//! A [`Handover`] makes clones in one state folder, lists, checks and removes them. What differs between techniques is
//! in one file each (`reflink`, `qcow2`, `copy`) behind one small trait; the life of a clone is the same for all:
//! `create` is all or nothing, `recover` finishes what a crash interrupted, [`record`] keeps what is known.
//!
//! What always holds:
//! - A clone's record is durable before its file exists, and goes after it. No clone is unknown.
//! - No file that exists is overwritten, and a file under a clone's own name is whole.
//! - A master that a record names is not removed: both happen under one lock, [`record::ClonesLock`].
//! - A clone is bound to its master's content, by image id, not to a path.
//!
//! It blocks, reads no settings, and talks to no daemon: the command line runs it in its own process, with the rights
//! that its user has on the target folder. Hashing a master again is the store's work.

mod copy;
mod create;
mod driver;
mod master;
mod qcow2;
pub mod record;
mod recover;
mod reflink;
mod remove;
mod target;
#[cfg(test)]
mod tests;
mod tool;
mod verify;

use std::path::{Path, PathBuf};

use drover_protocol::release::Name;
use serde::Serialize;

pub use self::create::{CloneSpec, CreateError, Created};
pub use self::driver::{Choice, DriverName, MakeError, NotTaken, ParseChoiceError, Profile, Tools, Unusable};
pub use self::master::{FileIdentity, Master, MasterError};
pub use self::record::{CloneRecord, CloneState, ClonesLock, Listing, RecordError};
pub use self::recover::{Outcome, Recovered};
pub use self::remove::{RemoveError, Removed};
pub use self::target::TargetError;
pub use self::tool::ToolError;
pub use self::verify::{Finding, Severity, Verification};

use self::driver::{Driver, Job};
use self::master::MasterFile;

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

    /// Looks at a clone and its master. `master` is what the store holds of the record's image today, if anything.
    pub fn verify(&self, name: &Name, master: Option<&Master>) -> Result<Verification, LookupError> {
        let record = self.get(name)?;
        let inspection = match (record.state, record.temporary.symlink_metadata()) {
            (CloneState::Ready, Err(_)) => self.driver(record.driver).verify(&record),
            _ => driver::Inspection {
                in_use: false,
                findings: vec![Finding::fault(
                    "it is not finished: it is being made, or a crash interrupted that, which the daemon sets right when \
                     it starts"
                        .to_owned(),
                )],
            },
        };
        Ok(Verification::new(&record, master, inspection))
    }

    /// Which drivers can make clones of a master in a folder, in the order in which they are tried. Leaves nothing behind.
    pub fn reports(&self, master: &Master, folder: &Path) -> Result<Vec<DriverReport>, CreateError> {
        let target = target::Target::check(&folder.join(".drover-probe"))?;
        let source = MasterFile::open(master)?;
        let disk_len = master.content_len;
        let job = Job { master, source: &source, folder: &target.folder, disk_len, profile: None };
        let report = |driver: &dyn Driver| DriverReport {
            driver: driver.name(),
            note: driver.note(),
            unusable: driver.probe(&job).err().map(|reason| reason.to_string()),
        };
        Ok(self.drivers().map(report).collect())
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
