//! What multicast costs a byte: encode, decode, seal and open, in blocks of 48 symbols of 1,366 bytes:
//! `cargo bench -p drover-protocol --bench multicast`.
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use core::net::{IpAddr, Ipv4Addr};
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drover_protocol::geometry::CHUNK_LEN;
use drover_protocol::id::PeerId;
use drover_protocol::multicast::fec::{BlockPool, Codes, EncodedBlock, SYMBOL_LEN};
use drover_protocol::multicast::packet::{Header, Opener, Sealer, SessionId, SessionKey};
use drover_protocol::rng::Rng;

const K: u8 = 48;
const SENDER: PeerId = PeerId::from_bytes([1; 32]);
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn chunk() -> Vec<u8> {
    let seed = 20;
    eprintln!("seed {seed}");
    let mut rng = Rng::seeded(seed);
    std::iter::repeat_with(|| rng.next_u64().to_le_bytes()).flatten().take(CHUNK_LEN as usize).collect()
}

fn encode(criterion: &mut Criterion) {
    let (chunk, mut codes) = (chunk(), Codes::default());
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes(u64::from(CHUNK_LEN)));
    for h in [0, 2, 4, 8] {
        group.bench_function(BenchmarkId::from_parameter(format!("{K}+{h}")), |bencher| {
            bencher.iter(|| black_box(codes.encode(black_box(&chunk), SYMBOL_LEN, h)));
        });
    }
    group.finish();
}

/// A pool with one block that lacks its first `lost` source symbols, and has as many of parity.
fn fill(pool: &mut BlockPool, block: &EncodedBlock, lost: u8) {
    for number in lost..K + lost {
        pool.insert(0, K, number, block.symbol(number).expect("a symbol that was made"));
    }
}

/// Filling a pool and taking the chunk out of it, as for each block that comes in.
fn decode(criterion: &mut Criterion) {
    let block = Codes::default().encode(&chunk(), SYMBOL_LEN, 8);
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(u64::from(CHUNK_LEN)));
    for lost in [0, 1, 2, 4, 8] {
        let mut pool = BlockPool::new(SYMBOL_LEN);
        group.bench_function(BenchmarkId::from_parameter(format!("{lost} lost")), |bencher| {
            bencher.iter(|| {
                fill(&mut pool, &block, lost);
                black_box(pool.decode(0, CHUNK_LEN).expect("it is complete"))
            });
        });
    }
    group.finish();
}

/// Batches of 16 packets, sealed and opened.
fn seal(criterion: &mut Criterion) {
    const BATCH: u64 = 16;
    let (chunk, key, session) = (chunk(), SessionKey::from_bytes([2; 32]), SessionId(1));
    let mut sequence = 0;
    let mut sealer = Sealer::new(&key, SENDER);
    let mut batch = |sealer: &mut Sealer| {
        let mut bytes = Vec::with_capacity(BATCH as usize * 1472);
        for symbol in chunk.chunks_exact(SYMBOL_LEN).take(BATCH as usize) {
            sequence += 1;
            let header = Header { session, sequence, chunk: 0, symbol: 0, k: K, h: 2, rest: 0 };
            sealer.seal(&header, symbol, &mut bytes);
        }
        bytes
    };
    let mut group = criterion.benchmark_group("packet");
    group.throughput(Throughput::Bytes(BATCH * SYMBOL_LEN as u64));
    group.bench_function("seal", |bencher| bencher.iter(|| black_box(batch(&mut sealer))));
    let packet_len = batch(&mut sealer).len() / BATCH as usize;
    group.bench_function("open", |bencher| {
        let mut opener = Opener::new(&key, session, SENDER, SOURCE, SYMBOL_LEN);
        bencher.iter_batched_ref(
            || batch(&mut sealer),
            |bytes| {
                for packet in bytes.chunks_exact_mut(packet_len) {
                    black_box(opener.open(SOURCE, packet).expect("a packet of the session"));
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, encode, decode, seal);
criterion_main!(benches);
