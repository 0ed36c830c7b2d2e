//! What an image is: its length and geometry, the hash of every chunk, its zero runs, and the hash of the whole.
//!
//! A manifest has one canonical form, so the same content and geometry give the same bytes and the same [`ImageId`] on
//! every machine: zero runs are maximal, a chunk of zeros is always in a run and never among the hashes, and decoding
//! refuses everything else. Chunks are hashed each as a message of their own, so that a chunk's hash does not depend on
//! where it lies.
//!
//! [`Manifest::verify`] is the only maker of a [`VerifiedChunk`], and the store accepts nothing else: bytes that were
//! not checked against the manifest can't be written.

use core::ops::Range;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::geometry::{CHUNK_LEN, ChunkIndex, Geometry, GeometryError};
use crate::have::{ChunkSet, PieceSet};
use crate::id::{ChunkHash, ContentHash, ImageId};
use crate::planted::{Bug, is_planted};

/// The format that this code writes and reads.
pub const MANIFEST_FORMAT: u16 = 1;

/// Greatest length of the manifest of an image of `len` bytes: header, the most zero runs that can be, all hashes.
pub const fn max_manifest_len(len: u64) -> u64 {
    let chunk_count = len.div_ceil(CHUNK_LEN as u64);
    // A zero run of one chunk costs at most ten bytes and takes the place of a hash of 32.
    128 + chunk_count * 32
}

/// A description of an image that was found to be whole and canonical.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    image: ImageId,
    geometry: Geometry,
    content_hash: ContentHash,
    zero_runs: Vec<ZeroRun>,
    hashes: Vec<ChunkHash>,
}

/// Chunks that are all zeros.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ZeroRun {
    chunks: Range<u32>,
    /// How many chunks before this run are in earlier runs.
    zeros_before: u32,
}

/// Bytes that are the chunk they claim to be. Made by [`Manifest::verify`] only.
#[derive(Debug)]
pub struct VerifiedChunk<B> {
    image: ImageId,
    index: ChunkIndex,
    bytes: B,
}

/// Bytes that are not the chunk they were said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The length is not the chunk's.
    #[error("chunk {chunk} has {expected} bytes, not {found}")]
    Len {
        /// Number of the chunk.
        chunk: u32,
        /// Its length.
        expected: u32,
        /// The length that came.
        found: usize,
    },
    /// The hash is not the chunk's.
    #[error("chunk {chunk} does not have the hash that its manifest gives")]
    Hash {
        /// Number of the chunk.
        chunk: u32,
    },
}

/// Why bytes are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not even the outer form is right.
    #[error("malformed manifest: {0}")]
    Malformed(postcard::Error),
    /// A later format than this code knows.
    #[error("manifest format {0}: this version reads {MANIFEST_FORMAT}; update drover on this host")]
    Format(u16),
    /// Lengths that no image has.
    #[error("manifest of an impossible image: {0}")]
    Geometry(#[from] GeometryError),
    /// The parts do not fit together, or are not in their one canonical form.
    #[error("manifest is not in canonical form: {0}")]
    NotCanonical(&'static str),
    /// Right in itself, but of another image than was asked for.
    #[error("manifest of image {found} where {expected} was asked for")]
    OtherImage {
        /// The image asked for.
        expected: ImageId,
        /// The image that these bytes describe.
        found: ImageId,
    },
}

/// The bytes of a manifest, as read; [`Manifest::head`] writes them. Field order is the format; see DESIGN.md.
#[derive(Deserialize)]
struct Body<'a> {
    _format: u16,
    len: u64,
    piece_len: u32,
    content_hash: ContentHash,
    /// (chunks since the end of the last run, chunks in the run).
    zero_runs: Vec<(u32, u32)>,
    #[serde(with = "serde_bytes", borrow)]
    hashes: &'a [u8],
}

impl Manifest {
    /// The manifest whose canonical bytes these are, if they have this id.
    ///
    /// The id is compared first, so that nothing a stranger made up is looked into.
    pub fn from_bytes_of(expected: ImageId, bytes: &[u8]) -> Result<Self, ManifestError> {
        let found = ImageId::from_bytes(blake3::hash(bytes).into());
        if found != expected && !is_planted(Bug::SkipManifestId) {
            return Err(ManifestError::OtherImage { expected, found });
        }
        Self::parse(found, bytes)
    }

    /// The manifest whose canonical bytes these are.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::parse(ImageId::from_bytes(blake3::hash(bytes).into()), bytes)
    }

    /// `image` is BLAKE3 of `bytes`, which makes it the id once they turn out to be canonical.
    fn parse(image: ImageId, bytes: &[u8]) -> Result<Self, ManifestError> {
        let (format, _): (u16, _) = postcard::take_from_bytes(bytes).map_err(ManifestError::Malformed)?;
        if format != MANIFEST_FORMAT {
            return Err(ManifestError::Format(format));
        }
        let (body, rest): (Body<'_>, _) = postcard::take_from_bytes(bytes).map_err(ManifestError::Malformed)?;
        if !rest.is_empty() {
            return Err(ManifestError::NotCanonical("bytes follow it"));
        }
        let geometry = Geometry::new(body.len, body.piece_len)?;
        let zero_runs = read_runs(&body.zero_runs, geometry.chunk_count())?;
        let zeros = zero_runs.last().map_or(0, |run| run.zeros_before + run.chunks.len() as u32);
        let (hashes, odd) = body.hashes.as_chunks::<32>();
        if !odd.is_empty() || hashes.len() as u64 + u64::from(zeros) != u64::from(geometry.chunk_count()) {
            return Err(ManifestError::NotCanonical("hashes and zero runs do not add up to its chunks"));
        }
        let hashes = hashes.iter().copied().map(ChunkHash::from_bytes).collect();
        let manifest = Manifest { image, geometry, content_hash: body.content_hash, zero_runs, hashes };
        manifest.check_no_hash_of_zeros()?;
        // postcard reads some numbers in more than one spelling; only the shortest is canonical.
        if !bytes.starts_with(&manifest.head()) {
            return Err(ManifestError::NotCanonical("a number is not in its shortest form"));
        }
        Ok(manifest)
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.reserve_exact(self.hashes.len() * 32);
        for hash in &self.hashes {
            bytes.extend_from_slice(hash.as_bytes());
        }
        bytes
    }

    /// The canonical bytes up to the first hash.
    fn head(&self) -> Vec<u8> {
        let mut after = 0;
        let zero_runs: Vec<(u32, u32)> = self
            .zero_runs
            .iter()
            .map(|run| {
                let gap = run.chunks.start - after;
                after = run.chunks.end;
                (gap, run.chunks.len() as u32)
            })
            .collect();
        let hashes_len = self.hashes.len() as u64 * 32;
        let head =
            (MANIFEST_FORMAT, self.geometry.len(), self.geometry.piece_len(), self.content_hash, zero_runs, hashes_len);
        postcard::to_stdvec(&head).expect("a manifest holds only what postcard can write")
    }

    /// BLAKE3 of the canonical bytes.
    pub const fn image_id(&self) -> ImageId {
        self.image
    }

    /// How the image is divided.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// BLAKE3 of the whole content.
    pub const fn content_hash(&self) -> ContentHash {
        self.content_hash
    }

    /// The hash of a chunk; `None` of a chunk of zeros.
    pub fn chunk_hash(&self, chunk: ChunkIndex) -> Option<ChunkHash> {
        let number = chunk.number();
        let after = self.zero_runs.partition_point(|run| run.chunks.start <= number);
        let Some(run) = after.checked_sub(1).map(|at| &self.zero_runs[at]) else {
            return Some(self.hashes[number as usize]);
        };
        if run.chunks.contains(&number) {
            return None;
        }
        let zeros = run.zeros_before + run.chunks.len() as u32;
        Some(self.hashes[(number - zeros) as usize])
    }

    /// Whether a chunk is all zeros, so that it is never sent and never written.
    pub fn is_zero(&self, chunk: ChunkIndex) -> bool {
        self.chunk_hash(chunk).is_none()
    }

    /// Numbers of the chunks that are all zeros, as maximal runs in rising order.
    pub fn zero_runs(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        self.zero_runs.iter().map(|run| run.chunks.clone())
    }

    /// The chunks that have to be fetched: all but those of zeros.
    pub fn data_chunks(&self) -> ChunkSet {
        let mut data = ChunkSet::empty(&self.geometry);
        let mut after = 0;
        for run in &self.zero_runs {
            data.insert_run(after..run.chunks.start);
            after = run.chunks.end;
        }
        data.insert_run(after..self.geometry.chunk_count());
        data
    }

    /// Bytes in chunks that are not zeros.
    pub fn data_len(&self) -> u64 {
        let zeros: u64 = self.zero_runs.iter().map(|run| run.chunks.len() as u64).sum();
        let short = self.geometry.chunk(self.geometry.chunk_count() - 1).filter(|&last| !self.is_zero(last));
        let missing = short.map_or(0, |last| u64::from(CHUNK_LEN - self.geometry.chunk_len(last)));
        (u64::from(self.geometry.chunk_count()) - zeros) * u64::from(CHUNK_LEN) - missing
    }

    /// The pieces of which every data chunk is in `held`.
    pub fn pieces_held(&self, held: &ChunkSet) -> PieceSet {
        let mut pieces = PieceSet::full(&self.geometry);
        for missing in self.data_chunks().difference(held) {
            pieces.remove(self.geometry.piece_of(missing));
        }
        pieces
    }

    /// Makes sure that `bytes` are the chunk `index`. A chunk of zeros can be verified like any other.
    pub fn verify<B: AsRef<[u8]>>(&self, index: ChunkIndex, bytes: B) -> Result<VerifiedChunk<B>, ChunkError> {
        let (chunk, found) = (index.number(), bytes.as_ref());
        let expected = self.geometry.chunk_len(index);
        if found.len() != expected as usize {
            return Err(ChunkError::Len { chunk, expected, found: found.len() });
        }
        let good = match self.chunk_hash(index) {
            Some(hash) => hash_chunk(found) == hash,
            None => is_zeros(found),
        };
        if good { Ok(VerifiedChunk { image: self.image, index, bytes }) } else { Err(ChunkError::Hash { chunk }) }
    }

    fn check_no_hash_of_zeros(&self) -> Result<(), ManifestError> {
        let last = ChunkIndex(self.geometry.chunk_count() - 1);
        let last_of_zeros = self.chunk_hash(last) == Some(hash_of_zeros(self.geometry.chunk_len(last)));
        let whole = hash_of_zeros(CHUNK_LEN);
        if last_of_zeros || self.hashes.contains(&whole) {
            return Err(ManifestError::NotCanonical("a chunk of zeros is among the hashes"));
        }
        Ok(())
    }
}

impl<B> VerifiedChunk<B> {
    /// The image that it is a chunk of.
    pub const fn image(&self) -> ImageId {
        self.image
    }

    /// Which chunk it is.
    pub const fn index(&self) -> ChunkIndex {
        self.index
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &B {
        &self.bytes
    }

    /// Gives the buffer back.
    pub fn into_bytes(self) -> B {
        self.bytes
    }
}

/// Collects the chunks of an image in order and makes its manifest.
#[derive(Debug)]
pub struct ManifestBuilder {
    geometry: Geometry,
    next: u32,
    zero_runs: Vec<ZeroRun>,
    zeros: u32,
    hashes: Vec<ChunkHash>,
}

impl ManifestBuilder {
    /// For an image of this geometry.
    pub fn new(geometry: Geometry) -> Self {
        ManifestBuilder { geometry, next: 0, zero_runs: Vec::new(), zeros: 0, hashes: Vec::new() }
    }

    /// Adds the next chunk by what [`hash_chunk`] gave for it, or `None` if [`is_zeros`] of it.
    pub fn push(&mut self, hash: Option<ChunkHash>) {
        assert!(self.next < self.geometry.chunk_count(), "no more chunks than the image has");
        match hash {
            Some(hash) => {
                self.hashes.push(hash);
                self.next += 1;
            }
            None => self.push_zeros(1),
        }
    }

    /// Adds the next `count` chunks, all zeros.
    pub fn push_zeros(&mut self, count: u32) {
        let chunks = self.next..self.next + count;
        assert!(chunks.end <= self.geometry.chunk_count(), "no more chunks than the image has");
        if chunks.is_empty() {
            return;
        }
        self.next = chunks.end;
        match self.zero_runs.last_mut().filter(|last| last.chunks.end == chunks.start) {
            Some(last) => last.chunks.end = chunks.end,
            None => self.zero_runs.push(ZeroRun { chunks, zeros_before: self.zeros }),
        }
        self.zeros += count;
    }

    /// The manifest, once every chunk was added.
    pub fn finish(self, content_hash: ContentHash) -> Manifest {
        assert_eq!(self.next, self.geometry.chunk_count(), "every chunk was added");
        let nameless = ImageId::from_bytes([0; 32]);
        let ManifestBuilder { geometry, zero_runs, hashes, .. } = self;
        let mut manifest = Manifest { image: nameless, geometry, content_hash, zero_runs, hashes };
        manifest.image = ImageId::from_bytes(blake3::hash(&manifest.to_bytes()).into());
        manifest
    }
}

/// The hash of a chunk's bytes.
pub fn hash_chunk(bytes: &[u8]) -> ChunkHash {
    ChunkHash::from_bytes(blake3::hash(bytes).into())
}

/// Whether all bytes are zero.
pub fn is_zeros(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|&byte| byte == 0)
}

fn hash_of_zeros(len: u32) -> ChunkHash {
    static WHOLE: OnceLock<ChunkHash> = OnceLock::new();
    if len == CHUNK_LEN {
        return *WHOLE.get_or_init(|| hash_chunk(&[0; CHUNK_LEN as usize]));
    }
    hash_chunk(&vec![0; len as usize])
}

fn read_runs(wire: &[(u32, u32)], chunk_count: u32) -> Result<Vec<ZeroRun>, ManifestError> {
    let mut runs: Vec<ZeroRun> = Vec::with_capacity(wire.len());
    let (mut after, mut zeros) = (0u32, 0);
    for &(gap, count) in wire {
        if count == 0 || (gap == 0 && !runs.is_empty()) {
            return Err(ManifestError::NotCanonical("a zero run is empty or touches the one before"));
        }
        let end = after.checked_add(gap).and_then(|start| start.checked_add(count));
        let Some(end) = end.filter(|&end| end <= chunk_count) else {
            return Err(ManifestError::NotCanonical("a zero run leaves the image"));
        };
        runs.push(ZeroRun { chunks: end - count..end, zeros_before: zeros });
        (after, zeros) = (end, zeros + count);
    }
    Ok(runs)
}
