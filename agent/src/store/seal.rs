//! From complete to sealed: the master gets its lasting place, and nothing may write to it any more.
//!
//! The steps, each of which may be the last before a power cut, and each of which can be done again:
//! everything is durable → what the file is now is noted → the folder moves from `incoming` to `masters` → both folders
//! are synced → the journal goes (all of it but the note in `drover_durability`) → mode 0444 → immutable, where it works.
//! Opening the store goes on where this stopped.
//!
//! Mode 0444 stops everybody but root. Immutable (`chattr +i`) stops root too, until root takes it off; it needs
//! CAP_LINUX_IMMUTABLE and a filesystem that has it. It also stops hard links to the master, so whoever wants one has
//! to do without: hand-over makes reflinks, overlays and copies, which it allows.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use drover_durability::{NotDurable, drop_journal, make_durable, move_to_masters, undo_move};
use drover_protocol::id::ImageId;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use serde::{Deserialize, Serialize};

use super::disk_error::{DiskError, Doing};
use super::fault::{Step, reach};
use super::host_disk::HostDisk;
use super::image::{CheckpointError, Image};
use super::layout::DISK;
use super::open::{LoadError, load_master};
use super::verify::note_verified;
use super::{Master, MasterInfo, Settings, Store};
use crate::clock;

/// What protects a master from being written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SealLevel {
    /// Nothing: somebody made it writable. A verification that finds it good seals it again.
    Broken,
    /// Nothing but watching: it is the user's own file, served in place.
    Watched,
    /// Mode 0444: nobody but root can write.
    Mode,
    /// Immutable: root can't write either.
    Immutable,
}

/// Why a master is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No such image is coming in.
    #[error("image {0} is not in the store; fetch it first")]
    Unknown(ImageId),
    /// Chunks are missing.
    #[error("image {image} lacks {missing} chunks; it is sealed when they have come")]
    Incomplete {
        /// The image.
        image: ImageId,
        /// How many chunks are missing.
        missing: u32,
    },
    /// Its last chunks could not be made durable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is in its place, but can't be read back.
    #[error("the sealed master can't be read back: {0}")]
    ReadBack(String),
}

impl Store {
    /// Seals a master of which every chunk is held. Of one that is sealed already, gives what is known of it.
    pub fn seal(&self, image: ImageId) -> Result<MasterInfo, SealError> {
        let _change = self.changes();
        let incoming = self.shelf().incoming.get(&image).cloned();
        let Some(incoming) = incoming else {
            return self.master(image).ok_or(SealError::Unknown(image));
        };
        let is_placed = undo_move(&self.inner.layout, image)?;
        if !is_placed {
            make_durable(clock::now(), incoming.inner()).map_err(|error| match error {
                NotDurable::Checkpoint(error) => SealError::Checkpoint(error),
                NotDurable::Disk(error) => SealError::Disk(error),
                NotDurable::Incomplete { missing } => SealError::Incomplete { image, missing },
            })?;
            let path = incoming.path();
            let facts = incoming.content().and_then(|file| file.metadata()).doing("look at", &path)?;
            note_verified(&self.inner.layout.incoming_of(image), &facts)?;
        }
        self.move_to_masters(&incoming)
    }

    fn move_to_masters(&self, incoming: &Arc<Image>) -> Result<MasterInfo, SealError> {
        let (layout, id) = (&self.inner.layout, incoming.id());
        let mut sealed = None;
        incoming.inner().become_sealed(|| {
            if let Some(left) = move_to_masters(layout, id)? {
                tracing::warn!("{left}; it is tried again at the next start");
            }
            let mut master = load_master(&layout.master_of(id), id, self.inner.settings)?;
            master.image = Arc::downgrade(incoming);
            let path = master.info.path.clone();
            let file = File::open(&path).doing("open", &path)?;
            sealed = Some(master);
            Ok::<_, SealError>((file, path))
        })?;
        let master = sealed.expect("a seal that succeeded has made a master");
        Ok(self.shelve(id, master))
    }

    /// Lists a master as one that is held, and no longer as one that comes in.
    pub(super) fn shelve(&self, id: ImageId, master: Master) -> MasterInfo {
        let info = master.info();
        let mut shelf = self.shelf();
        shelf.masters.insert(id, master);
        shelf.incoming.remove(&id);
        info
    }
}

impl From<LoadError> for SealError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Disk(error) => SealError::Disk(error),
            other => SealError::ReadBack(other.to_string()),
        }
    }
}

impl SealLevel {
    /// What protects the sealed file at a path now.
    pub(super) fn of(path: &Path) -> SealLevel {
        let Ok(file) = File::open(path) else { return SealLevel::Broken };
        let mode = file.metadata().map_or(0o222, |facts| facts.permissions().mode());
        if mode & 0o222 != 0 {
            return SealLevel::Broken;
        }
        let immutable = ioctl_getflags(&file).is_ok_and(|flags| flags.contains(IFlags::IMMUTABLE));
        if immutable { SealLevel::Immutable } else { SealLevel::Mode }
    }
}

/// Does what is left to do of the seal of the master in `folder`; says how far it got.
pub(super) fn finish_seal(folder: &Path, settings: Settings) -> Result<SealLevel, DiskError> {
    drop_journal(&HostDisk, folder)?;
    let path = folder.join(DISK);
    let file = File::open(&path).doing("open", &path)?;
    let mode = file.metadata().doing("look at", &path)?.permissions().mode();
    if mode & 0o7777 != SEALED_MODE {
        file.set_permissions(Permissions::from_mode(SEALED_MODE)).doing("seal", &path)?;
        file.sync_all().doing("sync", &path)?;
    }
    let immutable = settings.immutable && make_immutable(&file);
    reach(Step::Sealed).doing("seal", &path)?;
    Ok(if immutable { SealLevel::Immutable } else { SealLevel::Mode })
}

/// Takes the immutable flag off, so that the file can be removed; where that fails, removing it will say so.
pub(super) fn unseal(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    if let Ok(flags) = ioctl_getflags(&file)
        && flags.contains(IFlags::IMMUTABLE)
    {
        let _ = ioctl_setflags(&file, flags - IFlags::IMMUTABLE);
    }
}

fn make_immutable(file: &File) -> bool {
    let Ok(flags) = ioctl_getflags(file) else { return false };
    flags.contains(IFlags::IMMUTABLE) || ioctl_setflags(file, flags | IFlags::IMMUTABLE).is_ok()
}

const SEALED_MODE: u32 = 0o444;
