//! Clones that are full copies: the technique that works everywhere, and costs the most.
//!
//! Only data is read and written. What is a hole in the master stays one, and what is data but zero becomes one, so a
//! copy never takes more room than its master and often less.
//!
//! Whoever copies a master reads all of it anyway, so it is hashed on the way, holes as well: what the disk damaged unnoticed
//! would be the copy's own from then on, and nothing could tell it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use blake3::Hasher;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::choice::DriverName;
use super::driver::{
    Driver, Inspection, Job, Made, MakeError, Site, Unusable, refuse_pool, refuse_profile, refuse_room,
};
use super::record::CloneRecord;
use super::target::{Target, make_empty};
use super::verify::{inspect_raw, is_raw_of};
use crate::quantity::Bytes;

/// How much is read at once, in bytes: enough that system calls don't count.
const READ_LEN: usize = 1 << 20;
/// Unit in which zeros are looked for, in bytes: the block of most file systems.
const BLOCK_LEN: usize = 4096;
/// Room that is left to the file system's own books, in bytes.
const SPARE_LEN: u64 = 1 << 20;

/// Makes clones by copying.
#[derive(Debug)]
pub(super) struct Copy;

impl Driver for Copy {
    fn name(&self) -> DriverName {
        DriverName::Copy
    }

    fn note(&self) -> &'static str {
        "full raw copy that keeps holes; works everywhere, takes as much time and disk as the master has data"
    }

    fn needs_master(&self) -> bool {
        false
    }

    fn available(&self, target: &Target) -> Result<(), Unusable> {
        target.folder().map(drop)
    }

    fn probe(&self, job: &Job<'_>) -> Result<(), Unusable> {
        refuse_profile(self.name(), job)?;
        refuse_room(self.name(), job)?;
        refuse_pool(self.name(), job)?;
        refuse_long(job.target.folder()?, job.disk_len)?;
        refuse_full(job.target.folder()?, job.source.data_len.saturating_mul(job.count))
    }

    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError> {
        make_empty(site.temporary)?;
        let clone = OpenOptions::new().write(true).open(site.temporary).map_err(MakeError::io("open the new file"))?;
        clone.set_len(job.disk_len).map_err(MakeError::io("set the length of the new file"))?;
        copy_master(job, &clone)?;
        clone.sync_all().map_err(MakeError::io("sync the new file"))?;
        Ok(Made::default())
    }

    fn is_long_enough(&self, record: &CloneRecord) -> Option<bool> {
        is_raw_of(record)
    }

    fn verify(&self, record: &CloneRecord) -> Inspection {
        inspect_raw(record)
    }
}

/// Refuses a folder that has no room for a copy of so much data.
pub(super) fn refuse_full(folder: &Path, data_len: u64) -> Result<(), Unusable> {
    let shown = folder.display();
    let room =
        rustix::fs::statvfs(folder).map_err(|e| Unusable(format!("can't tell how much room {shown} has: {e}")))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let needed = data_len.saturating_add(SPARE_LEN);
    if needed <= free {
        return Ok(());
    }
    Err(Unusable(format!(
        "a copy needs {} MiB and {shown} has {} MiB free; free some or choose another folder",
        needed.div_ceil(1 << 20),
        free >> 20
    )))
}

/// Refuses a folder whose file system holds no file of such a length.
pub(super) fn refuse_long(folder: &Path, len: u64) -> Result<(), Unusable> {
    let shown = folder.display();
    let nameless = tempfile::tempfile_in(folder)
        .map_err(|e| Unusable(format!("can't make a file in {shown} to try it with: {e}")))?;
    let holds = |len: u64| nameless.set_len(len).is_ok();
    if holds(len) {
        return Ok(());
    }
    let most = (0..63).rev().fold(0, |most, bit| if holds(most | 1 << bit) { most | 1 << bit } else { most });
    Err(Unusable(format!(
        "a file of {} is too large: the file system of {shown} holds {} at the most",
        Bytes(len),
        Bytes(most)
    )))
}

/// Copies what is data in the master and not zero to where there are zeros, and makes sure that the master has its content.
pub(super) fn copy_master(job: &Job<'_>, to: &File) -> Result<(), MakeError> {
    let (from, len) = (&job.source.file, job.source.identity.len);
    let (mut hasher, mut buffer, mut at) = (Hasher::new(), vec![0; READ_LEN], 0);
    while let Some((start, end)) = next_data(from, at, len)? {
        hash_hole(&mut hasher, start - at);
        copy_run(from, to, start, end, &mut buffer, &mut hasher)?;
        at = end;
    }
    hash_hole(&mut hasher, len - at);
    if hasher.finalize().as_bytes() == job.master.content_hash.as_bytes() {
        return Ok(());
    }
    let (path, label) = (job.master.path.display(), job.master.label());
    Err(MakeError::DamagedMaster(format!(
        "the master's file {path} is damaged, and a copy would be as well; `drover verify {label}` tells what is damaged, and \
         `drover fetch {label}` mends it"
    )))
}

/// Hashes so many zeros, which a hole is read as.
fn hash_hole(hasher: &mut Hasher, len: u64) {
    let (zeros, mut left) = ([0; 1 << 16], len);
    while left > 0 {
        let part_len = left.min(zeros.len() as u64);
        hasher.update(&zeros[..part_len as usize]);
        left -= part_len;
    }
}

/// The next run of data at or after `from`, as start and end in bytes; on file systems that know no holes, all the rest.
pub(super) fn next_data(file: &File, from: u64, len: u64) -> Result<Option<(u64, u64)>, MakeError> {
    if from >= len {
        return Ok(None);
    }
    let failed = |e: Errno| MakeError::io("look for holes")(e.into());
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((from, len))),
        Err(e) => return Err(failed(e)),
    };
    let end = seek(file, SeekFrom::Hole(start)).map_err(failed)?.min(len);
    Ok((start < end).then_some((start, end)))
}

fn copy_run(
    from: &File,
    to: &File,
    start: u64,
    end: u64,
    buffer: &mut [u8],
    hasher: &mut Hasher,
) -> Result<(), MakeError> {
    let mut at = start;
    while at < end {
        let part_len = (end - at).min(buffer.len() as u64) as usize;
        let part = &mut buffer[..part_len];
        from.read_exact_at(part, at).map_err(MakeError::io("read the master"))?;
        hasher.update(part);
        write_data(to, part, at).map_err(MakeError::io("write the new file"))?;
        at += part_len as u64;
    }
    Ok(())
}

/// Writes to an empty file what is not zero of these bytes, and gives it their length.
pub(super) fn write_sparse(to: &File, bytes: &[u8]) -> std::io::Result<()> {
    to.set_len(bytes.len() as u64)?;
    write_data(to, bytes, 0)
}

/// Writes what is not zero, in as few calls as there are runs of it.
fn write_data(to: &File, part: &[u8], at: u64) -> std::io::Result<()> {
    let mut pending = 0..0;
    for (index, block) in part.chunks(BLOCK_LEN).enumerate() {
        let start = index * BLOCK_LEN;
        if block.iter().any(|&byte| byte != 0) {
            if pending.is_empty() {
                pending.start = start;
            }
            pending.end = start + block.len();
        } else if !pending.is_empty() {
            to.write_all_at(&part[pending.clone()], at + pending.start as u64)?;
            pending = 0..0;
        }
    }
    if pending.is_empty() { Ok(()) } else { to.write_all_at(&part[pending.clone()], at + pending.start as u64) }
}
