//! Which piece next: a waiting reader's, one that is begun, a random one at first, then the rarest.
//!
//! Begun pieces come before new ones, since only whole pieces are announced; several sources of a piece share it by
//! taking different chunks. The first pieces are random, so that a newcomer has something to give soon instead of
//! queueing with everybody for the rarest. There is no natural order anywhere: a cohort that fetches front to back has
//! nothing to exchange.

use std::collections::VecDeque;

use core::ops::Range;

use super::availability::{Availability, any_of};
use super::mask::ChunkMask;
use super::progress::Progress;
use crate::geometry::{Geometry, PieceIndex};
use crate::have::PieceSet;
use crate::message::MAX_RANGES;
use crate::rng::Rng;

/// Most readers' ranges that are remembered; beyond that the oldest is forgotten (and fetched like everything else).
const READERS_MOST: usize = 256;

/// What may be asked of one peer.
pub(super) struct Offer<'a> {
    /// Pieces that it holds.
    pub(super) have: &'a PieceSet,
    /// Pieces that it is not to be asked for.
    pub(super) except: &'a [&'a PieceSet],
    /// Whether only pieces may be asked of it that nobody but seeders hold, and how many seeders there are.
    pub(super) only_with_seeders: Option<usize>,
    /// How much, in bytes.
    pub(super) len: u64,
}

/// What to ask for: a piece and chunks of it.
pub(super) type Pick = (PieceIndex, ChunkMask);

/// What is waited for, and how many pieces were begun.
#[derive(Debug)]
pub(super) struct Picker {
    geometry: Geometry,
    readers: VecDeque<Range<u32>>,
    random_left: u32,
}

impl Picker {
    /// A picker that begins with so many random pieces.
    pub(super) fn new(geometry: Geometry, random_first: u32) -> Self {
        Picker { geometry, readers: VecDeque::new(), random_left: random_first }
    }

    /// Somebody waits for these chunks.
    pub(super) fn add_reader(&mut self, chunks: Range<u32>) {
        let chunks = chunks.start..chunks.end.min(self.geometry.chunk_count());
        if chunks.is_empty() || self.readers.contains(&chunks) {
            return;
        }
        if self.readers.len() == READERS_MOST {
            self.readers.pop_front();
        }
        self.readers.push_back(chunks);
    }

    /// Whether somebody waits for something.
    pub(super) fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// What to ask next of a peer for a reader.
    pub(super) fn pick_for_reader(&mut self, progress: &Progress, offer: &Offer<'_>) -> Option<Pick> {
        let geometry = self.geometry;
        self.readers.retain_mut(|chunks| {
            let held = |number: u32| geometry.chunk(number).is_none_or(|chunk| !progress.is_missing(chunk));
            while chunks.start < chunks.end && held(chunks.start) {
                chunks.start += 1;
            }
            chunks.start < chunks.end
        });
        self.readers.iter().find_map(|chunks| {
            let wanted = chunks.clone().filter_map(|number| geometry.chunk(number));
            let first = wanted
                .filter(|&chunk| progress.is_unasked(chunk))
                .find(|&chunk| offer.have.contains(geometry.piece_of(chunk)))?;
            let piece = geometry.piece_of(first);
            let within = geometry.chunk_numbers(piece);
            let (from, to) = (first.number() - within.start, within.end.min(chunks.end) - within.start);
            let wanted = ChunkMask::first(to).without(ChunkMask::first(from));
            Some((piece, progress.unasked_among(piece, wanted).front(&geometry, piece, offer.len, MAX_RANGES)))
        })
    }

    /// What to ask next of a peer.
    pub(super) fn pick(
        &mut self,
        progress: &Progress,
        availability: &Availability,
        offer: &Offer<'_>,
        rng: &mut Rng,
    ) -> Option<Pick> {
        let piece = self.pick_piece(progress, availability, offer, rng)?;
        let chunks = progress.askable(piece).front(&self.geometry, piece, offer.len, MAX_RANGES);
        debug_assert!(!chunks.is_empty(), "an open piece has chunks to ask for");
        (!chunks.is_empty()).then_some((piece, chunks))
    }

    fn pick_piece(
        &mut self,
        progress: &Progress,
        availability: &Availability,
        offer: &Offer<'_>,
        rng: &mut Rng,
    ) -> Option<PieceIndex> {
        let geometry = &self.geometry;
        if let Some(seeders) = offer.only_with_seeders {
            return availability
                .any_with(seeders, progress.begun(), offer.except, rng)
                .or_else(|| availability.any_with(seeders, offer.have, offer.except, rng));
        }
        if let Some(begun) = any_of(progress.begun(), offer.have, offer.except, geometry, rng) {
            return Some(begun);
        }
        if self.random_left > 0 {
            self.random_left -= 1;
            return any_of(availability.open(), offer.have, offer.except, geometry, rng);
        }
        availability.rarest(offer.have, offer.except, rng)
    }
}
