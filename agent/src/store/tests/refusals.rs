//! What the store refuses, and that it says why and leaves nothing behind.

use std::process::Command;

use super::importing::import_as;
use super::*;
use crate::handover::{Choice, CloneSpec, DriverName, Handover, Master, Severity};
use crate::store::import::{ImportError, ImportMode, ImportSource, import};
use crate::store::{BeginError, Holder, MasterInfo, Pace, RemoveError, StoreError, Trouble, VerifyError};

/// A small filesystem of its own, where this process may mount one.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("drover-small-").tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(SmallDisk { folder });
        }
        eprintln!("no small filesystem can be mounted here (not root?): not tested");
        None
    }

    fn open(&self) -> Store {
        Store::open_with(&self.folder.path().join("state"), Settings { immutable: false }).unwrap()
    }

    fn is_clean(&self) -> bool {
        ["incoming", "masters"].iter().all(|name| {
            let folder = self.folder.path().join("state").join(name);
            fs::read_dir(folder).unwrap().count() == 0
        })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[test]
fn a_disk_that_is_too_small_is_found_out_before_the_first_byte() {
    let Some(disk) = SmallDisk::mount("16m") else { return };
    let store = disk.open();
    let large = manifest_of(&content(1, 20 << 20));
    let error = store.begin(large).unwrap_err();
    assert!(matches!(error, BeginError::TooSmall { needed, available, .. } if needed > available), "{error}");
    assert!(error.to_string().contains("bytes free"), "{error}");
    assert!(disk.is_clean());

    let small = content(2, 3 << 20);
    let manifest = manifest_of(&small);
    let image = store.begin(manifest.clone()).unwrap();
    // Others fill the rest of the disk: the room for this master is reserved.
    let filler = fs::write(disk.folder.path().join("filler"), vec![1; 16 << 20]);
    assert_eq!(filler.unwrap_err().kind(), io::ErrorKind::StorageFull);
    for chunk in manifest.data_chunks().iter() {
        store_chunk(&image, &small, chunk).unwrap();
    }
    fs::remove_file(disk.folder.path().join("filler")).unwrap();
    let master = store.seal(manifest.image_id()).unwrap();
    assert!(fs::read(master.path).unwrap() == small);
}

#[test]
fn a_file_that_does_not_fit_is_not_imported() {
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let state = TestState::new();
    let path = state.file("disk.img");
    let store = disk.open();
    fs::write(&path, content(1, 40 << 20)).unwrap();
    let error = import_as(&store, &path, ImportMode::Auto).unwrap_err();
    assert!(matches!(error, ImportError::Room(BeginError::TooSmall { .. })), "{error}");
    assert!(disk.is_clean());

    fs::write(&path, content(1, 12 << 20)).unwrap();
    let once = std::cell::Cell::new(true);
    let source = ImportSource { mode: ImportMode::Copy, ..ImportSource::new(&path) };
    let result = import(&store, &source, &|_| {
        if once.replace(false) {
            fs::write(disk.folder.path().join("filler"), vec![1; 24 << 20]).unwrap_err();
        }
    });
    match result {
        Err(ImportError::Disk(error)) => assert_eq!(error.trouble(), Trouble::Full),
        // The copy may have been written before the other file was.
        Ok(_) => return,
        Err(other) => panic!("{other}"),
    }
    assert!(disk.is_clean(), "nothing is left behind");
}

#[test]
fn a_state_folder_that_another_daemon_uses_is_refused_with_its_process_id() {
    let state = TestState::new();
    let store = state.open();
    let error = Store::open(&state.path()).unwrap_err();
    let StoreError::InUse { state: named, holder } = &error else { panic!("{error}") };
    assert_eq!((named, *holder), (&state.path(), Holder(Some(std::process::id()))));
    assert!(error.to_string().contains("give this one another --state"), "{error}");
    drop(store);
    state.open();
}

#[test]
fn a_master_with_clones_is_not_removed_and_they_are_named() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    fs::write(&path, content(1, 1 << 20)).unwrap();
    let MasterInfo { image, path, content_len, content_hash, in_place, verified, .. } =
        import_as(&store, &path, ImportMode::Auto).unwrap().master;
    let master = Master { image, release: None, path, content_len, content_hash, in_place, verified };
    let handover = Handover::new(&state.path());
    for name in ["web2", "web1"] {
        let (name, out) = (name.parse().unwrap(), state.file(name));
        let driver = Choice::Named(DriverName::Qcow2);
        handover.create(&master, &CloneSpec { driver, ..CloneSpec::new(name, out) }).unwrap();
    }
    let error = store.remove(image).unwrap_err();
    assert!(error.to_string().contains("web1, web2"), "{error}");
    assert_eq!(store.master_uses().unwrap()[0].clones, ["web1", "web2"]);
    assert!(!store.master_uses().unwrap()[0].is_garbage());

    handover.remove(&"web1".parse().unwrap()).unwrap();
    fs::write(state.path().join("clones/web2.json"), b"{").unwrap();
    let error = store.remove(image).unwrap_err();
    assert!(matches!(error, RemoveError::Records(_)), "a record that says nothing may name any master: {error}");
    fs::remove_file(state.path().join("clones/web2.json")).unwrap();
    let spec = CloneSpec::new("whole".parse().unwrap(), state.file("whole"));
    handover.create(&master, &CloneSpec { driver: Choice::Named(DriverName::Copy), ..spec }).unwrap();
    assert!(store.master_uses().unwrap()[0].is_garbage(), "a copy needs no master");
    store.remove(image).unwrap();
    let found = handover.verify(&"whole".parse().unwrap(), None).unwrap();
    assert_eq!(found.worst(), Some(Severity::Note), "{found:?}");
    assert!(store.masters().is_empty() && store.image(image).is_none());
    assert!(matches!(store.remove(image), Err(RemoveError::Unknown(_))));
}

#[test]
fn an_incoming_master_can_be_removed_while_it_is_written() {
    let state = TestState::new();
    let store = state.open();
    let content = content(1, 300_000);
    let manifest = manifest_of(&content);
    let image = store.begin(manifest.clone()).unwrap();
    let chunk = manifest.data_chunks().iter().next().unwrap();
    store_chunk(&image, &content, chunk).unwrap();
    store.remove(manifest.image_id()).unwrap();
    assert!(store_chunk(&image, &content, chunk).unwrap_err().to_string().contains("was removed"));
    assert_eq!(image.checkpoint().unwrap(), 0);
    assert!(store.incoming().is_empty());
}

#[test]
fn a_folder_that_can_not_be_read_is_reported_and_the_others_are_used() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    let images = [1, 2].map(|seed| {
        fs::write(&path, content(seed, 300_000)).unwrap();
        import_as(&store, &path, ImportMode::Auto).unwrap().image
    });
    let half = manifest_of(&content(3, 300_000));
    store.begin(half.clone()).unwrap();
    drop(store);
    damage(&state.path().join("masters").join(images[0].to_string()).join("manifest"), 20);
    let disk = state.path().join("incoming").join(half.image_id().to_string()).join("disk.raw");
    File::options().write(true).open(disk).unwrap().set_len(1000).unwrap();
    let store = state.open();
    assert_eq!(store.masters().iter().map(|master| master.image).collect::<Vec<_>>(), [images[1]]);
    assert!(store.incoming().is_empty());
    let told = store.unreadable().join("\n");
    assert!(told.contains(&images[0].to_string()) && told.contains("1000 bytes instead of 300000"), "{told}");
}

#[test]
fn a_master_whose_file_was_removed_is_still_known_after_a_restart_and_comes_in_anew() {
    let state = TestState::new();
    let content = content(4, 300_000);
    let manifest = manifest_of(&content);
    let id = manifest.image_id();
    let path = {
        let store = state.open();
        begin_whole(&store, &manifest, &content);
        store.seal(id).unwrap().path
    };
    unseal(&path);
    fs::remove_file(&path).unwrap();
    let store = state.open();
    assert!(store.unreadable().is_empty(), "{:?}", store.unreadable());
    assert!(store.master(id).expect("it is known").is_gone());
    let verified = store.verify(id, Pace::Full, &|_, _| {}, &false.into());
    assert!(matches!(verified, Err(VerifyError::Disk(_))), "{verified:?}");
    begin_whole(&store, &manifest, &content);
    store.seal(id).unwrap();
    assert!(!store.master(id).expect("it is here").is_gone());
    assert!(fs::read(&path).unwrap() == content);
}
