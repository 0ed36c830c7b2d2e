//! Some chunks of one piece: a bit for each, counted from the piece's first chunk.
//!
//! A piece has at most 256 chunks, so a mask is four words and every question about a whole request is a few
//! instructions, where a list of numbers would have to be walked chunk by chunk.

use core::ops::Range;

use crate::geometry::{CHUNK_LEN, ChunkIndex, Geometry, MAX_PIECE_LEN, PieceIndex};
use crate::have::ChunkSet;
use crate::parts::Parts;

const WORDS: usize = (MAX_PIECE_LEN / CHUNK_LEN) as usize / 64;

/// A set of chunks of one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ChunkMask([u64; WORDS]);

impl ChunkMask {
    /// Those of a piece that are in a set.
    pub(super) fn of(set: &ChunkSet, geometry: &Geometry, piece: PieceIndex) -> Self {
        let Range { start, end } = geometry.chunk_numbers(piece);
        let mut mask = ChunkMask::default();
        // A piece begins at a word, or lies within one: its length is a power of two.
        let (first, shift) = (start as usize / 64, start % 64);
        let words = &set.words()[first..end.div_ceil(64) as usize];
        for (mine, its) in mask.0.iter_mut().zip(words) {
            *mine = its >> shift;
        }
        mask.and(ChunkMask::first(end - start))
    }

    /// Those of a piece that are among parts.
    pub(super) fn of_parts(parts: &Parts, piece: PieceIndex) -> Self {
        ChunkMask(parts.words_of(piece))
    }

    /// The first `count` chunks.
    pub(super) fn first(count: u32) -> Self {
        let mut mask = ChunkMask::default();
        for (at, word) in (0..).step_by(64).zip(&mut mask.0) {
            let bits = count.saturating_sub(at).min(64);
            *word = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
        }
        mask
    }

    /// A single chunk.
    pub(super) fn single(geometry: &Geometry, chunk: ChunkIndex) -> Self {
        let mut mask = ChunkMask::default();
        mask.insert(chunk.number() - geometry.chunk_numbers(geometry.piece_of(chunk)).start);
        mask
    }

    /// Adds the chunk at this place.
    pub(super) fn insert(&mut self, at: u32) {
        self.0[at as usize / 64] |= 1 << (at % 64);
    }

    /// Those that are in both.
    pub(super) fn and(self, other: Self) -> Self {
        self.with(other, |mine, its| mine & its)
    }

    /// Those that are in either.
    pub(super) fn or(self, other: Self) -> Self {
        self.with(other, |mine, its| mine | its)
    }

    /// Those that are not in the other.
    pub(super) fn without(self, other: Self) -> Self {
        self.with(other, |mine, its| mine & !its)
    }

    /// How many there are.
    pub(super) fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether there are none.
    pub(super) fn is_empty(self) -> bool {
        self == ChunkMask::default()
    }

    /// Places of the chunks, rising.
    pub(super) fn iter(self) -> impl Iterator<Item = u32> {
        let mut after = 0;
        core::iter::from_fn(move || {
            let at = self.next_where(after, 0)?;
            after = at + 1;
            Some(at)
        })
    }

    /// Numbers within the image, as maximal runs.
    pub(super) fn runs(self, geometry: &Geometry, piece: PieceIndex) -> impl Iterator<Item = Range<u32>> {
        let first = geometry.chunk_numbers(piece).start;
        let mut after = 0;
        core::iter::from_fn(move || {
            let start = self.next_where(after, 0)?;
            after = self.next_where(start, u64::MAX).unwrap_or(WORDS as u32 * 64);
            Some(first + start..first + after)
        })
    }

    /// Bytes of these chunks.
    pub(super) fn bytes(self, geometry: &Geometry, piece: PieceIndex) -> u64 {
        let Range { start, end } = geometry.chunk_numbers(piece);
        let whole = u64::from(self.count()) * u64::from(CHUNK_LEN);
        let has_last = self.0[(end - start - 1) as usize / 64] >> ((end - start - 1) % 64) & 1 == 1;
        match geometry.chunk(end - 1).filter(|_| has_last) {
            Some(last) => whole - u64::from(CHUNK_LEN - geometry.chunk_len(last)),
            None => whole,
        }
    }

    /// The first of them, at most `bytes` in at most `runs` runs, but at least one if there are any.
    pub(super) fn front(self, geometry: &Geometry, piece: PieceIndex, bytes: u64, runs: usize) -> Self {
        if self.bytes(geometry, piece) <= bytes && self.run_count() <= runs {
            return self;
        }
        let first = geometry.chunk_numbers(piece).start;
        let mut front = ChunkMask::default();
        let (mut len, mut run_count, mut last) = (0, 0, None);
        for at in self.iter() {
            len += geometry.chunk(first + at).map_or(0, |chunk| u64::from(geometry.chunk_len(chunk)));
            run_count += usize::from(last.is_none_or(|last| last + 1 != at));
            if last.is_some() && (len > bytes || run_count > runs) {
                break;
            }
            front.insert(at);
            last = Some(at);
        }
        front
    }

    /// The last `count` of them.
    pub(super) fn rear(self, count: u32) -> Self {
        let mut rear = self;
        let mut surplus = self.count().saturating_sub(count);
        for word in &mut rear.0 {
            while surplus > 0 && *word != 0 {
                *word &= *word - 1;
                surplus -= 1;
            }
        }
        rear
    }

    /// The first place from `from` on whose bit, flipped by `flip`, is set.
    fn next_where(self, from: u32, flip: u64) -> Option<u32> {
        let mut mask = u64::MAX << (from % 64);
        for (at, word) in self.0.iter().enumerate().skip(from as usize / 64) {
            let bits = (word ^ flip) & mask;
            if bits != 0 {
                return Some(at as u32 * 64 + bits.trailing_zeros());
            }
            mask = u64::MAX;
        }
        None
    }

    fn run_count(self) -> usize {
        let mut before = 0;
        let mut count = 0;
        for word in self.0 {
            count += (word & !(word << 1 | before)).count_ones() as usize;
            before = word >> 63;
        }
        count
    }

    fn with(self, other: Self, join: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = self.0;
        words.iter_mut().zip(other.0).for_each(|(mine, its)| *mine = join(*mine, its));
        ChunkMask(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(places: &[u32]) -> ChunkMask {
        let mut mask = ChunkMask::default();
        places.iter().for_each(|&at| mask.insert(at));
        mask
    }

    #[test]
    fn a_mask_is_the_piece_s_part_of_a_set() {
        for piece_len in [128 << 10, 1 << 20, 4 << 20, 16 << 20] {
            let geometry = Geometry::new((40 << 20) + 100, piece_len).unwrap();
            let mut set = ChunkSet::empty(&geometry);
            geometry.chunks().filter(|chunk| chunk.number() % 3 != 1).for_each(|chunk| {
                set.insert(chunk);
            });
            for piece in geometry.pieces() {
                let held: Vec<u32> =
                    geometry.chunks_of(piece).filter(|&chunk| set.contains(chunk)).map(ChunkIndex::number).collect();
                let mask = ChunkMask::of(&set, &geometry, piece);
                assert_eq!(mask.runs(&geometry, piece).flatten().collect::<Vec<_>>(), held);
                assert_eq!(mask.count() as usize, held.len());
                let bytes = held.iter().filter_map(|&number| geometry.chunk(number));
                let bytes: u64 = bytes.map(|chunk| u64::from(geometry.chunk_len(chunk))).sum();
                assert_eq!(mask.bytes(&geometry, piece), bytes);
                assert_eq!(mask.run_count(), mask.runs(&geometry, piece).count());
            }
        }
    }

    #[test]
    fn the_front_is_bounded_and_never_empty() {
        let geometry = Geometry::new(64 << 20, 16 << 20).unwrap();
        let piece = geometry.piece(1).unwrap();
        let chosen = mask(&[0, 1, 2, 64, 65, 200]);
        let front = |bytes, runs| chosen.front(&geometry, piece, bytes, runs);
        assert_eq!(front(1 << 30, 9), chosen);
        assert_eq!(front(1 << 30, 2), mask(&[0, 1, 2, 64, 65]));
        assert_eq!(front(4 * u64::from(CHUNK_LEN), 9), mask(&[0, 1, 2, 64]));
        assert_eq!(front(1, 9), mask(&[0]));
        assert_eq!(chosen.rear(2), mask(&[65, 200]));
    }

    #[test]
    fn the_first_chunks_are_a_run() {
        for count in [0, 1, 63, 64, 65, 255, 256] {
            assert_eq!(ChunkMask::first(count).iter().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }
}
