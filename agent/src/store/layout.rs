//! Where things are below the state folder, and how a file or a name there becomes durable.
//!
//! ```text
//! STATE/lock                           held by the one daemon that uses the folder; its process id
//! STATE/incoming/<image id>/           disk.raw, manifest, journal: a master on its way in
//! STATE/masters/<image id>/            disk.raw, manifest: sealed; or source.json, manifest: served in place
//! STATE/releases/<name>/<version>      signed releases
//! STATE/clones/                        clone records, which the hand-over writes
//! ```
//!
//! A folder under `incoming` or `masters` appears under its image id by one rename, when everything in it is durable,
//! and disappears by one rename. What is half made or half removed has a name that begins with `.new-` or `.trash-`
//! and is swept away when the store is opened, so no other part ever meets it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use drover_protocol::id::ImageId;

use super::disk_error::{DiskError, Doing};

pub(super) const DISK: &str = "disk.raw";
pub(super) const MANIFEST: &str = "manifest";
pub(super) const JOURNAL: &str = "journal";
pub(super) const SOURCE: &str = "source.json";
pub(super) const DAMAGED: &str = "damaged.json";
pub(super) const CHECKED: &str = "checked";
pub(super) const WITHDRAWN: &str = "withdrawn";

/// Names of what is below a state folder.
#[derive(Debug)]
pub(super) struct Layout {
    state: PathBuf,
    next_name: AtomicU64,
}

impl Layout {
    pub(super) fn new(state: &Path) -> Self {
        Layout { state: state.to_owned(), next_name: AtomicU64::new(0) }
    }

    /// Makes the folders that are missing.
    pub(super) fn make(&self) -> Result<(), DiskError> {
        for folder in [self.state.clone(), self.incoming(), self.masters(), self.releases(), self.clones()] {
            make_folder(&folder)?;
        }
        sync_folder(&self.state)
    }

    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.state.join("incoming")
    }

    pub(super) fn masters(&self) -> PathBuf {
        self.state.join("masters")
    }

    pub(super) fn releases(&self) -> PathBuf {
        self.state.join("releases")
    }

    pub(super) fn clones(&self) -> PathBuf {
        self.state.join("clones")
    }

    pub(super) fn incoming_of(&self, image: ImageId) -> PathBuf {
        self.incoming().join(image.to_string())
    }

    pub(super) fn master_of(&self, image: ImageId) -> PathBuf {
        self.masters().join(image.to_string())
    }

    /// An empty folder under `incoming` to make something in. Removed when dropped, unless it was renamed away.
    pub(super) fn new_folder(&self) -> Result<NewFolder, DiskError> {
        loop {
            let number = self.next_name.fetch_add(1, Ordering::Relaxed);
            let path = self.incoming().join(format!("{NEW}{number}"));
            match DirBuilder::new().mode(FOLDER_MODE).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made.doing("create", &path)?;
                    return Ok(NewFolder { path });
                }
            }
        }
    }

    /// Gives a folder a name that is swept away, durably, and removes it. After the rename nothing can fail any more:
    /// what can't be removed now is removed at the next start.
    pub(super) fn discard(&self, folder: &Path) -> Result<(), DiskError> {
        let parent = folder.parent().expect("a folder of the store has a parent");
        let trash = loop {
            let number = self.next_name.fetch_add(1, Ordering::Relaxed);
            let trash = parent.join(format!("{TRASH}{number}"));
            if !trash.exists() {
                break trash;
            }
        };
        fs::rename(folder, &trash).doing("remove", folder)?;
        sync_folder(parent)?;
        if let Err(error) = remove_tree(&trash) {
            tracing::warn!("{error}; it is tried again at the next start");
        }
        Ok(())
    }

    /// What is in `incoming` or `masters` by image id, once everything half made or half removed is swept away.
    pub(super) fn sweep(&self, folder: &Path) -> Result<Vec<ImageId>, DiskError> {
        let mut images = Vec::new();
        for entry in fs::read_dir(folder).doing("list", folder)? {
            let name = entry.doing("list", folder)?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(NEW) || name.starts_with(TRASH) {
                remove_tree(&folder.join(&*name))?;
            } else if let Ok(image) = name.parse() {
                images.push(image);
            }
        }
        images.sort_unstable();
        Ok(images)
    }
}

/// A folder in the making.
#[derive(Debug)]
pub(super) struct NewFolder {
    path: PathBuf,
}

impl NewFolder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder, whose files are durable by now, its lasting place, durably.
    pub(super) fn place_at(self, target: &Path) -> Result<(), DiskError> {
        sync_folder(&self.path)?;
        fs::rename(&self.path, target).doing("move into place", target)?;
        sync_parent(target)
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // Not there any more once it was placed; and what can't be removed now is swept away at the next start.
        let _ = remove_tree(&self.path);
    }
}

/// Removes what a crash left of files that were being written in a folder.
pub(super) fn sweep_files(folder: &Path) -> Result<(), DiskError> {
    for entry in fs::read_dir(folder).doing("list", folder)? {
        let path = entry.doing("list", folder)?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(NEW.as_bytes())) {
            fs::remove_file(&path).doing("remove", &path)?;
        }
    }
    Ok(())
}

/// Makes a folder that only its owner and group may enter, if it is missing.
pub(super) fn make_folder(path: &Path) -> Result<(), DiskError> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path).doing("create", path)
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|folder| folder.sync_all()).doing("sync", path)
}

/// Makes the name of a file or folder durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), DiskError> {
    sync_folder(path.parent().expect("what is below the state folder has a parent"))
}

/// Writes a file whole or not at all, durably: a temporary file, synced, renamed, and the folder synced.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let folder = path.parent().expect("what is below the state folder has a parent");
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(NEW).tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().doing("write", path)?;
    sync_folder(folder)
}

/// Removes a folder and what is in it, also what was made immutable.
fn remove_tree(path: &Path) -> Result<(), DiskError> {
    super::seal::unseal(&path.join(DISK));
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.doing("remove", path),
    }
}

const NEW: &str = ".new-";
const TRASH: &str = ".trash-";
/// Masters are of nobody's business but the daemon's and its group's (libvirt's, say).
const FOLDER_MODE: u32 = 0o750;
