//! Names in a state folder beside those that `drover_durability` gives, and its file operations on the host's disk.
//!
//! ```text
//! STATE/lock                           held by the one daemon that uses the folder; its process id
//! STATE/incoming/<image id>/           disk.raw, manifest, journal: a master on its way in
//! STATE/masters/<image id>/            disk.raw, manifest, verified.json: sealed
//!                                      or source.json, manifest: served in place
//! STATE/masters/<image id>.removed     what file it had, for clones that outlive it
//! STATE/releases/<name>/<version>      signed releases
//! STATE/clones/                        clone records, which the hand-over writes
//! ```

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub(super) use drover_durability::{DISK, MANIFEST};
use drover_durability::{DiskError, Doing};
use drover_protocol::id::ImageId;

use super::host_disk::{FOLDER_MODE, HostDisk};

pub(super) type Layout = drover_durability::Layout<HostDisk>;
pub(super) type NewFolder = drover_durability::NewFolder<HostDisk>;

pub(super) const SOURCE: &str = "source.json";
pub(super) const DAMAGED: &str = "damaged.json";
pub(super) const CHECKED: &str = "checked";
pub(super) const VERIFIED: &str = "verified.json";
pub(super) const WITHDRAWN: &str = "withdrawn";

/// The folder of a master below a state folder.
pub(crate) fn folder_of_master(state: &Path, image: ImageId) -> PathBuf {
    Layout::new(HostDisk, state).master_of(image)
}

/// Makes the folders of a state folder that are missing, and it as well.
pub(super) fn make(layout: &Layout) -> Result<(), DiskError> {
    let state = layout.state();
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(state).doing("create", state)?;
    layout.make()
}

/// Removes a folder, durably; what is left of it goes at the next start.
pub(super) fn discard(layout: &Layout, folder: &Path) -> Result<(), DiskError> {
    if let Some(left) = layout.discard(folder)? {
        tracing::warn!("{left}; it is tried again at the next start");
    }
    Ok(())
}

/// Writes a file whole or not at all, durably.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    drover_durability::write_file(&HostDisk, path, bytes)
}
