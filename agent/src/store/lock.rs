//! One daemon for one state folder: two that write the same journal would each claim what the other overwrites.
//!
//! The lock belongs to the open file, so it ends with the process, however that ends; the number in the file is only
//! there to tell a person who holds it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;
use super::disk_error::Doing;

/// The state folder is ours while this lives.
#[derive(Debug)]
pub(super) struct StateLock {
    file: File,
}

impl StateLock {
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(path)
            .doing("open", path)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(Err::<(), _>(error).doing("lock", path).unwrap_err().into());
            }
            let mut text = String::new();
            let holder = (&file).take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            let state = path.parent().unwrap_or(path).to_owned();
            return Err(StoreError::InUse { state, holder: Holder(holder) });
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).doing("write", path)?;
        Ok(StateLock { file })
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // Not left to closing the file: a program that is being started by another thread of ours has it open too, from
        // its fork to its exec, and the lock would outlive us by that moment.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// The process that holds a lock, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}
