//! What it costs to write and to read the messages that peers send most and longest:
//! `cargo bench -p drover-protocol --bench codec`.
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use drover_protocol::codec::{decode, encode};
use drover_protocol::geometry::Geometry;
use drover_protocol::have::{PieceSet, WireDelta, WireHave};
use drover_protocol::id::ImageId;
use drover_protocol::message::{PeerMessage, SwarmMessage};
use drover_protocol::rng::Rng;

const PIECES: u32 = 10_000;
const IMAGE: ImageId = ImageId::from_bytes([7; 32]);

/// Half of 10,000 pieces, at random: no two announcements are longer.
fn half_held(geometry: &Geometry, seed: u64) -> PieceSet {
    let mut rng = Rng::seeded(seed);
    let mut set = PieceSet::empty(geometry);
    for piece in geometry.pieces() {
        if rng.chance(0.5) {
            set.insert(piece);
        }
    }
    set
}

fn codec(criterion: &mut Criterion) {
    let seed = 20;
    eprintln!("seed {seed}");
    let geometry = Geometry::new(u64::from(PIECES) << 20, 1 << 20).expect("lengths of an image");
    let held = half_held(&geometry, seed);
    let join = SwarmMessage::Join { have: WireHave::of(&held) };
    let delta = SwarmMessage::HaveDelta { delta: WireDelta::of(held.iter().take(16)) };
    let mut group = criterion.benchmark_group("codec");
    for (name, message) in [("join with 10,000 pieces", join), ("delta of 16 pieces", delta)] {
        let message = PeerMessage::Swarm { image: IMAGE, message };
        let body = encode(&message).expect("a message within its bounds");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("write {name}"), |bencher| bencher.iter(|| encode(black_box(&message))));
        group.bench_function(format!("read {name}"), |bencher| bencher.iter(|| read(&geometry, black_box(&body))));
    }
    group.finish();
}

/// As a swarm reads it: the message, and then the pieces that it names.
fn read(geometry: &Geometry, body: &[u8]) -> usize {
    match decode::<PeerMessage>(body).expect("it was just written") {
        PeerMessage::Swarm { message: SwarmMessage::Join { have }, .. } => {
            have.to_set(geometry).expect("a set of this image").words().len()
        }
        PeerMessage::Swarm { message: SwarmMessage::HaveDelta { delta }, .. } => {
            delta.pieces(geometry).expect("pieces of this image").len()
        }
        other => unreachable!("not written above: {other:?}"),
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
