//! The driver's dealings with multicast: what this host sends ([`offer`]) and what it hears ([`part`]).
//!
//! Both kinds of session run on threads of their own (`crate::multicast`); a report of one that is over is known by its number. Here
//! inputs are routed to either, and it is told how multicast stands.

mod offer;
mod part;

use std::net::IpAddr;
use std::time::Duration;

use drover_protocol::geometry::ChunkIndex;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::PeerMessage;
use drover_protocol::multicast::choice::{Mode, Unfit};
use drover_protocol::multicast::message::MulticastMessage;
use drover_protocol::multicast::packet::SessionId;
use drover_protocol::time::Instant;

use self::offer::Offer;
use self::part::Part;
use super::Driver;
use crate::exchange::{MulticastRole, MulticastStatus};
use crate::multicast::interface::Interface;
use crate::multicast::{MulticastSettings, receiving, sending};
use crate::transport::Link;

/// What the system says of interfaces is believed for so long.
const INTERFACE_INTERVAL: Duration = Duration::from_secs(30);

/// Where the driver is with multicast.
#[derive(Debug)]
pub(super) struct Multicast {
    settings: MulticastSettings,
    offer: Offer,
    part: Part,
    interface: Option<(Instant, Result<Interface, Unfit>)>,
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
        Multicast {
            settings: settings.clone(),
            offer: Offer::new(now, image, settings),
            part: Part::default(),
            interface: None,
            last_session: 0,
            why_not: None,
            last: MulticastStatus::default(),
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.offer.wake_at()
    }

    /// A neighbour said something about what it holds; who holds everything may have to send.
    pub(super) fn note_news(&mut self, now: Instant, is_complete: bool) {
        if self.settings.mode != Mode::Off && is_complete {
            self.offer.look_soon(now);
        }
    }

    /// A chunk is stored, by whatever way it came.
    pub(super) fn note_stored(&mut self, chunk: ChunkIndex) {
        self.part.tell(receiving::Order::Stored(chunk));
    }

    /// A block that multicast brought was not what the manifest says.
    pub(super) fn note_rejected(&mut self, chunk: ChunkIndex) {
        self.part.tell(receiving::Order::Rejected(chunk));
    }

    pub(super) fn note_disconnected(&mut self, peer: PeerId) {
        self.offer.note_disconnected(peer);
        self.part.note_disconnected(peer);
    }

    /// Takes part in nothing any more: the disk refuses what comes.
    pub(super) fn stop_receiving(&mut self) {
        self.part.tell(receiving::Order::Stop);
    }

    /// Ends all sessions.
    pub(super) fn stop(&mut self) {
        self.offer.stop();
        self.part.stop();
    }

    pub(super) fn status(&self) -> MulticastStatus {
        let idle = || MulticastStatus { role: MulticastRole::None, ..self.last.clone() };
        let now = self.offer.status().or_else(|| self.part.status()).unwrap_or_else(idle);
        let why_not = if self.offer.is_sending() { None } else { self.why_not.clone() };
        let brought_bytes = now.brought_bytes.max(self.part.brought_before());
        MulticastStatus { mode: self.settings.mode, why_not, brought_bytes, ..now }
    }

    /// The interface that multicast goes by, if there is one that is fit.
    fn interface(&mut self, now: Instant, listen: IpAddr) -> Result<Interface, Unfit> {
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

    fn next_number(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }
}

impl Driver<'_> {
    /// A peer said something about a session.
    pub(super) fn on_multicast_message(&mut self, now: Instant, link: &Link, message: MulticastMessage) {
        let (peer, session) = (link.peer(), message.session());
        if let MulticastMessage::Announce(announcement) = message {
            return self.take_part(now, peer, announcement);
        }
        if self.multicast.offer.is_of(session) {
            self.multicast.offer.tell(sending::Order::Message(peer, message));
        } else if self.multicast.part.is_of(session, peer) {
            self.multicast.part.tell(receiving::Order::Message(message));
        }
    }

    fn tell_about_multicast(&self, peer: PeerId, message: MulticastMessage) {
        let link = self.peers.get(&peer).cloned().or_else(|| self.parts.links.standing(peer));
        if let Some(link) = link.filter(Link::knows_multicast) {
            link.send(PeerMessage::Multicast { image: self.disk.id(), message });
        }
    }
}
