//! What the driver lets others see: a status for people, an announcement for trackers.
//!
//! Published when the phase changes, and otherwise a little after something happened, so that an idle swarm costs
//! nothing and a busy one the same however busy it is.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_protocol::announce::SwarmAnnounce;
use drover_protocol::geometry::{CHUNK_LEN, Geometry};
use drover_protocol::hints::Source;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::swarm::{Swarm, SwarmStatus};
use drover_protocol::time::Instant;
use tokio::sync::watch;

use crate::clock;
use crate::discovery::Announcements;
use crate::exchange::{Banned, MulticastStatus, PeerExchange, Phase, TransferStatus};
use crate::store::Image;

/// Often enough for a progress bar.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);
/// Peers to be named by a tracker: for a host that fetches a few times the neighbours it seeks, for one that has
/// everything a few, so that both ends dial where only one can.
const PEERS_WANTED: u16 = 50;
const PEERS_WANTED_BY_SEEDER: u16 = 16;

/// The outside of a driver.
#[derive(Debug)]
pub(super) struct Reporter {
    image: ImageId,
    status: watch::Sender<TransferStatus>,
    announcements: Announcements,
    geometry: Option<Geometry>,
    names: BTreeMap<PeerId, Known>,
    /// When to publish next, if anything happened since the last time.
    due: Option<Instant>,
    published: Option<Instant>,
}

/// What is shown of a peer beside what the swarm knows.
#[derive(Debug)]
struct Known {
    name: String,
    found: Option<Source>,
}

impl Reporter {
    pub(super) fn new(image: ImageId, status: watch::Sender<TransferStatus>, announcements: Announcements) -> Self {
        Reporter { image, status, announcements, geometry: None, names: BTreeMap::new(), due: None, published: None }
    }

    /// Trackers are asked for peers before anything is known of the image.
    pub(super) fn announce_unknown(&self) {
        self.announce(0, 0);
    }

    /// The swarm begins.
    pub(super) fn begin(&mut self, disk: &Image, swarm: &Swarm) {
        self.geometry = Some(disk.manifest().geometry());
        self.set_phase(Phase::Fetching);
        self.publish(swarm);
    }

    /// Something is done now that was not before.
    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.status.send_if_modified(|status| {
            if status.phase == phase {
                return false;
            }
            status.ended_unix_s = phase.is_final().then(clock::unix_s);
            status.phase = phase;
            true
        });
        self.note_change();
    }

    /// A peer's name and how it was found, for as long as that is of interest.
    pub(super) fn note_peer(&mut self, peer: PeerId, name: &str, found: Option<Source>) {
        self.names.insert(peer, Known { name: name.to_owned(), found });
    }

    /// Something happened.
    pub(super) fn note_change(&mut self) {
        if self.due.is_none() {
            let now = clock::now();
            self.due = Some(self.published.map_or(now, |at| (at + PUBLISH_EVERY).max(now)));
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.due
    }

    /// Publishes, if something happened and it is time to; says whether bytes moved since the last time.
    pub(super) fn publish_if_due(&mut self, swarm: &Swarm, multicast: impl FnOnce() -> MulticastStatus) -> bool {
        if self.due.is_none_or(|at| at > clock::now()) {
            return false;
        }
        let moved = |status: &TransferStatus| (status.taken_bytes, status.given_bytes);
        let before = moved(&self.status.borrow());
        let multicast = multicast();
        self.status.send_modify(|status| status.multicast = multicast);
        self.publish(swarm);
        before != moved(&self.status.borrow())
    }

    pub(super) fn publish(&mut self, swarm: &Swarm) {
        let Some(geometry) = self.geometry else { return };
        (self.due, self.published) = (None, Some(clock::now()));
        let now = swarm.status();
        self.names.retain(|peer, _| now.peers.iter().any(|status| status.peer == *peer));
        self.announce(now.held_chunks, now.data_chunks);
        self.announcements.set_neighbours(self.image, now.peers.iter().filter(|peer| peer.connected).count());
        let (cohort, trackers) = (self.announcements.cohort(self.image), self.announcements.trackers_reachable());
        self.status.send_modify(|status| {
            status.content_len = Some(geometry.len());
            (status.cohort, status.trackers_reachable) = (cohort, trackers);
            fill(status, &geometry, &now, &self.names);
        });
    }

    fn announce(&self, held_chunks: u32, data_chunks: u32) {
        let known = self.geometry.is_some();
        // An image of nothing but zeros is 1 of 1: 0 of 0 would say that nothing is known of it.
        let (held_chunks, data_chunks) = if known && data_chunks == 0 { (1, 1) } else { (held_chunks, data_chunks) };
        let complete = known && held_chunks == data_chunks;
        let want_peers = if complete { PEERS_WANTED_BY_SEEDER } else { PEERS_WANTED };
        let image = self.image;
        self.announcements.set(SwarmAnnounce { image, held_chunks, data_chunks, want_peers, leaving: false });
    }
}

fn fill(status: &mut TransferStatus, geometry: &Geometry, now: &SwarmStatus, names: &BTreeMap<PeerId, Known>) {
    status.held_bytes = now.held_bytes;
    status.data_bytes = now.data_bytes;
    status.taken_bytes = now.peers.iter().map(|peer| peer.taken_bytes).sum();
    status.given_bytes = now.peers.iter().map(|peer| peer.given_bytes).sum();
    status.wasted_bytes = now.wasted_bytes;
    status.rate_bytes_per_s = now.peers.iter().filter(|peer| peer.connected).map(|peer| peer.rate_bytes_per_s).sum();
    let held_permille = |pieces: u32| (u64::from(pieces) * 1000 / u64::from(geometry.piece_count())) as u16;
    let peers = now.peers.iter().map(|peer| PeerExchange {
        peer: peer.peer,
        name: names.get(&peer.peer).map(|known| known.name.clone()),
        found: names.get(&peer.peer).and_then(|known| known.found),
        connected: peer.connected,
        held_permille: held_permille(peer.held_pieces),
        taken_bytes: peer.taken_bytes,
        given_bytes: peer.given_bytes,
        rate_bytes_per_s: if peer.connected { peer.rate_bytes_per_s } else { 0 },
    });
    status.peers = peers.collect();
    let byte_at = |chunk: u32| (u64::from(chunk) * u64::from(CHUNK_LEN)).min(geometry.len());
    status.unavailable = now.unavailable.iter().map(|run| byte_at(run.start)..byte_at(run.end)).collect();
    status.banned =
        now.banned.iter().map(|(peer, misdeed)| Banned { peer: *peer, misdeed: misdeed.to_string() }).collect();
}
