//! Differencing VHDs, with libvhdi as the oracle: `vhdiinfo` and `vhdimount` must be installed. qemu is none; that is shown.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::world::{
    MASTER_LEN, Mounted, World, assert_master_untouched, described, disk_usage, run, text, wait_until, write_into,
};
use crate::handover::vhd::format::Footer;
use crate::handover::{CloneRecord, CreateError, DriverName, Lost, Master, RemoveError, Severity};

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
    assert!(world.handover.hash_base(&second.name).expect("it is read").is_right);

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
    assert!(!world.handover.hash_base(&record.name).expect("it is read").is_right);
    // Whoever hides the time as well is found out by the hash alone.
    file.set_modified(time).expect("its time");
    assert!(!world.handover.hash_base(&record.name).expect("it is read").is_right);

    let child = fs::OpenOptions::new().write(true).open(&record.path).expect("the child");
    child.write_all_at(b"!", 600).expect("a write into its header");
    assert_eq!(worst(), Some(Severity::Fault));
}

/// Its content is whole, and no program takes it for the parent.
#[test]
fn a_parent_whose_footer_is_damaged_is_not_found_right_by_its_content() {
    for (damage, what) in [(68, "its identity"), (0, "its end")] {
        let world = World::new();
        let record = world.make("c", DriverName::Vhd).record;
        let base = record.base.clone().expect("a parent");
        match damage {
            0 => {
                let mode = fs::metadata(&base).expect("the parent").permissions();
                fs::set_permissions(&base, fs::Permissions::from_mode(0o644)).expect("its mode");
                let file = fs::OpenOptions::new().write(true).open(&base).expect("the parent");
                file.set_len(MASTER_LEN).expect("cut off");
                fs::set_permissions(&base, mode).expect("its mode");
            }
            at => write_into(&base, MASTER_LEN + at, b"!"),
        }
        assert!(!world.handover.hash_base(&record.name).expect("it is read").is_right, "{what}");
        let states = |record: &CloneRecord| world.handover.lost(std::slice::from_ref(record)).remove(&record.name);
        assert!(matches!(states(&record), Some(Lost::Broken(_))), "{what}: {:?}", states(&record));
        let worst = world.handover.verify(&record.name, Some(&world.master)).expect("a clone").worst();
        assert_eq!(worst, Some(Severity::Fault), "{what}");
    }
}

/// Neither by a clone that can't be made on it, nor with one whose parent was there before.
#[test]
fn a_file_of_somebody_else_that_has_the_parents_name_is_not_removed() {
    let world = World::new();
    let record = world.make("c", DriverName::Vhd).record;
    let base = record.base.clone().expect("a parent");
    world.handover.remove(&record.name).expect("removed");
    assert!(!base.exists(), "the parent goes with its last clone");
    let precious = world.folder().join("precious");
    fs::write(&precious, "somebody's").expect("written");
    let placed: [&dyn Fn(); 4] = [
        &|| fs::write(&base, "somebody's").expect("written"),
        &|| fs::write(&base, vec![b'x'; MASTER_LEN as usize + 512]).expect("written"),
        &|| std::os::unix::fs::symlink(&precious, &base).expect("a link"),
        &|| fs::create_dir(&base).expect("a folder"),
    ];
    for (at, place) in placed.iter().enumerate() {
        place();
        let refused = world.handover.create(&world.master, &world.spec("other", DriverName::Vhd));
        let refused = refused.expect_err("it is no parent").to_string();
        assert!(refused.contains("move it away"), "{at}: {refused}");
        assert!(base.symlink_metadata().is_ok(), "{at}: it is gone");
        assert!(world.handover.list().expect("records").records.is_empty(), "{at}: something is left");
        fs::remove_file(&base).or_else(|_| fs::remove_dir(&base)).expect("moved away");
    }

    let record = world.make("c", DriverName::Vhd).record;
    fs::remove_file(&base).expect("removed by hand");
    fs::write(&base, "somebody's").expect("written");
    let removed = world.handover.remove(&record.name).expect("removed");
    assert!(removed.note.is_some_and(|note| note.contains("it is not the parent that was made")));
    assert_eq!(fs::read_to_string(&base).expect("it is there"), "somebody's");
}

#[test]
fn a_damaged_table_or_locator_of_a_child_is_noticed() {
    let world = World::new();
    let record = world.make("c", DriverName::Vhd).record;
    write_block(&record, 1, 0xcd);
    write_block(&record, 3, 0xce);
    let found = || world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
    assert_eq!(found().worst(), None, "{:?}", found());
    let whole = fs::read(&record.path).expect("the child");
    let entry = |number: usize| whole[1536 + 4 * number..][..4].to_vec();
    for (at, bytes, words) in [
        (1536, 0x00ff_ffff_u32.to_be_bytes().to_vec(), "has block 0 at"),
        (1536, 1_u32.to_be_bytes().to_vec(), "has block 0 at"),
        (1536, entry(1), "in the same place"),
        (2048, vec![0; 512], "its locator W2ru leads to"),
        (512 + 576, vec![0; 3 * 24], "its header is damaged"),
    ] {
        write_into(&record.path, at, &bytes);
        assert_eq!(found().worst(), Some(Severity::Fault), "{words}");
        assert!(found().findings.iter().any(|finding| finding.text.contains(words)), "{words}: {:?}", found());
        fs::write(&record.path, &whole).expect("mended");
    }
    assert_eq!(found().worst(), None, "{:?}", found());
}

#[test]
fn the_parent_stays_as_long_as_a_clone_of_anybody_rests_on_it() {
    let here = World::new();
    let there = here.neighbour();
    let ours = here.make("ours", DriverName::Vhd).record;
    let theirs = there.make("theirs", DriverName::Vhd).record;
    let base = ours.base.clone().expect("a parent");
    assert_eq!(theirs.base.as_ref(), Some(&base));

    let note = here.handover.remove(&ours.name).expect("removed").note.expect("the parent stays");
    assert!(note.contains(text(&base)) && note.contains("theirs.img"), "{note}");
    let found = there.handover.verify(&theirs.name, Some(&there.master)).expect("a clone");
    assert_eq!(found.worst(), None, "{found:?}");

    assert_eq!(there.handover.remove(&theirs.name).expect("removed").note, None);
    here.assert_nothing_left();
}

#[test]
fn the_parent_stays_if_a_disk_may_rest_on_it_and_goes_whatever_else_is_there() {
    let world = World::new();
    world.make("other", DriverName::Qcow2);
    fs::write(world.out.join("note"), "short").expect("a file");
    fs::write(world.out.join("zeros.raw"), vec![0; 1 << 20]).expect("a file");
    fs::create_dir(world.out.join("folder")).expect("a folder");
    run("mkfifo", &[text(&world.out.join("pipe"))]);
    let mut longer = world.spec("longer", DriverName::Vhd);
    longer.disk_len = Some(2 * MASTER_LEN);
    world.handover.create(&world.master, &longer).expect("a clone on a parent of its own");

    // A copy that somebody made of the clone by hand, and whose header is damaged.
    let record = world.make("c", DriverName::Vhd).record;
    let base = record.base.expect("a parent");
    let copy = world.out.join("copy.vhd");
    fs::copy(&record.path, &copy).expect("a copy");
    write_into(&copy, 600, b"!");
    let note = world.handover.remove(&record.name).expect("removed").note;
    assert!(note.is_some_and(|note| note.contains("copy.vhd")) && base.exists());

    fs::remove_file(&copy).expect("gone");
    world.make("c", DriverName::Vhd);
    assert_eq!(world.handover.remove(&record.name).expect("removed").note, None);
    assert!(!base.exists());
}

#[test]
fn makers_and_removers_of_two_states_never_leave_a_clone_without_its_parent() {
    let here = World::new();
    let there = here.neighbour();
    let live = |world: &World, letter: &str| {
        for number in 0..60 {
            let record = world.make(&format!("{letter}-{number}"), DriverName::Vhd).record;
            let found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
            assert_eq!(found.worst(), None, "{found:?}");
            world.handover.remove(&record.name).expect("removed");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| live(&here, "here"));
        scope.spawn(|| live(&there, "there"));
    });
    here.assert_nothing_left();
}

#[test]
fn a_damaged_parent_that_nobody_uses_is_made_anew() {
    // Of one that could be written to nobody knows whether it was.
    let opened = |base: &Path| fs::set_permissions(base, fs::Permissions::from_mode(0o644)).expect("its mode");
    let written = |base: &Path| write_into(base, 77, b"!");
    let damages: [&dyn Fn(&Path); 2] = [&written, &opened];
    for damage in damages {
        let here = World::new();
        let gone = here.neighbour().make("gone", DriverName::Vhd).record;
        fs::remove_file(&gone.path).expect("gone without its parent");
        let base = gone.base.expect("a parent");
        let old = fs::metadata(&base).expect("a file").ino();
        damage(&base);
        let kept = fs::File::open(&base).expect("so that its inode is not used again");
        let record = here.make("c", DriverName::Vhd).record;
        assert_ne!(fs::metadata(&base).expect("a file").ino(), old);
        assert!(here.handover.hash_base(&record.name).expect("it is read").is_right);
        let found = here.handover.verify(&record.name, Some(&here.master)).expect("a clone");
        assert_eq!(found.worst(), None, "{found:?}");
        drop(kept);
    }
}

#[test]
fn no_clone_is_made_on_a_damaged_parent_and_those_that_rest_on_it_are_named() {
    let here = World::new();
    let there = here.neighbour();
    let theirs = there.make("theirs", DriverName::Vhd).record;
    let base = theirs.base.clone().expect("a parent");
    let byte = fs::read(&base).expect("the parent")[77];
    let time = fs::metadata(&base).and_then(|facts| facts.modified()).expect("its time");
    let is_right = || there.handover.hash_base(&theirs.name).expect("it is read").is_right;
    let refused = |todo: &str| {
        let error = here.handover.create(&here.master, &here.spec("ours", DriverName::Vhd)).expect_err("it is damaged");
        let error = error.to_string();
        let told = ["theirs.img", text(&base), todo, "move it away"];
        assert!(told.iter().all(|part| error.contains(part)), "{error}");
        assert!(here.handover.list().expect("records").records.is_empty());
    };
    write_into(&base, 77, &[byte ^ 1]);
    refused("`drover clone verify CLONE --full`");
    assert!(!is_right());
    refused("`drover verify debian@3`");

    // Bits that flip by themselves show in no time: a full check finds them, and leaves a mark.
    fs::File::open(&base).and_then(|file| file.set_modified(time)).expect("its time");
    assert!(!is_right());
    refused("`drover verify debian@3`");
    let found = there.handover.verify(&theirs.name, Some(&there.master)).expect("a clone");
    assert_eq!(found.worst(), Some(Severity::Fault), "{found:?}");

    write_into(&base, 77, &[byte]);
    refused("`drover clone verify CLONE --full`");
    assert!(is_right());
    let found = there.handover.verify(&theirs.name, Some(&there.master)).expect("a clone");
    assert_eq!(found.worst(), None, "{found:?}");
    here.make("ours", DriverName::Vhd);
}

#[test]
fn a_parent_that_was_moved_away_is_made_anew_for_those_that_rest_on_it() {
    let world = World::new();
    let record = world.make("c", DriverName::Vhd).record;
    let base = record.base.clone().expect("a parent");
    write_into(&base, 77, b"!");
    fs::rename(&base, world.out.join("damaged.vhd")).expect("moved away");
    world.make("again", DriverName::Vhd);
    assert!(world.handover.hash_base(&record.name).expect("it is read").is_right);
    let found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
    assert_eq!(found.worst(), None, "{found:?}");
}

/// Puts another file with the same bytes in the master's place, as mending does, and gives the master as it is then.
fn mended(world: &World) -> Master {
    let new = world.master.path.with_extension("new");
    fs::copy(&world.master.path, &new).expect("a copy");
    fs::rename(&new, &world.master.path).expect("in its place");
    Master { image: world.master.image, ..described(&world.master.path) }
}

#[test]
fn clones_of_a_mended_master_get_a_new_parent_and_those_on_the_old_one_are_doubted() {
    let world = World::new();
    let old = world.make("old", DriverName::Vhd).record;
    let parent = old.base.clone().expect("a parent");
    let byte = fs::read(&parent).expect("the parent")[77];
    let time = fs::metadata(&parent).and_then(|facts| facts.modified()).expect("its time");
    // A block that both share rots, and shows in no time; then the master is mended.
    write_into(&parent, 77, &[byte ^ 1]);
    fs::File::open(&parent).and_then(|file| file.set_modified(time)).expect("its time");
    assert!(world.handover.lost(std::slice::from_ref(&old)).is_empty());
    let rotten = fs::read(&parent).expect("the parent");
    let master = mended(&world);

    let lost = world.handover.lost(std::slice::from_ref(&old));
    assert!(lost.get(&old.name).is_some_and(|lost| lost.word() == "doubted"), "{lost:?}");
    let found = world.handover.verify(&old.name, Some(&master)).expect("a clone");
    assert_eq!(found.worst(), Some(Severity::Doubt), "{found:?}");
    let make = |clone: &str| {
        world.handover.create(&master, &world.spec(clone, DriverName::Vhd)).expect("a clone on a new parent").record
    };
    let new = [make("new"), make("newer")];
    assert!(new[0].base != old.base && new[0].base == new[1].base);
    for record in &new {
        assert!(world.handover.hash_base(&record.name).expect("it is read").is_right);
        let found = world.handover.verify(&record.name, Some(&master)).expect("a clone");
        assert_eq!(found.worst(), None, "{found:?}");
        assert!(world.handover.lost(std::slice::from_ref(record)).is_empty());
    }
    if can_mount() {
        let seen = fs::read(Shown::of(&new[0].path).disk()).expect("the disk");
        assert!(seen == fs::read(&master.path).expect("the master"), "through the new parent");
    }
    assert!(fs::read(&parent).expect("the old parent") == rotten, "nothing changes below the old clone");
    assert!(!world.handover.hash_base(&old.name).expect("it is read").is_right);

    new.iter().for_each(|record| drop(world.handover.remove(&record.name).expect("removed")));
    assert!(parent.exists() && !new[0].base.as_ref().expect("a parent").exists());
    world.handover.remove(&old.name).expect("removed");
    world.assert_nothing_left();
}

#[test]
fn clones_on_a_parent_that_a_full_check_found_damaged_are_broken_also_when_its_master_is_mended_and_goes() {
    let world = World::new();
    let record = world.make("c", DriverName::Vhd).record;
    let parent = record.base.clone().expect("a parent");
    let right = fs::read(&parent).expect("the parent")[77];
    write_into(&parent, 77, &[right ^ 1]);
    mended(&world);
    let lost = || world.handover.lost(std::slice::from_ref(&record)).remove(&record.name);
    assert!(lost().is_some_and(|lost| lost.word() == "doubted"));
    assert!(!world.handover.hash_base(&record.name).expect("it is read").is_right);
    let assert_broken = || {
        let lost = lost().expect("it is lost");
        let told = format!("{lost}; {}", lost.advice(&record.name));
        assert_eq!(lost.word(), "broken", "{told}");
        assert!(told.contains("was found damaged") && told.contains("move it away"), "{told}");
    };
    assert_broken();
    fs::remove_dir_all(world.state.join("masters")).expect("the master goes");
    assert_broken();
    write_into(&parent, 77, &[right]);
    assert!(world.handover.hash_base(&record.name).expect("it is read").is_right);
    assert_eq!(lost(), None);
}

#[test]
fn a_parent_of_a_replaced_master_is_good_again_once_it_was_read() {
    let world = World::new();
    let old = world.make("old", DriverName::Vhd).record;
    let master = mended(&world);
    assert!(!world.handover.lost(std::slice::from_ref(&old)).is_empty());
    assert!(world.handover.hash_base(&old.name).expect("it is read").is_right);
    assert!(world.handover.lost(std::slice::from_ref(&old)).is_empty());
    let new = world.handover.create(&master, &world.spec("new", DriverName::Vhd)).expect("a clone").record;
    assert_eq!(new.base, old.base);
}

#[test]
fn what_lies_behind_the_master_in_a_parent_is_checked_too() {
    let world = World::new();
    let mut spec = world.spec("longer", DriverName::Vhd);
    spec.disk_len = Some(2 * MASTER_LEN);
    let record = world.handover.create(&world.master, &spec).expect("a clone").record;
    assert!(world.handover.hash_base(&record.name).expect("it is read").is_right);
    write_into(record.base.as_ref().expect("a parent"), MASTER_LEN + (3 << 19), b"!");
    assert!(!world.handover.hash_base(&record.name).expect("it is read").is_right);
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
