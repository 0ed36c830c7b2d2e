//! The parent that the VHDs of a folder share: who rests on it, and whether it is still what was made.
//!
//! Other state folders, also those of other hosts, may have clones in the same folder, and people may make disks on it by
//! hand. So no record tells whether it may go: every file beside it is asked for its parent. Who makes a clone holds a
//! shared lock on the parent until the clone's file names it, and who removes the parent an exclusive one while it asks.
//! Where a file system has no such locks, the parent stays.
//!
//! Its time of modification belongs to it like its bytes, and follows from nothing but the format: a parent that has another
//! was written to, or was found damaged and marked by that. No clone is made on it until a full check finds it right, which
//! gives it its time back.

use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::format::{EPOCH_UNIX_S, Uuid, parent_of, seems_differencing};
use super::{file_name, shown};
use crate::handover::master::folder_of;
use crate::handover::target;

/// When all parents were made, as their bytes and file times say, in seconds since 2000.
pub(super) const PARENT_TIME_S: u32 = 1;
const PARENT_MODE: u32 = 0o444;
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

/// Why a parent may differ from what was made, as far as that shows without reading it.
pub(super) fn difference(parent: &File) -> io::Result<Option<&'static str>> {
    let facts = parent.metadata()?;
    if facts.modified()? != parent_time() {
        return Ok(Some("it was written to, or found damaged"));
    }
    Ok((facts.permissions().mode() & 0o222 != 0).then_some("it can be written to"))
}

/// Makes a file that has all its bytes a parent, durably.
pub(super) fn seal(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(PARENT_MODE))?;
    file.set_times(FileTimes::new().set_modified(parent_time()).set_accessed(parent_time()))?;
    file.sync_all()
}

/// Takes note of what a full check found, by the parent's time.
pub(super) fn note(base: &Path, is_right: bool) -> io::Result<()> {
    let parent = File::open(base)?;
    match (is_right, difference(&parent)?) {
        (true, Some(_)) => seal(&parent),
        (false, None) => parent.set_modified(SystemTime::now()).and_then(|()| parent.sync_all()),
        _ => Ok(()),
    }
}

/// Removes the parent, durably, unless a disk beside it rests on it; then it says so.
pub(super) fn remove(base: &Path) -> io::Result<Option<String>> {
    let stays = |why: String| Ok(Some(format!("{} stays: {why}", base.display())));
    let Some(held) = Held::open(base)? else { return Ok(None) };
    match lock_soon(&held.file) {
        Ok(()) if !held.is_at(base) => return Ok(None),
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return stays("a program holds it, as the maker of a clone does".to_owned()),
        Err(e) => return stays(format!("it can't be locked against makers of clones ({e})")),
    }
    let resting = dependants(base)?;
    if !resting.is_empty() {
        return stays(format!("these disks beside it rest on it: {}", resting.join(", ")));
    }
    target::remove_file(base).map(|_| None)
}

/// The files beside a parent that rest on it, by their names. Of what can't be read nobody knows that it does not.
fn dependants(base: &Path) -> io::Result<Vec<String>> {
    let mut resting = Vec::new();
    for entry in folder_of(base).read_dir()? {
        let path = entry?.path();
        // What is no file, or gone by now, is no disk.
        if path == base || !path.metadata().is_ok_and(|facts| facts.is_file()) {
            continue;
        }
        match rests_on(&path, base) {
            Ok(true) => resting.push(file_name(&path)),
            Ok(false) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => resting.push(format!("{}, perhaps ({e})", file_name(&path))),
        }
    }
    resting.sort();
    Ok(resting)
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

fn is_name_of(base: &Path, uuid: Uuid) -> bool {
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

fn parent_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(EPOCH_UNIX_S + u64::from(PARENT_TIME_S))
}
