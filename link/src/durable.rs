//! Files that are either the old or the new, whenever the power fails.
//!
//! New contents go to a file of another name in the same folder, are synced, and take the old one's place by a rename;
//! then the folder is synced. A private file never exists with wider permissions, not even for a moment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
    let written = write_new(&temporary, contents, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is left of an attempt that failed is of no use; that it can't be removed changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_folder(path)).map_err(|cause| WriteError { path: path.to_owned(), cause })
}

/// Makes a file that was not there. `io::ErrorKind::AlreadyExists` if it was.
pub fn create(path: &Path, contents: &[u8], mode: u32) -> Result<(), WriteError> {
    let temporary = beside(path);
    let written = write_new(&temporary, contents, mode).and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    written.and_then(|()| sync_folder(path)).map_err(|cause| WriteError { path: path.to_owned(), cause })
}

/// Makes a folder, and the ones above it, that only their owner may enter.
pub fn private_folder(path: &Path) -> Result<(), WriteError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| sync_folder(path)).map_err(|cause| WriteError { path: path.to_owned(), cause })
}

/// Makes the names in the folder of `path` durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    // Left by a crash of a process with our id; nobody else uses the name.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// A name beside `path` that no other process uses.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}
