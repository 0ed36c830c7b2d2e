//! Setting right what a crash left of clones: an unfinished one goes away, a finished one gets its name, one whose removal had
//! begun is removed.
//!
//! Done at every start of the daemon, and for a single name when a clone of that name is made. A clone that another
//! process is making right now is left alone: its maker holds a lock on the record. So is one of another user, but it is
//! named: the daemon sets right what its own user began, `drover clone activate --all` at boot what root did.

use std::collections::{BTreeMap, BTreeSet};

use drover_protocol::release::Name;

use super::Handover;
use super::batch::finish_name;
use super::disk::is_own;
use super::driver::unreachable;
use super::open_files::OpenFiles;
use super::record::{self, BatchId, CloneRecord, CloneState, ClonesLock, Listing, RecordError};
use super::remove::RemoveError;
use super::target::TargetError;

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
    /// It was being moved to another master, and rests on this one now.
    Rests(String),
    /// It was not, or another file has its name; nothing is left of it.
    Cleaned,
    /// Nothing could be done, for the reason given; the next start tries again.
    Left(String),
    /// It is another user's to set right: the daemon's at its next start, or root's by `drover clone activate --all`.
    Foreign,
}

impl Handover {
    /// Completes or cleans all clones of this user that a crash left unfinished, and says what became of each, and which of
    /// other users are unfinished.
    pub fn recover(&self) -> Result<Vec<Recovered>, RecordError> {
        let lock = ClonesLock::acquire(self.state())?;
        lock.sweep()?;
        let records = record::list_own(self.state())?.records;
        let own: BTreeSet<Name> = records.iter().map(|record| record.name.clone()).collect();
        let told = |settled: Result<Option<Outcome>, RecordError>| {
            settled.unwrap_or_else(|e| Some(Outcome::Left(e.to_string())))
        };
        let batches: BTreeSet<BatchId> = records.iter().filter_map(|record| lock.open_batch(record)).collect();
        let batches: BTreeMap<BatchId, Option<Outcome>> =
            batches.into_iter().map(|batch| (batch, told(self.settle_batch(&lock, batch)))).collect();
        let mut recovered = Vec::new();
        for record in records {
            let of_batch = record.batch.filter(|_| record.state != CloneState::Removing);
            let outcome = match of_batch.and_then(|batch| batches.get(&batch)) {
                Some(Some(outcome)) => Some(outcome.clone()),
                _ => told(self.settle(&lock, &record)),
            };
            recovered.extend(outcome.map(|outcome| Recovered { name: record.name, outcome }));
        }
        let listing = record::list(self.state())?;
        recovered.extend(self.foreign_unfinished(&lock, &listing, &own)?);
        if listing.unreadable.is_empty() {
            lock.sweep_batches(&listing.records.iter().filter_map(|record| record.batch).collect())?;
        }
        Ok(recovered)
    }

    /// What other users left unfinished, which is all that is not in `own`. Nothing is done to it.
    fn foreign_unfinished(
        &self,
        lock: &ClonesLock,
        listing: &Listing,
        own: &BTreeSet<Name>,
    ) -> Result<Vec<Recovered>, RecordError> {
        let mut foreign = self.as_found(listing.records.clone());
        foreign.retain(|record| record.state != CloneState::Ready && !own.contains(&record.name));
        let mut left = Vec::new();
        for CloneRecord { name, .. } in foreign {
            if !lock.is_being_made(&name)? {
                left.push(Recovered { name, outcome: Outcome::Foreign });
            }
        }
        Ok(left)
    }

    /// Completes or cleans one clone, or says `None` if there is nothing to be done.
    pub(super) fn settle(&self, lock: &ClonesLock, record: &CloneRecord) -> Result<Option<Outcome>, RecordError> {
        let driver = self.driver(record.driver);
        if !driver.may_look() {
            return Ok(None);
        }
        if let Some(batch) = lock.open_batch(record)
            && let Some(outcome) = self.settle_batch(lock, batch)?
        {
            return Ok(Some(outcome));
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
            return self.clean(lock, record).map(Some);
        }
        if record.moving_to.is_some() {
            return self.settle_move(lock, record);
        }
        match driver.exists(&record.temporary) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(e) => return Ok(Some(Outcome::Left(e.to_string()))),
        }
        match finish_name(driver, record).and_then(|()| driver.sync_names(std::slice::from_ref(record))) {
            Ok(()) => Ok(Some(Outcome::Completed)),
            Err(TargetError::Exists(_)) => self.clean(lock, record).map(Some),
            Err(e) => Ok(Some(Outcome::Left(e.to_string()))),
        }
    }

    fn finish_removal(&self, lock: &ClonesLock, record: &CloneRecord) -> Result<Outcome, RecordError> {
        let driver = self.driver(record.driver);
        if is_own(driver, record) && driver.in_use(record, &OpenFiles::default()) {
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
