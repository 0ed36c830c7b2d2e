//! A receiver in a session: which packets to keep, which blocks can be decoded, what to tell the sender, when to leave.
//!
//! A [`Receiver`] is told the header of every packet that authenticated and answers whether its symbol is to be kept (in a
//! `fec::BlockPool`); what it asks for comes out as [`Output`]s. It never counts a chunk as held by itself: a decoded block goes
//! through `Manifest::verify` and the store like any other chunk, and only [`Receiver::handle_stored`] makes it held. One that
//! fails is dropped, the sender hears of it, and after a few of them the session is not believed any more.
//!
//! A host that multicast does not serve well leaves and goes on by the swarm: when nothing comes though packets are sent, when too
//! much is lost, when its disk is behind, when the sender is gone. It comes back after a while, a few times; the new join also makes
//! switches learn anew where it is.
//!
//! What always holds: incomplete blocks take no more than [`ReceiverConfig::pool_bytes_most`]; a chunk that is held, of zeros, or not
//! of the image costs nothing; what multicast won't bring is named ([`Output::LeaveToPeers`], [`Receiver::expects`]).

use std::collections::{BTreeSet, VecDeque};

use super::blocks::{Blocks, Symbol};
use super::config::ReceiverConfig;
use super::fec::{BlockPool, PARITY_MOST, source_symbols};
use super::message::{Announcement, Beat, DismissReason, EndReason, LACKING_MOST, MulticastMessage as Message, Report};
use super::packet::{Header, SessionId};
use crate::geometry::{ChunkIndex, Geometry, PieceIndex};
use crate::have::{ChunkSet, PieceSet, WireDelta, WireHave};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

pub use super::message::LeaveReason;

/// What a [`Receiver`] asks its driver to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Join the session's group, and only then go on with the outputs.
    JoinGroup,
    /// Leave the session's group: its packets are of no use (any more).
    LeaveGroup {
        /// Why.
        reason: AwayReason,
    },
    /// Send this to the session's sender over QUIC.
    Send(Message),
    /// Take the block out of the pool, verify it, store it, and call [`Receiver::handle_stored`] or
    /// [`Receiver::handle_rejected`].
    Decode {
        /// Which chunk.
        chunk: ChunkIndex,
    },
    /// Drop what the pool keeps of a block.
    Forget {
        /// Which chunk.
        chunk: ChunkIndex,
    },
    /// Multicast will not bring this chunk: it is to be asked of peers.
    LeaveToPeers {
        /// Which chunk.
        chunk: ChunkIndex,
    },
    /// From now on multicast brings what this host lacks, but for what is left to peers; or it does not any more.
    Carries(bool),
}

/// Why a host does not listen (any more).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AwayReason {
    /// It left.
    Left(LeaveReason),
    /// It was left out.
    Dismissed(DismissReason),
    /// The session ended.
    Ended(EndReason),
    /// Nothing was heard of the sender.
    SenderGone,
}

/// What to do with a packet's symbol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Put it into the pool, before the next `poll_output`.
    Keep,
    /// Drop it.
    Drop,
}

/// How a session stands at a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReceiverStatus {
    /// Packets sent while it listened.
    pub expected: u64,
    /// Packets that came.
    pub received: u64,
    /// Packets that found no room in the socket's buffer.
    pub dropped: u64,
    /// Packets of no use: of chunks that are held, or parity that was not needed.
    pub useless: u64,
    /// Packets that do not fit the image.
    pub malformed: u64,
    /// Blocks that were handed out to be decoded.
    pub decoded: u64,
    /// Blocks that failed their verification.
    pub rejected: u32,
    /// Chunks left to peers.
    pub left_to_peers: u32,
}

/// The part that one host takes in one session.
#[derive(Debug)]
pub struct Receiver {
    geometry: Geometry,
    config: ReceiverConfig,
    session: SessionId,
    symbol_len: usize,
    /// Chunks that are not zeros.
    data: ChunkSet,
    held: ChunkSet,
    /// Data chunks that each piece lacks.
    lacking: Vec<u32>,
    pieces: PieceSet,
    /// Pieces to tell of in the next report.
    gained: BTreeSet<PieceIndex>,
    left_to_peers: ChunkSet,
    blocks: Blocks,
    phase: Phase,
    /// Since when the last packet with a part of a chunk is on its way or here, while multicast carries.
    carried_at: Option<Instant>,
    returns: u32,
    highest: u64,
    /// Packets that the sender says it sent, and when anything was heard of it.
    sent: u64,
    heard_sender: Instant,
    heard_packet: Instant,
    /// Of this stay: counts begin anew with each.
    first: Option<u64>,
    stay: Counts,
    earlier: Counts,
    last_report: Counts,
    lossy_reports: u32,
    backlog: u64,
    drain_bytes_per_s: u64,
    backlogged_since: Option<Instant>,
    report_interval: Duration,
    next_report: Instant,
    rng: Rng,
    useless: u64,
    malformed: u64,
    decoded: u64,
    rejected: u32,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Listening,
    /// Left, and comes back then; never, if there is no time.
    Away {
        until: Option<Instant>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    expected: u64,
    received: u64,
    dropped: u64,
}

impl Receiver {
    /// A host takes part in an announced session of an image of `geometry` whose chunks that are not zeros are `data`, of which
    /// `held` are stored.
    pub fn new(
        now: Instant,
        announcement: &Announcement,
        geometry: Geometry,
        data: ChunkSet,
        held: ChunkSet,
        config: ReceiverConfig,
        seed: u64,
    ) -> Self {
        let mut lacking = vec![0; geometry.piece_count() as usize];
        for chunk in data.difference(&held) {
            lacking[geometry.piece_of(chunk).number() as usize] += 1;
        }
        let mut pieces = PieceSet::empty(&geometry);
        for piece in geometry.pieces().filter(|piece| lacking[piece.number() as usize] == 0) {
            pieces.insert(piece);
        }
        let symbol_len = usize::from(announcement.symbol_len);
        let mut receiver = Receiver {
            geometry,
            session: announcement.session,
            symbol_len,
            data,
            held,
            lacking,
            pieces,
            gained: BTreeSet::new(),
            left_to_peers: ChunkSet::empty(&geometry),
            blocks: Blocks::new(config.pool_bytes_most / BlockPool::block_len(symbol_len)),
            phase: Phase::Away { until: None },
            carried_at: None,
            returns: 0,
            highest: 0,
            sent: 0,
            heard_sender: now,
            heard_packet: now,
            first: None,
            stay: Counts::default(),
            earlier: Counts::default(),
            last_report: Counts::default(),
            lossy_reports: 0,
            backlog: 0,
            drain_bytes_per_s: 0,
            backlogged_since: None,
            report_interval: config.report_interval,
            next_report: now,
            rng: Rng::seeded(seed),
            useless: 0,
            malformed: 0,
            decoded: 0,
            rejected: 0,
            outputs: VecDeque::new(),
            config,
        };
        receiver.listen(now);
        receiver
    }

    /// A packet came, authenticated, for the first time.
    pub fn handle_packet(&mut self, now: Instant, header: &Header) -> Fate {
        // Symbols beyond that are of no block.
        let symbols = 1u128.checked_shl(u32::from(header.symbol)).unwrap_or(0);
        self.handle_symbols(now, header, symbols, header.sequence)
    }

    /// Several packets of a block came: the same as [`Receiver::handle_packet`] for each of them, only faster. `header` is that
    /// of the last packet of the block that was sent, `symbols` has a bit for each symbol that came, and `first` is the sequence number of
    /// the first packet, of whatever block, that could have come since this host listens.
    pub fn handle_symbols(&mut self, now: Instant, header: &Header, symbols: u128, first: u64) -> Fate {
        if self.phase != Phase::Listening || header.session != self.session {
            return Fate::Drop;
        }
        if header.sequence > SEQUENCE_MOST {
            self.malformed += 1;
            return Fate::Drop;
        }
        self.heard_packet = now;
        self.heard_sender = now;
        self.highest = self.highest.max(header.sequence);
        let first = *self.first.get_or_insert(first);
        if header.sequence >= first {
            self.stay.received += u64::from(symbols.count_ones().max(1));
            self.stay.expected = self.highest - first + 1;
        }
        let Some(chunk) = self.fitting_chunk(header) else {
            self.malformed += 1;
            return Fate::Drop;
        };
        if self.held.contains(chunk) || !self.data.contains(chunk) {
            self.useless += 1;
            return Fate::Drop;
        }
        if let Some(oldest) = self.blocks.evict(chunk) {
            self.leave_to_peers(oldest);
        }
        if self.blocks.is_full() && !self.blocks.contains(chunk) {
            self.leave_to_peers(chunk);
            return Fate::Drop;
        }
        // Of a source symbol: repair alone does not carry.
        if symbols & ((1 << header.k) - 1) != 0 {
            self.carry(now);
        }
        match self.blocks.add(chunk, header, symbols) {
            Symbol::Useless => {
                self.useless += 1;
                return Fate::Drop;
            }
            Symbol::Kept => {}
            Symbol::Completes => {
                self.decoded += 1;
                self.outputs.push_back(Output::Decode { chunk });
            }
        }
        Fate::Keep
    }

    /// A chunk was verified and stored, by whatever way it came.
    pub fn handle_stored(&mut self, chunk: ChunkIndex) {
        if self.blocks.remove(chunk) {
            self.outputs.push_back(Output::Forget { chunk });
        }
        if !self.data.contains(chunk) || !self.held.insert(chunk) {
            return;
        }
        let piece = self.geometry.piece_of(chunk);
        let lacking = &mut self.lacking[piece.number() as usize];
        *lacking -= 1;
        if *lacking == 0 {
            self.pieces.insert(piece);
            self.gained.insert(piece);
        }
        if self.held.count() == self.data.count() {
            self.leave(LeaveReason::Complete, None);
        }
    }

    /// A decoded block failed its verification: who holds the key sent a wrong symbol.
    pub fn handle_rejected(&mut self, chunk: ChunkIndex) {
        self.rejected += 1;
        self.leave_to_peers(chunk);
        if self.rejected >= self.config.strikes_most {
            self.leave(LeaveReason::Distrust, None);
        }
    }

    /// The disk: bytes that wait to be written, and bytes per second that were written lately.
    pub fn handle_backlog(&mut self, now: Instant, bytes: u64, drain_bytes_per_s: u64) {
        (self.backlog, self.drain_bytes_per_s) = (bytes, drain_bytes_per_s);
        if bytes <= self.config.backlog_most {
            self.backlogged_since = None;
        } else {
            self.backlogged_since.get_or_insert(now);
        }
    }

    /// So many packets more found no room in the socket's buffer.
    pub fn handle_dropped(&mut self, packets: u64) {
        self.stay.dropped += packets;
    }

    /// The sender said something about this session.
    pub fn handle_message(&mut self, now: Instant, message: &Message) {
        if message.session() != self.session {
            return;
        }
        match message {
            Message::Beat(beat) => self.hear_beat(now, *beat),
            Message::Dismiss { reason, .. } => {
                let may_return = match reason {
                    DismissReason::Lossy | DismissReason::Silent | DismissReason::Unknown | DismissReason::Slow => true,
                    DismissReason::Full | DismissReason::Malformed => false,
                };
                let until = if may_return { self.return_time(now) } else { None };
                self.go_away(AwayReason::Dismissed(*reason), until);
            }
            Message::End { reason, .. } => self.go_away(AwayReason::Ended(*reason), None),
            // What only members say, and what began this.
            Message::Announce(_) | Message::Join { .. } | Message::Report(_) | Message::Leave { .. } => {}
        }
    }

    /// The connection to the sender is gone.
    pub fn handle_sender_gone(&mut self) {
        self.go_away(AwayReason::SenderGone, None);
    }

    /// This host stops, or is told not to take part.
    pub fn handle_stop(&mut self) {
        self.leave(LeaveReason::Stopped, None);
    }

    /// The time given to [`Receiver::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.carried_at.is_some_and(|at| at + LULL <= now) {
            self.stop_carrying();
        }
        match self.phase {
            Phase::Away { until: Some(until) } if until <= now => {
                self.returns += 1;
                self.listen(now);
            }
            Phase::Listening if self.next_report <= now => {
                self.give_up_blocks(now);
                self.report(now);
                self.leave_if_unfit(now);
            }
            Phase::Away { .. } | Phase::Listening => {}
        }
    }

    /// What to do next. To be called until it is `None` after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Receiver::handle_timeout`]; `None` if the session is over for this host.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Listening => {
                let lull = self.carried_at.map(|at| at + LULL);
                Some(lull.map_or(self.next_report, |lull| lull.min(self.next_report)))
            }
            Phase::Away { until } => until,
        }
    }

    /// Whether multicast may still bring a chunk, so that it need not be asked of peers.
    pub fn expects(&self, chunk: ChunkIndex) -> bool {
        let is_lacking = self.data.contains(chunk) && !self.held.contains(chunk);
        self.phase == Phase::Listening && is_lacking && !self.left_to_peers.contains(chunk)
    }

    /// Whether this host listens now.
    pub fn is_listening(&self) -> bool {
        self.phase == Phase::Listening
    }

    /// How the session stands.
    pub fn status(&self) -> ReceiverStatus {
        ReceiverStatus {
            expected: self.earlier.expected + self.stay.expected,
            received: self.earlier.received + self.stay.received,
            dropped: self.earlier.dropped + self.stay.dropped,
            useless: self.useless,
            malformed: self.malformed,
            decoded: self.decoded,
            rejected: self.rejected,
            left_to_peers: self.left_to_peers.count(),
        }
    }

    /// Begins a stay: listens, and only then tells the sender.
    fn listen(&mut self, now: Instant) {
        if self.held.count() == self.data.count() {
            return;
        }
        self.phase = Phase::Listening;
        (self.heard_packet, self.heard_sender) = (now, now);
        self.earlier.add(self.stay);
        (self.first, self.stay, self.last_report) = (None, Counts::default(), Counts::default());
        (self.lossy_reports, self.backlogged_since) = (0, None);
        self.sent = self.highest;
        self.gained.clear();
        self.next_report = now + self.jittered();
        self.outputs.push_back(Output::JoinGroup);
        let held = WireHave::of(&self.pieces);
        let link_bytes_per_s = self.config.link_bytes_per_s;
        self.outputs.push_back(Output::Send(Message::Join { session: self.session, held, link_bytes_per_s }));
    }

    fn hear_beat(&mut self, now: Instant, beat: Beat) {
        self.heard_sender = now;
        self.sent = self.sent.max(beat.sequence.min(SEQUENCE_MOST));
        let interval = Duration::from_millis(u64::from(beat.report_interval_ms));
        self.report_interval = interval.clamp(REPORT_INTERVAL_LEAST, REPORT_INTERVAL_MOST);
        // A packet that overtook the beat says the contrary.
        if beat.is_idle && beat.sequence >= self.highest {
            self.stop_carrying();
        }
    }

    fn carry(&mut self, now: Instant) {
        if self.carried_at.replace(now).is_none() {
            self.outputs.push_back(Output::Carries(true));
        }
    }

    fn stop_carrying(&mut self) {
        if self.carried_at.take().is_some() {
            self.outputs.push_back(Output::Carries(false));
        }
    }

    fn report(&mut self, now: Instant) {
        self.next_report = now + self.jittered();
        let lacking = self.blocks.take_lacking(now, self.passed(), LACKING_MOST);
        let (repairable, lost): (Vec<_>, Vec<_>) =
            lacking.into_iter().partition(|&(_, symbols)| symbols <= self.config.repair_symbols_most);
        lost.into_iter().for_each(|(chunk, _)| self.leave_to_peers(chunk));
        let gained: Vec<PieceIndex> = self.gained.iter().copied().take(GAINED_MOST).collect();
        gained.iter().for_each(|piece| _ = self.gained.remove(piece));
        self.note_loss();
        let report = Report {
            session: self.session,
            highest: self.highest,
            expected: self.stay.expected,
            received: self.stay.received,
            dropped: self.stay.dropped,
            backlog: self.backlog,
            drain_bytes_per_s: self.drain_bytes_per_s,
            rejected: self.rejected,
            gained: WireDelta::of(gained.into_iter()),
            lacking: repairable.into_iter().map(|(chunk, symbols)| (chunk.number(), symbols)).collect(),
        };
        self.outputs.push_back(Output::Send(Message::Report(report)));
    }

    /// Counts the reports in a row in which far too much was lost.
    fn note_loss(&mut self) {
        let expected = self.stay.expected - self.last_report.expected;
        let received = (self.stay.received + self.stay.dropped)
            .saturating_sub(self.last_report.received + self.last_report.dropped);
        if expected < SAMPLE_PACKETS {
            return;
        }
        let lost = u128::from(expected.saturating_sub(received));
        let is_lossy = lost * 1_000_000 > u128::from(expected) * u128::from(self.config.loss_most_ppm);
        self.lossy_reports = if is_lossy { self.lossy_reports + 1 } else { 0 };
        self.last_report = self.stay;
    }

    /// Blocks whose repair did not come are asked of peers.
    fn give_up_blocks(&mut self, now: Instant) {
        for chunk in self.blocks.given_up(now, self.passed(), self.config.repair_wait) {
            self.leave_to_peers(chunk);
        }
    }

    fn leave_if_unfit(&mut self, now: Instant) {
        let is_behind = |since| now.since(since) >= self.config.backlog_time;
        let is_unheard = now.since(self.heard_packet) >= self.config.silence;
        if now.since(self.heard_sender) >= self.config.sender_silence.max(self.report_interval * 3) {
            self.go_away(AwayReason::SenderGone, None);
        } else if is_unheard && self.sent > self.highest + self.config.reorder_packets {
            self.leave(LeaveReason::Silent, self.return_time(now));
        } else if self.lossy_reports >= self.config.lossy_reports {
            self.leave(LeaveReason::Lossy, self.return_time(now));
        } else if self.backlogged_since.is_some_and(is_behind) {
            self.leave(LeaveReason::Disk, self.return_time(now));
        }
    }

    fn leave(&mut self, reason: LeaveReason, until: Option<Instant>) {
        if self.phase == Phase::Listening {
            self.outputs.push_back(Output::Send(Message::Leave { session: self.session, reason }));
            self.go_away(AwayReason::Left(reason), until);
        } else if until.is_none() {
            self.phase = Phase::Away { until };
        }
    }

    /// Stops listening, and forgets blocks that no packet will complete.
    fn go_away(&mut self, reason: AwayReason, until: Option<Instant>) {
        if self.phase == Phase::Listening {
            for chunk in self.blocks.take_waiting() {
                self.outputs.push_back(Output::Forget { chunk });
            }
            self.outputs.push_back(Output::LeaveGroup { reason });
            self.stop_carrying();
            self.phase = Phase::Away { until };
        } else if until.is_none() {
            self.phase = Phase::Away { until };
        }
    }

    fn leave_to_peers(&mut self, chunk: ChunkIndex) {
        self.blocks.remove(chunk);
        self.outputs.push_back(Output::Forget { chunk });
        self.left_to_peers.insert(chunk);
        self.outputs.push_back(Output::LeaveToPeers { chunk });
    }

    /// When to come back; never, if it did so often enough.
    fn return_time(&self, now: Instant) -> Option<Instant> {
        (self.returns < self.config.returns_most).then(|| now + self.config.away)
    }

    /// The sequence number below which no packet is waited for.
    fn passed(&self) -> u64 {
        self.highest.max(self.sent).saturating_sub(self.config.reorder_packets)
    }

    /// The chunk that a header names, if its block has the shape that the header says.
    fn fitting_chunk(&self, header: &Header) -> Option<ChunkIndex> {
        let chunk = self.geometry.chunk(header.chunk)?;
        let k = source_symbols(self.geometry.chunk_len(chunk), self.symbol_len);
        let is_fitting = header.k == k && header.h <= PARITY_MOST && header.symbol < k + header.h;
        is_fitting.then_some(chunk)
    }

    /// Until the next report: up to twice the interval, so that members do not report in step.
    fn jittered(&mut self) -> Duration {
        let interval = self.report_interval.as_micros() as u32;
        self.report_interval + Duration::from_micros(u64::from(self.rng.below(interval.max(1))))
    }
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.expected += other.expected;
        self.received += other.received;
        self.dropped += other.dropped;
    }
}

/// Packets that a loss is measured over at the least: fewer make it a game of dice.
const SAMPLE_PACKETS: u64 = 64;
/// Pieces told of in one report: as runs they take at most 40 KiB.
const GAINED_MOST: usize = 4096;
/// What a sender may ask for: no more than four reports per second,
const REPORT_INTERVAL_LEAST: Duration = Duration::from_millis(250);
/// and enough that a sender with very many members is still told of a loss within seconds.
const REPORT_INTERVAL_MOST: Duration = Duration::from_secs(5);

/// No part of a chunk came for so long: multicast carries nothing at the moment. More than a busy host is away, and little beside what a host loses that waits for nothing.
const LULL: Duration = Duration::from_millis(300);

/// Higher sequences come from nobody who counts packets; below there is room to add to them.
const SEQUENCE_MOST: u64 = 1 << 62;
