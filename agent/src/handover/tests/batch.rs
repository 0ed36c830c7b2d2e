//! Many clones at once: all of them or none.

use std::fs;

use super::world::{Machine, Mounted, World, assert_same_disk, disk_usage, name, write_into};
use crate::handover::{
    Choice, CloneRecord, CloneSpec, CloneState, ClonesLock, CreateError, DeviceError, DriverName, Outcome, TargetError,
};

fn specs(world: &World, driver: DriverName, count: usize) -> Vec<CloneSpec> {
    (1..=count).map(|number| world.spec(&format!("vm-{number}"), driver)).collect()
}

#[test]
fn a_hundred_clones_are_made_and_take_little_disk() {
    let world = World::new();
    let created = world.handover.create_all(&world.master, &specs(&world, DriverName::Qcow2, 100)).expect("clones");
    assert_eq!(created.len(), 100);
    for made in [&created[0], &created[1], &created[99]] {
        let used = disk_usage(&made.record.path);
        assert!(used <= 200 << 10, "{} takes {used} bytes", made.record.name);
        assert_same_disk("qcow2", &made.record.path, &world.master.path);
        let found = world.handover.verify(&made.record.name, Some(&world.master)).expect("a clone");
        assert_eq!(found.worst(), None, "{found:?}");
    }
    assert_eq!(world.leftovers().len(), 200, "a file and a record each, and nothing else");
    for made in &created {
        world.handover.remove(&made.record.name).expect("removed");
    }
    world.assert_nothing_left();
}

#[test]
fn clones_made_together_are_independent() {
    let world = World::new();
    let created = world.handover.create_all(&world.master, &specs(&world, DriverName::Qcow2, 2)).expect("clones");
    let paths: Vec<_> = created.iter().map(|made| made.record.path.clone()).collect();
    let text = |index: usize| paths[index].to_str().expect("text");
    super::world::run("qemu-io", &["-f", "qcow2", "-c", "write -P 0xab 4096 8192", text(0)]);
    super::world::run("qemu-io", &["-f", "qcow2", "-c", "read -P 0xab 4096 8192", text(0)]);
    assert_same_disk("qcow2", &paths[1], &world.master.path);
}

#[test]
fn one_bad_clone_among_many_and_none_is_made() {
    let world = World::new();
    let mut all = specs(&world, DriverName::Copy, 5);
    fs::write(&all[3].out, "mine").expect("a file");
    let error = world.handover.create_all(&world.master, &all).expect_err("a path is taken");
    assert!(matches!(error, CreateError::Target(TargetError::Exists(_))), "{error}");
    world.assert_only_left(&all[3].out);

    fs::remove_file(&all[3].out).expect("gone");
    world.make("vm-5", DriverName::Copy);
    all[4].out = world.out.join("other.img");
    let error = world.handover.create_all(&world.master, &all).expect_err("a name is taken");
    assert!(matches!(error, CreateError::NameTaken { .. }), "{error}");
    assert_eq!(world.leftovers().len(), 2);

    let twice = vec![world.spec("a", DriverName::Copy), world.spec("a", DriverName::Copy)];
    let error = world.handover.create_all(&world.master, &twice).expect_err("twice");
    assert!(matches!(error, CreateError::Twice { .. }), "{error}");
}

#[test]
fn a_batch_of_which_one_has_its_name_and_another_cant_have_it_goes_with_all() {
    let world = World::new();
    let created = world.handover.create_all(&world.master, &specs(&world, DriverName::Copy, 3)).expect("clones");
    let records: Vec<_> = created.into_iter().map(|made| made.record).collect();
    // As after a crash: the first has its name, the third and the second do not, and something else has the second's.
    for record in &records[1..] {
        fs::rename(&record.path, &record.temporary).expect("back to the temporary name");
    }
    fs::write(&records[1].path, "mine").expect("a file");
    let lock = ClonesLock::acquire(&world.state).expect("the lock");
    lock.commit(records[0].batch.expect("a batch")).expect("said to be whole");
    drop(lock);
    // Not while a machine has started from the one that has its name.
    let machine = Machine::start("raw", &records[0].path);
    let left = world.handover.recover().expect("records");
    assert!(left.iter().all(|one| matches!(&one.outcome, Outcome::Left(why) if why.contains("in use"))), "{left:?}");
    assert!(records[0].path.exists() && records[2].temporary.exists());
    drop(machine);
    // Whoever asks for one of them settles all.
    let refused = world.handover.activate(&records[0].name).expect_err("nothing of it is left");
    assert!(matches!(refused, DeviceError::Cleaned(_)), "{refused}");
    world.assert_only_left(&records[1].path);
    assert_eq!(fs::read(&records[1].path).expect("a file"), b"mine");
}

#[test]
fn a_disk_that_fills_up_half_way_keeps_none() {
    let world = World::new();
    // Room for some of sixty, each of which takes little.
    let Some(full) = Mounted::memory("size=320k") else { return };
    let all: Vec<CloneSpec> = (0..60)
        .map(|number| CloneSpec {
            driver: Choice::Named(DriverName::Qcow2),
            ..CloneSpec::new(name(&format!("vm-{number}")), full.root.join(format!("vm-{number}")))
        })
        .collect();
    let error = world.handover.create_all(&world.master, &all).expect_err("no room");
    assert!(error.to_string().contains("no space left"), "{error}");
    assert_eq!(fs::read_dir(&full.root).expect("a folder").count(), 0);
    world.assert_nothing_left();
}

#[test]
fn a_batch_with_a_clone_that_somebody_wrote_to_waits_until_the_names_are_free() {
    let world = World::new();
    for driver in [DriverName::Copy, DriverName::Qcow2, DriverName::Vhd] {
        let created = world.handover.create_all(&world.master, &specs(&world, driver, 3)).expect("clones");
        let records: Vec<_> = created.into_iter().map(|made| made.record).collect();
        // As after a crash: the first had its name, and a guest started from it.
        for record in &records[1..] {
            fs::rename(&record.path, &record.temporary).expect("back to the temporary name");
        }
        fs::write(&records[2].path, "mine").expect("a file");
        let lock = ClonesLock::acquire(&world.state).expect("the lock");
        lock.commit(records[0].batch.expect("a batch")).expect("said to be whole");
        drop(lock);
        write_into(&records[0].path, 300_000, b"a guest's");
        let before = fs::read(&records[0].path).expect("the first");

        let told = |one: &crate::handover::Recovered| matches!(&one.outcome, Outcome::Left(why) if why.contains("what was written to vm-1") && why.contains("vm-3.img"));
        let left = world.handover.recover().expect("records");
        assert!(left.len() == 3 && left.iter().all(told), "{left:?}");
        assert!(fs::read(&records[0].path).expect("it stays") == before, "{driver}");
        assert_eq!(fs::read(&records[2].path).expect("it stays"), b"mine");

        fs::remove_file(&records[2].path).expect("out of the way");
        let completed = world.handover.recover().expect("records");
        assert!(completed.iter().all(|one| one.outcome == Outcome::Completed), "{completed:?}");
        for record in &records {
            world.handover.get_finished(&record.name).expect("it is whole");
            world.handover.remove(&record.name).expect("removed");
        }
        world.assert_nothing_left();
    }
}

#[test]
fn clones_of_a_batch_that_waits_are_all_told_unfinished_and_no_look_removes_any() {
    let world = World::new();
    let created = world.handover.create_all(&world.master, &specs(&world, DriverName::Copy, 3)).expect("clones");
    let records: Vec<_> = created.into_iter().map(|made| made.record).collect();
    // As after a crash: two had their names, and something else has the third's.
    fs::rename(&records[2].path, &records[2].temporary).expect("back to the temporary name");
    fs::write(&records[2].path, "mine").expect("a file");
    let lock = ClonesLock::acquire(&world.state).expect("the lock");
    lock.commit(records[0].batch.expect("a batch")).expect("said to be whole");
    drop(lock);
    let assert_unfinished = |record: &CloneRecord| {
        let found = world.handover.as_found(vec![record.clone()]);
        assert_eq!(found[0].state, CloneState::Making, "{}", record.name);
        let refused = world.handover.get_finished(&record.name);
        assert!(matches!(refused, Err(DeviceError::Unfinished(_))), "{refused:?}");
        let found = world.handover.verify(&record.name, Some(&world.master)).expect("a clone");
        assert!(found.findings[0].text.contains("not finished"), "{found:?}");
    };
    records.iter().for_each(assert_unfinished);
    assert!(world.handover.as_found(records.clone()).iter().all(|record| record.state == CloneState::Making));

    world.handover.remove(&records[0].name).expect("removed");
    records[1..].iter().for_each(assert_unfinished);
    assert!(records[1].path.exists() && records[2].temporary.exists(), "looking removes nothing");

    fs::remove_file(&records[2].path).expect("out of the way");
    world.handover.recover().expect("records");
    for record in &records[1..] {
        world.handover.get_finished(&record.name).expect("it is whole");
        assert_eq!(world.handover.as_found(vec![record.clone()])[0].state, CloneState::Ready);
    }
}
