//! Moving a clone to another master: the guest keeps seeing what it saw, and the old master can go.
//!
//! Only qcow2 can: `qemu-img rebase` first copies into the clone all in which the masters differ and the clone has nothing
//! of its own, and names the new master in the header last. So a crash leaves a clone that is whole on the old master or
//! on the new one. The record names both while that is open, which protects both, and recovery reads the header to see
//! how it ended. The old master is hashed first: what its disk damaged unnoticed would be the clone's own from then on.

use std::fs::File;

use drover_protocol::release::Name;

use super::Handover;
use super::device::{DeviceError, begins_with};
use super::disk::{self, Lost};
use super::driver::MakeError;
use super::master::{Master, MasterError, MasterFile, is_one_file};
use super::open_files::OpenFiles;
use super::record::{CloneRecord, ClonesLock, MovingTo, RecordError, RecordedMaster};
use super::recover::Outcome;
use super::step::{self, Step};

/// A clone that was moved.
#[derive(Clone, Debug)]
pub struct Rebased {
    /// Its record now.
    pub record: CloneRecord,
    /// Whether it had to be moved; it may have been on that master before.
    pub moved: bool,
}

/// Why a clone was not moved. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RebaseError {
    /// There is none, or it is not finished.
    #[error(transparent)]
    Clone(#[from] DeviceError),
    /// Its technique can't.
    #[error("{name} can't be moved: {why}")]
    Unmovable {
        /// The clone.
        name: Name,
        /// Why not, and what to do instead.
        why: &'static str,
    },
    /// A machine uses it.
    #[error("the clone {0} is in use: stop the virtual machine first")]
    InUse(Name),
    /// It rests on something else than its record says.
    #[error(
        "{name} rests on {}, not on the master that it was made from: a move would copy what is wrong there into it; \
         `drover clone verify {name}` tells more", rests_on.display()
    )]
    Elsewhere {
        /// The clone.
        name: Name,
        /// What its header names.
        rests_on: std::path::PathBuf,
    },
    /// The master that it rests on does not have its content any more.
    #[error(
        "the master that {name} rests on is damaged, and a move would copy that into the clone; `drover verify {label}` \
         tells what is damaged, and `drover fetch {label}` mends it"
    )]
    Damaged {
        /// The clone.
        name: Name,
        /// What the master is called.
        label: String,
    },
    /// The new master is no good.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The new master may be changed by its owner.
    #[error("the master at {0} is published in place and not sealed: a change of that file would reach the clone")]
    InPlace(std::path::PathBuf),
    /// The program failed.
    #[error("{name} could not be moved, and is as it was: {source}")]
    Move {
        /// The clone.
        name: Name,
        /// Why.
        source: MakeError,
    },
    /// The records can't be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Handover {
    /// Moves a clone to a master, whose content may be any. Takes as long as reading the master that it rests on twice
    /// and the other one once.
    pub fn rebase(&self, name: &Name, master: &Master) -> Result<Rebased, RebaseError> {
        let (lock, record) = self.finished(name)?;
        let driver = self.driver(record.driver);
        if let Some(why) = driver.unmovable() {
            return Err(RebaseError::Unmovable { name: name.clone(), why });
        }
        // Of one that rests on something else it is told below on what.
        match disk::lost(driver, &record) {
            None | Some(Lost::OtherBase(_)) => {}
            Some(lost) => return Err(DeviceError::Lost { name: record.name, lost }.into()),
        }
        // What the clone lacks is copied from what its header names; that must be what it was made from, and as it was.
        let unmoved = |source| RebaseError::Move { name: name.clone(), source };
        let rests_on = driver.rests_on(&record).map_err(unmoved)?;
        if !is_one_file(&rests_on, &record.master.path) {
            return Err(RebaseError::Elsewhere { name: name.clone(), rests_on });
        }
        if record.image == master.image && is_one_file(&record.master.path, &master.path) {
            return Ok(Rebased { record, moved: false });
        }
        if driver.in_use(&record, &OpenFiles::default()) {
            return Err(RebaseError::InUse(name.clone()));
        }
        if let Some(lost) = driver.lost_base(&record) {
            return Err(DeviceError::Lost { name: record.name, lost }.into());
        }
        if master.in_place {
            return Err(RebaseError::InPlace(master.path.clone()));
        }
        let source = MasterFile::open(master)?;
        let moving_to = MovingTo {
            image: master.image,
            release: master.release.clone(),
            master: RecordedMaster::new(master, &source),
        };
        let begun = CloneRecord { moving_to: Some(moving_to), ..record };
        // Held open, it tells recovery that somebody is at it.
        let being_moved = lock.put(&begun)?;
        drop(lock);
        // What the disk damaged shows in nothing but the content, and the clone would have it for good.
        let moved =
            check_content(&begun).and_then(|()| driver.move_to(&begun, &master.path, &being_moved).map_err(unmoved));
        step::reach(Step::Moved);
        let lock = ClonesLock::acquire(self.state())?;
        match moved {
            Ok(()) => {
                let record = arrived(&begun);
                lock.put(&record)?;
                Ok(Rebased { record, moved: true })
            }
            Err(error) => {
                drop(being_moved);
                self.settle_move(&lock, &begun)?;
                Err(error)
            }
        }
    }

    /// Sets a record right whose clone was being moved when that was interrupted.
    pub(super) fn settle_move(&self, lock: &ClonesLock, begun: &CloneRecord) -> Result<Option<Outcome>, RecordError> {
        let Some(moving_to) = &begun.moving_to else { return Ok(None) };
        if lock.is_being_made(&begun.name)? {
            return Ok(None);
        }
        let settled = match self.driver(begun.driver).rests_on(begun) {
            Ok(backing) if backing == moving_to.master.path => arrived(begun),
            Ok(_) => CloneRecord { moving_to: None, ..begun.clone() },
            Err(e) => return Ok(Some(Outcome::Left(e.to_string()))),
        };
        lock.put(&settled)?;
        Ok(Some(Outcome::Completed))
    }
}

/// Makes sure that the master that a clone rests on has its content, which takes reading all of it.
fn check_content(begun: &CloneRecord) -> Result<(), RebaseError> {
    let (name, master) = (begun.name.clone(), &begun.master);
    match File::open(&master.path).and_then(|file| begins_with(&file, master)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(RebaseError::Damaged { name, label: begun.master_label() }),
        Err(e) => Err(RebaseError::Move { name, source: MakeError::io("read the master that it rests on")(e) }),
    }
}

/// The record of a clone that is on its new master.
fn arrived(begun: &CloneRecord) -> CloneRecord {
    let mut record = begun.clone();
    if let Some(MovingTo { image, release, master }) = record.moving_to.take() {
        (record.image, record.release, record.master) = (image, release, master);
    }
    record
}
