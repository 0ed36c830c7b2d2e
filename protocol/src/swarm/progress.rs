//! What of the image is held, what is asked for, and what is neither.
//!
//! A data chunk is held, or missing; a missing one is asked for of nobody, of one peer, or of two. Everything else here
//! is a sum over that, kept so that nothing has to be counted on the way of a chunk. Chunks of zeros are nobody's
//! concern: a piece is held when all its data chunks are, so a piece of zeros is held from the start.

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
    data: ChunkSet,
    held: ChunkSet,
    asked: ChunkSet,
    doubled: ChunkSet,
    /// Per piece, data chunks that it has.
    in_piece: Vec<u16>,
    /// Per piece, data chunks that are not held.
    missing: Vec<u16>,
    /// Per piece, data chunks that are neither held nor asked for.
    unasked: Vec<u16>,
    /// Sum of `unasked`.
    unasked_chunks: u32,
    held_pieces: PieceSet,
    /// Pieces with unasked chunks beside held or asked ones.
    begun: PieceSet,
    /// Pieces of which some data chunks are held, but not all.
    partial: PieceSet,
    held_bytes: u64,
    data_bytes: u64,
}

impl Progress {
    /// Of an image with these `data` chunks, of which `held` are stored.
    pub(super) fn new(geometry: Geometry, data: ChunkSet, held: &ChunkSet) -> Self {
        let pieces = geometry.piece_count() as usize;
        let mut progress = Progress {
            geometry,
            held: ChunkSet::empty(&geometry),
            asked: ChunkSet::empty(&geometry),
            doubled: ChunkSet::empty(&geometry),
            in_piece: vec![0; pieces],
            missing: vec![0; pieces],
            unasked: vec![0; pieces],
            unasked_chunks: data.count(),
            held_pieces: PieceSet::empty(&geometry),
            begun: PieceSet::empty(&geometry),
            partial: PieceSet::empty(&geometry),
            held_bytes: 0,
            data_bytes: data.iter().map(|chunk| u64::from(geometry.chunk_len(chunk))).sum(),
            data,
        };
        for chunk in progress.data.iter() {
            progress.in_piece[geometry.piece_of(chunk).number() as usize] += 1;
        }
        progress.missing.clone_from(&progress.in_piece);
        progress.unasked.clone_from(&progress.in_piece);
        for piece in geometry.pieces().filter(|piece| progress.missing[piece.number() as usize] == 0) {
            progress.held_pieces.insert(piece);
        }
        for chunk in held.iter() {
            progress.store(chunk);
        }
        progress
    }

    /// A chunk is held from now on.
    pub(super) fn store(&mut self, chunk: ChunkIndex) -> Gain {
        if !self.data.contains(chunk) || !self.held.insert(chunk) {
            return Gain::Nothing;
        }
        let piece = self.geometry.piece_of(chunk);
        let at = piece.number() as usize;
        self.held_bytes += u64::from(self.geometry.chunk_len(chunk));
        self.missing[at] -= 1;
        if !self.asked.remove(chunk) {
            self.unasked[at] -= 1;
            self.unasked_chunks -= 1;
        }
        self.doubled.remove(chunk);
        self.note_begun(piece);
        if self.missing[at] > 0 {
            return Gain::Chunk;
        }
        self.held_pieces.insert(piece);
        Gain::Piece
    }

    /// A chunk is not held any more; says whether it was.
    pub(super) fn lose(&mut self, chunk: ChunkIndex) -> bool {
        if !self.held.remove(chunk) {
            return false;
        }
        let piece = self.geometry.piece_of(chunk);
        let at = piece.number() as usize;
        self.held_bytes -= u64::from(self.geometry.chunk_len(chunk));
        self.missing[at] += 1;
        self.unasked[at] += 1;
        self.unasked_chunks += 1;
        self.held_pieces.remove(piece);
        self.note_begun(piece);
        true
    }

    /// A missing chunk is asked for of one peer (more).
    pub(super) fn ask(&mut self, chunk: ChunkIndex) {
        debug_assert!(self.is_missing(chunk), "only a missing chunk is asked for");
        if self.asked.insert(chunk) {
            let piece = self.geometry.piece_of(chunk);
            self.unasked[piece.number() as usize] -= 1;
            self.unasked_chunks -= 1;
            self.note_begun(piece);
        } else {
            let new = self.doubled.insert(chunk);
            debug_assert!(new, "a chunk is asked for of at most two peers");
        }
    }

    /// A peer that was asked for a chunk won't bring it.
    pub(super) fn unask(&mut self, chunk: ChunkIndex) {
        if self.doubled.remove(chunk) || !self.asked.remove(chunk) {
            return;
        }
        debug_assert!(self.is_missing(chunk), "a held chunk is not asked for");
        let piece = self.geometry.piece_of(chunk);
        self.unasked[piece.number() as usize] += 1;
        self.unasked_chunks += 1;
        self.note_begun(piece);
    }

    /// Chunks held.
    pub(super) fn held(&self) -> &ChunkSet {
        &self.held
    }

    /// Pieces held.
    pub(super) fn held_pieces(&self) -> &PieceSet {
        &self.held_pieces
    }

    /// Pieces of which something, but not everything, is held or asked for.
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

    /// Whether a chunk can be given to others: it is held, or nothing but zeros.
    pub(super) fn is_servable(&self, chunk: ChunkIndex) -> bool {
        self.held.contains(chunk) || !self.data.contains(chunk)
    }

    /// Whether a chunk is needed and not held.
    pub(super) fn is_missing(&self, chunk: ChunkIndex) -> bool {
        self.data.contains(chunk) && !self.held.contains(chunk)
    }

    /// Whether a chunk is asked for of two peers.
    pub(super) fn is_doubled(&self, chunk: ChunkIndex) -> bool {
        self.doubled.contains(chunk)
    }

    /// Whether a chunk is missing and asked for of nobody.
    pub(super) fn is_unasked(&self, chunk: ChunkIndex) -> bool {
        self.is_missing(chunk) && !self.asked.contains(chunk)
    }

    /// Whether a piece has chunks that are missing and asked for of nobody.
    pub(super) fn is_open(&self, piece: PieceIndex) -> bool {
        self.unasked[piece.number() as usize] > 0
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

    /// Numbers of the unasked chunks among these rising numbers, at most `bytes` of them in at most `runs` runs, but at
    /// least one.
    pub(super) fn unasked_in(&self, numbers: impl IntoIterator<Item = u32>, bytes: u64, runs: usize) -> Vec<u32> {
        let mut chosen: Vec<u32> = Vec::new();
        let (mut len, mut run_count) = (0, 0);
        for number in numbers {
            let Some(chunk) = self.geometry.chunk(number).filter(|&chunk| self.is_unasked(chunk)) else { continue };
            let begins_run = chosen.last().is_none_or(|last| last + 1 != number);
            len += u64::from(self.geometry.chunk_len(chunk));
            run_count += usize::from(begins_run);
            if !chosen.is_empty() && (len > bytes || run_count > runs) {
                break;
            }
            chosen.push(number);
        }
        chosen
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
            unasked_chunks += unasked;
        }
        assert_eq!(unasked_chunks, self.unasked_chunks as usize);
    }

    /// Of how many peers a chunk is asked for.
    #[cfg(test)]
    pub(super) fn copies(&self, chunk: ChunkIndex) -> u8 {
        u8::from(self.asked.contains(chunk)) + u8::from(self.doubled.contains(chunk))
    }

    fn note_begun(&mut self, piece: PieceIndex) {
        let at = piece.number() as usize;
        if (1..self.in_piece[at]).contains(&self.missing[at]) {
            self.partial.insert(piece);
        } else {
            self.partial.remove(piece);
        }
        if (1..self.in_piece[at]).contains(&self.unasked[at]) {
            self.begun.insert(piece);
        } else {
            self.begun.remove(piece);
        }
    }
}
