//! What a clone's own disk is known by: what tells it from another that has its path by now.
//!
//! A path says little. A clone's file may have been removed by hand, and another be there: of another state folder, or
//! somebody's who has nothing to do with clones. So a record has what its own file or volume is known by, and nothing else
//! is removed, given to a guest or moved. An inode number alone would not do, since file systems give it to the next file
//! that is made; together with the time of birth it does.
//!
//! What a guest or `qemu-img` writes into a disk leaves it the one that it was. One that was restored from a backup is
//! another, which [`Handover::adopt`](super::Handover::adopt) takes for the clone's. Records of earlier versions know
//! nothing of this, nor do file systems that make up inode numbers as they go, as FAT does: there a path has to do, and for
//! qcow2 and VHD files what they name as the file below them, for raw ones that they are long enough.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use drover_protocol::release::Name;
use rustix::fs::statfs;
use serde::{Deserialize, Serialize};

use super::base::{BadBase, THE_CLONE};
use super::driver::{Driver, unreachable};
use super::record::CloneRecord;

/// What a clone's disk is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskId {
    /// A file.
    File {
        /// Its inode number.
        inode: u64,
        /// When it was made, in nanoseconds since 1970, where the file system keeps that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        born_unix_ns: Option<u64>,
    },
    /// A logical volume.
    Volume {
        /// Its UUID.
        uuid: String,
    },
}

/// Why a clone that is finished has no disk that should be given to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its place can't be seen, for the reason given.
    Unreachable(String),
    /// Nothing is where it was.
    Gone(PathBuf),
    /// Something else is.
    Replaced(PathBuf),
    /// It is there, and no disk of differences to the master that it was made from any more: what it shows with that below
    /// it is nobody's.
    OtherBase(PathBuf),
    /// It is shorter than the disk that was made, or than a file of differences can be.
    Short(PathBuf),
    /// What it rests on is gone or damaged.
    Broken(BadBase),
    /// What it rests on may have changed.
    Doubted(BadBase),
}

impl DiskId {
    /// What the file of this name is known by, if its file system is of a kind that keeps that.
    pub(crate) fn of_file(path: &Path) -> Option<DiskId> {
        let facts = path.symlink_metadata().ok()?;
        let kind = statfs(path).ok()?.f_type as u32;
        LASTING.contains(&kind).then(|| DiskId::File { inode: facts.ino(), born_unix_ns: born_unix_ns(&facts) })
    }

    /// Whether what is known by `now` is this one. A time of birth that one of them lacks counts for nothing.
    pub(super) fn is(&self, now: &DiskId) -> bool {
        match (self, now) {
            (DiskId::File { inode, born_unix_ns }, DiskId::File { inode: inode_now, born_unix_ns: born_now }) => {
                inode == inode_now && agree(*born_unix_ns, *born_now)
            }
            _ => self == now,
        }
    }
}

/// When a file or folder was made, if its file system keeps that: it is on the disk, and nobody can set it.
pub(super) fn born_unix_ns(facts: &Metadata) -> Option<u64> {
    let since = facts.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// Whether two facts are the same, as far as both are known.
pub(super) fn agree(one: Option<u64>, other: Option<u64>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

/// Whether what has a clone's own name is the clone's, as far as can be told.
pub(super) fn is_own<D: Driver + ?Sized>(driver: &D, record: &CloneRecord) -> bool {
    match &record.disk {
        Some(made) => driver.disk_id(&record.path).is_none_or(|now| made.is(&now)),
        None => driver.names_base(record).or_else(|| driver.is_long_enough(record)).unwrap_or(true),
    }
}

/// Whether nobody has written to the file that has a clone's own name since it was made, as far as can be told.
pub(super) fn is_unwritten(driver: &dyn Driver, record: &CloneRecord) -> bool {
    record.made_unix_ns.is_some() && driver.modified_unix_ns(&record.path) == record.made_unix_ns
}

/// Why a finished clone's own disk is lost, if it is, whatever became of what it rests on.
pub(super) fn lost<D: Driver + ?Sized>(driver: &D, record: &CloneRecord) -> Option<Lost> {
    // Of what can't be looked at nobody knows that it is gone.
    match driver.may_look().then(|| driver.exists(&record.path))? {
        Ok(false) if !driver.is_reachable(record) => Some(Lost::Unreachable(unreachable(record))),
        Ok(false) => Some(Lost::Gone(record.path.clone())),
        Ok(true) if !is_own(driver, record) => Some(Lost::Replaced(record.path.clone())),
        Ok(true) if driver.is_long_enough(record) == Some(false) => Some(Lost::Short(record.path.clone())),
        Ok(true) if driver.names_base(record) == Some(false) => Some(Lost::OtherBase(record.path.clone())),
        Ok(true) | Err(_) => None,
    }
}

impl Lost {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Lost::Unreachable(_) | Lost::Gone(_) => "missing",
            Lost::Replaced(_) => "replaced",
            Lost::OtherBase(_) => "changed",
            Lost::Short(_) => "short",
            Lost::Broken(_) => "broken",
            Lost::Doubted(_) => "doubted",
        }
    }

    /// What to do about it.
    pub fn advice(&self, clone: &Name) -> String {
        match self {
            Lost::Broken(base) | Lost::Doubted(base) => base.todo.replace(THE_CLONE, clone.as_str()),
            Lost::OtherBase(_) => format!(
                "if somebody made it a disk of its own, `drover clone rm --forget {clone}` leaves it to them and removes the \
                 record alone"
            ),
            // What is there is the clone's own, which is removed and not forgotten.
            Lost::Short(_) => format!(
                "bring its disk back and `drover clone adopt {clone}`, or `drover clone rm {clone}` and make it anew"
            ),
            Lost::Unreachable(_) | Lost::Gone(_) | Lost::Replaced(_) => format!(
                "bring its disk back and `drover clone adopt {clone}`, or `drover clone rm --forget {clone}` and make it anew"
            ),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Unreachable(why) => f.write_str(why),
            Lost::Broken(base) | Lost::Doubted(base) => base.fmt(f),
            Lost::Gone(path) => write!(f, "its disk is gone: there is nothing at {}", path.display()),
            Lost::Replaced(path) => write!(f, "what is at {} is not the disk that was made for it", path.display()),
            Lost::Short(path) => write!(f, "{} is shorter than the disk that was made", path.display()),
            Lost::OtherBase(path) => write!(
                f,
                "{} does not name the master that it was made from as what lies below it, and a guest that is given it with \
                 that below would see what it never wrote",
                path.display()
            ),
        }
    }
}

/// Kinds of file systems whose inode numbers last as long as the files: ext2 to ext4, XFS, btrfs, ZFS, F2FS, bcachefs, tmpfs,
/// NFS, OCFS2, GFS2 and Ceph.
const LASTING: [u32; 11] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x2fc1_2fc1,
    0xf2f5_2010,
    0xca45_1a4e,
    0x0102_1994,
    0x6969,
    0x7461_636f,
    0x0116_1970,
    0x00c3_6400,
];
