//! Differencing VHDs, with libvhdi as the oracle: `vhdiinfo` and `vhdimount` must be installed. qemu is none; that is shown.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::world::{MASTER_LEN, Mounted, World, assert_master_untouched, disk_usage, run, text, wait_until};
use crate::handover::vhd::format::Footer;
use crate::handover::{CloneRecord, CreateError, DriverName, RemoveError, Severity};

/// A VHD and its chain as libvhdi shows them.
struct Shown {
    root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Shown {
    fn of(vhd: &Path) -> Shown {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("mount");
        fs::create_dir(&root).expect("a folder to mount at");
        run("vhdimount", &[text(vhd), text(&root)]);
        Shown { root, _folder: folder }
    }

    /// The disk as its guest sees it: the last of the chain.
    fn disk(&self) -> PathBuf {
        let last = fs::read_dir(&self.root).expect("the mount").map(|entry| entry.expect("a file").path()).max();
        last.expect("there is a disk")
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = Command::new("fusermount").arg("-u").arg(&self.root).status();
    }
}

fn can_mount() -> bool {
    let usable = Path::new("/dev/fuse").exists() && rustix::process::geteuid().is_root();
    if !usable {
        eprintln!("NOT TESTED: this test mounts by FUSE");
    }
    usable
}

fn refused_by_libvhdi(vhd: &Path) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let tried = Command::new("vhdimount").arg(vhd).arg(folder.path()).output().expect("vhdimount");
    if tried.status.success() {
        let _ = Command::new("fusermount").arg("-u").arg(folder.path()).status();
    }
    !tried.status.success()
}

/// Writes one block of the child as Xen would: its data, its bitmap, its place in the table, the footer behind it.
fn write_block(record: &CloneRecord, block: u64, byte: u8) {
    let file = fs::OpenOptions::new().read(true).write(true).open(&record.path).expect("the child");
    let len = file.metadata().expect("its length").len();
    let mut footer = [0; 512];
    file.read_exact_at(&mut footer, len - 512).expect("the footer");
    let at = len - 512;
    file.write_all_at(&u32::try_from(at / 512).expect("small").to_be_bytes(), 1536 + 4 * block).expect("the table");
    let mut bitmap = [0; 512];
    bitmap[0] = 0x80;
    file.write_all_at(&bitmap, at).expect("the bitmap");
    file.write_all_at(&[byte; 512], at + 512).expect("the data");
    file.write_all_at(&footer, at + 512 + (2 << 20)).expect("the footer");
}

#[test]
fn the_master_is_read_through_the_chain_bit_for_bit() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let record = world.make("one", DriverName::Vhd).record;
    let other = world.make("two", DriverName::Vhd).record;
    let info = run("vhdiinfo", &[text(&record.path)]);
    assert!(info.contains("Differential") && info.contains("Parent"), "{info}");
    assert_eq!(fs::read(Shown::of(&record.path).disk()).expect("the disk"), fs::read(&world.master.path).expect("it"));

    write_block(&record, 1, 0xcd);

    let mut expected = fs::read(&world.master.path).expect("the master");
    expected[2 << 20..(2 << 20) + 512].fill(0xcd);
    assert!(fs::read(Shown::of(&record.path).disk()).expect("the disk") == expected, "its own write shows");
    assert_eq!(fs::read(Shown::of(&other.path).disk()).expect("the disk"), fs::read(&world.master.path).expect("it"));
    assert_master_untouched(&world.master);
    let found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
    assert_eq!(found.worst(), None, "{found:?}");
}

#[test]
fn a_vhd_that_is_shown_is_in_use() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let record = world.make("c", DriverName::Vhd).record;
    let shown = Shown::of(&record.path);
    wait_until("the disk is shown", || shown.disk().exists());
    let refused = world.handover.remove(&record.name);
    assert!(matches!(refused, Err(RemoveError::InUse { .. })), "{refused:?}");
    drop(shown);
    wait_until("nobody has it open", || world.handover.remove(&record.name).is_ok());
    world.assert_nothing_left();
}

#[test]
fn a_wrong_or_missing_parent_is_refused_by_libvhdi_and_seen_by_verify() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let record = world.make("c", DriverName::Vhd).record;
    let base = record.base.clone().expect("a parent");
    let away = base.with_extension("away");
    fs::rename(&base, &away).expect("moved");
    assert!(refused_by_libvhdi(&record.path), "a missing parent");
    let worst = || world.handover.verify(&record.name, Some(&world.master)).expect("a clone").worst();
    assert_eq!(worst(), Some(Severity::Fault));

    // Another identity: a copy with a footer of its own.
    fs::copy(&away, &base).expect("a copy");
    fs::set_permissions(&base, fs::Permissions::from_mode(0o644)).expect("writable");
    let file = fs::OpenOptions::new().read(true).write(true).open(&base).expect("the parent");
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, MASTER_LEN).expect("its footer");
    let footer = Footer { uuid: [9; 16], ..Footer::read(&sector).expect("a footer") };
    file.write_all_at(&footer.bytes(), MASTER_LEN).expect("another footer");
    assert!(refused_by_libvhdi(&record.path), "a wrong parent");
    assert_eq!(worst(), Some(Severity::Fault));
}

#[test]
fn qemu_is_no_oracle_for_a_differencing_vhd() {
    let world = World::new();
    let record = world.make("c", DriverName::Vhd).record;
    let raw = world.out.join("as-qemu-sees-it.raw");
    run("qemu-img", &["convert", "-f", "vpc", "-O", "raw", text(&record.path), text(&raw)]);
    let seen = fs::read(&raw).expect("what qemu sees");
    assert!(seen.iter().all(|&byte| byte == 0), "qemu reads differencing VHDs today: use it, and tell README");
}

#[test]
fn the_parent_is_the_master_and_a_footer_the_same_everywhere() {
    let (here, there) = (World::new(), World::new());
    let parents = [&here, &there].map(|world| {
        let record = world.make("c", DriverName::Vhd).record;
        let base = record.base.expect("a parent");
        let facts = fs::metadata(&base).expect("a file");
        assert_eq!(facts.mode() & 0o777, 0o444);
        (base.file_name().map(ToOwned::to_owned), fs::read(&base).expect("its bytes"), facts.mtime())
    });
    assert_eq!(parents[0], parents[1]);
    let (_, bytes, _) = &parents[0];
    assert_eq!(bytes[..MASTER_LEN as usize], fs::read(&here.master.path).expect("the master"));
    // qemu reads fixed ones well.
    let base = here.handover.get(&super::world::name("c")).expect("a record").base.expect("a parent");
    super::world::assert_same_disk("vpc", &base, &here.master.path);
}

#[test]
fn the_parent_shares_the_masters_blocks_and_goes_with_the_last_clone() {
    let Some(mounted) = Mounted::filesystem("xfs", 320) else { return };
    let world = World::in_folder(&mounted.root, MASTER_LEN);
    let first = world.make("first", DriverName::Vhd);
    assert_eq!(first.warnings, Vec::<String>::new());
    let second = world.make("second", DriverName::Vhd).record;
    let base = first.record.base.clone().expect("a parent");
    assert_eq!(second.base.as_ref(), Some(&base));
    assert!(run("filefrag", &["-v", text(&base)]).contains("shared"));
    assert!(disk_usage(&second.path) <= 16 << 10, "a clone takes {} bytes", disk_usage(&second.path));
    assert!(world.handover.hash_base(&second).expect("it is read"));

    world.handover.remove(&first.record.name).expect("removed");
    assert!(base.exists(), "the second rests on it");
    world.handover.remove(&second.name).expect("removed");
    world.assert_nothing_left();
}

#[test]
fn a_changed_parent_is_noticed_and_a_damaged_child_too() {
    let world = World::new();
    let record = world.make("c", DriverName::Vhd).record;
    let base = record.base.clone().expect("a parent");
    let worst = || world.handover.verify(&record.name, Some(&world.master)).expect("a clone").worst();
    assert_eq!(worst(), None);
    let time = fs::metadata(&base).and_then(|facts| facts.modified()).expect("its time");
    let file = fs::OpenOptions::new().write(true).open(&base).or_else(|_| {
        fs::set_permissions(&base, fs::Permissions::from_mode(0o644))?;
        fs::OpenOptions::new().write(true).open(&base)
    });
    let file = file.expect("the parent");
    file.write_all_at(b"!", 100).expect("a write");
    assert_eq!(worst(), Some(Severity::Doubt));
    assert!(!world.handover.hash_base(&record).expect("it is read"));
    // Whoever hides the time as well is found out by the hash alone.
    file.set_modified(time).expect("its time");
    assert!(!world.handover.hash_base(&record).expect("it is read"));

    let child = fs::OpenOptions::new().write(true).open(&record.path).expect("the child");
    child.write_all_at(b"!", 600).expect("a write into its header");
    assert_eq!(worst(), Some(Severity::Fault));
}

#[test]
fn disks_beyond_the_format_are_refused_and_longer_ones_have_zeros() {
    let world = World::new();
    let mut spec = world.spec("large", DriverName::Vhd);
    spec.disk_len = Some((2040 << 30) + 512);
    let error = world.handover.create(&world.master, &spec).expect_err("too long");
    assert!(matches!(error, CreateError::Unusable { .. }) && error.to_string().contains("2040 GiB"), "{error}");
    world.assert_nothing_left();
    if !can_mount() {
        return;
    }
    spec.disk_len = Some(16 << 20);
    let record = world.handover.create(&world.master, &spec).expect("a clone").record;
    let shown = Shown::of(&record.path);
    wait_until("the disk is shown", || shown.disk().exists());
    let seen = fs::read(shown.disk()).expect("the disk");
    assert_eq!(seen.len(), 16 << 20);
    assert_eq!(seen[..MASTER_LEN as usize], fs::read(&world.master.path).expect("the master"));
    assert!(seen[MASTER_LEN as usize..].iter().all(|&byte| byte == 0));
}
