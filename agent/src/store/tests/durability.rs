//! What survives.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::store::Pace;
use crate::store::fault::with_hook;
use crate::store::{SealError, SealLevel, Trouble, VerifyReport, WriteError};

#[test]
fn a_master_comes_in_chunk_by_chunk_and_is_sealed() {
    let state = TestState::new();
    let content = content(1, 1_000_001);
    let manifest = manifest_of(&content);
    let id = manifest.image_id();
    let store = state.open();
    let image = store.begin(manifest.clone()).unwrap();
    for chunk in manifest.data_chunks().iter() {
        assert!(!image.is_complete());
        store_chunk(&image, &content, chunk).unwrap();
    }
    assert!(image.is_complete());
    let master = store.seal(id).unwrap();
    assert_eq!(fs::read(&master.path).unwrap(), content);
    assert_eq!(store.seal(id).unwrap(), master, "sealing again changes nothing");
    assert!(store.incoming().is_empty());

    drop((store, image));
    let store = state.open();
    assert_eq!(store.masters(), [master]);
    assert_eq!(store.image(id).unwrap().held(), manifest.data_chunks());
}

#[test]
fn a_failed_sync_loses_every_chunk_that_was_not_claimed() {
    let state = TestState::new();
    let content = content(2, 1 << 20);
    let manifest = manifest_of(&content);
    let store = state.open();
    let image = store.begin(manifest.clone()).unwrap();
    let chunks: Vec<_> = manifest.data_chunks().iter().collect();
    let (kept, lost) = chunks.split_at(4);
    for &chunk in kept {
        store_chunk(&image, &content, chunk).unwrap();
    }
    assert_eq!(image.checkpoint().unwrap(), 4);
    for &chunk in lost {
        store_chunk(&image, &content, chunk).unwrap();
    }
    let error = with_hook(failing(Step::SyncData, io::ErrorKind::Other), || image.checkpoint().unwrap_err());
    assert_eq!((error.kind(), error.lost()), (Trouble::Io, lost));
    assert_eq!(image.held().iter().collect::<Vec<_>>(), kept);
    assert_eq!(image.checkpoint().unwrap(), 0, "a later sync makes nothing of it true");

    for &chunk in lost {
        store_chunk(&image, &content, chunk).unwrap();
    }
    assert_eq!(image.checkpoint().unwrap() as usize, lost.len());
    store.seal(manifest.image_id()).unwrap();
}

#[test]
fn a_read_that_fails_gives_the_chunk_up_for_good() {
    let state = TestState::new();
    let content = content(3, 1 << 20);
    let manifest = manifest_of(&content);
    let store = state.open();
    let image = store.begin(manifest.clone()).unwrap();
    let chunks: Vec<_> = manifest.data_chunks().iter().collect();
    for &chunk in &chunks {
        store_chunk(&image, &content, chunk).unwrap();
    }
    image.checkpoint().unwrap();
    let mut buffer = vec![0; CHUNK_LEN as usize];
    let error =
        with_hook(failing(Step::ReadChunk, io::ErrorKind::Other), || image.read(chunks[2], &mut buffer).unwrap_err());
    assert!(error.to_string().contains("disk.raw"), "{error}");
    assert!(!image.holds(chunks[2]) && image.needs_checkpoint());
    image.checkpoint().unwrap();
    drop((store, image));

    let store = state.open();
    let image = store.image(manifest.image_id()).unwrap();
    assert!(!image.holds(chunks[2]), "also after a restart");
    assert!(matches!(store.seal(manifest.image_id()), Err(SealError::Incomplete { missing: 1, .. })));
    store_chunk(&image, &content, chunks[2]).unwrap();
    let master = store.seal(manifest.image_id()).unwrap();
    assert_eq!(fs::read(master.path).unwrap(), content);
}

#[test]
fn a_full_or_read_only_disk_is_told_apart_and_nothing_is_lost() {
    let state = TestState::new();
    let content = content(4, 1 << 20);
    let manifest = manifest_of(&content);
    let store = state.open();
    let image = store.begin(manifest.clone()).unwrap();
    let chunks: Vec<_> = manifest.data_chunks().iter().collect();
    for (kind, trouble) in [
        (io::ErrorKind::StorageFull, Trouble::Full),
        (io::ErrorKind::QuotaExceeded, Trouble::Full),
        (io::ErrorKind::ReadOnlyFilesystem, Trouble::ReadOnly),
        (io::ErrorKind::PermissionDenied, Trouble::ReadOnly),
        (io::ErrorKind::Other, Trouble::Io),
    ] {
        let error =
            with_hook(failing(Step::WriteChunk, kind), || store_chunk(&image, &content, chunks[0]).unwrap_err());
        assert_eq!(error.kind(), trouble, "{error}");
        assert!(!image.holds(chunks[0]));
    }
    for &chunk in &chunks {
        store_chunk(&image, &content, chunk).unwrap();
    }
    let error = with_hook(failing(Step::AppendJournal, io::ErrorKind::StorageFull), || image.checkpoint().unwrap_err());
    assert_eq!((error.kind(), error.lost()), (Trouble::Full, &[][..]));
    assert_eq!(image.held(), manifest.data_chunks(), "what was fetched is kept");
    assert_eq!(image.checkpoint().unwrap() as usize, chunks.len(), "and noted down when there is room");
}

#[test]
fn chunks_are_written_while_a_checkpoint_runs() {
    let state = TestState::new();
    let content = content(6, 24 << 20);
    let manifest = manifest_of(&content);
    let store = state.open();
    let image = store.begin(manifest.clone()).unwrap();
    let chunks: Vec<_> = manifest.data_chunks().iter().collect();
    let writers = AtomicU32::new(3);
    std::thread::scope(|scope| {
        for first in 0..3 {
            let (image, content, chunks, writers) = (&image, &content, &chunks, &writers);
            scope.spawn(move || {
                // Each chunk is written by two of the three: as at the end of a transfer.
                for (at, &chunk) in chunks.iter().enumerate().filter(|(at, _)| at % 3 != first) {
                    store_chunk(image, content, chunk).unwrap();
                    assert!(image.holds(chunk), "chunk number {at}");
                }
                writers.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while writers.load(Ordering::SeqCst) > 0 {
            image.checkpoint().unwrap();
        }
    });
    image.checkpoint().unwrap();
    drop((store, image));
    let store = state.open();
    let master = store.master(manifest.image_id()).expect("what is complete is sealed at the next start");
    assert!(fs::read(master.path).unwrap() == content);
}

#[test]
fn zeros_cost_no_disk() {
    let state = TestState::new();
    let mut content = vec![0; 48 << 20];
    content[(20 << 20)..(23 << 20)].copy_from_slice(&super::content(7, 3 << 20));
    let manifest = manifest_of(&content);
    let store = state.open();
    let image = store.begin(manifest.clone()).unwrap();
    let blocks_len = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    let reserved = blocks_len(&image.path());
    for chunk in manifest.data_chunks().iter() {
        store_chunk(&image, &content, chunk).unwrap();
    }
    let master = store.seal(manifest.image_id()).unwrap();
    let taken = blocks_len(&master.path);
    assert!(taken <= manifest.data_len() * 102 / 100 + 65_536, "{taken} bytes for {}", manifest.data_len());
    assert!(reserved == 0 || reserved >= manifest.data_len(), "room is reserved before the first byte, if it can be");
    assert!(fs::read(&master.path).unwrap() == content);
}

#[test]
fn a_sealed_master_can_not_be_written_and_can_be_removed() {
    let state = TestState::new();
    let content = content(8, 200_000);
    let manifest = manifest_of(&content);
    let store = Store::open(&state.path()).unwrap();
    let image = begin_whole(&store, &manifest, &content);
    let master = store.seal(manifest.image_id()).unwrap();
    assert_eq!(fs::metadata(&master.path).unwrap().permissions().mode() & 0o7777, 0o444);
    if master.sealing == SealLevel::Immutable {
        assert!(File::options().write(true).open(&master.path).is_err(), "not even by root");
        assert!(fs::hard_link(&master.path, state.file("link")).is_err());
        assert!(fs::remove_file(&master.path).is_err());
    } else {
        eprintln!("masters can't be made immutable here: that part is not tested");
    }
    let chunk = manifest.data_chunks().iter().next().unwrap();
    store_chunk(&image, &content, chunk).expect("a late duplicate is nothing new, and no error");
    drop((store, image));
    let store = Store::open(&state.path()).unwrap();
    assert_eq!(store.masters(), std::slice::from_ref(&master));
    let image = store.image(manifest.image_id()).unwrap();
    store.remove(manifest.image_id()).unwrap();
    assert!(!master.path.exists() && store.masters().is_empty());
    assert_eq!(fs::read_dir(state.path().join("masters")).unwrap().count(), 0);
    assert!(image.held().is_empty());
}

#[test]
fn a_damaged_chunk_is_found_and_not_held_any_more() {
    let state = TestState::new();
    let content = content(9, 1_000_000);
    let manifest = manifest_of(&content);
    let id = manifest.image_id();
    let store = state.open();
    let image = begin_whole(&store, &manifest, &content);
    let path = store.seal(id).unwrap().path;
    let verify = |store: &Store| store.verify(id, Pace::Full, &|_, _| {}, &false.into()).unwrap();
    assert!(verify(&store).is_good());

    damage(&path, 5 * u64::from(CHUNK_LEN) + 17);
    damage(&path, 3 * u64::from(CHUNK_LEN));
    let bad = [3, 5].map(|number| manifest.geometry().chunk(number).unwrap());
    assert_eq!(verify(&store), VerifyReport { bad: bad.to_vec(), content_ok: Some(false) });
    assert!(!image.holds(bad[0]) && !image.is_complete());
    drop((store, image));
    let store = state.open();
    assert_eq!(store.master(id).unwrap().damaged_chunks, 2, "also after a restart");
    assert!(!store.image(id).unwrap().holds(bad[0]));

    damage(&path, 5 * u64::from(CHUNK_LEN) + 17);
    damage(&path, 3 * u64::from(CHUNK_LEN));
    assert!(verify(&store).is_good());
    assert!(store.image(id).unwrap().is_complete());
}

#[test]
fn a_file_that_is_not_the_one_that_was_compared_is_doubted_until_it_is_compared() {
    let state = TestState::new();
    let content = content(13, 1_000_000);
    let manifest = manifest_of(&content);
    let id = manifest.image_id();
    let store = state.open();
    let image = begin_whole(&store, &manifest, &content);
    let path = store.seal(id).unwrap().path;
    let doubt = |store: &Store| store.master(id).unwrap().doubt();
    let verify = |store: &Store| store.verify(id, Pace::Full, &|_, _| {}, &false.into()).unwrap();
    assert_eq!(doubt(&store), None);

    // Written to, and then as it was.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
    let touch = || File::open(&path).unwrap().set_modified(later).unwrap();
    damage(&path, 17);
    touch();
    assert!(doubt(&store).unwrap().contains("it was written to"));
    assert_eq!(verify(&store).bad.len(), 1);
    assert!(doubt(&store).is_some(), "what is damaged is not noted");
    damage(&path, 17);
    touch();
    assert!(verify(&store).is_good());
    assert_eq!(doubt(&store), None);

    // Another file in its place, while the old one is served: compared is what clones would read.
    let restored = state.file("restored");
    for (bad, first) in [(1, content[0] ^ 1), (0, content[0])] {
        fs::copy(&path, &restored).unwrap();
        fs::set_permissions(&restored, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        File::options().write(true).open(&restored).unwrap().write_all_at(&[first], 0).unwrap();
        fs::rename(&restored, &path).unwrap();
        assert!(doubt(&store).is_some());
        assert_eq!(verify(&store).bad.len(), bad);
    }
    let first = manifest.geometry().chunk(0).unwrap();
    let mut served = vec![0; CHUNK_LEN as usize];
    image.read(first, &mut served).unwrap();
    assert!(served == content[..CHUNK_LEN as usize]);
    drop((store, image));
    assert_eq!(doubt_after_restart(&state, id), None);

    // As an earlier version left it.
    fs::remove_file(path.with_file_name("verified.json")).unwrap();
    assert!(doubt_after_restart(&state, id).unwrap().contains("earlier version"));
    assert!(verify(&state.open()).is_good());
    assert_eq!(doubt_after_restart(&state, id), None);
}

/// Why a master is doubted by a daemon that is started now; none may use the folder.
fn doubt_after_restart(state: &TestState, id: drover_protocol::id::ImageId) -> Option<String> {
    state.open().master(id).unwrap().doubt()
}

#[test]
fn a_master_that_was_cut_or_lengthened_is_damaged_also_where_zeros_were_cut() {
    let state = TestState::new();
    let mut content = content(11, 1_000_000);
    content[700_000..].fill(0);
    let manifest = manifest_of(&content);
    let store = state.open();
    begin_whole(&store, &manifest, &content);
    let path = store.seal(manifest.image_id()).unwrap().path;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let bad_after = |len: u64| {
        file.set_len(len).unwrap();
        let report = store.verify(manifest.image_id(), Pace::Full, &|_, _| {}, &false.into()).unwrap();
        report.bad.iter().map(|chunk| chunk.number()).collect::<Vec<_>>()
    };
    assert_eq!(bad_after(900_000), [13, 14, 15]);
    assert_eq!(bad_after(1_000_005), [15]);
    assert!(bad_after(1_000_000).is_empty(), "as it was");
}

#[test]
fn a_damaged_master_is_fetched_again_for_its_damaged_chunks_only() {
    let state = TestState::new();
    let content = content(10, 1_000_000);
    let manifest = manifest_of(&content);
    let id = manifest.image_id();
    let store = state.open();
    let image = begin_whole(&store, &manifest, &content);
    let path = store.seal(id).unwrap().path;
    let damaged = manifest.geometry().chunk(3).unwrap();
    damage(&path, 3 * u64::from(CHUNK_LEN));
    store.verify(id, Pace::Full, &|_, _| {}, &false.into()).unwrap();
    assert!(matches!(store_chunk(&image, &content, damaged), Err(WriteError::Sealed(_))));
    let backing_file_of_a_clone = File::open(&path).unwrap();
    let spoilt = fs::read(&path).unwrap();

    let mended = store.begin(manifest.clone()).unwrap();
    assert_eq!(mended.held().count(), manifest.data_chunks().count() - 1);
    mended.checkpoint().unwrap();
    let verified = store.verify(id, Pace::Full, &|_, _| {}, &false.into()).unwrap();
    assert_eq!(verified, VerifyReport { bad: vec![damaged], content_ok: Some(false) }, "it is not mended yet");
    assert_eq!(store.master(id).unwrap().damaged_chunks, 1);
    drop((store, image, mended));
    let store = state.open();
    let mended = store.begin(manifest.clone()).unwrap();
    assert_eq!(mended.held().count(), manifest.data_chunks().count() - 1, "also after a restart");
    store_chunk(&mended, &content, damaged).unwrap();
    let master = store.seal(id).unwrap();
    assert_eq!((master.damaged_chunks, &master.path), (0, &path));
    assert!(fs::read(&path).unwrap() == content);
    let mut open = vec![0; content.len()];
    backing_file_of_a_clone.read_exact_at(&mut open, 0).unwrap();
    assert!(open == spoilt, "a file in use does not change");
    assert!(store.verify(id, Pace::Full, &|_, _| {}, &false.into()).unwrap().is_good());
    let checked = store.master(id).unwrap();
    drop(store);
    assert_eq!(state.open().masters(), [checked]);
    assert_eq!(fs::read_dir(state.path().join("incoming")).unwrap().count(), 0);
}

#[test]
fn a_damaged_manifest_of_what_comes_in_is_no_obstacle() {
    let state = TestState::new();
    let content = content(11, 3 << 20);
    let manifest = manifest_of(&content);
    let id = manifest.image_id();
    let folder = state.path().join("incoming").join(id.to_string());
    state.open().begin(manifest.clone()).unwrap();
    damage(&folder.join("manifest"), 20);
    let store = state.open();
    assert!(store.unreadable().join("\n").contains("fetched anew"), "{:?}", store.unreadable());
    assert!(store.incoming().is_empty() && !folder.exists());

    // One that gets in the way later is no obstacle either, and can be removed.
    let get_in_the_way = || {
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("manifest"), b"bad").unwrap();
    };
    get_in_the_way();
    store.remove(id).unwrap();
    assert!(!folder.exists());
    get_in_the_way();
    begin_whole(&store, &manifest, &content);
    let master = store.seal(id).unwrap();
    assert!(fs::read(&master.path).unwrap() == content);
}

#[test]
fn a_master_whose_manifest_is_damaged_is_mended_in_its_place() {
    let state = TestState::new();
    let content = content(12, 3 << 20);
    let manifest = manifest_of(&content);
    let id = manifest.image_id();
    let chunks: Vec<_> = manifest.data_chunks().iter().collect();
    let path = {
        let store = state.open();
        let image = store.begin(manifest.clone()).unwrap();
        chunks.iter().for_each(|&chunk| store_chunk(&image, &content, chunk).unwrap());
        store.seal(id).unwrap().path
    };
    damage(&path.with_file_name("manifest"), 20);
    unseal(&path);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    damage(&path, manifest.geometry().chunk_offset(chunks[1]));

    let store = state.open();
    assert!(store.unreadable().join("\n").contains(&id.to_string()), "{:?}", store.unreadable());
    assert!(store.masters().is_empty());
    let image = store.begin(manifest).unwrap();
    assert!(path.exists(), "a clone may stand on it");
    let missing: Vec<_> = chunks.iter().copied().filter(|&chunk| !image.held().contains(chunk)).collect();
    assert_eq!(missing, [chunks[1]], "only what is damaged is fetched");
    store_chunk(&image, &content, chunks[1]).unwrap();
    let master = store.seal(id).unwrap();
    assert_eq!(master.path, path);
    assert!(fs::read(&path).unwrap() == content);
    drop(store);

    // One that can't be read can be removed as well.
    damage(&path.with_file_name("manifest"), 20);
    let store = state.open();
    assert!(store.masters().is_empty());
    store.remove(id).unwrap();
    assert!(!path.exists());
}
