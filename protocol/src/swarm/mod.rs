//! One image on one host: which chunks to ask of whom, whom to serve, whom to know.
//!
//! A [`Swarm`] learns what is stored, what peers hold and what they ask for, and answers with [`Output`]s. It sees
//! indices, lengths, peers and times, never bytes and never addresses. A seeder is a swarm that holds everything; there
//! is no other difference.
//!
//! This file routes inputs to the parts. The parts think: `progress` knows what is held and asked for, `availability`
//! how rare each piece is, `picker` what to ask next, `requests` what is on its way, `slots` whom to serve, `handouts`
//! what was given to whom first, `announcer` when to tell what is held, `ledger` who gave, took and lied; whom to
//! know is among the [`Candidates`]. `peer_map` is a row of peers, as the neighbours are, `mask` a set of chunks of one piece. `asking`,
//! `serving` and `meeting` are the three conversations that use them; `sharing` is a fourth, for when the others are
//! stuck: then hosts also tell what they hold of pieces that they do not hold whole. `racks` knows what is had from near,
//! so that it is not asked for over the links between racks. `carrier` knows whether multicast brings so much that asking
//! would only get in its way.
//!
//! What always holds: a chunk is asked for of at most two peers at a time; nothing is asked of a peer that did not say
//! that it holds it; a banned peer is neither asked nor served; every table is bounded.

mod announcer;
mod asking;
mod availability;
mod carrier;
mod config;
mod event;
mod handouts;
mod ledger;
mod mask;
mod meeting;
mod peer;
mod peer_map;
mod picker;
mod progress;
mod racks;
mod requests;
mod serving;
mod sharing;
mod slots;
#[cfg(test)]
mod tests;

pub use config::SwarmConfig;
pub use event::{Misdeed, Output, Refusal, RequestEnd, RequestId, ServeId};

use core::ops::Range;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use self::announcer::Announcer;
use self::availability::Availability;
use self::carrier::Carrier;
use self::handouts::Handouts;
use self::ledger::Ledger;
use self::mask::ChunkMask;
use self::peer::Peer;
use self::peer_map::PeerMap;
use self::picker::Picker;
use self::progress::{Gain, Progress};
use self::racks::Racks;
use self::requests::Requests;
use self::sharing::Sharing;
use self::slots::Slots;
use crate::geometry::{ChunkIndex, Geometry, PieceIndex};
use crate::have::{ChunkSet, WireDelta, runs_of};
use crate::hints::{Candidates, Source};
use crate::id::PeerId;
use crate::message::SwarmMessage;
use crate::pacing::{Meter, TokenBucket};
use crate::rng::Rng;
use crate::time::Instant;

/// The exchange of one image by one host.
#[derive(Debug)]
pub struct Swarm {
    me: PeerId,
    geometry: Geometry,
    config: SwarmConfig,
    rng: Rng,
    /// Time of the last input.
    now: Instant,
    progress: Progress,
    availability: Availability,
    picker: Picker,
    peers: PeerMap<Peer>,
    candidates: Candidates,
    requests: Requests,
    slots: Slots,
    handouts: Handouts,
    ledger: Ledger,
    announcer: Announcer,
    sharing: Sharing,
    racks: Racks,
    carrier: Carrier,
    download: TokenBucket,
    /// What comes in from everybody, and the most that came lately.
    intake: Meter,
    intake_peak: u64,
    /// Since when less comes in than could.
    wanting_since: Option<Instant>,
    /// Whether some neighbour would rather not hand out some piece.
    has_declined: bool,
    /// Until when it counts as hungry.
    hungry_until: Instant,
    /// Since when nearly nothing comes in.
    starving_since: Option<Instant>,
    /// When something came last, or something was asked for after a pause.
    intake_at: Instant,
    /// Pieces without data, which everybody holds.
    zero_pieces: u32,
    /// Pieces that the leecher holds that holds most.
    most_of_leechers: u32,
    paused: bool,
    /// Whether what is asked now is asked at a look rather than upon news.
    is_looking: bool,
    /// When to look again whether something can be asked; none while there is nothing to ask of anybody.
    next_look: Option<Instant>,
    /// When a peer that is left alone may be asked again, and when one that is asked has been silent for too long: not
    /// later than that, and found anew at every timeout.
    next_askable: Option<Instant>,
    next_stall: Option<Instant>,
    /// What neighbours are to be told of what came to be held.
    news: Option<WireDelta>,
    next_refresh: Instant,
    next_exchange: Instant,
    outputs: VecDeque<Output>,
}

/// How a swarm stands, for people and for the tracker.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SwarmStatus {
    /// Data chunks held.
    pub held_chunks: u32,
    /// Data chunks that the image has.
    pub data_chunks: u32,
    /// Data bytes held.
    pub held_bytes: u64,
    /// Data bytes that the image has.
    pub data_bytes: u64,
    /// Every neighbour and what was exchanged with it.
    pub peers: Vec<PeerStatus>,
    /// Bytes that came twice or for nothing.
    pub wasted_bytes: u64,
    /// Numbers of missing chunks that no connected neighbour is known to hold, as maximal runs. When a swarm has come to
    /// a halt, every host in it names the same: what nobody has.
    pub unavailable: Vec<Range<u32>>,
    /// Peers banned for misdeeds.
    pub banned: Vec<(PeerId, Misdeed)>,
}

/// What was exchanged with one peer.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// Whether it is a neighbour now.
    pub connected: bool,
    /// Pieces that it says it holds.
    pub held_pieces: u32,
    /// Bytes that it gave us.
    pub taken_bytes: u64,
    /// Bytes that we gave it.
    pub given_bytes: u64,
    /// Its rate to us, in bytes per second; zero while nothing is asked of it.
    pub rate_bytes_per_s: u64,
}

impl Swarm {
    /// A swarm on the host `me` for an image of `geometry` whose chunks that are not zeros are `data`, of which `held`
    /// are stored. Swarms of one image can share the set of its data.
    pub fn new(
        now: Instant,
        me: PeerId,
        geometry: Geometry,
        data: impl Into<Arc<ChunkSet>>,
        held: ChunkSet,
        config: SwarmConfig,
        seed: u64,
    ) -> Self {
        let data = data.into();
        let has_data = |piece: &PieceIndex| !ChunkMask::of(&data, &geometry, *piece).is_empty();
        let with_data: Vec<PieceIndex> = geometry.pieces().filter(has_data).collect();
        let mut swarm = Swarm {
            me,
            geometry,
            rng: Rng::seeded(seed),
            now,
            progress: Progress::new(geometry, data, &held),
            availability: Availability::new(geometry),
            picker: Picker::new(geometry, config.random_first_pieces),
            peers: PeerMap::default(),
            candidates: Candidates::default(),
            requests: Requests::default(),
            slots: Slots::new(config.upload_slots, config.served_at_once, config.upload_limit),
            handouts: Handouts::new(geometry),
            ledger: Ledger::default(),
            announcer: Announcer::new(config.have_interval),
            sharing: Sharing::default(),
            racks: Racks::new(&geometry, config.rack.clone()),
            carrier: Carrier::new(now),
            download: TokenBucket::new(config.download_limit),
            intake: Meter::default(),
            intake_peak: 0,
            wanting_since: None,
            has_declined: false,
            hungry_until: now,
            starving_since: None,
            intake_at: now,
            zero_pieces: geometry.piece_count() - with_data.len() as u32,
            most_of_leechers: 0,
            paused: false,
            is_looking: false,
            next_look: None,
            next_askable: None,
            next_stall: None,
            news: None,
            next_refresh: now + config.refresh_interval,
            next_exchange: now + meeting::EXCHANGE_INTERVAL,
            outputs: VecDeque::new(),
            config,
        };
        for piece in with_data {
            swarm.note_piece(piece);
        }
        swarm
    }

    /// Peers that `source` named as exchanging this image: hints.
    pub fn handle_candidates(&mut self, now: Instant, source: Source, peers: &[PeerId]) {
        self.now = now;
        for peer in peers.iter().filter(|&peer| *peer != self.me && !self.ledger.is_banned(peer)) {
            self.candidates.add(now, source, *peer);
        }
        self.dial(now);
    }

    /// What the search for the manifest came to know of peers, before anything else is known of any.
    pub fn handle_searched(&mut self, now: Instant, candidates: Candidates) {
        self.now = now;
        self.candidates = candidates;
        self.candidates.remove(&self.me);
        self.candidates.begin_anew(now);
        self.dial(now);
    }

    /// A peer that was to be connected is.
    pub fn handle_connected(&mut self, now: Instant, peer: PeerId) {
        self.now = now;
        self.meet(now, peer);
    }

    /// A peer that was to be connected can't be.
    pub fn handle_connect_failed(&mut self, now: Instant, peer: PeerId) {
        self.now = now;
        self.candidates.failed(now, peer);
        self.dial(now);
    }

    /// The connection to a peer is gone, and its streams with it: no `handle_request_ended` or `handle_served` follows.
    pub fn handle_disconnected(&mut self, now: Instant, peer: PeerId) {
        self.now = now;
        self.lose_peer(now, peer);
        self.finish(now);
    }

    /// A connected peer said something.
    pub fn handle_message(&mut self, now: Instant, peer: PeerId, message: SwarmMessage) {
        self.now = now;
        match message {
            SwarmMessage::Join { have } => self.hear_join(now, peer, &have),
            SwarmMessage::Have { have } => self.hear_have(now, peer, &have),
            SwarmMessage::HaveDelta { delta } => self.hear_delta(now, peer, &delta),
            SwarmMessage::Leave { reason } => self.hear_leave(now, peer, reason),
            SwarmMessage::Partial { is_stuck, parts } => self.hear_partial(now, peer, is_stuck, &parts),
            SwarmMessage::Rack { rack } => self.hear_rack(peer, &rack),
            SwarmMessage::Importing { pieces } => self.hear_importing(now, peer, &pieces),
        }
        self.finish(now);
    }

    /// Connected peers came to hold pieces: the same as a [`SwarmMessage::HaveDelta`] of each of them, only faster, above all
    /// in the order of their ids.
    pub fn handle_news<'a>(&mut self, now: Instant, news: impl IntoIterator<Item = (PeerId, &'a [PieceIndex])>) {
        self.now = now;
        let (mut place, can_ask) = (0, self.wants_news());
        for (peer, pieces) in news {
            place = self.hear_pieces(peer, pieces, place);
            if can_ask {
                self.fill(now, peer);
            }
        }
        self.finish(now);
    }

    /// A peer asks for chunks of a piece. `chunks` are numbers within the image, unchecked.
    pub fn handle_request(&mut self, now: Instant, peer: PeerId, serve: ServeId, piece: u32, chunks: Vec<Range<u32>>) {
        self.now = now;
        self.hear_request(now, peer, serve, piece, &chunks);
        self.finish(now);
    }

    /// What a `Serve` output asked for has ended; `bytes` were sent.
    pub fn handle_served(&mut self, now: Instant, serve: ServeId, bytes: u64) {
        self.now = now;
        self.end_serve(now, serve, bytes);
        self.finish(now);
    }

    /// A peer gave up on its request before or while it was served; `bytes` were sent.
    pub fn handle_serve_cancelled(&mut self, now: Instant, serve: ServeId, bytes: u64) {
        self.handle_served(now, serve, bytes);
    }

    /// A chunk was verified and stored. `request` is the one that brought it, `None` if it came by another way.
    pub fn handle_chunk_stored(&mut self, now: Instant, chunk: ChunkIndex, request: Option<RequestId>) {
        let at = chunk.number();
        self.handle_chunks_stored(now, core::slice::from_ref(&(at..at + 1)), request);
    }

    /// Several chunks of the image were verified and stored: the same as [`Swarm::handle_chunk_stored`] for each of them,
    /// only faster. They are numbers, rising and apart.
    pub fn handle_chunks_stored(&mut self, now: Instant, chunks: &[Range<u32>], request: Option<RequestId>) {
        self.now = now;
        let was_complete = self.is_complete();
        for run in chunks {
            self.gain_run(now, run.clone(), request);
        }
        self.settle_carrier(now);
        if self.is_complete() && !was_complete {
            self.cancel_all(now);
            self.outputs.push_back(Output::Complete);
        }
        self.finish(now);
    }

    /// A chunk that a request brought failed its verification.
    pub fn handle_chunk_rejected(&mut self, now: Instant, chunk: ChunkIndex, request: RequestId) {
        self.now = now;
        if let Some(peer) = self.requests.sender(request) {
            self.ledger.wasted(u64::from(self.geometry.chunk_len(chunk)));
            self.ban(now, peer, Misdeed::WrongBytes { chunk: chunk.number() });
        }
        self.finish(now);
    }

    /// A request has ended. What it did not bring is asked for elsewhere.
    pub fn handle_request_ended(&mut self, now: Instant, request: RequestId, end: RequestEnd) {
        self.now = now;
        self.end_request(now, request, end);
        self.finish(now);
    }

    /// Chunks that were stored are not any more: the disk lost them.
    pub fn handle_chunks_lost(&mut self, now: Instant, chunks: &[ChunkIndex]) {
        self.now = now;
        let announced = self.progress.held_pieces().count();
        let mut is_less = false;
        for &chunk in chunks {
            if self.progress.lose(chunk) {
                self.note_piece(self.geometry.piece_of(chunk));
                self.sharing.change();
                is_less = true;
            }
        }
        if self.progress.held_pieces().count() < announced {
            self.announcer.clear();
            self.tell_have_to_all();
        } else if is_less {
            self.take_parts_back();
        }
        self.fill_all(now);
        self.finish(now);
    }

    /// Somebody waits for these chunks (numbers): they outrank everything until they are held.
    pub fn handle_reader(&mut self, now: Instant, chunks: Range<u32>) {
        self.now = now;
        self.picker.add_reader(chunks);
        self.fill_all(now);
    }

    /// Stops or resumes asking for data; serving goes on. For a disk that is full.
    pub fn set_paused(&mut self, now: Instant, paused: bool) {
        self.now = now;
        self.paused = paused;
        if paused {
            self.cancel_all(now);
            self.next_look = None;
        } else {
            self.fill_all(now);
        }
        self.finish(now);
    }

    /// Another way than requests brings what is lacking from now on, or does not any more. As long as it brings about as much as peers did,
    /// they are asked only for what it missed ([`Swarm::handle_missed`]) and what readers wait for.
    pub fn set_carried(&mut self, now: Instant, is_carried: bool) {
        self.now = now;
        self.carrier.set_up(now, is_carried);
        self.settle_carrier(now);
        self.finish(now);
    }

    /// Chunks that the other way was to bring did not come by it, and won't.
    pub fn handle_missed(&mut self, now: Instant, chunks: &[ChunkIndex]) {
        self.now = now;
        for &chunk in chunks {
            if self.progress.miss(chunk) {
                self.note_piece(self.geometry.piece_of(chunk));
            }
        }
        self.fill_all(now);
        self.finish(now);
    }

    /// Changes the limits of [`SwarmConfig`], in bytes per second.
    pub fn set_rate_limits(&mut self, now: Instant, upload: Option<u64>, download: Option<u64>) {
        self.now = now;
        (self.config.upload_limit, self.config.download_limit) = (upload, download);
        self.slots.set_limit(now, upload);
        self.download.set_rate(now, download);
        self.fill_all(now);
        self.finish(now);
    }

    /// The time given to [`Swarm::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.give_up_stalled(now);
        self.look(now);
        if self.next_refresh <= now {
            self.refresh(now);
        }
        self.candidates.expire_dials(now);
        self.dial(now);
        self.plan_waits(now);
        self.finish(now);
    }

    /// What to do next. To be called until it is `None` after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(delta) = self.poll_news() {
            for &peer in self.peers.keys() {
                let message = SwarmMessage::HaveDelta { delta: delta.clone() };
                self.outputs.push_back(Output::Send { peer, message });
            }
        }
        self.outputs.pop_front()
    }

    /// What every neighbour is to be told came to be held. For drivers that can tell it to all at once; to be called before
    /// [`Swarm::poll_output`], which else gives it as a message to each.
    pub fn poll_news(&mut self) -> Option<WireDelta> {
        self.news.take()
    }

    /// When to call [`Swarm::handle_timeout`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let times =
            [self.announcer.due_at(), self.next_share(), self.slots.next_at(), self.next_dial(), self.next_ask()];
        times.into_iter().flatten().chain([self.next_refresh]).min()
    }

    /// Data chunks held.
    pub fn held(&self) -> &ChunkSet {
        self.progress.held()
    }

    /// Data bytes held.
    pub fn held_bytes(&self) -> u64 {
        self.progress.held_bytes()
    }

    /// Whether every data chunk is held.
    pub fn is_complete(&self) -> bool {
        self.progress.is_complete()
    }

    /// How it stands. Costs time in the size of the image: for people, not for every step.
    pub fn status(&self) -> SwarmStatus {
        let (data_chunks, data_bytes) = self.progress.data();
        let known: BTreeSet<&PeerId> = self.peers.keys().chain(self.ledger.peers()).collect();
        let peers = known.into_iter().map(|peer| {
            let (account, neighbour) = (self.ledger.of(peer), self.peers.get(peer));
            PeerStatus {
                peer: *peer,
                connected: neighbour.is_some(),
                held_pieces: neighbour.map_or(0, |neighbour| neighbour.have.count()),
                taken_bytes: account.taken,
                given_bytes: account.given,
                rate_bytes_per_s: neighbour.filter(|_| self.requests.is_asked(*peer)).map_or(0, Peer::rate),
            }
        });
        let unheld = self.geometry.pieces().filter(|piece| self.availability.holders(*piece) == 0);
        let unheld = unheld.flat_map(|piece| self.geometry.chunks_of(piece));
        let in_parts = |chunk| self.peers.values().any(|neighbour| neighbour.parts.contains(&self.geometry, chunk));
        let unavailable = unheld.filter(|&chunk| self.progress.is_missing(chunk) && !in_parts(chunk));
        SwarmStatus {
            held_chunks: self.progress.held().count(),
            data_chunks,
            held_bytes: self.progress.held_bytes(),
            data_bytes,
            peers: peers.collect(),
            wasted_bytes: self.ledger.wasted_bytes(),
            unavailable: runs_of(unavailable.map(ChunkIndex::number)).collect(),
            banned: self.ledger.banned(),
        }
    }

    /// How many peers it has heard of and may dial: at most [`CANDIDATES_MOST`](crate::hints::CANDIDATES_MOST).
    pub fn candidate_count(&self) -> usize {
        self.candidates.len()
    }

    /// Whether a piece is held, for tests and drivers.
    pub fn holds_piece(&self, piece: PieceIndex) -> bool {
        self.progress.held_pieces().contains(piece)
    }

    /// Counts everything anew and compares, for tests.
    #[cfg(test)]
    fn check(&self) {
        self.progress.check();
        self.requests.check(&self.geometry);
        for piece in self.geometry.pieces() {
            let holders = self.peers.values().filter(|peer| peer.have.contains(piece)).count();
            assert_eq!(holders, usize::from(self.availability.holders(piece)), "{piece:?}");
            assert_eq!(self.progress.is_open(piece), self.availability.open().contains(piece), "{piece:?}");
        }
        self.racks.check(&self.geometry, self.peers.values());
        assert_eq!(self.most_of_leechers, self.count_most_of_leechers());
        let mut copies = std::collections::BTreeMap::<u32, u8>::new();
        let left = self.requests.iter().map(|(_, request)| request.left.runs(&self.geometry, request.piece));
        for number in left.flatten().flatten() {
            *copies.entry(number).or_default() += 1;
        }
        for chunk in self.geometry.chunks() {
            let copies = copies.get(&chunk.number()).copied().unwrap_or(0);
            assert_eq!(copies, self.progress.copies(chunk), "{chunk:?}");
        }
    }

    /// What is done after every input that may have changed what can be told or served.
    fn finish(&mut self, now: Instant) {
        self.tell_imports();
        self.announce(now);
        self.share(now);
        self.serve_next(now);
    }

    /// Asks for everything again if what comes by another way is not enough any more, or for little if it is.
    fn settle_carrier(&mut self, now: Instant) {
        self.carrier.roll(now);
        let is_relied_on = self.carrier.is_relied_on();
        if is_relied_on == self.progress.is_only_missed() {
            return;
        }
        if is_relied_on {
            self.cancel_all(now);
            self.next_look = None;
        }
        self.progress.ask_only_missed(is_relied_on);
        for piece in self.geometry.pieces() {
            self.note_piece(piece);
        }
        self.fill_all(now);
    }

    /// A chunk of `piece`, or its holders, changed: brings the parts that keep a view of it in line.
    fn note_piece(&mut self, piece: PieceIndex) {
        self.availability.set_open(piece, self.progress.is_open(piece));
        let held = self.progress.held_pieces().contains(piece);
        self.handouts.update(piece, held, self.availability.holders(piece));
    }

    fn gain_run(&mut self, now: Instant, mut run: Range<u32>, request: Option<RequestId>) {
        while let Some(first) = self.geometry.chunk(run.start).filter(|_| !run.is_empty()) {
            let piece = self.geometry.piece_of(first);
            let within = self.geometry.chunk_numbers(piece);
            let (from, to) = (run.start - within.start, run.end.min(within.end) - within.start);
            self.gain_chunks(now, piece, ChunkMask::first(to).without(ChunkMask::first(from)), request);
            run.start = within.start + to;
        }
    }

    fn gain_chunks(&mut self, now: Instant, piece: PieceIndex, chunks: ChunkMask, request: Option<RequestId>) {
        let len = chunks.bytes(&self.geometry, piece);
        let sender = request.and_then(|request| self.hear_chunks(now, request, len));
        let (new, gain) = self.progress.store(piece, chunks);
        let new_len = new.bytes(&self.geometry, piece);
        self.carrier.add(new_len, request.is_some());
        if request.is_some() {
            self.ledger.wasted(len - new_len);
        }
        if let Some(sender) = sender.filter(|_| new_len > 0) {
            self.ledger.taken(sender, new_len);
        }
        if gain != Gain::Nothing {
            self.sharing.change();
            self.settle_chunks(piece, new, request);
            self.note_piece(piece);
        }
        if gain == Gain::Piece {
            let numbers = self.geometry.chunk_numbers(piece);
            self.announcer.add(piece, u64::from(numbers.end - numbers.start) * u64::from(crate::geometry::CHUNK_LEN));
        }
        if let Some(sender) = sender {
            self.fill(now, sender);
            if !self.requests.is_asked(sender) {
                // It has nothing more that is lacking: its place is another's, now and not at the next look.
                self.fill_all(now);
            }
        }
    }
}
