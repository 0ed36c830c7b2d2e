//! Clones that share the master's blocks on disk until they are written: FICLONE.
//!
//! The best where it works: a plain raw file without a layer over it, made in milliseconds, and whole without the
//! master. Whether it works is found out by cloning the master itself into a file without a name in the target folder,
//! because only that tells everything: a file system without reflinks, a master on another one, a btrfs folder without
//! copy-on-write.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::{IFlags, ioctl_ficlone, ioctl_getflags};
use rustix::io::Errno;

use super::choice::DriverName;
use super::copy::refuse_long;
use super::driver::{
    Driver, Inspection, Job, Made, MakeError, Site, Unusable, refuse_pool, refuse_profile, refuse_room,
};
use super::record::CloneRecord;
use super::target::{Target, make_empty};
use super::verify::{inspect_raw, is_raw_of};

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

    fn available(&self, target: &Target) -> Result<(), Unusable> {
        let folder = target.folder()?;
        can_share(folder).map_err(|e| {
            let folder = folder.display();
            Unusable(match e.kind() {
                _ if is_full(&e) => format!("there is no space left in {folder}"),
                io::ErrorKind::PermissionDenied => format!("can't make a file in {folder} to try it with: {e}"),
                _ => format!("the file system of {folder} has no reflinks (FICLONE: {e}); XFS and btrfs have"),
            })
        })
    }

    fn probe(&self, job: &Job<'_>) -> Result<(), Unusable> {
        refuse_profile(self.name(), job)?;
        refuse_room(self.name(), job)?;
        refuse_pool(self.name(), job)?;
        let folder = job.target.folder()?;
        let shown = folder.display();
        let Err(e) = try_clone(folder, &job.source.file) else { return refuse_long(folder, job.disk_len) };
        self.available(job.target)?;
        Err(Unusable(match Errno::from_io_error(&e) {
            Some(Errno::XDEV) => format!(
                "{shown} is on another file system than the master ({}); put both on the same one",
                job.master.path.display()
            ),
            Some(Errno::NOSPC) => format!("there is no space left in {shown}"),
            _ => differs_in_nocow(folder, &job.source.file)
                .unwrap_or_else(|| format!("the master can't be cloned into {shown} (FICLONE: {e})")),
        }))
    }

    fn create(&self, job: &Job<'_>, site: &Site<'_>) -> Result<Made, MakeError> {
        make_empty(site.temporary)?;
        let clone = OpenOptions::new().write(true).open(site.temporary).map_err(MakeError::io("open the new file"))?;
        ioctl_ficlone(&clone, &job.source.file).map_err(|e| MakeError::io("clone the master (FICLONE)")(e.into()))?;
        if job.disk_len > job.source.identity.len {
            clone.set_len(job.disk_len).map_err(MakeError::io("enlarge the new file"))?;
        }
        clone.sync_all().map_err(MakeError::io("sync the new file"))?;
        Ok(Made::default())
    }

    fn is_long_enough(&self, record: &CloneRecord) -> Option<bool> {
        is_raw_of(record)
    }

    fn verify(&self, record: &CloneRecord) -> Inspection {
        inspect_raw(record)
    }
}

/// Whether a tiny file in this folder can be cloned into another there.
pub(super) fn can_share(folder: &Path) -> io::Result<()> {
    let source = tempfile::tempfile_in(folder)?;
    std::os::unix::fs::FileExt::write_all_at(&source, &[0x5a; 4096], 0)?;
    let clone = tempfile::tempfile_in(folder)?;
    Ok(ioctl_ficlone(&clone, &source)?)
}

/// Whether this file can be cloned into a file of this folder.
pub(super) fn try_clone(folder: &Path, file: &File) -> io::Result<()> {
    Ok(ioctl_ficlone(tempfile::tempfile_in(folder)?, file)?)
}

/// That a folder's files can't share blocks with a file, since one is written in place and the other is not, if that is so.
pub(super) fn differs_in_nocow(folder: &Path, file: &File) -> Option<String> {
    let is_nocow = |file: &File| Some(ioctl_getflags(file).ok()?.contains(IFlags::NOCOW));
    let (here, masters) = (is_nocow(&tempfile::tempfile_in(folder).ok()?)?, is_nocow(file)?);
    let shown = folder.display();
    match (here, masters) {
        (true, false) => Some(format!(
            "{shown} is without copy-on-write (chattr +C), the master is not, and such files share no blocks; choose a folder \
             without +C"
        )),
        (false, true) => Some(format!(
            "the master is without copy-on-write (chattr +C), {shown} is not, and such files share no blocks; take +C off \
             the state folder and fetch the master again"
        )),
        _ => None,
    }
}

/// Whether an error says that there is no space left.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
