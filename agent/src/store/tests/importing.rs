//! A user's file becomes a master.

use drover_protocol::id::ImageId;

use super::*;
use crate::store::import::{Format, ImportError, ImportMethod, ImportMode, ImportSource, Imported, import};
use crate::store::{ReadError, VerifyError};

fn import_as(store: &Store, path: &Path, mode: ImportMode) -> Result<Imported, ImportError> {
    import(store, &ImportSource { mode, ..ImportSource::new(path) }, &|_| {})
}

fn read_all(store: &Store, image: ImageId) -> Result<Vec<u8>, ReadError> {
    let image = store.image(image).unwrap();
    let geometry = image.manifest().geometry();
    let mut content = Vec::new();
    for chunk in geometry.chunks() {
        let mut buffer = vec![1; geometry.chunk_len(chunk) as usize];
        image.read(chunk, &mut buffer)?;
        content.extend(buffer);
    }
    Ok(content)
}

#[test]
fn a_raw_file_is_imported_as_it_is_whatever_its_length() {
    let state = TestState::new();
    let store = state.open();
    let (chunk, block, span) = (64 << 10, 256 << 10, 4 << 20);
    let lens =
        [1, 511, 512, chunk - 1, chunk, chunk + 1, block, block + 1, span - 1, span, span + 1, 3 * span + 12_345];
    for (seed, len) in lens.into_iter().enumerate() {
        let path = state.file("disk.img");
        let content = content(seed as u64, len);
        fs::write(&path, &content).unwrap();
        let imported = import_as(&store, &path, ImportMode::Auto).unwrap();
        let expected = manifest_of(&content);
        assert_eq!(imported.content_hash, expected.content_hash(), "{len} bytes");
        assert_eq!(imported.image, expected.image_id(), "{len} bytes");
        assert_eq!(imported.warnings.is_empty(), len % 512 == 0);
        assert_eq!(imported.format, Format::Raw);
        assert_eq!(fs::read(&imported.master.path).unwrap(), content);
        assert_eq!(read_all(&store, imported.image).unwrap(), content);
        let again = import_as(&store, &path, ImportMode::Copy).unwrap();
        assert_eq!((again.method, again.master), (ImportMethod::AlreadyHeld, imported.master));
    }
}

#[test]
fn a_change_under_a_master_in_place_withdraws_it() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    let content = content(1, 1 << 20);
    fs::write(&path, &content).unwrap();
    let imported = import_as(&store, &path, ImportMode::InPlace).unwrap();
    assert!(imported.master.in_place);
    assert_eq!(read_all(&store, imported.image).unwrap(), content);

    damage(&path, 70_000);
    let error = read_all(&store, imported.image).unwrap_err();
    assert!(matches!(error, ReadError::Changed { .. }), "{error}");
    assert!(store.image(imported.image).unwrap().held().is_empty());
    assert!(store.master(imported.image).unwrap().withdrawn.is_some());
    damage(&path, 70_000);
    drop(store);
    let store = state.open();
    let verified = store.verify(imported.image, &|_, _| {}, &false.into());
    assert!(matches!(verified, Err(VerifyError::Changed { .. })), "also after a restart: {verified:?}");
    import_as(&store, &path, ImportMode::InPlace).unwrap();
    assert_eq!(read_all(&store, imported.image).unwrap(), content, "until it is published again");
}
