//! The parent that the VHDs of a folder share: who rests on it, and whether it is still what was made.
//!
//! Other state folders, also those of other hosts, may have clones in the same folder, and people may make disks on it by
//! hand. So no record tells whether it may go: every file beside it is asked for its parent. Who makes a clone holds a
//! shared lock on the parent until the clone's file names it, and who removes the parent an exclusive one while it asks.
//! Where a file system has no such locks, the parent stays.
//!
//! Its time of modification belongs to it like its bytes, and follows from nothing but the format: a parent that has another
//! was written to, and one that a full check found damaged is marked by a time that nothing else has. No clone is made on it
//! until a full check finds it right, which gives it its time back.
//!
//! A parent may share its blocks with the file of the master that it was made of, and so what the disk damages in them. When
//! that file is known to be damaged, or the master has another by now, as after it was mended, the parent is doubted until a
//! full check finds it right, and new clones get another parent. That the master was removed since changes nothing of this:
//! what it had last is noted. Which file a parent was made of is an attribute of its own file; file systems without such
//! attributes share no blocks. One that was found right while it was doubted shares none with the master's file any more, as
//! far as anybody knows, and loses the attribute.

use std::fmt;
use std::fs::{DirEntry, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, XattrFlags, fgetxattr, flock, fremovexattr, fsetxattr};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::format::{EPOCH_UNIX_S, Footer, Uuid, parent_of, seems_differencing};
use super::{ends_with, file_name, shown};
use crate::handover::disk::DiskId;
use crate::handover::master::folder_of;
use crate::handover::target;
use crate::store::LastFile;

/// When all parents were made, as their bytes and file times say, in seconds since 2000.
pub(super) const PARENT_TIME_S: u32 = 1;
const PARENT_MODE: u32 = 0o444;
/// What those have as the time when they were last modified that were found damaged, in seconds since 2000.
const DAMAGED_TIME_S: u32 = 100;
/// The attribute that tells which file of the master a parent was made of, and the most that is read of it, in bytes.
const ORIGIN: &str = "user.drover.master";
const MAX_ORIGIN_LEN: usize = 8192;
/// How often the lock is tried for, and how long between: a second in all, where a maker writes and syncs a small file.
const PATIENCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// As much of a differencing disk as tells its parent, in bytes.
const START_LEN: usize = 1536;

/// A parent that nobody removes until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) file: File,
}

impl Held {
    /// Holds the parent, together with others; nothing if there is none.
    pub(super) fn shared(base: &Path) -> io::Result<Option<Held>> {
        loop {
            let Some(held) = Held::open(base)? else { return Ok(None) };
            // Where there are no locks nobody removes it, either.
            let _ = lock(&held.file, FlockOperation::LockShared);
            if held.is_at(base) {
                return Ok(Some(held));
            }
        }
    }

    /// Holds a parent that is being made, from before it has its name.
    pub(super) fn made(file: File) -> Held {
        let _ = lock(&file, FlockOperation::LockShared);
        Held { file }
    }

    fn open(base: &Path) -> io::Result<Option<Held>> {
        match File::open(base) {
            Ok(file) => Ok(Some(Held { file })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether this is a file of that name, and ends as the parent does that is made there: all others are somebody's.
    pub(super) fn is_parent(&self, base: &Path, footer: &Footer) -> io::Result<bool> {
        Ok(base.symlink_metadata()?.is_file() && ends_with(&self.file, footer)?)
    }

    fn is_at(&self, base: &Path) -> bool {
        match (self.file.metadata(), base.metadata()) {
            (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Said out loud: a program that is started at this moment has a copy, and would hold the lock as well.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Which file of the master a parent was made of.
#[derive(Debug, Serialize, Deserialize)]
struct Origin {
    /// Where the store has the master: its folder, or as earlier versions noted it, its file.
    #[serde(alias = "path")]
    master: PathBuf,
    disk: DiskId,
}

impl Origin {
    fn of(parent: &File) -> Option<Origin> {
        let mut json = vec![0; MAX_ORIGIN_LEN];
        let len = fgetxattr(parent, ORIGIN, &mut json[..]).ok()?;
        serde_json::from_slice(&json[..len]).ok()
    }

    /// Notes the master's present file, where the file systems of both keep what that takes.
    fn note(parent: &File, master: &MasterAt) {
        let origin = DiskId::of_file(&master.path).map(|disk| Origin { master: master.folder.clone(), disk });
        if let Some(json) = origin.and_then(|origin| serde_json::to_vec(&origin).ok()) {
            let _ = fsetxattr(parent, ORIGIN, &json, XattrFlags::empty());
        }
    }
}

/// Where a master is.
#[derive(Debug)]
pub(super) struct MasterAt {
    /// Its file.
    pub(super) path: PathBuf,
    /// The store's folder for it.
    pub(super) folder: PathBuf,
}

/// Why no clone is made on a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A full check found it damaged.
    Damaged,
    /// It may differ from what was made, for this reason.
    Doubt(&'static str),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Damaged => f.write_str("was found damaged"),
            Flaw::Doubt(what) => write!(f, "may be damaged: {what}"),
        }
    }
}

/// What is wrong with a parent, as far as that shows without reading it.
pub(super) fn flaw(parent: &File) -> io::Result<Option<Flaw>> {
    let facts = parent.metadata()?;
    let time = facts.modified()?;
    if time == time_at(DAMAGED_TIME_S) {
        return Ok(Some(Flaw::Damaged));
    }
    if time != time_at(PARENT_TIME_S) {
        return Ok(Some(Flaw::Doubt("it was written to")));
    }
    if facts.permissions().mode() & 0o222 != 0 {
        return Ok(Some(Flaw::Doubt("it can be written to")));
    }
    Ok(doubt_of_origin(parent).map(Flaw::Doubt))
}

/// Why the blocks may be damaged that a parent shares with the file of the master that it was made of.
fn doubt_of_origin(parent: &File) -> Option<&'static str> {
    if is_outdated(parent) {
        return Some("it was made of a file of the master that another has replaced since");
    }
    let is_damaged = LastFile::of(&Origin::of(parent)?.master)?.is_damaged;
    is_damaged.then_some("the master's file that it was made of was found damaged")
}

/// Whether the master has another file by now than the one that a parent was made of, or had when it was removed.
fn is_outdated(parent: &File) -> bool {
    let is_other = |origin: Origin| LastFile::of(&origin.master)?.disk.map(|now| !origin.disk.is(&now));
    Origin::of(parent).and_then(is_other).unwrap_or(false)
}

/// Whether a parent is outdated and has disks that rest on it, which keep it as it is.
pub(super) fn is_left_to_others(base: &Path) -> bool {
    File::open(base).is_ok_and(|parent| is_outdated(&parent)) && has_dependants(base)
}

/// Makes a file that has all the bytes of this master a parent, durably.
pub(super) fn seal(file: &File, master: &MasterAt) -> io::Result<()> {
    seal_with(file, || Origin::note(file, master))
}

/// Gives a parent its mode and time, with this change of its attribute.
fn seal_with(file: &File, change: impl FnOnce()) -> io::Result<()> {
    // Only root sets attributes of a file that can't be written.
    file.set_permissions(Permissions::from_mode(PARENT_MODE | 0o200))?;
    change();
    file.set_permissions(Permissions::from_mode(PARENT_MODE))?;
    let time = time_at(PARENT_TIME_S);
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time))?;
    file.sync_all()
}

/// Takes note of what a full check found, by the parent's time.
pub(super) fn note(base: &Path, is_right: bool) -> io::Result<()> {
    let parent = File::open(base)?;
    match (is_right, flaw(&parent)?) {
        (true, Some(_)) => seal_with(&parent, || {
            if doubt_of_origin(&parent).is_some() {
                let _ = fremovexattr(&parent, ORIGIN);
            }
        }),
        (true, None) | (false, Some(Flaw::Damaged)) => Ok(()),
        (false, _) => parent.set_modified(time_at(DAMAGED_TIME_S)).and_then(|()| parent.sync_all()),
    }
}

/// Removes the parent, durably, unless a disk beside it rests on it, or what has its name is something else; then it says so.
pub(super) fn remove(base: &Path, footer: &Footer) -> io::Result<Option<String>> {
    let stays = |why: String| Ok(Some(format!("{} stays: {why}", base.display())));
    let Some(held) = Held::open(base)? else { return Ok(None) };
    match lock_soon(&held.file) {
        Ok(()) if !held.is_at(base) => return Ok(None),
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return stays("a program holds it, as the maker of a clone does".to_owned()),
        Err(e) => return stays(format!("it can't be locked against makers of clones ({e})")),
    }
    if !held.is_parent(base, footer)? {
        return stays("it is not the parent that was made, or is damaged at its end".to_owned());
    }
    let resting = dependants(base)?;
    if !resting.is_empty() {
        return stays(format!("these disks beside it rest on it: {}", resting.join(", ")));
    }
    target::remove_file(base).map(|_| None)
}

/// The files beside a parent that rest on it, by their names. Of what can't be read nobody knows that it does not.
///
/// Before it is said that there is none they are looked for again: a clone that gets its name meanwhile may be seen neither
/// under that nor under the one before, but it does so once.
fn dependants(base: &Path) -> io::Result<Vec<String>> {
    let resting = dependants_seen(base)?;
    if resting.is_empty() { dependants_seen(base) } else { Ok(resting) }
}

fn dependants_seen(base: &Path) -> io::Result<Vec<String>> {
    let mut resting = Vec::new();
    for entry in folder_of(base).read_dir()? {
        resting.extend(resting_as(&entry?.path(), base));
    }
    resting.sort();
    Ok(resting)
}

/// Whether there is any, or might be.
fn has_dependants(base: &Path) -> bool {
    let rests = |entry: io::Result<DirEntry>| entry.is_ok_and(|entry| resting_as(&entry.path(), base).is_some());
    folder_of(base).read_dir().map_or(true, |mut entries| entries.any(rests))
}

/// The name of a file that rests on a parent, or may.
fn resting_as(path: &Path, base: &Path) -> Option<String> {
    // What is no file, or gone by now, is no disk.
    if path == base || !path.metadata().is_ok_and(|facts| facts.is_file()) {
        return None;
    }
    match rests_on(path, base) {
        Ok(rests) => rests.then(|| file_name(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => Some(format!("{}, perhaps ({e})", file_name(path))),
    }
}

/// Whether a disk names this parent; one whose header is damaged might.
fn rests_on(disk: &Path, base: &Path) -> io::Result<bool> {
    let mut start = [0; START_LEN];
    match File::open(disk)?.read_exact_at(&mut start, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    Ok(parent_of(&start).map_or_else(|| seems_differencing(&start), |uuid| is_name_of(base, uuid)))
}

/// Whether a parent's file has the name that goes with this identity.
pub(super) fn is_name_of(base: &Path, uuid: Uuid) -> bool {
    base.file_stem().is_some_and(|stem| stem == shown(uuid).as_str())
}

/// Takes the exclusive lock, for which makers and other removers need not be waited for long.
fn lock_soon(file: &File) -> Result<(), Errno> {
    for _ in 0..PATIENCE {
        match lock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
    lock(file, FlockOperation::NonBlockingLockExclusive)
}

fn lock(file: &File, how: FlockOperation) -> Result<(), Errno> {
    loop {
        match flock(file, how) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn time_at(since_2000_s: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(EPOCH_UNIX_S + u64::from(since_2000_s))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::format::{Footer, Kind, Parent, child};
    use super::*;

    #[test]
    fn a_clone_that_gets_its_name_while_its_parent_is_asked_for_clones_is_seen() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (uuid, at) = ([7; 16], |name: &str| dir.path().join(name));
        let base = at(&format!("{}.vhd", shown(uuid)));
        let parent =
            Parent { uuid, time_s: PARENT_TIME_S, name: file_name(&base), path: base.to_string_lossy().into_owned() };
        let own = Footer { kind: Kind::Differencing, disk_len: 1 << 20, uuid: [8; 16], time_s: 1 };
        let (temporary, named) = (at(".clone.tmp"), at("clone.vhd"));
        fs::write(&temporary, child(&own, &parent)).expect("written");
        (0..300).for_each(|number| fs::write(at(&format!("other-{number}")), b"").expect("written"));
        for round in 0..200 {
            let (from, to) = if round % 2 == 0 { (&temporary, &named) } else { (&named, &temporary) };
            std::thread::scope(|scope| {
                scope.spawn(|| fs::rename(from, to).expect("renamed"));
                assert_eq!(dependants(&base).expect("looked for").len(), 1, "round {round}");
            });
        }
    }
}
