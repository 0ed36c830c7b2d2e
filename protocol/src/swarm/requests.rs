//! Who was asked for what, and what of it is still to come.
//!
//! A request is over for us when its last chunk is stored, when it is cancelled, or when its driver says that it ended.
//! Chunks may still come in after that, from a disk queue or a slow verifier or a peer that sends more than it was asked
//! for, and blame must reach the right peer; so the senders of the last ended requests are remembered.
//!
//! Requests have rising names and end about in that order, so they lie in a row. There are some ten of them, or some
//! thousand small ones at ten gigabits; the rows beside it are short enough to be kept sorted.

use std::collections::VecDeque;

use super::event::RequestId;
use super::mask::ChunkMask;
use super::peer_map::PeerMap;
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

/// Number and bytes of the requests to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Load {
    count: u32,
    bytes: u64,
}

/// All requests on their way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: VecDeque<(RequestId, Request)>,
    by_piece: Vec<(PieceIndex, RequestId)>,
    by_peer: Vec<(PeerId, RequestId)>,
    /// Each peer that was asked for something.
    loads: PeerMap<Load>,
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
        insert(&mut self.by_piece, (piece, id));
        insert(&mut self.by_peer, (peer, id));
        let load = self.loads.get_or_default(peer);
        load.count += 1;
        load.bytes += bytes;
        let request = Request { peer, piece, left: chunks, left_bytes: bytes, progress_at: now, untouched: true };
        self.open.push_back((id, request));
        id
    }

    /// These chunks need not come any more by this request. Says whether any was to, and whether the request is empty now.
    pub(super) fn settle(&mut self, id: RequestId, chunks: ChunkMask, geometry: &Geometry) -> (bool, bool) {
        let Ok(at) = self.place_of(id) else { return (false, false) };
        let request = &mut self.open[at].1;
        let settled = request.left.and(chunks);
        let bytes = settled.bytes(geometry, request.piece);
        request.left = request.left.without(settled);
        request.left_bytes -= bytes;
        let (peer, is_empty) = (request.peer, request.left.is_empty());
        self.in_flight -= bytes;
        if let Some(load) = self.loads.get_mut(&peer) {
            load.bytes -= bytes;
        }
        (!settled.is_empty(), is_empty)
    }

    /// A request brought something.
    pub(super) fn progress(&mut self, now: Instant, id: RequestId) {
        if let Ok(at) = self.place_of(id) {
            let request = &mut self.open[at].1;
            request.progress_at = now;
            request.untouched = false;
        }
    }

    /// Forgets a request and hands out what is left of it.
    pub(super) fn close(&mut self, id: RequestId) -> Option<Request> {
        let at = self.place_of(id).ok()?;
        let (_, request) = self.open.remove(at)?;
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((id, request.peer));
        self.in_flight -= request.left_bytes;
        remove(&mut self.by_piece, (request.piece, id));
        remove(&mut self.by_peer, (request.peer, id));
        if let Some(load) = self.loads.get_mut(&request.peer) {
            load.count -= 1;
            load.bytes -= request.left_bytes;
            if load.count == 0 {
                self.loads.remove(&request.peer);
            }
        }
        Some(request)
    }

    /// Who was asked, also if the request ended a moment ago.
    pub(super) fn sender(&self, id: RequestId) -> Option<PeerId> {
        let ended = || self.ended.iter().rev().find(|(ended, _)| *ended == id).map(|(_, peer)| *peer);
        self.get(id).map(|request| request.peer).or_else(ended)
    }

    /// A request that has not ended.
    pub(super) fn get(&self, id: RequestId) -> Option<&Request> {
        self.place_of(id).ok().map(|at| &self.open[at].1)
    }

    /// Requests for chunks of a piece, the oldest first.
    pub(super) fn of_piece(&self, piece: PieceIndex) -> Vec<RequestId> {
        let first = self.by_piece.partition_point(|(other, _)| *other < piece);
        self.by_piece[first..].iter().take_while(|(other, _)| *other == piece).map(|(_, id)| *id).collect()
    }

    /// Requests to a peer, the oldest first.
    pub(super) fn of_peer(&self, peer: PeerId) -> impl Iterator<Item = (RequestId, &Request)> {
        let first = self.by_peer.partition_point(|(other, _)| *other < peer);
        let its = self.by_peer[first..].iter().take_while(move |(other, _)| *other == peer);
        its.filter_map(|(_, id)| Some((*id, self.get(*id)?)))
    }

    /// Whether anything is on its way from a peer.
    pub(super) fn is_asked(&self, peer: PeerId) -> bool {
        self.loads.contains_key(&peer)
    }

    /// Bytes that are on their way from a peer.
    pub(super) fn in_flight_of(&self, peer: PeerId) -> u64 {
        self.loads.get(&peer).map_or(0, |load| load.bytes)
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
        assert_eq!(self.in_flight, self.iter().map(|(_, request)| request.left_bytes).sum::<u64>());
        for (_, request) in self.iter() {
            assert_eq!(request.left_bytes, request.left.bytes(geometry, request.piece));
        }
        for (peer, load) in self.loads.iter() {
            let anew = self.of_peer(*peer).fold(Load::default(), |sum, (_, request)| Load {
                count: sum.count + 1,
                bytes: sum.bytes + request.left_bytes,
            });
            assert_eq!(*load, anew);
        }
        assert_eq!((self.by_piece.len(), self.by_peer.len()), (self.open.len(), self.open.len()));
        assert!(
            self.by_piece.is_sorted() && self.by_peer.is_sorted() && self.open.iter().is_sorted_by_key(|(id, _)| id)
        );
    }

    fn place_of(&self, id: RequestId) -> Result<usize, usize> {
        self.open.binary_search_by_key(&id, |(other, _)| *other)
    }
}

/// Adds an entry to a sorted row that does not have it.
fn insert<T: Ord>(row: &mut Vec<T>, entry: T) {
    let at = row.partition_point(|other| *other < entry);
    row.insert(at, entry);
}

/// Takes an entry out of a sorted row.
fn remove<T: Ord>(row: &mut Vec<T>, entry: T) {
    if let Ok(at) = row.binary_search(&entry) {
        row.remove(at);
    }
}
