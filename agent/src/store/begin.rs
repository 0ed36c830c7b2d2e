//! The beginning of an incoming master: room for all of it is reserved before the first byte is fetched.
//!
//! The file gets its full length and, where the filesystem can, disk space for every run of data, so that a disk that
//! is too small is found out now and not at 97 %. Runs of zeros stay holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drover_durability::Disk as _;
use drover_protocol::geometry::CHUNK_LEN;
use drover_protocol::id::ImageId;
use drover_protocol::manifest::Manifest;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::disk_error::{DiskError, Doing, Trouble};
use super::host_disk::HostDisk;
use super::image::Image;
use super::layout::{DISK, discard};
use super::{Master, Store};

/// Why a master can't begin to come in.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There is not enough room for it. Nothing was written.
    #[error(
        "{} has {} bytes free, and this master needs {}; free {} bytes there, or use a state folder on a larger disk",
        path.display(), available, needed, needed.saturating_sub(*available)
    )]
    TooSmall {
        /// Bytes that it needs: its data and a margin.
        needed: u64,
        /// Bytes that drover may use.
        available: u64,
        /// Where.
        path: PathBuf,
    },
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Store {
    /// Makes room for a master and lets it come in. If it is coming in already, or is here, gives that one.
    ///
    /// A master that was found damaged, or one in place that was withdrawn, comes in anew beside the spoilt one, from
    /// which it has every chunk that is still good; sealing it replaces the spoilt one. So a damaged backing file is
    /// never changed under a running clone, and mending costs the wire only the damaged chunks.
    pub fn begin(&self, manifest: Manifest) -> Result<Arc<Image>, BeginError> {
        let (id, manifest_len) = (manifest.image_id(), manifest.to_bytes().len() as u64);
        let _change = self.changes();
        let here = self.image(id);
        if let Some(image) = here.as_ref().filter(|image| !image.is_sealed() || !self.is_spoilt(id)) {
            return Ok(Arc::clone(image));
        }
        let layout = &self.inner.layout;
        if layout.incoming_of(id).exists() {
            // It could not be read when the store was opened.
            discard(layout, &layout.incoming_of(id))?;
        }
        let here = here.or_else(|| self.unlisted_master(&manifest).map(Arc::new));
        let image = Arc::new(self.prepare(manifest, manifest_len)?);
        if let Some(spoilt) = here {
            copy_good_chunks(&spoilt, &image);
        }
        self.shelf().incoming.insert(id, Arc::clone(&image));
        Ok(image)
    }

    /// What is in the place of a master whose own manifest can't be read. Each chunk is verified when it is copied.
    fn unlisted_master(&self, manifest: &Manifest) -> Option<Image> {
        let id = manifest.image_id();
        let path = self.inner.layout.master_of(id).join(DISK);
        let file = File::open(&path).ok()?;
        Some(Image::sealed(id, manifest.clone(), file, path, &[], None))
    }

    fn is_spoilt(&self, image: ImageId) -> bool {
        self.shelf().masters.get(&image).is_some_and(Master::is_spoilt)
    }

    /// Makes sure that `data_len` bytes and a margin fit on the disk.
    pub(super) fn check_room(&self, data_len: u64) -> Result<(), BeginError> {
        let path = self.inner.layout.incoming();
        let filesystem = statvfs(&path).doing("look at", &path)?;
        let available = filesystem.f_bavail.saturating_mul(filesystem.f_frsize);
        let needed = data_len.saturating_add(margin(data_len));
        if needed > available { Err(BeginError::TooSmall { needed, available, path }) } else { Ok(()) }
    }

    fn prepare(&self, manifest: Manifest, manifest_len: u64) -> Result<Image, BeginError> {
        let len = manifest.data_len() + manifest_len;
        self.check_room(len)?;
        match drover_durability::begin(&self.inner.layout, manifest, reserve) {
            Err(error) if error.trouble() == Trouble::Full => {
                // It seemed to fit; others write to this disk too, or there is a quota.
                self.check_room(len)?;
                Err(error.into())
            }
            begun => Ok(Image::incoming(begun?)),
        }
    }
}

/// Takes over what can be read and verified. What can't, also because the disk refuses, is fetched.
fn copy_good_chunks(from: &Image, to: &Image) {
    let geometry = to.manifest().geometry();
    let mut buffer = vec![0; CHUNK_LEN as usize];
    for chunk in from.held().iter() {
        let buffer = &mut buffer[..geometry.chunk_len(chunk) as usize];
        let good = from.read(chunk, buffer).is_ok();
        if let Some(verified) = good.then(|| to.manifest().verify(chunk, &*buffer).ok()).flatten()
            && to.write(verified).is_err()
        {
            return;
        }
    }
}

/// A new file for raw content.
pub(super) fn create_disk(path: &Path) -> Result<File, DiskError> {
    HostDisk.create_new(path).doing("create", path)
}

/// Gives the file its length, and space for its data.
fn reserve(file: &File, manifest: &Manifest) -> io::Result<()> {
    let len = manifest.geometry().len();
    file.set_len(len)?;
    for run in manifest.data_chunks().runs() {
        let Range { start, end } = bytes_of(run, len);
        match fallocate(file, FallocateFlags::KEEP_SIZE, start, end - start) {
            // The room was checked; that has to do on such a filesystem.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

fn bytes_of(chunks: Range<u32>, len: u64) -> Range<u64> {
    let at = |chunk: u32| (u64::from(chunk) * u64::from(CHUNK_LEN)).min(len);
    at(chunks.start)..at(chunks.end)
}

/// What a master needs besides its data: extents of the filesystem (measured: 0.1 % of fragmented data on ext4), the
/// journal, and some air for the rest of the host.
const fn margin(data_len: u64) -> u64 {
    (8 << 20) + data_len / 256
}
