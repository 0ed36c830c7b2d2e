//! What a guest sees in a clone, what a write to it reaches, and what it costs.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::world::{
    MASTER_LEN, Mounted, World, assert_master_untouched, assert_same_disk, disk_usage, name, run, text, write_into,
};
use crate::handover::{Choice, DriverName, Profile};

fn write_raw(disk: &Path, at: u64) {
    let file = OpenOptions::new().write(true).open(disk).expect("the clone");
    file.write_all_at(b"written by a guest", at).expect("a write");
}

fn info(disk: &Path) -> serde_json::Value {
    let answer = run("qemu-img", &["info", "-f", "qcow2", "--output=json", text(disk)]);
    serde_json::from_str(&answer).expect("JSON")
}

#[test]
fn qcow2_clones_show_the_master_and_keep_writes_to_themselves() {
    let world = World::new();
    let first = world.make("first", DriverName::Qcow2).record;
    let second = world.make("second", DriverName::Qcow2).record;
    assert_same_disk("qcow2", &first.path, &world.master.path);

    run("qemu-io", &["-f", "qcow2", "-c", "write -P 0xab 4096 8192", text(&first.path)]);

    run("qemu-io", &["-f", "qcow2", "-c", "read -P 0xab 4096 8192", text(&first.path)]);
    assert_same_disk("qcow2", &second.path, &world.master.path);
    assert_master_untouched(&world.master);
    assert!(disk_usage(&second.path) <= 200 << 10, "a clone takes {} bytes", disk_usage(&second.path));
}

/// Where the data of a clone lies, as `qemu-img map` tells it: start, length and depth of each part.
fn data_of(clone: &Path) -> Vec<(u64, u64, u64)> {
    let answer = run("qemu-img", &["map", "-f", "qcow2", "--output=json", text(clone)]);
    let parts: Vec<serde_json::Value> = serde_json::from_str(&answer).expect("JSON");
    let number = |part: &serde_json::Value, key: &str| part[key].as_u64().expect("a number");
    let described = |part| (number(part, "start"), number(part, "length"), number(part, "depth"));
    parts.iter().filter(|part| part["data"] == true).map(described).collect()
}

/// The files that a clone's data lies in, which `qemu-img map` names for people alone.
fn files_of(clone: &Path) -> BTreeSet<String> {
    let answer = run("qemu-img", &["map", "-f", "qcow2", text(clone)]);
    let file = |line: &str| line.split_whitespace().nth(3).expect("a file").to_owned();
    answer.lines().skip(1).map(file).collect()
}

#[test]
fn all_data_of_a_fresh_qcow2_clone_lies_in_the_master_and_its_own_is_what_was_written() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    let [own_file, masters_file] = [&record.path, &world.master.path].map(|path| text(path).to_owned());
    let fresh = data_of(&record.path);
    assert!(!fresh.is_empty() && fresh.iter().all(|(.., depth)| *depth == 1), "{fresh:?}");
    assert_eq!(files_of(&record.path), BTreeSet::from([masters_file.clone()]));
    let len_of = |parts: &[(u64, u64, u64)]| parts.iter().map(|(_, len, _)| len).sum::<u64>();

    // Two clusters of 64 KiB: the first is data in the master, the second a hole.
    for at in ["131072", "3145728"] {
        run("qemu-io", &["-f", "qcow2", "-c", &format!("write -P 0xab {at} 65536"), text(&record.path)]);
    }

    let (own, masters): (Vec<_>, Vec<_>) = data_of(&record.path).into_iter().partition(|(.., depth)| *depth == 0);
    assert_eq!(own, [(131_072, 65_536, 0), (3_145_728, 65_536, 0)]);
    assert!(masters.iter().all(|(.., depth)| *depth == 1), "{masters:?}");
    assert_eq!(len_of(&masters), len_of(&fresh) - 65_536);
    assert_eq!(files_of(&record.path), BTreeSet::from([masters_file, own_file]));
    run("qemu-img", &["check", "-q", "-f", "qcow2", text(&record.path)]);
}

#[test]
fn qcow2_profiles_are_what_they_say() {
    let world = World::new();
    for (profile, cluster_len, subclusters) in [(Profile::Compat, 64 << 10, false), (Profile::Fast, 128 << 10, true)] {
        let mut spec = world.spec(profile.as_str(), DriverName::Qcow2);
        spec.profile = Some(profile);
        let record = world.handover.create(&world.master, &spec).expect("a clone").record;
        assert_eq!(record.profile, Some(profile));
        assert!(record.tools.contains_key("qemu-img"));
        let info = info(&record.path);
        assert_eq!(info["cluster-size"], cluster_len);
        assert_eq!(info["format-specific"]["data"]["extended-l2"], subclusters);
        let used = disk_usage(&record.path);
        assert!(used <= 32 << 10, "{profile}: a clone takes {used} bytes of the disk");
        assert_eq!(info["backing-filename-format"], "raw");
        assert_eq!(info["full-backing-filename"], text(&world.master.path));
        assert_same_disk("qcow2", &record.path, &world.master.path);
    }
}

#[test]
fn copies_are_the_master_byte_for_byte_and_no_larger() {
    let world = World::new();
    let first = world.make("first", DriverName::Copy).record;
    let second = world.make("second", DriverName::Copy).record;
    assert_eq!(fs::read(&first.path).expect("clone"), fs::read(&world.master.path).expect("master"));
    // The master has half a MiB of zeros that were written, and holes.
    let (copy, master) = (disk_usage(&first.path), disk_usage(&world.master.path));
    assert!(copy + (400 << 10) <= master, "the copy takes {copy} bytes, the master {master}");

    write_raw(&first.path, 100);

    assert_same_disk("raw", &second.path, &world.master.path);
    assert_master_untouched(&world.master);
}

#[test]
fn a_master_that_the_disk_damaged_unnoticed_is_copied_by_nobody() {
    let world = World::without_reflinks();
    let path = &world.master.path;
    let time = fs::metadata(path).and_then(|facts| facts.modified()).expect("its time");
    let right = fs::read(path).expect("the master")[1_100_000];
    let flip = |byte: u8| {
        write_into(path, 1_100_000, &[byte]);
        fs::File::open(path).and_then(|file| file.set_modified(time)).expect("its time");
    };
    flip(right ^ 1);
    for driver in [DriverName::Copy, DriverName::Vhd] {
        let refused = world.handover.create(&world.master, &world.spec("c", driver)).expect_err("it would be damaged");
        assert!(refused.to_string().contains("`drover verify debian@3`"), "{driver}: {refused}");
        world.assert_nothing_left();
    }
    flip(right);
    let record = world.make("c", DriverName::Copy).record;
    let mut found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
    found.stands_alone();
    assert!(found.is_sound() && found.findings[0].text.contains("no content was compared"), "{found:?}");
}

#[test]
fn reflinks_share_blocks_until_written() {
    for (kind, mib) in [("btrfs", 256), ("xfs", 320)] {
        let Some(mounted) = Mounted::filesystem(kind, mib) else { return };
        let world = World::in_folder(&mounted.root, MASTER_LEN);
        let mut spec = world.spec("first", DriverName::Reflink);
        spec.driver = Choice::Auto;
        let first = world.handover.create(&world.master, &spec).expect("a clone");
        assert_eq!((first.record.driver, first.not_taken), (DriverName::Reflink, Vec::new()), "{kind}");
        let second = world.make("second", DriverName::Reflink).record;
        let extents = run("filefrag", &["-v", text(&second.path)]);
        assert!(extents.contains("shared"), "{kind}: no extent is shared\n{extents}");
        assert_eq!(fs::read(&second.path).expect("clone"), fs::read(&world.master.path).expect("master"));

        write_raw(&first.record.path, 100);

        assert_same_disk("raw", &second.path, &world.master.path);
        assert_master_untouched(&world.master);
        assert!(!second.needs_master);
    }
}

#[test]
fn reflinks_are_refused_with_the_right_reason() {
    let world = World::without_reflinks();
    let error = world.handover.create(&world.master, &world.spec("c", DriverName::Reflink)).expect_err("no reflinks");
    assert!(error.to_string().contains("has no reflinks (FICLONE: "), "{error}");
    world.assert_nothing_left();

    let Some(ext4) = Mounted::filesystem("ext4", 32) else { return };
    let world = World::in_folder(&ext4.root, MASTER_LEN);
    let error = world.handover.create(&world.master, &world.spec("c", DriverName::Reflink)).expect_err("no reflinks");
    assert!(error.to_string().contains("has no reflinks (FICLONE: "), "{error}");
    world.assert_nothing_left();

    let Some(btrfs) = Mounted::filesystem("btrfs", 256) else { return };
    let mut spec = world.spec("c", DriverName::Reflink);
    spec.out = btrfs.root.join("c.img");
    let error = world.handover.create(&world.master, &spec).expect_err("another file system");
    assert!(error.to_string().contains("on another file system than the master"), "{error}");
    assert!(!spec.out.exists());
}

#[test]
fn a_folder_without_copy_on_write_is_named_as_the_reason_and_auto_takes_the_next_driver() {
    let Some(btrfs) = Mounted::filesystem("btrfs", 256) else { return };
    let world = World::in_folder(&btrfs.root, MASTER_LEN);
    run("chattr", &["+C", text(&world.out)]);
    let error = world.handover.create(&world.master, &world.spec("c", DriverName::Reflink)).expect_err("nodatacow");
    assert!(error.to_string().contains("without copy-on-write (chattr +C)"), "{error}");
    world.assert_nothing_left();
    let mut spec = world.spec("c", DriverName::Reflink);
    spec.driver = Choice::Auto;
    let created = world.handover.create(&world.master, &spec).expect("by another driver");
    assert_eq!(created.record.driver, DriverName::Qcow2);
    assert!(created.not_taken[0].reason.contains("without copy-on-write"), "{:?}", created.not_taken);
    let parent = world.make("vhd", DriverName::Vhd);
    assert!(parent.warnings[0].contains("is a copy of the master"), "{:?}", parent.warnings);
}

#[test]
fn a_master_that_ends_within_a_sector_is_shown_whole_with_a_warning() {
    let world = World::in_folder(&std::env::temp_dir(), 100_001);
    for (driver, format) in [(DriverName::Qcow2, "qcow2"), (DriverName::Copy, "raw")] {
        let created = world.make(driver.as_str(), driver);
        assert!(created.warnings[0].contains("no whole number of 512-byte sectors"), "{:?}", created.warnings);
        assert_eq!(created.record.disk_len, 100_352);
        let shown = world.out.join("shown.raw");
        run("qemu-img", &["convert", "-f", format, "-O", "raw", text(&created.record.path), text(&shown)]);
        let (shown, master) = (fs::read(&shown).expect("disk"), fs::read(&world.master.path).expect("master"));
        assert_eq!(shown.len(), 100_352);
        assert_eq!(&shown[..100_001], &master[..]);
        assert!(shown[100_001..].iter().all(|&byte| byte == 0));
    }
    assert_master_untouched(&world.master);
}

#[test]
fn a_clone_can_be_larger_than_its_master() {
    let reflinks = Mounted::filesystem("xfs", 320);
    let mut cases = vec![(World::new(), DriverName::Qcow2, "qcow2"), (World::new(), DriverName::Copy, "raw")];
    if let Some(mounted) = &reflinks {
        cases.push((World::in_folder(&mounted.root, MASTER_LEN), DriverName::Reflink, "raw"));
    }
    for (world, driver, format) in &cases {
        let mut spec = world.spec("large", *driver);
        spec.disk_len = Some(1 << 30);
        let record = world.handover.create(&world.master, &spec).expect("a clone").record;
        let answer = run("qemu-img", &["info", "-f", format, "--output=json", text(&record.path)]);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!((&answer["virtual-size"], record.disk_len), (&(1 << 30).into(), 1 << 30));
        // The rest must read as zeros: compare allows that and nothing else.
        assert_same_disk(format, &record.path, &world.master.path);
        assert!(disk_usage(&record.path) < 8 << 20);
    }
}

#[test]
fn odd_paths_are_taken_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let odd = folder.path().join("we:ird, föl=der");
    fs::create_dir(&odd).expect("a folder");
    let world = World::in_folder(&odd, MASTER_LEN);
    for (driver, format) in [(DriverName::Qcow2, "qcow2"), (DriverName::Copy, "raw")] {
        let mut spec = world.spec("c", driver);
        spec.name = name(driver.as_str());
        spec.out = world.out.join(format!("nbd:a,b={driver}"));
        let record = world.handover.create(&world.master, &spec).expect("a clone").record;
        assert_same_disk(format, &record.path, &world.master.path);
        let found = world.handover.verify(&spec.name, Some(&world.master)).expect("a clone");
        assert!(found.is_sound(), "{found:?}");
    }
}
