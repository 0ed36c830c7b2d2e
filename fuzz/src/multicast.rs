//! Any datagrams that authenticated, any words of the sender and any pauses into a receiver: its pool stays bounded, what it asks to
//! decode can be decoded, and any bytes as a datagram are dropped.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use drover_protocol::geometry::Geometry;
use drover_protocol::have::ChunkSet;
use drover_protocol::id::PeerId;
use drover_protocol::multicast::config::ReceiverConfig;
use drover_protocol::multicast::fec::{BlockPool, SYMBOL_LEN_LEAST};
use drover_protocol::multicast::message::{Announcement, Beat, MulticastMessage};
use drover_protocol::multicast::packet::{HEADER_LEN, Header, Opener, SessionId, SessionKey};
use drover_protocol::multicast::receiver::{Fate, Output, Receiver};
use drover_protocol::time::Instant;

const SESSION: SessionId = SessionId(1);
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const POOL: usize = 1 << 20;

pub(crate) fn run(bytes: &[u8]) {
    let key = SessionKey::from_bytes([1; 32]);
    let mut opener = Opener::new(&key, SESSION, PeerId::from_bytes([2; 32]), SOURCE, SYMBOL_LEN_LEAST);
    assert!(opener.open(SOURCE, &mut bytes.to_vec()).is_err());

    let group = "239.255.1.2:50000".parse().expect("an address");
    let announcement =
        Announcement { session: SESSION, key, group, source: SOURCE, symbol_len: SYMBOL_LEN_LEAST as u16 };
    let geometry = Geometry::of_len(100 * 65_536 - 1000).expect("a length of an image");
    let config = ReceiverConfig { pool_bytes_most: POOL, ..ReceiverConfig::default() };
    let (data, held) = (ChunkSet::full(&geometry), ChunkSet::empty(&geometry));
    let mut now = Instant::START;
    let mut machine = Receiver::new(now, &announcement, geometry, data, held, config, 1);
    let mut pool = BlockPool::new(SYMBOL_LEN_LEAST);
    for step in bytes.chunks_exact(HEADER_LEN) {
        let mut step: [u8; HEADER_LEN] = step.try_into().expect("it has this length");
        let [kind, pause, ..] = step;
        now = now + Duration::from_millis(u64::from(pause));
        if kind % 16 == 0 {
            let sequence = u64::from_le_bytes(step[9..17].try_into().expect("eight bytes"));
            let report_interval_ms = u32::from(step[2]);
            let beat = Beat { session: SESSION, sequence, report_interval_ms, is_idle: step[2] & 1 == 1 };
            machine.handle_message(now, &MulticastMessage::Beat(beat));
        } else {
            step[..9].copy_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0]);
            step[18..21].fill(0);
            let header = Header::from_bytes(&step).expect("it has the format");
            if machine.handle_packet(now, &header) == Fate::Keep {
                pool.insert(header.chunk, header.k, header.symbol, &[kind; SYMBOL_LEN_LEAST]);
            }
        }
        machine.handle_timeout(now);
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Forget { chunk } => pool.forget(chunk.number()),
                Output::Decode { chunk } => {
                    assert!(pool.decode(chunk.number(), geometry.chunk_len(chunk)).is_some());
                    if kind % 2 == 0 { machine.handle_stored(chunk) } else { machine.handle_rejected(chunk) }
                }
                Output::JoinGroup
                | Output::LeaveGroup { .. }
                | Output::Send(_)
                | Output::LeaveToPeers { .. }
                | Output::Carries(_) => {}
            }
        }
        assert!(pool.len() * BlockPool::block_len(SYMBOL_LEN_LEAST) <= POOL);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // A block of 110 symbols of the shortest kind, one after the other, and a beat.
    let symbol = |number: u8| {
        let mut step =
            Header { session: SESSION, sequence: u64::from(number), chunk: 3, symbol: number, k: 110, h: 3, rest: 0 }
                .to_bytes()
                .to_vec();
        (step[0], step[1]) = (2, 1);
        step
    };
    let block: Vec<u8> = (0..113).flat_map(symbol).collect();
    let mut beat = vec![0; HEADER_LEN];
    beat[9] = 120;
    vec![[block.clone(), beat.clone()].concat(), [block[..HEADER_LEN * 60].to_vec(), beat, block].concat()]
}
