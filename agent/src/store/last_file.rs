//! What became of a master's file, for what shares its blocks and reads it no more: the parents of VHDs.
//!
//! Read from the master's folder, by whoever may enter that; the store need not be open. When a master is removed and clones
//! outlive it, what is known of its file is noted beside where its folder was, since nobody could tell it any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk_error::{DiskError, Doing};
use super::layout::{DISK, WITHDRAWN, write_file};
use super::verify::load_numbers;
use super::watch::Source;
use crate::handover::DiskId;

/// The file of a master, as it is or as it was when the master was removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LastFile {
    /// What it is known by, unless it is gone or its file system keeps nothing of that kind.
    pub(crate) disk: Option<DiskId>,
    /// Whether bytes of it were found wrong that nobody wrote.
    pub(crate) is_damaged: bool,
}

impl LastFile {
    /// Of the master in this folder, or that has this file there, if anything is known of it.
    pub(crate) fn of(master: &Path) -> Option<LastFile> {
        let folder = master.parent().filter(|_| master.ends_with(DISK)).unwrap_or(master);
        LastFile::there(folder).or_else(|| serde_json::from_slice(&fs::read(note_of(folder)).ok()?).ok())
    }

    fn there(folder: &Path) -> Option<LastFile> {
        folder.is_dir().then(|| match Source::load(folder) {
            Ok(Some(source)) => {
                // One that its owner wrote to is withdrawn, too, and shares no more than it did.
                let is_damaged = folder.join(WITHDRAWN).exists() && source.difference().is_none();
                LastFile { disk: DiskId::of_file(&source.path), is_damaged }
            }
            _ => LastFile { disk: DiskId::of_file(&folder.join(DISK)), is_damaged: !load_numbers(folder).is_empty() },
        })
    }

    /// Notes what is known of the file of a master that is about to be removed, or that nobody needs to know it.
    pub(super) fn note(folder: &Path, is_outlived: bool) -> Result<(), DiskError> {
        let note = note_of(folder);
        match LastFile::there(folder).filter(|_| is_outlived) {
            Some(last) => write_file(&note, &serde_json::to_vec(&last).expect("numbers can be written")),
            None => match fs::remove_file(&note) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).doing("remove", &note),
                _ => Ok(()),
            },
        }
    }
}

/// Where it is noted: beside the folder, where no image has its name.
fn note_of(folder: &Path) -> PathBuf {
    folder.with_extension("removed")
}
