//! Moving a clone to another master: the guest keeps seeing what it saw, and the old master can go.
//!
//! Only qcow2 can. Both masters are read first: what the disk damaged unnoticed in the old one would be the clone's own from
//! then on, and where the new one is damaged, mending it would change what the guest sees. That also tells in which parts
//! they differ. These the clone takes from the old master, and only when it is the same on either of them its header names
//! the new one. So a crash leaves a clone that is whole on the old master or on the new one. The record names both while
//! that is open, which protects both, and recovery reads the header to see how it ended.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

use drover_protocol::release::Name;

use super::Handover;
use super::device::DeviceError;
use super::disk::{self, Lost};
use super::driver::MakeError;
use super::master::{Master, MasterError, MasterFile, is_one_file};
use super::open_files::OpenFiles;
use super::record::{CloneRecord, ClonesLock, MovingTo, RecordError, RecordedMaster};
use super::recover::Outcome;
use super::step::{self, Step};
use super::target::sync_file;

/// How finely it is told where masters differ, in bytes: a cluster of most qcow2 files.
const GRAIN: usize = 64 << 10;
/// As much of each master is read at a time: whole grains.
const READ_AT_ONCE: usize = 16 * GRAIN;

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
    /// The new master does not have its content.
    #[error(
        "the master {label} is damaged, and mending it later would change what the guest sees; `drover verify {label}` tells \
         what is damaged, and `drover fetch {label}` mends it"
    )]
    NewDamaged {
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
    /// Moves a clone to a master, whose content may be any. Takes as long as reading both masters twice.
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
        let moved = differing(&begun, master, &source)
            .and_then(|parts| driver.move_to(&begun, &parts, &master.path, &being_moved).map_err(unmoved));
        step::reach(Step::Moved);
        let lock = ClonesLock::acquire(self.state())?;
        drop(being_moved);
        let record = match &moved {
            Ok(()) => arrived(&begun),
            // How far it came, whoever says what.
            Err(_) => self.settled(&begun).unwrap_or_else(|_| begun.clone()),
        };
        lock.put(&record)?;
        match moved {
            Err(error) if record != arrived(&begun) => Err(error),
            _ => Ok(Rebased { record, moved: true }),
        }
    }

    /// Sets a record right whose clone was being moved when that was interrupted.
    pub(super) fn settle_move(&self, lock: &ClonesLock, begun: &CloneRecord) -> Result<Option<Outcome>, RecordError> {
        if begun.moving_to.is_none() {
            return Ok(None);
        }
        if lock.is_being_made(&begun.name)? {
            return Ok(None);
        }
        match self.settled(begun) {
            Ok(settled) => {
                lock.put(&settled)?;
                Ok(Some(Outcome::Rests(settled.master_label())))
            }
            Err(e) => Ok(Some(Outcome::Left(e.to_string()))),
        }
    }

    /// The record of a clone that was being moved, as its header says how that ended.
    fn settled(&self, begun: &CloneRecord) -> Result<CloneRecord, MakeError> {
        // What is read may not be on the disk yet, as the record is about to be.
        sync_file(&begun.path)?;
        let backing = self.driver(begun.driver).rests_on(begun)?;
        Ok(match &begun.moving_to {
            Some(moving_to) if backing == moving_to.master.path => arrived(begun),
            _ => CloneRecord { moving_to: None, ..begun.clone() },
        })
    }
}

/// In which parts the master that a clone rests on and the new one differ, after both were read and have their content.
fn differing(begun: &CloneRecord, master: &Master, source: &MasterFile) -> Result<Vec<Range<u64>>, RebaseError> {
    let (name, old) = (begun.name.clone(), &begun.master);
    let read = File::open(&old.path).and_then(|file| Reading::of(&file, &source.file));
    let read =
        read.map_err(|e| RebaseError::Move { name: name.clone(), source: MakeError::io("read the masters")(e) })?;
    if (read.old.len, read.old.hash) != (old.file.len, *old.content_hash.as_bytes()) {
        return Err(RebaseError::Damaged { name, label: begun.master_label() });
    }
    if read.new.hash != *master.content_hash.as_bytes() {
        return Err(RebaseError::NewDamaged { label: master.label() });
    }
    Ok(read.differing)
}

/// What reading two masters told.
struct Reading {
    old: Content,
    new: Content,
    differing: Vec<Range<u64>>,
}

/// How much a file has, and its hash.
#[derive(PartialEq)]
struct Content {
    len: u64,
    hash: [u8; 32],
}

impl Reading {
    /// Reads both to their ends. Behind the end of the shorter one are zeros.
    fn of(old: &File, new: &File) -> io::Result<Reading> {
        let (mut ours, mut theirs) = (vec![0; READ_AT_ONCE], vec![0; READ_AT_ONCE]);
        let (mut old_hasher, mut new_hasher) = (blake3::Hasher::new(), blake3::Hasher::new());
        let (mut at, mut differing) = (0, Vec::<Range<u64>>::new());
        loop {
            let (old_len, new_len) = (fill(old, &mut ours)?, fill(new, &mut theirs)?);
            if old_len.max(new_len) == 0 {
                let content = |hasher: blake3::Hasher| Content { len: hasher.count(), hash: hasher.finalize().into() };
                return Ok(Reading { old: content(old_hasher), new: content(new_hasher), differing });
            }
            old_hasher.update(&ours[..old_len]);
            new_hasher.update(&theirs[..new_len]);
            ours[old_len..].fill(0);
            theirs[new_len..].fill(0);
            for (grain, other) in ours.chunks(GRAIN).zip(theirs.chunks(GRAIN)) {
                let part = at..at + GRAIN as u64;
                at = part.end;
                match differing.last_mut() {
                    _ if grain == other => {}
                    Some(last) if last.end == part.start => last.end = part.end,
                    _ => differing.push(part),
                }
            }
        }
    }
}

/// Reads until a buffer is full or the file ends.
fn fill(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The record of a clone that is on its new master.
fn arrived(begun: &CloneRecord) -> CloneRecord {
    let mut record = begun.clone();
    if let Some(MovingTo { image, release, master }) = record.moving_to.take() {
        (record.image, record.release, record.master) = (image, release, master);
    }
    record
}
