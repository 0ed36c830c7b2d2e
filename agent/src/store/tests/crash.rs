//! The state folder as a crash would leave it, at every step of a transfer.
//!
//! A hook copies the folder at each step that the store reaches. What a crash may also take away is taken away from the
//! copies: all data since the last sync, the tail of the journal at any length. Each copy is opened, must claim nothing
//! that is not there, and must come to the same master in the end.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::store::fault::with_hook;

/// What was true when a copy was made.
struct Crash {
    step: Step,
    state: PathBuf,
    /// Chunks that were written since the last sync of data.
    unsynced: Vec<ChunkIndex>,
    /// Length of the journal when it was last synced.
    journal_synced: u64,
}

#[derive(Default)]
struct Recorder {
    crashes: Vec<Crash>,
    unsynced: Vec<ChunkIndex>,
    journal_synced: u64,
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn file_of(state: &Path, manifest: &Manifest, name: &str) -> Option<PathBuf> {
    let folders = ["incoming", "masters"].map(|folder| state.join(folder).join(manifest.image_id().to_string()));
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.exists())
}

/// Brings a master in and seals it, copying the state at each step into folders below `copies`.
fn record(state: &TestState, copies: &Path, content: &[u8], manifest: &Manifest) -> Vec<Crash> {
    let recorder = Rc::new(RefCell::new(Recorder::default()));
    let (seen, from, to, of) = (Rc::clone(&recorder), state.path(), copies.to_owned(), manifest.clone());
    let hook = move |step| {
        let mut seen = seen.borrow_mut();
        let journal_len = || file_of(&from, &of, "journal").map_or(0, |path| fs::metadata(path).unwrap().len());
        match step {
            Step::WriteChunk | Step::ReadChunk => return Ok(()),
            Step::DataSynced => seen.unsynced.clear(),
            Step::Begun | Step::JournalSynced => seen.journal_synced = journal_len(),
            _ => {}
        }
        let copy = to.join(seen.crashes.len().to_string());
        copy_tree(&from, &copy);
        let (unsynced, journal_synced) = (seen.unsynced.clone(), seen.journal_synced);
        seen.crashes.push(Crash { step, state: copy, unsynced, journal_synced });
        Ok(())
    };
    let write = Rc::clone(&recorder);
    let (state, content, manifest) = (state.path(), content.to_vec(), manifest.clone());
    with_hook(hook, move || {
        let store = Store::open_with(&state, Settings { immutable: false }).unwrap();
        let image = store.begin(manifest.clone()).unwrap();
        let mut rng = drover_protocol::rng::Rng::seeded(5);
        let mut chunks: Vec<_> = manifest.data_chunks().iter().collect();
        rng.shuffle(&mut chunks);
        for batch in chunks.chunks(4) {
            for &chunk in batch {
                store_chunk(&image, &content, chunk).unwrap();
                write.borrow_mut().unsynced.push(chunk);
            }
            image.checkpoint().unwrap();
        }
        store.seal(manifest.image_id()).unwrap();
    });
    Rc::try_unwrap(recorder).ok().expect("the hook is gone").into_inner().crashes
}

/// Opens a state after a crash: every claim must be true, and the transfer must be able to end well.
fn check(state: &Path, content: &[u8], manifest: &Manifest, what: &str) {
    let id = manifest.image_id();
    for round in ["first", "second"] {
        let store = Store::open_with(state, Settings { immutable: false }).unwrap();
        assert!(store.unreadable().is_empty(), "{what}: {:?}", store.unreadable());
        let names = fs::read_dir(state.join("incoming")).unwrap().count();
        assert_eq!(names, store.incoming().len(), "{what}: something half made was left");
        let Some(image) = store.image(id) else { continue };
        for chunk in image.held().iter() {
            let mut buffer = vec![0; manifest.geometry().chunk_len(chunk) as usize];
            image.read(chunk, &mut buffer).unwrap();
            let good = manifest.verify(chunk, &buffer).is_ok();
            assert!(good, "{what}, {round} time: chunk {} is claimed and not there", chunk.number());
        }
        assert_eq!(image.is_complete(), store.master(id).is_some(), "{what}: what is complete is sealed");
    }
    let store = Store::open_with(state, Settings { immutable: false }).unwrap();
    let image = store.begin(manifest.clone()).unwrap();
    for chunk in manifest.data_chunks().iter() {
        store_chunk(&image, content, chunk).unwrap();
    }
    let master = store.seal(id).unwrap();
    assert!(fs::read(master.path).unwrap() == content, "{what}: the master came out wrong");
    assert!(file_of(state, manifest, "journal").is_none());
}

#[test]
fn whatever_a_crash_leaves_claims_nothing_that_is_not_there() {
    let state = TestState::new();
    let content = content(11, 14 * CHUNK_LEN as usize + 1000);
    let manifest = manifest_of(&content);
    let crashes = record(&state, &state.file("copies"), &content, &manifest);
    let steps: Vec<Step> = crashes.iter().map(|crash| crash.step).collect();
    for step in [Step::Prepared, Step::SyncData, Step::SyncJournal, Step::SealMoved, Step::Sealed] {
        assert!(steps.contains(&step), "{step:?} was reached, of {steps:?}");
    }
    let mut images = 0;
    let again = state.file("again");
    let mut try_out = |crash: &Crash, what: String, change: &dyn Fn(&Path)| {
        copy_tree(&crash.state, &again);
        change(&again);
        check(&again, &content, &manifest, &format!("{:?}, {what}", crash.step));
        fs::remove_dir_all(&again).unwrap();
        images += 1;
    };
    for crash in &crashes {
        let lose_data = |state: &Path| {
            let Some(path) = file_of(state, &manifest, "disk.raw") else { return };
            let disk = File::options().write(true).open(path);
            for &chunk in &crash.unsynced {
                let zeros = vec![0; manifest.geometry().chunk_len(chunk) as usize];
                disk.as_ref().unwrap().write_all_at(&zeros, manifest.geometry().chunk_offset(chunk)).unwrap();
            }
        };
        try_out(crash, "everything kept".into(), &|_| {});
        try_out(crash, "unsynced data lost".into(), &lose_data);
        let journal = file_of(&crash.state, &manifest, "journal");
        let journal_len = journal.map_or(0, |path| fs::metadata(path).unwrap().len());
        for len in (crash.journal_synced..journal_len).step_by(7) {
            try_out(crash, format!("journal torn at {len} of {journal_len}"), &|state| {
                lose_data(state);
                let path = file_of(state, &manifest, "journal").unwrap();
                File::options().write(true).open(path).unwrap().set_len(len).unwrap();
            });
        }
    }
    assert!(images > 40, "only {images} crashes were tried");
}

#[test]
fn data_is_synced_before_the_journal_is_written() {
    let state = TestState::new();
    let content = content(12, 4 * CHUNK_LEN as usize);
    let manifest = manifest_of(&content);
    let steps: Vec<Step> =
        record(&state, &state.file("copies"), &content, &manifest).iter().map(|crash| crash.step).collect();
    let checkpoint = [Step::SyncData, Step::DataSynced, Step::AppendJournal, Step::SyncJournal, Step::JournalSynced];
    let seal = [Step::SealSynced, Step::SealMoved, Step::SealPlaced, Step::SealUnjournaled, Step::Sealed];
    let expected = [&[Step::Prepared, Step::Begun][..], &checkpoint, &seal].concat();
    assert_eq!(steps, expected);
}
