//! Disks of guests: a folder with busybox and what a test adds, as an ext4 file system in a file. No root, no loop device.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use drover_harness::run;

use super::parts::Parts;

/// Folder of libraries in a guest, where the loader looks without being told.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// Folder of programs that are not busybox's; guests look here first. Busybox's shell looks in busybox before that, so of what
/// both have tests give the path.
const TOOLS: &str = "tools";

/// A folder that becomes a disk.
#[derive(Debug)]
pub(crate) struct Tree {
    folder: PathBuf,
    parts: Parts,
}

impl Tree {
    /// A new folder with busybox, under each of its names.
    #[track_caller]
    pub(crate) fn with_busybox(folder: &Path, parts: &Parts) -> Tree {
        let tree = Tree { folder: folder.to_owned(), parts: parts.clone() };
        for empty in
            ["bin", "sbin", "proc", "sys", "dev", "tmp", "run", "var", "root", "etc", LIBRARIES, "lib64", TOOLS]
        {
            fs::create_dir_all(tree.at(empty)).expect("a test's folder can be written");
        }
        let busybox = parts.program("busybox");
        tree.copy(&busybox, "bin/busybox");
        for name in run(Command::new(&busybox).arg("--list")).ok().lines().filter(|name| *name != "busybox") {
            symlink("busybox", tree.at("bin").join(name)).expect("a test's folder can be written");
        }
        tree
    }

    /// Writes a file that can be run.
    #[track_caller]
    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        fs::write(self.at(path), content).expect("a test's folder can be written");
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    /// Copies a file.
    #[track_caller]
    pub(crate) fn copy(&self, from: &Path, path: &str) {
        fs::copy(from, self.at(path)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }

    /// Adds a program with the libraries that it needs, to be called `name`.
    #[track_caller]
    pub(crate) fn add_tool(&self, program: &Path, name: &str) {
        self.copy(program, &format!("{TOOLS}/{name}"));
        for library in self.parts.libraries(program) {
            let file_name = library.file_name().expect("a library has a name").to_string_lossy().into_owned();
            let folder = if file_name.starts_with("ld-linux") { "lib64" } else { LIBRARIES };
            if !self.at(folder).join(&file_name).exists() {
                self.copy(&library, &format!("{folder}/{file_name}"));
            }
        }
    }

    /// Adds another name for a program that was added.
    #[track_caller]
    pub(crate) fn add_alias(&self, tool: &str, alias: &str) {
        symlink(tool, self.at(TOOLS).join(alias)).expect("a test's folder can be written");
    }

    /// Makes the disk, `len` bytes long.
    #[track_caller]
    pub(crate) fn to_ext4(&self, disk: &Path, len: u64) {
        let file = fs::File::create(disk).expect("a test's folder can be written");
        file.set_len(len).expect("a sparse file can be made");
        run(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).arg(&self.folder).arg(disk)).ok();
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }
}
