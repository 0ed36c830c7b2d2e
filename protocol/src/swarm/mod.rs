//! One image on one host: which chunks to ask of whom, whom to serve, whom to know.
//!
//! A [`Swarm`] learns what is stored, what peers hold and what they ask for, and answers with [`Output`]s. It sees
//! indices, lengths, peers and times, never bytes and never addresses. A seeder is a swarm that holds everything; there
//! is no other difference.

mod config;
mod event;

pub use config::SwarmConfig;
pub use event::{Misdeed, Output, Refusal, RequestEnd, RequestId, ServeId};

use core::ops::Range;

use crate::geometry::{ChunkIndex, Geometry, PieceIndex};
use crate::have::ChunkSet;
use crate::id::PeerId;
use crate::message::SwarmMessage;
use crate::time::Instant;

/// The exchange of one image by one host.
#[derive(Debug)]
pub struct Swarm {}

/// How a swarm stands, for people and for the tracker.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SwarmStatus {
    /// Data chunks held.
    pub held_chunks: u32,
    /// Data chunks that the image has.
    pub data_chunks: u32,
    /// Data bytes held.
    pub held_bytes: u64,
    /// Data bytes that the image has.
    pub data_bytes: u64,
    /// Every neighbour and what was exchanged with it.
    pub peers: Vec<PeerStatus>,
    /// Bytes that came twice or for nothing.
    pub wasted_bytes: u64,
    /// Numbers of missing chunks that no connected neighbour holds, as maximal runs.
    pub unavailable: Vec<Range<u32>>,
    /// Peers banned for misdeeds.
    pub banned: Vec<(PeerId, Misdeed)>,
}

/// What was exchanged with one peer.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// Whether it is a neighbour now.
    pub connected: bool,
    /// Pieces that it says it holds.
    pub held_pieces: u32,
    /// Bytes that it gave us.
    pub taken_bytes: u64,
    /// Bytes that we gave it.
    pub given_bytes: u64,
    /// Its rate to us, in bytes per second.
    pub rate_bytes_per_s: u64,
}

#[allow(unused_variables, clippy::unused_self)]
impl Swarm {
    /// A swarm on the host `me` for an image of `geometry` whose chunks that are not zeros are `data`, of which `held`
    /// are stored.
    pub fn new(
        now: Instant,
        me: PeerId,
        geometry: Geometry,
        data: ChunkSet,
        held: ChunkSet,
        config: SwarmConfig,
        seed: u64,
    ) -> Self {
        Swarm {}
    }

    /// Peers that somebody named as exchanging this image: hints.
    pub fn handle_candidates(&mut self, now: Instant, peers: &[PeerId]) {}

    /// A peer that was to be connected is.
    pub fn handle_connected(&mut self, now: Instant, peer: PeerId) {}

    /// A peer that was to be connected can't be.
    pub fn handle_connect_failed(&mut self, now: Instant, peer: PeerId) {}

    /// The connection to a peer is gone, and its streams with it: no `handle_request_ended` or `handle_served` follows.
    pub fn handle_disconnected(&mut self, now: Instant, peer: PeerId) {}

    /// A connected peer said something.
    pub fn handle_message(&mut self, now: Instant, peer: PeerId, message: SwarmMessage) {}

    /// A peer asks for chunks of a piece. `chunks` are numbers within the image, unchecked.
    pub fn handle_request(&mut self, now: Instant, peer: PeerId, serve: ServeId, piece: u32, chunks: Vec<Range<u32>>) {}

    /// What a `Serve` output asked for has ended; `bytes` were sent.
    pub fn handle_served(&mut self, now: Instant, serve: ServeId, bytes: u64) {}

    /// A peer gave up on its request before or while it was served; `bytes` were sent.
    pub fn handle_serve_cancelled(&mut self, now: Instant, serve: ServeId, bytes: u64) {}

    /// A chunk was verified and stored. `request` is the one that brought it, `None` if it came by another way.
    pub fn handle_chunk_stored(&mut self, now: Instant, chunk: ChunkIndex, request: Option<RequestId>) {}

    /// A chunk that a request brought failed its verification.
    pub fn handle_chunk_rejected(&mut self, now: Instant, chunk: ChunkIndex, request: RequestId) {}

    /// A request has ended. What it did not bring is asked for elsewhere.
    pub fn handle_request_ended(&mut self, now: Instant, request: RequestId, end: RequestEnd) {}

    /// Chunks that were stored are not any more: the disk lost them.
    pub fn handle_chunks_lost(&mut self, now: Instant, chunks: &[ChunkIndex]) {}

    /// Somebody waits for these chunks (numbers): they outrank everything until they are held.
    pub fn handle_reader(&mut self, now: Instant, chunks: Range<u32>) {}

    /// Stops or resumes asking for data; serving goes on. For a disk that is full.
    pub fn set_paused(&mut self, now: Instant, paused: bool) {}

    /// Changes the limits of [`SwarmConfig`], in bytes per second.
    pub fn set_rate_limits(&mut self, now: Instant, upload: Option<u64>, download: Option<u64>) {}

    /// The time given to [`Swarm::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// What to do next. To be called until it is `None` after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When to call [`Swarm::handle_timeout`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Chunks held.
    pub fn held(&self) -> &ChunkSet {
        unreachable!("a swarm without parts holds nothing")
    }

    /// Whether every data chunk is held.
    pub fn is_complete(&self) -> bool {
        false
    }

    /// How it stands. Costs time in the size of the image: for people, not for every step.
    pub fn status(&self) -> SwarmStatus {
        SwarmStatus::default()
    }

    /// Whether a piece is held, for tests and drivers.
    pub fn holds_piece(&self, piece: PieceIndex) -> bool {
        false
    }
}
