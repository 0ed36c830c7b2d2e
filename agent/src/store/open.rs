//! Opening a state folder, which is the same after a clean end, a crash and a power cut.
//!
//! What was half made or half removed is swept away, journals are read up to their first bad record, a master that
//! was complete is sealed, a seal that was not finished is finished. Nothing is hashed: every claim of a journal was
//! made after its data was synced. What was written after the last checkpoint is fetched again. A folder that can't be
//! read is reported, and the others are used. A master's is left, because clones may stand on it, until the image comes
//! in anew; one of what was coming in goes, because nothing in it can be believed without its manifest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

pub(super) use drover_durability::LoadError;
use drover_durability::{check_len, load_incoming, load_manifest, sweep_files};
use drover_protocol::id::ImageId;

use super::disk_error::{DiskError, Doing};
use super::host_disk::HostDisk;
use super::image::Image;
use super::layout::{self, DISK, Layout, MANIFEST, discard};
use super::lock::{Holder, StateLock};
use super::seal::{SealLevel, finish_seal};
use super::verify::{load_checked, load_damage, load_verified};
use super::watch::{Source, Watch};
use super::{Catalog, Inner, Master, MasterInfo, Settings, Shelf, Store};

/// Why a state folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon uses it.
    #[error(
        "{} is in use by {holder}: one state folder serves one daemon; stop that one, or give this one another --state",
        state.display()
    )]
    InUse {
        /// The state folder.
        state: PathBuf,
        /// Who holds it, by its lock file.
        holder: Holder,
    },
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Store {
    /// Opens a state folder, making it if it is missing, and brings it in order after whatever happened to it.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        Self::open_with(state, Settings::default())
    }

    /// As [`Store::open`], with other settings than the default.
    pub fn open_with(state: &Path, settings: Settings) -> Result<Self, StoreError> {
        let state = std::path::absolute(state).doing("find", state)?;
        let layout = Layout::new(HostDisk, &state);
        layout::make(&layout)?;
        let lock = StateLock::take(&layout.lock())?;
        let mut unreadable = Vec::new();
        let shelf = Shelf { masters: load_masters(&layout, settings, &mut unreadable)?, incoming: Default::default() };
        let catalog = Catalog::open(HostDisk, layout.releases(), &mut unreadable)?;
        let inner = Inner {
            layout,
            settings,
            catalog,
            changes: Mutex::new(()),
            shelf: Mutex::new(shelf),
            unreadable,
            _lock: lock,
        };
        let mut store = Store { inner: Arc::new(inner) };
        store.load_incoming()?;
        Ok(store)
    }

    fn load_incoming(&mut self) -> Result<(), StoreError> {
        let layout = &self.inner.layout;
        let mut unreadable = Vec::new();
        for id in layout.sweep(&layout.incoming())? {
            let folder = layout.incoming_of(id);
            if self.shelf().masters.get(&id).is_some_and(|master| !master.is_spoilt()) {
                discard(layout, &folder)?;
                continue;
            }
            match load_incoming(&HostDisk, &folder, id) {
                Ok(image) => drop(self.shelf().incoming.insert(id, Arc::new(Image::incoming(image)))),
                // The disk may refuse for now only; what is begun anew replaces the folder.
                Err(LoadError::Disk(error)) if error.source.kind() != io::ErrorKind::NotFound => {
                    unreadable.push(format!("{error}; its image is fetched anew"));
                }
                Err(error) => {
                    discard(layout, &folder)?;
                    unreadable.push(format!("{error}; what had come of it was removed and is fetched anew"));
                }
            }
        }
        for id in self.incoming() {
            let complete = self.image(id).is_some_and(|image| image.is_complete());
            if complete && let Err(error) = self.seal(id) {
                unreadable.push(format!("image {id} is complete, but can't be sealed: {error}"));
            }
        }
        let inner = Arc::get_mut(&mut self.inner).expect("nobody else has this store yet");
        inner.unreadable.append(&mut unreadable);
        Ok(())
    }
}

fn load_masters(
    layout: &Layout,
    settings: Settings,
    unreadable: &mut Vec<String>,
) -> Result<BTreeMap<ImageId, Master>, StoreError> {
    let mut masters = BTreeMap::new();
    for id in layout.sweep(&layout.masters())? {
        let folder = layout.master_of(id);
        match load_master(&folder, id, settings) {
            Ok(master) => drop(masters.insert(id, master)),
            Err(error) => {
                unreadable.push(format!("{error}; image {id} is not served; fetch or publish it again to mend it"));
            }
        }
    }
    Ok(masters)
}

/// What is known of the master in `folder`, whose seal is finished if a crash left it half done. Its file may be gone.
pub(super) fn load_master(folder: &Path, id: ImageId, settings: Settings) -> Result<Master, LoadError> {
    sweep_files(&HostDisk, folder)?;
    let manifest = load_manifest(&HostDisk, folder, id)?;
    let source = Source::load(folder)?;
    let watch = source.map(|source| Watch::new(source, folder.to_owned()));
    let (path, sealing, dated) = match &watch {
        Some(watch) => (watch.path().to_owned(), SealLevel::Watched, folder.join(MANIFEST)),
        None => {
            let path = folder.join(DISK);
            match File::open(&path) {
                // People are told of it, and clones kept from it, until it comes in anew.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    (path, SealLevel::Broken, folder.join(MANIFEST))
                }
                opened => {
                    check_len(&opened.doing("open", &path)?, &path, &manifest)?;
                    (path.clone(), finish_seal(folder, settings)?, path)
                }
            }
        }
    };
    let sealed_at = fs::metadata(&dated).doing("look at", &dated)?.mtime();
    let info = MasterInfo {
        image: id,
        path,
        content_len: manifest.geometry().len(),
        data_len: manifest.data_len(),
        content_hash: manifest.content_hash(),
        sealing,
        in_place: watch.is_some(),
        sealed_at_unix_s: u64::try_from(sealed_at).unwrap_or(0),
        checked_at_unix_s: load_checked(folder).unwrap_or(u64::try_from(sealed_at).unwrap_or(0)),
        verified: watch.as_ref().map(Watch::identity).or_else(|| load_verified(folder)),
        withdrawn: None,
        damaged_chunks: 0,
    };
    let damaged = load_damage(folder, &manifest.geometry());
    Ok(Master { info, image: Weak::new(), damaged, watch })
}

/// The image of a master that is known.
pub(super) fn load_image(folder: &Path, master: &Master) -> Result<Image, LoadError> {
    let id = master.info.image;
    let manifest = load_manifest(&HostDisk, folder, id)?;
    let path = master.info.path.clone();
    let file = File::open(&path).doing("open", &path)?;
    Ok(Image::sealed(id, manifest, file, path, &master.damaged, master.watch.clone()))
}
