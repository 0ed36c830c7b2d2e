//! File systems in files, mounted by a loop device that goes when they are unmounted.
//!
//! Loop devices read and write their file directly, so that nothing is in the page cache twice.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contenders::program;

/// A mounted file system. Unmounted when dropped.
#[derive(Debug)]
pub(super) struct Filesystem {
    /// Where it is mounted.
    pub(super) root: PathBuf,
}

impl Filesystem {
    /// A new XFS with reflinks in a file, whose blocks must all exist: a hole below would cost the first write.
    pub(super) fn xfs(file: &Path, root: &Path) -> Result<Filesystem, Box<dyn Error>> {
        // Without discarding, which would make holes again.
        Filesystem::make(file, root, &["mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1"])
    }

    /// A new ext4 in a file, with all that is usually put off until it is mounted done at once.
    pub(super) fn ext4(file: &Path, root: &Path) -> Result<Filesystem, Box<dyn Error>> {
        let at_once = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
        Filesystem::make(file, root, &["mkfs.ext4", "-q", "-F", "-E", at_once])
    }

    fn make(file: &Path, root: &Path, make: &[&str]) -> Result<Filesystem, Box<dyn Error>> {
        std::fs::create_dir_all(root)?;
        let device = Loop::attach(file)?;
        program::output(Command::new(make[0]).args(&make[1..]).arg(&device.0))?;
        program::output(Command::new("mount").arg(&device.0).arg(root))?;
        // Let go when `device` is dropped, the loop device stays until it is unmounted, and then goes by itself.
        Ok(Filesystem { root: root.to_owned() })
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        unmount(&self.root);
    }
}

/// Unmounts what is mounted at a path; if something still uses it, as soon as that ends.
pub(super) fn unmount(at: &Path) {
    let at_once = program::output(Command::new("umount").arg(at));
    if let Err(error) = at_once.or_else(|_| program::output(Command::new("umount").arg("--lazy").arg(at))) {
        eprintln!("lab: {} stays mounted: {error}", at.display());
    }
}

/// A loop device, let go when dropped.
struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Result<Loop, Box<dyn Error>> {
        let mut attach = Command::new("losetup");
        attach.args(["--direct-io=on", "--find", "--show"]).arg(file);
        Ok(Loop(program::output(&mut attach)?.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = program::output(Command::new("losetup").args(["--detach", &self.0])) {
            eprintln!("lab: {} stays: {error}", self.0);
        }
    }
}
