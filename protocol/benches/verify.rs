//! How fast bytes that came from a peer become a `VerifiedChunk`: `cargo bench -p drover-protocol --bench verify`.
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drover_protocol::geometry::{CHUNK_LEN, Geometry};
use drover_protocol::id::ContentHash;
use drover_protocol::manifest::{Manifest, ManifestBuilder, hash_chunk};
use drover_protocol::rng::Rng;

/// An image of random bytes, so that none of its chunks is zeros, and its manifest.
fn image(len: usize, seed: u64) -> (Manifest, Vec<u8>) {
    let mut rng = Rng::seeded(seed);
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.next_u64().to_le_bytes()).flatten().take(len).collect();
    let geometry = Geometry::of_len(len as u64).expect("a length of an image");
    let mut builder = ManifestBuilder::new(geometry);
    for chunk in bytes.chunks(CHUNK_LEN as usize) {
        builder.push(Some(hash_chunk(chunk)));
    }
    (builder.finish(ContentHash::from_bytes(*blake3::hash(&bytes).as_bytes())), bytes)
}

/// Every chunk of images from one chunk to a piece of the greatest length.
fn verify(criterion: &mut Criterion) {
    let seed = 20;
    eprintln!("seed {seed}");
    let mut group = criterion.benchmark_group("verify");
    for len in [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20] {
        let (manifest, bytes) = image(len, seed);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::from_parameter(format!("{} KiB", len >> 10)), &bytes, |bencher, bytes| {
            let geometry = Geometry::of_len(len as u64).expect("a length of an image");
            bencher.iter(|| {
                for (chunk, bytes) in geometry.chunks().zip(bytes.chunks(CHUNK_LEN as usize)) {
                    black_box(manifest.verify(chunk, black_box(bytes)).expect("the bytes of this chunk"));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
