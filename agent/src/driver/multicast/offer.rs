//! What this host sends by multicast to those who lack its image.
//!
//! A host that holds everything looks now and then at what its neighbours lack. If a [`Choice`] says that sending is worth it,
//! a [`Candidate`] asks the first tracker for the lease, and who gets it announces a session to those neighbours. A session ends
//! when one of those who have its key is revoked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use drover_protocol::announce::{TrackerReply, TrackerRequest};
use drover_protocol::geometry::Geometry;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::multicast::choice::{Choice, ChoiceConfig, Mode, Need, Network, NoGo, Unfit};
use drover_protocol::multicast::config::SenderConfig;
use drover_protocol::multicast::election::{Candidate, LeaseReply, LeaseRequest, Output};
use drover_protocol::multicast::message::Announcement;
use drover_protocol::multicast::packet::SessionId;
use drover_protocol::time::Instant;

use super::super::{Driver, Input};
use super::Session;
use crate::clock;
use crate::exchange::{MulticastRole, MulticastStatus};
use crate::multicast::interface::Interface;
use crate::multicast::sending::{self, Sending};
use crate::multicast::{MulticastSettings, new_key};
use crate::transport::Link;

/// What neighbours lack is looked at so soon after news of it,
const LOOK_SOON: Duration = Duration::from_millis(20);
/// and so often while they lack anything.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// What an interface that does not know its speed is taken for. If it carries less, the socket says so.
const BYTES_PER_S: u64 = 125_000_000;

/// Whether this host sends, and the session that it sends.
#[derive(Debug)]
pub(super) struct Offer {
    choice: Choice,
    candidate: Candidate,
    sending: Option<Session<Sending>>,
    /// Whom the session that is sent was announced to,
    announced: BTreeSet<PeerId>,
    /// and who has its key, connected or not.
    keyed: BTreeSet<PeerId>,
    next_look: Option<Instant>,
}

impl Offer {
    pub(super) fn new(now: Instant, image: ImageId, settings: &MulticastSettings) -> Self {
        Offer {
            choice: Choice::new(settings.mode, ChoiceConfig::default()),
            candidate: Candidate::new(now, image, settings.groups.clone(), clock::seed()),
            sending: None,
            announced: BTreeSet::new(),
            keyed: BTreeSet::new(),
            next_look: None,
        }
    }

    pub(super) fn look_soon(&mut self, now: Instant) {
        let soon = now + LOOK_SOON;
        self.next_look = Some(self.next_look.map_or(soon, |at| at.min(soon)));
    }

    pub(super) fn note_disconnected(&mut self, peer: PeerId) {
        self.announced.remove(&peer);
        self.tell(sending::Order::Disconnected(peer));
    }

    /// Tells a host of the session that is sent, unless it was told.
    fn announce_to(&mut self, peer: PeerId) {
        if self.is_sending() && self.announced.insert(peer) {
            self.keyed.insert(peer);
            self.tell(sending::Order::Candidate(peer));
        }
    }

    pub(super) fn tell(&self, order: sending::Order) {
        if let Some(sending) = &self.sending {
            // A thread that has ended has said so.
            let _ = sending.thread.tell(order);
        }
    }

    pub(super) fn stop(&mut self) {
        self.sending = None;
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.candidate.poll_timeout().into_iter().chain(self.next_look).min()
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Whether it is this session that this host sends.
    pub(super) fn is_of(&self, session: SessionId) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.session == session)
    }

    /// How the session that is sent stands, if there is one.
    pub(super) fn status(&self) -> Option<MulticastStatus> {
        let now = self.sending.as_ref()?.thread.status();
        Some(MulticastStatus {
            role: MulticastRole::Sending,
            rate_bytes_per_s: now.rate_bytes_per_s,
            loss_ppm: now.loss_ppm,
            parity: now.parity,
            members: now.members as u64,
            packets: now.packets,
            surplus_packets: now.repair_packets,
            ..MulticastStatus::default()
        })
    }
}

impl Driver<'_> {
    /// What was to be done by now.
    pub(in super::super) fn on_multicast_due(&mut self, now: Instant) {
        let offer = &mut self.multicast.offer;
        if offer.candidate.poll_timeout().is_some_and(|at| at <= now) {
            offer.candidate.handle_timeout(now);
        }
        if offer.next_look.take_if(|at| *at <= now).is_some() {
            self.look_at_need(now);
        }
        self.drain_candidate(now);
    }

    /// A tracker answered.
    pub(in super::super) fn on_leased(&mut self, now: Instant, reply: &LeaseReply) {
        self.multicast.offer.candidate.handle_reply(now, reply);
        self.drain_candidate(now);
    }

    /// The thread of a session that this host sends has something to say.
    pub(in super::super) fn on_sending(&mut self, now: Instant, number: u64, report: sending::Report) {
        if self.multicast.offer.sending.as_ref().is_none_or(|sending| sending.number != number) {
            return;
        }
        match report {
            sending::Report::Send(peer, message) => self.tell_about_multicast(peer, message),
            sending::Report::Ended(reason) => {
                self.multicast.last = self.multicast.status();
                self.multicast.offer.sending = None;
                self.multicast.offer.announced.clear();
                self.multicast.offer.keyed.clear();
                self.multicast.offer.choice.handle_session_over(now, reason);
                self.multicast.offer.candidate.handle_session_over(now);
                self.multicast.offer.next_look = Some(now + LOOK_INTERVAL);
                self.drain_candidate(now);
            }
        }
    }

    /// Looks at what neighbours lack: whether to send, and to whom to announce what is sent.
    fn look_at_need(&mut self, now: Instant) {
        if !self.swarm.is_complete() {
            return;
        }
        let lacking = self.lacking();
        let least = self.multicast.offer.choice.hosts_least();
        let need = Need::of(lacking.iter().map(|&(_, bytes)| bytes).collect(), least);
        self.multicast.offer.choice.handle_need(now, need);
        if need.hosts > 0 {
            self.multicast.offer.next_look = Some(now + LOOK_INTERVAL);
        }
        if self.multicast.offer.sending.is_some() {
            if let Some(peer) = self.multicast.offer.keyed.iter().find(|peer| self.parts.links.is_revoked(**peer)) {
                tracing::warn!(%peer, "a host that was revoked has the key of a multicast session, which ends; the next has another");
                return self.multicast.offer.tell(sending::Order::Stop);
            }
            self.multicast.offer.candidate.set_needed(now, self.multicast.offer.choice.is_worth_it(now));
            return lacking.into_iter().for_each(|(peer, _)| self.multicast.offer.announce_to(peer));
        }
        let network = self.network(now);
        let verdict = self.multicast.offer.choice.verdict(now, network);
        self.multicast.why_not = verdict.as_ref().err().map(NoGo::to_string);
        self.multicast.offer.candidate.set_needed(now, verdict.is_ok());
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
        let config = sender_config(&interface, &self.multicast.settings, self.parts.swarm.upload_limit);
        let share = config.link_bytes_per_s / 100 * u64::from(config.link_share_percent);
        Ok(Network { bytes_per_s: config.limit_bytes_per_s.map_or(share, |limit| limit.min(share)) })
    }

    fn drain_candidate(&mut self, now: Instant) {
        while let Some(output) = self.multicast.offer.candidate.poll_output() {
            match output {
                Output::Ask(request) => self.ask_for_lease(request),
                Output::Elected { session, group } => self.begin_to_send(now, session, group),
                Output::Deposed => self.multicast.offer.tell(sending::Order::Stop),
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

    fn begin_to_send(&mut self, now: Instant, session: SessionId, group: SocketAddr) {
        let interface = match self.multicast.interface(now, self.parts.listen) {
            Ok(interface) => interface,
            Err(unfit) => return self.give_up_sending(now, &unfit.to_string()),
        };
        let config = sender_config(&interface, &self.multicast.settings, self.parts.swarm.upload_limit);
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
                self.multicast.offer.sending = Some(Session { number, session, sender: me, thread });
                self.multicast.why_not = None;
                self.multicast.offer.choice.handle_session_begun(now);
                self.look_at_need(now);
            }
            Err(error) => self.give_up_sending(now, &error.to_string()),
        }
    }

    fn give_up_sending(&mut self, now: Instant, why: &str) {
        tracing::warn!(image = %self.disk.id().short(), why, "can't send by multicast");
        self.multicast.why_not = Some(why.to_owned());
        self.multicast.offer.candidate.handle_session_over(now);
    }
}

/// How a host sends by an interface: its settings may have less, and so may the share of the host's limit that the swarm has.
fn sender_config(interface: &Interface, settings: &MulticastSettings, upload_limit: Option<u64>) -> SenderConfig {
    SenderConfig {
        link_bytes_per_s: interface.bytes_per_s.unwrap_or(BYTES_PER_S),
        limit_bytes_per_s: settings.limit.into_iter().chain(upload_limit).min(),
        symbol_len: interface.symbol_len(),
        ..SenderConfig::default()
    }
}

/// Bytes of so many pieces less than all.
fn bytes_lacking(geometry: &Geometry, held_pieces: u32) -> u64 {
    let lacking = u64::from(geometry.piece_count().saturating_sub(held_pieces));
    (lacking * u64::from(geometry.piece_len())).min(geometry.len())
}
