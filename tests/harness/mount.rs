//! Small disks over a folder, unmounted on drop. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::wait::{LONG, wait_until};

/// A file system mounted over a folder; what the folder held is copied into it.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    device: Option<String>,
}

impl Mount {
    /// A RAM disk of `len` bytes.
    #[track_caller]
    pub fn tmpfs_over(folder: &Path, len: u64) -> Self {
        Self::over(folder, |at| {
            let mut mount = Command::new("mount");
            run(mount.args(["-t", "tmpfs", "-o", &format!("size={len}"), "tmpfs"]).arg(at)).ok();
            None
        })
    }

    /// An ext4 of `len` bytes in `file`, made with these `features`. An error in it turns it read-only.
    #[track_caller]
    pub fn ext4_over(folder: &Path, file: &Path, len: u64, features: &str) -> Self {
        let backing = std::fs::File::create(file).expect("a test's folder can be written");
        backing.set_len(len).expect("a sparse file can be made");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-O", features]).arg(file)).ok();
        Self::over(folder, |at| {
            let device = run(Command::new("losetup").args(["--find", "--show"]).arg(file)).ok().trim().to_owned();
            mount_ext4(&device, at);
            Some(device)
        })
    }

    /// An XFS of `len` bytes in `file`, which can make reflinks.
    #[track_caller]
    pub fn xfs_over(folder: &Path, file: &Path, len: u64) -> Self {
        let backing = std::fs::File::create(file).expect("a test's folder can be written");
        backing.set_len(len).expect("a sparse file can be made");
        run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(file)).ok();
        Self::over(folder, |at| {
            let device = run(Command::new("losetup").args(["--find", "--show"]).arg(file)).ok().trim().to_owned();
            run(Command::new("mount").args(["-t", "xfs", &device]).arg(at)).ok();
            Some(device)
        })
    }

    fn over(folder: &Path, mount: impl FnOnce(&Path) -> Option<String>) -> Self {
        let aside = folder.with_extension("aside");
        run(Command::new("cp").arg("-a").arg(folder).arg(&aside)).ok();
        let device = mount(folder);
        let mounted = Mount { at: folder.to_owned(), device };
        run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(folder)).ok();
        run(Command::new("sync").arg("-f").arg(folder)).ok();
        mounted
    }

    /// Fills it up with a file, and gives that file's path.
    #[track_caller]
    pub fn fill(&self) -> PathBuf {
        let filler = self.at.join("filler");
        let dd = run(Command::new("dd").arg("if=/dev/zero").arg(format!("of={}", filler.display())).arg("bs=64k"));
        assert!(dd.stderr.contains("No space"), "{dd:#?}");
        filler
    }

    /// Makes the kernel find an error in it, so that it turns read-only under whoever writes.
    #[track_caller]
    pub fn turn_read_only(&self) {
        let device = self.device.as_deref().and_then(|device| device.strip_prefix("/dev/")).expect("it has a device");
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(&trigger, "1\n").unwrap_or_else(|cause| panic!("{trigger}: {cause}"));
    }

    /// Unmounts it, has it checked, and mounts it again.
    #[track_caller]
    pub fn mount_again(&self) {
        let device = self.device.as_deref().expect("it has a device");
        run(Command::new("umount").arg(&self.at)).ok();
        // 1 says that errors were mended, and the one that the test made is to be.
        let fsck = || run(Command::new("e2fsck").args(["-f", "-y", device]));
        // A test that has mounts of its own has copies of all there were when it began, until its end.
        let fsck = wait_until("the disk to be nobody's", 2 * LONG, fsck, |fsck| !fsck.stdout.contains("is in use"));
        assert!(matches!(fsck.code, Some(0 | 1)), "{fsck:#?}");
        mount_ext4(device, &self.at);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["--detach", device]).status();
        }
    }
}

#[track_caller]
fn mount_ext4(device: &str, at: &Path) {
    run(Command::new("mount").args(["-t", "ext4", "-o", "errors=remount-ro", device]).arg(at)).ok();
}
