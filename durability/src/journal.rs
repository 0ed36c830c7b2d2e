//! Which chunks of an incoming master are on the disk for certain.
//!
//! A file of records, each the runs of chunks that one checkpoint made durable. A record is appended only after the
//! data that it speaks of was synced, so whatever of the journal survives a crash claims less than the disk holds,
//! never more. Every record carries a tag keyed by the image's id, over its number, its length and its runs: reading
//! stops at the first record that is torn, altered, out of turn or of another image, and the file is cut there.
//!
//! ```text
//! file    "drvjrnl1" record*
//! record  length of body: u32   sequence: u64   body: postcard of [(gap, count)]   tag: 32 bytes      (little endian)
//! ```
//!
//! When a record could not be synced, nobody knows what of it is on the disk, and a later record behind a bad one
//! would be lost with it. Such a journal is `suspect`; the next append writes it anew as one record under a new name
//! and renames it. The same keeps a journal short that has had very many checkpoints. A journal that was read back is
//! written anew, too: what reads see of it may be nothing but the page cache's, if the process before had an error and was
//! killed.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use drover_protocol::geometry::{ChunkIndex, Geometry};
use drover_protocol::have::ChunkSet;
use drover_protocol::id::ImageId;
use drover_protocol::planted::{Bug, is_planted};

use crate::disk::{Access, Disk, DiskFile, Step};
use crate::disk_error::{DiskError, Doing};
use crate::layout::write_file;

/// The journal of one incoming master.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    file: D::File,
    path: PathBuf,
    key: [u8; 32],
    /// Where the next record goes.
    end: u64,
    records: u32,
    claimed: ChunkSet,
    suspect: bool,
    /// Whether its records were written by an earlier process.
    inherited: bool,
}

impl<D: Disk + Clone> Journal<D> {
    /// An empty journal, durable but for its name.
    pub fn create(disk: &D, path: &Path, image: ImageId, geometry: &Geometry) -> Result<Self, DiskError> {
        write_file(disk, path, MAGIC)?;
        Self::open(disk, path, image, geometry)
    }

    /// The journal as far as it is whole; the rest is cut off.
    pub fn open(disk: &D, path: &Path, image: ImageId, geometry: &Geometry) -> Result<Self, DiskError> {
        let file = match disk.open(path, Access::Write) {
            Err(error) if error.kind() == ErrorKind::NotFound => disk.create_new(path),
            opened => opened,
        };
        let file = file.doing("open", path)?;
        let bytes = disk.read(path, max_len(geometry)).doing("read", path)?;

        let key = blake3::derive_key("drover 2026 journal record", image.as_bytes());
        let claimed = ChunkSet::empty(geometry);
        let (disk, path) = (disk.clone(), path.to_owned());
        let mut journal =
            Journal { disk, file, path, key, end: 0, records: 0, claimed, suspect: false, inherited: false };
        journal.replay(&bytes);
        journal.inherited = journal.records > 0;
        journal.file.set_len(journal.end).doing("cut", &journal.path)?;
        Ok(journal)
    }

    /// Claims that these chunks are durable. If this fails nothing more is claimed than before, and it can be tried
    /// again.
    pub fn append(&mut self, chunks: &ChunkSet) -> Result<(), DiskError> {
        if self.suspect || self.inherited || self.records >= MAX_RECORDS {
            return self.rewrite(chunks);
        }
        let record = self.record(self.records, chunks);
        let written = self.disk.reach(Step::AppendJournal).and_then(|()| self.file.write_all_at(&record, self.end));
        if let Err(error) = written {
            // What was written of it is bad by its tag in any case; without it the file is as it was.
            self.suspect = self.file.set_len(self.end).is_err();
            return Err(error).doing("write", &self.path);
        }
        if let Err(error) = self.disk.reach(Step::SyncJournal).and_then(|()| self.sync()) {
            self.suspect = true;
            return Err(error).doing("sync", &self.path);
        }
        self.end += record.len() as u64;
        self.records += 1;
        add_all(&mut self.claimed, chunks);
        self.disk.reach(Step::JournalSynced).doing("sync", &self.path)
    }

    /// Takes claims back, because the disk has lost what they spoke of. Durable with the next append.
    pub fn revoke(&mut self, chunks: impl IntoIterator<Item = ChunkIndex>) {
        for chunk in chunks {
            self.suspect |= self.claimed.remove(chunk);
        }
    }

    /// Whether the next append has something to do even without new chunks.
    pub const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The chunks that are durable.
    pub const fn claimed(&self) -> &ChunkSet {
        &self.claimed
    }

    fn sync(&self) -> std::io::Result<()> {
        if is_planted(Bug::SkipJournalSync) { Ok(()) } else { self.file.sync_data() }
    }

    fn rewrite(&mut self, chunks: &ChunkSet) -> Result<(), DiskError> {
        let mut claimed = self.claimed.clone();
        add_all(&mut claimed, chunks);
        let bytes = [MAGIC, &self.record(0, &claimed)].concat();
        self.disk.reach(Step::AppendJournal).doing("write", &self.path)?;
        write_file(&self.disk, &self.path, &bytes)?;
        self.file = self.disk.open(&self.path, Access::Write).doing("open", &self.path)?;
        (self.end, self.records, self.claimed, self.suspect) = (bytes.len() as u64, 1, claimed, false);
        self.inherited = false;
        Ok(())
    }

    fn replay(&mut self, bytes: &[u8]) {
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
            // Not even a beginning: nothing is claimed, and the next append starts afresh.
            self.suspect = true;
            return;
        };
        self.end = MAGIC.len() as u64;
        while let Some((record_len, runs)) = self.first_record(rest) {
            for run in runs {
                self.claimed.insert_run(run);
            }
            self.end += record_len as u64;
            self.records += 1;
            rest = &rest[record_len..];
        }
    }

    fn first_record(&self, bytes: &[u8]) -> Option<(usize, Vec<Range<u32>>)> {
        let (head, rest) = bytes.split_at_checked(HEAD_LEN)?;
        let body_len = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
        let sequence = u64::from_le_bytes(head[4..].try_into().ok()?);
        let (body, rest) = rest.split_at_checked(body_len)?;
        let (tag, _) = rest.split_at_checked(TAG_LEN)?;
        // The comparison need not hide its time: who can try tags here can also write the disk.
        let is_whole = self.tag(head, body) == tag || is_planted(Bug::IgnoreTag);
        if sequence != u64::from(self.records) || !is_whole {
            return None;
        }
        Some((HEAD_LEN + body_len + TAG_LEN, read_runs(body, self.claimed.bound())?))
    }

    fn record(&self, sequence: u32, chunks: &ChunkSet) -> Vec<u8> {
        let mut after = 0;
        let runs: Vec<(u32, u32)> = chunks
            .runs()
            .map(|run| {
                let gap = run.start - after;
                after = run.end;
                (gap, run.end - run.start)
            })
            .collect();
        let body = postcard::to_stdvec(&runs).expect("numbers can be written");
        let mut record = Vec::with_capacity(HEAD_LEN + body.len() + TAG_LEN);
        record.extend((body.len() as u32).to_le_bytes());
        record.extend(u64::from(sequence).to_le_bytes());
        record.extend(&body);
        let tag = self.tag(&record[..HEAD_LEN], &body);
        record.extend(tag);
        record
    }

    fn tag(&self, head: &[u8], body: &[u8]) -> [u8; TAG_LEN] {
        blake3::Hasher::new_keyed(&self.key).update(head).update(body).finalize().into()
    }
}

fn read_runs(body: &[u8], bound: u32) -> Option<Vec<Range<u32>>> {
    let runs: Vec<(u32, u32)> = postcard::from_bytes(body).ok()?;
    let mut after = 0u32;
    runs.into_iter()
        .map(|(gap, count)| {
            let start = after.checked_add(gap)?;
            let end = start.checked_add(count).filter(|&end| end <= bound)?;
            after = end;
            Some(start..end)
        })
        .collect()
}

/// Adds the members of one set to another of the same image.
pub(crate) fn add_all(set: &mut ChunkSet, more: &ChunkSet) {
    for run in more.runs() {
        set.insert_run(run);
    }
}

/// What a journal of this image can be at most: each chunk is claimed once, but for one record that was written twice.
fn max_len(geometry: &Geometry) -> u64 {
    let records = u64::from(MAX_RECORDS + 1) * (HEAD_LEN + TAG_LEN + 16) as u64;
    records + u64::from(geometry.chunk_count()) * 2 * 10
}

const MAGIC: &[u8] = b"drvjrnl1";
const HEAD_LEN: usize = 12;
const TAG_LEN: usize = 32;
/// Half an hour of checkpoints, less than 100 KiB; reading them back takes a millisecond.
const MAX_RECORDS: u32 = 1024;
