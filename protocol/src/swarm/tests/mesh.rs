//! N swarms joined by timed queues: a model of hosts, links and verification, with faults, on virtual time.
//!
//! A host's uplink sends one chunk at a time, round robin over what it serves; its downlink receives one at a time.
//! Between two hosts at most a window of chunks is under way, so a full downlink slows its senders as flow control
//! would. Control messages take the latency and no bandwidth. A lost packet delays what comes after it on its stream.
//!
//! What is not modelled: congestion control, disks, processors. The checker lives in here because it sees everything:
//! no wrong chunk may be stored, no chunk may be sent that the sender does not hold, and no timer may come twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use core::ops::Range;
use core::time::Duration;

use super::super::{Misdeed, Output, Refusal, RequestEnd, RequestId, ServeId, Swarm, SwarmConfig};
use crate::geometry::{ChunkIndex, Geometry};
use crate::have::ChunkSet;
use crate::hints::Source;
use crate::id::PeerId;
use crate::message::SwarmMessage;
use crate::rng::Rng;
use crate::time::Instant;

/// Chunks under way between two hosts at most: 512 KiB, as a congestion window would allow.
const WINDOW: u32 = 8;

/// What all hosts have in common.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) seed: u64,
    pub(super) image_len: u64,
    pub(super) piece_len: u32,
    /// Every n-th piece is zeros; zero for none.
    pub(super) zero_every: u32,
    pub(super) latency: Duration,
    /// Share of chunks of which a packet is lost.
    pub(super) loss: f64,
    /// Whether all hosts share one machine: who sends while others do is slower by their number, and by chance.
    pub(super) is_one_machine: bool,
    /// After how long the death of a host is noticed by others.
    pub(super) death_noticed: Duration,
    pub(super) config: SwarmConfig,
}

impl Setting {
    /// A calm network.
    pub(super) fn calm(seed: u64, image_len: u64) -> Self {
        Setting {
            seed,
            image_len,
            piece_len: 256 << 10,
            zero_every: 0,
            latency: Duration::from_millis(1),
            loss: 0.0,
            is_one_machine: false,
            death_noticed: Duration::from_secs(10),
            config: SwarmConfig::default(),
        }
    }
}

/// One host: its swarm while it runs, its disk, its links.
pub(super) struct Host {
    pub(super) swarm: Option<Swarm>,
    /// What is on its disk: survives the swarm.
    pub(super) stored: ChunkSet,
    /// Bytes per second out and in.
    pub(super) up_rate: u64,
    pub(super) down_rate: u64,
    /// Probability that a chunk it sends is wrong.
    pub(super) lies: f64,
    /// Whether it does nothing at all, with its connections open.
    pub(super) is_frozen: bool,
    pub(super) completed_at: Option<Instant>,
    pub(super) completions: u32,
    pub(super) sent_bytes: u64,
    pub(super) sent_chunks: ChunkSet,
    pub(super) wasted_bytes: u64,
    pub(super) banned: Vec<(PeerId, Misdeed)>,
    life: u32,
    armed: Option<Instant>,
    serves: BTreeMap<ServeId, Serving>,
    active: VecDeque<ServeId>,
    is_sending: bool,
    receives_until: Instant,
    asked: BTreeMap<RequestId, u32>,
}

struct Serving {
    to: usize,
    request: RequestId,
    chunks: VecDeque<u32>,
    sent: u64,
}

#[derive(Debug)]
enum Event {
    Timer { host: usize, life: u32 },
    Say { from: usize, to: usize, message: SwarmMessage },
    Peers { to: usize, about: Vec<PeerId> },
    Dialled { from: usize, to: usize },
    Ask { from: usize, to: usize, request: RequestId, piece: u32, chunks: Vec<Range<u32>> },
    Cancel { from: usize, to: usize, request: RequestId },
    Ended { at: usize, life: u32, request: RequestId, end: RequestEnd },
    Sent { host: usize, life: u32, serve: ServeId, chunk: u32 },
    Arrived { from: usize, to: usize, life: u32, request: RequestId, chunk: u32, is_wrong: bool },
    Received { from: usize, to: usize, life: u32, request: RequestId, chunk: u32, is_wrong: bool },
    Acknowledged { from: usize, to: usize },
    Lost { host: usize, peer: usize },
}

/// The hosts and everything under way between them.
pub(super) struct Mesh {
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    pub(super) geometry: Geometry,
    pub(super) data: ChunkSet,
    /// How many messages about parts of pieces were sent.
    pub(super) partials: u64,
    setting: Setting,
    rng: Rng,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    steps: u64,
    serve_count: u64,
    under_way: BTreeMap<(usize, usize), u32>,
    connected: BTreeSet<(usize, usize)>,
    /// When the last thing on a control stream or request stream arrives: streams keep their order.
    arrives: BTreeMap<(usize, usize, u64), Instant>,
}

/// The name of the host of this number.
pub(super) fn peer_id(host: usize) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(host as u64).to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn host_of(peer: PeerId) -> usize {
    u64::from_be_bytes(peer.as_bytes()[..8].try_into().expect("eight bytes")) as usize
}

impl Mesh {
    /// A mesh without hosts.
    pub(super) fn new(setting: Setting) -> Self {
        let geometry = Geometry::new(setting.image_len, setting.piece_len).expect("lengths of an image");
        let mut data = ChunkSet::empty(&geometry);
        for chunk in geometry.chunks() {
            let piece = geometry.piece_of(chunk).number();
            if setting.zero_every == 0 || !piece.is_multiple_of(setting.zero_every) {
                data.insert(chunk);
            }
        }
        Mesh {
            now: Instant::from_millis(1000),
            hosts: Vec::new(),
            geometry,
            data,
            partials: 0,
            rng: Rng::seeded(setting.seed),
            events: BTreeMap::new(),
            sequence: 0,
            steps: 0,
            serve_count: 0,
            under_way: BTreeMap::new(),
            connected: BTreeSet::new(),
            arrives: BTreeMap::new(),
            setting,
        }
    }

    /// Adds a host that does not run yet, with these chunks on its disk.
    pub(super) fn add_host(&mut self, rate: u64, stored: ChunkSet) -> usize {
        self.hosts.push(Host {
            swarm: None,
            stored,
            up_rate: rate,
            down_rate: rate,
            lies: 0.0,
            is_frozen: false,
            completed_at: None,
            completions: 0,
            sent_bytes: 0,
            sent_chunks: ChunkSet::empty(&self.geometry),
            wasted_bytes: 0,
            banned: Vec::new(),
            life: 0,
            armed: None,
            serves: BTreeMap::new(),
            active: VecDeque::new(),
            is_sending: false,
            receives_until: self.now,
            asked: BTreeMap::new(),
        });
        self.hosts.len() - 1
    }

    /// Adds a publisher and `leechers` hosts that have nothing, all of the same rate, and starts them.
    pub(super) fn fleet(setting: Setting, leechers: usize, rate: u64) -> Self {
        let mut mesh = Mesh::new(setting);
        let data = mesh.data.clone();
        mesh.add_host(rate, data);
        for _ in 0..leechers {
            mesh.add_host(rate, ChunkSet::empty(&mesh.geometry));
        }
        for host in 0..=leechers {
            mesh.start(host);
        }
        mesh.introduce_all();
        mesh
    }

    /// Starts a host with what is on its disk.
    pub(super) fn start(&mut self, host: usize) {
        let (config, seed) = (self.setting.config.clone(), self.rng.next_u64());
        let at = &mut self.hosts[host];
        at.life += 1;
        let (data, stored) = (self.data.clone(), at.stored.clone());
        at.swarm = Some(Swarm::new(self.now, peer_id(host), self.geometry, data, stored, config, seed));
        self.drain(host);
    }

    /// Kills a host: what was under way with it is gone, and others notice later.
    pub(super) fn kill(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        at.swarm = None;
        at.life += 1;
        at.armed = None;
        at.serves.clear();
        at.active.clear();
        at.asked.clear();
        at.is_sending = false;
        self.under_way.retain(|(from, to), _| *from != host && *to != host);
        let peers: Vec<usize> = self.connected.iter().filter(|(a, _)| *a == host).map(|(_, b)| *b).collect();
        for peer in peers {
            self.at(self.setting.death_noticed, Event::Lost { host: peer, peer: host });
        }
    }

    /// Tells every host of every other, as a tracker would.
    pub(super) fn introduce_all(&mut self) {
        let all: Vec<PeerId> = (0..self.hosts.len()).map(peer_id).collect();
        for host in 0..self.hosts.len() {
            self.introduce(host, &all);
        }
    }

    /// Tells a host of others.
    pub(super) fn introduce(&mut self, host: usize, peers: &[PeerId]) {
        self.tell(host, |swarm, now| swarm.handle_candidates(now, Source::Tracker(0), peers));
    }

    /// Connects two hosts without telling their swarms.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        self.connected.extend([(a, b), (b, a)]);
    }

    /// Calls a swarm, if it runs, and does what it says.
    pub(super) fn tell(&mut self, host: usize, call: impl FnOnce(&mut Swarm, Instant)) {
        let now = self.now;
        if let Some(swarm) = &mut self.hosts[host].swarm {
            call(swarm, now);
            self.drain(host);
        }
    }

    /// Runs until `done`, or until a deadline; says whether it is done.
    pub(super) fn run_until(&mut self, deadline: Duration, mut done: impl FnMut(&Mesh) -> bool) -> bool {
        let deadline = self.now + deadline;
        while !done(self) {
            match self.events.first_key_value() {
                Some(((at, _), _)) if *at <= deadline => self.step(),
                _ => {
                    self.now = deadline;
                    return false;
                }
            }
        }
        true
    }

    /// Whether every running host that never lies holds everything.
    pub(super) fn all_complete(&self) -> bool {
        let honest = self.hosts.iter().filter(|host| host.lies == 0.0 && !host.is_frozen);
        honest.filter_map(|host| host.swarm.as_ref()).all(Swarm::is_complete)
    }

    /// Bytes of data that the image has.
    pub(super) fn data_bytes(&self) -> u64 {
        self.data.iter().map(|chunk| u64::from(self.geometry.chunk_len(chunk))).sum()
    }

    /// Everything that any of these hosts has on its disk.
    pub(super) fn union_of(&self, hosts: Range<usize>) -> ChunkSet {
        hosts.fold(ChunkSet::empty(&self.geometry), |mut union, host| {
            self.hosts[host].stored.runs().for_each(|run| union.insert_run(run));
            union
        })
    }

    /// The data that is not in a set.
    pub(super) fn lacking(&self, set: &ChunkSet) -> ChunkSet {
        let mut lacking = ChunkSet::empty(&self.geometry);
        for chunk in self.data.difference(set) {
            lacking.insert(chunk);
        }
        lacking
    }

    /// What a running host says that nobody has.
    pub(super) fn unavailable(&self, host: usize) -> ChunkSet {
        let status = self.hosts[host].swarm.as_ref().expect("it runs").status();
        let mut unavailable = ChunkSet::empty(&self.geometry);
        status.unavailable.into_iter().for_each(|run| unavailable.insert_run(run));
        unavailable
    }

    /// How many events happened.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    fn step(&mut self) {
        let Some(((at, _), event)) = self.events.pop_first() else { return };
        assert!(at >= self.now, "time does not go back");
        self.now = at;
        self.happen(event);
        self.steps += 1;
        if self.steps.is_multiple_of(5000) {
            self.hosts.iter().filter_map(|host| host.swarm.as_ref()).for_each(Swarm::check);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Timer { host, life } => self.ring(host, life),
            Event::Say { from, to, message } => {
                if self.is_heard(from, to) {
                    self.tell(to, |swarm, now| swarm.handle_message(now, peer_id(from), message));
                }
            }
            Event::Peers { to, about } => self.introduce(to, &about),
            Event::Dialled { from, to } => self.dialled(from, to),
            Event::Ask { from, to, request, piece, chunks } => self.asked(from, to, request, piece, chunks),
            Event::Cancel { from, to, request } => self.cancelled(from, to, request),
            Event::Ended { at, life, request, end } => {
                if self.hosts[at].life == life && self.hosts[at].asked.remove(&request).is_some() {
                    self.tell(at, |swarm, now| swarm.handle_request_ended(now, request, end));
                }
            }
            Event::Sent { host, life, serve, chunk } => self.sent(host, life, serve, chunk),
            Event::Arrived { from, to, life, request, chunk, is_wrong } => {
                let len = self.len_of(chunk);
                let receiver = &mut self.hosts[to];
                receiver.receives_until = receiver.receives_until.max(self.now) + time_of(len, receiver.down_rate);
                let wait = receiver.receives_until.since(self.now);
                self.at(wait, Event::Received { from, to, life, request, chunk, is_wrong });
            }
            Event::Received { from, to, life, request, chunk, is_wrong } => {
                self.at(self.setting.latency, Event::Acknowledged { from, to });
                self.received(to, life, request, chunk, is_wrong);
            }
            Event::Acknowledged { from, to } => {
                if let Some(count) = self.under_way.get_mut(&(from, to)) {
                    *count = count.saturating_sub(1);
                }
                self.send_next(from);
            }
            Event::Lost { host, peer } => {
                if self.hosts[peer].swarm.is_none() || !self.connected.contains(&(peer, host)) {
                    self.connected.remove(&(host, peer));
                    self.connected.remove(&(peer, host));
                    self.tell(host, |swarm, now| swarm.handle_disconnected(now, peer_id(peer)));
                }
            }
        }
    }

    fn ring(&mut self, host: usize, life: u32) {
        let at = &mut self.hosts[host];
        if at.life != life || at.armed != Some(self.now) || at.is_frozen {
            return;
        }
        at.armed = None;
        self.tell(host, |swarm, now| {
            swarm.handle_timeout(now);
            assert!(swarm.poll_timeout().is_none_or(|next| next > now), "a timer that rang is done with");
        });
    }

    fn dialled(&mut self, from: usize, to: usize) {
        if self.hosts[to].swarm.is_some() && !self.hosts[to].is_frozen {
            self.connected.extend([(from, to), (to, from)]);
            self.tell(from, |swarm, now| swarm.handle_connected(now, peer_id(to)));
        } else {
            self.tell(from, |swarm, now| swarm.handle_connect_failed(now, peer_id(to)));
        }
    }

    fn asked(&mut self, from: usize, to: usize, request: RequestId, piece: u32, chunks: Vec<Range<u32>>) {
        if !self.is_heard(from, to) || self.hosts[to].swarm.is_none() {
            return;
        }
        self.serve_count += 1;
        let serve = ServeId(self.serve_count);
        let serving = Serving { to: from, request, chunks: chunks.iter().cloned().flatten().collect(), sent: 0 };
        self.hosts[to].serves.insert(serve, serving);
        self.tell(to, |swarm, now| swarm.handle_request(now, peer_id(from), serve, piece, chunks));
    }

    fn cancelled(&mut self, from: usize, to: usize, request: RequestId) {
        let host = &mut self.hosts[to];
        let serve = host.serves.iter().find(|(_, serving)| serving.to == from && serving.request == request);
        let Some(serve) = serve.map(|(serve, _)| *serve) else { return };
        let sent = host.serves.remove(&serve).map_or(0, |serving| serving.sent);
        host.active.retain(|active| *active != serve);
        self.tell(to, |swarm, now| swarm.handle_serve_cancelled(now, serve, sent));
    }

    /// Puts the next chunk on a host's uplink, if it is free.
    fn send_next(&mut self, from: usize) {
        let host = &mut self.hosts[from];
        if host.is_sending || host.swarm.is_none() || host.is_frozen {
            return;
        }
        let under_way = &self.under_way;
        let open = |serve: &ServeId| under_way.get(&(from, host.serves[serve].to)).is_none_or(|count| *count < WINDOW);
        let Some(at) = host.active.iter().position(open) else { return };
        let serve = host.active.remove(at).expect("a position in the queue");
        let serving = host.serves.get_mut(&serve).expect("what is active is served");
        let chunk = serving.chunks.pop_front().expect("what is active has chunks left");
        let to = serving.to;
        if !serving.chunks.is_empty() {
            host.active.push_back(serve);
        }
        host.is_sending = true;
        *self.under_way.entry((from, to)).or_default() += 1;
        let (life, rate) = (host.life, host.up_rate);
        let mut wait = time_of(self.len_of(chunk), rate);
        if self.setting.is_one_machine {
            let sending = self.hosts.iter().filter(|host| host.is_sending).count() as u32;
            wait = wait * sending * (1 + self.rng.below(100)) / 50;
        }
        self.at(wait, Event::Sent { host: from, life, serve, chunk });
    }

    fn sent(&mut self, from: usize, life: u32, serve: ServeId, chunk: u32) {
        let len = self.len_of(chunk);
        let host = &mut self.hosts[from];
        if host.life != life {
            return;
        }
        host.is_sending = false;
        host.sent_bytes += len;
        let index = self.geometry.chunk(chunk).expect("a chunk of the image");
        assert!(host.stored.contains(index), "nothing is sent that is not held");
        host.sent_chunks.insert(index);
        let is_wrong = self.rng.chance(host.lies);
        if let Some(serving) = host.serves.get_mut(&serve) {
            serving.sent += len;
            let (to, request, sent, is_over) = (serving.to, serving.request, serving.sent, serving.chunks.is_empty());
            if is_over {
                host.serves.remove(&serve);
            }
            let to_life = self.hosts[to].life;
            let event = Event::Arrived { from, to, life: to_life, request, chunk, is_wrong };
            self.in_order((from, to, request.0), event);
            if is_over {
                self.tell(from, |swarm, now| swarm.handle_served(now, serve, sent));
            }
        }
        self.send_next(from);
    }

    fn received(&mut self, to: usize, life: u32, request: RequestId, chunk: u32, is_wrong: bool) {
        let len = self.len_of(chunk);
        let index = self.geometry.chunk(chunk).expect("a chunk of the image");
        let host = &mut self.hosts[to];
        if host.life != life || host.is_frozen {
            return;
        }
        let Some(left) = host.asked.get_mut(&request) else {
            host.wasted_bytes += len;
            return;
        };
        *left -= 1;
        let is_over = *left == 0;
        if is_wrong {
            self.tell(to, |swarm, now| swarm.handle_chunk_rejected(now, index, request));
        } else {
            if !host.stored.insert(index) {
                host.wasted_bytes += len;
            }
            self.tell(to, |swarm, now| swarm.handle_chunk_stored(now, index, Some(request)));
        }
        if is_over && self.hosts[to].asked.remove(&request).is_some() {
            self.tell(to, |swarm, now| swarm.handle_request_ended(now, request, RequestEnd::Done));
        }
    }

    /// Does what a swarm says, and arms its timer.
    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].swarm.as_mut().and_then(Swarm::poll_output) {
            self.obey(host, output);
        }
        let at = &mut self.hosts[host];
        let Some(next) = at.swarm.as_ref().and_then(Swarm::poll_timeout) else { return };
        let next = next.max(self.now);
        if at.armed != Some(next) {
            at.armed = Some(next);
            let life = at.life;
            self.at(next.since(self.now), Event::Timer { host, life });
        }
    }

    fn obey(&mut self, host: usize, output: Output) {
        let latency = self.setting.latency;
        match output {
            Output::Connect { peer } => self.at(latency * 2, Event::Dialled { from: host, to: host_of(peer) }),
            Output::Send { peer, message } => {
                let to = host_of(peer);
                self.partials += u64::from(matches!(message, SwarmMessage::Partial { .. }));
                self.in_order((host, to, 0), Event::Say { from: host, to, message });
            }
            Output::SendPeers { peer, about } => self.at(latency, Event::Peers { to: host_of(peer), about }),
            Output::Request { peer, request, piece, chunks } => {
                let count = chunks.iter().map(|range| range.end - range.start).sum();
                self.hosts[host].asked.insert(request, count);
                let (to, piece) = (host_of(peer), piece.number());
                self.at(latency, Event::Ask { from: host, to, request, piece, chunks });
            }
            Output::Cancel { peer, request } => {
                self.hosts[host].asked.remove(&request);
                self.at(latency, Event::Cancel { from: host, to: host_of(peer), request });
            }
            Output::Serve { serve, .. } => {
                if self.hosts[host].serves.contains_key(&serve) {
                    self.hosts[host].active.push_back(serve);
                    self.send_next(host);
                }
            }
            Output::Refuse { serve, refusal, .. } => self.refuse(host, serve, refusal),
            Output::Ban { peer, misdeed } => {
                self.hosts[host].banned.push((peer, misdeed));
                let other = host_of(peer);
                self.connected.remove(&(host, other));
                self.connected.remove(&(other, host));
                self.at(latency, Event::Lost { host: other, peer: host });
            }
            Output::Dropped { .. } => {}
            Output::Complete => {
                self.hosts[host].completed_at = Some(self.now);
                self.hosts[host].completions += 1;
            }
        }
    }

    fn refuse(&mut self, host: usize, serve: ServeId, refusal: Refusal) {
        let Some(serving) = self.hosts[host].serves.remove(&serve) else { return };
        self.hosts[host].active.retain(|active| *active != serve);
        let end = match refusal {
            Refusal::Busy { retry_after, instead } => {
                RequestEnd::Busy { retry_after, instead: instead.map(|piece| piece.number()) }
            }
            Refusal::NotHeld => RequestEnd::NotHeld,
        };
        let (at, life) = (serving.to, self.hosts[serving.to].life);
        self.at(self.setting.latency, Event::Ended { at, life, request: serving.request, end });
    }

    /// Whether `to` hears what `from` sent.
    fn is_heard(&self, from: usize, to: usize) -> bool {
        self.connected.contains(&(from, to)) && !self.hosts[to].is_frozen
    }

    /// Something arrives after the latency, or later if packets of it or of what was before it are lost.
    fn in_order(&mut self, stream: (usize, usize, u64), event: Event) {
        let mut wait = self.setting.latency;
        while self.rng.chance(self.setting.loss) {
            wait += self.setting.latency * 3;
        }
        let at = (self.now + wait).max(self.arrives.get(&stream).copied().unwrap_or_default());
        self.arrives.insert(stream, at);
        self.at(at.since(self.now), event);
    }

    fn at(&mut self, wait: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + wait, self.sequence), event);
    }

    fn len_of(&self, chunk: u32) -> u64 {
        self.geometry.chunk(chunk).map_or(0, |chunk: ChunkIndex| u64::from(self.geometry.chunk_len(chunk)))
    }
}

fn time_of(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(bytes * 1_000_000_000 / rate.max(1))
}
