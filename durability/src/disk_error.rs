//! What the disk refuses, in words for the person who has to help, and sorted by what a transfer does about it.

use std::io;
use std::path::{Path, PathBuf};

/// What a refusal of the disk means for a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// No room, or no quota: stop fetching, go on serving, try again when there is room.
    Full,
    /// The filesystem or its permissions forbid writing: stop fetching, go on serving, tell somebody.
    ReadOnly,
    /// The device fails, or something that has no remedy of its own.
    Io,
}

impl Trouble {
    /// Sorts an error.
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Trouble::ReadOnly,
            _ => Trouble::Io,
        }
    }

    fn remedy(self, doing: &str) -> &'static str {
        match self {
            Trouble::Full => "; free some space on that filesystem",
            Trouble::ReadOnly if READING.contains(&doing) => "; let the user that drover runs as read it",
            Trouble::ReadOnly => "; make it writable for drover (mount options, owner, mode)",
            Trouble::Io => "",
        }
    }
}

/// An operation on a file or folder that failed.
#[derive(Debug, thiserror::Error)]
#[error("can't {doing} {}: {source}{}", path.display(), Trouble::of(source).remedy(doing))]
pub struct DiskError {
    /// What was being done, as a verb: "write".
    pub doing: &'static str,
    /// To what.
    pub path: PathBuf,
    /// What the system answered.
    pub source: io::Error,
}

impl DiskError {
    /// What it means for a transfer.
    pub fn trouble(&self) -> Trouble {
        Trouble::of(&self.source)
    }
}

/// What is done without writing.
const READING: [&str; 5] = ["open", "read", "list", "look at", "find"];

/// Adds to an error what was being done to what.
pub trait Doing<T> {
    /// The result, with an error that says what was `doing` (a verb) to what.
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| DiskError { doing, path: path.to_owned(), source: source.into() })
    }
}
