//! What the order of writes needs of a disk: single operations on files and names.
//!
//! An operation is done or fails; nothing is promised to survive a crash until it was synced: the bytes and length of a file
//! by its own sync, a name by the sync of its folder. After a sync that failed nobody knows what of it is on the disk.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To be read only.
    Read,
    /// To be read and written.
    Write,
}

/// A file system, or what stands for one.
pub trait Disk: Debug {
    /// A file that is open.
    type File: DiskFile;

    /// Opens a file that is there.
    fn open(&self, path: &Path, access: Access) -> io::Result<Self::File>;
    /// Makes an empty file and opens it to be read and written; `AlreadyExists` if the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Self::File>;
    /// The names in a folder, rising.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Whether there is a file or folder of this name.
    fn exists(&self, path: &Path) -> bool;
    /// Makes a folder; `AlreadyExists` if the name is taken.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or folder another name. A file that has that name is replaced in the same step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exchanges the names of two folders in one step.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and what is in it; one that is not there is removed already.
    fn remove_tree(&self, folder: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Called at each named moment; an error is taken as the disk's. For tests that stop the world there.
    fn reach(&self, _step: Step) -> io::Result<()> {
        Ok(())
    }

    /// The whole of a file, but at most `most` bytes.
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, Access::Read)?;
        let mut bytes = vec![0; file.len()?.min(most) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// A file that is open.
pub trait DiskFile: Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends it to `len` bytes; what is new is zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Fills `buffer` with the bytes from `offset` on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` from `offset` on.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes its bytes and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes everything of it durable, its mode and times as well.
    fn sync_all(&self) -> io::Result<()>;
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }
}

/// A moment in the store's work at which a crash or a failing disk matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// The files of an incoming master are durable, its folder has no lasting name yet.
    Prepared,
    /// The incoming master has its name.
    Begun,
    /// About to write a chunk.
    WriteChunk,
    /// About to read a chunk.
    ReadChunk,
    /// About to sync the data.
    SyncData,
    /// The data is synced, the journal knows nothing of it.
    DataSynced,
    /// About to write a record.
    AppendJournal,
    /// A record is written, not synced.
    SyncJournal,
    /// The record is durable.
    JournalSynced,
    /// Everything is durable, the master still lies in `incoming`.
    SealSynced,
    /// The master lies in `masters`, neither folder is synced.
    SealMoved,
    /// Both folders are synced, the master is writable and has a journal.
    SealPlaced,
    /// The journal is gone.
    SealUnjournaled,
    /// Sealed.
    Sealed,
    /// About to write a release.
    WriteRelease,
}
