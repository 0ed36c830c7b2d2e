//! The folder of an incoming master: how it begins, and how it is found again.
//!
//! The folder gets its name only when the file's length, the manifest and an empty journal are durable: an incoming master is
//! there whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use drover_protocol::id::ImageId;
use drover_protocol::manifest::{Manifest, ManifestError, max_manifest_len};
use drover_protocol::planted::{Bug, is_planted};

use crate::disk::{Access, Disk, DiskFile, Step};
use crate::disk_error::{DiskError, Doing};
use crate::image::Image;
use crate::journal::Journal;
use crate::layout::{DISK, JOURNAL, Layout, MANIFEST, sweep_files, write_file};

/// Why one folder of an image can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The manifest is not what it was.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The raw file has another length.
    #[error("{} has {found} bytes instead of {expected}", path.display())]
    Len {
        /// Where it lies.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The image's.
        expected: u64,
    },
}

/// Lets an image come in. `reserve` gives the new file its length, and room for its data where that can be.
pub fn begin<D: Disk + Clone>(
    layout: &Layout<D>,
    manifest: Manifest,
    reserve: impl FnOnce(&D::File, &Manifest) -> io::Result<()>,
) -> Result<Image<D>, DiskError> {
    let (disk, id) = (layout.disk(), manifest.image_id());
    let folder = layout.new_folder()?;
    write_file(disk, &folder.path().join(MANIFEST), &manifest.to_bytes())?;

    let path = folder.path().join(DISK);
    let file = disk.create_new(&path).doing("create", &path)?;
    reserve(&file, &manifest).doing("reserve space in", &path)?;
    if !is_planted(Bug::ForgetLength) {
        file.sync_all().doing("sync", &path)?;
    }
    drop(Journal::create(disk, &folder.path().join(JOURNAL), id, &manifest.geometry())?);
    disk.reach(Step::Prepared).doing("sync", &path)?;

    let target = layout.incoming_of(id);
    folder.place_at(&target)?;
    disk.reach(Step::Begun).doing("sync", &target)?;
    let journal = Journal::open(disk, &target.join(JOURNAL), id, &manifest.geometry())?;
    Ok(Image::incoming(disk, id, manifest, file, target.join(DISK), journal))
}

/// The incoming image in `folder`, of which the journal's claims are held. Nothing is hashed: every claim was made after
/// its data was synced.
pub fn load_incoming<D: Disk + Clone>(disk: &D, folder: &Path, id: ImageId) -> Result<Image<D>, LoadError> {
    sweep_files(disk, folder)?;
    let manifest = load_manifest(disk, folder, id)?;
    let path = folder.join(DISK);
    let file = disk.open(&path, Access::Write).doing("open", &path)?;
    check_len(&file, &path, &manifest)?;
    let journal = Journal::open(disk, &folder.join(JOURNAL), id, &manifest.geometry())?;
    Ok(Image::incoming(disk, id, manifest, file, path, journal))
}

/// The manifest in `folder`, if it is the image's.
pub fn load_manifest<D: Disk>(disk: &D, folder: &Path, id: ImageId) -> Result<Manifest, LoadError> {
    let path = folder.join(MANIFEST);
    let most = max_manifest_len(drover_protocol::geometry::MAX_IMAGE_LEN);
    let bytes = disk.read(&path, most).doing("read", &path)?;
    Manifest::from_bytes_of(id, &bytes).map_err(|source| LoadError::Manifest { path, source })
}

/// Makes sure that a raw file has its image's length. It was synced before the folder had its name, so another one is nothing
/// that a crash leaves.
pub fn check_len<F: DiskFile>(file: &F, path: &Path, manifest: &Manifest) -> Result<(), LoadError> {
    let found = file.len().doing("look at", path)?;
    let expected = manifest.geometry().len();
    if found == expected { Ok(()) } else { Err(LoadError::Len { path: path.to_owned(), found, expected }) }
}
