//! Files that are either the old or the new, whenever the power fails.
//!
//! New contents go to a file of another name in the same folder, are synced, and take the old one's place by a rename;
//! then the folder is synced. A private file never exists with wider permissions, not even for a moment.
//!
//! What root writes into a folder of another user is that user's: an administrator runs commands as root, the service that
//! reads the files is somebody else. It is given away while it has no name that the other user could exchange it under.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// Permissions of files that only their owner may read.
pub const PRIVATE: u32 = 0o600;
/// Permissions of files that everybody may read.
pub const PUBLIC: u32 = 0o644;

/// A file or folder could not be written, and nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("can't write {path}: {cause}")]
pub struct WriteError {
    /// Which one.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub cause: io::Error,
}

/// Puts `contents` at `path`, durably, in place of what was there.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), WriteError> {
    let temporary = beside(path);
    let written = write_new(&temporary, contents, mode, Owner::OfFolder).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is left of an attempt that failed is of no use; that it can't be removed changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_folder(path)).map_err(|cause| WriteError { path: path.to_owned(), cause })
}

/// Makes a file that was not there. `io::ErrorKind::AlreadyExists` if it was.
pub fn create(path: &Path, contents: &[u8], mode: u32) -> Result<(), WriteError> {
    create_for(path, contents, mode, Owner::OfFolder)
}

/// The same for a file that stays the writer's, whoever owns the folder.
pub fn create_own(path: &Path, contents: &[u8], mode: u32) -> Result<(), WriteError> {
    create_for(path, contents, mode, Owner::Writer)
}

fn create_for(path: &Path, contents: &[u8], mode: u32, owner: Owner) -> Result<(), WriteError> {
    let temporary = beside(path);
    let written = write_new(&temporary, contents, mode, owner).and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    written.and_then(|()| sync_folder(path)).map_err(|cause| WriteError { path: path.to_owned(), cause })
}

/// Makes a folder, and the ones above it, that only their owner may enter.
pub fn private_folder(path: &Path) -> Result<(), WriteError> {
    let made = make_folder(path).and_then(|()| sync_folder(path));
    made.map_err(|cause| WriteError { path: path.to_owned(), cause })
}

/// Somebody else could have put links and files into a folder that is to be trusted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}, who may have put links or files of theirs into it", path.display())]
pub struct OpenFolder {
    /// Which one.
    pub path: PathBuf,
    why: &'static str,
}

/// Refuses a folder that every local user may write to, or that belongs to another one. For root it may be a service's.
/// One that is not there is fine.
pub fn refuse_open_folder(path: &Path) -> Result<(), OpenFolder> {
    let Ok(facts) = fs::metadata(path) else { return Ok(()) };
    let (me, root) = (geteuid().as_raw(), 0);
    let why = if facts.mode() & 0o002 != 0 {
        "may be written to by every local user"
    } else if ![me, root].contains(&facts.uid()) && me != root {
        "belongs to another user"
    } else {
        return Ok(());
    };
    Err(OpenFolder { path: path.to_owned(), why })
}

fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = folder_of(path);
    make_folder(parent)?;
    fs::DirBuilder::new().mode(0o700).create(path)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let made = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    give_to_owner_of(parent, &made)
}

/// Makes the names in the folder of `path` durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whose a new file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    OfFolder,
    Writer,
}

fn write_new(path: &Path, contents: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
    // Left by a crash of a process with our id; nobody else uses the name.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    if owner == Owner::OfFolder {
        give_to_owner_of(folder_of(path), &file)?;
    }
    file.write_all(contents)?;
    file.sync_all()
}

/// Gives what root made in a folder to the folder's owner. Nobody else may, or need.
fn give_to_owner_of(folder: &Path, made: &File) -> io::Result<()> {
    let owner = fs::metadata(folder)?;
    if !geteuid().is_root() || (owner.uid(), owner.gid()) == (0, 0) {
        return Ok(());
    }
    fchown(made, Some(owner.uid()), Some(owner.gid()))
}

/// A name beside `path` that no other process uses.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}
