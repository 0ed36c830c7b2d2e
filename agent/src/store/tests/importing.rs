//! A user's file becomes a master.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use drover_protocol::id::ImageId;

use super::*;
use crate::store::Pace;
use crate::store::import::{Format, ImportError, ImportMethod, ImportMode, ImportSource, Imported, import};
use crate::store::{ReadError, VerifyError};

pub(super) fn import_as(store: &Store, path: &Path, mode: ImportMode) -> Result<Imported, ImportError> {
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
        assert_eq!(imported.master.doubt(), None);
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
    assert_eq!(imported.master.doubt(), None);

    damage(&path, 70_000);
    assert!(imported.master.doubt().is_some_and(|doubt| doubt.contains("it was written to")), "before it is read");
    let error = read_all(&store, imported.image).unwrap_err();
    assert!(matches!(error, ReadError::Changed { .. }), "{error}");
    assert!(store.image(imported.image).unwrap().held().is_empty());
    assert!(store.master(imported.image).unwrap().withdrawn.is_some());
    damage(&path, 70_000);
    drop(store);
    let store = state.open();
    let verified = store.verify(imported.image, Pace::Full, &|_, _| {}, &false.into());
    assert!(matches!(verified, Err(VerifyError::Changed { .. })), "also after a restart: {verified:?}");
    import_as(&store, &path, ImportMode::InPlace).unwrap();
    assert_eq!(read_all(&store, imported.image).unwrap(), content, "until it is published again");
}

#[test]
fn a_change_that_leaves_size_and_time_as_they_were_is_noticed_by_the_hash() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    let content = content(2, 1 << 20);
    fs::write(&path, &content).unwrap();
    let imported = import_as(&store, &path, ImportMode::InPlace).unwrap();
    let image = store.image(imported.image).unwrap();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    damage(&path, 70_000);
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let chunk = |number| image.manifest().geometry().chunk(number).unwrap();
    let mut buffer = vec![0; CHUNK_LEN as usize];
    image.read(chunk(0), &mut buffer).unwrap();
    let error = image.read(chunk(1), &mut buffer).unwrap_err();
    assert!(matches!(error, ReadError::Changed { .. }), "{error}");
    assert!(image.read(chunk(0), &mut buffer).is_err(), "nothing of it is served any more");
    drop((store, image));
    assert!(state.open().master(imported.image).unwrap().withdrawn.is_some(), "also after a restart");
}

#[test]
fn a_withdrawn_master_can_be_fetched_from_others() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    let content = content(3, 500_000);
    fs::write(&path, &content).unwrap();
    let imported = import_as(&store, &path, ImportMode::InPlace).unwrap();
    fs::write(&path, b"something else").unwrap();
    assert!(read_all(&store, imported.image).is_err());
    let manifest = manifest_of(&content);
    let image = begin_whole(&store, &manifest, &content);
    let master = store.seal(imported.image).unwrap();
    assert!(!master.in_place && master.withdrawn.is_none());
    assert_eq!(read_all(&store, imported.image).unwrap(), content);
    drop((store, image));
    assert_eq!(state.open().masters(), [master]);
}

#[test]
fn a_link_that_is_published_in_place_stands_for_the_file_that_it_leads_to() {
    let state = TestState::new();
    let store = state.open();
    let (path, link) = (state.file("disk.img"), state.file("link.img"));
    let content = content(7, 500_000);
    fs::write(&path, &content).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let imported = import_as(&store, &link, ImportMode::InPlace).unwrap();
    assert_eq!(imported.master.path, path.canonicalize().unwrap());
    fs::remove_file(&link).unwrap();
    assert_eq!(read_all(&store, imported.image).unwrap(), content);
}

#[test]
fn a_copy_takes_the_place_of_a_master_in_place() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    let content = content(4, 500_000);
    fs::write(&path, &content).unwrap();
    let in_place = import_as(&store, &path, ImportMode::InPlace).unwrap();
    let copied = import_as(&store, &path, ImportMode::Copy).unwrap();
    assert_eq!((in_place.image, copied.method), (copied.image, ImportMethod::Copy));
    let again = import_as(&store, &path, ImportMode::InPlace).unwrap();
    assert_eq!((again.method, again.master.in_place), (ImportMethod::AlreadyHeld, false));
    fs::remove_file(&path).unwrap();
    assert_eq!(read_all(&store, copied.image).unwrap(), content);
}

#[test]
fn publishing_what_is_on_its_way_in_completes_it() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    let content = content(5, 500_000);
    fs::write(&path, &content).unwrap();
    let manifest = manifest_of(&content);
    let image = store.begin(manifest.clone()).unwrap();
    store_chunk(&image, &content, manifest.data_chunks().iter().next().unwrap()).unwrap();
    let imported = import_as(&store, &path, ImportMode::Auto).unwrap();
    assert!(image.is_complete() && image.is_sealed(), "whoever exchanges it goes on with all of it");
    assert_eq!(image.path(), imported.master.path);
    assert!(store.incoming().is_empty());
    assert_eq!(read_all(&store, imported.image).unwrap(), content);
    drop((store, image));
    assert_eq!(state.open().masters(), [imported.master]);
}

#[test]
fn holes_and_zeros_of_a_raw_file_cost_no_disk() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    let data = content(6, 1 << 20);
    let file = File::create(&path).unwrap();
    file.set_len((100 << 20) + 777).unwrap();
    file.write_all_at(&data, (33 << 20) + 4096).unwrap();
    file.write_all_at(&vec![0; 8 << 20], 60 << 20).unwrap();
    file.write_all_at(b"end", (100 << 20) + 700).unwrap();
    let imported = import_as(&store, &path, ImportMode::Copy).unwrap();
    let whole = fs::read(&path).unwrap();
    assert_eq!(imported.image, manifest_of(&whole).image_id());
    assert!(fs::read(&imported.master.path).unwrap() == whole);
    let taken = fs::metadata(&imported.master.path).unwrap().blocks() * 512;
    assert!(taken < 3 << 20, "{taken} bytes");
}

/// A filesystem of its own that has reflinks, where this process may mount one.
struct Reflinks {
    folder: tempfile::TempDir,
}

impl Reflinks {
    fn mount() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("drover-xfs-").tempdir().unwrap();
        let disk = folder.path().join("disk");
        // The least that mkfs.xfs takes is 300 MiB; the file is sparse.
        File::create(&disk).unwrap().set_len(320 << 20).unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let made = run(Command::new("mkfs.xfs").arg("-q").arg(&disk));
        let mounted = Reflinks { folder };
        if made && run(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(mounted.root())) {
            return Some(mounted);
        }
        eprintln!("no filesystem with reflinks can be mounted here (not root, or no xfsprogs?): not tested");
        None
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

impl Drop for Reflinks {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.root()).stderr(std::process::Stdio::null()).status();
    }
}

#[test]
fn a_reflink_takes_no_room_and_does_not_follow_the_file() {
    let Some(disk) = Reflinks::mount() else { return };
    let store = Store::open_with(&disk.root().join("state"), Settings { immutable: false }).unwrap();
    let path = disk.root().join("disk.img");
    let content = content(9, (60 << 20) + 77);
    fs::write(&path, &content).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    let free = || rustix::fs::statvfs(disk.root()).map(|it| it.f_bavail * it.f_frsize).unwrap();
    let before = free();
    let imported = import_as(&store, &path, ImportMode::Auto).unwrap();
    assert_eq!(imported.method, ImportMethod::Reflink);
    assert!(free() + (8 << 20) > before, "{} bytes were taken", before - free());
    assert_eq!(imported.image, manifest_of(&content).image_id());
    damage(&path, 5_000_000);
    assert!(fs::read(&imported.master.path).unwrap() == content);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    for mode in [ImportMode::Copy, ImportMode::InPlace] {
        for shrink in [false, true] {
            fs::write(&path, content(7, 24 << 20)).unwrap();
            let once = std::cell::Cell::new(true);
            let result = import(&store, &ImportSource { mode, ..ImportSource::new(&path) }, &|_| {
                if once.replace(false) && shrink {
                    File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
                } else {
                    damage(&path, 100);
                }
            });
            assert!(matches!(result, Err(ImportError::Changed(_))), "{mode:?}, shrink {shrink}: {result:?}");
        }
    }
    assert!(store.masters().is_empty());
    assert_eq!(fs::read_dir(state.path().join("incoming")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn an_import_can_be_cancelled() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("disk.img");
    fs::write(&path, content(8, 40 << 20)).unwrap();
    let source = ImportSource { mode: ImportMode::Copy, ..ImportSource::new(&path) };
    let result = import(&store, &source, &|_| source.cancel.store(true, std::sync::atomic::Ordering::Relaxed));
    assert!(matches!(result, Err(ImportError::Cancelled)), "{result:?}");
    assert_eq!(fs::read_dir(state.path().join("incoming")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn what_is_no_image_is_refused() {
    let state = TestState::new();
    let store = state.open();
    let path = state.file("empty");
    fs::write(&path, b"").unwrap();
    let refused = |path: &Path| import_as(&store, path, ImportMode::Auto).unwrap_err().to_string();
    assert!(refused(&path).contains("empty: can't be a master") || refused(&path).contains("the image is empty"));
    assert!(refused(&state.file("missing")).contains("No such file"));
    assert!(refused(state.folder.path()).contains("no regular file"));
    let long = state.file("long");
    File::create(&long).unwrap().set_len((1 << 40) + 1).unwrap();
    assert!(refused(&long).contains("the most is"));
}
