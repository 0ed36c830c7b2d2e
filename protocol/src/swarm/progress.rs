//! What of the image is held, what is asked for, and what is neither.
//!
//! A data chunk is held, or missing; a missing one is asked for of nobody, of one peer, or of two. Everything else here
//! is a sum over that, kept so that nothing has to be counted on the way of a chunk. Chunks of zeros are nobody's
//! concern: a piece is held when all its data chunks are, so a piece of zeros is held from the start.
//!
//! While another way than requests brings the rest, only what that missed may be asked for (see `carrier`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mask::ChunkMask;
use crate::geometry::{ChunkIndex, Geometry, PieceIndex};
use crate::have::{ChunkSet, PieceSet};

/// What came of a chunk that was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gain {
    /// It was held already.
    Nothing,
    /// It is new.
    Chunk,
    /// It is new, and the last of its piece.
    Piece,
}

/// The state of every chunk and piece.
#[derive(Debug)]
pub(super) struct Progress {
    geometry: Geometry,
    data: Arc<ChunkSet>,
    held: ChunkSet,
    /// What is asked for, of the pieces of which something is: few at a time, however long the image.
    asked: BTreeMap<PieceIndex, Asked>,
    /// What another way was to bring and did not, of the pieces of which there is any; and whether only that may be asked for.
    missed: BTreeMap<PieceIndex, ChunkMask>,
    is_only_missed: bool,
    /// Per piece, data chunks that it has.
    in_piece: Vec<u16>,
    /// Per piece, data chunks that are not held.
    missing: Vec<u16>,
    /// Per piece, data chunks that are neither held nor asked for.
    unasked: Vec<u16>,
    /// Sum of `unasked`.
    unasked_chunks: u32,
    held_pieces: PieceSet,
    /// Pieces with chunks that may be asked for beside held or asked ones.
    begun: PieceSet,
    /// Pieces of which some data chunks are held, but not all.
    partial: PieceSet,
    held_bytes: u64,
    data_bytes: u64,
}

/// Chunks of one piece that are asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Of one peer or of two.
    any: ChunkMask,
    /// Of two.
    twice: ChunkMask,
}

impl Progress {
    /// Of an image with these `data` chunks, of which `held` are stored.
    pub(super) fn new(geometry: Geometry, data: Arc<ChunkSet>, held: &ChunkSet) -> Self {
        let of_piece = |piece| ChunkMask::of(&data, &geometry, piece);
        let in_piece: Vec<u16> = geometry.pieces().map(|piece| of_piece(piece).count() as u16).collect();
        let mut progress = Progress {
            geometry,
            held: ChunkSet::empty(&geometry),
            asked: BTreeMap::new(),
            missed: BTreeMap::new(),
            is_only_missed: false,
            missing: in_piece.clone(),
            unasked: in_piece.clone(),
            in_piece,
            unasked_chunks: data.count(),
            held_pieces: PieceSet::empty(&geometry),
            begun: PieceSet::empty(&geometry),
            partial: PieceSet::empty(&geometry),
            held_bytes: 0,
            data_bytes: geometry.pieces().map(|piece| of_piece(piece).bytes(&geometry, piece)).sum(),
            data,
        };
        for piece in geometry.pieces() {
            if progress.missing[piece.number() as usize] == 0 {
                progress.held_pieces.insert(piece);
            }
            progress.store(piece, ChunkMask::of(held, &geometry, piece));
        }
        progress
    }

    /// Chunks of a piece are held from now on. Gives those that are new, and whether they were the last of the piece.
    pub(super) fn store(&mut self, piece: PieceIndex, chunks: ChunkMask) -> (ChunkMask, Gain) {
        let new = self.missing_among(piece, chunks);
        if new.is_empty() {
            return (new, Gain::Nothing);
        }
        let at = piece.number() as usize;
        for run in new.runs(&self.geometry, piece) {
            self.held.insert_run(run);
        }
        self.held_bytes += new.bytes(&self.geometry, piece);
        self.missing[at] -= new.count() as u16;
        let asked = self.asked_of(piece);
        self.note_unasked(piece, new.without(asked.any).count(), true);
        self.set_asked(piece, Asked { any: asked.any.without(new), twice: asked.twice.without(new) });
        if let Some(missed) = self.missed.get_mut(&piece) {
            *missed = missed.without(new);
            if missed.is_empty() {
                self.missed.remove(&piece);
            }
        }
        self.note_begun(piece);
        if self.missing[at] > 0 {
            return (new, Gain::Chunk);
        }
        self.held_pieces.insert(piece);
        (new, Gain::Piece)
    }

    /// A chunk is not held any more; says whether it was.
    pub(super) fn lose(&mut self, chunk: ChunkIndex) -> bool {
        if !self.held.remove(chunk) {
            return false;
        }
        let piece = self.geometry.piece_of(chunk);
        self.held_bytes -= u64::from(self.geometry.chunk_len(chunk));
        self.missing[piece.number() as usize] += 1;
        self.note_unasked(piece, 1, false);
        self.held_pieces.remove(piece);
        self.note_begun(piece);
        true
    }

    /// Missing chunks are asked for of one peer (more).
    pub(super) fn ask(&mut self, piece: PieceIndex, chunks: ChunkMask) {
        let asked = self.asked_of(piece);
        debug_assert_eq!(self.missing_among(piece, chunks), chunks, "only a missing chunk is asked for");
        debug_assert!(chunks.and(asked.twice).is_empty(), "a chunk is asked for of at most two peers");
        self.note_unasked(piece, chunks.without(asked.any).count(), true);
        let twice = asked.twice.or(asked.any.and(chunks));
        self.set_asked(piece, Asked { any: asked.any.or(chunks), twice });
        self.note_begun(piece);
    }

    /// A peer that was asked for chunks won't bring them.
    pub(super) fn unask(&mut self, piece: PieceIndex, chunks: ChunkMask) {
        let asked = self.asked_of(piece);
        let dropped = chunks.and(asked.any).without(asked.twice);
        debug_assert_eq!(self.missing_among(piece, dropped), dropped, "a held chunk is not asked for");
        self.note_unasked(piece, dropped.count(), false);
        self.set_asked(piece, Asked { any: asked.any.without(dropped), twice: asked.twice.without(chunks) });
        self.note_begun(piece);
    }

    /// A chunk that another way was to bring did not come; says whether it is missing.
    pub(super) fn miss(&mut self, chunk: ChunkIndex) -> bool {
        let piece = self.geometry.piece_of(chunk);
        let missed = self.missing_among(piece, ChunkMask::single(&self.geometry, chunk));
        if missed.is_empty() {
            return false;
        }
        let all = self.missed.entry(piece).or_default();
        *all = all.or(missed);
        self.note_begun(piece);
        true
    }

    /// From now on only what another way missed may be asked for, or everything.
    pub(super) fn ask_only_missed(&mut self, is_only_missed: bool) {
        self.is_only_missed = is_only_missed;
        for piece in self.geometry.pieces() {
            self.note_begun(piece);
        }
    }

    /// Whether only what another way missed may be asked for.
    pub(super) fn is_only_missed(&self) -> bool {
        self.is_only_missed
    }

    /// Chunks held.
    pub(super) fn held(&self) -> &ChunkSet {
        &self.held
    }

    /// Pieces held.
    pub(super) fn held_pieces(&self) -> &PieceSet {
        &self.held_pieces
    }

    /// Pieces of which something, but not everything, is held or asked for, and more may be.
    pub(super) fn begun(&self) -> &PieceSet {
        &self.begun
    }

    /// Pieces of which something, but not everything, is held.
    pub(super) fn partial(&self) -> &PieceSet {
        &self.partial
    }

    /// Whether every data chunk is held.
    pub(super) fn is_complete(&self) -> bool {
        self.held.count() == self.data.count()
    }

    /// Those of a piece's chunks that can be given to others: what is held, or nothing but zeros.
    pub(super) fn servable(&self, piece: PieceIndex) -> ChunkMask {
        let numbers = self.geometry.chunk_numbers(piece);
        let zeros =
            ChunkMask::first(numbers.end - numbers.start).without(ChunkMask::of(&self.data, &self.geometry, piece));
        zeros.or(ChunkMask::of(&self.held, &self.geometry, piece))
    }

    /// Whether a chunk is needed and not held.
    pub(super) fn is_missing(&self, chunk: ChunkIndex) -> bool {
        self.data.contains(chunk) && !self.held.contains(chunk)
    }

    /// Chunks of a piece that are asked for of two peers.
    pub(super) fn doubled(&self, piece: PieceIndex) -> ChunkMask {
        self.asked_of(piece).twice
    }

    /// Those of a piece's chunks that are missing and asked for of nobody.
    pub(super) fn unasked_among(&self, piece: PieceIndex, chunks: ChunkMask) -> ChunkMask {
        self.missing_among(piece, chunks).without(self.asked_of(piece).any)
    }

    /// Those of a piece's chunks that may be asked for: missing, asked for of nobody, and not left to another way.
    pub(super) fn askable_among(&self, piece: PieceIndex, chunks: ChunkMask) -> ChunkMask {
        let unasked = self.unasked_among(piece, chunks);
        if self.is_only_missed { unasked.and(self.missed.get(&piece).copied().unwrap_or_default()) } else { unasked }
    }

    /// All of a piece's chunks that may be asked for.
    pub(super) fn askable(&self, piece: PieceIndex) -> ChunkMask {
        self.askable_among(piece, ChunkMask::first(self.geometry.chunks_per_piece()))
    }

    /// Whether a chunk is missing and asked for of nobody.
    pub(super) fn is_unasked(&self, chunk: ChunkIndex) -> bool {
        let mask = ChunkMask::single(&self.geometry, chunk);
        self.is_missing(chunk) && self.asked_of(self.geometry.piece_of(chunk)).any.and(mask).is_empty()
    }

    /// Whether a piece has chunks that may be asked for.
    pub(super) fn is_open(&self, piece: PieceIndex) -> bool {
        self.unasked[piece.number() as usize] > 0 && (!self.is_only_missed || !self.askable(piece).is_empty())
    }

    /// Whether something of a piece, but not everything, is held or asked for, or everything and not all held.
    pub(super) fn is_begun(&self, piece: PieceIndex) -> bool {
        let at = piece.number() as usize;
        self.missing[at] > 0 && self.unasked[at] < self.in_piece[at]
    }

    /// Chunks that are missing and asked for of nobody.
    pub(super) fn unasked_chunks(&self) -> u32 {
        self.unasked_chunks
    }

    /// Data bytes held.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Data chunks and data bytes that the image has.
    pub(super) fn data(&self) -> (u32, u64) {
        (self.data.count(), self.data_bytes)
    }

    /// Counts everything anew and compares, for tests.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut unasked_chunks = 0;
        for piece in self.geometry.pieces() {
            let at = piece.number() as usize;
            let missing = self.geometry.chunks_of(piece).filter(|&chunk| self.is_missing(chunk)).count();
            let unasked = self.geometry.chunks_of(piece).filter(|&chunk| self.is_unasked(chunk)).count();
            assert_eq!((missing, unasked), (self.missing[at].into(), self.unasked[at].into()), "{piece:?}");
            assert_eq!(missing == 0, self.held_pieces.contains(piece));
            let held = self.geometry.chunks_of(piece).any(|chunk| self.held.contains(chunk));
            assert_eq!(missing > 0 && held, self.partial.contains(piece), "{piece:?}");
            assert!(!self.begun.contains(piece) || !self.askable(piece).is_empty(), "{piece:?}");
            unasked_chunks += unasked;
        }
        assert_eq!(unasked_chunks, self.unasked_chunks as usize);
    }

    /// Of how many peers a chunk is asked for.
    #[cfg(test)]
    pub(super) fn copies(&self, chunk: ChunkIndex) -> u8 {
        let (asked, mask) = (self.asked_of(self.geometry.piece_of(chunk)), ChunkMask::single(&self.geometry, chunk));
        u8::from(!asked.any.and(mask).is_empty()) + u8::from(!asked.twice.and(mask).is_empty())
    }

    fn missing_among(&self, piece: PieceIndex, chunks: ChunkMask) -> ChunkMask {
        let data = ChunkMask::of(&self.data, &self.geometry, piece);
        chunks.and(data).without(ChunkMask::of(&self.held, &self.geometry, piece))
    }

    fn asked_of(&self, piece: PieceIndex) -> Asked {
        self.asked.get(&piece).copied().unwrap_or_default()
    }

    fn set_asked(&mut self, piece: PieceIndex, asked: Asked) {
        if asked.any.is_empty() {
            self.asked.remove(&piece);
        } else {
            self.asked.insert(piece, asked);
        }
    }

    /// So many chunks of a piece are not unasked any more, or are again.
    fn note_unasked(&mut self, piece: PieceIndex, count: u32, is_less: bool) {
        let unasked = &mut self.unasked[piece.number() as usize];
        if is_less {
            *unasked -= count as u16;
            self.unasked_chunks -= count;
        } else {
            *unasked += count as u16;
            self.unasked_chunks += count;
        }
    }

    fn note_begun(&mut self, piece: PieceIndex) {
        let at = piece.number() as usize;
        if (1..self.in_piece[at]).contains(&self.missing[at]) {
            self.partial.insert(piece);
        } else {
            self.partial.remove(piece);
        }
        if (1..self.in_piece[at]).contains(&self.unasked[at]) && self.is_open(piece) {
            self.begun.insert(piece);
        } else {
            self.begun.remove(piece);
        }
    }
}
