//! Removing a master: by reference, never by age.
//!
//! A clone's record names the master that it began with, and says whether the clone would be lost without it. Records are
//! read under the lock that making a clone takes, so a master can't go between a clone's check and its record. A reflink or a
//! copy outlives it: such a clone holds no master, and its record stays. What was known of its file is noted for those that
//! share blocks with it (see `last_file.rs`).

use drover_protocol::id::ImageId;

use super::Store;
use super::disk_error::DiskError;
use super::last_file::LastFile;
use super::layout::discard;
use crate::handover::record::{ClonesLock, RecordError, clones_of, clones_that_need};

/// Why a master is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// No such image.
    #[error("image {0} is not in the store")]
    Unknown(ImageId),
    /// Clones need it.
    #[error(
        "image {image} is needed by {}: {}; remove {} first (drover clone rm)",
        if clones.len() == 1 { "a clone" } else { "clones" },
        clones.join(", "),
        if clones.len() == 1 { "it" } else { "them" }
    )]
    Cloned {
        /// The image.
        image: ImageId,
        /// The clones' names.
        clones: Vec<String>,
    },
    /// The clone records can't be read, so nobody knows which master they need.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Store {
    /// Removes an image, sealed, in place or incoming, unless a clone needs it. Who still has it open finds it empty.
    /// Of a master in place the user's file stays.
    pub fn remove(&self, image: ImageId) -> Result<(), RemoveError> {
        let _change = self.changes();
        let _no_new_clones = ClonesLock::acquire(self.state())?;
        let clones = clones_that_need(self.state(), image)?;
        if !clones.is_empty() {
            return Err(RemoveError::Cloned { image, clones });
        }
        let layout = &self.inner.layout;
        let (incoming, master) = {
            let shelf = self.shelf();
            let loaded = shelf.masters.get(&image).map(|master| master.image.upgrade());
            (shelf.incoming.get(&image).cloned(), loaded)
        };
        // A folder that could not be read is there without being known.
        let (incoming_folder, master_folder) = (layout.incoming_of(image), layout.master_of(image));
        let (incoming_there, master_there) = (incoming_folder.exists(), master_folder.exists());
        if incoming.is_none() && master.is_none() && !incoming_there && !master_there {
            return Err(RemoveError::Unknown(image));
        }
        for used in incoming.iter().chain(master.iter().flatten()) {
            used.become_removed();
        }
        if master_there {
            LastFile::note(&master_folder, !clones_of(self.state(), image)?.is_empty())?;
            discard(layout, &master_folder)?;
        }
        if master.is_some() {
            self.shelf().masters.remove(&image);
        }
        if incoming_there {
            discard(layout, &incoming_folder)?;
        }
        if incoming.is_some() {
            self.shelf().incoming.remove(&image);
        }
        Ok(())
    }
}
