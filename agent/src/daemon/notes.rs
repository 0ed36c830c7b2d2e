//! What the daemon has to remember over a restart, beside what the store holds: masters that a person asked for, and
//! releases that no tracker has taken yet.
//!
//! One small file, `STATE/daemon.json`, replaced whole. It is written before what it notes is begun, so that a crash
//! leaves at most a note too many, which the next start finds done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drover_link::durable;
use drover_protocol::id::ImageId;
use drover_protocol::release::Name;
use serde::{Deserialize, Serialize};

/// The notes of one daemon.
#[derive(Debug)]
pub(super) struct Notes {
    path: PathBuf,
    noted: Mutex<Noted>,
    /// Masters that were taken in since the start, and when.
    fresh: Mutex<BTreeMap<ImageId, Instant>>,
}

/// Why notes can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotesError {
    /// The disk refuses.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is none of ours, or damaged.
    #[error("{} can't be understood: {source}; remove it, and fetch anew what was asked for by name", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Noted {
    #[serde(default)]
    wanted: BTreeSet<ImageId>,
    #[serde(default)]
    by_id: BTreeSet<ImageId>,
    #[serde(default)]
    unposted: BTreeSet<(Name, u64)>,
}

impl Notes {
    /// Reads the notes of a state folder.
    pub(super) fn open(state: &Path) -> Result<Self, NotesError> {
        let path = state.join("daemon.json");
        let noted = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| {
                let path = path.clone();
                NotesError::Damaged { path, source }
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Noted::default(),
            Err(source) => return Err(NotesError::Read { path, source }),
        };
        Ok(Notes { path, noted: Mutex::new(noted), fresh: Mutex::default() })
    }

    /// A person asks for this image.
    pub(super) fn want(&self, image: ImageId) -> Result<(), durable::WriteError> {
        self.change(|noted| noted.wanted.insert(image))
    }

    /// It has come, or is not wanted any more.
    pub(super) fn unwant(&self, image: ImageId) -> Result<(), durable::WriteError> {
        self.change(|noted| noted.wanted.remove(&image))
    }

    /// A person asked for this image by its id: it is theirs to remove.
    pub(super) fn by_id(&self, image: ImageId) -> Result<(), durable::WriteError> {
        self.change(|noted| noted.by_id.insert(image))
    }

    /// Whether a person asked for this image by its id.
    pub(super) fn is_by_id(&self, image: ImageId) -> bool {
        self.noted().by_id.contains(&image)
    }

    /// It was removed.
    pub(super) fn forget(&self, image: ImageId) -> Result<(), durable::WriteError> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).remove(&image);
        self.change(|noted| noted.wanted.remove(&image) | noted.by_id.remove(&image))
    }

    /// It was taken in just now; its release is to come.
    pub(super) fn taken_in(&self, image: ImageId) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.retain(|_, since| since.elapsed() < RELEASE_PATIENCE);
        fresh.insert(image, Instant::now());
    }

    /// Whether it was taken in so short a time ago that its release may be to come.
    pub(super) fn is_fresh(&self, image: ImageId) -> bool {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.get(&image).is_some_and(|since| since.elapsed() < RELEASE_PATIENCE)
    }

    /// Images that people asked for.
    pub(super) fn wanted(&self) -> BTreeSet<ImageId> {
        self.noted().wanted.clone()
    }

    /// A release that is to be posted.
    pub(super) fn to_post(&self, name: &Name, version: u64) -> Result<(), durable::WriteError> {
        self.change(|noted| noted.unposted.insert((name.clone(), version)))
    }

    /// It was posted, or never will be.
    pub(super) fn posted(&self, name: &Name, version: u64) -> Result<(), durable::WriteError> {
        self.change(|noted| noted.unposted.remove(&(name.clone(), version)))
    }

    /// Releases that are to be posted.
    pub(super) fn unposted(&self) -> BTreeSet<(Name, u64)> {
        self.noted().unposted.clone()
    }

    /// Changes the notes on the disk, then in memory.
    fn change(&self, change: impl FnOnce(&mut Noted) -> bool) -> Result<(), durable::WriteError> {
        let mut noted = self.noted();
        let mut next = noted.clone();
        if !change(&mut next) {
            return Ok(());
        }
        let json = serde_json::to_vec_pretty(&next).expect("notes are plain JSON");
        durable::replace(&self.path, &json, durable::PRIVATE)?;
        *noted = next;
        Ok(())
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long after a file was taken in its release may come. `drover publish` does it in the same second.
const RELEASE_PATIENCE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_outlive_their_daemon() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let (image, other) = (ImageId::from_bytes([1; 32]), ImageId::from_bytes([2; 32]));
        let name: Name = "base".parse().expect("a name");
        let notes = Notes::open(state.path()).expect("no notes yet");
        notes.want(image).expect("write");
        notes.want(other).expect("write");
        notes.unwant(other).expect("write");
        notes.by_id(other).expect("write");
        notes.to_post(&name, 3).expect("write");
        drop(notes);
        let notes = Notes::open(state.path()).expect("notes");
        assert_eq!(notes.wanted(), BTreeSet::from([image]));
        assert!(notes.is_by_id(other) && !notes.is_by_id(image));
        notes.forget(other).expect("write");
        assert!(!notes.is_by_id(other), "it was removed");
        assert_eq!(notes.unposted(), BTreeSet::from([(name, 3)]));
    }

    #[test]
    fn damaged_notes_are_named() {
        let state = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(state.path().join("daemon.json"), "{").expect("write");
        let error = Notes::open(state.path()).expect_err("damaged").to_string();
        assert!(error.contains("daemon.json can't be understood"), "{error}");
    }
}
