//! Who was asked for what, and what of it is still to come.
//!
//! A request is over for us when its last chunk is stored, when it is cancelled, or when its driver says that it ended.
//! Chunks may still come in after that, from a disk queue or a slow verifier or a peer that sends more than it was asked
//! for, and blame must reach the right peer; so the senders of the last ended requests are remembered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::event::RequestId;
use super::mask::ChunkMask;
use crate::geometry::{Geometry, PieceIndex};
use crate::id::PeerId;
use crate::time::Instant;

/// Ended requests whose sender is remembered: more than can be between a cancel and the last word of the disk.
const REMEMBERED: usize = 256;

/// One request on its way.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) peer: PeerId,
    pub(super) piece: PieceIndex,
    /// Chunks that have not come yet.
    pub(super) left: ChunkMask,
    /// Bytes of those.
    pub(super) left_bytes: u64,
    /// When it was asked, or last brought something.
    pub(super) progress_at: Instant,
    /// Whether nothing came yet.
    pub(super) untouched: bool,
}

/// All requests on their way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<RequestId, Request>,
    by_piece: BTreeSet<(PieceIndex, RequestId)>,
    by_peer: BTreeSet<(PeerId, RequestId)>,
    /// Number and bytes of the requests to each peer that was asked for something.
    loads: BTreeMap<PeerId, (u32, u64)>,
    ended: VecDeque<(RequestId, PeerId)>,
    in_flight: u64,
    last: u64,
}

impl Requests {
    /// Notes that `peer` is asked for these chunks of `piece`.
    pub(super) fn open(
        &mut self,
        now: Instant,
        peer: PeerId,
        piece: PieceIndex,
        chunks: ChunkMask,
        geometry: &Geometry,
    ) -> RequestId {
        self.last += 1;
        let id = RequestId(self.last);
        let bytes = chunks.bytes(geometry, piece);
        self.in_flight += bytes;
        self.by_piece.insert((piece, id));
        self.by_peer.insert((peer, id));
        let load = self.loads.entry(peer).or_default();
        *load = (load.0 + 1, load.1 + bytes);
        let request = Request { peer, piece, left: chunks, left_bytes: bytes, progress_at: now, untouched: true };
        self.open.insert(id, request);
        id
    }

    /// These chunks need not come any more by this request. Says whether any was to, and whether the request is empty now.
    pub(super) fn settle(&mut self, id: RequestId, chunks: ChunkMask, geometry: &Geometry) -> (bool, bool) {
        let Some(request) = self.open.get_mut(&id) else { return (false, false) };
        let settled = request.left.and(chunks);
        let bytes = settled.bytes(geometry, request.piece);
        request.left = request.left.without(settled);
        request.left_bytes -= bytes;
        self.in_flight -= bytes;
        if let Some(load) = self.loads.get_mut(&request.peer) {
            load.1 -= bytes;
        }
        (!settled.is_empty(), request.left.is_empty())
    }

    /// A request brought something.
    pub(super) fn progress(&mut self, now: Instant, id: RequestId) {
        if let Some(request) = self.open.get_mut(&id) {
            request.progress_at = now;
            request.untouched = false;
        }
    }

    /// Forgets a request and hands out what is left of it.
    pub(super) fn close(&mut self, id: RequestId) -> Option<Request> {
        let request = self.open.remove(&id)?;
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((id, request.peer));
        self.in_flight -= request.left_bytes;
        self.by_piece.remove(&(request.piece, id));
        self.by_peer.remove(&(request.peer, id));
        if let Some(load) = self.loads.get_mut(&request.peer) {
            *load = (load.0 - 1, load.1 - request.left_bytes);
            if load.0 == 0 {
                self.loads.remove(&request.peer);
            }
        }
        Some(request)
    }

    /// Who was asked, also if the request ended a moment ago.
    pub(super) fn sender(&self, id: RequestId) -> Option<PeerId> {
        let ended = || self.ended.iter().rev().find(|(ended, _)| *ended == id).map(|(_, peer)| *peer);
        self.open.get(&id).map(|request| request.peer).or_else(ended)
    }

    /// A request that has not ended.
    pub(super) fn get(&self, id: RequestId) -> Option<&Request> {
        self.open.get(&id)
    }

    /// Requests for chunks of a piece, the oldest first.
    pub(super) fn of_piece(&self, piece: PieceIndex) -> Vec<RequestId> {
        let all = (piece, RequestId(0))..=(piece, RequestId(u64::MAX));
        self.by_piece.range(all).map(|(_, id)| *id).collect()
    }

    /// Requests to a peer, the oldest first.
    pub(super) fn of_peer(&self, peer: PeerId) -> impl Iterator<Item = (RequestId, &Request)> {
        let all = (peer, RequestId(0))..=(peer, RequestId(u64::MAX));
        self.by_peer.range(all).map(|(_, id)| (*id, &self.open[id]))
    }

    /// Whether anything is on its way from a peer.
    pub(super) fn is_asked(&self, peer: PeerId) -> bool {
        self.loads.contains_key(&peer)
    }

    /// Bytes that are on their way from a peer.
    pub(super) fn in_flight_of(&self, peer: PeerId) -> u64 {
        self.loads.get(&peer).map_or(0, |load| load.1)
    }

    /// Every request, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.open.iter().map(|(id, request)| (*id, request))
    }

    /// Peers from whom something is on its way.
    pub(super) fn asked_peers(&self) -> impl ExactSizeIterator<Item = &PeerId> {
        self.loads.keys()
    }

    /// Bytes that are on their way from everybody.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Counts everything anew and compares, for tests.
    #[cfg(test)]
    pub(super) fn check(&self, geometry: &Geometry) {
        assert_eq!(self.in_flight, self.open.values().map(|request| request.left_bytes).sum::<u64>());
        for request in self.open.values() {
            assert_eq!(request.left_bytes, request.left.bytes(geometry, request.piece));
        }
        for (peer, load) in &self.loads {
            let (count, bytes) =
                self.of_peer(*peer).fold((0, 0), |sum, (_, request)| (sum.0 + 1, sum.1 + request.left_bytes));
            assert_eq!(*load, (count, bytes));
        }
        assert_eq!((self.by_piece.len(), self.by_peer.len()), (self.open.len(), self.open.len()));
    }
}
