//! Any peers that say, ask for and send anything, at any time, and a disk and a network that fail in between, to a swarm:
//! it asks only those who are connected, only for chunks that there are and that it lacks, keeps what it holds to what was
//! stored, and serves only what it holds.

use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use drover_protocol::codec;
use drover_protocol::geometry::{ChunkIndex, Geometry};
use drover_protocol::have::{ChunkSet, PieceSet, WireDelta, WireHave};
use drover_protocol::hints::Source;
use drover_protocol::id::PeerId;
use drover_protocol::message::{LeaveReason, PeerMessage, SwarmMessage};
use drover_protocol::parts::WireParts;
use drover_protocol::swarm::{Output, RequestEnd, RequestId, ServeId, Swarm, SwarmConfig};
use drover_protocol::time::Instant;

const STEP_LEN: usize = 8;
/// Chunks of the image: a few pieces, the last of them short.
const CHUNKS: u32 = 22;
const ME: u8 = 0;

struct Driver {
    swarm: Swarm,
    geometry: Geometry,
    data: ChunkSet,
    now: Instant,
    connecting: BTreeSet<PeerId>,
    connected: BTreeSet<PeerId>,
    /// Whom, and chunks that have not come.
    requests: BTreeMap<RequestId, (PeerId, Vec<u32>)>,
    serving: BTreeMap<ServeId, PeerId>,
    asked: BTreeMap<ServeId, PeerId>,
    last_serve: u64,
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, steps)) = bytes.split_first() else { return };
    let mut driver = Driver::new(*kind);
    driver.carry_out();
    for step in steps.chunks_exact(STEP_LEN) {
        driver.step(step);
        driver.carry_out();
        assert!(driver.swarm.held().iter().all(|chunk| driver.data.contains(chunk)));
        assert_eq!(driver.swarm.is_complete(), driver.swarm.held().count() == driver.data.count());
    }
    let status = driver.swarm.status();
    assert!(status.held_bytes <= status.data_bytes && status.held_chunks <= status.data_chunks);
}

impl Driver {
    fn new(kind: u8) -> Self {
        let len = u64::from(CHUNKS) * 65_536 - 1000;
        let geometry = Geometry::new(len, 256 << 10).expect("a geometry of an image");
        let (mut data, mut held) = (ChunkSet::empty(&geometry), ChunkSet::empty(&geometry));
        for chunk in geometry.chunks() {
            // Some chunks are zeros, and in some runs a whole piece of them.
            if chunk.number() % 5 != 3 && !(kind & 2 != 0 && (4..8).contains(&chunk.number())) {
                data.insert(chunk);
                if kind & 1 != 0 && chunk.number() % 2 == 0 {
                    held.insert(chunk);
                }
            }
        }
        let rack = (kind & 4 != 0).then(|| "r1".to_owned());
        let config = SwarmConfig { rack, upload_slots: 2, ..SwarmConfig::default() };
        let now = Instant::START;
        let swarm = Swarm::new(now, peer(ME), geometry, data.clone(), held, config, u64::from(kind));
        Driver {
            swarm,
            geometry,
            data,
            now,
            connecting: BTreeSet::new(),
            connected: BTreeSet::new(),
            requests: BTreeMap::new(),
            serving: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_serve: 0,
        }
    }

    fn step(&mut self, step: &[u8]) {
        self.now = self.now + Duration::from_millis(u64::from(step[0]) * u64::from(step[1] % 16));
        let (now, whom, arg) = (self.now, peer(step[3]), &step[4..]);
        match step[2] % 16 {
            0 => {
                let source = match arg[2] % 4 {
                    0 => Source::Dht,
                    1 => Source::PeerExchange(peer(arg[3])),
                    number => Source::Tracker(number.into()),
                };
                self.swarm.handle_candidates(now, source, &[whom, peer(arg[0]), peer(arg[1])]);
            }
            1 => {
                if let Some(peer) = self.connecting.pop_first() {
                    self.connected.insert(peer);
                    self.swarm.handle_connected(now, peer);
                }
            }
            2 => {
                if let Some(peer) = self.connecting.pop_last() {
                    self.swarm.handle_connect_failed(now, peer);
                }
            }
            // It dialled us.
            3 => {
                if whom != peer(ME) && self.connected.insert(whom) {
                    self.connecting.remove(&whom);
                    self.swarm.handle_connected(now, whom);
                }
            }
            4 => self.disconnect(whom),
            5..=7 => {
                if self.connected.contains(&whom) {
                    self.swarm.handle_message(now, whom, self.message(arg));
                }
            }
            8 => {
                if self.connected.contains(&whom) {
                    self.last_serve += 1;
                    let serve = ServeId(self.last_serve);
                    self.asked.insert(serve, whom);
                    let start = u32::from(arg[1]);
                    let chunks = vec![start..start.saturating_add(u32::from(arg[2])), 255..256];
                    self.swarm.handle_request(now, whom, serve, u32::from(arg[0]), chunks);
                }
            }
            9 => {
                if let Some((serve, _)) = self.serving.pop_first() {
                    self.swarm.handle_served(now, serve, u64::from(arg[0]) * 4096);
                }
            }
            10 => {
                let waiting = self.asked.keys().chain(self.serving.keys()).next_back().copied();
                if let Some(serve) = waiting {
                    self.asked.remove(&serve);
                    self.serving.remove(&serve);
                    self.swarm.handle_serve_cancelled(now, serve, 0);
                }
            }
            11 => self.store(arg),
            12 => self.end_request(arg),
            13 => {
                let lost: Vec<ChunkIndex> = self.swarm.held().iter().skip(usize::from(arg[0])).take(3).collect();
                self.swarm.handle_chunks_lost(now, &lost);
            }
            14 => match arg[0] % 3 {
                0 => self.swarm.set_paused(now, arg[1] & 1 == 1),
                1 => self.swarm.set_rate_limits(now, limit(arg[1]), limit(arg[2])),
                _ => {
                    let start = u32::from(arg[1]) % CHUNKS;
                    self.swarm.handle_reader(now, start..(start + 1 + u32::from(arg[2]) % 4).min(CHUNKS));
                }
            },
            _ => {
                if let Some(due) = self.swarm.poll_timeout() {
                    self.now = self.now.max(due);
                    self.swarm.handle_timeout(self.now);
                }
            }
        }
    }

    /// A chunk of a request came, and was right or wrong.
    fn store(&mut self, arg: &[u8]) {
        let at = usize::from(arg[0]) % self.requests.len().max(1);
        let Some((&request, (_, chunks))) = self.requests.iter_mut().nth(at) else { return };
        let Some(number) = chunks.pop() else { return };
        let chunk = self.geometry.chunk(number).expect("it was asked for");
        if arg[1] < 8 {
            self.swarm.handle_chunk_rejected(self.now, chunk, request);
        } else {
            let by = (arg[1] & 1 == 0).then_some(request);
            self.swarm.handle_chunk_stored(self.now, chunk, by);
            assert!(self.swarm.held().contains(chunk));
        }
    }

    fn end_request(&mut self, arg: &[u8]) {
        let at = usize::from(arg[0]) % self.requests.len().max(1);
        let Some(&request) = self.requests.keys().nth(at) else { return };
        self.requests.remove(&request);
        let retry_after = Duration::from_millis(u64::from(arg[2]) * 10);
        let end = match arg[1] % 4 {
            0 => RequestEnd::Done,
            1 => RequestEnd::Busy { retry_after, instead: (arg[2] & 1 == 1).then_some(u32::from(arg[3])) },
            2 => RequestEnd::NotHeld,
            _ => RequestEnd::Failed,
        };
        self.swarm.handle_request_ended(self.now, request, end);
    }

    fn disconnect(&mut self, whom: PeerId) {
        if self.connected.remove(&whom) {
            self.requests.retain(|_, (peer, _)| *peer != whom);
            self.serving.retain(|_, peer| *peer != whom);
            self.asked.retain(|_, peer| *peer != whom);
            self.swarm.handle_disconnected(self.now, whom);
        }
    }

    fn message(&self, arg: &[u8]) -> SwarmMessage {
        let mut some = PieceSet::empty(&self.geometry);
        for piece in self.geometry.pieces().filter(|piece| arg[1] >> (piece.number() % 8) & 1 == 1) {
            some.insert(piece);
        }
        match arg[0] % 10 {
            0 => SwarmMessage::Join { have: WireHave::of(&some) },
            1 => SwarmMessage::Have { have: WireHave::of(&some) },
            2 => SwarmMessage::HaveDelta { delta: WireDelta::of(some.iter()) },
            3 => SwarmMessage::Leave { reason: [LeaveReason::Full, LeaveReason::Banned][usize::from(arg[1] & 1)] },
            4 => SwarmMessage::Rack { rack: format!("r{}", arg[1] % 3) },
            5 => SwarmMessage::Importing { pieces: WireDelta::of(some.iter()) },
            6 => {
                let pieces = WireDelta(vec![(u32::from(arg[1] % 6), 1)]);
                SwarmMessage::Partial { is_stuck: arg[2] & 1 == 1, parts: WireParts { pieces, chunks: vec![arg[3]] } }
            }
            7 => SwarmMessage::HaveDelta { delta: WireDelta(vec![(u32::from(arg[1]), u32::from(arg[2]))]) },
            8 => SwarmMessage::Have { have: WireHave::Runs(vec![(u32::from(arg[1]), u32::from(arg[2]))]) },
            _ => SwarmMessage::Have { have: WireHave::Bitmap(arg[1..].to_vec()) },
        }
    }

    /// Does what the swarm says, and looks whether it may say that.
    fn carry_out(&mut self) {
        let mut most = 10_000;
        while let Some(output) = self.swarm.poll_output() {
            most -= 1;
            assert!(most > 0, "it never comes to an end");
            match output {
                Output::Connect { peer } => {
                    assert!(peer != self::peer(ME));
                    // A driver that is connected already says so at once.
                    if self.connected.contains(&peer) {
                        self.swarm.handle_connected(self.now, peer);
                    } else {
                        self.connecting.insert(peer);
                    }
                }
                Output::Send { peer, message } => {
                    assert!(self.connected.contains(&peer), "said to nobody: {message:?}");
                    let message =
                        PeerMessage::Swarm { image: drover_protocol::id::ImageId::from_bytes([7; 32]), message };
                    codec::encode(&message).expect("what is said keeps its bounds");
                }
                Output::SendPeers { peer, about } => {
                    assert!(self.connected.contains(&peer) && !about.contains(&peer));
                }
                Output::Request { peer, request, piece, chunks } => {
                    assert!(self.connected.contains(&peer) && !chunks.is_empty());
                    let chunks: Vec<u32> = chunks.into_iter().flat_map(|run: Range<u32>| run).collect();
                    for &number in &chunks {
                        let chunk = self.geometry.chunk(number).expect("the image has it");
                        assert!(self.data.contains(chunk) && self.geometry.piece_of(chunk) == piece);
                        assert!(!self.swarm.held().contains(chunk), "it is held already");
                    }
                    assert!(self.requests.insert(request, (peer, chunks)).is_none());
                }
                Output::Cancel { request, .. } => drop(self.requests.remove(&request)),
                Output::Serve { peer, serve } => {
                    assert_eq!(self.asked.remove(&serve), Some(peer), "served is who asked");
                    self.serving.insert(serve, peer);
                }
                Output::Refuse { peer, serve, .. } => {
                    assert_eq!(self.asked.remove(&serve), Some(peer), "refused is who asked");
                }
                Output::Ban { peer, .. } => self.disconnect(peer),
                Output::Dropped { .. } | Output::Complete => {}
            }
        }
    }
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number % 24; 32])
}

fn limit(byte: u8) -> Option<u64> {
    (byte > 0).then(|| u64::from(byte) << 14)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let meet = |number: u8| [[0, 0, 3, number, 0, 0, 0, 0], [0, 0, 5, number, 0, 0xff, 0, 0]].concat();
    let (store, end, wait) = ([1, 1, 11, 0, 0, 9, 0, 0], [1, 1, 12, 0, 0, 0, 0, 0], [1, 1, 15, 0, 0, 0, 0, 0]);
    let fetch = [vec![0], meet(1), meet(2), [store, end, store, store, wait].concat().repeat(8)].concat();
    let ask = |number: u8| [1, 1, 8, number, 0, 0, 4, 0];
    let served = [1, 1, 9, 0, 16, 0, 0, 0];
    let serve =
        [vec![5], meet(1), meet(2), meet(3), [ask(1), ask(2), ask(3), served, wait].concat().repeat(4)].concat();
    let told = [vec![2], [0, 0, 0, 4, 5, 6, 0, 0].to_vec(), [0, 0, 1, 0, 0, 0, 0, 0].repeat(3), meet(4)].concat();
    vec![fetch, serve, told]
}
