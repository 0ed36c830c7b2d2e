//! The first file system of a machine: modules, and a script that loads them and goes on to the disk.
//!
//! It is an archive in cpio's "newc" format, uncompressed, as the kernel reads it: each entry a header of hexadecimal
//! numbers, a name and the content, padded to four bytes; parents before what is in them.

use std::path::{Path, PathBuf};

use super::parts::Parts;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const DEVICE: u32 = 0o020_600;
/// Programs that the script uses.
const APPLETS: [&str; 9] = ["sh", "mount", "umount", "insmod", "mkdir", "mknod", "switch_root", "poweroff", "sleep"];
const SCRIPT: &str = include_str!("../guest/initramfs.sh");

/// An archive that a kernel starts with.
#[derive(Debug)]
pub(crate) struct Initramfs {
    /// Its file.
    pub(crate) path: PathBuf,
}

#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Initramfs {
    /// Makes one at `path` that loads these modules and all that they need.
    #[track_caller]
    pub(crate) fn make(path: &Path, parts: &Parts, modules: &[&str]) -> Initramfs {
        let modules = parts.modules(modules);
        let busybox = std::fs::read(parts.program("busybox")).expect("busybox can be read");
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "proc", "sys", "root", "modules"] {
            archive.add(folder, FOLDER, (0, 0), &[]);
        }
        // Without it the kernel has nowhere to show what the script prints.
        archive.add("dev/console", DEVICE, (5, 1), &[]);
        archive.add("bin/busybox", PROGRAM, (0, 0), &busybox);
        for applet in APPLETS {
            archive.add(&format!("bin/{applet}"), LINK, (0, 0), b"busybox");
        }
        for module in &modules {
            archive.add(&format!("modules/{}.ko", module.name), PROGRAM, (0, 0), &module.content);
        }
        let order: String = modules.iter().map(|module| format!("{}.ko\n", module.name)).collect();
        archive.add("modules/order", PROGRAM, (0, 0), order.as_bytes());
        archive.add("init", PROGRAM, (0, 0), SCRIPT.as_bytes());
        archive.add("TRAILER!!!", 0, (0, 0), &[]);
        std::fs::write(path, archive.bytes).expect("a test's folder can be written");
        Initramfs { path: path.to_owned() }
    }
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let (len, name_len) = (content.len() as u32, name.len() as u32 + 1);
        // Inode, mode, user, group, links, time, length, disk, device, length of the name, checksum.
        let numbers = [self.entries, mode, 0, 0, 1, 0, len, 0, 0, device.0, device.1, name_len, 0];
        self.bytes.extend_from_slice(b"070701");
        numbers.iter().for_each(|number| self.bytes.extend_from_slice(format!("{number:08x}").as_bytes()));
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
