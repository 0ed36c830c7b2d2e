//! The bytes of one image on this host: an incoming master that grows, a sealed master, or a file served in place.
//!
//! The order in which chunks become durable is `drover_durability`'s; here it meets the host's clock and disk, and the files
//! that are served in place, which are watched.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use drover_durability::{CHECKPOINT_AFTER, CHECKPOINT_AFTER_BYTES, CheckpointError, Stored, WriteError};
use drover_protocol::geometry::ChunkIndex;
use drover_protocol::have::ChunkSet;
use drover_protocol::id::ImageId;
use drover_protocol::manifest::{Manifest, VerifiedChunk};
use drover_protocol::time::Duration;

use super::disk_error::DiskError;
use super::host_disk::HostDisk;
use super::watch::Watch;
use crate::clock;

/// One image. Any number of threads may write and read at once.
#[derive(Debug)]
pub struct Image {
    inner: drover_durability::Image<HostDisk>,
    watch: Option<Watch>,
}

/// Why a chunk was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not held.
    #[error("chunk {chunk} of image {image} is not held")]
    NotHeld {
        /// The image.
        image: ImageId,
        /// Number of the chunk.
        chunk: u32,
    },
    /// The disk can't give it back. It does not count as held any more.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file that is served in place is not what was published. It is withdrawn.
    #[error("image {image} is withdrawn: {reason}; publish the file again")]
    Changed {
        /// The image.
        image: ImageId,
        /// What was noticed.
        reason: String,
    },
}

impl From<drover_durability::ReadError> for ReadError {
    fn from(error: drover_durability::ReadError) -> Self {
        match error {
            drover_durability::ReadError::NotHeld { image, chunk } => ReadError::NotHeld { image, chunk },
            drover_durability::ReadError::Disk(error) => ReadError::Disk(error),
        }
    }
}

impl Image {
    /// A master on its way in.
    pub(super) const fn incoming(inner: drover_durability::Image<HostDisk>) -> Self {
        Image { inner, watch: None }
    }

    /// A sealed master, or with a `watch` a file that is served in place; all of it is held but the `damaged` chunks.
    pub(super) fn sealed(
        id: ImageId,
        manifest: Manifest,
        file: File,
        path: PathBuf,
        damaged: &[ChunkIndex],
        watch: Option<Watch>,
    ) -> Self {
        Image { inner: drover_durability::Image::sealed(&HostDisk, id, manifest, file, path, damaged), watch }
    }

    /// Its id.
    pub const fn id(&self) -> ImageId {
        self.inner.id()
    }

    /// What it is.
    pub const fn manifest(&self) -> &Manifest {
        self.inner.manifest()
    }

    /// Where its raw content is at the moment; sealing moves it.
    pub fn path(&self) -> PathBuf {
        self.inner.path()
    }

    /// The data chunks that can be served now. Chunks of zeros are never among them. Nothing, once it is withdrawn.
    pub fn held(&self) -> ChunkSet {
        if self.is_withdrawn() {
            return ChunkSet::empty(&self.manifest().geometry());
        }
        self.inner.held()
    }

    /// Whether a data chunk can be served now.
    pub fn holds(&self, chunk: ChunkIndex) -> bool {
        !self.is_withdrawn() && self.inner.holds(chunk)
    }

    /// Whether every data chunk is held.
    pub fn is_complete(&self) -> bool {
        !self.is_withdrawn() && self.inner.is_complete()
    }

    /// Whether it is sealed, or served in place: nothing is written to it any more.
    pub fn is_sealed(&self) -> bool {
        self.inner.is_sealed()
    }

    /// Whether it was served in place and its file was found changed.
    pub fn is_withdrawn(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.withdrawn().is_some())
    }

    /// Writes a chunk. It is held, and can be served, from then on; it is durable after the next checkpoint.
    ///
    /// A chunk that is held already, or is all zeros, is not written.
    ///
    /// # Panics
    /// If the chunk is of another image.
    pub fn write<B: AsRef<[u8]>>(&self, chunk: VerifiedChunk<B>) -> Result<Stored, WriteError> {
        self.inner.write(clock::now(), &chunk)
    }

    /// Reads a chunk into `buffer`, which must have its length. Chunks of zeros can be read like any other.
    ///
    /// What a file served in place gives is verified here; of other images the receiver verifies it.
    ///
    /// # Panics
    /// If the buffer does not have the chunk's length.
    pub fn read(&self, chunk: ChunkIndex, buffer: &mut [u8]) -> Result<(), ReadError> {
        let geometry = self.manifest().geometry();
        assert_eq!(buffer.len(), geometry.chunk_len(chunk) as usize, "a buffer has its chunk's length");
        let Some(watch) = self.watch.as_ref().filter(|_| !self.manifest().is_zero(chunk)) else {
            return Ok(self.inner.read(chunk, buffer)?);
        };
        watch.check().map_err(|reason| self.changed(reason))?;
        match self.inner.read(chunk, buffer) {
            Ok(()) if self.manifest().verify(chunk, &*buffer).is_ok() => Ok(()),
            Err(error @ drover_durability::ReadError::NotHeld { .. }) => Err(error.into()),
            _ => {
                let reason =
                    format!("chunk {} of {} is not what was published", chunk.number(), watch.path().display());
                Err(self.changed(watch.withdraw(reason)))
            }
        }
    }

    /// Makes durable what was written since the last checkpoint; says how many chunks that was.
    pub fn checkpoint(&self) -> Result<u32, CheckpointError> {
        self.inner.checkpoint(clock::now())
    }

    /// How long until a checkpoint is due: zero if it is due now, `None` while there is nothing to make durable.
    pub fn checkpoint_due_in(&self) -> Option<Duration> {
        self.inner.checkpoint_due_in(clock::now())
    }

    /// Whether a checkpoint is due, by time or by bytes.
    pub fn needs_checkpoint(&self) -> bool {
        self.checkpoint_due_in() == Some(Duration::ZERO)
    }

    /// Gives up chunks that the disk does not give back as they were: they are not held any more, and not claimed by
    /// the journal after the next checkpoint.
    pub(super) fn give_up(&self, chunks: &[ChunkIndex]) {
        self.inner.give_up(chunks);
    }

    /// Of a sealed master, counts all chunks as held but those that were found damaged.
    pub(super) fn hold_all_but(&self, damaged: &[ChunkIndex]) {
        self.inner.hold_all_but(damaged);
    }

    /// Ends all use: the image is being removed.
    pub(super) fn become_removed(&self) {
        self.inner.become_removed();
    }

    /// A handle on the content as it is now, to read from.
    pub(super) fn content(&self) -> io::Result<File> {
        self.inner.with_file(File::try_clone)
    }

    /// Its part that is the same on every disk.
    pub(super) const fn inner(&self) -> &drover_durability::Image<HostDisk> {
        &self.inner
    }

    pub(super) const fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    fn changed(&self, reason: String) -> ReadError {
        ReadError::Changed { image: self.id(), reason }
    }
}

/// Images are shared by the threads that write and read them.
const _: fn() = || {
    const fn shared<T: Send + Sync>() {}
    shared::<Arc<Image>>();
};
