//! What has a clone's path by now and is not what was made there: named, and left alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::world::{MASTER_LEN, Mounted, World, described, name, run, text, write_into};
use crate::handover::{
    CloneRecord, CloneSpec, CloneState, ClonesLock, DeviceError, DriverName, FileIdentity, Lost, Outcome, RemoveError,
    Severity,
};

const FILES: [DriverName; 3] = [DriverName::Copy, DriverName::Qcow2, DriverName::Vhd];

#[track_caller]
fn assert_replaced(world: &World, clone: &str) {
    let clone = name(clone);
    let refused = world.handover.remove(&clone).expect_err("it is not the clone's");
    assert!(matches!(refused, RemoveError::Replaced { .. }), "{refused}");
    assert!(
        refused.to_string().contains("drover clone adopt") && refused.to_string().contains("--forget"),
        "{refused}"
    );
    let refused = world.handover.get_finished(&clone).expect_err("no guest is given it");
    assert!(matches!(refused, DeviceError::Lost { lost: Lost::Replaced(_), .. }), "{refused}");
    let found = world.handover.verify(&clone, Some(&world.master)).expect("a clone");
    assert!(found.worst() >= Some(Severity::Doubt) && !found.is_sound(), "{found:?}");
}

#[test]
fn a_clone_of_another_state_folder_at_the_same_path_is_not_removed() {
    let world = World::new();
    let other = world.neighbour();
    for driver in FILES {
        let record = world.make(driver.as_str(), driver).record;
        fs::remove_file(&record.path).expect("removed by hand");
        // The next file gets the inode number of the one that went.
        let theirs = other.make(driver.as_str(), driver).record;
        assert_eq!(theirs.path, record.path);

        assert_replaced(&world, driver.as_str());
        world.handover.forget(&record.name).expect("the record alone goes");
        assert!(record.path.exists(), "{driver}");
        assert!(other.handover.verify(&theirs.name, Some(&other.master)).expect("a clone").is_sound(), "{driver}");
        assert!(other.handover.remove(&theirs.name).expect("their own").file_existed);
    }
}

#[test]
fn a_foreign_file_at_a_clones_path_stays_also_when_a_removal_is_brought_to_its_end() {
    let world = World::new();
    for driver in FILES {
        let record = world.make("c", driver).record;
        fs::remove_file(&record.path).expect("removed by hand");
        fs::write(&record.path, "somebody's").expect("written");
        assert_replaced(&world, "c");
        let foreign = || fs::read_to_string(&record.path).expect("it is there");
        assert_eq!(foreign(), "somebody's");

        // Killed after the clone's own file was removed.
        let removing = CloneRecord { state: CloneState::Removing, ..record.clone() };
        drop(ClonesLock::acquire(&world.state).expect("the lock").put(&removing).expect("a record"));
        let recovered = world.handover.recover().expect("records");
        assert_eq!(recovered[0].outcome, Outcome::Cleaned);
        assert_eq!(foreign(), "somebody's");
        assert!(world.handover.list().expect("records").records.is_empty());
        fs::remove_file(&record.path).expect("removed by hand");
    }
    world.assert_nothing_left();
}

#[test]
fn a_restored_file_is_the_clones_once_that_was_said() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    // What a guest and qemu-img write leaves it the same.
    write_into(&record.path, 300_000, b"a guest's");
    assert!(world.handover.get_finished(&record.name).is_ok());
    let backup = world.out.join("backup");
    fs::rename(&record.path, &backup).expect("away");
    fs::copy(&backup, &record.path).expect("restored");
    assert_replaced(&world, "c");
    let adopted = world.handover.adopt(&record.name).expect("adopted");
    assert_ne!(adopted.disk, record.disk);
    world.handover.get_finished(&record.name).expect("it is the clone's now");
    assert!(world.handover.remove(&record.name).expect("removed").file_existed);
    world.assert_only_left(&backup);
}

#[test]
fn a_record_of_an_earlier_version_goes_by_the_path() {
    let world = World::new();
    let record = CloneRecord { disk: None, ..world.make("c", DriverName::Copy).record };
    drop(ClonesLock::acquire(&world.state).expect("the lock").put(&record).expect("a record"));
    fs::write(world.out.join("other"), vec![1; record.disk_len as usize]).expect("written");
    fs::rename(world.out.join("other"), &record.path).expect("renamed");
    assert!(world.handover.get_finished(&record.name).is_ok());
    assert!(world.handover.remove(&record.name).expect("removed").file_existed);
    world.assert_nothing_left();
}

#[test]
fn a_file_that_names_what_it_rests_on_tells_whose_it_is_also_by_an_earlier_versions_record() {
    let world = World::new();
    for driver in [DriverName::Qcow2, DriverName::Vhd] {
        let record = CloneRecord { disk: None, ..world.make("c", driver).record };
        drop(ClonesLock::acquire(&world.state).expect("the lock").put(&record).expect("a record"));
        let backup = world.out.join("backup");
        fs::rename(&record.path, &backup).expect("away");
        for foreign in ["somebody's".to_owned(), "x".repeat(4096)] {
            fs::write(&record.path, foreign).expect("written");
            assert_replaced(&world, "c");
        }
        fs::copy(&backup, &record.path).expect("restored");
        assert!(world.handover.get_finished(&record.name).is_ok(), "{driver}");
        fs::remove_file(&backup).expect("removed");
        assert!(world.handover.remove(&record.name).expect("removed").file_existed);
        world.assert_nothing_left();
    }
}

#[test]
fn a_clone_whose_file_is_gone_is_told_so() {
    let world = World::new();
    for driver in FILES {
        let record = world.make(driver.as_str(), driver).record;
        let lost = || world.handover.lost(std::slice::from_ref(&record)).remove(&record.name);
        assert_eq!(lost(), None);
        fs::remove_file(&record.path).expect("removed by hand");
        assert_eq!(lost(), Some(Lost::Gone(record.path.clone())));
        let refused = world.handover.get_finished(&record.name).expect_err("there is nothing to give");
        assert!(refused.to_string().contains(&format!("nothing at {}", text(&record.path))), "{refused}");
    }
}

#[test]
fn another_file_system_of_the_same_kind_is_not_the_clones_place() {
    for (kind, mib) in [("xfs", 320), ("ext4", 32)] {
        let Some(mounted) = Mounted::filesystem(kind, mib) else { return };
        let other = Mounted::filesystem(kind, mib).expect("a second one");
        let world = World::new();
        let spec = CloneSpec { out: mounted.root.join("c"), ..world.spec("c", DriverName::Copy) };
        let record = world.handover.create(&world.master, &spec).expect("a clone").record;
        mounted.while_instead(&other, || {
            let refused = world.handover.remove(&record.name);
            assert!(matches!(refused, Err(RemoveError::Unreachable { .. })), "{kind}: {refused:?}");
            let lost = world.handover.lost(std::slice::from_ref(&record)).remove(&record.name);
            assert!(matches!(lost, Some(Lost::Unreachable(_))), "{kind}: {lost:?}");
        });
        // Mounted anew it is what it was.
        assert!(Path::new(&record.path).exists());
        assert!(world.handover.remove(&record.name).expect("removed").file_existed, "{kind}");
        world.assert_nothing_left();
    }
}

#[test]
fn a_disk_that_rests_on_something_else_is_given_to_no_guest_and_not_adopted() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    run("qemu-img", &["rebase", "-u", "-f", "qcow2", "-b", "", text(&record.path)]);
    let refused = world.handover.get_finished(&record.name).expect_err("no guest is given it");
    assert!(matches!(refused, DeviceError::Lost { lost: Lost::OtherBase(_), .. }), "{refused}");

    // A copy of all of it in the same format, under its name.
    let own = world.out.join("own");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "qcow2", text(&record.path), text(&own)]);
    fs::rename(&own, &record.path).expect("renamed");
    let refused = world.handover.adopt(&record.name).expect_err("it is no disk of differences");
    assert!(refused.to_string().contains("--forget"), "{refused}");
    world.handover.forget(&record.name).expect("the record alone goes");
    world.assert_only_left(&record.path);
}

#[test]
fn a_clone_is_given_to_no_guest_while_what_it_rests_on_is_gone_damaged_or_doubted() {
    let world = World::new();
    let [qcow2, copy, vhd] =
        [DriverName::Qcow2, DriverName::Copy, DriverName::Vhd].map(|driver| world.make(driver.as_str(), driver).record);
    let all = [qcow2.clone(), copy, vhd.clone()];
    let lost = || -> Vec<(String, &str)> {
        let lost = world.handover.lost(&all);
        for record in &all {
            let given =
                [world.handover.get_finished(&record.name).map(drop), world.handover.activate(&record.name).map(drop)];
            for given in given {
                let is_lost = matches!(given, Err(DeviceError::Lost { .. }));
                assert_eq!(is_lost, lost.contains_key(&record.name), "{}: {given:?}", record.name);
            }
        }
        lost.iter().map(|(name, lost)| (name.to_string(), lost.word())).collect()
    };
    let only = |clone: &str, word: &'static str| vec![(clone.to_owned(), word)];
    assert_eq!(lost(), []);

    let (master, away) = (&world.master.path, world.folder().join("away"));
    fs::rename(master, &away).expect("gone");
    assert_eq!(lost(), only("qcow2", "broken"));
    let refused = world.handover.get_finished(&qcow2.name).expect_err("it has no master").to_string();
    assert!(refused.contains("is gone; `drover fetch debian@3`"), "{refused}");
    fs::copy(&away, master).expect("a copy");
    // The parent was made of the file that was there before.
    let with_vhd = |word: &'static str| [only("qcow2", word), only("vhd", "doubted")].concat();
    assert_eq!(lost(), with_vhd("doubted"));
    let refused = world.handover.get_finished(&qcow2.name).expect_err("it may be another").to_string();
    assert!(refused.contains("`drover verify debian@3`"), "{refused}");

    // As the store notes it beside the file: found right, and found damaged.
    let verified = FileIdentity::of(&fs::metadata(master).expect("the master"));
    let beside = |name: &str, json: String| fs::write(master.with_file_name(name), json).expect("a note");
    beside("verified.json", serde_json::to_string(&verified).expect("numbers"));
    assert_eq!(lost(), only("vhd", "doubted"));
    beside("damaged.json", "[3,4]".to_owned());
    assert_eq!(lost(), with_vhd("broken"));
    assert!(world.handover.lost(&all)[&qcow2.name].to_string().contains("is damaged: 2 of its chunks"));
    beside("damaged.json", "[]".to_owned());
    assert!(world.handover.hash_base(&vhd.name).expect("it is read").is_right);
    assert_eq!(lost(), []);

    fs::set_permissions(master, Permissions::from_mode(0o644)).expect("its mode");
    assert_eq!(lost(), only("qcow2", "doubted"));
    let refused = world.handover.get_finished(&qcow2.name).expect_err("it can be written to").to_string();
    assert!(refused.contains("is not sealed") && refused.contains("`drover verify debian@3`"), "{refused}");
    fs::set_permissions(master, Permissions::from_mode(0o444)).expect("its mode");

    let parent = vhd.base.as_ref().expect("a parent");
    write_into(parent, 77, b"!");
    assert_eq!(lost(), only("vhd", "doubted"));
    fs::remove_file(parent).expect("removed by hand");
    assert_eq!(lost(), only("vhd", "broken"));
    let created = world.handover.create(&described(master), &world.spec("other", DriverName::Vhd));
    created.expect("a clone, and the parent anew");
    assert_eq!(lost(), []);
}

#[test]
fn a_raw_file_that_is_shorter_than_the_disk_is_not_the_clone() {
    let world = World::new();
    let record = world.make("c", DriverName::Copy).record;
    let whole = world.folder().join("whole");
    fs::rename(&record.path, &whole).expect("moved by hand");
    fs::write(&record.path, "somebody's").expect("written");
    // As where inode numbers are made up: nothing but the path is known of it.
    let known = CloneRecord { disk: None, ..record.clone() };
    drop(ClonesLock::acquire(&world.state).expect("the lock").put(&known).expect("a record"));
    assert_replaced(&world, "c");
    let refused = world.handover.adopt(&record.name).expect_err("it is too short").to_string();
    assert!(refused.contains("shorter than the disk"), "{refused}");
    assert_eq!(fs::read_to_string(&record.path).expect("it is there"), "somebody's");

    // The clone's own file, cut off.
    fs::rename(&whole, &record.path).expect("back");
    drop(ClonesLock::acquire(&world.state).expect("the lock").put(&record).expect("a record"));
    world.handover.get_finished(&record.name).expect("it is whole");
    fs::OpenOptions::new().write(true).open(&record.path).and_then(|file| file.set_len(0)).expect("cut off");
    let refused = world.handover.get_finished(&record.name).expect_err("no guest is given it");
    assert!(matches!(refused, DeviceError::Lost { lost: Lost::Short(_), .. }), "{refused}");
    assert!(matches!(world.handover.forget(&record.name), Err(RemoveError::Reachable { .. })));
    let refused = refused.to_string();
    assert!(refused.contains("`drover clone rm c`") && !refused.contains("--forget"), "{refused}");
    assert!(world.handover.remove(&record.name).expect("it is the clone's own").file_existed);
}

#[test]
fn a_file_of_differences_that_was_cut_off_within_its_tables_is_told() {
    for driver in [DriverName::Qcow2, DriverName::Vhd] {
        let world = World::new();
        let record = world.make("c", driver).record;
        assert!(world.handover.lost(std::slice::from_ref(&record)).is_empty(), "{driver}: it is whole");
        let len = fs::metadata(&record.path).expect("a file").len();
        let file = fs::OpenOptions::new().write(true).open(&record.path).expect("the clone");
        // What lies behind the tables of a fresh VHD is the name of its parent.
        file.set_len(if driver == DriverName::Vhd { 1600 } else { len - 1 }).expect("cut off");
        let lost = world.handover.lost(std::slice::from_ref(&record));
        assert!(matches!(lost.get(&record.name), Some(Lost::Short(_))), "{driver}: {lost:?}");
    }
}

#[test]
fn a_file_of_differences_whose_disk_was_made_shorter_is_given_to_no_guest() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    let resize = |len: u64| {
        run("qemu-img", &["resize", "-q", "-f", "qcow2", "--shrink", text(&record.path), &len.to_string()]);
    };
    resize(MASTER_LEN + (1 << 20));
    world.handover.get_finished(&record.name).expect("a longer disk has all that it had");
    resize(MASTER_LEN - (1 << 20));
    let refused = world.handover.get_finished(&record.name).expect_err("it lacks the end");
    assert!(matches!(refused, DeviceError::Lost { lost: Lost::Short(_), .. }), "{refused}");
}

#[test]
fn a_link_is_not_adopted_in_place_of_a_disk() {
    let world = World::new();
    let record = world.make("c", DriverName::Copy).record;
    let moved = world.out.join("moved.img");
    fs::rename(&record.path, &moved).expect("moved by hand");
    std::os::unix::fs::symlink(&moved, &record.path).expect("a link");
    let refused = world.handover.adopt(&record.name).expect_err("a link is no disk").to_string();
    assert!(refused.contains("is a link") && refused.contains("move that"), "{refused}");
    assert_eq!(world.handover.get(&record.name).expect("as it was"), record);
}

#[test]
fn each_clone_of_a_doubted_parent_is_told_to_be_checked_by_its_own_name() {
    let world = World::new();
    let records = ["one", "two"].map(|clone| world.make(clone, DriverName::Vhd).record);
    write_into(records[0].base.as_ref().expect("a parent"), 77, b"!");
    let lost = world.handover.lost(&records);
    for record in &records {
        let advice = lost[&record.name].advice(&record.name);
        assert!(advice.contains(&format!("`drover clone verify {} --full`", record.name)), "{advice}");
    }
}
