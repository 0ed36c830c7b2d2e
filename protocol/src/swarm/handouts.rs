//! Which pieces were handed out, and to whom first: every piece once before any piece twice.
//!
//! While this host is the only one known to hold a piece, and has handed it out to nobody, the piece is *fresh*. As
//! long as there are fresh pieces, a peer that asks for a copy of what another was given is pointed to a fresh one
//! instead: what it asked for can be had from the other soon, the fresh piece from nobody but us. Without this, a lone
//! publisher spends its upload on copies while part of the image exists once.
//!
//! What a *laggard* takes stays fresh: a host that is far behind the others, mostly because its link is slow, has its
//! pieces late and passes them on slowly, and nobody is to wait for that. It isn't pointed elsewhere either.
//!
//! A pointer is advice and must not starve anybody: it is given at most twice for the same piece to the same peer, and
//! a peer that lets pointers lie is served what it asks for.

use core::time::Duration;
use std::collections::BTreeMap;

use super::availability::any_of;
use crate::geometry::{Geometry, PieceIndex};
use crate::have::PieceSet;
use crate::id::PeerId;
use crate::rng::Rng;
use crate::time::Instant;

/// How long a fresh piece that a peer was pointed to is kept for it.
const KEPT_FOR: Duration = Duration::from_millis(500);
/// Fresh pieces that are kept for one peer at most.
const KEPT_MOST: usize = 16;
/// How often the same peer is pointed elsewhere for the same piece.
const POINTED_MOST: u8 = 2;
/// How many pieces are remembered per peer for that.
const POINTED_PIECES_MOST: usize = 64;

/// Which piece went to whom first.
#[derive(Debug)]
pub(super) struct Handouts {
    geometry: Geometry,
    /// To whom a piece was given first, as long as that peer is a neighbour.
    first: BTreeMap<PieceIndex, PeerId>,
    /// Held by us, by nobody else as far as we know, and given to nobody.
    fresh: PieceSet,
    kept: BTreeMap<PeerId, Vec<(PieceIndex, Instant)>>,
    pointed: BTreeMap<PeerId, BTreeMap<PieceIndex, u8>>,
}

impl Handouts {
    /// Nothing was handed out.
    pub(super) fn new(geometry: Geometry) -> Self {
        Handouts {
            geometry,
            first: BTreeMap::new(),
            fresh: PieceSet::empty(&geometry),
            kept: BTreeMap::new(),
            pointed: BTreeMap::new(),
        }
    }

    /// Whether we hold a piece, or how many others do, has changed.
    pub(super) fn update(&mut self, piece: PieceIndex, held: bool, holders: u16) {
        if held && holders == 0 && !self.first.contains_key(&piece) {
            self.fresh.insert(piece);
        } else {
            self.fresh.remove(piece);
        }
    }

    /// A neighbour holds a piece.
    pub(super) fn found_elsewhere(&mut self, piece: PieceIndex) {
        if !self.fresh.is_empty() {
            self.fresh.remove(piece);
        }
    }

    /// A piece that `peer` should rather ask for than `piece`, if there is one and it is not tired of hearing so.
    pub(super) fn instead(
        &mut self,
        now: Instant,
        peer: PeerId,
        piece: PieceIndex,
        rng: &mut Rng,
    ) -> Option<PieceIndex> {
        if self.first.get(&piece) == Some(&peer) || self.fresh.contains(piece) || self.fresh.is_empty() {
            return None;
        }
        if self.kept.get(&peer).is_some_and(|kept| kept.len() >= KEPT_MOST) {
            return None;
        }
        let pointed = self.pointed.entry(peer).or_default();
        if pointed.len() >= POINTED_PIECES_MOST && !pointed.contains_key(&piece) {
            pointed.clear();
        }
        let times = pointed.entry(piece).or_default();
        if *times >= POINTED_MOST {
            return None;
        }
        *times += 1;
        let fresh = any_of(&self.fresh, &self.fresh, &[], &self.geometry, rng)?;
        self.fresh.remove(fresh);
        self.first.insert(fresh, peer);
        self.kept.entry(peer).or_default().push((fresh, now + KEPT_FOR));
        Some(fresh)
    }

    /// A piece is handed out to `peer`; if that is a laggard, it stays fresh.
    pub(super) fn give(&mut self, peer: PeerId, piece: PieceIndex, is_laggard: bool) {
        if !is_laggard && self.fresh.remove(piece) {
            self.first.insert(piece, peer);
        }
        if let Some(kept) = self.kept.get_mut(&peer) {
            kept.retain(|(kept, _)| *kept != piece);
        }
        if let Some(pointed) = self.pointed.get_mut(&peer) {
            pointed.remove(&piece);
        }
    }

    /// A neighbour is gone. Returns the pieces that were given to it first, for `update`.
    pub(super) fn forget(&mut self, peer: PeerId) -> Vec<PieceIndex> {
        self.kept.remove(&peer);
        self.pointed.remove(&peer);
        self.first.extract_if(.., |_, first| *first == peer).map(|(piece, _)| piece).collect()
    }

    /// Stops keeping pieces for peers that did not come for them. Returns those, for `update`.
    pub(super) fn release(&mut self, now: Instant) -> Vec<PieceIndex> {
        let mut released = Vec::new();
        self.kept.retain(|_, pieces| {
            pieces.retain(|&(piece, until)| {
                if until <= now {
                    released.push(piece);
                }
                until > now
            });
            !pieces.is_empty()
        });
        for piece in &released {
            self.first.remove(piece);
        }
        released
    }
}
