//! Setting right what a crash left of clones: an unfinished one goes away, a finished one gets its name.
//!
//! Done at every start of the daemon, and for a single name when a clone of that name is made. A clone that another
//! process is making right now is left alone: its maker holds a lock on the record.

use drover_protocol::release::Name;

use super::Handover;
use super::record::{self, CloneRecord, CloneState, ClonesLock, RecordError};
use super::remove::discard;
use super::target::{TargetError, is_same_file, place};

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
        for record in record::list(self.state())?.records {
            let outcome = match settle(&lock, &record) {
                Ok(None) => continue,
                Ok(Some(outcome)) => outcome,
                Err(e) => Outcome::Left(e.to_string()),
            };
            recovered.push(Recovered { name: record.name, outcome });
        }
        Ok(recovered)
    }
}

/// Completes or cleans one clone, or says `None` if there is nothing to be done.
pub(super) fn settle(lock: &ClonesLock, record: &CloneRecord) -> Result<Option<Outcome>, RecordError> {
    match record.state {
        CloneState::Making if lock.is_being_made(&record.name)? => Ok(None),
        // Without its folder the file under the temporary name can't be seen, and would be forgotten with the record.
        CloneState::Making if !record.temporary.parent().is_some_and(|folder| folder.is_dir()) => {
            let folder = record.temporary.parent().unwrap_or(&record.temporary).display();
            Ok(Some(Outcome::Left(format!("the folder {folder} of the unfinished clone is not there; is it mounted?"))))
        }
        CloneState::Making => clean(lock, record).map(Some),
        CloneState::Ready if record.temporary.symlink_metadata().is_err() => Ok(None),
        CloneState::Ready => match place(&record.temporary, &record.path) {
            Ok(()) => Ok(Some(Outcome::Completed)),
            Err(TargetError::Exists(_)) if is_same_file(&record.temporary, &record.path) => {
                let removed = std::fs::remove_file(&record.temporary);
                Ok(Some(removed.map_or_else(|e| Outcome::Left(e.to_string()), |()| Outcome::Completed)))
            }
            Err(TargetError::Exists(_)) => clean(lock, record).map(Some),
            Err(e) => Ok(Some(Outcome::Left(e.to_string()))),
        },
    }
}

fn clean(lock: &ClonesLock, record: &CloneRecord) -> Result<Outcome, RecordError> {
    match discard(lock, record) {
        Ok(()) => Ok(Outcome::Cleaned),
        Err(super::RemoveError::Record(e)) => Err(e),
        Err(e) => Ok(Outcome::Left(e.to_string())),
    }
}
