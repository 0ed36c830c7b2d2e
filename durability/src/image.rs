//! The bytes of one image on this disk: an incoming master that grows, or a sealed master.
//!
//! What always holds, whatever fails and whenever the process is killed: **a chunk that the journal claims is on the
//! disk, whole and verified.** Hence the order, which is the whole protocol:
//!
//! 1. [`Image::write`] takes a verified chunk, writes it, and then counts it as held. It can be served
//!    from the page cache at once; nobody has promised yet that it survives.
//! 2. [`Image::checkpoint`] notes which chunks came since the last, syncs the data, and only then has the journal claim
//!    them, in one record, which is synced too. Two syncs, however many chunks.
//! 3. If syncing the data fails, the kernel may have marked the pages clean: a second sync that succeeds proves
//!    nothing. So every chunk that the journal does not claim is given up and fetched again.
//!
//! Writes go on while a checkpoint syncs. Files are never mapped: a failing disk would be a signal instead of an error.
//!
//! Locks are taken in the order journal, io, state. Only the journal's, which nobody needs to write or read a chunk, is
//! held while the disk syncs.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use drover_protocol::geometry::ChunkIndex;
use drover_protocol::have::ChunkSet;
use drover_protocol::id::ImageId;
use drover_protocol::manifest::{Manifest, VerifiedChunk};
use drover_protocol::planted::{Bug, is_planted};
use drover_protocol::time::{Duration, Instant};

use crate::disk::{Disk, DiskFile, Step};
use crate::disk_error::{DiskError, Doing, Trouble};
use crate::journal::{Journal, add_all};

/// A chunk may wait this long to be made durable: what a crash costs is fetched again in about that time.
pub const CHECKPOINT_AFTER: Duration = Duration::from_secs(2);
/// So many bytes may wait to be made durable: bounds the dirty pages of one transfer, and with them the longest sync.
pub const CHECKPOINT_AFTER_BYTES: u64 = 256 << 20;

/// A chunk that was compared with its manifest. In a daemon that is a [`VerifiedChunk`] and nothing else; the simulator
/// has short tokens that stand for chunks.
pub trait Verified {
    /// The image that it is a chunk of.
    fn image(&self) -> ImageId;
    /// Which chunk it is.
    fn index(&self) -> ChunkIndex;
    /// What is written at the chunk's place.
    fn bytes(&self) -> &[u8];
}

impl<B: AsRef<[u8]>> Verified for VerifiedChunk<B> {
    fn image(&self) -> ImageId {
        VerifiedChunk::image(self)
    }

    fn index(&self) -> ChunkIndex {
        VerifiedChunk::index(self)
    }

    fn bytes(&self) -> &[u8] {
        VerifiedChunk::bytes(self).as_ref()
    }
}

/// One image. Any number of threads may write and read at once.
#[derive(Debug)]
pub struct Image<D: Disk> {
    disk: D,
    id: ImageId,
    manifest: Manifest,
    data_count: u32,
    /// `None` once the image is sealed. Held through a whole checkpoint, so that there is one at a time.
    journal: Mutex<Option<Journal<D>>>,
    io: RwLock<Io<D>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Io<D: Disk> {
    file: D::File,
    path: PathBuf,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Incoming,
    Sealed,
    Removed,
}

#[derive(Debug)]
struct State {
    held: ChunkSet,
    /// Held, but not claimed by the journal yet.
    unsynced: ChunkSet,
    unsynced_bytes: u64,
    oldest_unsynced: Option<Instant>,
    revoked: bool,
}

/// The receipt for a chunk that is held now. Made by [`Image::write`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    chunk: ChunkIndex,
    new: bool,
}

impl Stored {
    /// Which chunk.
    pub const fn chunk(&self) -> ChunkIndex {
        self.chunk
    }

    /// Whether it was not held before.
    pub const fn is_new(&self) -> bool {
        self.new
    }
}

/// Why a chunk was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The image was removed from the store meanwhile.
    #[error("image {0} was removed from this host; fetch it again if it is wanted")]
    Removed(ImageId),
    /// The image is sealed, and this is one of its chunks that were found damaged.
    #[error("image {0} is sealed and damaged; fetch it again, which replaces it")]
    Sealed(ImageId),
}

impl WriteError {
    /// What it means for the transfer: anything but [`Trouble::Io`] may pass by itself.
    pub fn kind(&self) -> Trouble {
        match self {
            WriteError::Disk(error) => error.trouble(),
            WriteError::Removed(_) | WriteError::Sealed(_) => Trouble::Io,
        }
    }
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
}

/// Why what was written is not durable.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk failed to keep data. These chunks are not held any more and have to be fetched again.
    #[error("{source}; {} chunks that were being written have to be fetched again", lost.len())]
    Data {
        /// The chunks that were lost.
        lost: Vec<ChunkIndex>,
        /// What the disk said.
        source: DiskError,
    },
    /// Nothing is lost, but it can't be noted down that it is durable: stop fetching, and try again.
    #[error("{0}; what was fetched is kept, and it is tried again")]
    Journal(DiskError),
}

impl CheckpointError {
    /// What it means for the transfer.
    pub fn kind(&self) -> Trouble {
        match self {
            CheckpointError::Data { source, .. } | CheckpointError::Journal(source) => source.trouble(),
        }
    }

    /// The chunks that are not held any more.
    pub fn lost(&self) -> &[ChunkIndex] {
        match self {
            CheckpointError::Data { lost, .. } => lost,
            CheckpointError::Journal(_) => &[],
        }
    }
}

impl<D: Disk + Clone> Image<D> {
    /// A master on its way in, of which the journal's claims are held.
    pub fn incoming(
        disk: &D,
        id: ImageId,
        manifest: Manifest,
        file: D::File,
        path: PathBuf,
        journal: Journal<D>,
    ) -> Self {
        let held = journal.claimed().clone();
        Self::new(disk, id, manifest, Io { file, path, phase: Phase::Incoming }, held, Some(journal))
    }

    /// A sealed master; all of it is held but the `damaged` chunks.
    pub fn sealed(
        disk: &D,
        id: ImageId,
        manifest: Manifest,
        file: D::File,
        path: PathBuf,
        damaged: &[ChunkIndex],
    ) -> Self {
        let mut held = manifest.data_chunks();
        for &chunk in damaged {
            held.remove(chunk);
        }
        Self::new(disk, id, manifest, Io { file, path, phase: Phase::Sealed }, held, None)
    }

    fn new(disk: &D, id: ImageId, manifest: Manifest, io: Io<D>, held: ChunkSet, journal: Option<Journal<D>>) -> Self {
        let unsynced = ChunkSet::empty(&manifest.geometry());
        let state = State { held, unsynced, unsynced_bytes: 0, oldest_unsynced: None, revoked: false };
        Image {
            disk: disk.clone(),
            id,
            data_count: manifest.data_chunks().count(),
            manifest,
            journal: Mutex::new(journal),
            io: RwLock::new(io),
            state: Mutex::new(state),
        }
    }

    /// Its id.
    pub const fn id(&self) -> ImageId {
        self.id
    }

    /// What it is.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where its raw content is at the moment; sealing moves it.
    pub fn path(&self) -> PathBuf {
        self.io.read().unwrap_or_else(PoisonError::into_inner).path.clone()
    }

    /// The data chunks that can be served now. Chunks of zeros are never among them.
    pub fn held(&self) -> ChunkSet {
        self.state().held.clone()
    }

    /// Whether a data chunk can be served now.
    pub fn holds(&self, chunk: ChunkIndex) -> bool {
        self.state().held.contains(chunk)
    }

    /// Whether every data chunk is held.
    pub fn is_complete(&self) -> bool {
        self.state().held.count() == self.data_count
    }

    /// Whether it is sealed: nothing is written to it any more.
    pub fn is_sealed(&self) -> bool {
        self.io.read().unwrap_or_else(PoisonError::into_inner).phase == Phase::Sealed
    }

    /// The chunks that the journal claims; `None` of an image that has none any more.
    pub fn claimed(&self) -> Option<ChunkSet> {
        self.journal().as_ref().map(|journal| journal.claimed().clone())
    }

    /// Writes a chunk. It is held, and can be served, from then on; it is durable after the next checkpoint.
    ///
    /// A chunk that is held already, or is all zeros, is not written.
    ///
    /// # Panics
    /// If the chunk is of another image.
    pub fn write<C: Verified>(&self, now: Instant, chunk: &C) -> Result<Stored, WriteError> {
        assert_eq!(chunk.image(), self.id, "a chunk is written to its own image");
        let (index, bytes) = (chunk.index(), chunk.bytes());
        let already = Stored { chunk: index, new: false };
        // Held to the end: a failed sync waits for the writes under way, so that it can give them up too.
        let io = self.io.read().unwrap_or_else(PoisonError::into_inner);
        if self.manifest.is_zero(index) || self.state().held.contains(index) {
            return Ok(already);
        }
        match io.phase {
            Phase::Incoming => {}
            Phase::Sealed => return Err(WriteError::Sealed(self.id)),
            Phase::Removed => return Err(WriteError::Removed(self.id)),
        }
        let geometry = self.manifest.geometry();
        let written =
            self.disk.reach(Step::WriteChunk).and_then(|()| io.file.write_all_at(bytes, geometry.chunk_offset(index)));
        if !is_planted(Bug::HoldUnwritten) {
            written.doing("write", &io.path)?;
        }

        let mut state = self.state();
        let new = state.held.insert(index);
        if new {
            state.unsynced.insert(index);
            state.unsynced_bytes += u64::from(geometry.chunk_len(index));
            state.oldest_unsynced.get_or_insert(now);
        }
        Ok(Stored { chunk: index, new })
    }

    /// Reads a chunk into `buffer`, which has the length that was written. Chunks of zeros can be read like any other.
    /// The receiver verifies it.
    pub fn read(&self, chunk: ChunkIndex, buffer: &mut [u8]) -> Result<(), ReadError> {
        if self.manifest.is_zero(chunk) {
            buffer.fill(0);
            return Ok(());
        }
        let io = self.io.read().unwrap_or_else(PoisonError::into_inner);
        if io.phase == Phase::Removed || !self.state().held.contains(chunk) {
            return Err(ReadError::NotHeld { image: self.id, chunk: chunk.number() });
        }
        let offset = self.manifest.geometry().chunk_offset(chunk);
        let result = self.disk.reach(Step::ReadChunk).and_then(|()| io.file.read_exact_at(buffer, offset));
        drop(io);
        if result.is_err() {
            self.give_up(&[chunk]);
        }
        Ok(result.doing("read", &self.path())?)
    }

    /// Makes durable what was written since the last checkpoint; says how many chunks that was.
    pub fn checkpoint(&self, now: Instant) -> Result<u32, CheckpointError> {
        let mut journal = self.journal();
        match journal.as_mut() {
            Some(journal) => self.checkpoint_into(now, journal),
            None => Ok(0),
        }
    }

    fn checkpoint_into(&self, now: Instant, journal: &mut Journal<D>) -> Result<u32, CheckpointError> {
        let taken = self.state().take_unsynced(&self.manifest);
        if taken.is_empty() && !journal.is_suspect() {
            return Ok(0);
        }
        if is_planted(Bug::RecordBeforeSync) {
            let _ = journal.append(&taken);
        }
        if let Err(source) = self.sync_data() {
            // Waits for the writes that are under way: what the kernel lost may be theirs.
            let _alone = self.io.write().unwrap_or_else(PoisonError::into_inner);
            let mut lost = taken;
            add_all(&mut lost, &self.state().take_unsynced(&self.manifest));
            if is_planted(Bug::KeepAfterFailedSync) {
                self.state().return_unsynced(now, &lost, &self.manifest);
                return Err(CheckpointError::Data { lost: Vec::new(), source });
            }
            let lost: Vec<ChunkIndex> = lost.iter().collect();
            self.drop_held(&lost);
            return Err(CheckpointError::Data { lost, source });
        }
        if is_planted(Bug::RecordBeforeSync) {
            return Ok(taken.count());
        }
        let synced = self.disk.reach(Step::DataSynced).doing("sync", journal.path());
        match synced.and_then(|()| journal.append(&taken)) {
            Ok(()) => Ok(taken.count()),
            Err(error) => {
                self.state().return_unsynced(now, &taken, &self.manifest);
                Err(CheckpointError::Journal(error))
            }
        }
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        if is_planted(Bug::SkipDataSync) {
            return Ok(());
        }
        let io = self.io.read().unwrap_or_else(PoisonError::into_inner);
        self.disk.reach(Step::SyncData).and_then(|()| io.file.sync_data()).doing("sync", &io.path)
    }

    /// How long until a checkpoint is due: zero if it is due now, `None` while there is nothing to make durable.
    pub fn checkpoint_due_in(&self, now: Instant) -> Option<Duration> {
        let state = self.state();
        if state.unsynced_bytes >= CHECKPOINT_AFTER_BYTES || state.revoked {
            return Some(Duration::ZERO);
        }
        state.oldest_unsynced.map(|oldest| CHECKPOINT_AFTER.saturating_sub(now.since(oldest)))
    }

    /// Gives up chunks that the disk does not give back as they were: they are not held any more, and not claimed by
    /// the journal after the next checkpoint.
    pub fn give_up(&self, chunks: &[ChunkIndex]) {
        let mut journal = self.journal();
        if let Some(journal) = journal.as_mut().filter(|_| !is_planted(Bug::ForgetRevoke)) {
            journal.revoke(chunks.iter().copied());
            self.state().revoked = journal.is_suspect();
        }
        self.drop_held(chunks);
    }

    /// Of a sealed master, counts all chunks as held but those that were found damaged.
    pub fn hold_all_but(&self, damaged: &[ChunkIndex]) {
        self.state().held = self.manifest.data_chunks();
        self.drop_held(damaged);
    }

    /// Calls `seal` with no write, checkpoint or read under way; it gives the sealed file and
    /// its path, and from then on those are used.
    pub fn become_sealed<E>(&self, seal: impl FnOnce() -> Result<(D::File, PathBuf), E>) -> Result<(), E> {
        let mut journal = self.journal();
        let mut io = self.io.write().unwrap_or_else(PoisonError::into_inner);
        let (file, path) = seal()?;
        *io = Io { file, path, phase: Phase::Sealed };
        *journal = None;
        let mut state = self.state();
        state.held = self.manifest.data_chunks();
        drop(state.take_unsynced(&self.manifest));
        Ok(())
    }

    /// Ends all use: the image is being removed.
    pub fn become_removed(&self) {
        let mut journal = self.journal();
        self.io.write().unwrap_or_else(PoisonError::into_inner).phase = Phase::Removed;
        *journal = None;
        let mut state = self.state();
        drop(state.take_unsynced(&self.manifest));
        state.held = ChunkSet::empty(&self.manifest.geometry());
    }

    /// Whether the journal claims every data chunk.
    pub fn is_durable(&self) -> bool {
        self.journal().as_ref().is_none_or(|journal| journal.claimed().count() == self.data_count)
    }

    /// Calls `look` with the content's file as it is now.
    pub fn with_file<T>(&self, look: impl FnOnce(&D::File) -> T) -> T {
        look(&self.io.read().unwrap_or_else(PoisonError::into_inner).file)
    }

    fn drop_held(&self, chunks: &[ChunkIndex]) {
        let mut state = self.state();
        for &chunk in chunks {
            state.held.remove(chunk);
            state.unsynced.remove(chunk);
        }
    }

    // A thread that panicked while it held one of these locks has left no half-changed sets: every change is one call.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Option<Journal<D>>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_unsynced(&mut self, manifest: &Manifest) -> ChunkSet {
        (self.unsynced_bytes, self.oldest_unsynced, self.revoked) = (0, None, false);
        core::mem::replace(&mut self.unsynced, ChunkSet::empty(&manifest.geometry()))
    }

    fn return_unsynced(&mut self, now: Instant, taken: &ChunkSet, manifest: &Manifest) {
        add_all(&mut self.unsynced, taken);
        self.unsynced_bytes += taken.iter().map(|chunk| u64::from(manifest.geometry().chunk_len(chunk))).sum::<u64>();
        self.oldest_unsynced.get_or_insert(now);
    }
}
