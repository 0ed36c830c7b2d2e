//! What clones rest on: whether it is there and as it was, as far as that shows without reading it.
//!
//! A clone's own file may be whole, and what it shows be nothing or nonsense all the same, once the master or the parent
//! below it is gone or damaged. So no guest is given such a clone before that was mended. What was found of a master is
//! noted beside its file, where the store keeps that, so no daemon need be asked: at boot there may be none. A file that is
//! not the one that was compared last is a doubt, which reading it settles.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::Lost;
use super::driver::Driver;
use super::master::{FileIdentity, is_sealed};
use super::record::CloneRecord;
use crate::store::Noted;

/// What is wrong with what a clone rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBase {
    /// The master's file, the parent or the volume.
    pub path: PathBuf,
    /// What is wrong with it, for people.
    pub what: String,
    /// What to do about it. `THE_CLONE` stands for the clone's name: many may rest on it.
    pub todo: String,
}

/// Stands for the name of a clone in what to do.
pub(super) const THE_CLONE: &str = "{clone}";

impl fmt::Display for BadBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, which it rests on, {}", self.path.display(), self.what)
    }
}

/// What clones rest on, looked at once each, however many rest on it.
#[derive(Debug, Default)]
pub(super) struct Bases<'a> {
    seen: BTreeMap<(&'a Path, FileIdentity), Option<Lost>>,
}

impl<'a> Bases<'a> {
    /// How a clone is lost by what it rests on, if it is.
    pub(super) fn lost<D: Driver + ?Sized>(&mut self, driver: &D, record: &'a CloneRecord) -> Option<Lost> {
        let path = record.base.as_ref().unwrap_or(&record.master.path);
        self.seen.entry((path, record.master.file)).or_insert_with(|| driver.lost_base(record)).clone()
    }
}

/// How a clone is lost that reads its master, if that is not as it should be.
pub(super) fn lost_master(record: &CloneRecord) -> Option<Lost> {
    let path = &record.master.path;
    let label = record.master_label();
    let mend = || format!("`drover fetch {label}` mends it, if another host has it; else publish it again");
    let broken = |what: String| Some(Lost::Broken(BadBase { path: path.clone(), what, todo: mend() }));
    let facts = match path.metadata() {
        Ok(facts) => facts,
        Err(e) if is_absence(&e) => return broken("is gone".to_owned()),
        // Of what can't be looked at nobody knows that it is.
        Err(_) => return None,
    };
    let noted = Noted::beside(path);
    if noted.damaged_chunks > 0 {
        return broken(format!("is damaged: {} of its chunks", noted.damaged_chunks));
    }
    // An earlier version noted nothing beside it.
    let changed = noted.verified.unwrap_or(record.master.file).difference(&FileIdentity::of(&facts));
    let is_open = !record.master.in_place && !is_sealed(&facts);
    let what = match changed {
        Some(what) => format!("may have changed: {what}"),
        None if is_open => "is not sealed: it can be written to".to_owned(),
        None => return None,
    };
    let todo = format!("`drover verify {label}` reads it again and settles that");
    Some(Lost::Doubted(BadBase { path: path.clone(), what, todo }))
}

/// Whether an error says that there is no such file.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
