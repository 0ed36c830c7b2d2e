//! What survives.

use std::io;

use super::*;
use crate::store::Trouble;
use crate::store::fault::{Step, with_hook};

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
