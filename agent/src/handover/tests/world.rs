//! A state folder with a sealed master, a folder for clones, and file systems to put them on.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drover_protocol::id::{ContentHash, ImageId};
use drover_protocol::release::Name;
use tempfile::TempDir;

use crate::handover::verify::is_locked;
use crate::handover::{Choice, CloneSpec, Created, DriverName, FileIdentity, Handover, Master, Tools};

/// Length of the master that most tests use, in bytes.
pub(super) const MASTER_LEN: u64 = 4 << 20;

/// What a test plays in.
pub(super) struct World {
    pub(super) state: PathBuf,
    pub(super) out: PathBuf,
    pub(super) master: Master,
    pub(super) handover: Handover,
    _folder: Option<TempDir>,
}

impl World {
    /// On the file system where temporary files go.
    pub(super) fn new() -> World {
        World::in_folder(&std::env::temp_dir(), MASTER_LEN)
    }

    /// On a file system that surely has no reflinks.
    pub(super) fn without_reflinks() -> World {
        World::in_folder(Path::new("/dev/shm"), MASTER_LEN)
    }

    pub(super) fn in_folder(folder: &Path, master_len: u64) -> World {
        let folder = tempfile::Builder::new().prefix("drover-handover-").tempdir_in(folder).expect("a folder");
        let state = folder.path().join("state");
        let out = folder.path().join("out");
        fs::create_dir_all(state.join("masters")).expect("the state folder");
        fs::create_dir(&out).expect("the folder for clones");
        let master = sealed_master(&state.join("masters").join("disk.raw"), master_len);
        World { handover: Handover::new(&state), state, out, master, _folder: Some(folder) }
    }

    /// One that another process plays in, too, and that outlives this view of it.
    pub(super) fn opened(folder: &Path) -> World {
        let (state, out) = (folder.join("state"), folder.join("out"));
        let master = described(&state.join("masters").join("disk.raw"));
        World { handover: Handover::new(&state), state, out, master, _folder: None }
    }

    /// Another state folder with the same master, whose clones go to the same folder as this one's.
    pub(super) fn neighbour(&self) -> World {
        let state = self.folder().join("other-state");
        fs::create_dir_all(state.join("masters")).expect("the state folder");
        let master = sealed_master(&state.join("masters").join("disk.raw"), self.master.content_len);
        World { handover: Handover::new(&state), state, out: self.out.clone(), master, _folder: None }
    }

    pub(super) fn folder(&self) -> &Path {
        self.state.parent().expect("the state is a folder in it")
    }

    pub(super) fn with_tools(mut self, tools: Tools) -> World {
        self.handover = Handover::with_tools(&self.state, tools);
        self
    }

    pub(super) fn spec(&self, clone: &str, driver: DriverName) -> CloneSpec {
        let out = self.out.join(format!("{clone}.img"));
        CloneSpec { driver: Choice::Named(driver), ..CloneSpec::new(name(clone), out) }
    }

    pub(super) fn make(&self, clone: &str, driver: DriverName) -> Created {
        self.handover.create(&self.master, &self.spec(clone, driver)).unwrap_or_else(|e| panic!("{clone}: {e}"))
    }

    /// Everything in the folder for clones and among the records, but the lock.
    pub(super) fn leftovers(&self) -> Vec<PathBuf> {
        [self.out.clone(), self.state.join("clones")]
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| !path.ends_with(".lock"))
            .collect()
    }

    pub(super) fn assert_only_left(&self, path: &Path) {
        assert_eq!(self.leftovers(), [path]);
    }

    pub(super) fn assert_nothing_left(&self) {
        assert_eq!(self.leftovers(), Vec::<PathBuf>::new());
    }
}

pub(super) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// A sealed file: data at its start, data in its middle, written zeros behind that, holes elsewhere, data at its end.
pub(super) fn sealed_master(path: &Path, len: u64) -> Master {
    let file = File::create(path).expect("the master");
    file.set_len(len).expect("its length");
    let data: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let part = &data[..(data.len() as u64).min(len) as usize];
    file.write_all_at(part, 0).expect("data");
    if len >= 4 << 20 {
        file.write_all_at(&data, 1 << 20).expect("data");
        file.write_all_at(&vec![0; 512 << 10], 2 << 20).expect("zeros");
        file.write_all_at(b"the end", len - 7).expect("data");
    }
    file.set_permissions(Permissions::from_mode(0o444)).expect("sealing");
    described(path)
}

pub(super) fn described(path: &Path) -> Master {
    let content = fs::read(path).expect("its content");
    let hash = *blake3::hash(&content).as_bytes();
    Master {
        image: ImageId::from_bytes(hash),
        release: Some("debian@3".to_owned()),
        path: path.to_owned(),
        content_len: content.len() as u64,
        content_hash: ContentHash::from_bytes(hash),
        in_place: false,
        verified: Some(FileIdentity::of(&fs::metadata(path).expect("a file"))),
    }
}

/// Writes into a file whatever its mode, which stays as it is. Its time does not.
pub(super) fn write_into(path: &Path, at: u64, bytes: &[u8]) {
    let mode = fs::metadata(path).expect("a file").permissions();
    fs::set_permissions(path, Permissions::from_mode(0o644)).expect("its mode");
    let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.write_all_at(bytes, at).expect("a write");
    // The clock of a file system is coarse.
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(1)).expect("its time");
    fs::set_permissions(path, mode).expect("its mode");
}

pub(super) fn assert_master_untouched(master: &Master) {
    let content = fs::read(&master.path).expect("the master");
    assert_eq!(blake3::hash(&content).as_bytes(), master.content_hash.as_bytes(), "the master has changed");
}

/// Runs a program that must be installed and must succeed, and gives what it printed.
pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{program} is needed by this test (see README on what to install): {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a guest sees the same in a clone as in the master.
pub(super) fn assert_same_disk(format: &str, clone: &Path, master: &Path) {
    run("qemu-img", &["compare", "-f", format, "-F", "raw", text(clone), text(master)]);
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a test's path is text")
}

/// A file as a virtual machine has it: open and locked by qemu. Let go when dropped.
pub(super) struct Machine(Child);

impl Machine {
    pub(super) fn start(format: &str, disk: &Path) -> Machine {
        let child = Command::new("qemu-io")
            .args(["-f", format])
            .arg(disk)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("qemu-io is needed by this test");
        let machine = Machine(child);
        wait_until("qemu has locked its disk", || is_locked(disk));
        machine
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file system of the test's own, unmounted when dropped.
pub(super) struct Mounted {
    pub(super) root: PathBuf,
    image: TempDir,
}

impl Mounted {
    /// A new file system of a type in a file of `mib` MiB, or nothing if this process may not mount.
    pub(super) fn filesystem(kind: &str, mib: u64) -> Option<Mounted> {
        let (image, root) = Mounted::prepare()?;
        let file = image.path().join("image");
        File::create(&file).and_then(|file| file.set_len(mib << 20)).expect("room for a file system");
        run(&format!("mkfs.{kind}"), &["-q", text(&file)]);
        let mounted = Mounted { root, image };
        mounted.mount();
        Some(mounted)
    }

    /// Does something while a file system that is in a file is not mounted.
    pub(super) fn while_away(&self, what: impl FnOnce()) {
        run("umount", &[text(&self.root)]);
        what();
        self.mount();
    }

    /// Does something while another file system is where this one should be.
    pub(super) fn while_instead(&self, other: &Mounted, what: impl FnOnce()) {
        self.while_away(|| {
            run("mount", &["--bind", text(&other.root), text(&self.root)]);
            what();
            run("umount", &[text(&self.root)]);
        });
    }

    fn mount(&self) {
        run("mount", &["-o", "loop", text(&self.image.path().join("image")), text(&self.root)]);
    }

    /// A file system in memory with these options, or nothing if this process may not mount.
    pub(super) fn memory(options: &str) -> Option<Mounted> {
        let (image, root) = Mounted::prepare()?;
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", text(&root)]);
        Some(Mounted { root, image })
    }

    fn prepare() -> Option<(TempDir, PathBuf)> {
        const CAP_SYS_ADMIN: u64 = 1 << 21;
        let status = fs::read_to_string("/proc/self/status").expect("/proc");
        let held = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
        if u64::from_str_radix(held.trim(), 16).expect("a number") & CAP_SYS_ADMIN == 0 {
            eprintln!("NOT TESTED: this test mounts a file system, which only root may");
            return None;
        }
        let image = tempfile::Builder::new().prefix("drover-mount-").tempdir().expect("a folder");
        let root = image.path().join("root");
        fs::create_dir(&root).expect("a folder to mount at");
        Some((image, root))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.root).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.root.display());
        }
    }
}

/// Bytes that a file takes on disk.
pub(super) fn disk_usage(path: &Path) -> u64 {
    fs::metadata(path).expect("the file").blocks() * 512
}
