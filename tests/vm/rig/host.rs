//! A host of a fleet inside a machine: its tracker and its daemon run on the machine's own loopback, a master is sealed,
//! and there is a volume group on a disk of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use drover_harness::{Outcome, path_of, random_bytes, run};
use serde_json::Value;
use tempfile::TempDir;

use super::disk::Tree;
use super::guest::{Guest, disks};
use super::initramfs::Initramfs;
use super::machine::Setup;
use super::parts::Parts;

/// Modules of a machine that has device-mapper and loop devices.
const MODULES: [&str; 8] =
    ["virtio_pci", "virtio_blk", "virtio_console", "loop", "dm_mod", "dm_snapshot", "dm_thin_pool", "dm_zero"];
/// Length of the disk that the volume group is on.
const GROUP_LEN: u64 = 256 << 20;
const ROOT_LEN: u64 = 512 << 20;

/// A running host.
#[derive(Debug)]
pub(crate) struct GuestHost {
    guest: Guest,
    master_len: u64,
    _folder: TempDir,
}

impl GuestHost {
    /// Boots one, makes its cluster of one, publishes a master of this length as `golden` and makes the volume group `vg`.
    #[track_caller]
    pub(crate) fn start(name: &str, master_len: u64, seed: u64) -> GuestHost {
        GuestHost::start_with(name, master_len, seed, |_| {})
    }

    /// The same, with more on its disk.
    #[track_caller]
    pub(crate) fn start_with(name: &str, master_len: u64, seed: u64, add: impl FnOnce(&Tree)) -> GuestHost {
        let parts = Parts::find();
        let folder = tempfile::Builder::new().prefix("drover-vm-").tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        let initramfs = Initramfs::make(&at("initramfs"), &parts, &MODULES);
        let tree = root(&at("tree"), &parts, master_len, seed);
        add(&tree);
        tree.to_ext4(&at("root.raw"), ROOT_LEN);
        fs::File::create(at("group.raw")).and_then(|file| file.set_len(GROUP_LEN)).expect("a sparse file can be made");
        let devices = disks(&[&at("root.raw"), &at("group.raw")]);
        let setup = Setup { parts: &parts, initramfs: &initramfs, folder: folder.path(), name, words: "", devices };
        let mut host = GuestHost { guest: Guest::start(setup), master_len, _folder: folder };
        host.sh("/tools/cluster").ok();
        host.sh("lvm vgcreate --physicalextentsize 1m vg /dev/vdb").ok();
        host
    }

    /// Runs a line in a shell.
    #[track_caller]
    pub(crate) fn sh(&mut self, line: &str) -> Outcome {
        self.guest.sh(line)
    }

    /// Runs `drover ARGUMENTS`.
    #[track_caller]
    pub(crate) fn drover(&mut self, arguments: &str) -> Outcome {
        self.sh(&format!("drover {arguments}"))
    }

    /// Runs `drover ARGUMENTS` until it ends itself at a step of the hand-over.
    #[track_caller]
    pub(crate) fn drover_killed(&mut self, step: &str, arguments: &str) {
        let outcome = self.sh(&format!("DROVER_KILL_AT={step} drover {arguments}"));
        assert_eq!(outcome.code, Some(128 + 9), "it should have been killed at {step}: {outcome:#?}");
    }

    /// The clone's line in `drover clone list --json`, if there is one.
    #[track_caller]
    pub(crate) fn clone(&mut self, name: &str) -> Option<Value> {
        let list = self.drover("clone list --json").json();
        list.as_array().expect("a list").iter().find(|clone| clone["name"] == name).cloned()
    }

    /// Fails unless a device begins with the master's content.
    #[track_caller]
    pub(crate) fn assert_is_master(&mut self, device: &str) {
        let len = self.master_len;
        self.sh(&format!("{}; /tools/cmp -n {len} {device} /golden.raw", forget(device))).ok();
    }

    /// Writes random bytes from a file of the guest into a device, and has them reach the disk. Gives how that went.
    #[track_caller]
    pub(crate) fn write(&mut self, device: &str, at_kib: u64, len_kib: u64) -> Outcome {
        self.sh(&format!("dd if=/pattern of={device} bs=1k seek={at_kib} count={len_kib} conv=notrunc,fsync"))
    }

    /// Whether what [`GuestHost::write`] wrote is there.
    #[track_caller]
    pub(crate) fn has_written(&mut self, device: &str, at_kib: u64, len_kib: u64) -> bool {
        let read = format!("{}; dd if={device} bs=1k skip={at_kib} count={len_kib} 2>/dev/null", forget(device));
        self.sh(&format!("{read} | /tools/cmp -n {} - /pattern", len_kib * 1024)).code == Some(0)
    }

    /// Fails unless a part of a device is zeros.
    #[track_caller]
    pub(crate) fn assert_zero(&mut self, device: &str, at: u64, len: u64) {
        assert_eq!((at % 512, len % 512), (0, 0), "whole sectors");
        let read = format!("dd if={device} bs=512 skip={} count={} 2>/dev/null", at / 512, len / 512);
        self.sh(&format!("{read} | /tools/cmp -n {len} - /dev/zero")).ok();
    }

    /// Length of a device in bytes.
    #[track_caller]
    pub(crate) fn len(&mut self, device: &str) -> u64 {
        self.sh(&format!("blockdev --getsize64 {device}")).ok().trim().parse().expect("a number")
    }

    /// Has a program keep a device open, as a virtual machine would.
    #[track_caller]
    pub(crate) fn hold_open(&mut self, device: &str) {
        self.sh(&format!("sleep 1000 <{device} & echo $! >/tmp/holder")).ok();
    }

    /// Ends that program.
    #[track_caller]
    pub(crate) fn let_go(&mut self) {
        let closed = "until test -z \"$(ls /proc/$pid/fd 2>/dev/null)\"; do sleep 0.1; done";
        self.sh(&format!("pid=$(cat /tmp/holder); kill $pid; {closed}")).ok();
    }

    /// Makes a thin pool that fails writes soon after it is full, instead of having them wait for a minute.
    #[track_caller]
    pub(crate) fn make_pool(&mut self, name: &str, len: &str) {
        self.sh("echo 1 >/sys/module/dm_thin_pool/parameters/no_space_timeout").ok();
        let options = "--poolmetadatasize 2m --chunksize 64k --zero y";
        self.sh(&format!("lvm lvcreate -y --type thin-pool -L {len} {options} -n {name} vg")).ok();
    }

    /// A volume's attributes, as `lvs` has them.
    #[track_caller]
    pub(crate) fn attributes(&mut self, volume: &str) -> String {
        self.sh(&format!("lvm lvs --noheadings -o lv_attr vg/{volume}")).ok().trim().to_owned()
    }

    /// Fails if there is a volume but a pool, a device, a loop device, a file, a record.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&mut self) {
        let looks = [
            "lvm lvs --noheadings --all -o lv_name vg | grep -v -e pool -e pmspare",
            "dmsetup ls | grep -v -e ^vg-pool -e '^No devices'",
            "/tools/losetup --noheadings --list",
            "ls -A /clones",
            "ls -A /var/host/clones | grep -v '^.lock$'",
            "true",
        ];
        assert_eq!(self.sh(&looks.join("; ")).ok(), "", "something is left");
    }
}

/// What is read next comes from the device, not from the kernel's memory.
fn forget(device: &str) -> String {
    format!("blockdev --flushbufs {device}")
}

/// The disk that such a machine runs on.
fn root(folder: &Path, parts: &Parts, master_len: u64, seed: u64) -> Tree {
    let tree = Tree::with_busybox(folder, parts);
    for tool in ["cmp", "dmsetup", "losetup", "lvm"] {
        tree.add_tool(&parts.program(tool), tool);
    }
    // One program that looks at its name.
    tree.add_tool(&parts.program("thin_check"), "thin_check");
    for alias in ["thin_dump", "thin_repair"] {
        tree.add_alias("thin_check", alias);
    }
    for program in ["drover", "drover-tracker"] {
        let built =
            path_of(program).unwrap_or_else(|| panic!("{program} is not built: `cargo build --workspace --bins`"));
        // What a debugger wants is most of a debug build.
        let bare = folder.with_extension(program);
        run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&bare).arg(&built)).ok();
        tree.add_tool(&bare, program);
    }
    fs::create_dir_all(folder.join("etc/lvm")).expect("a test's folder can be written");
    tree.write("etc/lvm/lvm.conf", include_bytes!("../guest/lvm.conf"));
    tree.write("sbin/init", include_bytes!("../guest/host.sh"));
    tree.write("tools/cluster", include_bytes!("../guest/cluster.sh"));
    // Half of it data, half holes, and an odd end.
    let mut master = random_bytes(seed, master_len as usize / 2);
    master.resize(master_len as usize - 512, 0);
    master.extend(random_bytes(seed.wrapping_add(1), 512));
    tree.write("golden.raw", &master);
    tree.write("pattern", &random_bytes(seed.wrapping_add(2), 16 << 20));
    fs::create_dir_all(folder.join("clones")).expect("a test's folder can be written");
    tree
}
