//! Parts of pieces: which chunks are held of pieces that are not held whole, and their form on the wire.
//!
//! Pieces are announced whole, so what somebody holds of a piece that nobody holds whole would be known to him alone,
//! and lost to all when the last seeder is. Parts are told when that matters (`swarm::sharing` says when), in one
//! message that replaces the one before.
//!
//! On the wire it is the pieces as runs, and their bitmaps one after the other. It costs at most 32 bytes a piece, so
//! the bounds below take in every piece of an image of up to 16 GiB, and half of those of 32 GiB. A host has no more
//! pieces begun at a time than what is on its way to it, 128 MiB.

use core::ops::Range;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::geometry::{CHUNK_LEN, ChunkIndex, Geometry, MAX_PIECE_LEN, PieceIndex};
use crate::have::{HaveError, WireDelta};

/// Most pieces of which parts are told: as many as an image of 32 GiB has.
pub const MAX_PARTS: usize = 2048;
/// Longest bitmaps of parts together, in bytes: with the runs of as many pieces, 20 KiB, they fit a frame of 64 KiB.
pub const MAX_PARTS_LEN: usize = 32 * 1024;
/// Words of the bits of one piece.
const WORDS: usize = (MAX_PIECE_LEN / CHUNK_LEN) as usize / 64;

/// Chunks held of some pieces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parts {
    pieces: BTreeMap<PieceIndex, [u64; WORDS]>,
}

/// Parts on the wire.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WireParts {
    /// The pieces, at most [`MAX_PARTS`].
    pub pieces: WireDelta,
    /// For each of them in order a bit for each chunk that a piece has (a short last one, too), lowest bit first, in
    /// whole bytes; never all zero, and spare bits zero. At most [`MAX_PARTS_LEN`] bytes.
    #[serde(with = "serde_bytes")]
    pub chunks: Vec<u8>,
}

impl Parts {
    /// Adds a chunk.
    pub fn insert(&mut self, geometry: &Geometry, chunk: ChunkIndex) {
        let piece = geometry.piece_of(chunk);
        let (word, bit) = place(chunk.number() - geometry.chunk_numbers(piece).start);
        self.pieces.entry(piece).or_default()[word] |= bit;
    }

    /// Drops a piece.
    pub fn remove(&mut self, piece: PieceIndex) {
        if self.pieces.remove(&piece).is_some() && self.pieces.is_empty() {
            // An empty tree keeps the memory of its root.
            self.pieces = BTreeMap::new();
        }
    }

    /// Drops the pieces for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(PieceIndex) -> bool) {
        self.pieces.retain(|piece, _| keep(*piece));
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Whether a chunk is among them.
    pub fn contains(&self, geometry: &Geometry, chunk: ChunkIndex) -> bool {
        let piece = geometry.piece_of(chunk);
        let (word, bit) = place(chunk.number() - geometry.chunk_numbers(piece).start);
        self.pieces.get(&piece).is_some_and(|bits| bits[word] & bit != 0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The pieces, rising.
    pub fn pieces(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.pieces.keys().copied()
    }

    /// The chunks of a piece that are among them: a bit for each, counted from the piece's first.
    pub(crate) fn words_of(&self, piece: PieceIndex) -> [u64; WORDS] {
        self.pieces.get(&piece).copied().unwrap_or_default()
    }

    /// The chunks of a piece that are among them, rising.
    pub fn chunks_of(&self, geometry: &Geometry, piece: PieceIndex) -> impl Iterator<Item = ChunkIndex> + '_ {
        let bits = self.pieces.get(&piece);
        let chunks = geometry.chunks_of(piece).enumerate();
        chunks.filter(move |(at, _)| bits.is_some_and(|bits| is_set(bits, *at as u32))).map(|(_, chunk)| chunk)
    }
}

impl WireParts {
    /// How many pieces of this geometry fit a message.
    pub fn most(geometry: &Geometry) -> usize {
        MAX_PARTS.min(MAX_PARTS_LEN / bits_len(geometry))
    }

    /// These parts, which must not be of more pieces than fit.
    pub fn of(parts: &Parts, geometry: &Geometry) -> Self {
        debug_assert!(parts.pieces.len() <= Self::most(geometry), "parts fit a message");
        let bits_of = |bits: &[u64; WORDS]| bits.map(u64::to_le_bytes).into_iter().flatten().take(bits_len(geometry));
        WireParts { pieces: WireDelta::of(parts.pieces()), chunks: parts.pieces.values().flat_map(bits_of).collect() }
    }

    /// The parts, if they fit the geometry.
    pub fn to_parts(&self, geometry: &Geometry) -> Result<Parts, HaveError> {
        let pieces = self.pieces.pieces(geometry)?;
        let bits_len = bits_len(geometry);
        if self.chunks.len() != pieces.len() * bits_len {
            return Err(HaveError::Bitmap);
        }
        let mut parts = Parts::default();
        for (piece, bytes) in pieces.into_iter().zip(self.chunks.chunks_exact(bits_len)) {
            let mut bits = [0; WORDS];
            for (at, byte) in bytes.iter().enumerate() {
                bits[at / 8] |= u64::from(*byte) << (at % 8 * 8);
            }
            let Range { start, end } = geometry.chunk_numbers(piece);
            let has_spare = (end - start..bits_len as u32 * 8).any(|at| is_set(&bits, at));
            if has_spare || bits == [0; WORDS] {
                return Err(HaveError::Bitmap);
            }
            parts.pieces.insert(piece, bits);
        }
        Ok(parts)
    }

    /// Whether it keeps the bounds that hold for every image.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let pieces = self.pieces.0.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(u64::from(*len)));
        let fits = self.pieces.0.len() <= MAX_PARTS && pieces <= MAX_PARTS as u64 && self.chunks.len() <= MAX_PARTS_LEN;
        if fits { Ok(()) } else { Err("parts of too many pieces") }
    }
}

/// Bytes of the bits of one piece.
const fn bits_len(geometry: &Geometry) -> usize {
    geometry.chunks_per_piece().div_ceil(8) as usize
}

const fn place(at: u32) -> (usize, u64) {
    (at as usize / 64, 1 << (at % 64))
}

const fn is_set(bits: &[u64; WORDS], at: u32) -> bool {
    let (word, bit) = place(at);
    bits[word] & bit != 0
}
