//! Where a clone's file is: what tells a file that is gone from a file system that is not mounted.
//!
//! A folder can be there while what belongs in it is not: as the empty mount point of a file system that is not mounted. A
//! clone that is looked for there seems to be gone, and would be forgotten while its file lives on elsewhere. So a record
//! has what the folder is known by again. That must outlive a reboot, which device numbers do not; and the identity of a
//! file system is made from its device number by some kinds of them, XFS among these, so it counts only for kinds that keep
//! it on the disk. When the folder was made tells the others apart: the root folders of two file systems have the same
//! inode number, but were not made in the same nanosecond.
//!
//! Who restores clones to another disk gets another folder. So a place counts for nothing where the file is to be seen.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{statfs, statvfs};
use serde::{Deserialize, Serialize};

use super::disk::{agree, born_unix_ns};

/// What a folder is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The folder's inode number.
    pub inode: u64,
    /// The kind of its file system, by the kernel's magic number.
    pub kind: u32,
    /// The identity of its file system, if that kind has one that lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system: Option<u64>,
    /// When the folder was made, in nanoseconds since 1970, where the file system keeps that. Records of earlier versions
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born_unix_ns: Option<u64>,
}

impl Place {
    /// What the folder is known by now.
    pub(super) fn of(folder: &Path) -> io::Result<Place> {
        let facts = folder.metadata()?;
        let kind = statfs(folder)?.f_type as u32;
        let file_system = if LASTING.contains(&kind) { Some(statvfs(folder)?.f_fsid) } else { None };
        Ok(Place { inode: facts.ino(), kind, file_system, born_unix_ns: born_unix_ns(&facts) })
    }

    /// Whether what is known by `now` is this one. What one of them lacks counts for nothing.
    pub(super) fn is(&self, now: &Place) -> bool {
        let is_same = (self.inode, self.kind) == (now.inode, now.kind);
        is_same && agree(self.file_system, now.file_system) && agree(self.born_unix_ns, now.born_unix_ns)
    }
}

/// Kinds of file systems whose identity is on the disk: ext2 to ext4, btrfs, ZFS.
const LASTING: [u32; 3] = [0xef53, 0x9123_683e, 0x2fc1_2fc1];
