//! The answering side: which requests are served, which refused, and with what advice.

use core::ops::Range;
use core::time::Duration;

use super::Swarm;
use super::event::{Output, Refusal, ServeId};
use super::mask::ChunkMask;
use super::slots::{Claim, Job};
use crate::geometry::PieceIndex;
use crate::id::PeerId;
use crate::message::MAX_RANGES;
use crate::time::Instant;

/// A laggard holds less than this part of what the furthest leecher holds, once that is so many pieces.
const LAGGARD_SHARE: u32 = 2;
const LAGGARD_FROM: u32 = 16;
/// Pieces that a peer may have had from us for a while, beyond those that it says it holds, before it counts as one that only
/// takes: others still have the rest of them to give.
const UNTOLD_PIECES: u64 = 2;

impl Swarm {
    pub(super) fn hear_request(
        &mut self,
        now: Instant,
        peer: PeerId,
        serve: ServeId,
        piece: u32,
        chunks: &[Range<u32>],
    ) {
        let known = self.geometry.piece(piece).filter(|_| !self.ledger.is_banned(&peer));
        let servable = known.and_then(|piece| Some((piece, self.servable_bytes(piece, chunks)?)));
        let Some((piece, bytes)) = servable else {
            self.outputs.push_back(Output::Refuse { peer, serve, refusal: Refusal::NotHeld });
            return;
        };
        let claim = self.claim(&peer);
        let refusal = match self.slots.admit(now, peer, bytes, claim) {
            Err(retry_after) => Some(Refusal::Busy { retry_after, instead: None }),
            Ok(()) if claim.is_freeloader => None,
            Ok(()) => self.point_elsewhere(now, peer, piece),
        };
        if let Some(refusal) = refusal {
            self.outputs.push_back(Output::Refuse { peer, serve, refusal });
            return;
        }
        let keeps_it = claim.is_freeloader || self.is_laggard(&peer);
        self.handouts.give(peer, piece, keeps_it);
        self.slots.queue(now, peer, Job { serve, bytes }, claim);
    }

    pub(super) fn end_serve(&mut self, now: Instant, serve: ServeId, bytes: u64) {
        let Some(peer) = self.slots.ended(now, serve, bytes) else { return };
        self.ledger.given(now, peer, bytes);
        if let Some(neighbour) = self.peers.get_mut(&peer) {
            neighbour.exchanged = neighbour.exchanged.saturating_add(bytes);
        }
        self.slots.judge(&peer, self.claim(&peer));
    }

    /// Hands what may be served now to the driver.
    pub(super) fn serve_next(&mut self, now: Instant) {
        while let Some((peer, serve)) = self.slots.next(now) {
            self.outputs.push_back(Output::Serve { peer, serve });
        }
    }

    fn point_elsewhere(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) -> Option<Refusal> {
        for released in self.handouts.release(now) {
            self.note_piece(released);
        }
        if self.is_laggard(&peer) {
            return None;
        }
        let instead = self.handouts.instead(now, peer, piece, &mut self.rng)?;
        Some(Refusal::Busy { retry_after: Duration::ZERO, instead: Some(instead) })
    }

    /// Whether a peer is so far behind the others that a piece given to it is not soon to be had from it.
    fn is_laggard(&self, peer: &PeerId) -> bool {
        let most = self.most_of_leechers.saturating_sub(self.zero_pieces);
        let held = self.peers.get(peer).map_or(0, |neighbour| neighbour.have.count().saturating_sub(self.zero_pieces));
        most >= LAGGARD_FROM && held * LAGGARD_SHARE < most
    }

    /// Counts anew how many pieces the leecher holds that holds most.
    pub(super) fn count_most_of_leechers(&self) -> u32 {
        let leechers = self.peers.values().filter(|neighbour| neighbour.has_answered && !neighbour.is_seeder());
        leechers.map(|neighbour| neighbour.have.count()).max().unwrap_or(0)
    }

    fn claim(&self, peer: &PeerId) -> Claim {
        let told = self.peers.get(peer).filter(|peer| peer.has_answered).map(|peer| peer.have.count());
        let held = told.unwrap_or(0);
        let is_freeloader = self.is_freeloader(peer, held);
        let is_newcomer = told.is_some_and(|held| held <= self.zero_pieces) && !is_freeloader;
        Claim { held, is_newcomer, is_freeloader }
    }

    /// Whether a peer takes much more than it ever says it holds, so that nobody has anything of what it is given.
    ///
    /// One that says what it does not serve either has taken everything at some time, and then is served no more than others.
    fn is_freeloader(&self, peer: &PeerId, held: u32) -> bool {
        let piece_len = u64::from(self.geometry.piece_len());
        let told = u64::from(held.saturating_sub(self.zero_pieces)) * piece_len;
        self.ledger.of(peer).given_before > told + UNTOLD_PIECES * piece_len
    }

    /// Bytes of chunks that a peer asks for, if they are well-formed ranges of this piece and all of them can be given.
    fn servable_bytes(&self, piece: PieceIndex, chunks: &[Range<u32>]) -> Option<u64> {
        let within = self.geometry.chunk_numbers(piece);
        if chunks.is_empty() || chunks.len() > MAX_RANGES {
            return None;
        }
        let (mut after, mut wanted) = (within.start, ChunkMask::default());
        for range in chunks {
            if range.is_empty() || range.start < after || range.end > within.end {
                return None;
            }
            after = range.end;
            let before = ChunkMask::first(range.start - within.start);
            wanted = wanted.or(ChunkMask::first(range.end - within.start).without(before));
        }
        let is_servable = wanted.without(self.progress.servable(piece)).is_empty();
        is_servable.then(|| wanted.bytes(&self.geometry, piece))
    }
}
