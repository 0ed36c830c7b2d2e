//! Removing a master: by reference, never by age.
//!
//! A clone's record names the master that backs it. Records are read under the lock that making a clone takes, so a
//! master can't go between a clone's check and its record. Of the records only the two fields are read that say which
//! clone needs which master; what else is in them is the hand-over's business.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use drover_protocol::id::ImageId;
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use super::Store;
use super::disk_error::{DiskError, Doing};

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
    /// A clone record is no record, so nobody knows which master it needs.
    #[error("clone record {} can't be understood: {reason}; mend or remove it, then try again", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What a clone record says about masters.
#[derive(Deserialize)]
struct Record {
    name: String,
    image: ImageId,
}

impl Store {
    /// Removes an image, sealed, in place or incoming, unless a clone needs it. Who still has it open finds it empty.
    /// Of a master in place the user's file stays.
    pub fn remove(&self, image: ImageId) -> Result<(), RemoveError> {
        let _change = self.changes();
        let clones_folder = self.inner.layout.clones();
        let _no_new_clones = lock_clones(&clones_folder)?;
        if let Some(clones) = clones_by_image(&clones_folder)?.remove(&image) {
            return Err(RemoveError::Cloned { image, clones });
        }
        let layout = &self.inner.layout;
        let (incoming, master) = {
            let shelf = self.shelf();
            let loaded = shelf.masters.get(&image).map(|master| master.image.upgrade());
            (shelf.incoming.get(&image).cloned(), loaded)
        };
        if incoming.is_none() && master.is_none() {
            return Err(RemoveError::Unknown(image));
        }
        for used in incoming.iter().chain(master.iter().flatten()) {
            used.become_removed();
        }
        if master.is_some() {
            layout.discard(&layout.master_of(image))?;
            self.shelf().masters.remove(&image);
        }
        if incoming.is_some() {
            layout.discard(&layout.incoming_of(image))?;
            self.shelf().incoming.remove(&image);
        }
        Ok(())
    }
}

/// The names of clones by the image that they need.
pub(super) fn clones_by_image(folder: &Path) -> Result<BTreeMap<ImageId, Vec<String>>, RemoveError> {
    let mut clones: BTreeMap<ImageId, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir(folder).doing("list", folder)? {
        let path = entry.doing("list", folder)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = fs::read(&path).doing("read", &path)?;
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|error| RemoveError::Record { path, reason: error.to_string() })?;
        clones.entry(record.image).or_default().push(record.name);
    }
    clones.values_mut().for_each(|names| names.sort_unstable());
    Ok(clones)
}

fn lock_clones(folder: &Path) -> Result<File, DiskError> {
    let path = folder.join(".lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o660)
        .open(&path)
        .doing("open", &path)?;
    flock(&file, FlockOperation::LockExclusive).doing("lock", &path)?;
    Ok(file)
}
