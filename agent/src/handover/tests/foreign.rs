//! What a user who owns the state folder, and is against us, gets root to do: nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::world::*;
use crate::handover::record::clones_of;
use crate::handover::{
    Activity, CloneState, ClonesLock, DeviceError, DriverName, HashError, LookupError, Outcome, RecordError,
    RemoveError,
};

const DAEMON: u32 = 4711;

/// A world whose state folder is the daemon's user's; `None` if nobody here can give files away.
fn world_of_the_daemons() -> Option<World> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: this test proves nothing");
        return None;
    }
    let world = World::new();
    chown(&world.state, Some(DAEMON), Some(DAEMON)).expect("root may");
    Some(world)
}

/// A file that is root's, outside of everything that Drover has to do with.
fn precious(world: &World) -> PathBuf {
    let path = world.folder().join("precious");
    fs::write(&path, "not to be touched").expect("written");
    path
}

/// Writes a record that looks like that of `like`, with other words, as the daemon's user.
fn forge(world: &World, like: &str, clone: &str, changes: &[(&str, &str)]) {
    let clones = world.state.join("clones");
    let mut text = fs::read_to_string(clones.join(format!("{like}.json"))).expect("a record");
    text = text.replace(&format!("\"name\": \"{like}\""), &format!("\"name\": \"{clone}\""));
    for (from, to) in changes {
        assert!(text.contains(from), "{text} has no {from}");
        text = text.replace(from, to);
    }
    let path = clones.join(format!("{clone}.json"));
    // Over a record that is there already, as the owner of a folder may.
    let _ = fs::remove_file(&path);
    fs::write(&path, text).expect("written");
    chown(&path, Some(DAEMON), Some(DAEMON)).expect("root may");
}

fn assert_untouched(path: &Path) {
    let facts = path.symlink_metadata().expect("it is there");
    assert!(facts.is_file() && facts.uid() == 0, "{facts:?}");
    assert_eq!(fs::read_to_string(path).expect("it can be read"), "not to be touched");
}

#[test]
fn a_record_that_another_user_wrote_makes_root_remove_rename_and_map_nothing() {
    let Some(world) = world_of_the_daemons() else { return };
    let record = world.make("mine", DriverName::Copy).record;
    let (mine, temporary) = (text(&record.path).to_owned(), text(&record.temporary).to_owned());
    let precious = precious(&world);
    let target = text(&precious);
    let loot = world.folder().join("loot");
    forge(&world, "mine", "path", &[(&mine, target)]);
    forge(&world, "mine", "removing", &[(&mine, target), ("\"ready\"", "\"removing\"")]);
    forge(&world, "mine", "temporary", &[(&temporary, target), ("\"ready\"", "\"making\"")]);
    forge(&world, "mine", "rename", &[(&temporary, target), (&mine, text(&loot))]);
    forge(&world, "mine", "base", &[("\"needs_master\"", &format!("\"base\": \"{target}\", \"needs_master\""))]);
    forge(&world, "mine", "device", &[("\"copy\"", "\"dm\""), (&mine, target)]);
    let names = ["path", "removing", "temporary", "rename", "base", "device"];

    let recovered = world.handover.recover().expect("records");
    let left: Vec<_> = recovered.iter().map(|one| (one.name.as_str(), one.outcome == Outcome::Foreign)).collect();
    assert_eq!(left, [("removing", true), ("rename", true), ("temporary", true)], "they are named and left alone");
    assert!(!loot.exists());
    for clone in names {
        let refused = world.handover.remove(&name(clone)).expect_err(clone);
        let RemoveError::Record(RecordError::Foreign { author, .. }) = &refused else { panic!("{clone}: {refused}") };
        assert_eq!(*author, DAEMON);
        assert!(refused.to_string().contains(&format!("drover clone adopt {clone}")), "{refused}");
        let refused = world.handover.activate(&name(clone));
        assert!(matches!(refused, Err(DeviceError::Record(RecordError::Foreign { .. }))), "{clone}: {refused:?}");
        let refused = world.handover.create(&world.master, &world.spec(clone, DriverName::Copy));
        assert!(refused.is_err(), "{clone} is a name that is taken");
    }
    let activated = world.handover.activate_all().expect("records");
    let activated: Vec<_> = activated.iter().map(|one| (one.name.as_str(), one.was.as_ref().ok())).collect();
    assert_eq!(activated, [("mine", Some(&Activity::File))]);
    assert_untouched(&precious);
    assert_eq!(world.handover.list().expect("records").records.len(), 7, "all of them are shown");
    assert_eq!(clones_of(&world.state, world.master.image).expect("records").len(), 7, "all name their master");
    for clone in names {
        assert!(fs::exists(world.state.join(format!("clones/{clone}.json"))).expect("a look"), "{clone}");
    }
    world.handover.remove(&name("mine")).expect("its own record is acted on");
    assert_untouched(&precious);
}

#[test]
fn what_a_record_that_another_user_wrote_rests_on_is_not_read_and_not_marked() {
    let Some(world) = world_of_the_daemons() else { return };
    let record = world.make("mine", DriverName::Vhd).record;
    let (base, precious) = (record.base.expect("a parent"), precious(&world));
    let time = fs::metadata(&precious).and_then(|facts| facts.modified()).expect("its time");
    forge(&world, "mine", "theirs", &[(text(&base), text(&precious))]);
    let refused = world.handover.hash_base(&name("theirs")).expect_err("it is another user's");
    assert!(matches!(refused, HashError::Clone(LookupError::Record(RecordError::Foreign { .. }))), "{refused}");
    assert!(refused.to_string().contains("drover clone adopt theirs"), "{refused}");
    assert_eq!(fs::metadata(&precious).and_then(|facts| facts.modified()).expect("its time"), time);
    assert!(world.handover.hash_base(&record.name).expect("it is read").is_right);
}

#[test]
fn a_record_that_root_has_looked_at_and_adopted_is_acted_on() {
    let Some(world) = world_of_the_daemons() else { return };
    let record = world.make("old", DriverName::Copy).record;
    chown(world.state.join("clones/old.json"), Some(DAEMON), Some(DAEMON)).expect("as it was before this rule");
    assert!(matches!(world.handover.remove(&record.name), Err(RemoveError::Record(RecordError::Foreign { .. }))));
    assert_eq!(world.handover.get_finished(&record.name).expect("it can be shown"), record);
    assert_eq!(world.handover.adopt(&record.name).expect("adopted"), record);
    assert_eq!(world.handover.remove(&record.name).expect("removed").record.state, CloneState::Ready);
    world.assert_nothing_left();
}

#[test]
fn links_in_the_folder_of_records_lead_nowhere() {
    let Some(world) = world_of_the_daemons() else { return };
    world.make("mine", DriverName::Copy);
    let (precious, clones) = (precious(&world), world.state.join("clones"));

    // The lock is made, or given away, in no file that a link leads to.
    fs::remove_file(clones.join(".lock")).expect("removed");
    symlink(&precious, clones.join(".lock")).expect("a link");
    ClonesLock::acquire(&world.state).expect_err("the lock is a link");
    assert_untouched(&precious);
    fs::remove_file(clones.join(".lock")).expect("removed");

    // What a record is written to first is a file of its own.
    symlink(&precious, clones.join(".next.json.tmp")).expect("a link");
    world.make("next", DriverName::Copy);
    assert_untouched(&precious);

    // A record of root's elsewhere is none of this folder.
    let elsewhere = world.folder().join("elsewhere.json");
    fs::copy(clones.join("next.json"), &elsewhere).expect("a copy");
    fs::remove_file(clones.join("next.json")).expect("removed");
    symlink(&elsewhere, clones.join("next.json")).expect("a link");
    assert!(matches!(world.handover.remove(&name("next")), Err(RemoveError::Record(RecordError::Io { .. }))));
    assert!(world.out.join("next.img").exists());

    // Nor is a folder that a link leads to.
    fs::rename(&clones, world.folder().join("moved")).expect("moved");
    let victim = world.folder().join("victim");
    fs::create_dir(&victim).expect("a folder");
    symlink(&victim, &clones).expect("a link");
    let refused = world.handover.create(&world.master, &world.spec("other", DriverName::Copy));
    assert!(refused.is_err(), "the folder is a link");
    assert_eq!(fs::read_dir(&victim).expect("the folder").count(), 0);
}
