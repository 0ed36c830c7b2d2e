//! What a crash leaves at each step of making or removing a clone, and what becomes of that.
//!
//! The steps are those of the module `create`. Each story begins with the files as they are after one.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use drover_protocol::rng::Rng;

use super::world::{Mounted, World, assert_same_disk, name, wait_until};
use crate::handover::record::ClonesLock;
use crate::handover::{CloneRecord, CloneSpec, CloneState, DriverName, Outcome, RemoveError, Severity};

/// A clone whose file is still under its temporary name, and whose record is in this state.
fn interrupted(world: &World, state: CloneState) -> CloneRecord {
    let mut record = world.make("c", DriverName::Qcow2).record;
    fs::rename(&record.path, &record.temporary).expect("back to the temporary name");
    record.state = state;
    put(world, &record);
    record
}

fn put(world: &World, record: &CloneRecord) {
    drop(ClonesLock::acquire(&world.state).expect("the lock").put(record).expect("a record"));
    wait_until_let_go(world, record);
}

/// A program that another test starts at this moment holds a copy of all locks, until it runs.
fn wait_until_let_go(world: &World, record: &CloneRecord) {
    let lock = ClonesLock::acquire(&world.state).expect("the lock");
    wait_until("the record is let go", || !lock.is_being_made(&record.name).expect("a record"));
}

fn recover(world: &World) -> Vec<Outcome> {
    world.handover.recover().expect("recovery").into_iter().map(|recovered| recovered.outcome).collect()
}

#[test]
fn a_record_cut_short_is_swept_away() {
    let world = World::new();
    drop(ClonesLock::acquire(&world.state).expect("the lock"));
    fs::write(world.state.join("clones/.c.json.tmp"), "{").expect("a file");
    assert_eq!(recover(&world), []);
    world.assert_nothing_left();
}

#[test]
fn begun_and_nothing_made_is_cleaned() {
    let world = World::new();
    let record = interrupted(&world, CloneState::Making);
    fs::remove_file(&record.temporary).expect("not yet made");
    assert_eq!(recover(&world), [Outcome::Cleaned]);
    world.assert_nothing_left();
}

#[test]
fn a_file_half_made_is_cleaned_and_anothers_file_is_left_alone() {
    let world = World::new();
    let record = interrupted(&world, CloneState::Making);
    fs::write(&record.path, "mine").expect("a file");
    let found = world.handover.verify(&record.name, Some(&world.master)).expect("a record");
    assert_eq!(found.worst(), Some(Severity::Fault));
    assert_eq!(recover(&world), [Outcome::Cleaned]);
    world.assert_only_left(&record.path);
    assert_eq!(fs::read(&record.path).expect("a file"), b"mine");
}

#[test]
fn a_whole_file_gets_its_name() {
    let world = World::new();
    let record = interrupted(&world, CloneState::Ready);
    let found = world.handover.as_found(vec![record.clone()]);
    assert_eq!(found[0].state, CloneState::Making, "it is not there under its name, so it is not ready");
    assert_eq!(recover(&world), [Outcome::Completed]);
    assert!(!record.temporary.exists());
    let found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
    assert_eq!(found.worst(), None, "{found:?}");
    assert_eq!(world.handover.as_found(vec![record.clone()]), [record]);
    assert_eq!(recover(&world), []);
}

#[test]
fn a_whole_file_whose_name_is_taken_is_cleaned() {
    let world = World::new();
    let record = interrupted(&world, CloneState::Ready);
    fs::write(&record.path, "mine").expect("a file");
    assert_eq!(recover(&world), [Outcome::Cleaned]);
    world.assert_only_left(&record.path);
    assert_eq!(fs::read(&record.path).expect("a file"), b"mine");
}

#[test]
fn one_file_under_both_names_loses_the_temporary_one() {
    let world = World::new();
    let record = interrupted(&world, CloneState::Ready);
    fs::hard_link(&record.temporary, &record.path).expect("a link");
    assert_eq!(recover(&world), [Outcome::Completed]);
    assert!(record.path.exists() && !record.temporary.exists());
}

#[test]
fn a_finished_clone_is_left_alone() {
    let world = World::new();
    world.make("c", DriverName::Copy);
    assert_eq!(recover(&world), []);
    assert_eq!(world.leftovers().len(), 2);
}

#[test]
fn a_clone_in_the_making_is_left_to_its_maker() {
    let world = World::new();
    let record = interrupted(&world, CloneState::Making);
    let lock = ClonesLock::acquire(&world.state).expect("the lock");
    let being_made = lock.put(&record).expect("a record");
    drop(lock);
    assert_eq!(recover(&world), []);
    let refused = world.handover.remove(&record.name);
    assert!(matches!(refused, Err(RemoveError::BeingMade(_))), "{refused:?}");
    assert!(world.handover.create(&world.master, &world.spec("c", DriverName::Copy)).is_err());
    assert!(record.temporary.exists());
    drop(being_made);
    wait_until_let_go(&world, &record);
    assert_eq!(recover(&world), [Outcome::Cleaned]);
    world.assert_nothing_left();
}

#[test]
fn the_name_of_an_interrupted_clone_can_be_used_again_at_once() {
    let world = World::new();
    let interrupted = interrupted(&world, CloneState::Making);
    world.make("c", DriverName::Copy);
    assert!(!interrupted.temporary.exists());
    assert_eq!(world.leftovers().len(), 2);
}

#[test]
fn an_interrupted_clone_can_be_removed() {
    for state in [CloneState::Making, CloneState::Ready] {
        let world = World::new();
        let record = interrupted(&world, state);
        fs::write(&record.path, "mine").expect("a file");
        assert!(world.handover.remove(&name("c")).expect("removed").file_existed);
        world.assert_only_left(&record.path);
    }
}

#[test]
fn a_folder_that_is_not_mounted_is_waited_for() {
    let world = World::new();
    let record = interrupted(&world, CloneState::Making);
    let away = world.out.with_extension("away");
    fs::rename(&world.out, &away).expect("unmounted, so to speak");
    let outcomes = recover(&world);
    assert!(matches!(&outcomes[..], [Outcome::Left(why)] if why.contains("is it mounted?")), "{outcomes:?}");
    fs::rename(&away, &world.out).expect("mounted again");
    assert_eq!(recover(&world), [Outcome::Cleaned]);
    assert!(!record.temporary.exists());
    world.assert_nothing_left();
}

#[test]
fn a_file_system_that_is_not_mounted_is_waited_for_though_its_mount_point_is_there() {
    let Some(mounted) = Mounted::filesystem("ext4", 32) else { return };
    let world = World::new();
    for (state, at_temporary) in [(CloneState::Making, true), (CloneState::Removing, false)] {
        let spec = CloneSpec { out: mounted.root.join("c"), ..world.spec("c", DriverName::Qcow2) };
        let record = world.handover.create(&world.master, &spec).expect("a clone").record;
        if at_temporary {
            fs::rename(&record.path, &record.temporary).expect("back to the temporary name");
        }
        put(&world, &CloneRecord { state, ..record.clone() });
        mounted.while_away(|| {
            let outcomes = recover(&world);
            assert!(matches!(&outcomes[..], [Outcome::Left(why)] if why.contains("is it mounted?")), "{outcomes:?}");
        });
        assert_eq!(recover(&world), [Outcome::Cleaned]);
        assert!(!record.temporary.exists() && !record.path.exists());
        world.assert_nothing_left();
    }
}

/// Where [`maker`] makes clones, if it is told to.
const MAKER_FOLDER: &str = "DROVER_TEST_MAKER_FOLDER";

/// No test by itself: what [`a_maker_killed_at_any_moment_leaves_whole_clones_or_nothing`] starts and kills.
#[test]
fn maker() {
    let Some(folder) = std::env::var_os(MAKER_FOLDER) else { return };
    let world = World::opened(Path::new(&folder));
    for number in 0.. {
        for driver in [DriverName::Qcow2, DriverName::Copy] {
            world.make(&format!("{driver}-{number}"), driver);
        }
    }
}

#[test]
fn a_maker_killed_at_any_moment_leaves_whole_clones_or_nothing() {
    let seed = getrandom::u64().expect("a seed");
    eprintln!("seed {seed}");
    let mut random = Rng::seeded(seed);
    let world = World::without_reflinks();
    for _ in 0..15 {
        // Each round begins without clones.
        let mut maker = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "handover::tests::crash::maker"])
            .env(MAKER_FOLDER, world.folder())
            .stdout(Stdio::null())
            .spawn()
            .expect("a maker");
        let records = || world.handover.list().expect("records").records;
        wait_until("the maker is at work", || !records().is_empty());
        std::thread::sleep(Duration::from_micros(u64::from(random.below(20_000))));
        maker.kill().expect("killed");
        maker.wait().expect("dead");

        for record in records() {
            wait_until_let_go(&world, &record);
        }
        let recovered = world.handover.recover().expect("recovery");
        assert!(recovered.len() <= 1, "one maker, one clone at a time: {recovered:?}");
        let records = records();
        assert!(records.iter().all(|record| record.state == CloneState::Ready), "{records:?}");
        assert_eq!(world.leftovers().len(), 2 * records.len(), "a file and a record each: {:?}", world.leftovers());
        for record in &records {
            let found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
            assert_eq!(found.worst(), None, "{found:?}");
            assert_same_disk(
                if record.driver == DriverName::Qcow2 { "qcow2" } else { "raw" },
                &record.path,
                &world.master.path,
            );
            world.handover.remove(&record.name).expect("removed");
        }
    }
}
