//! A sender and hosts, joined by timed queues: the smallest drivers that the machines can have, and a network with faults.
//!
//! Every packet is sealed, opened, decoded and verified as a real driver would. There is no swarm: what is left to peers
//! stays lacking, so a test sees what multicast alone brings.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::geometry::{CHUNK_LEN, ChunkIndex, Geometry};
use crate::have::ChunkSet;
use crate::id::{ContentHash, PeerId};
use crate::manifest::{Manifest, ManifestBuilder, hash_chunk, is_zeros};
use crate::multicast::config::{ReceiverConfig, SenderConfig};
use crate::multicast::fec::{BlockPool, Codes, EncodedBlock};
use crate::multicast::group::GroupRange;
use crate::multicast::message::{Announcement, EndReason, MulticastMessage};
use crate::multicast::packet::{Opener, Sealer, SessionId, SessionKey, WIRE_OVERHEAD};
use crate::multicast::receiver::{self, AwayReason, Fate, Receiver};
use crate::multicast::sender::{self, Sender};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// Bytes per second of a link of 100 Mbit/s.
pub(super) const LINK: u64 = 12_500_000;
const SENDER: PeerId = PeerId::from_bytes([0xaa; 32]);
pub(super) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// One way over QUIC.
const MESSAGE_DELAY: Duration = Duration::from_millis(1);
/// What a switch's port holds, in bytes.
const QUEUE: u64 = 256 << 10;

/// The way from the sender to one host.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Bytes per second.
    pub rate: u64,
    /// Share of packets that get lost, each by itself.
    pub loss: f64,
    /// So many packets in a row get lost, once a second.
    pub burst: u32,
    /// Share of packets that come twice, and share that come some milliseconds late.
    pub duplicated: f64,
    pub delayed: f64,
    /// From then on no packet comes.
    pub blocked_from: Option<Instant>,
}

impl Default for Path {
    fn default() -> Self {
        Path { rate: LINK, loss: 0.0, burst: 0, duplicated: 0.0, delayed: 0.0, blocked_from: None }
    }
}

/// One host that takes part.
pub(super) struct Host {
    pub machine: Receiver,
    pub path: Path,
    /// Why it does not listen.
    pub away: Option<AwayReason>,
    pub away_since: Option<Instant>,
    /// When it held 97 % of the image.
    pub mostly_done: Option<Instant>,
    /// Chunks that multicast brought and the manifest accepted.
    pub held: ChunkSet,
    /// Messages to the sender, and time, are lost on it.
    pub is_dead: bool,
    /// Its disk takes so many bytes per second.
    pub disk: Option<u64>,
    written: u64,
    in_group: bool,
    /// Whether multicast is said to bring what is lacking.
    pub carried: bool,
    opener: Opener,
    pool: BlockPool,
    pub pool_most: usize,
    pub refused: u64,
    /// When its port has sent what is queued.
    port_free: Instant,
    burst_left: u32,
    next_burst: Instant,
}

enum Event {
    Datagram { to: usize, bytes: Rc<[u8]> },
    ToSender { from: usize, message: MulticastMessage },
    ToHost { to: usize, message: MulticastMessage },
}

/// Everything.
pub(super) struct Net {
    pub now: Instant,
    pub sender: Sender,
    pub hosts: Vec<Host>,
    pub ended: Option<EndReason>,
    /// UDP payload that the sender sent, in bytes.
    pub sent_bytes: u64,
    /// The last packets that were sent, for those who would replay or change them.
    pub overheard: Vec<Rc<[u8]>>,
    /// What members do to packets on the way to a host, if anything.
    pub is_sender_dead: bool,
    announcement: Announcement,
    content: Vec<u8>,
    pub manifest: Manifest,
    codes: Codes,
    loaded: BTreeMap<ChunkIndex, EncodedBlock>,
    sealer: Sealer,
    /// Flips a bit of every so many-th block's symbols before sealing: a sender that lies.
    pub lies_every: Option<u32>,
    rng: Rng,
    queue: BTreeMap<(Instant, u64), Event>,
    queued: u64,
}

pub(super) fn peer(number: usize) -> PeerId {
    PeerId::from_bytes([number as u8; 32])
}

impl Net {
    /// A sender with an image of so many chunks, the last one short, and nobody else.
    pub(super) fn new(seed: u64, chunks: u32, config: SenderConfig) -> Self {
        eprintln!("seed {seed}");
        let mut rng = Rng::seeded(seed);
        let len = chunks as usize * CHUNK_LEN as usize - 5000;
        let content: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(len).collect();
        let geometry = Geometry::of_len(len as u64).unwrap();
        let mut builder = ManifestBuilder::new(geometry);
        for chunk in content.chunks(CHUNK_LEN as usize) {
            builder.push((!is_zeros(chunk)).then(|| hash_chunk(chunk)));
        }
        let manifest = builder.finish(ContentHash::from_bytes(blake3::hash(&content).into()));
        let session = SessionId(rng.next_u64());
        let key = SessionKey::from_bytes([3; 32]);
        let announcement = Announcement {
            session,
            key: key.clone(),
            group: GroupRange::default().of(session),
            source: SOURCE,
            symbol_len: config.symbol_len as u16,
        };
        let data = manifest.data_chunks();
        let sender = Sender::new(Instant::START, announcement.clone(), geometry, data, config, rng.next_u64());
        Net {
            now: Instant::START,
            sender,
            hosts: Vec::new(),
            ended: None,
            sent_bytes: 0,
            overheard: Vec::new(),
            is_sender_dead: false,
            announcement,
            content,
            manifest,
            codes: Codes::default(),
            loaded: BTreeMap::new(),
            sealer: Sealer::new(&key, SENDER),
            lies_every: None,
            rng,
            queue: BTreeMap::new(),
            queued: 0,
        }
    }

    /// A host with nothing takes part from now on.
    pub(super) fn join(&mut self, path: Path) -> usize {
        self.join_with(path, ReceiverConfig { link_bytes_per_s: LINK, ..ReceiverConfig::default() })
    }

    pub(super) fn join_with(&mut self, path: Path, config: ReceiverConfig) -> usize {
        let geometry = self.manifest.geometry();
        let held = ChunkSet::empty(&geometry);
        let data = self.manifest.data_chunks();
        let seed = self.rng.next_u64();
        let symbol_len = usize::from(self.announcement.symbol_len);
        let Announcement { key, session, source, .. } = &self.announcement;
        let opener = Opener::new(key, *session, SENDER, *source, symbol_len);
        let machine = Receiver::new(self.now, &self.announcement, geometry, data, held.clone(), config, seed);
        self.hosts.push(Host {
            machine,
            path,
            away: None,
            away_since: None,
            mostly_done: None,
            held,
            is_dead: false,
            disk: None,
            written: 0,
            in_group: false,
            carried: false,
            opener,
            pool: BlockPool::new(symbol_len),
            pool_most: 0,
            refused: 0,
            port_free: self.now,
            burst_left: 0,
            next_burst: self.now + Duration::from_millis(700),
        });
        let host = self.hosts.len() - 1;
        self.obey_host(host);
        host
    }

    /// Runs until then, or until the session has ended and nothing is on its way.
    pub(super) fn run_until(&mut self, end: Instant) {
        while let Some(next) = self.next_time().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let event = entry.remove();
                self.handle(event);
            }
            if !self.is_sender_dead && self.sender.poll_timeout().is_some_and(|at| at <= self.now) {
                self.sender.handle_timeout(self.now);
                self.obey_sender();
            }
            for host in 0..self.hosts.len() {
                let due = self.hosts[host].machine.poll_timeout().is_some_and(|at| at <= self.now);
                if due && !self.hosts[host].is_dead {
                    self.tell_backlog(host);
                    self.hosts[host].machine.handle_timeout(self.now);
                    self.obey_host(host);
                }
            }
        }
        self.now = self.now.max(end.min(self.now + Duration::from_secs(3600)));
    }

    /// Runs for so long.
    pub(super) fn run_ms(&mut self, millis: u64) {
        self.run_until(self.now + Duration::from_millis(millis));
    }

    /// Runs until the session has ended; at most ten minutes.
    pub(super) fn run(&mut self) {
        let deadline = self.now + Duration::from_secs(600);
        while self.ended.is_none() && !self.is_sender_dead && self.now < deadline {
            self.run_ms(100);
        }
    }

    /// Somebody sends these bytes to a host's socket.
    pub(super) fn inject(&mut self, to: usize, from: IpAddr, bytes: &[u8]) {
        self.receive(to, from, &mut bytes.to_vec());
    }

    /// Bytes of the image.
    pub(super) fn len(&self) -> u64 {
        self.content.len() as u64
    }

    /// Share of the image's chunks that a host holds.
    pub(super) fn share(&self, host: usize) -> f64 {
        f64::from(self.hosts[host].held.count()) / f64::from(self.manifest.geometry().chunk_count())
    }

    fn next_time(&self) -> Option<Instant> {
        let sender = self.sender.poll_timeout().filter(|_| !self.is_sender_dead);
        let hosts = self.hosts.iter().filter(|host| !host.is_dead).filter_map(|host| host.machine.poll_timeout());
        self.queue.keys().next().map(|&(at, _)| at).into_iter().chain(sender).chain(hosts).min()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Datagram { to, bytes } => self.receive(to, SOURCE, &mut bytes.to_vec()),
            Event::ToSender { from, message } if !self.is_sender_dead => {
                self.sender.handle_message(self.now, peer(from), message);
                self.obey_sender();
            }
            Event::ToHost { to, message } if !self.hosts[to].is_dead => {
                self.hosts[to].machine.handle_message(self.now, &message);
                self.obey_host(to);
            }
            Event::ToSender { .. } | Event::ToHost { .. } => {}
        }
    }

    fn obey_sender(&mut self) {
        while let Some(output) = self.sender.poll_output() {
            match output {
                sender::Output::Send { peer: to, message } => {
                    let to = usize::from(to.as_bytes()[0]);
                    self.push(self.now + MESSAGE_DELAY, Event::ToHost { to, message });
                }
                sender::Output::Load { chunk, parity } => {
                    let geometry = self.manifest.geometry();
                    let from = geometry.chunk_offset(chunk) as usize;
                    let bytes = &self.content[from..from + geometry.chunk_len(chunk) as usize];
                    let block = self.codes.encode(bytes, usize::from(self.announcement.symbol_len), parity);
                    self.loaded.insert(chunk, block);
                }
                sender::Output::Unload { chunk } => _ = self.loaded.remove(&chunk),
                sender::Output::Transmit { header } => {
                    let chunk = self.manifest.geometry().chunk(header.chunk).unwrap();
                    let mut symbol = self.loaded[&chunk].symbol(header.symbol).unwrap().to_vec();
                    symbol[0] ^= u8::from(self.lies_every.is_some_and(|every| header.chunk % every == 0));
                    let mut bytes = Vec::new();
                    self.sealer.seal(&header, &symbol, &mut bytes);
                    self.transmit(bytes.into());
                }
                sender::Output::Ended { reason } => self.ended = Some(reason),
            }
        }
        assert!(self.loaded.len() <= 64, "{} blocks loaded", self.loaded.len());
    }

    fn transmit(&mut self, bytes: Rc<[u8]>) {
        self.sent_bytes += bytes.len() as u64;
        self.overheard.push(bytes.clone());
        if self.overheard.len() > 64 {
            self.overheard.remove(0);
        }
        for to in 0..self.hosts.len() {
            let now = self.now;
            let (host, rng) = (&mut self.hosts[to], &mut self.rng);
            if host.next_burst <= now {
                host.next_burst = now + Duration::from_secs(1);
                host.burst_left = host.path.burst;
            }
            let is_burst = host.burst_left > 0;
            host.burst_left -= u32::from(is_burst);
            let is_blocked = host.path.blocked_from.is_some_and(|from| from <= now);
            if !host.in_group || host.is_dead || is_blocked || is_burst || rng.chance(host.path.loss) {
                continue;
            }
            let waiting = host.port_free.since(now).as_nanos() * u128::from(host.path.rate) / 1_000_000_000;
            if waiting > u128::from(QUEUE) {
                continue;
            }
            let wire_len = (bytes.len() + WIRE_OVERHEAD) as u64;
            let takes = Duration::from_nanos(wire_len * 1_000_000_000 / host.path.rate);
            host.port_free = host.port_free.max(now) + takes;
            let late = if rng.chance(host.path.delayed) { rng.below(3_000) } else { 0 };
            let at = host.port_free + Duration::from_micros(u64::from(late));
            let copies = 1 + u32::from(rng.chance(host.path.duplicated));
            for _ in 0..copies {
                self.push(at, Event::Datagram { to, bytes: bytes.clone() });
            }
        }
    }

    fn receive(&mut self, to: usize, from: IpAddr, bytes: &mut [u8]) {
        let host = &mut self.hosts[to];
        if host.is_dead || !host.in_group {
            return;
        }
        let Ok((header, symbol)) = host.opener.open(from, bytes) else {
            host.refused += 1;
            return;
        };
        if host.machine.handle_packet(self.now, &header) == Fate::Keep {
            host.pool.insert(header.chunk, header.k, header.symbol, symbol);
            host.pool_most = host.pool_most.max(host.pool.len());
        }
        self.obey_host(to);
    }

    fn obey_host(&mut self, number: usize) {
        while let Some(output) = self.hosts[number].machine.poll_output() {
            let host = &mut self.hosts[number];
            match output {
                receiver::Output::JoinGroup => (host.in_group, host.away) = (true, None),
                receiver::Output::LeaveGroup { reason } => {
                    (host.in_group, host.away, host.away_since) = (false, Some(reason), Some(self.now));
                }
                receiver::Output::Send(message) => {
                    self.push(self.now + MESSAGE_DELAY, Event::ToSender { from: number, message });
                }
                receiver::Output::Decode { chunk } => self.decode(number, chunk),
                receiver::Output::Forget { chunk } => host.pool.forget(chunk.number()),
                receiver::Output::LeaveToPeers { chunk } => assert!(!host.machine.expects(chunk)),
                receiver::Output::Carries(carries) => {
                    assert_ne!(host.carried, carries, "told once");
                    host.carried = carries;
                }
            }
        }
    }

    fn decode(&mut self, number: usize, chunk: ChunkIndex) {
        let (manifest, host) = (&self.manifest, &mut self.hosts[number]);
        let geometry = manifest.geometry();
        let bytes = host.pool.decode(chunk.number(), geometry.chunk_len(chunk)).expect("it is complete");
        if manifest.verify(chunk, bytes).is_err() {
            host.machine.handle_rejected(chunk);
            return;
        }
        assert!(host.held.insert(chunk), "no chunk is decoded twice");
        host.machine.handle_stored(chunk);
        if host.held.count() * 100 >= geometry.chunk_count() * 97 {
            host.mostly_done.get_or_insert(self.now);
        }
    }

    /// What the disk has not written of what came.
    fn tell_backlog(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let Some(disk) = host.disk else { return };
        let came = u64::from(host.held.count()) * u64::from(CHUNK_LEN);
        host.written = came.min((u128::from(disk) * u128::from(self.now.as_nanos()) / 1_000_000_000) as u64);
        host.machine.handle_backlog(self.now, came - host.written, disk);
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }
}
