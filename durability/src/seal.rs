//! From complete to sealed: the steps that a crash may cut in two, each of which can be done again.
//!
//! Everything is durable → the folder moves from `incoming` to `masters` → both folders are synced → the journal goes. What
//! protects the file from then on (its mode, a flag) is the driver's.

use std::io::ErrorKind;
use std::path::Path;

use drover_protocol::id::ImageId;
use drover_protocol::planted::{Bug, is_planted};
use drover_protocol::time::Instant;

use crate::disk::{Disk, DiskFile, Step};
use crate::disk_error::{DiskError, Doing};
use crate::image::{CheckpointError, Image};
use crate::layout::{DISK, JOURNAL, Layout, move_or_exchange, sync_folder};

/// Why an image may not be sealed yet.
#[derive(Debug, thiserror::Error)]
pub enum NotDurable {
    /// Its last chunks could not be made durable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Chunks are missing.
    #[error("{missing} chunks are missing")]
    Incomplete {
        /// How many.
        missing: u32,
    },
}

/// Makes everything of an incoming image durable, if every chunk of it is held: then it may be sealed.
pub fn make_durable<D: Disk + Clone>(now: Instant, image: &Image<D>) -> Result<(), NotDurable> {
    image.checkpoint(now)?;
    let path = image.path();
    image.with_file(|file| file.sync_all()).doing("sync", &path)?;
    if !image.is_durable() {
        let missing = image.manifest().data_chunks().count() - image.held().count();
        return Err(NotDurable::Incomplete { missing });
    }
    Ok(())
}

/// Takes back the move of a seal that failed behind it, so that the journal is again where the image writes it: a chunk may
/// have been given up since. Says whether there is nothing to take back, because the seal came as far as to remove the
/// journal: then the master is durably in its place, and what is left is to finish the seal.
pub fn undo_move<D: Disk + Clone>(layout: &Layout<D>, id: ImageId) -> Result<bool, DiskError> {
    let (disk, from, to) = (layout.disk(), layout.incoming_of(id), layout.master_of(id));
    if disk.exists(&from.join(JOURNAL)) || !disk.exists(&to) {
        return Ok(false);
    }
    if !disk.exists(&to.join(JOURNAL)) {
        return Ok(true);
    }
    move_or_exchange(disk, &to, &from)?;
    Ok(false)
}

/// Moves the image to the masters, durably. There may be a spoilt master of the same image, which it replaces: at no moment is
/// there none. Gives an error of removing that one, which is tried again at the next start.
pub fn move_to_masters<D: Disk + Clone>(layout: &Layout<D>, id: ImageId) -> Result<Option<DiskError>, DiskError> {
    let (disk, from, to) = (layout.disk(), layout.incoming_of(id), layout.master_of(id));
    disk.reach(Step::SealSynced).doing("sync", &from.join(DISK))?;
    // Not there, or without its journal, only if an earlier try came this far and failed behind it.
    if disk.exists(&from.join(JOURNAL)) {
        move_or_exchange(disk, &from, &to)?;
        disk.reach(Step::SealMoved).doing("sync", &to)?;
    }
    if !is_planted(Bug::SealUnsynced) {
        sync_folder(disk, &layout.masters())?;
        sync_folder(disk, &layout.incoming())?;
    }
    // The spoilt master that this one replaces. Who has it open keeps it.
    let left = if disk.exists(&from) { layout.discard(&from)? } else { None };
    disk.reach(Step::SealPlaced).doing("sync", &to)?;
    Ok(left)
}

/// Removes the journal of the master in `folder`, durably, if a seal was cut short before that.
pub fn drop_journal<D: Disk>(disk: &D, folder: &Path) -> Result<(), DiskError> {
    let journal = folder.join(JOURNAL);
    match disk.remove_file(&journal) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        removed => {
            removed.doing("remove", &journal)?;
            sync_folder(disk, folder)?;
        }
    }
    disk.reach(Step::SealUnjournaled).doing("seal", &folder.join(DISK))
}
