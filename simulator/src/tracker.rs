//! The tracker: the real directory machine, and what stands for an agent's announces.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use drover_protocol::announce::{Announce, Announced, SwarmAnnounce};
use drover_protocol::directory::{Directory, DirectoryConfig};
use drover_protocol::id::ImageId;
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;

use crate::host::{host_of, peer_id};

/// The one image.
pub(crate) const IMAGE: ImageId = ImageId::from_bytes([1; 32]);
/// How many peers a host asks for: some twice the neighbours that it seeks.
const PEERS_WANTED: u16 = 50;
/// A seeder wants to know a few leechers.
const PEERS_WANTED_BY_SEEDER: u16 = 16;

/// A tracker that is always there.
#[derive(Debug)]
pub(crate) struct Tracker {
    directory: Directory,
}

impl Tracker {
    pub(crate) fn new(seed: u64) -> Self {
        Tracker { directory: Directory::new(DirectoryConfig::default(), seed) }
    }

    /// A host announces that it holds so many of all data chunks. Gives whom it is told of and when it comes again.
    pub(crate) fn announce(
        &mut self,
        now: Instant,
        host: usize,
        rack: Option<&str>,
        (held_chunks, data_chunks): (u32, u32),
    ) -> (Box<[u32]>, Duration) {
        let ip = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() | host as u32));
        let is_seeder = held_chunks == data_chunks;
        let swarm = SwarmAnnounce {
            image: IMAGE,
            held_chunks,
            data_chunks,
            want_peers: if is_seeder { PEERS_WANTED_BY_SEEDER } else { PEERS_WANTED },
            leaving: false,
        };
        let listen = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7444))];
        let announce = Announce { listen, rack: rack.map(str::to_owned), swarms: vec![swarm] };
        while self.directory.poll_timeout().is_some_and(|due| due <= now) {
            self.directory.handle_timeout(now);
            // Simulated hosts do not watch.
            self.directory.poll_changes(now);
        }
        let Announced { interval_ms, swarms } = self.directory.handle_announce(now, peer_id(host), ip, &announce);
        let peers = swarms.into_iter().flat_map(|swarm| swarm.peers).map(|peer| host_of(peer.peer));
        let peers = peers.inspect(|&peer| assert_ne!(peer, host)).map(|peer| peer as u32);
        (peers.collect(), Duration::from_millis(interval_ms.into()))
    }
}

/// When a host that was told to come again after `interval` does: up to a tenth sooner, so that a fleet that began as one
/// does not stay in step.
pub(crate) fn jittered(interval: Duration, rng: &mut Rng) -> Duration {
    interval - interval * rng.below(1000) / 10_000
}
