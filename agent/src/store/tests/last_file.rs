//! What becomes of VHDs, whose parents may share blocks with a master's file, when that is damaged, mended or removed.

use super::importing::import_as;
use super::*;
use crate::handover::{Choice, CloneRecord, CloneSpec, DriverName, Handover, Master};
use crate::store::import::ImportMode;
use crate::store::{MasterInfo, Pace};

/// A VHD on this master, in the test's own folder.
fn vhd(state: &TestState, master: &MasterInfo, name: &str) -> CloneRecord {
    let MasterInfo { image, path, content_len, content_hash, in_place, verified, .. } = master.clone();
    let master = Master { image, release: None, path, content_len, content_hash, in_place, verified };
    let spec = CloneSpec::new(name.parse().unwrap(), state.file(&format!("{name}.vhd")));
    let spec = CloneSpec { driver: Choice::Named(DriverName::Vhd), ..spec };
    Handover::new(&state.path()).create(&master, &spec).unwrap().record
}

/// The word for a clone that no guest is given, and nothing for one that is ready.
fn lost(state: &TestState, record: &CloneRecord) -> Option<&'static str> {
    let lost = Handover::new(&state.path()).lost(std::slice::from_ref(record));
    lost.get(&record.name).map(|lost| lost.word())
}

fn verify(store: &Store, master: &MasterInfo) {
    assert!(!store.verify(master.image, Pace::Full, &|_, _| {}, &false.into()).unwrap().is_good());
}

fn sealed(store: &Store, content: &[u8]) -> MasterInfo {
    let manifest = manifest_of(content);
    begin_whole(store, &manifest, content);
    store.seal(manifest.image_id()).unwrap()
}

#[test]
fn a_vhd_of_a_damaged_master_stays_doubted_when_that_is_mended_and_removed() {
    let state = TestState::new();
    let store = state.open();
    let content = content(20, 1 << 20);
    let master = sealed(&store, &content);
    let old = vhd(&state, &master, "old");
    assert_eq!(lost(&state, &old), None);
    damage(&master.path, 70_000);
    verify(&store, &master);
    assert_eq!(lost(&state, &old), Some("doubted"), "it may share the block");

    let mended = sealed(&store, &content);
    assert_eq!(lost(&state, &old), Some("doubted"), "it may share the block of the old file");
    let new = vhd(&state, &mended, "new");
    assert_ne!(new.base, old.base);
    store.remove(master.image).unwrap();
    assert_eq!((lost(&state, &old), lost(&state, &new)), (Some("doubted"), None));
    assert!(Handover::new(&state.path()).hash_base(&old.name).unwrap().is_right);
    assert_eq!(lost(&state, &old), None);
}

#[test]
fn a_vhd_stays_doubted_when_its_damaged_master_is_removed_and_is_ready_when_a_good_one_is() {
    let state = TestState::new();
    let store = state.open();
    for (seed, is_damaged) in [(21, true), (22, false)] {
        let master = sealed(&store, &content(seed, 1 << 20));
        let record = vhd(&state, &master, &format!("c{seed}"));
        if is_damaged {
            damage(&master.path, 70_000);
            verify(&store, &master);
        }
        store.remove(master.image).unwrap();
        assert_eq!(lost(&state, &record), is_damaged.then_some("doubted"));
        // No clone outlives the next one of that image.
        Handover::new(&state.path()).remove(&record.name).unwrap();
        sealed(&store, &content(seed, 1 << 20));
        store.remove(master.image).unwrap();
    }
    assert_eq!(fs::read_dir(state.path().join("masters")).unwrap().count(), 0, "nothing is noted for nobody");
}

#[test]
fn a_vhd_of_a_master_in_place_is_doubted_once_that_is_damaged_and_when_it_was_mended() {
    let state = TestState::new();
    let store = state.open();
    let (content, path) = (content(23, 1 << 20), state.file("disk.img"));
    fs::write(&path, &content).unwrap();
    let master = import_as(&store, &path, ImportMode::InPlace).unwrap().master;
    let old = vhd(&state, &master, "old");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    damage(&path, 70_000);
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(lost(&state, &old), None);
    verify(&store, &master);
    assert_eq!(lost(&state, &old), Some("doubted"), "it may share the block");

    let mended = sealed(&store, &content);
    assert!(!mended.in_place && path.exists());
    assert_eq!(lost(&state, &old), Some("doubted"), "it may share the block of the file in place");
    assert_ne!(vhd(&state, &mended, "new").base, old.base);
}

#[test]
fn what_its_owner_writes_to_a_master_in_place_is_nothing_to_its_vhds() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    fs::write(&path, content(24, 1 << 20)).unwrap();
    let master = import_as(&store, &path, ImportMode::InPlace).unwrap().master;
    let record = vhd(&state, &master, "c");
    damage(&path, 70_000);
    File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(store.verify(master.image, Pace::Full, &|_, _| {}, &false.into()).is_err(), "it is withdrawn");
    assert_eq!(lost(&state, &record), None);
}
