//! What a stranger's bytes can make us allocate. One test in a program of its own, because it watches the allocator.

use drover_protocol::announce::{JoinReply, JoinRequest, TrackerReply, TrackerRequest};
use drover_protocol::codec::{self, Message};
use drover_protocol::geometry::{Geometry, MAX_IMAGE_LEN};
use drover_protocol::have::{WireDelta, WireHave};
use drover_protocol::manifest::Manifest;
use drover_protocol::message::{DataReply, DataRequest, Hello, PeerMessage};
use drover_protocol::parts::{MAX_PARTS_LEN, WireParts};
use drover_protocol::release::SignedRelease;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The worst ratio of a list in memory to its bytes: names of one letter, 2 bytes on the wire, 24 and a block of their
/// own in memory, in a vector that doubles while it grows. Lists whose promised length lies reserve nothing.
const RATIO: usize = 32;

/// How much more than now was allocated at the worst moment of `act`.
fn peak_of<T>(act: impl FnOnce() -> T) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    drop(act());
    MEMORY.peak_usage().saturating_sub(before)
}

fn hostile_bodies(max_len: usize) -> Vec<Vec<u8>> {
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for fill in [0, 1, 2, 3, 4, 8, 0x7f, 0x80, 0xff] {
        bodies.push(vec![fill; max_len]);
    }
    // As many names of one letter as fit.
    let names = (max_len / 2).saturating_sub(3) as u32;
    bodies.push([&postcard::to_stdvec(&(2u8, names)).unwrap()[..], &b"\x01a".repeat(names as usize)].concat());
    // A promise of 2^32 - 1 elements after any beginning: variant numbers, ids, and lengths of what is around it.
    for prefix in (0..140).chain([200, 300]) {
        for (first, fill) in [(0, 0), (0, 1), (1, 1), (2, 0), (3, 0)] {
            let mut body = vec![fill; prefix.min(max_len)];
            if let Some(byte) = body.first_mut() {
                *byte = first;
            }
            body.extend_from_slice(&huge);
            body.resize(body.len().max(max_len), 1);
            body.truncate(max_len);
            bodies.push(body);
        }
    }
    bodies
}

fn decode_within_bounds<M: Message>() {
    for body in hostile_bodies(M::MAX_LEN) {
        let peak = peak_of(|| codec::decode::<M>(&body));
        assert!(peak <= RATIO * M::MAX_LEN, "{}: {peak} bytes for a body of {}", M::NAME, body.len());
    }
}

#[test]
fn lengths_that_lie_do_not_allocate() {
    decode_within_bounds::<Hello>();
    decode_within_bounds::<PeerMessage>();
    decode_within_bounds::<DataRequest>();
    decode_within_bounds::<DataReply>();
    decode_within_bounds::<TrackerRequest>();
    decode_within_bounds::<TrackerReply>();
    decode_within_bounds::<JoinRequest>();
    decode_within_bounds::<JoinReply>();
    decode_within_bounds::<SignedRelease>();

    // A manifest that promises 2^32 - 1 zero runs, or hashes, of the longest image.
    for promise in 0..2 {
        let mut bytes = postcard::to_stdvec(&(1u16, MAX_IMAGE_LEN, 16u32 << 20, [0u8; 32])).unwrap();
        bytes.extend_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0x0f][1 - promise..]);
        bytes.resize(2000, 1);
        let peak = peak_of(|| Manifest::from_bytes(&bytes));
        assert!(peak <= RATIO * bytes.len(), "{peak} bytes for a manifest of {}", bytes.len());
    }

    // A set costs a bit for each piece, whatever the wire says; a delta at most an index for each.
    let geometry = Geometry::of_len(MAX_IMAGE_LEN).unwrap();
    let all = WireHave::Runs(vec![(0, u32::MAX); 2]);
    assert!(peak_of(|| all.to_set(&geometry)) <= 16 << 10);
    let delta = WireDelta(vec![(0, geometry.piece_count()); 1000]);
    assert!(peak_of(|| delta.pieces(&geometry)) <= 1 << 20);

    // Parts cost some 50 bytes a piece, and there are no more than a message may name.
    let parts = WireParts { pieces: WireDelta(vec![(0, 1024)]), chunks: vec![0xff; MAX_PARTS_LEN] };
    assert!(parts.to_parts(&geometry).is_ok() && peak_of(|| parts.to_parts(&geometry)) <= 128 << 10);
}
