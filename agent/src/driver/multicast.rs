//! The driver's dealings with multicast: whether this host sends its image to those who lack it, and the session that it hears.
//!
//! A host that holds everything looks now and then at what its neighbours lack. If a [`Choice`] says that sending is worth it,
//! a [`Candidate`] asks the first tracker for the lease, and who gets it announces a session to those neighbours. A host that is
//! announced one takes part, if its settings let it, and asks peers for nothing while multicast carries. Both kinds of session run on
//! threads of their own (`crate::multicast`); a report of one that is over is known by its number.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_protocol::announce::{TrackerReply, TrackerRequest};
use drover_protocol::geometry::{CHUNK_LEN, ChunkIndex, Geometry};
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::PeerMessage;
use drover_protocol::multicast::choice::{Choice, ChoiceConfig, Mode, Need, Network, NoGo, Unfit};
use drover_protocol::multicast::config::SenderConfig;
use drover_protocol::multicast::election::{Candidate, LeaseReply, LeaseRequest, Output};
use drover_protocol::multicast::message::{Announcement, LeaveReason, MulticastMessage};
use drover_protocol::multicast::packet::SessionId;
use drover_protocol::multicast::receiver::AwayReason;
use drover_protocol::time::Instant;

use super::durability::Origin;
use super::{Driver, Input};
use crate::clock;
use crate::exchange::{MulticastRole, MulticastStatus};
use crate::multicast::interface::Interface;
use crate::multicast::receiving::{self, Receiving};
use crate::multicast::sending::{self, Sending};
use crate::multicast::{MulticastSettings, new_key};
use crate::transport::Link;

/// What neighbours lack is looked at so soon after news of it,
const LOOK_SOON: Duration = Duration::from_millis(20);
/// and so often while they lack anything.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// What the system says of interfaces is believed for so long.
const INTERFACE_INTERVAL: Duration = Duration::from_secs(30);
/// What an interface that does not know its speed is taken for. If it carries less, the socket says so.
const BYTES_PER_S: u64 = 125_000_000;

/// Where the driver is with multicast.
#[derive(Debug)]
pub(super) struct Multicast {
    settings: MulticastSettings,
    choice: Choice,
    candidate: Candidate,
    sending: Option<Session<Sending>>,
    receiving: Option<Session<Receiving>>,
    /// Whom the session that is sent was announced to.
    announced: BTreeSet<PeerId>,
    carries: bool,
    interface: Option<(Instant, Result<Interface, Unfit>)>,
    next_look: Option<Instant>,
    last_session: u64,
    why_not: Option<String>,
    /// How the last session ended here.
    last: MulticastStatus,
}

#[derive(Debug)]
struct Session<T> {
    /// Our name for it.
    number: u64,
    session: SessionId,
    /// Who sends.
    sender: PeerId,
    thread: T,
}

impl Multicast {
    pub(super) fn new(now: Instant, image: ImageId, settings: &MulticastSettings) -> Self {
        let seed = clock::seed();
        Multicast {
            settings: settings.clone(),
            choice: Choice::new(settings.mode, ChoiceConfig::default()),
            candidate: Candidate::new(now, image, settings.groups.clone(), seed),
            sending: None,
            receiving: None,
            announced: BTreeSet::new(),
            carries: false,
            interface: None,
            next_look: None,
            last_session: 0,
            why_not: None,
            last: MulticastStatus::default(),
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.candidate.poll_timeout().into_iter().chain(self.next_look).min()
    }

    /// Whether multicast brings what is lacking, so that peers are not asked.
    pub(super) fn carries(&self) -> bool {
        self.carries
    }

    /// A neighbour said something about what it holds; who holds everything may have to send.
    pub(super) fn note_news(&mut self, now: Instant, is_complete: bool) {
        if self.settings.mode != Mode::Off && is_complete {
            let soon = now + LOOK_SOON;
            self.next_look = Some(self.next_look.map_or(soon, |at| at.min(soon)));
        }
    }

    /// A chunk is stored, by whatever way it came.
    pub(super) fn note_stored(&mut self, chunk: ChunkIndex) {
        self.tell_receiving(receiving::Order::Stored(chunk));
    }

    /// A block that multicast brought was not what the manifest says.
    pub(super) fn note_rejected(&mut self, chunk: ChunkIndex) {
        self.tell_receiving(receiving::Order::Rejected(chunk));
    }

    pub(super) fn note_disconnected(&mut self, peer: PeerId) {
        self.announced.remove(&peer);
        if let Some(sending) = &self.sending {
            // A thread that has ended has said so.
            let _ = sending.thread.tell(sending::Order::Disconnected(peer));
        }
        if self.receiving.as_ref().is_some_and(|receiving| receiving.sender == peer) {
            self.tell_receiving(receiving::Order::SenderGone);
        }
    }

    /// Takes part in nothing any more: the disk refuses what comes.
    pub(super) fn stop_receiving(&mut self) {
        self.tell_receiving(receiving::Order::Stop);
    }

    /// Ends all sessions.
    pub(super) fn stop(&mut self) {
        (self.sending, self.receiving) = (None, None);
    }

    pub(super) fn status(&self) -> MulticastStatus {
        let mode = self.settings.mode;
        if let Some(sending) = &self.sending {
            let now = sending.thread.status();
            return MulticastStatus {
                mode,
                role: MulticastRole::Sending,
                rate_bytes_per_s: now.rate_bytes_per_s,
                loss_ppm: now.loss_ppm,
                parity: now.parity,
                members: now.members as u64,
                packets: now.packets,
                surplus_packets: now.repair_packets,
                ..MulticastStatus::default()
            };
        }
        if let Some(receiving) = &self.receiving {
            let role = MulticastRole::Receiving;
            return MulticastStatus { mode, role, why_not: self.why_not.clone(), ..heard(receiving) };
        }
        MulticastStatus { mode, role: MulticastRole::None, why_not: self.why_not.clone(), ..self.last.clone() }
    }

    fn tell_receiving(&mut self, order: receiving::Order) {
        if let Some(receiving) = &self.receiving {
            // A thread that has ended has said so.
            let _ = receiving.thread.tell(order);
        }
    }

    /// The interface that multicast goes by, if there is one that is fit.
    fn interface(&mut self, now: Instant, listen: std::net::IpAddr) -> Result<Interface, Unfit> {
        if let Some((at, known)) = &self.interface
            && now.since(*at) < INTERFACE_INTERVAL
        {
            return known.clone();
        }
        let group = self.settings.groups.of(SessionId(0)).ip();
        let found = Interface::for_group(&self.settings, listen, group);
        self.interface = Some((now, found.clone()));
        found
    }

    /// Most bytes per second that are sent by an interface.
    fn limit(&self, interface: &Interface, upload_limit: Option<u64>) -> SenderConfig {
        SenderConfig {
            link_bytes_per_s: interface.bytes_per_s.unwrap_or(BYTES_PER_S),
            limit_bytes_per_s: self.settings.limit.into_iter().chain(upload_limit).min(),
            symbol_len: interface.symbol_len(),
            ..SenderConfig::default()
        }
    }
}

impl Driver<'_> {
    /// What was to be done by now.
    pub(super) fn on_multicast_due(&mut self, now: Instant) {
        if self.multicast.candidate.poll_timeout().is_some_and(|at| at <= now) {
            self.multicast.candidate.handle_timeout(now);
        }
        if self.multicast.next_look.is_some_and(|at| at <= now) {
            self.multicast.next_look = None;
            self.look_at_need(now);
        }
        self.drain_candidate(now);
    }

    /// A tracker answered.
    pub(super) fn on_leased(&mut self, now: Instant, reply: &LeaseReply) {
        self.multicast.candidate.handle_reply(now, reply);
        self.drain_candidate(now);
    }

    /// A peer said something about a session.
    pub(super) fn on_multicast_message(&mut self, now: Instant, link: &Link, message: MulticastMessage) {
        let (peer, session) = (link.peer(), message.session());
        if let MulticastMessage::Announce(announcement) = message {
            return self.take_part(now, peer, announcement);
        }
        let (sending, receiving) = (&self.multicast.sending, &self.multicast.receiving);
        if let Some(sending) = sending.as_ref().filter(|sending| sending.session == session) {
            // A thread that has ended has said so, here and below.
            let _ = sending.thread.tell(sending::Order::Message(peer, message));
        } else if let Some(receiving) = receiving.as_ref().filter(|it| (it.session, it.sender) == (session, peer)) {
            let _ = receiving.thread.tell(receiving::Order::Message(message));
        }
    }

    /// The thread of a session that this host sends has something to say.
    pub(super) fn on_sending(&mut self, now: Instant, number: u64, report: sending::Report) {
        if self.multicast.sending.as_ref().is_none_or(|sending| sending.number != number) {
            return;
        }
        match report {
            sending::Report::Send(peer, message) => self.tell_about_multicast(peer, message),
            sending::Report::Ended(reason) => {
                self.multicast.last = self.multicast.status();
                self.multicast.sending = None;
                self.multicast.announced.clear();
                self.multicast.choice.handle_session_over(now, reason);
                self.multicast.candidate.handle_session_over(now);
                self.multicast.next_look = Some(now + LOOK_INTERVAL);
                self.drain_candidate(now);
            }
        }
    }

    /// The thread of a session that this host hears has something to say.
    pub(super) fn on_receiving(&mut self, now: Instant, number: u64, report: receiving::Report) {
        // What came is stored, whatever became of the session.
        if let receiving::Report::Came(batch) = report {
            return self.on_batch(now, Origin::Multicast, batch);
        }
        let Some(receiving) = self.multicast.receiving.as_ref().filter(|it| it.number == number) else { return };
        match report {
            receiving::Report::Send(message) => {
                let sender = receiving.sender;
                self.tell_about_multicast(sender, message);
            }
            receiving::Report::Came(_) => unreachable!("it was taken above"),
            receiving::Report::Carries(carries) => self.set_carries(now, carries),
            receiving::Report::Away(reason) => self.multicast.why_not = Some(away(reason)),
            receiving::Report::Over => {
                self.multicast.last = heard(receiving);
                self.multicast.receiving = None;
            }
        }
    }

    fn set_carries(&mut self, now: Instant, carries: bool) {
        if self.multicast.carries != carries {
            self.multicast.carries = carries;
            self.settle_asking(now);
        }
    }

    /// Looks at what neighbours lack: whether to send, and to whom to announce what is sent.
    fn look_at_need(&mut self, now: Instant) {
        if !self.swarm.is_complete() {
            return;
        }
        let lacking = self.lacking();
        let least = self.multicast.choice.hosts_least();
        let need = Need::of(lacking.iter().map(|&(_, bytes)| bytes).collect(), least);
        self.multicast.choice.handle_need(now, need);
        if need.hosts > 0 {
            self.multicast.next_look = Some(now + LOOK_INTERVAL);
        }
        if self.multicast.sending.is_some() {
            self.multicast.candidate.set_needed(now, self.multicast.choice.is_worth_it(now));
            return lacking.into_iter().for_each(|(peer, _)| self.announce_to(peer));
        }
        let network = self.network(now);
        let verdict = self.multicast.choice.verdict(now, network);
        self.multicast.why_not = verdict.as_ref().err().map(NoGo::to_string);
        self.multicast.candidate.set_needed(now, verdict.is_ok());
        self.reporter.note_change();
    }

    /// The neighbours that know multicast, and how many bytes each lacks.
    fn lacking(&self) -> Vec<(PeerId, u64)> {
        let geometry = self.disk.manifest().geometry();
        let status = self.swarm.status();
        let knows = |peer| self.peers.get(&peer).is_some_and(Link::knows_multicast);
        let peers = status.peers.iter().filter(|peer| peer.connected && knows(peer.peer));
        let lacking = peers.map(|peer| (peer.peer, bytes_lacking(&geometry, peer.held_pieces)));
        lacking.filter(|&(_, bytes)| bytes > 0).collect()
    }

    fn network(&mut self, now: Instant) -> Result<Network, Unfit> {
        if self.parts.trackers.is_empty() {
            return Err(Unfit::NoLease("no tracker is configured".to_owned()));
        }
        let interface = self.multicast.interface(now, self.parts.listen)?;
        let is_unknown = interface.bytes_per_s.is_none() && self.multicast.settings.limit.is_none();
        if is_unknown && self.multicast.settings.mode == Mode::Auto {
            return Err(Unfit::UnknownRate(interface.name));
        }
        let config = self.multicast.limit(&interface, self.parts.swarm.upload_limit);
        let share = config.link_bytes_per_s / 100 * u64::from(config.link_share_percent);
        Ok(Network { bytes_per_s: config.limit_bytes_per_s.map_or(share, |limit| limit.min(share)) })
    }

    fn drain_candidate(&mut self, now: Instant) {
        while let Some(output) = self.multicast.candidate.poll_output() {
            match output {
                Output::Ask(request) => self.ask_for_lease(request),
                Output::Elected { session, group } => self.begin_to_send(now, session, group),
                Output::Deposed => {
                    if let Some(sending) = &self.multicast.sending {
                        let _ = sending.thread.tell(sending::Order::Stop);
                    }
                }
                Output::Release { image, session } => {
                    let Some(tracker) = self.parts.trackers.first().cloned() else { continue };
                    // The lease ends by itself soon, whatever the tracker says.
                    tokio::spawn(async move { tracker.call(TrackerRequest::EndLease { image, session }).await });
                }
            }
        }
    }

    fn ask_for_lease(&self, request: LeaseRequest) {
        let Some(tracker) = self.parts.trackers.first().cloned() else { return };
        let reports = self.inlets.reports.clone();
        tokio::spawn(async move {
            match tracker.call(TrackerRequest::Lease(request)).await {
                // A driver that has ended sends nothing.
                Ok(TrackerReply::Lease(reply)) => drop(reports.send(Input::Leased(reply)).await),
                Ok(TrackerReply::Refused(why)) | Err(why) => tracing::debug!(why, "no lease for multicast"),
                Ok(_) => tracing::warn!("a tracker answered a wish for a lease with something else"),
            }
        });
    }

    fn begin_to_send(&mut self, now: Instant, session: SessionId, group: std::net::SocketAddr) {
        let interface = match self.multicast.interface(now, self.parts.listen) {
            Ok(interface) => interface,
            Err(unfit) => return self.give_up_sending(now, &unfit.to_string()),
        };
        let config = self.multicast.limit(&interface, self.parts.swarm.upload_limit);
        let announcement = Announcement {
            session,
            key: new_key(),
            group,
            source: interface.address.into(),
            symbol_len: config.symbol_len as u16,
        };
        let (me, image) = (self.parts.me, self.disk.clone());
        let (number, reports) = (self.multicast.next_number(), self.inlets.reports.clone());
        let parts = sending::Parts { announcement, me, image, interface, config };
        // A driver that has ended wants no reports.
        let report = move |report| drop(reports.blocking_send(Input::Sending(number, report)));
        match Sending::start(parts, report) {
            Ok(thread) => {
                self.multicast.sending = Some(Session { number, session, sender: me, thread });
                self.multicast.why_not = None;
                self.multicast.choice.handle_session_begun(now);
                self.look_at_need(now);
            }
            Err(error) => self.give_up_sending(now, &error.to_string()),
        }
    }

    fn give_up_sending(&mut self, now: Instant, why: &str) {
        tracing::warn!(image = %self.disk.id().short(), why, "can't send by multicast");
        self.multicast.why_not = Some(why.to_owned());
        self.multicast.candidate.handle_session_over(now);
    }

    fn announce_to(&mut self, peer: PeerId) {
        if let Some(sending) = &self.multicast.sending
            && self.multicast.announced.insert(peer)
        {
            let _ = sending.thread.tell(sending::Order::Candidate(peer));
        }
    }

    /// A peer is about to send: this host takes part, if it wants to and nothing is against it.
    fn take_part(&mut self, now: Instant, sender: PeerId, announcement: Announcement) {
        let session = announcement.session;
        let is_busy =
            self.multicast.receiving.as_ref().is_some_and(|it| self.multicast.carries || it.session == session);
        if self.multicast.settings.mode == Mode::Off || self.swarm.is_complete() || is_busy {
            return;
        }
        let interface = match self.multicast.interface(now, self.parts.listen) {
            Ok(interface) => interface,
            Err(unfit) => return self.multicast.why_not = Some(unfit.to_string()),
        };
        let (number, reports) = (self.multicast.next_number(), self.inlets.reports.clone());
        let parts = receiving::Parts {
            announcement,
            sender,
            image: self.disk.clone(),
            interface,
            buffers: self.parts.receiving.clone(),
            workers: self.parts.disk.clone(),
        };
        let report = move |report| drop(reports.blocking_send(Input::Receiving(number, report)));
        match Receiving::start(parts, report) {
            Ok(thread) => {
                self.multicast.receiving = Some(Session { number, session, sender, thread });
                self.multicast.why_not = None;
            }
            Err(error) => {
                tracing::warn!(image = %self.disk.id().short(), %error, "can't take part in multicast");
                self.multicast.why_not = Some(error.to_string());
            }
        }
    }

    fn tell_about_multicast(&self, peer: PeerId, message: MulticastMessage) {
        let link = self.peers.get(&peer).cloned().or_else(|| self.parts.links.standing(peer));
        if let Some(link) = link.filter(Link::knows_multicast) {
            link.send(PeerMessage::Multicast { image: self.disk.id(), message });
        }
    }
}

impl Multicast {
    fn next_number(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }
}

/// Why a host does not listen, for people.
fn away(reason: AwayReason) -> String {
    match reason {
        AwayReason::Left(LeaveReason::Complete) => "everything is here".to_owned(),
        AwayReason::Left(LeaveReason::Lossy) => "too many packets were lost on the way to this host".to_owned(),
        AwayReason::Left(LeaveReason::Silent) => "packets were sent and none came".to_owned(),
        AwayReason::Left(LeaveReason::Disk) => "this host's disk was behind".to_owned(),
        AwayReason::Left(LeaveReason::Distrust) => "blocks were not what the manifest says".to_owned(),
        AwayReason::Left(LeaveReason::Stopped) => "this host stopped taking part".to_owned(),
        AwayReason::Dismissed(reason) => format!("the sender left this host out ({reason:?})"),
        AwayReason::Ended(reason) => format!("the session ended ({reason:?})"),
        AwayReason::SenderGone => "the sender is gone".to_owned(),
    }
}

fn heard(receiving: &Session<Receiving>) -> MulticastStatus {
    let now = receiving.thread.status();
    let lost = now.expected.saturating_sub(now.received + now.dropped);
    MulticastStatus {
        loss_ppm: (lost * 1_000_000 / now.expected.max(1)) as u32,
        packets: now.received,
        surplus_packets: now.useless,
        dropped_packets: now.dropped,
        brought_bytes: now.decoded * u64::from(CHUNK_LEN),
        rejected_blocks: now.rejected,
        ..MulticastStatus::default()
    }
}

/// Bytes of so many pieces less than all.
fn bytes_lacking(geometry: &Geometry, held_pieces: u32) -> u64 {
    let lacking = u64::from(geometry.piece_count().saturating_sub(held_pieces));
    (lacking * u64::from(geometry.piece_len())).min(geometry.len())
}
