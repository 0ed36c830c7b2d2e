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

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use drover_protocol::id::ImageId;
use drover_protocol::planted::{Bug, is_planted};

use crate::disk::{Disk, DiskFile};
use crate::disk_error::{DiskError, Doing};

/// The raw content of a master, in its folder.
pub const DISK: &str = "disk.raw";
/// The manifest of a master, in its folder.
pub const MANIFEST: &str = "manifest";
/// The journal of an incoming master, in its folder.
pub const JOURNAL: &str = "journal";

/// Names of what is below a state folder.
#[derive(Debug)]
pub struct Layout<D> {
    disk: D,
    state: PathBuf,
    next_name: AtomicU64,
}

impl<D: Disk + Clone> Layout<D> {
    /// Of the folder `state` on this disk.
    pub fn new(disk: D, state: &Path) -> Self {
        Layout { disk, state: state.to_owned(), next_name: AtomicU64::new(0) }
    }

    /// Makes the folders that are missing in the state folder, which must be there; and makes the names in them durable,
    /// before anything rests on them: a process that was killed may have left renames that were never synced.
    pub fn make(&self) -> Result<(), DiskError> {
        for folder in [self.incoming(), self.masters(), self.releases(), self.clones()] {
            make_folder(&self.disk, &folder)?;
        }
        for folder in [self.incoming(), self.masters(), self.releases()] {
            sync_folder(&self.disk, &folder)?;
        }
        sync_folder(&self.disk, &self.state)
    }

    /// The disk that it is on.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What is held by the one daemon that uses the folder.
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// Masters on their way in.
    pub fn incoming(&self) -> PathBuf {
        self.state.join("incoming")
    }

    /// Masters that are whole.
    pub fn masters(&self) -> PathBuf {
        self.state.join("masters")
    }

    /// Releases that were accepted.
    pub fn releases(&self) -> PathBuf {
        self.state.join("releases")
    }

    /// Records of clones.
    pub fn clones(&self) -> PathBuf {
        self.state.join("clones")
    }

    /// The folder of one image on its way in.
    pub fn incoming_of(&self, image: ImageId) -> PathBuf {
        self.incoming().join(image.to_string())
    }

    /// The folder of one master.
    pub fn master_of(&self, image: ImageId) -> PathBuf {
        self.masters().join(image.to_string())
    }

    /// An empty folder under `incoming` to make something in. Removed when dropped, unless it was renamed away.
    pub fn new_folder(&self) -> Result<NewFolder<D>, DiskError> {
        loop {
            let number = self.next_name.fetch_add(1, Ordering::Relaxed);
            let path = self.incoming().join(format!("{NEW}{number}"));
            match self.disk.make_folder(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    made.doing("create", &path)?;
                    return Ok(NewFolder { disk: self.disk.clone(), path });
                }
            }
        }
    }

    /// Gives a folder a name that is swept away, durably, and removes it. After the rename nothing can fail any more:
    /// what can't be removed now is removed at the next start, and is the error that is given back.
    pub fn discard(&self, folder: &Path) -> Result<Option<DiskError>, DiskError> {
        let parent = folder.parent().expect("a folder of the store has a parent");
        let trash = loop {
            let number = self.next_name.fetch_add(1, Ordering::Relaxed);
            let trash = parent.join(format!("{TRASH}{number}"));
            if !self.disk.exists(&trash) {
                break trash;
            }
        };
        self.disk.rename(folder, &trash).doing("remove", folder)?;
        sync_folder(&self.disk, parent)?;
        Ok(self.disk.remove_tree(&trash).doing("remove", &trash).err())
    }

    /// What is in `incoming` or `masters` by image id, once everything half made or half removed is swept away.
    pub fn sweep(&self, folder: &Path) -> Result<Vec<ImageId>, DiskError> {
        let mut images = Vec::new();
        for name in self.disk.list(folder).doing("list", folder)? {
            if name.starts_with(NEW) || name.starts_with(TRASH) {
                let path = folder.join(&name);
                self.disk.remove_tree(&path).doing("remove", &path)?;
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
pub struct NewFolder<D: Disk> {
    disk: D,
    path: PathBuf,
}

impl<D: Disk> NewFolder<D> {
    /// Where it is for now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder, whose files are durable by now, its lasting place, durably. What is there goes: at no moment is
    /// there nothing.
    pub fn place_at(self, target: &Path) -> Result<(), DiskError> {
        sync_folder(&self.disk, &self.path)?;
        move_or_exchange(&self.disk, &self.path, target)?;
        sync_parent(&self.disk, target)
    }
}

impl<D: Disk> Drop for NewFolder<D> {
    fn drop(&mut self) {
        // Once it was placed it is not there any more, or is what was in its place; and what can't be removed now is swept
        // away at the next start.
        let _ = self.disk.remove_tree(&self.path);
    }
}

/// Moves a folder to a place, and what is there, if anything is, to where the folder was.
pub(crate) fn move_or_exchange<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), DiskError> {
    let moved = if disk.exists(to) { disk.exchange(from, to) } else { disk.rename(from, to) };
    moved.doing("move into place", to)
}

/// Removes what a crash left of files that were being written in a folder.
pub fn sweep_files<D: Disk>(disk: &D, folder: &Path) -> Result<(), DiskError> {
    for name in disk.list(folder).doing("list", folder)? {
        if name.starts_with(NEW) {
            let path = folder.join(name);
            disk.remove_file(&path).doing("remove", &path)?;
        }
    }
    Ok(())
}

/// Makes a folder, if it is missing.
pub fn make_folder<D: Disk>(disk: &D, path: &Path) -> Result<(), DiskError> {
    match disk.make_folder(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.doing("create", path),
    }
}

/// Makes the names in a folder durable.
pub fn sync_folder<D: Disk>(disk: &D, path: &Path) -> Result<(), DiskError> {
    disk.sync_folder(path).doing("sync", path)
}

/// Makes the name of a file or folder durable.
pub fn sync_parent<D: Disk>(disk: &D, path: &Path) -> Result<(), DiskError> {
    sync_folder(disk, path.parent().expect("what is below the state folder has a parent"))
}

/// Writes a file whole or not at all, durably: a temporary file, synced, renamed, and the folder synced.
pub fn write_file<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let folder = path.parent().expect("what is below the state folder has a parent");
    let (file, temporary) = new_file(disk, folder).doing("write", path)?;
    let write = || -> io::Result<()> {
        file.write_all_at(bytes, 0)?;
        if !is_planted(Bug::RenameBeforeSync) {
            file.sync_all()?;
        }
        disk.rename(&temporary, path)
    };
    if let Err(error) = write() {
        // What can't be removed now is swept away at the next start.
        let _ = disk.remove_file(&temporary);
        return Err(error).doing("write", path);
    }
    if is_planted(Bug::SkipRenameSync) {
        return Ok(());
    }
    sync_folder(disk, folder)
}

/// A new file under a name that is swept away, and that name.
fn new_file<D: Disk>(disk: &D, folder: &Path) -> io::Result<(D::File, PathBuf)> {
    for number in 0u64.. {
        let path = folder.join(format!("{NEW}{number}"));
        match disk.create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return Ok((made?, path)),
        }
    }
    unreachable!("a folder does not have every name")
}

const NEW: &str = ".new-";
const TRASH: &str = ".trash-";
