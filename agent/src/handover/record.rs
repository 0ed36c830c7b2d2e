//! What is known of each clone: one JSON file in `STATE/clones`, and the lock that keeps them and the masters in step.
//!
//! A record is whole or absent: it is written under another name, synced and renamed. It is there before the clone's
//! file is, so no clone exists that the records don't know, and no master is removed while one names it. All changes,
//! and the removal of masters, happen under [`ClonesLock`], which is held for moments only. A record in state
//! [`CloneState::Making`] is locked by its maker for as long as that lives: how a crash is told from slow work.
//!
//! Clones are often made by root while the daemon runs as another user, who owns the folder. Everybody who can enter it may
//! read the files, and a record belongs to who wrote it: what it says of paths is acted on by that user only
//! (`read_own`, `list_own`), so that whoever takes the daemon over can't have root remove, rename or map a file of its
//! choice. [`Handover::adopt`](super::Handover::adopt) takes a record over once somebody has looked at it. No link in the
//! folder, or in its place, is followed for writing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use drover_protocol::id::{ContentHash, ImageId};
use drover_protocol::release::Name;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::choice::{DriverName, Profile};
use super::disk::DiskId;
use super::master::{FileIdentity, Master, MasterFile};
use super::place::Place;
use super::target::sync_folder;

/// The format of record that this code writes and reads.
pub const RECORD_FORMAT: u16 = 1;
/// Longest record that is read, in bytes; one has paths and a few numbers.
const MAX_RECORD_LEN: u64 = 64 * 1024;
const SUFFIX: &str = ".json";
const LOCK: &str = ".lock";
const UNFINISHED: &str = ".tmp";
const BATCH: &str = ".whole";

/// What is known of one clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneRecord {
    /// [`RECORD_FORMAT`].
    pub format: u16,
    /// What it is called.
    pub name: Name,
    /// How far it is.
    pub state: CloneState,
    /// The image whose content it began with.
    pub image: ImageId,
    /// The release that named the image, as `name@version`, if it was asked for by one.
    pub release: Option<String>,
    /// What made it.
    pub driver: DriverName,
    /// How it is laid out, if its driver knows more than one way.
    pub profile: Option<Profile>,
    /// Where it is: an absolute path.
    pub path: PathBuf,
    /// Under which name its file was made. Gone once the file has its own name.
    pub temporary: PathBuf,
    /// What the folder of its file is known by. Records of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What its disk is known by, once it was made, where that can be told. Records of earlier versions do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskId>,
    /// When its file was last written to as it was made, in nanoseconds since 1970: at any other time it was by somebody else.
    /// Volumes and records of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_unix_ns: Option<i64>,
    /// Length of the disk that a guest sees, in bytes, as it was made.
    pub disk_len: u64,
    /// Whether it is lost without the master.
    pub needs_master: bool,
    /// What else it rests on and shares with other clones: a file or a logical volume with the master's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// Where a guest finds the disk, if that is not `path`: a device that has to be made after a reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
    /// The clones that were made together with it, all or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchId>,
    /// The master that it is being moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<MovingTo>,
    /// The master as it was.
    pub master: RecordedMaster,
    /// When it was begun, in seconds since 1970 (UTC).
    pub created_unix_s: u64,
    /// Versions of what made it, Drover's and its tools'.
    pub tools: BTreeMap<String, String>,
}

/// The master that a clone is being moved to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovingTo {
    /// Its image.
    pub image: ImageId,
    /// The release that named the image, as `name@version`, if it was asked for by one.
    pub release: Option<String>,
    /// The master as it was.
    pub master: RecordedMaster,
}

/// Clones that were begun together. They are made once the file of this name is there, and not at all before. It is long
/// enough to be no other batch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BatchId(pub(super) u64);

/// How far a clone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloneState {
    /// Begun: there may be a file under the temporary name, and there is none of ours under the clone's own.
    Making,
    /// Whole and synced, under the clone's own name; or, for a moment and after a crash, still under the temporary one.
    Ready,
    /// To go: its device and its file may be gone already.
    Removing,
}

/// A master as it was when a clone was made from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedMaster {
    /// Its raw file.
    pub path: PathBuf,
    /// BLAKE3 of its content.
    pub content_hash: ContentHash,
    /// Whether it was published where it lay, not sealed.
    pub in_place: bool,
    /// Its file.
    pub file: FileIdentity,
}

/// Why the records can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is no state folder.
    #[error("there is no state folder {}; name the daemon's with --state", .0.display())]
    NoState(PathBuf),
    /// Not allowed.
    #[error("not allowed to {doing} {}; run this as root or as the user that the daemon runs as", path.display())]
    Denied {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("can't {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record that somebody else wrote.
    #[error(
        "the record {} was written by user {author}, and what it says is not done for another user: run this as that one; \
         or, if the paths in `drover clone list --json` are right, take it over with `drover clone adopt {clone}`", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Which clone's.
        clone: Name,
        /// Who wrote it.
        author: u32,
    },
    /// A file that is no record that this code reads.
    #[error("{} is no clone record that this version of drover reads: {what}; repair it or move it away", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl CloneRecord {
    /// What people call its master.
    pub fn master_label(&self) -> String {
        self.release.clone().unwrap_or_else(|| self.image.to_string())
    }
}

impl RecordedMaster {
    /// A master as it is now.
    pub(super) fn new(master: &Master, source: &MasterFile) -> RecordedMaster {
        RecordedMaster {
            path: master.path.clone(),
            content_hash: master.content_hash,
            in_place: master.in_place,
            file: source.identity,
        }
    }
}

/// All records that could be read, by name, and why others could not.
#[derive(Debug, Default)]
pub struct Listing {
    /// The records.
    pub records: Vec<CloneRecord>,
    /// What is wrong with the others.
    pub unreadable: Vec<RecordError>,
}

/// The right to change clone records and to remove masters, held until dropped. It is between processes, too.
#[derive(Debug)]
pub struct ClonesLock {
    path: PathBuf,
    /// Open, so that it stays the same folder whatever is put in its place.
    folder: File,
    _lock: File,
}

/// Names of the clones whose records name this image, sorted. A record that can't be read is an error here: it might name
/// the image.
pub fn clones_of(state: &Path, image: ImageId) -> Result<Vec<String>, RecordError> {
    Ok(records_of(state, image)?.into_iter().map(|record| record.name.to_string()).collect())
}

/// Names of clones by image.
#[derive(Debug, Default)]
pub struct ClonesByImage {
    /// Of all clones whose records can be read and that keep their master: by the image that they were made from, and by that
    /// which they are being moved to.
    pub names: BTreeMap<ImageId, Vec<String>>,
    /// What is wrong with the other records.
    pub unreadable: Vec<RecordError>,
}

/// Names of the clones that keep their masters, by image, from one reading of all records.
pub fn clones_by_image(state: &Path) -> Result<ClonesByImage, RecordError> {
    let mut names: BTreeMap<ImageId, Vec<String>> = BTreeMap::new();
    let listing = list(state)?;
    for record in listing.records.iter().filter(|record| keeps_master(record)) {
        let moving_to = record.moving_to.as_ref().map(|moving| moving.image).filter(|image| *image != record.image);
        for image in std::iter::once(record.image).chain(moving_to) {
            names.entry(image).or_default().push(record.name.to_string());
        }
    }
    Ok(ClonesByImage { names, unreadable: listing.unreadable })
}

/// Names of the clones that were made from a master, as people are told of them when it is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MadeFrom {
    /// Those that read it.
    pub readers: Vec<String>,
    /// Those that do not. They have blocks of their own or share the master's, of which nobody can tell any more what they
    /// should be.
    pub others: Vec<String>,
}

impl MadeFrom {
    /// As the records say.
    pub fn read(state: &Path, image: ImageId) -> Result<MadeFrom, RecordError> {
        let (readers, others): (Vec<_>, Vec<_>) = records_of(state, image)?.into_iter().partition(needs_master);
        let names = |records: Vec<CloneRecord>| records.iter().map(|record| record.name.to_string()).collect();
        Ok(MadeFrom { readers: names(readers), others: names(others) })
    }
}

impl fmt::Display for MadeFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readers = if self.readers.is_empty() { "no clone".to_owned() } else { self.readers.join(", ") };
        write!(f, "read by {readers}")?;
        if self.others.is_empty() {
            return Ok(());
        }
        write!(
            f,
            ", not by {}; but a reflink or a VHD's parent may share a block that the disk damaged (`drover clone verify \
             CLONE --full` tells it of VHDs, nothing does of reflinks)",
            self.others.join(", ")
        )
    }
}

/// Like [`clones_of`], but only those that keep the master: no reflinks or copies. A master is not removed while there are
/// any.
///
/// Call it under [`ClonesLock`] and remove the master before letting go of it, or a clone may come in between.
pub fn clones_that_need(state: &Path, image: ImageId) -> Result<Vec<String>, RecordError> {
    Ok(records_of(state, image)?.into_iter().filter(keeps_master).map(|record| record.name.to_string()).collect())
}

/// Logical volumes rest on their group's copy of the master, which nothing but the master can be compared with.
fn keeps_master(record: &CloneRecord) -> bool {
    needs_master(record) || matches!(record.driver, DriverName::LvmThin | DriverName::LvmThick)
}

/// A clone in the making still reads the master, whatever makes it.
fn needs_master(record: &CloneRecord) -> bool {
    record.needs_master || record.state == CloneState::Making
}

/// Whether a batch was not settled to its end: its clones are whole, and may not all have their names.
pub(super) fn is_open(state: &Path, batch: BatchId) -> bool {
    folder(state).join(batch_name(batch)).symlink_metadata().is_ok()
}

fn records_of(state: &Path, image: ImageId) -> Result<Vec<CloneRecord>, RecordError> {
    let mut listing = list(state)?;
    if let Some(error) = listing.unreadable.pop() {
        return Err(error);
    }
    let names = |record: &CloneRecord| {
        record.image == image || record.moving_to.as_ref().is_some_and(|moving| moving.image == image)
    };
    listing.records.retain(names);
    Ok(listing.records)
}

/// All records. No folder, no records.
pub(super) fn list(state: &Path) -> Result<Listing, RecordError> {
    list_if(state, |_| true)
}

/// The records that this process may act on: those that its user wrote.
pub(super) fn list_own(state: &Path) -> Result<Listing, RecordError> {
    list_if(state, |author| author == geteuid().as_raw())
}

fn list_if(state: &Path, wanted: impl Fn(u32) -> bool) -> Result<Listing, RecordError> {
    let folder = folder(state);
    let failed = |e| RecordError::io("list", &folder)(e);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Listing::default()),
        Err(e) => return Err(failed(e)),
    };
    let mut listing = Listing::default();
    for entry in entries {
        let file_name = entry.map_err(failed)?.file_name();
        let Some(stem) = file_name.to_str().and_then(|text| text.strip_suffix(SUFFIX)) else { continue };
        if stem.starts_with('.') {
            continue;
        }
        match read_file(&folder.join(&file_name), stem) {
            Ok(Some((record, author))) if wanted(author) => listing.records.push(record),
            Ok(_) => {}
            Err(e) => listing.unreadable.push(e),
        }
    }
    listing.records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

/// The record of this name, if there is one, to be looked at.
pub(super) fn read(state: &Path, name: &Name) -> Result<Option<CloneRecord>, RecordError> {
    Ok(read_file(&path_of(state, name), name.as_str())?.map(|(record, _)| record))
}

/// The record of this name, if there is one, to be acted on: [`RecordError::Foreign`] if another user wrote it.
pub(super) fn read_own(state: &Path, name: &Name) -> Result<Option<CloneRecord>, RecordError> {
    let path = path_of(state, name);
    match read_file(&path, name.as_str())? {
        Some((_, author)) if author != geteuid().as_raw() => {
            Err(RecordError::Foreign { path, clone: name.clone(), author })
        }
        found => Ok(found.map(|(record, _)| record)),
    }
}

fn path_of(state: &Path, name: &Name) -> PathBuf {
    folder(state).join(format!("{name}{SUFFIX}"))
}

/// A record and the user who wrote it.
fn read_file(path: &Path, stem: &str) -> Result<Option<(CloneRecord, u32)>, RecordError> {
    // A pipe of that name would keep whoever opens it waiting, and a link could lead to a file of another author.
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let read = opened.and_then(|file| {
        let (mut text, author) = (Vec::new(), file.metadata()?.uid());
        file.take(MAX_RECORD_LEN).read_to_end(&mut text)?;
        Ok((text, author))
    });
    let (text, author) = match read {
        Ok(read) => read,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(RecordError::io("read", path)(e)),
    };
    let unreadable = |what: String| RecordError::Unreadable { path: path.to_owned(), what };
    let record: CloneRecord = serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?;
    if record.format != RECORD_FORMAT {
        return Err(unreadable(format!("its format is {}, this version reads {RECORD_FORMAT}", record.format)));
    }
    if !record.path.is_absolute() || !record.temporary.is_absolute() {
        return Err(unreadable("its paths are not absolute".to_owned()));
    }
    if record.name.as_str() != stem {
        return Err(unreadable(format!("it is the record of {}", record.name)));
    }
    Ok(Some((record, author)))
}

impl ClonesLock {
    /// Waits for the lock. Makes `STATE/clones` if there is none.
    pub fn acquire(state: &Path) -> Result<ClonesLock, RecordError> {
        let path = folder(state);
        if !state.is_dir() {
            return Err(RecordError::NoState(state.to_owned()));
        }
        let made = match DirBuilder::new().mode(0o750).create(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(RecordError::io("create", &path)(e)),
        };
        let folder = open_folder(&path).map_err(RecordError::io("open", &path))?;
        if made {
            give_to_owner_of(state, &folder);
            sync_folder(state).map_err(RecordError::io("sync", state))?;
        }
        let lock = open_lock(&folder).map_err(RecordError::io("open", &path.join(LOCK)))?;
        loop {
            match flock(&lock, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(ClonesLock { path, folder, _lock: lock }),
                Err(Errno::INTR) => {}
                Err(e) => return Err(RecordError::io("lock", &path.join(LOCK))(e.into())),
            }
        }
    }

    /// Writes a record, durably, in place of one of that name; it is this user's from then on. It counts as being made
    /// until the result is dropped.
    pub(super) fn put(&self, record: &CloneRecord) -> Result<File, RecordError> {
        self.put_all(std::slice::from_ref(record)).map(|mut files| files.remove(0))
    }

    /// [`ClonesLock::put`] for many. If it fails, some may have been written.
    pub(super) fn put_all(&self, records: &[CloneRecord]) -> Result<Vec<File>, RecordError> {
        let files = records.iter().map(|record| {
            let (name, unfinished) = (file_name(&record.name), format!(".{}{SUFFIX}{UNFINISHED}", record.name));
            let written = self.write(record, &unfinished);
            let place = |file| Ok(renameat(&self.folder, &*unfinished, &self.folder, &*name).map(|()| file)?);
            written.and_then(place).map_err(|e| {
                let _ = self.remove(&unfinished);
                RecordError::io("write", &self.path.join(&name))(e)
            })
        });
        let files = files.collect::<Result<Vec<_>, _>>()?;
        self.sync()?;
        Ok(files)
    }

    /// Says, durably, that all clones of a batch are whole. It may have been said before.
    pub(super) fn commit(&self, batch: BatchId) -> Result<(), RecordError> {
        let name = batch_name(batch);
        let written = match self.create(&name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            created => created.and_then(|file| file.sync_all()),
        };
        written.map_err(RecordError::io("write", &self.path.join(&name)))?;
        self.sync()
    }

    /// The batch of a clone, if all of its clones are whole and it has not been forgotten yet.
    pub(super) fn open_batch(&self, record: &CloneRecord) -> Option<BatchId> {
        let is_open = |batch: &BatchId| statat(&self.folder, batch_name(*batch), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        record.batch.filter(is_open).filter(|_| record.state != CloneState::Removing)
    }

    /// Forgets a batch, durably: its clones stand for themselves, or are to go.
    pub(super) fn forget(&self, batch: BatchId) -> Result<(), RecordError> {
        let name = batch_name(batch);
        match self.remove(&name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(RecordError::io("remove", &self.path.join(&name))).and_then(|()| self.sync()),
        }
    }

    fn write(&self, record: &CloneRecord, unfinished: &str) -> io::Result<File> {
        // One that a crash left behind may belong to another user, who can't be overwritten but can be removed.
        let _ = self.remove(unfinished);
        let mut file = self.create(unfinished)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        let mut text = serde_json::to_vec_pretty(record)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    /// Removes a record, durably.
    pub(super) fn delete(&self, name: &Name) -> Result<(), RecordError> {
        let name = file_name(name);
        self.remove(&name).map_err(RecordError::io("remove", &self.path.join(&name)))?;
        self.sync()
    }

    /// Whether whoever wrote this record last is still at work on the clone.
    pub(super) fn is_being_made(&self, name: &Name) -> Result<bool, RecordError> {
        let name = file_name(name);
        let file = match open_for_reading(&self.folder, &name) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(RecordError::io("open", &self.path.join(&name))(e.into())),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(RecordError::io("lock", &self.path.join(&name))(e.into())),
        }
    }

    /// Removes records that a crash left unfinished: nobody can be writing one while the lock is held.
    pub(super) fn sweep(&self) -> Result<(), RecordError> {
        self.sweep_what(|name| name.ends_with(UNFINISHED))
    }

    /// Removes what says that batches are whole which no record names any more.
    pub(super) fn sweep_batches(&self, named: &BTreeSet<BatchId>) -> Result<(), RecordError> {
        let named: BTreeSet<String> = named.iter().map(|batch| batch_name(*batch)).collect();
        self.sweep_what(|name| name.ends_with(BATCH) && !named.contains(name))
    }

    fn sweep_what(&self, goes: impl Fn(&str) -> bool) -> Result<(), RecordError> {
        let failed = |e: Errno| RecordError::io("list", &self.path)(e.into());
        for entry in Dir::read_from(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.starts_with('.') && goes(name) {
                self.remove(name).map_err(RecordError::io("remove", &self.path.join(name)))?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), RecordError> {
        self.folder.sync_all().map_err(RecordError::io("sync", &self.path))
    }

    /// A new file in the folder, which no link leads to.
    fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.folder, name, flags, Mode::from_raw_mode(0o644)).map(File::from)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.folder, name, AtFlags::empty())?)
    }
}

impl RecordError {
    /// A full disk is no failure of what must work on one.
    pub(super) fn unless_full(self) -> Result<(), RecordError> {
        let is_full = matches!(&self, RecordError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull);
        if is_full { Ok(()) } else { Err(self) }
    }

    fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> RecordError {
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => RecordError::Denied { doing, path: path.to_owned() },
            _ => RecordError::Io { doing, path: path.to_owned(), source },
        }
    }
}

fn folder(state: &Path) -> PathBuf {
    state.join("clones")
}

fn file_name(name: &Name) -> String {
    format!("{name}{SUFFIX}")
}

fn batch_name(batch: BatchId) -> String {
    format!(".{:08x}{BATCH}", batch.0)
}

/// The folder itself, not what a link in its place leads to.
fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

fn open_for_reading(folder: &File, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::empty()).map(File::from)
}

/// Opened for reading only, because the daemon must be able to lock a file that root made.
fn open_lock(folder: &File) -> io::Result<File> {
    match open_for_reading(folder, LOCK) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(folder, LOCK, flags, Mode::from_raw_mode(0o644)) {
        Ok(made) => Ok(File::from(made)),
        Err(Errno::EXIST) => Ok(open_for_reading(folder, LOCK)?),
        Err(e) => Err(e.into()),
    }
}

/// Gives a folder that root made to the owner of the one above. Whoever is not root owns both already, or may not.
fn give_to_owner_of(folder: &Path, file: &File) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(owner) = std::fs::metadata(folder) {
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}
