//! Clones that were begun together: all of them or none, whatever stops the machine, also while they are being undone.
//!
//! One file says of a batch that all of its clones are whole. While it is there the batch is open, and is settled as one:
//! either each of its clones gets its name, or, if something else has one of the names by now, the steps are taken back
//! one by one in the opposite order, names first, then the records, then the file. So there is one moment before which all
//! clones are whole and after which none is.
//!
//! Some may have had their names before the crash, and guests have started from them. What was written there is not undone:
//! then the batch waits until what is in the way is gone, and is completed.

use std::path::Path;

use super::Handover;
use super::create::become_ready;
use super::disk::{is_own, is_unwritten};
use super::driver::{Driver, unreachable};
use super::open_files::OpenFiles;
use super::record::{self, BatchId, CloneRecord, CloneState, ClonesLock, RecordError};
use super::recover::Outcome;
use super::remove::RemoveError;
use super::step::{self, Step};
use super::target::{TargetError, is_same_file};

impl Handover {
    /// Gives all clones of an open batch their names, or leaves nothing of any; `None` if they have them.
    pub(super) fn settle_batch(&self, lock: &ClonesLock, batch: BatchId) -> Result<Option<Outcome>, RecordError> {
        let mut records = record::list_own(self.state())?.records;
        records.retain(|record| record.batch == Some(batch) && record.state != CloneState::Removing);
        let Some(first) = records.first() else { return lock.forget(batch).map(|()| None) };
        let driver = self.driver(first.driver);
        if !driver.may_look() {
            return Ok(None);
        }
        if let Some(record) = records.iter().find(|record| !driver.is_reachable(record)) {
            return Ok(Some(Outcome::Left(unreachable(record))));
        }
        let were_named = records.iter().all(|record| record.state == CloneState::Ready && !is_unnamed(driver, record));
        records.iter_mut().for_each(|record| become_ready(driver, record));
        if !were_named {
            lock.put_all(&records)?;
        }
        match records
            .iter()
            .try_for_each(|record| finish_name(driver, record))
            .and_then(|()| driver.sync_names(&records))
        {
            Ok(()) => lock.forget(batch).map(|()| (!were_named).then_some(Outcome::Completed)),
            Err(TargetError::Exists(in_the_way)) => match self.undo(lock, &records, &in_the_way) {
                Ok(()) => Ok(Some(Outcome::Cleaned)),
                Err(RemoveError::Record(e)) => Err(e),
                Err(e) => Ok(Some(Outcome::Left(e.to_string()))),
            },
            Err(e) => Ok(Some(Outcome::Left(e.to_string()))),
        }
    }

    /// Leaves nothing of an open batch, unless somebody may have written to one of its clones.
    fn undo(&self, lock: &ClonesLock, records: &[CloneRecord], in_the_way: &Path) -> Result<(), RemoveError> {
        let is_written = |record: &&CloneRecord| {
            let driver = self.driver(record.driver);
            let has_name = !is_unnamed(driver, record) && driver.exists(&record.path).unwrap_or(true);
            has_name && is_own(driver, record) && !is_unwritten(driver, record)
        };
        match records.iter().find(is_written) {
            Some(written) => {
                Err(RemoveError::Written { name: written.name.clone(), in_the_way: in_the_way.to_owned() })
            }
            None => self.unmake(lock, records),
        }
    }

    /// Leaves nothing of clones that were made together and are whole, whether they have their names yet or not. If one is in
    /// use already, all stay.
    pub(super) fn unmake(&self, lock: &ClonesLock, records: &[CloneRecord]) -> Result<(), RemoveError> {
        let Some(first) = records.first() else { return Ok(()) };
        let driver = self.driver(first.driver);
        let (mut undone, opened) = (records.to_vec(), OpenFiles::default());
        // What has the name of one that has not got it yet is somebody else's.
        let is_used = |record: &&CloneRecord| !is_unnamed(driver, record) && driver.in_use(record, &opened);
        if let Some(CloneRecord { name, path, .. }) = records.iter().find(is_used) {
            return Err(RemoveError::InUse { name: name.clone(), path: path.clone() });
        }
        for record in records {
            driver.release(record).map_err(|source| RemoveError::Device { name: record.name.clone(), source })?;
        }
        // What is left to do must work on a full disk, too; a crash may then leave some of them.
        if let Some(batch) = first.batch {
            lock.commit(batch).or_else(RecordError::unless_full)?;
        }
        for record in records {
            take_name_back(driver, record)?;
            step::reach(Step::Unplaced);
        }
        driver.sync_names(records).map_err(RemoveError::name(first))?;
        undone.iter_mut().for_each(|record| record.state = CloneState::Making);
        lock.put_all(&undone).map(drop).or_else(RecordError::unless_full)?;
        step::reach(Step::Unready);
        self.discard_all(lock, &undone)
    }

    /// Leaves nothing of clones of which none has its name, and whose records do not say that they are whole.
    pub(super) fn discard_all(&self, lock: &ClonesLock, records: &[CloneRecord]) -> Result<(), RemoveError> {
        if let Some(batch) = records.first().and_then(|record| record.batch) {
            lock.forget(batch)?;
            step::reach(Step::Uncommitted);
        }
        for record in records {
            self.discard(lock, record)?;
            step::reach(Step::Discarded);
        }
        Ok(())
    }
}

/// Whether a clone has its temporary name still.
fn is_unnamed(driver: &dyn Driver, record: &CloneRecord) -> bool {
    driver.exists(&record.temporary).unwrap_or(false)
}

/// Gives a clone its own name, if it has it not.
pub(super) fn finish_name(driver: &dyn Driver, record: &CloneRecord) -> Result<(), TargetError> {
    if !is_unnamed(driver, record) {
        return Ok(());
    }
    match driver.place(record) {
        // One file under both names, which a crash left.
        Err(TargetError::Exists(_)) if is_same_file(&record.temporary, &record.path) => driver
            .remove(&record.temporary)
            .map(drop)
            .map_err(|source| TargetError::Io { doing: "remove", path: record.temporary.clone(), source }),
        placed => placed,
    }
}

/// Gives a clone its temporary name again, if it has its own.
fn take_name_back(driver: &dyn Driver, record: &CloneRecord) -> Result<(), RemoveError> {
    let failed = RemoveError::file(&record.path);
    if is_same_file(&record.temporary, &record.path) {
        return driver.remove(&record.path).map(drop).map_err(failed);
    }
    // While it has the temporary one, what has its own is somebody else's.
    if is_unnamed(driver, record) || !driver.exists(&record.path).map_err(failed)? || !is_own(driver, record) {
        return Ok(());
    }
    let (path, temporary) = (record.temporary.clone(), record.path.clone());
    driver.place(&CloneRecord { path, temporary, ..record.clone() }).map_err(RemoveError::name(record))
}
