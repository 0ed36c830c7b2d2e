//! The master as the hand-over sees it: a sealed raw file that must stay as it is while clones are made from it.
//!
//! A clone is bound to the master's content through the image id. Reading 60 GiB again for every clone is out of the
//! question, so the file's length, inode and modification time stand for its content: the store notes them when it has
//! compared all bytes, and they are compared with that before and after a clone is made, and again by `clone verify`.
//! Whoever wants proof has the store hash the master again, which notes them anew.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use drover_protocol::id::{ContentHash, ImageId};
use serde::{Deserialize, Serialize};

/// A master that clones can be made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Which image it is.
    pub image: ImageId,
    /// The release it was asked for by, as `name@version`, where it was.
    pub release: Option<String>,
    /// Its raw file, by an absolute path.
    pub path: PathBuf,
    /// Its length in bytes.
    pub content_len: u64,
    /// BLAKE3 of its whole content.
    pub content_hash: ContentHash,
    /// Whether it is somebody's own file, published where it lies. Such a file is not sealed and may be changed any time.
    pub in_place: bool,
    /// What its file was when its bytes were last compared with the image, if that was noted.
    pub verified: Option<FileIdentity>,
}

/// What tells, without reading it, that a file is still the one it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Length in bytes.
    pub len: u64,
    /// Inode number.
    pub inode: u64,
    /// Time of the last change of the content, in nanoseconds since 1970.
    pub modified_unix_ns: i64,
}

/// Why no clone can be made from a master.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// Its file is gone.
    #[error("the master {image} is not at {path} any more: it was removed or withdrawn; fetch it again")]
    Missing {
        /// The image.
        image: ImageId,
        /// Where it was.
        path: PathBuf,
    },
    /// Its file can't be read.
    #[error("can't read the master at {path}: {source}; run this as root or as the user that the daemon runs as")]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its file is not what the image says.
    #[error(
        "{path} may no longer be the master {image}: {what}; `drover verify {image}` settles it, and if that finds damage, \
         fetch it again or publish it again"
    )]
    Changed {
        /// The image.
        image: ImageId,
        /// Where it is.
        path: PathBuf,
        /// What is different.
        what: String,
    },
    /// Its file can be written.
    #[error(
        "the master at {path} is not sealed (its mode is {mode:o}): clones would change with it; run `drover verify`"
    )]
    NotSealed {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl Master {
    /// What people call it.
    pub fn label(&self) -> String {
        self.release.clone().unwrap_or_else(|| self.image.to_string())
    }
}

impl FileIdentity {
    /// The identity of the file behind these facts.
    pub fn of(facts: &Metadata) -> FileIdentity {
        let modified_unix_ns = facts.mtime().saturating_mul(1_000_000_000).saturating_add(facts.mtime_nsec());
        FileIdentity { len: facts.len(), inode: facts.ino(), modified_unix_ns }
    }

    /// What differs between the file as it was and as it is, in words, or nothing.
    pub fn difference(&self, now: &FileIdentity) -> Option<String> {
        if self.len != now.len {
            return Some(format!("its length went from {} to {} bytes", self.len, now.len));
        }
        if self.modified_unix_ns != now.modified_unix_ns {
            return Some("it was written to (its modification time is another)".to_owned());
        }
        (self.inode != now.inode).then(|| "another file has taken its place (its inode is another)".to_owned())
    }
}

/// Why nothing is known of the file of a master without an identity.
pub(crate) const NEVER_NOTED: &str =
    "what it was like when its bytes were last compared was not noted (an earlier version of Drover sealed it)";

/// A master's file, open for reading, as it was when a clone was begun.
#[derive(Debug)]
pub(super) struct MasterFile {
    pub(super) file: File,
    pub(super) identity: FileIdentity,
    /// Bytes that its data takes on disk; holes take none.
    pub(super) data_len: u64,
}

impl MasterFile {
    /// Opens it, if it is whole, sealed, and the file whose bytes were compared with the image.
    pub(super) fn open(master: &Master) -> Result<MasterFile, MasterError> {
        let (image, path) = (master.image, master.path.clone());
        let opened = File::open(&path).and_then(|file| file.metadata().map(|facts| (file, facts)));
        let (file, facts) = match opened {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(MasterError::Missing { image, path }),
            Err(source) => return Err(MasterError::Unreadable { path, source }),
        };
        if !facts.is_file() {
            return Err(MasterError::Changed { image, path, what: "it is no regular file".to_owned() });
        }
        if facts.len() != master.content_len {
            let what = format!("it is {} bytes long, the image is {}", facts.len(), master.content_len);
            return Err(MasterError::Changed { image, path, what });
        }
        if !master.in_place && !is_sealed(&facts) {
            return Err(MasterError::NotSealed { path, mode: facts.mode() & 0o7777 });
        }
        let (identity, data_len) = (FileIdentity::of(&facts), (facts.blocks() * 512).min(facts.len()));
        let doubt = match &master.verified {
            Some(verified) => verified.difference(&identity),
            None => Some(NEVER_NOTED.to_owned()),
        };
        if let Some(what) = doubt {
            return Err(MasterError::Changed { image, path, what });
        }
        Ok(MasterFile { file, identity, data_len })
    }

    /// Whether the file at the master's path is still the one that was verified, and so the one that was opened.
    pub(super) fn check_unchanged(master: &Master) -> Result<(), MasterError> {
        MasterFile::open(master).map(drop)
    }
}

/// Whether nobody but root can write the file: the least that sealing gives.
pub(super) fn is_sealed(facts: &Metadata) -> bool {
    facts.mode() & 0o222 == 0
}

/// The folder that holds `path`; the root holds itself.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Whether two absolute paths lead to one file, as they do where a folder on the way is a link.
pub(super) fn is_one_file(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| path.metadata().ok().filter(|_| path.is_absolute()).map(|facts| (facts.dev(), facts.ino()));
    one == other || of(one).is_some_and(|one| of(other) == Some(one))
}
