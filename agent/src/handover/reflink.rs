//! Clones that share the master's blocks on disk until they are written: FICLONE.
//!
//! The best where it works: a plain raw file without a layer over it, made in milliseconds, and whole without the
//! master. Whether it works is found out by cloning the master itself into a file without a name in the target folder,
//! because only that tells everything: a file system without reflinks, a master on another one, a btrfs folder without
//! copy-on-write.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;

use super::driver::{Driver, DriverName, Inspection, Job, Made, MakeError, Site, Unusable, refuse_profile};
use super::record::CloneRecord;
use super::verify::inspect_raw;

/// Makes clones by FICLONE.
#[derive(Debug)]
pub(super) struct Reflink;

impl Driver for Reflink {
    fn name(&self) -> DriverName {
        DriverName::Reflink
    }

    fn note(&self) -> &'static str {
        "raw file that shares the master's blocks on disk; needs XFS or btrfs with the master on the same one"
    }

    fn needs_master(&self) -> bool {
        false
    }

    fn probe(&self, job: &Job<'_>) -> Result<(), Unusable> {
        refuse_profile(self.name(), job)?;
        let folder = job.folder.display();
        let nameless = tempfile::tempfile_in(job.folder)
            .map_err(|e| Unusable(format!("can't make a file in {folder} to try it with: {e}")))?;
        let works = can_share(job.folder);
        match ioctl_ficlone(&nameless, &job.source.file) {
            Ok(()) => Ok(()),
            Err(Errno::XDEV) if works => Err(Unusable(format!(
                "{folder} is on another file system than the master ({}); put both on the same one",
                job.master.path.display()
            ))),
            Err(Errno::NOSPC) => Err(Unusable(format!("there is no space left in {folder}"))),
            Err(e) if works => Err(Unusable(format!("the master can't be cloned into {folder} (FICLONE: {e})"))),
            Err(e) => Err(Unusable(format!(
                "the file system of {folder} has no reflinks (FICLONE: {}); XFS and btrfs have",
                io::Error::from(e)
            ))),
        }
    }

    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError> {
        let clone = OpenOptions::new().write(true).open(site.file).map_err(MakeError::io("open the new file"))?;
        ioctl_ficlone(&clone, &job.source.file).map_err(|e| MakeError::io("clone the master (FICLONE)")(e.into()))?;
        if job.disk_len > job.source.identity.len {
            clone.set_len(job.disk_len).map_err(MakeError::io("enlarge the new file"))?;
        }
        Ok(Made::default())
    }

    fn verify(&self, record: &CloneRecord) -> Inspection {
        inspect_raw(record)
    }
}

/// Whether a tiny file in this folder can be cloned into another there.
fn can_share(folder: &Path) -> bool {
    let pair = || -> io::Result<(File, File)> {
        let source = tempfile::tempfile_in(folder)?;
        std::os::unix::fs::FileExt::write_all_at(&source, &[0x5a; 4096], 0)?;
        Ok((source, tempfile::tempfile_in(folder)?))
    };
    pair().is_ok_and(|(source, clone)| ioctl_ficlone(&clone, &source).is_ok())
}
