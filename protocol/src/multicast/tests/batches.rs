//! A receiver that hears of the packets of a block together, as a simulator tells it.

use super::net::SOURCE;
use crate::geometry::Geometry;
use crate::have::ChunkSet;
use crate::multicast::config::ReceiverConfig;
use crate::multicast::fec::SYMBOL_LEN;
use crate::multicast::group::GroupRange;
use crate::multicast::message::{Announcement, MulticastMessage, Report};
use crate::multicast::packet::{Header, SessionId, SessionKey};
use crate::multicast::receiver::{Output, Receiver};
use crate::rng::Rng;
use crate::time::Instant;

const BLOCKS: u32 = 16;
const SOURCES: u8 = 48;
const PARITY: u8 = 2;

/// A receiver of an image of `BLOCKS` chunks, which listens.
fn receiver() -> Receiver {
    let session = SessionId(7);
    let announcement = Announcement {
        session,
        key: SessionKey::from_bytes([3; 32]),
        group: GroupRange::default().of(session),
        source: SOURCE,
        symbol_len: SYMBOL_LEN as u16,
    };
    let geometry = Geometry::of_len(u64::from(BLOCKS) << 16).unwrap();
    let (data, held) = (ChunkSet::full(&geometry), ChunkSet::empty(&geometry));
    Receiver::new(Instant::START, &announcement, geometry, data, held, ReceiverConfig::default(), 1)
}

/// The packets of a pass over all blocks.
fn pass() -> Vec<Header> {
    let symbols = (0..SOURCES + PARITY).flat_map(|symbol| (0..BLOCKS).map(move |chunk| (chunk, symbol)));
    let header = |(sequence, (chunk, symbol))| Header {
        session: SessionId(7),
        sequence,
        chunk,
        symbol,
        k: SOURCES,
        h: PARITY,
        rest: u16::from(SOURCES + PARITY - 1 - symbol) * BLOCKS as u16,
    };
    (1..).zip(symbols).map(header).collect()
}

/// Which chunks a receiver wants to decode, in order, and what it reports.
fn heard(receiver: &mut Receiver) -> (Vec<u32>, Report) {
    let (mut decoded, mut report) = (Vec::new(), None);
    while report.is_none() {
        let at = receiver.poll_timeout().unwrap();
        receiver.handle_timeout(at);
        while let Some(output) = receiver.poll_output() {
            match output {
                Output::Decode { chunk } => decoded.push(chunk.number()),
                Output::Send(MulticastMessage::Report(said)) => report = Some(said),
                _ => {}
            }
        }
    }
    decoded.sort_unstable();
    (decoded, report.unwrap())
}

#[test]
fn packets_told_of_together_are_packets_told_of_one_by_one() {
    for seed in 1..=20 {
        eprintln!("seed {seed}");
        let mut rng = Rng::seeded(seed);
        let pass = pass();
        // The first and the last packets come, so that both know of the same time.
        let is_edge = |header: &Header| header.symbol == 0 || header.symbol == SOURCES + PARITY - 1;
        let came: Vec<&Header> = pass.iter().filter(|header| is_edge(header) || !rng.chance(0.04)).collect();
        let (mut one_by_one, mut together) = (receiver(), receiver());
        let now = Instant::from_millis(10);
        for header in &came {
            one_by_one.handle_packet(now, header);
        }
        for last in &pass[pass.len() - BLOCKS as usize..] {
            let its = came.iter().filter(|header| header.chunk == last.chunk);
            let symbols = its.fold(0, |symbols, header| symbols | 1u128 << header.symbol);
            together.handle_symbols(now, last, symbols, pass[0].sequence);
        }
        let (one_by_one, together) = (heard(&mut one_by_one), heard(&mut together));
        assert_eq!(one_by_one, together);
        assert!(!together.0.is_empty() && together.0.len() < BLOCKS as usize, "{:?}", together.0);
    }
}
