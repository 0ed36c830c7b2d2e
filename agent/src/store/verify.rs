//! Reads an image back and makes sure that every chunk is what the manifest says.
//!
//! What is found damaged is not served any more: a receiver would notice, and blame this host. The finding is kept
//! beside the master until a later verification finds it whole. A sealed master is not mended where it lies, because it
//! may be the backing file of a running clone; fetching it again makes a new one from what is good of it.
//!
//! What the file was whose bytes were compared (its length, inode and time of modification) is noted beside it, when it is
//! sealed and when it is found whole again. As long as the file is that one, nobody wrote to it since, and clones are made.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

use drover_protocol::geometry::{ChunkIndex, Geometry};
use drover_protocol::id::ImageId;

use super::disk_error::{DiskError, Doing};
use super::image::Image;
use super::layout::write_file;
use super::scan::{Pace, Scan, ScanError, Scanned, scan};
use super::seal::finish_seal;
use super::{MasterInfo, Store, layout};
use crate::handover::{FileIdentity, NEVER_NOTED};

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyReport {
    /// Chunks that were held and are not what the manifest says, in rising order.
    pub bad: Vec<ChunkIndex>,
    /// Whether the whole content has its hash; `None` of an image that is not complete.
    pub content_ok: Option<bool>,
}

impl VerifyReport {
    /// Whether nothing was found.
    pub fn is_good(&self) -> bool {
        self.bad.is_empty() && self.content_ok != Some(false)
    }
}

/// Why a verification gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No such image.
    #[error("image {0} is not in the store")]
    Unknown(ImageId),
    /// It is in place, and its file changed.
    #[error("image {image} is withdrawn: {reason}; publish the file again")]
    Changed {
        /// The image.
        image: ImageId,
        /// What was noticed.
        reason: String,
    },
    /// Somebody ended it.
    #[error("the verification was cancelled")]
    Cancelled,
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Store {
    /// Hashes all of an image and calls `progress` with bytes done and bytes in all. Of one that comes in for the first time only
    /// held chunks count; while a master comes in anew, it is the one that is there that is read. Damaged chunks are not
    /// held any more afterwards.
    pub fn verify(
        &self,
        image: ImageId,
        pace: Pace,
        progress: &dyn Fn(u64, u64),
        cancel: &AtomicBool,
    ) -> Result<VerifyReport, VerifyError> {
        let Some(used) = self.sealed_image(image).or_else(|| self.image(image)) else {
            return Err(self.unusable(image));
        };
        if let Some(watch) = used.watch() {
            watch.check().map_err(|reason| VerifyError::Changed { image, reason })?;
        }
        let path = used.path();
        let len = used.manifest().geometry().len();
        let (expected, complete) = (used.held(), used.is_sealed());
        // What clones read is what is there under its name; who serves it may have an older file open.
        let file = if complete { File::open(&path) } else { used.content() }.doing("open", &path)?;
        let before = file.metadata().doing("look at", &path)?;
        let job = Scan { file: &file, path: &path, len, sink: None, tolerant: true, pace, cancel };
        let scanned = scan(job, &|done| progress(done, len))?;
        let wrong = |chunk: &ChunkIndex| {
            let counts = complete || expected.contains(*chunk);
            counts && (is_wrong(&used, &scanned, *chunk) || (complete && !is_covered(&used, *chunk, before.len())))
        };
        let bad: Vec<ChunkIndex> = used.manifest().geometry().chunks().filter(wrong).collect();
        let content_ok = complete.then(|| bad.is_empty() && scanned.content_hash == used.manifest().content_hash());
        if complete && used.watch().is_none() {
            serve_from(&used, file, &before).doing("open", &path)?;
        }
        self.note_damage(&used, &bad)?;
        if complete {
            self.note_checked(image)?;
        }
        if content_ok == Some(true) && used.watch().is_none() {
            finish_seal(&self.inner.layout.master_of(image), self.inner.settings)?;
            self.note_whole(image, FileIdentity::of(&before))?;
        }
        Ok(VerifyReport { bad, content_ok })
    }

    /// Why there is nothing to be read of an image.
    fn unusable(&self, image: ImageId) -> VerifyError {
        let opened = self.master(image).map(|master| File::open(&master.path).doing("open", &master.path));
        opened.and_then(Result::err).map_or(VerifyError::Unknown(image), VerifyError::Disk)
    }

    /// Notes that a file was found whole, if it is still the master's and nobody wrote to it meanwhile.
    fn note_whole(&self, image: ImageId, verified: FileIdentity) -> Result<(), DiskError> {
        let folder = self.inner.layout.master_of(image);
        let path = folder.join(layout::DISK);
        let now = fs::metadata(&path).doing("look at", &path)?;
        let mut shelf = self.shelf();
        let Some(master) = shelf.masters.get_mut(&image) else { return Ok(()) };
        if FileIdentity::of(&now) == verified && master.info.verified != Some(verified) {
            note_verified(&folder, &now)?;
            master.info.verified = Some(verified);
        }
        Ok(())
    }

    fn note_checked(&self, image: ImageId) -> Result<(), DiskError> {
        let now_s = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let folder = self.inner.layout.master_of(image);
        let mut shelf = self.shelf();
        let Some(master) = shelf.masters.get_mut(&image) else { return Ok(()) };
        master.info.checked_at_unix_s = now_s;
        write_file(&folder.join(layout::CHECKED), now_s.to_string().as_bytes())
    }

    fn note_damage(&self, image: &Arc<Image>, bad: &[ChunkIndex]) -> Result<(), DiskError> {
        if let (Some(watch), Some(first)) = (image.watch(), bad.first()) {
            let reason = format!("chunk {} of {} is not what was published", first.number(), watch.path().display());
            watch.withdraw(reason);
            return Ok(());
        }
        image.give_up(bad);
        let folder = self.inner.layout.master_of(image.id());
        let mut shelf = self.shelf();
        let Some(master) = shelf.masters.get_mut(&image.id()) else { return Ok(()) };
        if master.image.upgrade().is_none_or(|now| !Arc::ptr_eq(&now, image)) {
            // Another has taken its place meanwhile.
            return Ok(());
        }
        if master.damaged != bad {
            master.damaged = bad.to_vec();
            save_damage(&folder, bad)?;
        }
        image.hold_all_but(bad);
        Ok(())
    }
}

/// Has a sealed image read from the file that was verified, if it had another open: one was put in its place.
fn serve_from(image: &Image, file: File, facts: &fs::Metadata) -> std::io::Result<()> {
    let serving = image.content()?.metadata()?;
    if (serving.dev(), serving.ino()) == (facts.dev(), facts.ino()) {
        return Ok(());
    }
    let path = image.path();
    image.inner().become_sealed(|| Ok((file, path)))
}

fn is_wrong(image: &Image, scanned: &Scanned, chunk: ChunkIndex) -> bool {
    let number = chunk.number();
    image.manifest().chunk_hash(chunk) != scanned.chunks[number as usize] || scanned.unread.contains(&number)
}

/// Whether a file of this length has all of a chunk, and nothing behind the last one.
fn is_covered(image: &Image, chunk: ChunkIndex, file_len: u64) -> bool {
    let geometry = image.manifest().geometry();
    let end = geometry.chunk_offset(chunk) + u64::from(geometry.chunk_len(chunk));
    end <= file_len && (end < geometry.len() || file_len == geometry.len())
}

fn save_damage(folder: &Path, bad: &[ChunkIndex]) -> Result<(), DiskError> {
    let numbers: Vec<u32> = bad.iter().map(|chunk| chunk.number()).collect();
    write_file(&folder.join(layout::DAMAGED), &serde_json::to_vec(&numbers).expect("numbers can be written"))
}

/// The chunks of the master in `folder` that were found damaged. Notes that can't be read are as none: the next
/// verification finds the damage again, and until then receivers do.
pub(super) fn load_damage(folder: &Path, geometry: &Geometry) -> Vec<ChunkIndex> {
    load_numbers(folder).into_iter().filter_map(|number| geometry.chunk(number)).collect()
}

pub(super) fn load_numbers(folder: &Path) -> Vec<u32> {
    let bytes = fs::read(folder.join(layout::DAMAGED)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Notes what the file of the master in `folder` is, whose bytes are right.
pub(super) fn note_verified(folder: &Path, facts: &fs::Metadata) -> Result<(), DiskError> {
    let json = serde_json::to_vec(&FileIdentity::of(facts)).expect("numbers can be written");
    write_file(&folder.join(layout::VERIFIED), &json)
}

/// What the file of the master in `folder` was when its bytes were last found right. Notes that can't be read are as none:
/// the next verification makes them anew.
pub(super) fn load_verified(folder: &Path) -> Option<FileIdentity> {
    serde_json::from_slice(&fs::read(folder.join(layout::VERIFIED)).ok()?).ok()
}

impl MasterInfo {
    /// Whether its file is not there any more, whoever removed it.
    pub fn is_gone(&self) -> bool {
        matches!(self.path.try_exists(), Ok(false))
    }

    /// Why its bytes may not be right any more, without reading them: its file is not the one that was compared last.
    pub fn doubt(&self) -> Option<String> {
        let Some(verified) = &self.verified else { return Some(NEVER_NOTED.to_owned()) };
        match fs::metadata(&self.path) {
            Ok(now) => verified.difference(&FileIdentity::of(&now)),
            Err(error) => Some(format!("its file can't be looked at: {error}")),
        }
    }
}

/// What is noted beside a master's file, for who has not the store open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Noted {
    /// Number of chunks that the last verification found damaged.
    pub(crate) damaged_chunks: usize,
    /// What the file was when it was last found right; an earlier version noted nothing.
    pub(crate) verified: Option<FileIdentity>,
}

impl Noted {
    /// Of the master whose file this is. Notes that can't be read are as none.
    pub(crate) fn beside(disk: &Path) -> Self {
        let folder = disk.parent().unwrap_or(disk);
        Noted { damaged_chunks: load_numbers(folder).len(), verified: load_verified(folder) }
    }
}

/// When the master in `folder` was last verified, if it was since it came in.
pub(super) fn load_checked(folder: &Path) -> Option<u64> {
    fs::read_to_string(folder.join(layout::CHECKED)).ok()?.trim().parse().ok()
}

impl From<ScanError> for VerifyError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Disk(error) => VerifyError::Disk(error),
            ScanError::Cancelled => VerifyError::Cancelled,
        }
    }
}
