//! A stage for stories: one swarm, peers that a story plays, and a clock that it moves by hand.

use core::ops::Range;
use core::time::Duration;

use super::super::{Output, Refusal, RequestEnd, RequestId, ServeId, Swarm, SwarmConfig, SwarmStatus};
use super::mesh::peer_id;
use crate::geometry::{Geometry, PieceIndex};
use crate::have::{ChunkSet, PieceSet, WireDelta, WireHave, runs_of};
use crate::id::PeerId;
use crate::message::SwarmMessage;
use crate::time::Instant;

/// The swarm, what it said and was not looked at yet, and the time.
pub(super) struct Stage {
    pub(super) swarm: Swarm,
    pub(super) now: Instant,
    pub(super) geometry: Geometry,
    pub(super) said: Vec<Output>,
    serve_count: u64,
}

/// A request that the swarm made.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) peer: usize,
    pub(super) request: RequestId,
    pub(super) piece: u32,
    pub(super) chunks: Vec<u32>,
}

/// Pieces of a stage's image; each has four chunks.
pub(super) const PIECES: u32 = 40;

/// Without random first pieces, so that what is picked can be foretold; with two requests at once to each peer.
pub(super) fn config() -> SwarmConfig {
    SwarmConfig { random_first_pieces: 0, in_flight_least: 256 << 10, ..SwarmConfig::default() }
}

impl Stage {
    /// A swarm that holds these chunks.
    pub(super) fn new(held: Range<u32>, config: SwarmConfig) -> Self {
        let geometry = Geometry::new(u64::from(PIECES) * (256 << 10), 256 << 10).expect("lengths of an image");
        let (data, mut set) = (ChunkSet::full(&geometry), ChunkSet::empty(&geometry));
        set.insert_run(held);
        let now = Instant::from_millis(10_000);
        let swarm = Swarm::new(now, peer_id(0), geometry, data, set, config, 42);
        let mut stage = Stage { swarm, now, geometry, said: Vec::new(), serve_count: 0 };
        stage.listen();
        stage
    }

    /// A swarm that holds nothing.
    pub(super) fn leecher() -> Self {
        Self::new(0..0, config())
    }

    /// A swarm that holds everything.
    pub(super) fn seeder() -> Self {
        Self::new(0..PIECES * 4, config())
    }

    /// Calls the swarm and listens.
    pub(super) fn tell<T>(&mut self, call: impl FnOnce(&mut Swarm, Instant) -> T) -> T {
        let result = call(&mut self.swarm, self.now);
        self.listen();
        result
    }

    /// A peer joins that holds these pieces.
    pub(super) fn join(&mut self, peer: usize, pieces: impl IntoIterator<Item = u32>) {
        let have = WireHave::of(&self.pieces(pieces));
        self.tell(|swarm, now| swarm.handle_message(now, peer_id(peer), SwarmMessage::Join { have }));
    }

    /// A peer announces pieces.
    pub(super) fn announce(&mut self, peer: usize, pieces: impl IntoIterator<Item = u32>) {
        let delta = WireDelta::of(self.pieces(pieces).iter());
        self.tell(|swarm, now| swarm.handle_message(now, peer_id(peer), SwarmMessage::HaveDelta { delta }));
    }

    /// Time passes; timers ring when they are due.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.swarm.poll_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.tell(|swarm, now| swarm.handle_timeout(now));
            assert!(self.swarm.poll_timeout().is_none_or(|next| next > self.now), "a timer that rang is done with");
        }
        self.now = until;
    }

    /// Takes the requests that the swarm made since it was asked last.
    pub(super) fn asked(&mut self) -> Vec<Asked> {
        let asked = self.take(|output| match output {
            Output::Request { peer, request, piece, chunks } => Some(Asked {
                peer: number_of(*peer),
                request: *request,
                piece: piece.number(),
                chunks: chunks.iter().cloned().flatten().collect(),
            }),
            _ => None,
        });
        for request in &asked {
            assert!(!request.chunks.is_empty());
            let within = self.geometry.chunk_numbers(self.piece(request.piece));
            assert!(request.chunks.iter().all(|chunk| within.contains(chunk)), "a request stays within its piece");
        }
        asked
    }

    /// Takes what the swarm cancelled.
    pub(super) fn cancelled(&mut self) -> Vec<(usize, RequestId)> {
        self.take(|output| match output {
            Output::Cancel { peer, request } => Some((number_of(*peer), *request)),
            _ => None,
        })
    }

    /// Everything that was asked for comes.
    pub(super) fn deliver(&mut self, asked: &Asked) {
        for &number in &asked.chunks {
            self.deliver_chunk(asked.request, number);
        }
        self.end(asked.request, RequestEnd::Done);
    }

    /// Everything that is asked for comes, in order, until nothing is asked any more.
    pub(super) fn deliver_all(&mut self, mut see: impl FnMut(&Asked)) {
        let mut open = std::collections::VecDeque::from(self.asked());
        while let Some(asked) = open.pop_front() {
            see(&asked);
            self.deliver(&asked);
            open.extend(self.asked());
        }
    }

    /// A chunk comes.
    pub(super) fn deliver_chunk(&mut self, request: RequestId, number: u32) {
        let chunk = self.geometry.chunk(number).expect("a chunk of the image");
        self.tell(|swarm, now| swarm.handle_chunk_stored(now, chunk, Some(request)));
    }

    /// A request ends.
    pub(super) fn end(&mut self, request: RequestId, end: RequestEnd) {
        self.tell(|swarm, now| swarm.handle_request_ended(now, request, end));
    }

    /// A peer asks for a whole piece. Returns the name of its request.
    pub(super) fn request(&mut self, peer: usize, piece: u32) -> ServeId {
        self.serve_count += 1;
        let serve = ServeId(self.serve_count);
        let chunks = run(piece * 4..piece * 4 + 4);
        self.tell(|swarm, now| swarm.handle_request(now, peer_id(peer), serve, piece, chunks));
        serve
    }

    /// Takes what the swarm serves.
    pub(super) fn served(&mut self) -> Vec<ServeId> {
        self.take(|output| match output {
            Output::Serve { serve, .. } => Some(*serve),
            _ => None,
        })
    }

    /// Takes what the swarm refuses.
    pub(super) fn refused(&mut self) -> Vec<(ServeId, Refusal)> {
        self.take(|output| match output {
            Output::Refuse { serve, refusal, .. } => Some((*serve, *refusal)),
            _ => None,
        })
    }

    /// Takes what the swarm sent to a peer.
    pub(super) fn sent_to(&mut self, peer: usize) -> Vec<SwarmMessage> {
        self.take(|output| match output {
            Output::Send { peer: to, message } if *to == peer_id(peer) => Some(message.clone()),
            _ => None,
        })
    }

    /// Takes whom the swarm wants to reach.
    pub(super) fn dialled(&mut self) -> Vec<usize> {
        self.take(|output| match output {
            Output::Connect { peer } => Some(number_of(*peer)),
            _ => None,
        })
    }

    /// How often the swarm said that it is complete.
    pub(super) fn completions(&self) -> usize {
        self.said.iter().filter(|output| **output == Output::Complete).count()
    }

    /// How the swarm stands.
    pub(super) fn status(&self) -> SwarmStatus {
        self.swarm.status()
    }

    /// The piece of this number.
    pub(super) fn piece(&self, number: u32) -> PieceIndex {
        self.geometry.piece(number).expect("a piece of the image")
    }

    /// Numbers of pieces as a set.
    pub(super) fn pieces(&self, numbers: impl IntoIterator<Item = u32>) -> PieceSet {
        let mut set = PieceSet::empty(&self.geometry);
        let mut numbers: Vec<u32> = numbers.into_iter().collect();
        numbers.sort_unstable();
        runs_of(numbers.into_iter()).for_each(|run| set.insert_run(run));
        set
    }

    fn take<T>(&mut self, pick: impl Fn(&Output) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        self.said.retain(|output| match pick(output) {
            Some(found) => {
                taken.push(found);
                false
            }
            None => true,
        });
        taken
    }

    fn listen(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            self.said.push(output);
        }
        self.swarm.check();
    }
}

/// One run of chunks, or none if it is empty.
pub(super) fn run(run: Range<u32>) -> Vec<Range<u32>> {
    Some(run).into_iter().filter(|run| !run.is_empty()).collect()
}

fn number_of(peer: PeerId) -> usize {
    u64::from_be_bytes(peer.as_bytes()[..8].try_into().expect("eight bytes")) as usize
}
