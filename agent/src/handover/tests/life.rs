//! The life of a clone: made, listed, checked, removed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::world::{Machine, Mounted, World, described, name, run, sealed_master, text, wait_until, write_into};
use crate::handover::record::{ClonesLock, MovingTo, clones_of, clones_that_need};
use crate::handover::{
    About, Choice, CloneRecord, CloneSpec, CloneState, ConfirmError, CreateError, DriverName, Hypervisor, LookupError,
    Master, Place, RecordError, RemoveError, Severity, ToHash, Tools,
};

/// Where this host has device-mapper, tests without it are told that it has not.
fn no_devices() -> Tools {
    Tools { dmsetup: "/nowhere/dmsetup".into(), ..Tools::default() }
}

#[test]
fn a_clone_is_made_listed_and_removed() {
    let world = World::new();
    let made = world.make("web-1", DriverName::Copy).record;
    world.make("db.2", DriverName::Qcow2);

    assert_eq!(made.state, CloneState::Ready);
    assert_eq!((made.image, made.release.as_deref()), (world.master.image, Some("debian@3")));
    assert_eq!(made.path, world.out.join("web-1.img"));
    let names: Vec<String> = listed(&world);
    assert_eq!(names, ["db.2", "web-1"]);
    assert_eq!(world.handover.get(&name("web-1")).expect("a record"), made);
    assert_eq!(clones_of(&world.state, world.master.image).expect("records"), names);
    assert_eq!(clones_that_need(&world.state, world.master.image).expect("records"), ["db.2"]);

    let removed = world.handover.remove(&name("web-1")).expect("removed");
    assert!(removed.file_existed && !made.path.exists());
    assert_eq!(listed(&world), ["db.2"]);
    world.handover.remove(&name("db.2")).expect("removed");
    world.assert_nothing_left();
    assert!(matches!(world.handover.remove(&name("db.2")), Err(RemoveError::Unknown(_))));
    assert!(matches!(world.handover.get(&name("db.2")), Err(LookupError::Unknown(_))));
}

fn listed(world: &World) -> Vec<String> {
    let listing = world.handover.list().expect("records");
    assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
    listing.records.iter().map(|record| record.name.to_string()).collect()
}

#[test]
fn the_folder_is_its_owners_and_records_and_clones_are_their_makers() {
    let world = World::new();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&world.state, Some(4711), Some(4712)).expect("root may");
    }
    let record = world.make("c", DriverName::Copy).record;
    let of = |path: &Path| fs::metadata(path).expect("a file");
    let clones = world.state.join("clones");
    let folders_owner = if root { 4711 } else { rustix::process::geteuid().as_raw() };
    let maker = rustix::process::geteuid().as_raw();
    for (path, mode, owner) in [
        (clones.clone(), 0o750, folders_owner),
        (clones.join("c.json"), 0o644, maker),
        (clones.join(".lock"), 0o644, maker),
    ] {
        let facts = of(&path);
        assert_eq!((facts.mode() & 0o777, facts.uid()), (mode, owner), "{}", path.display());
    }
    assert_eq!(of(&record.path).mode() & 0o777, 0o600);
    let text = fs::read_to_string(clones.join("c.json")).expect("a record");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["image"], world.master.image.to_string());
    assert_eq!(
        (&json["driver"], &json["state"], &json["disk_len"]),
        (&"copy".into(), &"ready".into(), &4194304.into())
    );
}

#[test]
fn auto_takes_the_first_that_works_and_says_why_not_the_others() {
    let mut world = World::without_reflinks();
    let mut spec = world.spec("a", DriverName::Copy);
    spec.driver = Choice::Auto;
    let created = world.handover.create(&world.master, &spec).expect("a clone");
    assert_eq!(created.record.driver, DriverName::Qcow2);
    assert_eq!(created.not_taken.len(), 1);
    assert_eq!(created.not_taken[0].driver, DriverName::Reflink);
    assert!(created.not_taken[0].reason.contains("no reflinks"), "{:?}", created.not_taken);

    world = world.with_tools(Tools { qemu_img: "/nowhere/qemu-img".into(), ..no_devices() });
    let mut spec = world.spec("b", DriverName::Copy);
    spec.driver = Choice::Auto;
    let created = world.handover.create(&world.master, &spec).expect("a clone");
    assert_eq!(created.record.driver, DriverName::Copy);
    let reasons: Vec<_> = created.not_taken.iter().map(|not| not.driver).collect();
    assert_eq!(reasons, DriverName::ALL[..6]);
    assert!(created.not_taken[1].reason.contains("/nowhere/qemu-img was not found"), "{:?}", created.not_taken);

    for master in [Some(&world.master), None] {
        let reports = world.handover.reports(master, &world.out.join("x"), Hypervisor::Any).expect("reports");
        let usable: Vec<_> = reports.iter().filter(|report| report.unusable.is_none()).collect();
        assert_eq!((reports.len(), usable.len(), usable[0].driver), (7, 1, DriverName::Copy), "{reports:?}");
    }
}

#[test]
fn of_many_makers_of_one_name_one_wins_and_other_names_all_do() {
    let world = World::new();
    let made: usize = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..6)
            .map(|number| {
                let world = &world;
                scope.spawn(move || {
                    world.make(&format!("own-{number}"), DriverName::Copy);
                    let mut spec = world.spec("shared", DriverName::Copy);
                    spec.out = world.out.join(format!("shared-{number}"));
                    match world.handover.create(&world.master, &spec) {
                        Ok(_) => 1,
                        Err(CreateError::NameTaken { .. }) => 0,
                        Err(e) => panic!("{e}"),
                    }
                })
            })
            .collect();
        makers.into_iter().map(|maker| maker.join().expect("a maker")).sum()
    });
    assert_eq!((made, listed(&world).len()), (1, 7));
    assert_eq!(world.leftovers().len(), 14, "{:?}", world.leftovers());
}

#[test]
fn a_clone_in_use_is_neither_called_corrupt_nor_removed() {
    let world = World::new();
    for (driver, format) in [(DriverName::Qcow2, "qcow2"), (DriverName::Copy, "raw")] {
        let record = world.make(driver.as_str(), driver).record;
        let machine = Machine::start(format, &record.path);
        let found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
        assert!(found.in_use && found.is_sound(), "{found:?}");
        let refused = world.handover.remove(&record.name);
        assert!(matches!(refused, Err(RemoveError::InUse { .. })), "{refused:?}");
        drop(machine);
        assert!(!world.handover.verify(&record.name, Some(&world.master)).expect("a clone").in_use);
        world.handover.remove(&record.name).expect("removed");
    }
}

#[test]
fn a_clone_whose_file_was_moved_away_keeps_its_master_until_it_is_forgotten() {
    let world = World::new();
    for driver in [DriverName::Qcow2, DriverName::Copy, DriverName::Vhd] {
        let record = world.make("c", driver).record;
        let moved = world.out.join("moved");
        fs::rename(&record.path, &moved).expect("moved by hand");
        let refused = world.handover.remove(&record.name).expect_err("it may live on elsewhere");
        assert!(matches!(refused, RemoveError::Gone { .. }), "{refused}");
        assert!(
            refused.to_string().contains("moved by hand") && refused.to_string().contains("--forget c"),
            "{refused}"
        );
        let needing = clones_that_need(&world.state, world.master.image).expect("records");
        assert_eq!(needing.is_empty(), driver != DriverName::Qcow2);
        world.handover.forget(&record.name).expect("let go");
        assert!(clones_of(&world.state, world.master.image).expect("records").is_empty());
        // Another disk beside the parent may rest on it, whatever it is called.
        assert!(record.base.is_none_or(|base| base.exists()), "{driver}");
        fs::remove_file(&moved).expect("gone");
    }
}

#[test]
fn a_clone_that_is_being_moved_is_not_removed() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    let (image, master) = (record.image, record.master.clone());
    let moving_to = Some(MovingTo { image, release: None, master });
    let put = ClonesLock::acquire(&world.state).expect("the lock").put(&CloneRecord { moving_to, ..record.clone() });
    let being_moved = put.expect("a record");
    let refused = world.handover.remove(&record.name);
    assert!(matches!(refused, Err(RemoveError::BeingMoved(_))), "{refused:?}");
    assert!(record.path.exists());
    drop(being_moved);
    assert!(world.handover.remove(&record.name).expect("removed").file_existed);
}

#[test]
fn a_clone_whose_folder_is_not_there_is_kept_unless_it_is_to_be_forgotten() {
    let world = World::new();
    let record = world.make("c", DriverName::Copy).record;
    let refused = world.handover.forget(&record.name);
    assert!(matches!(refused, Err(RemoveError::Reachable { .. })), "{refused:?}");
    fs::remove_dir_all(&world.out).expect("gone with its folder");
    let refused = world.handover.remove(&record.name).expect_err("its folder is not there");
    assert!(refused.to_string().contains("is it mounted?") && refused.to_string().contains("--forget c"), "{refused}");
    world.handover.forget(&record.name).expect("forgotten");
    world.assert_nothing_left();
}

#[test]
fn a_clone_whose_file_system_is_not_mounted_is_kept_though_its_folder_is_there() {
    let Some(mounted) = Mounted::filesystem("ext4", 32) else { return };
    let world = World::new();
    let make = |clone: &str, driver: DriverName| {
        let spec = CloneSpec { out: mounted.root.join(clone), ..world.spec(clone, driver) };
        world.handover.create(&world.master, &spec).expect("a clone").record
    };
    for driver in [DriverName::Copy, DriverName::Qcow2, DriverName::Vhd] {
        let record = make("c", driver);
        mounted.while_away(|| {
            assert!(mounted.root.is_dir(), "its mount point is there");
            let refused = world.handover.remove(&record.name);
            assert!(matches!(refused, Err(RemoveError::Unreachable { .. })), "{driver}: {refused:?}");
            let found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
            assert!(found.findings[0].text.contains("is it mounted?"), "{found:?}");
        });
        assert!(world.handover.remove(&record.name).expect("removed").file_existed, "{driver}");
        assert!(!record.path.exists());
    }

    // Restored to another folder, it is found all the same.
    let record = make("moved", DriverName::Copy);
    let elsewhere =
        CloneRecord { place: Some(Place { inode: 1, kind: 2, file_system: None, born_unix_ns: None }), ..record };
    drop(ClonesLock::acquire(&world.state).expect("the lock").put(&elsewhere).expect("a record"));
    assert!(world.handover.remove(&elsewhere.name).expect("removed").file_existed);

    // A record of an earlier version says nothing of the place.
    let record = CloneRecord { place: None, ..make("old", DriverName::Copy) };
    drop(ClonesLock::acquire(&world.state).expect("the lock").put(&record).expect("a record"));
    fs::remove_file(&record.path).expect("gone");
    assert!(matches!(world.handover.remove(&record.name), Err(RemoveError::Gone { .. })));
    world.handover.forget(&record.name).expect("forgotten");
    world.assert_nothing_left();
}

#[test]
fn verify_tells_what_is_wrong_with_a_clone() {
    let world = World::new();
    let worst = |clone: &str| {
        let found = world.handover.verify(&name(clone), Some(&world.master)).expect("a clone");
        (found.worst(), found.findings.iter().map(|finding| finding.text.clone()).collect::<String>())
    };
    let fresh = world.make("fresh", DriverName::Qcow2).record;
    assert_eq!(worst("fresh"), (None, String::new()));

    let other = sealed_master(&world.state.join("other.raw"), 4 << 20);
    run("qemu-img", &["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", text(&other.path), text(&fresh.path)]);
    let (severity, text) = worst("fresh");
    assert!(severity == Some(Severity::Fault) && text.contains("its backing file is"), "{text}");

    let broken = world.make("broken", DriverName::Qcow2).record;
    let file = fs::OpenOptions::new().write(true).open(&broken.path).expect("the clone");
    file.write_all_at(&[0; 8], 65536).expect("its refcount table is at the second cluster");
    let (severity, text) = worst("broken");
    assert!(severity == Some(Severity::Fault) && text.contains(" corruptions") && !text.contains(" 0 "), "{text}");

    let short = world.make("short", DriverName::Copy).record;
    fs::OpenOptions::new().write(true).open(&short.path).and_then(|file| file.set_len(512)).expect("cut");
    let (severity, text) = worst("short");
    assert!(severity == Some(Severity::Fault) && text.contains("512 bytes long"), "{text}");
    fs::remove_file(&short.path).expect("gone");
    assert!(worst("short").1.contains("there is no file at"));

    let replaced = world.make("replaced", DriverName::Qcow2).record;
    fs::write(&replaced.path, "no qcow2").expect("a write");
    assert_eq!(worst("replaced").0, Some(Severity::Fault));
}

#[test]
fn verify_tells_what_became_of_the_master() {
    let world = World::new();
    world.make("needs", DriverName::Qcow2);
    world.make("whole", DriverName::Copy);
    let path = world.master.path.clone();
    let worst = |clone: &str, held: bool| {
        let found = world.handover.verify(&name(clone), held.then_some(&world.master)).expect("a clone");
        assert_eq!(found.to_hash != ToHash::Nothing, clone == "needs");
        found.worst()
    };
    assert_eq!((worst("needs", true), worst("whole", true)), (None, None));
    assert_eq!((worst("needs", false), worst("whole", false)), (Some(Severity::Doubt), Some(Severity::Note)));

    // One byte, same length: qemu's check is blind to it.
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("unsealed");
    assert_eq!(worst("needs", true), Some(Severity::Doubt));
    let file = fs::OpenOptions::new().write(true).open(&path).expect("the master");
    file.write_all_at(b"!", 77).expect("a write");
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).expect("its time");
    fs::set_permissions(&path, Permissions::from_mode(0o444)).expect("sealed");
    run("qemu-img", &["check", "-f", "qcow2", text(&world.out.join("needs.img"))]);
    assert_eq!((worst("needs", true), worst("whole", true)), (Some(Severity::Doubt), Some(Severity::Note)));

    fs::remove_file(&path).expect("gone");
    assert_eq!((worst("needs", true), worst("whole", true)), (Some(Severity::Fault), Some(Severity::Note)));
}

#[test]
fn a_record_that_cant_be_read_blocks_what_might_hurt_its_clone() {
    let world = World::new();
    world.make("good", DriverName::Copy);
    fs::write(world.state.join("clones/bad.json"), "{").expect("a file");
    let listing = world.handover.list().expect("records");
    assert_eq!((listing.records.len(), listing.unreadable.len()), (1, 1));
    let refused = clones_of(&world.state, world.master.image);
    assert!(matches!(refused, Err(RecordError::Unreadable { .. })), "{refused:?}");
    assert!(matches!(world.handover.remove(&name("bad")), Err(RemoveError::Record(_))));

    let later = fs::read_to_string(world.state.join("clones/good.json")).expect("a record");
    let later = later.replace("\"format\": 1", "\"format\": 2").replace("\"good\"", "\"bad\"");
    fs::write(world.state.join("clones/bad.json"), later).expect("a file");
    let error = world.handover.get(&name("bad")).expect_err("a later format");
    assert!(error.to_string().contains("its format is 2, this version reads 1"), "{error}");
}

#[test]
fn the_lock_needs_a_state_folder() {
    let refused = ClonesLock::acquire(Path::new("/nowhere/state"));
    assert!(matches!(refused, Err(RecordError::NoState(_))), "{refused:?}");
    assert!(clones_of(Path::new("/nowhere/state"), World::new().master.image).expect("no records").is_empty());
}

#[test]
fn a_clone_that_a_loop_device_shows_is_in_use() {
    if Mounted::memory("size=64k").is_none() {
        return;
    }
    let world = World::new();
    let record = world.make("c", DriverName::Copy).record;
    let other_name = world.folder().join("other-name");
    fs::hard_link(&record.path, &other_name).expect("a link");
    for (shown, still_has_it) in [(&record.path, true), (&other_name, true), (&other_name, false)] {
        let device = run("losetup", &["--find", "--show", text(shown)]);
        if !still_has_it {
            fs::remove_file(shown).expect("the path leads nowhere");
        }
        let refused = world.handover.remove(&record.name);
        run("losetup", &["--detach", device.trim()]);
        assert!(matches!(refused, Err(RemoveError::InUse { .. })), "{refused:?}");
    }
    world.handover.remove(&record.name).expect("removed");
}

#[test]
fn a_clone_that_a_program_has_open_without_a_lock_is_in_use() {
    let world = World::new();
    for driver in [DriverName::Qcow2, DriverName::Vhd, DriverName::Copy] {
        let record = world.make(driver.as_str(), driver).record;
        let mut reader = Command::new("sleep")
            .arg("60")
            .stdin(fs::File::open(&record.path).expect("the clone"))
            .spawn()
            .expect("a program");
        let verify = || world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
        wait_until("the program runs", || verify().in_use);
        assert!(verify().is_sound(), "{driver}: {:?}", verify());
        let refused: Vec<_> = world.handover.remove_all(std::slice::from_ref(&record.name)).collect();
        assert!(matches!(refused[..], [(_, Err(RemoveError::InUse { .. }))]), "{driver}: {refused:?}");
        reader.kill().and_then(|()| reader.wait()).expect("ended");
        assert!(!verify().in_use, "{driver}");
        world.handover.remove(&record.name).expect("removed");
    }
    world.assert_nothing_left();
}

#[test]
fn a_master_that_was_mended_is_known_as_it_is_once_it_was_hashed() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    // Another file with the same content, as a restored backup is.
    let restored = world.master.path.with_extension("new");
    fs::copy(&world.master.path, &restored).expect("a copy");
    fs::rename(&restored, &world.master.path).expect("in its place");
    let worst = |master: Option<&Master>| world.handover.verify(&record.name, master).expect("a clone").worst();
    assert_eq!(worst(Some(&world.master)), Some(Severity::Doubt));
    let refused = world.handover.confirm(&record.name, &world.master);
    assert!(matches!(refused, Err(ConfirmError::Master(_))), "nobody compared these bytes: {refused:?}");

    // The store has compared it and says so: of the same file there is no doubt.
    let hashed = described(&world.master.path);
    assert_eq!(worst(Some(&hashed)), None);
    let doubted = |record: &CloneRecord| record.master.file != hashed.verified.expect("an identity");
    assert!(doubted(&record));
    world.handover.confirm(&record.name, &hashed).expect("noted");
    assert!(!doubted(&world.handover.get(&record.name).expect("a record")));
}

#[test]
fn a_state_folder_that_moved_behind_a_link_has_the_same_masters() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    let moved = world.folder().join("moved");
    fs::rename(&world.state, &moved).expect("moved");
    std::os::unix::fs::symlink(&moved, &world.state).expect("a link where it was");
    // A daemon that was told the new place names its masters by that.
    let master = described(&moved.join("masters/disk.raw"));
    assert_ne!(master.path, record.master.path);
    let found = world.handover.verify(&record.name, Some(&master)).expect("a clone");
    assert_eq!(found.worst(), None, "{found:?}");
    assert!(!world.handover.rebase(&record.name, &master).expect("it rests on it").moved);
    world.handover.confirm(&record.name, &master).expect("noted");
    assert_eq!(world.handover.get(&record.name).expect("a record").master.path, record.master.path);
    assert_eq!(world.handover.verify(&record.name, Some(&master)).expect("a clone").worst(), None);
    world.handover.get_finished(&record.name).expect("it is whole");
}

#[test]
fn what_the_store_has_compared_counts_and_not_what_a_clone_was_made_of() {
    let world = World::new();
    write_into(&world.master.path, 77, b"!");
    // As it was when nobody asked the store: made of the changed file, which is what its record knows.
    let changed = described(&world.master.path);
    let wrongly = Master { image: world.master.image, ..changed };
    let record = world.handover.create(&wrongly, &world.spec("c", DriverName::Qcow2)).expect("a clone").record;
    let worst = |master: &Master| world.handover.verify(&record.name, Some(master)).expect("a clone").worst();
    assert_eq!(worst(&world.master), Some(Severity::Doubt));
    assert_eq!(worst(&Master { verified: None, ..wrongly }), Some(Severity::Doubt), "nothing was noted");
}

#[test]
fn reading_the_master_settles_doubts_of_its_content_and_no_others() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    write_into(&world.master.path, 77, b"!");
    let found = || world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
    assert_eq!(found().findings.iter().map(|found| found.about).collect::<Vec<_>>(), [About::Content]);
    let mut settled = found();
    settled.content_is_right();
    assert!(settled.is_sound(), "{settled:?}");

    // Without its program nobody has looked into the clone.
    let without =
        World::opened(world.folder()).with_tools(Tools { qemu_img: "/nowhere/qemu-img".into(), ..no_devices() });
    let mut unknown = without.handover.verify(&record.name, Some(&world.master)).expect("a clone");
    unknown.content_is_right();
    assert!(!unknown.is_sound() && unknown.findings.iter().all(|found| found.about == About::Clone), "{unknown:?}");
    let mut wrong = found();
    wrong.content_is_wrong("3 chunks are damaged".to_owned());
    assert_eq!(wrong.worst(), Some(Severity::Fault));
}

#[test]
fn a_pipe_and_relative_paths_are_no_records() {
    let world = World::new();
    world.make("good", DriverName::Copy);
    let clones = world.state.join("clones");
    run("mkfifo", &[text(&clones.join("pipe.json"))]);
    let forged = fs::read_to_string(clones.join("good.json")).expect("a record").replace("\"good\"", "\"forged\"");
    let path = format!("\"{}\"", text(&world.out.join("good.img")));
    fs::write(clones.join("forged.json"), forged.replace(&path, "\"good.img\"")).expect("a file");
    let listing = world.handover.list().expect("records");
    assert_eq!((listing.records.len(), listing.unreadable.len()), (1, 2), "{listing:?}");
    assert!(matches!(world.handover.remove(&name("forged")), Err(RemoveError::Record(_))));
}

#[test]
fn a_qemu_img_that_fails_by_itself_is_no_fault_of_the_clone() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    let program = world.folder().join("qemu-img-broken");
    for (does, words) in [
        ("kill -9 $$", "was ended by signal 9"),
        ("exit 1", "without a word"),
        ("echo nonsense", "gave an answer that can't be understood"),
        ("[ \"$1\" != check ] || exit 2; exec qemu-img \"$@\"", "gave an answer that can't be understood"),
    ] {
        fs::write(&program, format!("#!/bin/sh\n{does}\n")).expect("a program");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("it may be run");
        let broken = World::opened(world.folder()).with_tools(Tools { qemu_img: program.clone(), ..Tools::default() });
        let found = broken.handover.verify(&record.name, Some(&world.master)).expect("a clone");
        assert_eq!(found.worst(), Some(Severity::Doubt), "{does}: {found:?}");
        assert!(found.findings.iter().all(|finding| finding.text.contains(words)), "{does}: {found:?}");
    }
    assert!(world.handover.verify(&record.name, Some(&world.master)).expect("a clone").is_sound());

    // One that does nothing and says that all went well.
    fs::write(&program, "#!/bin/sh\n[ \"$1\" = --version ] && exec qemu-img --version\nexit 0\n").expect("a program");
    let idle = World::opened(world.folder()).with_tools(Tools { qemu_img: program, ..Tools::default() });
    let refused = idle.handover.create(&idle.master, &idle.spec("d", DriverName::Qcow2));
    let refused = refused.expect_err("nothing was made").to_string();
    assert!(refused.contains("does not name the master"), "{refused}");
}
