//! Three hosts on wires of their own fetch a master, make clones, and machines start from them.
//!
//! Each host makes two clones of each kind that is a file: reflink (their disks are XFS), qcow2 in both layouts, full copy,
//! VHD. Every clone boots: its machine checks what came with the master, finds no name of a clone, leaves its own, and ends
//! in order. Then the first host's first clone of each kind boots again and finds its own name and no other's. All the while
//! the master stays what it was.
//!
//! QEMU is given what `drover clone qemu` prints, but for VHDs, in which it would read zeros: there libvhdi shows the whole
//! disk, and the machine writes to a qcow2 file on top of that, which is kept from the first boot to the second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use drover_harness::{Fleet, Host, LONG, MasterLine, Mount, TestImage, outer, random_bytes, run, seed};
use tempfile::TempDir;

use crate::rig::{Initramfs, Machine, Parts, Setup, Tree};

const KINDS: [Kind; 5] = [
    Kind { name: "reflink", driver: "reflink", options: &[] },
    Kind { name: "compat", driver: "qcow2", options: &["--profile", "compat"] },
    Kind { name: "fast", driver: "qcow2", options: &["--profile", "fast"] },
    Kind { name: "copy", driver: "copy", options: &[] },
    Kind { name: "vhd", driver: "vhd", options: &["--hypervisor", "xen"] },
];
const MASTER_LEN: u64 = 64 << 20;
const PAYLOAD_LEN: usize = 8 << 20;
/// Length of each host's disk.
const DISK_LEN: u64 = 1 << 30;

/// A way to make clones.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    driver: &'static str,
    options: &'static [&'static str],
}

/// A clone and how QEMU gets it.
#[derive(Debug)]
struct Bootable {
    name: String,
    kind: Kind,
    path: PathBuf,
    devices: Vec<String>,
    /// The VHD's whole disk.
    _shown: Option<Shown>,
}

/// A VHD as libvhdi shows it.
#[derive(Debug)]
struct Shown {
    root: PathBuf,
}

/// What machines are started with.
#[derive(Debug)]
struct Stage {
    parts: Parts,
    initramfs: Initramfs,
    folder: TempDir,
}

#[test]
fn machines_start_from_clones_and_keep_what_is_theirs() {
    const TEST: &str = "boot::machines_start_from_clones_and_keep_what_is_theirs";
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: {TEST} makes networks and mounts disks, which only root may");
        return;
    }
    if !outer::runs_inside(TEST) {
        return;
    }
    let seed = seed(TEST);
    let stage = Stage::new();
    let mut fleet = Fleet::wired();
    let image = stage.master(&fleet.path("golden.raw"), seed);
    fleet.add_host("");
    fleet.publish(&image.path, "golden", &[]);
    let _disks: Vec<Mount> = (0..3).map(|_| add_host_on_xfs(&mut fleet)).collect();
    let hosts = &fleet.hosts[1..];
    hosts.iter().for_each(|host| host.spawn_fetch("golden"));
    let masters: Vec<MasterLine> = hosts.iter().map(|host| host.wait_sealed("golden@1", LONG)).collect();

    let clones: Vec<Vec<Bootable>> = hosts.iter().map(|host| stage.make_clones(host)).collect();
    stage.boot_all(&clones.iter().flatten().collect::<Vec<_>>(), false);
    stage.boot_all(&clones[0].iter().step_by(2).collect::<Vec<_>>(), true);

    for (host, (master, clones)) in hosts.iter().zip(masters.iter().zip(&clones)) {
        image.assert_same(&master.path);
        host.run(&["verify", "golden"]).ok();
        for clone in clones {
            host.run(&["clone", "verify", &clone.name]).ok();
            if clone.kind.driver == "qcow2" {
                run(Command::new("qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(&clone.path)).ok();
            }
        }
    }
    drop(clones);
    fleet.hosts.iter_mut().for_each(Host::terminate);
}

/// A host whose state folder is a disk that can share blocks between files.
fn add_host_on_xfs(fleet: &mut Fleet) -> Mount {
    let mut host = fleet.join_host("");
    let disk = Mount::xfs_over(&host.state, &fleet.path(&format!("{}.xfs", host.name)), DISK_LEN);
    fs::create_dir(host.state.join("machines")).expect("root may write there");
    host.start();
    fleet.hosts.push(host);
    disk
}

impl Stage {
    fn new() -> Stage {
        let parts = Parts::find();
        let folder = tempfile::Builder::new().prefix("drover-vm-").tempdir().expect("a temporary folder can be made");
        let initramfs = Initramfs::make(&folder.path().join("initramfs"), &parts, &["virtio_pci", "virtio_blk"]);
        Stage { parts, initramfs, folder }
    }

    /// A small Linux: a kernel, busybox, and something whose hash is known.
    fn master(&self, path: &Path, seed: u64) -> TestImage {
        let folder = self.folder.path().join("tree");
        let tree = Tree::with_busybox(&folder, &self.parts);
        fs::create_dir(folder.join("boot")).expect("a test's folder can be written");
        tree.copy(&self.parts.kernel(), "boot/vmlinuz");
        tree.write("payload", &random_bytes(seed, PAYLOAD_LEN));
        let sum = run(Command::new("sha256sum").arg("payload").current_dir(&folder)).ok();
        tree.write("payload.sha", sum.as_bytes());
        tree.write("etc/id", b"");
        tree.write("sbin/init", include_bytes!("guest/clone.sh"));
        tree.to_ext4(path, MASTER_LEN);
        TestImage { path: path.to_owned(), len: MASTER_LEN, data_len: TestImage::disk_usage(path) }
    }

    fn make_clones(&self, host: &Host) -> Vec<Bootable> {
        let clones = KINDS.into_iter().flat_map(|kind| ["a", "b"].map(|letter| self.make_clone(host, kind, letter)));
        clones.collect()
    }

    fn make_clone(&self, host: &Host, kind: Kind, letter: &str) -> Bootable {
        let name = format!("{}-{}-{letter}", host.name, kind.name);
        let path = host.state.join("machines").join(&name);
        let mut create = host.command();
        create.args(["clone", "create", "golden", &name, "--driver", kind.driver, "--out"]).arg(&path);
        run(create.args(kind.options)).ok();
        if kind.driver == "vhd" {
            host.run(&["clone", "qemu", &name]).refused(&["vhd", "zeros"]);
            let shown = Shown::of(&path, &self.folder.path().join(format!("{name}.mount")));
            let devices = self.overlay(&name, &shown.disk());
            return Bootable { name, kind, path, devices, _shown: Some(shown) };
        }
        let devices = host.run(&["clone", "qemu", &name, "--json"]).json();
        let devices = serde_json::from_value(devices).expect("a list of arguments");
        Bootable { name, kind, path, devices, _shown: None }
    }

    /// A qcow2 file on what can only be read, as QEMU gets it.
    fn overlay(&self, name: &str, disk: &Path) -> Vec<String> {
        let overlay = self.folder.path().join(format!("{name}.qcow2"));
        let mut create = Command::new("qemu-img");
        run(create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(disk).arg(&overlay)).ok();
        let drive = format!("file={},format=qcow2,if=none,id=d0", overlay.display());
        ["-drive", &drive, "-device", "virtio-blk-pci,drive=d0"].map(str::to_owned).into()
    }

    /// Boots clones, as many at a time as there may be machines.
    fn boot_all(&self, clones: &[&Bootable], again: bool) {
        std::thread::scope(|scope| {
            for half in clones.chunks(clones.len().div_ceil(2)) {
                scope.spawn(move || half.iter().for_each(|clone| self.boot(clone, again)));
            }
        });
    }

    fn boot(&self, clone: &Bootable, again: bool) {
        let name = if again { format!("{}-again", clone.name) } else { clone.name.clone() };
        let words = format!("id={}", clone.name);
        let Stage { parts, initramfs, folder } = self;
        let devices = clone.devices.clone();
        let setup = Setup { parts, initramfs, folder: folder.path(), name: &name, words: &words, devices };
        let printed = Machine::start(setup).ended();
        let before = format!("CLONE-ID before: <{}>", if again { &clone.name } else { "" });
        let marks = ["payload: OK", &before, &format!("BOOT-OK id={} ", clone.name), "reboot: Power down"];
        for mark in marks {
            assert!(printed.contains(mark), "{name} did not print {mark:?}:\n{printed}");
        }
    }
}

impl Shown {
    fn of(vhd: &Path, root: &Path) -> Shown {
        fs::create_dir(root).expect("a test's folder can be written");
        run(Command::new("vhdimount").arg(vhd).arg(root)).ok();
        Shown { root: root.to_owned() }
    }

    /// The disk as a guest sees it: the last of the chain.
    fn disk(&self) -> PathBuf {
        let entries = fs::read_dir(&self.root).expect("it is mounted");
        entries.map(|entry| entry.expect("a folder can be listed").path()).max().expect("there is a disk")
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.root).status();
    }
}
