//! Which blocks next: the union of what members lack, what most of them lack first, each piece once for all.
//!
//! A piece that was sent is wanted by nobody who was there: what got lost on the way is a matter of repair, and of the swarm. It
//! is wanted again by those who join later. So nothing is sent in a circle, and a late joiner costs what it lacks,
//! if enough others lack it, too.

use std::collections::VecDeque;

use super::members::Members;
use crate::geometry::{ChunkIndex, Geometry, PieceIndex};
use crate::have::{ChunkSet, PieceSet};
use crate::rng::Rng;

/// How many members want each piece, and what is left of the piece that is being sent.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    geometry: Geometry,
    /// Chunks that are not zeros.
    data: ChunkSet,
    wanted: Vec<u32>,
    rest: VecDeque<ChunkIndex>,
    rng: Rng,
}

impl Schedule {
    /// Nobody wants anything yet.
    pub(super) fn new(geometry: Geometry, data: ChunkSet, rng: Rng) -> Self {
        let wanted = vec![0; geometry.piece_count() as usize];
        Schedule { geometry, data, wanted, rest: VecDeque::new(), rng }
    }

    /// The pieces that somebody wants who holds `held`.
    pub(super) fn lacking(&self, held: &PieceSet) -> PieceSet {
        let mut lacking = PieceSet::empty(&self.geometry);
        let pieces = self.geometry.pieces().filter(|&piece| !held.contains(piece));
        for piece in pieces.filter(|&piece| self.geometry.chunks_of(piece).any(|chunk| self.data.contains(chunk))) {
            lacking.insert(piece);
        }
        lacking
    }

    /// Somebody wants these pieces.
    pub(super) fn want(&mut self, pieces: &PieceSet) {
        pieces.iter().for_each(|piece| self.wanted[piece.number() as usize] += 1);
    }

    /// Somebody who wanted these pieces does not any more.
    pub(super) fn forgo(&mut self, pieces: impl Iterator<Item = PieceIndex>) {
        for piece in pieces {
            let wanted = &mut self.wanted[piece.number() as usize];
            *wanted = wanted.checked_sub(1).expect("who forgoes a piece wanted it");
        }
    }

    /// The next blocks, at most `most`, of pieces that at least `least` members want; none if there are no such.
    pub(super) fn next_blocks(&mut self, members: &mut Members, most: usize, least: u32) -> Vec<ChunkIndex> {
        let mut blocks = Vec::with_capacity(most);
        while blocks.len() < most {
            if let Some(chunk) = self.rest.pop_front() {
                blocks.push(chunk);
            } else if let Some(piece) = self.next_piece(least) {
                self.wanted[piece.number() as usize] = 0;
                members.satisfy(piece);
                self.rest.extend(self.geometry.chunks_of(piece).filter(|&chunk| self.data.contains(chunk)));
            } else {
                break;
            }
        }
        blocks
    }

    /// Whether there is anything that at least `least` members want.
    pub(super) fn has_work(&self, least: u32) -> bool {
        !self.rest.is_empty() || self.wanted.iter().any(|&wanted| wanted >= least.max(1))
    }

    /// The piece that most want; a random one of those that equally many want.
    fn next_piece(&mut self, least: u32) -> Option<PieceIndex> {
        let most = self.wanted.iter().copied().max().filter(|&most| most >= least.max(1))?;
        let equal = self.wanted.iter().filter(|&&wanted| wanted == most).count();
        let at = self.rng.below(equal as u32) as usize;
        let mut pieces = self.geometry.pieces().filter(|piece| self.wanted[piece.number() as usize] == most);
        Some(pieces.nth(at).expect("there are so many"))
    }
}
