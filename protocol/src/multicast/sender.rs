//! The sender of a session: what is sent next, how fast, and to whom it still makes sense.
//!
//! A [`Sender`] is told who joins, reports and leaves, and answers with [`Output`]s: packets to transmit, each at its time, chunks
//! to have at hand for them, messages to members. It sees numbers and times, never bytes. The driver holds the lease
//! (see `election`), draws the session's id and key, and stops the sender with [`Sender::handle_stop`] when the lease is lost.
//!
//! This file routes inputs to the parts: `members` knows how each fares, `schedule` which blocks come next, `pass` in which order
//! their packets go, `repair` what is asked again, `rate` how fast, `parity` with how much.
//!
//! What always holds: nothing is sent before enough joined, or when nobody reports; nobody is waited for; a member that is
//! worse off than the rest is left out rather than followed; no piece is sent twice to the same members; every table
//! is bounded.

use std::collections::VecDeque;

use super::config::SenderConfig;
use super::fec::source_symbols;
use super::members::Members;
use super::message::{Announcement, Beat, DismissReason, EndReason, LeaveReason, MulticastMessage as Message, Report};
use super::packet::{Header, WIRE_OVERHEAD, packet_len};
use super::parity::least_parity;
use super::pass::{BlockPlan, Pass, Planned};
use super::rate::{Pacer, Rate, share};
use super::repair::Repair;
use super::schedule::Schedule;
use crate::geometry::{ChunkIndex, Geometry};
use crate::have::{ChunkSet, WireHave};
use crate::id::PeerId;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// What a [`Sender`] asks its driver to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send this to a host over QUIC.
    Send {
        /// To whom.
        peer: PeerId,
        /// What.
        message: Message,
    },
    /// Have the chunk and its first `parity` parity symbols at hand: packets of it follow soon.
    Load {
        /// Which chunk.
        chunk: ChunkIndex,
        /// How many parity symbols.
        parity: u8,
    },
    /// Seal and send a packet to the group, now. What comes from one `handle_timeout` may go out as one batch.
    Transmit {
        /// Which packet.
        header: Header,
    },
    /// No packet of this chunk follows.
    Unload {
        /// Which chunk.
        chunk: ChunkIndex,
    },
    /// The session is over. The last output.
    Ended {
        /// Why.
        reason: EndReason,
    },
}

/// How a session stands at its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SenderStatus {
    /// Hosts that take part.
    pub members: usize,
    /// Packets sent.
    pub packets: u64,
    /// Packets of them that are repair.
    pub repair_packets: u64,
    /// Bytes per second on the wire.
    pub rate_bytes_per_s: u64,
    /// Loss that counts, in millionths.
    pub loss_ppm: u32,
    /// Parity symbols of the next blocks.
    pub parity: u8,
}

/// One session of one image at its sender.
#[derive(Debug)]
pub struct Sender {
    geometry: Geometry,
    config: SenderConfig,
    announcement: Announcement,
    members: Members,
    schedule: Schedule,
    repair: Repair,
    rate: Rate,
    pacer: Pacer,
    phase: Phase,
    /// Packets sent, and so the number of the last one.
    sequence: u64,
    repair_packets: u64,
    /// What is being sent, and what comes after it, which is being loaded.
    current: Option<Pass>,
    following: Option<Pass>,
    parity: u8,
    /// Loss that counts, smoothed, in ppm.
    loss: Option<u32>,
    reports_since_tick: usize,
    /// Members that left because blocks failed their verification.
    distrusting: usize,
    /// Whether every block that is wanted was sent, and members know it.
    told_idle: bool,
    next_tick: Instant,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Gathering {
        since: Instant,
    },
    Sending,
    /// Nothing to send since.
    Idle {
        since: Instant,
    },
    Ended,
}

impl Sender {
    /// The sender of the session that `announcement` tells of, for an image of `geometry` whose chunks that are not zeros are
    /// `data`, all of which this host holds.
    pub fn new(
        now: Instant,
        announcement: Announcement,
        geometry: Geometry,
        data: ChunkSet,
        config: SenderConfig,
        seed: u64,
    ) -> Self {
        Sender {
            geometry,
            announcement,
            members: Members::default(),
            schedule: Schedule::new(geometry, data, Rng::seeded(seed)),
            repair: Repair::default(),
            rate: Rate::new(most(&config)),
            pacer: Pacer::new(now),
            phase: Phase::Gathering { since: now },
            sequence: 0,
            repair_packets: 0,
            current: None,
            following: None,
            parity: config.parity_at_start,
            loss: None,
            reports_since_tick: 0,
            distrusting: 0,
            told_idle: false,
            next_tick: now + config.tick,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// A connected host lacks (some of) the image: it is told of the session.
    pub fn handle_candidate(&mut self, peer: PeerId) {
        if self.phase != Phase::Ended {
            self.tell(peer, Message::Announce(self.announcement.clone()));
        }
    }

    /// A host said something about this session.
    pub fn handle_message(&mut self, now: Instant, peer: PeerId, message: Message) {
        if self.phase == Phase::Ended || message.session() != self.announcement.session {
            return;
        }
        match message {
            Message::Join { held, link_bytes_per_s, .. } => self.hear_join(now, peer, &held, link_bytes_per_s),
            Message::Report(report) => self.hear_report(now, peer, &report),
            Message::Leave { reason, .. } => self.hear_leave(now, peer, reason),
            // What only senders say.
            Message::Announce(_) | Message::Beat(_) | Message::Dismiss { .. } | Message::End { .. } => {}
        }
        self.resume(now);
    }

    /// The connection to a host is gone.
    pub fn handle_disconnected(&mut self, now: Instant, peer: PeerId) {
        self.remove(peer);
        self.end_if_deserted();
        self.resume(now);
    }

    /// The time given to [`Sender::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Gathering { since } = self.phase {
            self.begin_if_ready(now, since);
        }
        if self.next_tick <= now && self.phase != Phase::Ended {
            self.tick(now);
        }
        self.transmit(now);
    }

    /// The lease is lost, or the host stops.
    pub fn handle_stop(&mut self) {
        self.end(EndReason::Stopped);
    }

    /// What to do next. To be called until it is `None` after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Sender::handle_timeout`], if nothing else happens before; `None` once the session is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = match self.phase {
            Phase::Gathering { since } if self.members.len() >= self.config.members_least => {
                since + self.config.gathering
            }
            Phase::Gathering { since } => since + self.config.patience,
            Phase::Sending => self.pacer.next(),
            Phase::Idle { since } => {
                let linger = since + self.config.linger;
                self.repair.next_due(self.config.repair_wait).map_or(linger, |due| due.min(linger))
            }
            Phase::Ended => return None,
        };
        Some(next.min(self.next_tick))
    }

    /// How the session stands.
    pub fn status(&self) -> SenderStatus {
        SenderStatus {
            members: self.members.len(),
            packets: self.sequence,
            repair_packets: self.repair_packets,
            rate_bytes_per_s: self.rate.bytes_per_s(),
            loss_ppm: self.loss.unwrap_or(0),
            parity: self.parity,
        }
    }

    fn hear_join(&mut self, now: Instant, peer: PeerId, held: &WireHave, link: u64) {
        let Ok(held) = held.to_set(&self.geometry) else {
            return self.dismiss(peer, DismissReason::Malformed);
        };
        // Who joins again begins anew.
        self.remove(peer);
        if self.members.len() >= self.config.members_most {
            return self.dismiss(peer, DismissReason::Full);
        }
        let wants = self.schedule.lacking(&held);
        self.schedule.want(&wants);
        self.members.join(now, peer, wants, link);
    }

    fn hear_report(&mut self, now: Instant, peer: PeerId, report: &Report) {
        let (Ok(gained), Some(member)) = (report.gained.pieces(&self.geometry), self.members.get_mut(peer)) else {
            let reason =
                if self.members.get_mut(peer).is_some() { DismissReason::Malformed } else { DismissReason::Unknown };
            return self.dismiss(peer, reason);
        };
        self.schedule.forgo(gained.into_iter().filter(|&piece| member.wants.remove(piece)));
        self.members.report(now, peer, report, self.rate.bytes_per_s());
        self.reports_since_tick += 1;
        for &(chunk, symbols) in &report.lacking {
            if let Some(chunk) = self.geometry.chunk(chunk) {
                self.repair.ask(now, peer, chunk, symbols);
            }
        }
    }

    fn hear_leave(&mut self, now: Instant, peer: PeerId, reason: LeaveReason) {
        if self.members.get_mut(peer).is_none() {
            return;
        }
        self.distrusting += usize::from(reason == LeaveReason::Distrust);
        if reason == LeaveReason::Lossy {
            self.rate.forgive();
        }
        self.handle_disconnected(now, peer);
    }

    fn begin_if_ready(&mut self, now: Instant, since: Instant) {
        let is_enough = self.members.len() >= self.config.members_least;
        if is_enough && since + self.config.gathering <= now {
            self.set_ceiling();
            self.rate = Rate::new(self.ceiling());
            self.pacer = Pacer::new(now);
            self.phase = Phase::Sending;
        } else if since + self.config.patience <= now {
            self.end(EndReason::TooFew);
        }
    }

    /// Members, rate and parity are reconsidered.
    fn tick(&mut self, now: Instant) {
        self.forgive_sleep(now);
        self.next_tick = now + self.config.tick.max(self.report_interval());
        let deadline = Instant::from_nanos(now.as_nanos().saturating_sub(self.config.silence.as_nanos() as u64));
        if self.members.last_heard().is_some_and(|heard| heard < deadline) {
            return self.end(EndReason::Deaf);
        }
        for peer in self.members.silent_since(deadline) {
            self.dismiss(peer, DismissReason::Silent);
        }
        if self.phase == Phase::Sending {
            self.leave_out_slow();
            self.leave_out_lossy();
            self.adapt();
        }
        self.end_if_deserted();
        if self.phase == Phase::Ended {
            return;
        }
        self.beat();
    }

    fn beat(&mut self) {
        let beat = Beat {
            session: self.announcement.session,
            sequence: self.sequence,
            report_interval_ms: self.report_interval().as_millis() as u32,
            is_idle: self.told_idle,
        };
        for peer in self.members.peers().collect::<Vec<_>>() {
            self.tell(peer, Message::Beat(beat));
        }
    }

    /// If the driver comes much too late it was asleep, and what members said in the meantime waits to be read: nobody is left
    /// out for that.
    fn forgive_sleep(&mut self, now: Instant) {
        if now.since(self.next_tick) > LATENESS {
            for peer in self.members.peers().collect::<Vec<_>>() {
                self.members.get_mut(peer).expect("it is a member").heard = now;
            }
        }
    }

    fn leave_out_slow(&mut self) {
        for peer in self.members.too_slow_for(self.ceiling(), &self.config) {
            self.dismiss(peer, DismissReason::Slow);
            self.rate.forgive();
        }
    }

    fn leave_out_lossy(&mut self) {
        if self.members.is_network_at_fault() {
            return;
        }
        for peer in self.members.outlying_for(OUTLYING_REPORTS) {
            self.dismiss(peer, DismissReason::Lossy);
            self.rate.forgive();
        }
    }

    fn adapt(&mut self) {
        self.set_ceiling();
        if self.reports_since_tick * 3 < self.members.len() {
            return;
        }
        let Some(loss) = self.members.quantile_loss(self.config.quantile_percent) else { return };
        self.reports_since_tick = 0;
        self.rate.update(loss);
        if self.rate.is_hopeless() {
            return self.end(EndReason::Network);
        }
        let smooth = self.loss.map_or(loss, |old| old - old / 4 + loss / 4);
        self.loss = Some(smooth);
        let k = source_symbols(self.geometry.chunk_len(ChunkIndex(0)), self.config.symbol_len);
        self.parity = least_parity(k, smooth, self.config.failures_ppm, self.config.parity_most);
    }

    fn set_ceiling(&mut self) {
        let ceiling = self.ceiling();
        self.rate.set_ceiling(ceiling);
    }

    fn ceiling(&self) -> u64 {
        self.members.best_rate(most(&self.config), &self.config)
    }

    /// Sends what is due.
    fn transmit(&mut self, now: Instant) {
        for _ in 0..BURSTS_AT_ONCE {
            if self.phase != Phase::Sending || !self.pacer.is_due(now) {
                break;
            }
            if self.current.is_none() {
                self.current = self.following.take().or_else(|| self.plan(now));
                self.following = if self.current.is_some() { self.plan(now) } else { None };
            }
            let Some(mut pass) = self.current.take() else {
                self.phase = Phase::Idle { since: now };
                self.tell_idle();
                break;
            };
            let mut sent = 0;
            while sent < BURST
                && let Some(packet) = pass.next()
            {
                self.send_packet(packet);
                sent += 1;
            }
            let wire_len = (packet_len(self.config.symbol_len) + WIRE_OVERHEAD) as u64;
            self.pacer.spend(now, sent * wire_len, self.rate.bytes_per_s());
            if pass.is_over() {
                let chunks = pass.blocks().iter().map(|block| block.chunk);
                self.outputs.extend(chunks.map(|chunk| Output::Unload { chunk }));
            } else {
                self.current = Some(pass);
            }
        }
        if let Phase::Idle { since } = self.phase {
            self.linger(now, since);
        }
    }

    /// Members hear at once that the rest is theirs to find: until then they ask nobody else.
    fn tell_idle(&mut self) {
        if !self.told_idle {
            self.told_idle = true;
            self.beat();
        }
    }

    fn send_packet(&mut self, packet: Planned) {
        self.sequence += 1;
        let header = Header {
            session: self.announcement.session,
            sequence: self.sequence,
            chunk: packet.chunk.number(),
            symbol: packet.symbol,
            k: packet.k,
            h: packet.h,
            rest: packet.rest,
        };
        self.outputs.push_back(Output::Transmit { header });
    }

    /// The next pass: repair that is due, else blocks that are wanted.
    fn plan(&mut self, now: Instant) -> Option<Pass> {
        let mut blocks = self.plan_repair(now);
        if blocks.is_empty() {
            let least = self.wanted_least();
            for chunk in self.schedule.next_blocks(&mut self.members, self.config.interleave, least) {
                let k = self.source_symbols(chunk);
                self.repair.sent(chunk, self.parity);
                self.told_idle = false;
                blocks.push(BlockPlan { chunk, k, h: self.parity, symbols: 0..k + self.parity });
            }
        }
        if blocks.is_empty() {
            return None;
        }
        self.outputs.extend(blocks.iter().map(|block| Output::Load { chunk: block.chunk, parity: block.h }));
        Some(Pass::new(blocks))
    }

    fn plan_repair(&mut self, now: Instant) -> Vec<BlockPlan> {
        let mut blocks = Vec::new();
        let least = self.config.repair_by_least.min(self.members.len());
        while blocks.len() < self.config.interleave
            && let Some(patch) = self.repair.next_patch(now, self.config.repair_wait, least)
        {
            // Beyond its share of the volume repair is left to the swarm, too.
            if self.repair_packets * 100 > self.config.repair_percent_most * self.sequence {
                continue;
            }
            let k = self.source_symbols(patch.chunk);
            self.repair_packets += u64::from(patch.to - patch.from);
            blocks.push(BlockPlan { chunk: patch.chunk, k, h: patch.to, symbols: k + patch.from..k + patch.to });
        }
        blocks
    }

    /// Something may be there to send again.
    fn resume(&mut self, now: Instant) {
        let is_idle = matches!(self.phase, Phase::Idle { .. });
        if is_idle && self.schedule.has_work(self.wanted_least()) {
            self.phase = Phase::Sending;
            self.transmit(now);
        }
    }

    /// Nothing to send: repairs that come due, and at last the end.
    fn linger(&mut self, now: Instant, since: Instant) {
        if self.repair.next_due(self.config.repair_wait).is_some_and(|due| due <= now)
            && let Some(pass) = self.plan(now)
        {
            self.current = Some(pass);
            self.phase = Phase::Sending;
            self.transmit(now);
        } else if since + self.config.linger <= now {
            self.end(EndReason::Done);
        }
    }

    fn end_if_deserted(&mut self) {
        if matches!(self.phase, Phase::Gathering { .. } | Phase::Ended) {
            return;
        }
        if self.is_polluted() {
            self.end(EndReason::Polluted);
        } else if self.members.len() < self.config.members_least {
            let is_done = !self.schedule.has_work(1);
            self.end(if is_done { EndReason::Done } else { EndReason::TooFew });
        }
    }

    /// Whether blocks fail their verification at more than one member, and more than a quarter of them.
    fn is_polluted(&self) -> bool {
        self.distrusting > 1 && self.distrusting * 4 > self.members.len() + self.distrusting
    }

    fn end(&mut self, reason: EndReason) {
        if self.phase == Phase::Ended {
            return;
        }
        for peer in self.members.peers().collect::<Vec<_>>() {
            self.tell(peer, Message::End { session: self.announcement.session, reason });
        }
        let passes = [self.current.take(), self.following.take()].into_iter().flatten();
        for block in passes.flat_map(|pass| pass.blocks().to_vec()) {
            self.outputs.push_back(Output::Unload { chunk: block.chunk });
        }
        self.phase = Phase::Ended;
        self.outputs.push_back(Output::Ended { reason });
    }

    fn dismiss(&mut self, peer: PeerId, reason: DismissReason) {
        self.remove(peer);
        self.tell(peer, Message::Dismiss { session: self.announcement.session, reason });
    }

    fn remove(&mut self, peer: PeerId) {
        if let Some(member) = self.members.remove(peer) {
            self.schedule.forgo(member.wants.iter());
        }
    }

    fn tell(&mut self, peer: PeerId, message: Message) {
        self.outputs.push_back(Output::Send { peer, message });
    }

    fn source_symbols(&self, chunk: ChunkIndex) -> u8 {
        source_symbols(self.geometry.chunk_len(chunk), self.config.symbol_len)
    }

    fn wanted_least(&self) -> u32 {
        self.config.wanted_by_least.min(self.members.len()) as u32
    }

    /// All members together report at most some 800 times per second.
    fn report_interval(&self) -> Duration {
        self.config.tick.max(Duration::from_secs(self.members.len() as u64) / 800)
    }
}

/// Bytes per second on the wire that a sender's own link and its administrator allow.
fn most(config: &SenderConfig) -> u64 {
    let link = share(config.link_bytes_per_s, config.link_share_percent);
    config.limit_bytes_per_s.map_or(link, |limit| limit.min(link))
}

/// Packets that go out at once: what a batch of segmentation offload should have at the most, so that a lost batch costs
/// each of the interleaved blocks one symbol.
const BURST: u64 = 16;
/// Bursts that are planned at once, however many are due: at 10 Gbit/s a third of a millisecond. An interface that takes less than it says must not
/// keep its sender from hearing its members for long.
const BURSTS_AT_ONCE: usize = 16;
/// Reports in a row that make an outlier leave: about a second.
const OUTLYING_REPORTS: u32 = 3;
/// How late a tick may be before the sender concludes that it slept.
const LATENESS: Duration = Duration::from_millis(500);
