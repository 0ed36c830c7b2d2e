//! Makers that are killed at each step of each driver: afterwards there are all clones or none, and nothing else.
//!
//! A maker is this test's own program in another process, which ends itself by SIGKILL where `DROVER_KILL_AT` says. The
//! drivers that make devices go through the same steps inside a virtual machine, by the command line.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::rebase::second_master;
use super::world::{MASTER_LEN, Mounted, World, assert_same_disk, described, name, text, wait_until};
use crate::handover::record::{ClonesLock, MovingTo, RecordedMaster};
use crate::handover::{CloneRecord, CloneState, DriverName, Tools};

/// Where [`worker`] works, if it is told to, and what: the work, a driver and a number of clones.
const FOLDER: &str = "DROVER_TEST_WORKER_FOLDER";
const WORK: &str = "DROVER_TEST_WORK";

/// No test by itself: what the drills start and see killed.
#[test]
fn worker() {
    let (Some(folder), Ok(work)) = (std::env::var_os(FOLDER), std::env::var(WORK)) else { return };
    let world = World::opened(Path::new(&folder));
    let words: Vec<&str> = work.split(' ').collect();
    match words[..] {
        ["make", driver, count] => {
            let driver = DriverName::ALL.into_iter().find(|known| known.as_str() == driver).expect("a driver");
            let count: usize = count.parse().expect("a number");
            let specs: Vec<_> = (0..count).map(|number| world.spec(&format!("c-{number}"), driver)).collect();
            world.handover.create_all(&world.master, &specs).expect("clones");
        }
        ["taken", count] => {
            let world = world.with_tools(Tools { qemu_img: taker(Path::new(&folder)), ..Tools::default() });
            let count: usize = count.parse().expect("a number");
            let specs: Vec<_> =
                (0..count).map(|number| world.spec(&format!("c-{number}"), DriverName::Qcow2)).collect();
            drop(world.handover.create_all(&world.master, &specs));
        }
        ["move", clone, master] => {
            drop(world.handover.rebase(&name(clone), &described(Path::new(master))).expect("moved"));
        }
        ["remove", clone] => drop(world.handover.remove(&name(clone)).expect("removed")),
        _ => panic!("{work:?} is no work"),
    }
}

/// Has a worker do this until it is killed at a step, and waits until nobody holds what it held.
fn killed(world: &World, work: &str, step: &str) {
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "handover::tests::drills::worker"])
        .env(FOLDER, world.folder())
        .env(WORK, work)
        .env("DROVER_KILL_AT", step)
        .stdout(Stdio::null())
        .status()
        .expect("a worker");
    assert_eq!(status.signal(), Some(9), "{work} is killed at {step}, not {status}");
    for record in world.handover.list().expect("records").records {
        let lock = ClonesLock::acquire(&world.state).expect("the lock");
        wait_until("the record is let go", || !lock.is_being_made(&record.name).expect("a record"));
    }
}

/// After a crash: all of `count` clones, whole, or none, and no file that belongs to none. Leaves none.
fn assert_all_or_nothing(world: &World, count: usize, step: &str) -> usize {
    world.handover.recover().expect("recovery");
    let records = world.handover.list().expect("records").records;
    assert!(records.is_empty() || records.len() == count, "killed at {step}: {} of {count} clones", records.len());
    let bases: std::collections::BTreeSet<_> = records.iter().filter_map(|record| record.base.clone()).collect();
    assert_eq!(world.leftovers().len(), 2 * records.len() + bases.len(), "killed at {step}: {:?}", world.leftovers());
    for record in &records {
        assert_eq!(record.state, CloneState::Ready);
        let found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
        assert_eq!(found.worst(), None, "killed at {step}: {found:?}");
        match record.driver {
            DriverName::Vhd => {}
            driver => assert_same_disk(driver.format(), &record.path, &world.master.path),
        }
        world.handover.remove(&record.name).expect("removed");
    }
    world.assert_nothing_left();
    records.len()
}

/// Kills makers of one clone and of three at every step of a driver. Clones exist from the step on at which they are said
/// to be whole.
fn drill(world: &World, driver: DriverName) {
    let base: &[&str] = if driver == DriverName::Vhd { &["base-made", "base-placed"] } else { &[] };
    for count in [1, 3] {
        let commit: &[&str] = if count > 1 { &["committed"] } else { &[] };
        let undone = [&["recorded"], base, &["made"]].concat();
        let done = [commit, &["ready", "placed", "activated"]].concat();
        for (steps, expected) in [(undone, 0), (done, count)] {
            for step in steps {
                killed(world, &format!("make {driver} {count}"), step);
                assert_eq!(assert_all_or_nothing(world, count, step), expected, "{driver}, killed at {step}");
            }
        }
    }
    // Between the second clone and the third, and between their names.
    for (step, expected) in [("made:2", 0), ("placed:2", 3)] {
        killed(world, &format!("make {driver} 3"), step);
        assert_eq!(assert_all_or_nothing(world, 3, step), expected, "{driver}, killed at {step}");
    }
    for step in ["deactivated", "removed"] {
        world.make("gone", driver);
        killed(world, "remove gone", step);
        let again = world.handover.remove(&name("gone")).expect("removed");
        assert_eq!(again.file_existed, step == "deactivated");
        world.assert_nothing_left();
    }
}

/// A `qemu-img` that takes the name of the second clone while it makes the first.
fn taker(folder: &Path) -> PathBuf {
    let (program, taken) = (folder.join("qemu-img-taking"), folder.join("out/c-1.img"));
    let script = format!("#!/bin/sh\n[ \"$1\" != create ] || echo mine >'{}'\nexec qemu-img \"$@\"\n", text(&taken));
    std::fs::write(&program, script).expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
    program
}

#[test]
fn makers_whose_name_is_taken_meanwhile_leave_all_or_nothing_also_while_they_undo_it() {
    let world = World::new();
    let taken = world.out.join("c-1.img");
    let steps = [
        ("committed", 3),
        ("ready", 3),
        ("placed", 3),
        ("unplaced", 3),
        ("unready", 3),
        ("uncommitted", 0),
        ("discarded", 0),
        ("discarded:2", 0),
        ("discarded:3", 0),
    ];
    for (step, once_free) in steps {
        killed(&world, "taken 3", step);
        world.handover.recover().expect("recovery");
        assert!(world.handover.list().expect("records").records.is_empty(), "killed at {step}");
        world.assert_only_left(&taken);
        assert_eq!(std::fs::read(&taken).expect("it is there"), b"mine\n");
        std::fs::remove_file(&taken).expect("gone");

        killed(&world, "taken 3", step);
        std::fs::remove_file(&taken).expect("gone");
        assert_eq!(assert_all_or_nothing(&world, 3, step), once_free, "killed at {step}, and the name was free again");
    }
}

#[test]
fn makers_of_qcow2_clones_leave_all_or_nothing() {
    drill(&World::new(), DriverName::Qcow2);
}

#[test]
fn makers_of_copies_leave_all_or_nothing() {
    drill(&World::new(), DriverName::Copy);
}

#[test]
fn makers_of_vhds_leave_all_or_nothing() {
    drill(&World::new(), DriverName::Vhd);
}

#[test]
fn makers_of_reflinks_leave_all_or_nothing() {
    let Some(mounted) = Mounted::filesystem("xfs", 320) else { return };
    drill(&World::in_folder(&mounted.root, MASTER_LEN), DriverName::Reflink);
}

/// Writes the record of a clone that somebody began to move, and is at it no more.
fn left_moving(world: &World, record: &CloneRecord, from: &str, to: &str) {
    let master = |path: &str| RecordedMaster { path: path.into(), ..record.master.clone() };
    let moving_to = MovingTo { image: record.image, release: Some("debian@4".to_owned()), master: master(to) };
    let moving = CloneRecord { master: master(from), moving_to: Some(moving_to), ..record.clone() };
    let lock = ClonesLock::acquire(&world.state).expect("the lock");
    drop(lock.put(&moving).expect("a record"));
    wait_until("the record is let go", || !lock.is_being_made(&record.name).expect("a record"));
}

#[test]
fn a_mover_that_is_killed_leaves_a_whole_clone_and_a_true_record() {
    let world = World::new();
    let second = second_master(&world);
    let record = world.make("c", DriverName::Qcow2).record;
    killed(&world, &format!("move c {}", text(&second.path)), "moved");
    let unsettled = world.handover.get(&record.name).expect("a record");
    assert_eq!((unsettled.image, unsettled.moving_to.map(|to| to.image)), (record.image, Some(second.image)));
    // Whoever goes on with it without a restart in between finds it settled, not forgotten.
    assert!(!world.handover.rebase(&record.name, &second).expect("it is there").moved);
    assert_eq!(world.handover.get(&record.name).expect("a record").image, second.image);
    let found = world.handover.verify(&record.name, Some(&second)).expect("a clone");
    assert_eq!(found.worst(), None, "{found:?}");
    assert_same_disk("qcow2", &record.path, &world.master.path);
}

#[test]
fn a_mover_that_is_killed_before_the_header_is_changed_leaves_the_clone_where_it_was() {
    let world = World::new();
    let second = second_master(&world);
    let record = world.make("c", DriverName::Qcow2).record;
    killed(&world, &format!("move c {}", text(&second.path)), "taken");
    world.handover.recover().expect("recovery");
    assert_eq!(world.handover.get(&record.name).expect("a record"), record);
    assert_same_disk("qcow2", &record.path, &world.master.path);
    assert!(world.handover.rebase(&record.name, &second).expect("moved").moved);
    assert_same_disk("qcow2", &record.path, &world.master.path);
}

#[test]
fn a_clone_whose_move_was_interrupted_rests_on_what_its_header_says() {
    let world = World::new();
    let record = world.make("c", DriverName::Qcow2).record;
    let here = text(&record.master.path);

    left_moving(&world, &record, here, "/nowhere/disk.raw");
    world.handover.recover().expect("recovery");
    assert_eq!(world.handover.get(&record.name).expect("a record"), record, "the header names the old master");

    left_moving(&world, &record, "/nowhere/disk.raw", here);
    world.handover.recover().expect("recovery");
    let settled = world.handover.get(&record.name).expect("a record");
    assert_eq!((settled.moving_to, settled.release.as_deref()), (None, Some("debian@4")));
    assert_eq!(settled.master, record.master);
}
