//! What it costs a host to decide what to ask of whom: a leecher of an image of 10,000 pieces with 30 peers that each hold
//! a random half of it. `cargo bench -p drover-protocol --bench picker`.
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use drover_protocol::geometry::{Geometry, PieceIndex};
use drover_protocol::have::{ChunkSet, PieceSet, WireDelta, WireHave};
use drover_protocol::id::PeerId;
use drover_protocol::message::SwarmMessage;
use drover_protocol::rng::Rng;
use drover_protocol::swarm::{Output, RequestEnd, RequestId, Swarm, SwarmConfig};
use drover_protocol::time::Instant;

const PIECES: u32 = 10_000;
const PEERS: u32 = 30;
/// How many pieces are fetched in one measurement.
const FETCHED: usize = 200;

/// A swarm, its clock, and its requests that no peer answered yet.
struct Leecher {
    swarm: Swarm,
    geometry: Geometry,
    now: Instant,
    asked: VecDeque<(RequestId, Vec<Range<u32>>)>,
    rng: Rng,
}

impl Leecher {
    fn new(seed: u64) -> Self {
        let geometry = Geometry::new(u64::from(PIECES) << 20, 1 << 20).expect("lengths of an image");
        let now = Instant::from_millis(10_000);
        let (data, held) = (ChunkSet::full(&geometry), ChunkSet::empty(&geometry));
        let mut rng = Rng::seeded(seed);
        let swarm = Swarm::new(now, peer(0), geometry, data, held, SwarmConfig::default(), rng.next_u64());
        let mut leecher = Leecher { swarm, geometry, now, asked: VecDeque::new(), rng };
        for number in 1..=PEERS {
            leecher.meet(peer(number));
        }
        leecher.listen();
        leecher
    }

    fn meet(&mut self, peer: PeerId) {
        let mut held = PieceSet::empty(&self.geometry);
        for piece in self.geometry.pieces() {
            if self.rng.chance(0.5) {
                held.insert(piece);
            }
        }
        self.swarm.handle_connected(self.now, peer);
        self.swarm.handle_message(self.now, peer, SwarmMessage::Have { have: WireHave::of(&held) });
    }

    /// Keeps the requests among what the swarm says.
    fn listen(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            if let Output::Request { request, chunks, .. } = output {
                self.asked.push_back((request, chunks));
            }
        }
    }

    /// The oldest requests are answered, one after the other, and the swarm asks for more.
    fn fetch(&mut self, count: usize) {
        for _ in 0..count {
            let (request, chunks) = self.asked.pop_front().expect("half of the peers hold any piece");
            self.now = self.now + Duration::from_millis(1);
            for number in chunks.into_iter().flatten() {
                let chunk = self.geometry.chunk(number).expect("a chunk of this image");
                self.swarm.handle_chunk_stored(self.now, chunk, Some(request));
            }
            self.swarm.handle_request_ended(self.now, request, RequestEnd::Done);
            self.listen();
        }
    }

    /// A peer announces pieces that it did not hold, or did: a swarm has to look.
    fn hear(&mut self, pieces: &[PieceIndex]) {
        let delta = WireDelta::of(pieces.iter().copied());
        self.swarm.handle_message(self.now, peer(1), SwarmMessage::HaveDelta { delta });
        self.listen();
    }
}

fn peer(number: u32) -> PeerId {
    PeerId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn picker(criterion: &mut Criterion) {
    let seed = 20;
    eprintln!("seed {seed}");
    let mut group = criterion.benchmark_group("10,000 pieces, 30 peers");
    group.sample_size(20);
    group.throughput(Throughput::Elements(FETCHED as u64));
    group.bench_function("ask, store, ask again; per request", |bencher| {
        bencher.iter_batched_ref(|| Leecher::new(seed), |leecher| leecher.fetch(FETCHED), BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("hear of 16 pieces", |bencher| {
        let setup = || {
            let mut leecher = Leecher::new(seed);
            let first = leecher.rng.below(PIECES - 16);
            let pieces: Vec<PieceIndex> =
                (first..first + 16).filter_map(|number| leecher.geometry.piece(number)).collect();
            (leecher, pieces)
        };
        bencher.iter_batched_ref(setup, |(leecher, pieces)| leecher.hear(black_box(pieces)), BatchSize::PerIteration);
    });
    group.bench_function("meet 30 peers", |bencher| bencher.iter(|| Leecher::new(black_box(seed))));
    group.finish();
}

criterion_group!(benches, picker);
criterion_main!(benches);
