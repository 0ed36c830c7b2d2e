//! What is on this host's disk: masters on their way in, sealed masters, releases.
//!
//! What always holds, whatever the disk does and whenever the process is killed:
//! - A chunk that the journal of an incoming master claims is on the disk, whole and verified (see `drover_durability`).
//! - What has the name of an image under `masters` is all of that image (see `drover_durability` and `seal.rs`).
//! - The highest version of a name that was ever accepted is known (see `drover_durability`).
//! - A clone's backing file is not removed (see `remove.rs`).
//!
//! Everything here blocks and may be called from any thread. Nothing here knows of peers, sockets or time-outs: the
//! store keeps bytes, its caller decides which. Memory is bounded by the manifests of the images in use: those of
//! sealed masters are read when somebody asks for the image, and go when nobody uses it any more.

mod begin;
mod disk_error;
mod fault;
mod host_disk;
mod image;
pub mod import;
mod last_file;
mod layout;
mod lock;
mod open;
mod remove;
mod scan;
mod seal;
#[cfg(test)]
mod tests;
mod verify;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use drover_protocol::geometry::ChunkIndex;
use drover_protocol::id::{ContentHash, ImageId};
use drover_protocol::release::Name;
use serde::{Deserialize, Serialize};

pub use begin::BeginError;
pub use disk_error::{DiskError, Trouble};
pub use drover_durability::{AcceptError, Accepted};
#[cfg(test)]
pub(crate) use fault::refuse_writes_while;
pub use image::{CHECKPOINT_AFTER, CHECKPOINT_AFTER_BYTES, CheckpointError, Image, ReadError, Stored, WriteError};
pub(crate) use last_file::LastFile;
pub(crate) use layout::folder_of_master;
pub use lock::Holder;
pub use open::StoreError;
pub use remove::RemoveError;
pub use scan::Pace;
pub use seal::{SealError, SealLevel};
pub(crate) use verify::Noted;
pub use verify::{VerifyError, VerifyReport};

use host_disk::HostDisk;
use layout::Layout;
use lock::StateLock;
use watch::Watch;

use crate::handover::FileIdentity;
use crate::handover::record::clones_by_image;

/// The releases of this host.
pub type Catalog = drover_durability::Catalog<HostDisk>;

/// All that is kept below one state folder. Clones are handles on the same store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    settings: Settings,
    catalog: Catalog,
    /// One change to the set of folders at a time. Taken before `shelf`.
    changes: Mutex<()>,
    shelf: Mutex<Shelf>,
    unreadable: Vec<String>,
    _lock: StateLock,
}

/// What images there are.
#[derive(Debug, Default)]
struct Shelf {
    incoming: BTreeMap<ImageId, Arc<Image>>,
    masters: BTreeMap<ImageId, Master>,
}

#[derive(Debug)]
struct Master {
    info: MasterInfo,
    image: Weak<Image>,
    damaged: Vec<ChunkIndex>,
    watch: Option<Watch>,
}

/// How the store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether masters are made immutable (`chattr +i`) where that works. On by default, because it is what stops even
    /// root from writing to the backing file of a running clone; off for state folders that are thrown away, which
    /// could not be deleted with `rm -r` otherwise.
    pub immutable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { immutable: true }
    }
}

/// A master that this host holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MasterInfo {
    /// Which image it is.
    pub image: ImageId,
    /// Its raw content: a file in the store, or the user's own if it is served in place.
    pub path: PathBuf,
    /// Its length in bytes.
    pub content_len: u64,
    /// Bytes of it in chunks that are not zeros.
    pub data_len: u64,
    /// BLAKE3 of the whole content.
    pub content_hash: ContentHash,
    /// What protects it.
    pub sealing: SealLevel,
    /// Whether it is the user's own file, which is watched.
    pub in_place: bool,
    /// When its last byte was written, in seconds since 1970.
    pub sealed_at_unix_s: u64,
    /// When all of it was last compared with its manifest, in seconds since 1970: as it came in, or by a verification.
    pub checked_at_unix_s: u64,
    /// What its file was when that was last found right; not known of one that an earlier version sealed.
    pub verified: Option<FileIdentity>,
    /// Why it is not served any more, if its file was found changed.
    pub withdrawn: Option<String>,
    /// Number of chunks that the last verification found damaged.
    pub damaged_chunks: u32,
}

/// A master and who needs it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MasterUse {
    /// The master.
    pub master: MasterInfo,
    /// The releases that name it, and of each whether it is the newest of its name.
    pub releases: Vec<ReleaseUse>,
    /// The clones that would be lost without it.
    pub clones: Vec<String>,
}

/// A release that names a master.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReleaseUse {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u64,
    /// Whether no newer version of the name is known.
    pub newest: bool,
}

impl MasterUse {
    /// Whether neither a clone nor a name's newest release needs it.
    pub fn is_garbage(&self) -> bool {
        self.clones.is_empty() && !self.releases.iter().any(|release| release.newest)
    }
}

impl Store {
    /// The state folder.
    pub fn state(&self) -> &Path {
        self.inner.layout.state()
    }

    /// The releases that this host knows.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// What in the state folder could not be read when it was opened, for a person: each says which file, why, and
    /// what to do.
    pub fn unreadable(&self) -> &[String] {
        &self.inner.unreadable
    }

    /// All sealed masters and masters in place, by image id.
    pub fn masters(&self) -> Vec<MasterInfo> {
        self.shelf().masters.values().map(Master::info).collect()
    }

    /// A sealed master or master in place.
    pub fn master(&self, image: ImageId) -> Option<MasterInfo> {
        self.shelf().masters.get(&image).map(Master::info)
    }

    /// The masters that are on their way in.
    pub fn incoming(&self) -> Vec<ImageId> {
        self.shelf().incoming.keys().copied().collect()
    }

    /// An image that this host holds, or half holds. `None` too if its manifest can't be read.
    pub fn image(&self, image: ImageId) -> Option<Arc<Image>> {
        let incoming = self.shelf().incoming.get(&image).map(Arc::clone);
        incoming.or_else(|| self.sealed_image(image))
    }

    /// The master, also while it comes in anew beside itself.
    fn sealed_image(&self, image: ImageId) -> Option<Arc<Image>> {
        let mut shelf = self.shelf();
        let master = shelf.masters.get_mut(&image)?;
        if let Some(image) = master.image.upgrade() {
            return Some(image);
        }
        match open::load_image(&self.inner.layout.master_of(image), master) {
            Ok(loaded) => {
                let loaded = Arc::new(loaded);
                master.image = Arc::downgrade(&loaded);
                Some(loaded)
            }
            Err(error) => {
                tracing::error!("image {image} can't be used: {error}");
                None
            }
        }
    }

    /// Every master with the releases and clones that need it: what garbage collection decides by. A clone's record that
    /// can't be read is an error here, since it might need any of them.
    pub fn master_uses(&self) -> Result<Vec<MasterUse>, RemoveError> {
        let mut clones = clones_by_image(self.state())?;
        match clones.unreadable.pop() {
            Some(error) => Err(error.into()),
            None => Ok(self.uses(&clones.names)),
        }
    }

    /// The same as far as it is known: what people are shown.
    pub fn known_master_uses(&self) -> Result<Vec<MasterUse>, RemoveError> {
        Ok(self.uses(&clones_by_image(self.state())?.names))
    }

    fn uses(&self, clones: &BTreeMap<ImageId, Vec<String>>) -> Vec<MasterUse> {
        let releases = self.catalog().all();
        let newest = |name| self.catalog().newest(name).map(|release| release.version);
        let use_of = |master: MasterInfo| {
            let naming = releases.iter().filter(|release| release.image == master.image);
            let releases = naming
                .map(|release| ReleaseUse {
                    name: release.name.clone(),
                    version: release.version,
                    newest: newest(&release.name) == Some(release.version),
                })
                .collect();
            let clones = clones.get(&master.image).cloned().unwrap_or_default();
            MasterUse { releases, clones, master }
        };
        self.masters().into_iter().map(use_of).collect()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.inner.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changes(&self) -> MutexGuard<'_, ()> {
        self.inner.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Master {
    fn info(&self) -> MasterInfo {
        // It may have been taken off since.
        let sealing = if self.info.in_place { self.info.sealing } else { SealLevel::of(&self.info.path) };
        MasterInfo {
            sealing,
            withdrawn: self.watch.as_ref().and_then(Watch::withdrawn),
            damaged_chunks: self.damaged.len() as u32,
            ..self.info.clone()
        }
    }

    /// Whether it was withdrawn or found damaged, or its file is gone, so that fetching it again replaces it.
    fn is_spoilt(&self) -> bool {
        let is_withdrawn = || self.watch.as_ref().is_some_and(|watch| watch.withdrawn().is_some());
        !self.damaged.is_empty() || is_withdrawn() || self.info.is_gone()
    }
}
