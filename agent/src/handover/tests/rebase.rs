//! Moving clones to another master.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use super::world::{
    MASTER_LEN, Machine, Mounted, World, assert_master_untouched, assert_same_disk, described, disk_usage, name, run,
    text, write_into,
};
use crate::handover::record::clones_of;
use crate::handover::{CloneRecord, DeviceError, DriverName, FileIdentity, Lost, Master, RebaseError, Tools};

/// A second master: the first with another middle, and longer.
pub(super) fn second_master(world: &World) -> Master {
    let path = world.state.join("masters/second.raw");
    let mut content = std::fs::read(&world.master.path).expect("the first");
    content[1_200_000..1_300_000].fill(0x77);
    content.extend_from_slice(&[0x55; 1 << 20]);
    std::fs::write(&path, &content).expect("the second");
    let mut permissions = std::fs::metadata(&path).expect("a file").permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).expect("sealed");
    Master { release: Some("debian@4".to_owned()), ..described(&path) }
}

#[test]
fn the_guest_sees_what_it_saw_and_the_old_master_is_free() {
    let world = World::new();
    let second = second_master(&world);
    let record = world.make("c", DriverName::Qcow2).record;
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 0xab 8192 4096", text(&record.path)]);
    let before = world.out.join("before.raw");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(&record.path), text(&before)]);

    let moved = world.handover.rebase(&name("c"), &second).expect("moved");
    assert!(moved.moved);
    assert_eq!(moved.record.release.as_deref(), Some("debian@4"));
    assert_same_disk("qcow2", &record.path, &before);
    let found = world.handover.verify(&name("c"), Some(&second)).expect("a clone");
    assert_eq!(found.worst(), None, "{found:?}");
    assert!(clones_of(&world.state, world.master.image).expect("records").is_empty());
    assert_eq!(clones_of(&world.state, second.image).expect("records"), ["c"]);
    assert!(!world.handover.rebase(&name("c"), &second).expect("there already").moved);
    assert_master_untouched(&world.master);
    assert_master_untouched(&second);
    // It reads nothing of the old one any more.
    std::fs::remove_file(&world.master.path).expect("gone");
    assert_same_disk("qcow2", &record.path, &before);
}

#[test]
fn what_cant_be_moved_says_why() {
    let world = World::new();
    let second = second_master(&world);
    world.make("copy", DriverName::Copy);
    let error = world.handover.rebase(&name("copy"), &second).expect_err("it stands alone");
    assert!(matches!(error, RebaseError::Unmovable { .. }) && error.to_string().contains("stands alone"), "{error}");
    let error = world.handover.rebase(&name("copy"), &world.master).expect_err("it does not rest on that one, either");
    assert!(matches!(error, RebaseError::Unmovable { .. }), "{error}");
    let record = world.make("busy", DriverName::Qcow2).record;
    let machine = Machine::start("qcow2", &record.path);
    let error = world.handover.rebase(&name("busy"), &second).expect_err("it is in use");
    assert!(matches!(error, RebaseError::InUse(_)), "{error}");
    drop(machine);
    assert!(matches!(world.handover.rebase(&name("none"), &second), Err(RebaseError::Clone(_))));
}

#[test]
fn a_move_that_fails_leaves_the_clone_as_it_was() {
    let world = World::new();
    let mut second = second_master(&world);
    world.make("c", DriverName::Qcow2);
    let record = world.handover.get(&name("c")).expect("a record");
    let away = second.path.with_extension("away");
    std::fs::rename(&second.path, &away).expect("gone");
    assert!(matches!(world.handover.rebase(&name("c"), &second), Err(RebaseError::Master(_))));
    second.path = away;
    second.in_place = true;
    assert!(matches!(world.handover.rebase(&name("c"), &second), Err(RebaseError::InPlace(_))));
    assert_eq!(world.handover.get(&name("c")).expect("a record"), record);
}

#[test]
fn a_clone_that_rests_on_something_else_or_on_a_changed_master_is_not_moved() {
    let world = World::new();
    let second = second_master(&world);
    let record = world.make("c", DriverName::Qcow2).record;
    let other = world.out.join("other.raw");
    std::fs::copy(&world.master.path, &other).expect("a copy");
    let rest_on = |path: &Path| {
        run("qemu-img", &["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", text(path), text(&record.path)]);
    };
    rest_on(&other);
    for master in [&second, &world.master] {
        let error = world.handover.rebase(&name("c"), master).expect_err("it rests on something else");
        assert!(matches!(error, RebaseError::Elsewhere { .. }), "{error}");
    }
    rest_on(&world.master.path);

    let copy = world.master.path.with_extension("new");
    std::fs::copy(&world.master.path, &copy).expect("a copy");
    std::fs::rename(&copy, &world.master.path).expect("in its place");
    let error = world.handover.rebase(&name("c"), &second).expect_err("the master may have changed");
    assert!(matches!(error, RebaseError::Clone(DeviceError::Lost { lost: Lost::Doubted(_), .. })), "{error}");
    // As the store notes it once it has read all of it.
    let found = serde_json::to_vec(&FileIdentity::of(&std::fs::metadata(&world.master.path).expect("the master")));
    std::fs::write(world.master.path.with_file_name("verified.json"), found.expect("numbers")).expect("noted");
    assert!(world.handover.rebase(&name("c"), &second).expect("moved").moved);
}

/// Its tables call a cluster free in which the guest has written: what the move takes would come to lie there.
#[test]
fn a_clone_whose_tables_are_damaged_is_not_moved() {
    let world = World::new();
    let second = second_master(&world);
    let record = world.make("c", DriverName::Qcow2).record;
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 0xab 65536 65536", text(&record.path)]);
    let file = fs::OpenOptions::new().read(true).write(true).open(&record.path).expect("the clone");
    let be64 = |at: u64| {
        let mut number = [0; 8];
        file.read_exact_at(&mut number, at).expect("a number");
        u64::from_be_bytes(number)
    };
    // The guest's cluster is the file's last; its count has two bytes in the first block of counts.
    let cluster_len = 1 << (be64(16) as u32);
    let last = (file.metadata().expect("a file").len() - 1) / cluster_len;
    file.write_all_at(&[0, 0], be64(be64(48)) + 2 * last).expect("a write into its counts");
    let before = seen(&world, &record);

    let refused = world.handover.rebase(&record.name, &second).expect_err("it is not sound").to_string();
    assert!(refused.contains("corruptions") && refused.contains("as it was"), "{refused}");
    assert_same_disk("qcow2", &record.path, &before);
    assert_eq!(world.handover.get_finished(&record.name).expect("as it was").image, world.master.image);
}

#[test]
fn a_clone_with_snapshots_inside_is_not_moved() {
    let world = World::new();
    let second = second_master(&world);
    let record = world.make("c", DriverName::Qcow2).record;
    run("qemu-img", &["snapshot", "-c", "before", text(&record.path)]);
    let error = world.handover.rebase(&record.name, &second).expect_err("the snapshot would see the second master");
    assert!(error.to_string().contains("1 snapshots inside"), "{error}");
    assert_eq!(world.handover.get_finished(&record.name).expect("as it was").image, world.master.image);
    run("qemu-img", &["snapshot", "-d", "before", text(&record.path)]);
    assert!(world.handover.rebase(&record.name, &second).expect("moved").moved);
}

#[test]
fn what_the_disk_damaged_in_the_old_master_is_not_copied_into_the_clone() {
    let world = World::new();
    let second = second_master(&world);
    let record = world.make("c", DriverName::Qcow2).record;
    let before = std::fs::read(&record.path).expect("the clone");
    let (path, time) = (&world.master.path, std::fs::metadata(&world.master.path).and_then(|facts| facts.modified()));
    // Where the masters differ, and with no trace but the content.
    let flip = |byte: u8| {
        write_into(path, 1_250_000, &[byte]);
        let file = std::fs::File::open(path).expect("the master");
        file.set_modified(*time.as_ref().expect("its time")).expect("its time");
    };
    let right = std::fs::read(path).expect("the master")[1_250_000];
    flip(right ^ 1);
    let error = world.handover.rebase(&name("c"), &second).expect_err("it would copy the damage");
    assert!(matches!(error, RebaseError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("`drover verify debian@3`"), "{error}");
    assert_eq!(world.handover.get(&name("c")).expect("a record"), record);
    assert!(std::fs::read(&record.path).expect("the clone") == before, "it is as it was");
    flip(right);
    assert!(world.handover.rebase(&name("c"), &second).expect("moved").moved);
}

/// What a guest sees of a clone, in a file of its own.
fn seen(world: &World, record: &CloneRecord) -> std::path::PathBuf {
    let seen = world.out.join("seen.raw");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(&record.path), text(&seen)]);
    seen
}

/// A program that ends itself where `script` says.
fn deadly(world: &World, called: &str, script: &str) -> std::path::PathBuf {
    let program = world.folder().join(called);
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it may be run");
    program
}

/// `qemu-img rebase` by itself loses what it copied if it ends after it has written the header, and before the tables.
#[test]
fn a_program_that_ends_at_any_moment_of_a_move_leaves_what_the_guest_saw() {
    let world = World::new();
    let second = second_master(&world);
    let record = world.make("c", DriverName::Qcow2).record;
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 0xab 8192 4096", text(&record.path)]);
    let before = seen(&world, &record);
    let usual = Tools::default;
    let deaths = [
        Tools { qemu_io: deadly(&world, "io-before", "kill -9 $$"), ..usual() },
        Tools { qemu_io: deadly(&world, "io-idle", "exit 0"), ..usual() },
        Tools { qemu_io: deadly(&world, "io-after", "qemu-io \"$@\"; kill -9 $$"), ..usual() },
        Tools {
            qemu_img: deadly(&world, "img-compare", "[ $1 != compare ] || kill -9 $$; exec qemu-img \"$@\""),
            ..usual()
        },
        Tools {
            qemu_img: deadly(&world, "img-before", "[ $1 != rebase ] || kill -9 $$; exec qemu-img \"$@\""),
            ..usual()
        },
    ];
    for tools in deaths {
        let died = format!("{tools:?}");
        let world = World::opened(world.folder()).with_tools(tools);
        let error = world.handover.rebase(&name("c"), &second).expect_err("a program failed");
        assert!(matches!(error, RebaseError::Move { .. }), "{died}: {error}");
        assert_eq!(world.handover.get(&name("c")).expect("a record"), record, "{died}");
        assert_same_disk("qcow2", &record.path, &before);
    }
    let after = deadly(&world, "img-after", "qemu-img \"$@\"; [ $1 != rebase ] || kill -9 $$");
    let world = World::opened(world.folder()).with_tools(Tools { qemu_img: after, ..usual() });
    let moved = world.handover.rebase(&name("c"), &second).expect("its header says so");
    assert_eq!((moved.moved, moved.record.image), (true, second.image));
    assert_same_disk("qcow2", &record.path, &before);
}

#[test]
fn a_disk_that_was_made_longer_moves_between_masters_of_other_lengths() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    run("qemu-img", &["resize", "-q", "-f", "qcow2", text(&record.path), "+3M"]);
    run(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 0xab 70000 90000", "-c", "write -z 300000 70000", text(&record.path)],
    );
    let before = seen(&world, &record);
    let (first, longer) = (world.master.path.clone(), second_master(&world));
    let shorter = world.state.join("masters/third.raw");
    fs::write(&shorter, &fs::read(&longer.path).expect("the second")[..1 << 20]).expect("the third");
    fs::set_permissions(&shorter, fs::Permissions::from_mode(0o444)).expect("sealed");
    for to in [&longer, &described(&shorter), &longer, &described(&first)] {
        assert!(world.handover.rebase(&name("c"), to).expect("moved").moved);
        assert_same_disk("qcow2", &record.path, &before);
        let found = world.handover.verify(&name("c"), Some(to)).expect("a clone");
        assert_eq!(found.worst(), None, "{found:?}");
    }
}

#[test]
fn a_clone_that_would_not_fit_on_its_disk_is_not_moved_and_takes_no_room() {
    let Some(mounted) = Mounted::filesystem("xfs", 320) else { return };
    let world = World::in_folder(&mounted.root, MASTER_LEN);
    let record = world.make("c", DriverName::Qcow2).record;
    let other = world.state.join("masters/other.raw");
    let content: Vec<u8> = fs::read(&world.master.path).expect("the master").iter().map(|byte| !byte).collect();
    fs::write(&other, content).expect("another");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o444)).expect("sealed");
    let before = (fs::read(&record.path).expect("the clone"), disk_usage(&record.path));
    let filler = fs::File::create(world.out.join("filler")).expect("a file");
    let room = rustix::fs::fstatvfs(&filler).expect("the file system");
    let len = (room.f_bavail * room.f_frsize).saturating_sub(MASTER_LEN / 2);
    rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, len).expect("there is room");
    let refused = world.handover.rebase(&name("c"), &described(&other)).expect_err("it does not fit").to_string();
    assert!(refused.contains("its file system has"), "{refused}");
    assert!((fs::read(&record.path).expect("the clone"), disk_usage(&record.path)) == before, "it is as it was");
    assert_eq!(world.handover.get(&name("c")).expect("a record"), record);
}

#[test]
fn a_new_master_that_the_disk_damaged_takes_no_clone() {
    let world = World::new();
    let second = second_master(&world);
    let record = world.make("c", DriverName::Qcow2).record;
    // As in the old master, so that nothing of it would be taken.
    let old = fs::read(&world.master.path).expect("the first")[1_250_000];
    let time = fs::metadata(&second.path).and_then(|facts| facts.modified()).expect("its time");
    let damage = |byte: u8| {
        write_into(&second.path, 1_250_000, &[byte]);
        fs::File::open(&second.path).and_then(|file| file.set_modified(time)).expect("its time");
    };
    let file = fs::File::open(&second.path).expect("the second");
    let mut right = [0];
    file.read_exact_at(&mut right, 1_250_000).expect("a byte");
    damage(old);
    let error = world.handover.rebase(&name("c"), &second).expect_err("mending it would change the guest's disk");
    assert!(matches!(error, RebaseError::NewDamaged { .. }), "{error}");
    assert!(error.to_string().contains("`drover verify debian@4`"), "{error}");
    assert_eq!(world.handover.get(&name("c")).expect("a record"), record);
    damage(right[0]);
    assert!(world.handover.rebase(&name("c"), &second).expect("moved").moved);
}
