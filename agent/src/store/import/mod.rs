//! From a user's file to a master in the store, whose guest-visible content is read once.
//!
//! What is stored is what was hashed, even if the file changes while it is read:
//! - A reflink is made first, in one step, and nobody else can write it. Hashed is the file itself, because the page cache
//!   may hold it and never holds a fresh reflink; what was hashed is what the reflink shares as long as the file's time of
//!   modification stays the one that it had well before. Otherwise the reflink is hashed.
//! - A copy is written from the very buffers that were hashed.
//! - Other formats are converted into a file of ours, and that file is hashed.
//! - In place nothing is stored; the file is watched from then on, and each chunk verified as it is served.
//!
//! A file that looks different after it was read than before is refused all the same, unless there is a reflink from before:
//! somebody is using it.
//! If anything fails, nothing is left behind.
//!
//! Content that is here and right stays as it is. A master that is damaged, may have changed or is gone is written anew into
//! another file, which takes its place in one step: clones may have the old one open.

mod format;
mod qemu;
mod soundness;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use drover_protocol::geometry::{Geometry, GeometryError};
use drover_protocol::id::{ContentHash, ImageId};
use drover_protocol::manifest::{Manifest, ManifestBuilder};
use rustix::fs::{OFlags, ioctl_ficlone};
use serde::{Deserialize, Serialize};

pub use format::{Format, FormatError, ParseFormatError};
pub use qemu::QemuError;

use super::begin::{BeginError, create_disk};
use super::disk_error::{DiskError, Doing};
use super::layout::{DISK, MANIFEST, NewFolder, discard, write_file};
use super::open::{LoadError, load_master};
use super::scan::{Pace, Scan, ScanError, Scanned, scan};
use super::verify::note_verified;
use super::watch::Source;
use super::{MasterInfo, Store};
use crate::handover::record::MadeFrom;
use qemu::QemuImg;

/// What to import, and how.
#[derive(Clone, Debug)]
pub struct ImportSource {
    /// The file.
    pub path: PathBuf,
    /// Its format; `None` to go by its first and last bytes.
    pub format: Option<Format>,
    /// How it comes into the store.
    pub mode: ImportMode,
    /// Ends the import early when it becomes true.
    pub cancel: Arc<AtomicBool>,
}

impl ImportSource {
    /// A file of any format, brought in the best way.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        ImportSource { path: path.into(), format: None, mode: ImportMode::Auto, cancel: Arc::default() }
    }
}

/// How a file comes into the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportMode {
    /// By reflink where that works, else by copy.
    #[default]
    Auto,
    /// By copy, chunks of zeros left out.
    Copy,
    /// Not at all: it is served from where it is. Raw files only.
    InPlace,
}

/// How a file came into the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportMethod {
    /// It shares its blocks with the file.
    Reflink,
    /// It was copied.
    Copy,
    /// It was converted to raw.
    Converted,
    /// It is the file.
    InPlace,
    /// The store held this content already.
    AlreadyHeld,
}

/// How far an import has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImportProgress {
    /// What is being done.
    pub stage: ImportStage,
    /// Bytes done of this stage.
    pub done: u64,
    /// Bytes in all of this stage.
    pub total: u64,
}

/// What an import is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportStage {
    /// The content is converted to raw.
    Converting,
    /// The content is hashed, and copied if need be.
    Hashing,
}

/// A file that is a master now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Imported {
    /// Which image it is.
    pub image: ImageId,
    /// Length of its content in bytes.
    pub content_len: u64,
    /// BLAKE3 of its content.
    pub content_hash: ContentHash,
    /// The master in the store.
    pub master: MasterInfo,
    /// The format that the file was taken for.
    pub format: Format,
    /// How it came in.
    pub method: ImportMethod,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is a folder, a device or the like.
    #[error("{} is no regular file; publish a disk image file", .0.display())]
    NotAFile(PathBuf),
    /// No image can have its length.
    #[error("{} can't be a master: {source}", path.display())]
    Geometry {
        /// The file.
        path: PathBuf,
        /// Why.
        source: GeometryError,
    },
    /// It is not of its format, or of a kind of it that is refused.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It can't be converted.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// Only raw files can be served in place.
    #[error("{} is a {format} file, and only raw files can be served in place; publish it without --in-place", path.display())]
    InPlace {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
    },
    /// The same content is here, spoilt, and a file in place is none that clones could read instead.
    #[error(
        "image {0} is here and damaged, or may have changed since it was compared last: publish the file without --in-place, \
         which writes it anew"
    )]
    Spoilt(ImageId),
    /// Somebody wrote to it.
    #[error("the file changed while it was read: {0}; stop what uses it (a running VM?) and publish it again")]
    Changed(String),
    /// There is no room for it.
    #[error(transparent)]
    Room(#[from] BeginError),
    /// Somebody ended it.
    #[error("the import was cancelled")]
    Cancelled,
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is in its place, but can't be read back.
    #[error("the new master can't be read back: {0}")]
    ReadBack(String),
}

/// Makes a file a master. `progress` is called on this thread.
pub fn import(
    store: &Store,
    source: &ImportSource,
    progress: &dyn Fn(ImportProgress),
) -> Result<Imported, ImportError> {
    import_with(&QemuImg::default(), store, source, progress)
}

/// As on a machine without `qemu-img`.
#[cfg(test)]
pub(super) fn import_without_qemu(store: &Store, source: &ImportSource) -> Result<Imported, ImportError> {
    import_with(&QemuImg { program: "/nonexistent/qemu-img".into() }, store, source, &|_| {})
}

/// The format of an image, if it is fit to be published as far as its header says.
pub(crate) fn look_at(file: &File, path: &Path) -> Result<Format, ImportError> {
    let len = file.metadata().doing("look at", path)?.len();
    let format = Format::detect(file, path, len)?;
    format.refuse_references(file, path, len)?;
    Ok(format)
}

fn import_with(
    qemu: &QemuImg,
    store: &Store,
    source: &ImportSource,
    progress: &dyn Fn(ImportProgress),
) -> Result<Imported, ImportError> {
    let path = fs::canonicalize(&source.path).doing("open", &source.path)?;
    // Without O_NONBLOCK, opening a pipe would wait for a writer.
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(&path).doing("open", &path)?;
    let metadata = file.metadata().doing("look at", &path)?;
    if !metadata.is_file() {
        return Err(ImportError::NotAFile(path));
    }
    let format = match source.format {
        Some(format) => format,
        None => Format::detect(&file, &path, metadata.len())?,
    };
    let given = Given { store, source, file, format, before: Source::of(&path, &metadata), metadata, path, progress };
    match (format, source.mode) {
        (Format::Raw, ImportMode::InPlace) => given.in_place(),
        (Format::Raw, _) => given.raw(),
        (format, ImportMode::InPlace) => Err(ImportError::InPlace { path: given.path, format }),
        (_, _) => given.convert(qemu),
    }
}

/// A file that is being imported.
struct Given<'a> {
    store: &'a Store,
    source: &'a ImportSource,
    path: PathBuf,
    file: File,
    metadata: fs::Metadata,
    format: Format,
    before: Source,
    progress: &'a dyn Fn(ImportProgress),
}

impl Given<'_> {
    fn raw(self) -> Result<Imported, ImportError> {
        let len = self.metadata.len();
        let geometry = self.geometry(len)?;
        let folder = self.store.inner.layout.new_folder()?;
        let disk_path = folder.path().join(DISK);
        let disk = create_disk(&disk_path)?;
        let reflinked = self.source.mode == ImportMode::Auto && ioctl_ficlone(&disk, &self.file).is_ok();
        let (method, scanned) = if reflinked {
            self.check_unchanged()?;
            (ImportMethod::Reflink, self.scan_reflinked(&disk, &disk_path, len)?)
        } else {
            let data_len = len.min(self.metadata.blocks().saturating_mul(512));
            self.store.check_room(data_len)?;
            disk.set_len(len).doing("extend", &disk_path)?;
            let scanned = self.scan(&self.file, &self.path, len, Some((&disk, &disk_path)))?;
            self.check_unchanged()?;
            (ImportMethod::Copy, scanned)
        };
        disk.sync_all().doing("sync", &disk_path)?;
        self.install(folder, manifest_of(geometry, scanned), method)
    }

    fn in_place(self) -> Result<Imported, ImportError> {
        let len = self.metadata.len();
        let geometry = self.geometry(len)?;
        let scanned = self.scan(&self.file, &self.path, len, None)?;
        self.check_unchanged()?;
        let folder = self.store.inner.layout.new_folder()?;
        self.before.save(folder.path())?;
        self.install(folder, manifest_of(geometry, scanned), ImportMethod::InPlace)
    }

    fn convert(self, qemu: &QemuImg) -> Result<Imported, ImportError> {
        self.format.refuse_references(&self.file, &self.path, self.metadata.len())?;
        let facts = qemu.inspect(self.format, &self.path)?;
        qemu.check_sound(self.format, &self.path, self.metadata.len(), &self.source.cancel)?;
        self.store.check_room(facts.data_len)?;
        let folder = self.store.inner.layout.new_folder()?;
        let disk_path = folder.path().join(DISK);
        let disk = create_disk(&disk_path)?;
        let progress = |done| {
            let total = facts.data_len.max(done);
            (self.progress)(ImportProgress { stage: ImportStage::Converting, done, total });
        };
        qemu.convert(self.format, &self.path, (&disk, &disk_path), &self.source.cancel, &progress)?;
        self.check_unchanged()?;
        let len = disk.metadata().doing("look at", &disk_path)?.len();
        let geometry = self.geometry(len)?;
        let scanned = self.scan(&disk, &disk_path, len, None)?;
        disk.sync_all().doing("sync", &disk_path)?;
        self.install(folder, manifest_of(geometry, scanned), ImportMethod::Converted)
    }

    fn geometry(&self, len: u64) -> Result<Geometry, ImportError> {
        Geometry::of_len(len).map_err(|source| ImportError::Geometry { path: self.path.clone(), source })
    }

    fn scan(&self, file: &File, path: &Path, len: u64, sink: Option<(&File, &Path)>) -> Result<Scanned, ImportError> {
        let job = Scan { file, path, len, sink, tolerant: false, pace: Pace::Full, cancel: &self.source.cancel };
        let result =
            scan(job, &|done| (self.progress)(ImportProgress { stage: ImportStage::Hashing, done, total: len }));
        match result {
            Err(ScanError::Disk(error)) if error.source.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ImportError::Changed(format!("{} became shorter", path.display())))
            }
            result => Ok(result?),
        }
    }

    /// Reads what a reflink shares with the file, from the file if that is the same for sure.
    fn scan_reflinked(&self, disk: &File, disk_path: &Path, len: u64) -> Result<Scanned, ImportError> {
        if self.before.is_settled() {
            match self.scan(&self.file, &self.path, len, None) {
                Err(ImportError::Cancelled) => return Err(ImportError::Cancelled),
                Ok(scanned) if self.check_unchanged().is_ok() && self.is_untouched() => return Ok(scanned),
                // It can't be read to its end, or somebody wrote to it meanwhile.
                _ => {}
            }
        }
        self.scan(disk, disk_path, len, None)
    }

    /// Whether nothing at all was done to the file: the time of this nobody can set.
    fn is_untouched(&self) -> bool {
        let changed = |metadata: &fs::Metadata| (metadata.ctime(), metadata.ctime_nsec());
        self.file.metadata().is_ok_and(|now| changed(&now) == changed(&self.metadata))
    }

    fn check_unchanged(&self) -> Result<(), ImportError> {
        self.before.difference().map_or(Ok(()), |difference| Err(ImportError::Changed(difference)))
    }

    /// Gives the new master its place, unless its content is here already.
    fn install(&self, folder: NewFolder, manifest: Manifest, method: ImportMethod) -> Result<Imported, ImportError> {
        let (image, len) = (manifest.image_id(), manifest.geometry().len());
        let (mut warnings, was) = (Vec::new(), self.store.master(image));
        let (master, method) = self.store.install(folder, &manifest, method)?;
        if let Some(was) = was.filter(|was| method != ImportMethod::AlreadyHeld && !was.in_place) {
            warnings.push(self.written_anew(&was));
        }
        if len % 512 != 0 {
            warnings.push(format!(
                "the content has {len} bytes, which is no multiple of 512; it is kept exactly so, and hand-over pads \
                 clones where a hypervisor needs whole sectors"
            ));
        }
        let content_hash = manifest.content_hash();
        Ok(Imported { image, content_len: len, content_hash, master, format: self.format, method, warnings })
    }

    /// What to say of a spoilt master that the file takes the place of.
    fn written_anew(&self, was: &MasterInfo) -> String {
        let clones = MadeFrom::read(self.store.state(), was.image).unwrap_or_default();
        format!(
            "image {} was here and not as it should be: it is written anew into another file. The old one is {clones}. What \
             reads it goes on with that until it is started anew",
            was.image
        )
    }
}

impl Store {
    fn install(
        &self,
        folder: NewFolder,
        manifest: &Manifest,
        method: ImportMethod,
    ) -> Result<(MasterInfo, ImportMethod), ImportError> {
        let (layout, id) = (&self.inner.layout, manifest.image_id());
        let _change = self.changes();
        if let Some(master) = self.master(id) {
            let (is_right, in_place) = (master.is_right(), method == ImportMethod::InPlace);
            // A master of our own is better than one in place, and anything is better than one that was withdrawn.
            if is_right && (!master.in_place || in_place) {
                return Ok((master, ImportMethod::AlreadyHeld));
            }
            if in_place && !master.in_place {
                return Err(ImportError::Spoilt(id));
            }
        }
        write_file(&folder.path().join(MANIFEST), &manifest.to_bytes())?;
        if method != ImportMethod::InPlace {
            let disk = folder.path().join(DISK);
            note_verified(folder.path(), &fs::metadata(&disk).doing("look at", &disk)?)?;
        }
        let target = layout.master_of(id);
        folder.place_at(&target)?;
        let mut master = load_master(&target, id, self.inner.settings)?;
        let incoming = self.shelf().incoming.get(&id).cloned();
        if let Some(incoming) = incoming {
            // It was on its way in as well. Who exchanges it goes on with the whole master; not in place, though,
            // because that image would not be watched.
            if master.info.in_place {
                incoming.become_removed();
            } else {
                let path = master.info.path.clone();
                incoming
                    .inner()
                    .become_sealed(|| Ok::<_, DiskError>((File::open(&path).doing("open", &path)?, path)))?;
                master.image = Arc::downgrade(&incoming);
            }
            discard(layout, &layout.incoming_of(id))?;
        }
        Ok((self.shelve(id, master), method))
    }
}

impl MasterInfo {
    /// Whether nothing speaks against its bytes, as far as is known without reading them.
    fn is_right(&self) -> bool {
        self.withdrawn.is_none() && self.damaged_chunks == 0 && self.doubt().is_none()
    }
}

/// The image that the raw disk at `path` is, and its length: what publishing it would give. Reads all of it.
pub fn image_of(path: &Path) -> Result<(ImageId, u64), ImportError> {
    let opened = File::open(path).and_then(|mut file| file.seek(io::SeekFrom::End(0)).map(|len| (file, len)));
    let (file, len) = opened.doing("read", path)?;
    let geometry = Geometry::of_len(len).map_err(|source| ImportError::Geometry { path: path.to_owned(), source })?;
    let never = AtomicBool::new(false);
    let scan_all = Scan { file: &file, path, len, sink: None, tolerant: false, pace: Pace::Full, cancel: &never };
    Ok((manifest_of(geometry, scan(scan_all, &|_| {})?).image_id(), len))
}

fn manifest_of(geometry: Geometry, scanned: Scanned) -> Manifest {
    let mut builder = ManifestBuilder::new(geometry);
    for chunk in scanned.chunks {
        builder.push(chunk);
    }
    builder.finish(scanned.content_hash)
}

impl From<ScanError> for ImportError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Disk(error) => ImportError::Disk(error),
            ScanError::Cancelled => ImportError::Cancelled,
        }
    }
}

impl From<LoadError> for ImportError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Disk(error) => ImportError::Disk(error),
            other => ImportError::ReadBack(other.to_string()),
        }
    }
}
