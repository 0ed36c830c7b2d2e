//! The tracker: the real directory machine, which may forget everything, or lie.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use drover_protocol::announce::{Announce, Announced, SwarmAnnounce};
use drover_protocol::directory::{Directory, DirectoryConfig};
use drover_protocol::id::ImageId;
use drover_protocol::message::PeerAddress;
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;

use super::fault::{Fault, FaultCounts};
use super::hints::addr_of;
use super::host::peer_id;

/// A tracker that can always be reached.
#[derive(Debug)]
pub(super) struct Tracker {
    directory: Directory,
    image: ImageId,
    lies: f64,
}

impl Tracker {
    pub(super) fn new(seed: u64, lies: f64, image: ImageId) -> Self {
        Tracker { directory: Directory::new(DirectoryConfig::default(), seed), image, lies }
    }

    /// It loses its memory.
    pub(super) fn restart(&mut self, seed: u64) {
        self.directory = Directory::new(DirectoryConfig::default(), seed);
    }

    /// It tells the truth from now on.
    pub(super) fn heal(&mut self) {
        self.lies = 0.0;
    }

    /// A host announces that it holds so many of all data chunks (none, while it does not know the manifest). Gives whom it
    /// is told of, and when it comes again.
    pub(super) fn announce(
        &mut self,
        now: Instant,
        host: usize,
        rack: Option<&str>,
        progress: (u32, u32),
        hosts: usize,
        (rng, counts): (&mut Rng, &mut FaultCounts),
    ) -> Announced {
        let swarm = Self::question(self.image, progress);
        let listen = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7444))];
        let announce = Announce { listen, rack: rack.map(str::to_owned), swarms: vec![swarm] };
        let ip = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() | host as u32));
        while self.directory.poll_timeout().is_some_and(|due| due <= now) {
            self.directory.handle_timeout(now);
            // Simulated hosts do not watch.
            self.directory.poll_changes(now);
        }
        let mut told = self.directory.handle_announce(now, peer_id(host), ip, &announce);
        if rng.chance(self.lies) {
            counts.add(Fault::LyingTracker);
            let named = match rng.below(3) {
                0 => Vec::new(),
                1 => vec![host],
                // Some of these hosts do not exist.
                _ => (0..8).map(|_| rng.below(hosts as u32 * 3) as usize).collect(),
            };
            let named = named.into_iter().map(|host| PeerAddress { peer: peer_id(host), addrs: vec![addr_of(host)] });
            told.swarms.iter_mut().for_each(|swarm| swarm.peers = named.clone().collect());
        }
        told
    }

    /// What a host says of an image of which it holds so many of all data chunks.
    pub(super) fn question(image: ImageId, (held_chunks, data_chunks): (u32, u32)) -> SwarmAnnounce {
        SwarmAnnounce { image, held_chunks, data_chunks, want_peers: 50, leaving: false }
    }
}
