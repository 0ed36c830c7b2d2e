//! Packets that nobody should believe, and messages that fit nothing.

use core::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::net::{LINK, Net, Path, SOURCE, peer};
use super::sessions::{config, done};
use crate::geometry::Geometry;
use crate::have::{ChunkSet, WireDelta, WireHave};
use crate::multicast::config::{ReceiverConfig, SenderConfig};
use crate::multicast::fec::{BlockPool, SYMBOL_LEN};
use crate::multicast::message::{Announcement, Beat, DismissReason, EndReason, LeaveReason, MulticastMessage, Report};
use crate::multicast::packet::{Header, SessionId, SessionKey, packet_len};
use crate::multicast::receiver::{self, AwayReason, Fate, Receiver};
use crate::multicast::sender::{self, Sender};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

#[test]
fn forged_and_replayed_packets_are_dropped_and_cost_nothing_else() {
    let story = |is_attacked: bool| {
        let mut net = Net::new(1, 256, config());
        (0..4).for_each(|_| _ = net.join(Path::default()));
        let mut rng = Rng::seeded(2);
        while net.ended.is_none() {
            net.run_ms(1);
            if is_attacked && let Some(packet) = rng.pick(&net.overheard).cloned() {
                let mut changed = packet.to_vec();
                let bit = rng.below(changed.len() as u32 * 8) as usize;
                changed[bit / 8] ^= 1 << (bit % 8);
                net.inject(0, SOURCE, &changed);
                net.inject(0, SOURCE, &vec![rng.next_u64() as u8; packet_len(SYMBOL_LEN)]);
                net.inject(0, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 66)), &packet);
                net.inject(0, SOURCE, &packet);
            }
        }
        net
    };
    let (calm, attacked) = (story(false), story(true));
    eprintln!("{} packets refused", attacked.hosts[0].refused);
    assert!(attacked.hosts[0].refused > 5_000);
    assert_eq!(attacked.share(0), 1.0);
    // A replayed packet may be the first of its number to arrive, if it was still in the port's queue; never the second.
    let status = attacked.hosts[0].machine.status();
    assert!(status.received <= status.expected, "{status:?}");
    assert!(done(&attacked, 0) <= done(&calm, 0) + Duration::from_millis(30));
}

#[test]
fn a_sender_that_lies_is_not_believed_for_long() {
    let mut net = Net::new(1, 256, config());
    (0..4).for_each(|_| _ = net.join(Path::default()));
    net.lies_every = Some(7);
    net.run();
    assert_eq!(net.ended, Some(EndReason::Polluted));
    for host in &net.hosts[..2] {
        assert_eq!(host.away, Some(AwayReason::Left(LeaveReason::Distrust)));
    }
    for host in &net.hosts {
        assert!(host.held.iter().all(|chunk| chunk.number() % 7 != 0), "no wrong chunk is held");
        assert!(host.machine.status().rejected >= 1);
    }
}

fn announcement() -> Announcement {
    Announcement {
        session: SessionId(1),
        key: SessionKey::from_bytes([1; 32]),
        group: "239.255.1.2:50000".parse().unwrap(),
        source: SOURCE,
        symbol_len: SYMBOL_LEN as u16,
    }
}

fn receiver(chunks: u64, config: ReceiverConfig) -> Receiver {
    let geometry = Geometry::of_len(chunks * 65_536).unwrap();
    let (data, held) = (ChunkSet::full(&geometry), ChunkSet::empty(&geometry));
    Receiver::new(Instant::START, &announcement(), geometry, data, held, config, 1)
}

/// Found by fuzzing: the sums over sequences overflowed.
#[test]
fn sequences_that_nobody_reaches_are_malformed() {
    let mut machine = receiver(10, ReceiverConfig::default());
    for sequence in [0, u64::MAX] {
        let header = Header { session: SessionId(1), sequence, chunk: 0, symbol: 0, k: 48, h: 2, rest: 0 };
        let expected = if sequence == 0 { Fate::Keep } else { Fate::Drop };
        assert_eq!(machine.handle_packet(Instant::START, &header), expected);
    }
    let beat = Beat { session: SessionId(1), sequence: u64::MAX, report_interval_ms: 250, is_idle: false };
    machine.handle_message(Instant::START, &MulticastMessage::Beat(beat));
    machine.handle_timeout(Instant::START + Duration::from_secs(1));
}

#[test]
fn incomplete_blocks_are_bounded_and_the_oldest_goes_to_peers() {
    let pool_bytes_most = 1 << 20;
    let mut machine = receiver(1000, ReceiverConfig { pool_bytes_most, ..ReceiverConfig::default() });
    let mut pool = BlockPool::new(SYMBOL_LEN);
    let mut left = Vec::new();
    for chunk in 0..1000 {
        let sequence = u64::from(chunk) + 1;
        let header = Header { session: SessionId(1), sequence, chunk, symbol: 0, k: 48, h: 2, rest: 49 };
        assert_eq!(machine.handle_packet(Instant::START, &header), Fate::Keep);
        pool.insert(chunk, 48, 0, &[0; SYMBOL_LEN]);
        while let Some(output) = machine.poll_output() {
            match output {
                receiver::Output::Forget { chunk } => pool.forget(chunk.number()),
                receiver::Output::LeaveToPeers { chunk } => left.push(chunk.number()),
                receiver::Output::Decode { .. } | receiver::Output::LeaveGroup { .. } => panic!("{output:?}"),
                receiver::Output::JoinGroup | receiver::Output::Send(_) | receiver::Output::Carries(_) => {}
            }
        }
        assert!(pool.len() * BlockPool::block_len(SYMBOL_LEN) <= pool_bytes_most);
    }
    assert_eq!(left, (0..left.len() as u32).collect::<Vec<_>>());
    assert_eq!(left.len() + pool.len(), 1000);
}

/// What a stranger to the image says to a sender, and the answer.
fn answer(message: MulticastMessage) -> Option<MulticastMessage> {
    let geometry = Geometry::of_len(1 << 20).unwrap();
    let config = SenderConfig { members_most: 1, link_bytes_per_s: LINK, ..SenderConfig::default() };
    let data = ChunkSet::full(&geometry);
    let mut sender = Sender::new(Instant::START, announcement(), geometry, data, config, 1);
    let held = WireHave::Runs(Vec::new());
    sender.handle_message(
        Instant::START,
        peer(1),
        MulticastMessage::Join { session: SessionId(1), held, link_bytes_per_s: 0 },
    );
    sender.handle_message(Instant::START, peer(2), message.clone());
    if matches!(message, MulticastMessage::Report(_)) {
        sender.handle_message(Instant::START, peer(1), message);
    }
    core::iter::from_fn(|| sender.poll_output())
        .filter_map(|output| match output {
            sender::Output::Send { message, .. } => Some(message),
            _ => None,
        })
        .last()
}

#[test]
fn messages_that_do_not_fit_are_answered_by_leaving_out() {
    let session = SessionId(1);
    let dismissed = |reason| Some(MulticastMessage::Dismiss { session, reason });
    let join = |held| answer(MulticastMessage::Join { session, held, link_bytes_per_s: 0 });
    assert_eq!(join(WireHave::Runs(vec![(0, 100)])), dismissed(DismissReason::Malformed));
    assert_eq!(join(WireHave::Runs(Vec::new())), dismissed(DismissReason::Full));
    let report = |gained| answer(MulticastMessage::Report(Report { session, gained, ..Report::default() }));
    assert_eq!(report(WireDelta(vec![(7, 9)])), dismissed(DismissReason::Malformed));
    assert_eq!(report(WireDelta::default()), dismissed(DismissReason::Unknown));
    let other = MulticastMessage::Report(Report { session: SessionId(2), ..Report::default() });
    assert_eq!(answer(other), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A member can seal any header: nothing panics, and what is kept fits the pool.
    #[test]
    fn any_headers_are_borne(
        headers in prop::collection::vec((1u64.., 0u32..300, 0u8..130, 0u8..=255, 0u8..=20, any::<u16>(), any::<bool>()), 0..400),
    ) {
        let mut machine = receiver(200, ReceiverConfig { pool_bytes_most: 1 << 20, ..ReceiverConfig::default() });
        let mut pool = BlockPool::new(SYMBOL_LEN);
        let mut now = Instant::START;
        for (sequence, chunk, symbol, k, h, rest, is_honest) in headers {
            let k = if is_honest { 48 } else { k };
            let header = Header { session: SessionId(1), sequence, chunk, symbol, k, h, rest };
            if machine.handle_packet(now, &header) == Fate::Keep {
                pool.insert(chunk, k, symbol, &[0; SYMBOL_LEN]);
            }
            now = now + Duration::from_millis(20);
            machine.handle_timeout(now);
            while let Some(output) = machine.poll_output() {
                match output {
                    receiver::Output::Forget { chunk } => pool.forget(chunk.number()),
                    receiver::Output::Decode { chunk } => {
                        prop_assert!(pool.decode(chunk.number(), 65_536).is_some());
                        machine.handle_rejected(chunk);
                    }
                    _ => {}
                }
            }
            prop_assert!(pool.len() * BlockPool::block_len(SYMBOL_LEN) <= 1 << 20);
        }
    }
}
