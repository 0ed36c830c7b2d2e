//! Setting right what a crash left of clones: an unfinished one goes away, a finished one gets its name, one whose removal had
//! begun is removed.
//!
//! Done at every start of the daemon, and for a single name when a clone of that name is made. A clone that another
//! process is making right now is left alone: its maker holds a lock on the record. So is one of another user: the daemon
//! sets right what its own user began, `drover clone activate --all` at boot what root did.

use std::io;

use drover_protocol::release::Name;

use super::Handover;
use super::driver::unreachable;
use super::open_files::OpenFiles;
use super::record::{self, CloneRecord, CloneState, ClonesLock, RecordError};
use super::remove::RemoveError;
use super::target::{TargetError, is_same_file};

/// What became of a clone that was found unfinished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The clone.
    pub name: Name,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an unfinished clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was whole and got its name.
    Completed,
    /// It was not, or another file has its name; nothing is left of it.
    Cleaned,
    /// Nothing could be done, for the reason given; the next start tries again.
    Left(String),
}

impl Handover {
    /// Completes or cleans all clones that a crash left unfinished, and says what became of each.
    pub fn recover(&self) -> Result<Vec<Recovered>, RecordError> {
        let lock = ClonesLock::acquire(self.state())?;
        lock.sweep()?;
        let mut recovered = Vec::new();
        for record in record::list_own(self.state())?.records {
            let outcome = match self.settle(&lock, &record) {
                Ok(None) => continue,
                Ok(Some(outcome)) => outcome,
                Err(e) => Outcome::Left(e.to_string()),
            };
            recovered.push(Recovered { name: record.name, outcome });
        }
        // Those that could not be settled now still have to be, as what says that they are whole says.
        let is_open = |record: &CloneRecord| record.state == CloneState::Making && record.batch.is_some();
        if !record::list(self.state())?.records.iter().any(is_open) {
            lock.sweep_batches()?;
        }
        Ok(recovered)
    }

    /// Completes or cleans one clone, or says `None` if there is nothing to be done.
    pub(super) fn settle(&self, lock: &ClonesLock, record: &CloneRecord) -> Result<Option<Outcome>, RecordError> {
        let driver = self.driver(record.driver);
        let left = |e: io::Error| Ok(Some(Outcome::Left(e.to_string())));
        if !driver.may_look() {
            return Ok(None);
        }
        if record.state == CloneState::Making && lock.is_being_made(&record.name)? {
            return Ok(None);
        }
        // Without its folder the clone's file can't be seen, and would be forgotten with the record.
        if record.state != CloneState::Ready && !driver.is_reachable(record) {
            return Ok(Some(Outcome::Left(unreachable(record))));
        }
        if record.state == CloneState::Removing {
            return self.finish_removal(lock, record).map(Some);
        }
        if record.state == CloneState::Making {
            if !record.batch.is_some_and(|batch| lock.is_committed(batch)) {
                return self.clean(lock, record).map(Some);
            }
            lock.put(&CloneRecord { state: CloneState::Ready, ..record.clone() })?;
        } else if record.moving_to.is_some() {
            return self.settle_move(lock, record);
        }
        match driver.exists(&record.temporary) {
            Ok(true) => {}
            Ok(false) if record.state == CloneState::Making => return Ok(Some(Outcome::Completed)),
            Ok(false) => return Ok(None),
            Err(e) => return left(e),
        }
        match driver.place(record).and_then(|()| driver.sync_names(std::slice::from_ref(record))) {
            Ok(()) => Ok(Some(Outcome::Completed)),
            Err(TargetError::Exists(_)) if is_same_file(&record.temporary, &record.path) => {
                driver.remove(&record.temporary).map_or_else(left, |_| Ok(Some(Outcome::Completed)))
            }
            Err(TargetError::Exists(_)) => self.clean(lock, record).map(Some),
            Err(e) => Ok(Some(Outcome::Left(e.to_string()))),
        }
    }

    fn finish_removal(&self, lock: &ClonesLock, record: &CloneRecord) -> Result<Outcome, RecordError> {
        if self.driver(record.driver).in_use(record, &OpenFiles::default()) {
            return Ok(Outcome::Left("it was being removed, and a program has it open now".to_owned()));
        }
        outcome(self.remove_placed(lock, record))
    }

    fn clean(&self, lock: &ClonesLock, record: &CloneRecord) -> Result<Outcome, RecordError> {
        outcome(self.discard(lock, record))
    }
}

fn outcome<T>(removed: Result<T, RemoveError>) -> Result<Outcome, RecordError> {
    match removed {
        Ok(_) => Ok(Outcome::Cleaned),
        Err(RemoveError::Record(e)) => Err(e),
        Err(e) => Ok(Outcome::Left(e.to_string())),
    }
}
