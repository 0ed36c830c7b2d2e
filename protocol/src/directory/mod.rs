//! The tracker's memory: which hosts exchange which images, how far they are, and which of them to introduce.
//!
//! Hosts announce themselves; what they say is remembered for a few intervals and then forgotten. Nothing is kept
//! durably: a tracker that comes back empty knows its fleet again after one interval. What is handed out are hints, and
//! no safety rests on them.

mod config;

pub use config::DirectoryConfig;

use core::net::IpAddr;

use crate::announce::{Announce, Announced, Cohort, SwarmPeers};
use crate::id::{ImageId, PeerId};
use crate::rng::Rng;
use crate::time::Instant;

/// The tracker's memory of swarms.
#[derive(Debug)]
pub struct Directory {
    config: DirectoryConfig,
    rng: Rng,
}

/// One host in one swarm, for status pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostStatus {
    /// Who.
    pub peer: PeerId,
    /// Data chunks held.
    pub held_chunks: u32,
    /// Data chunks that the image has; 0 if the host does not know yet.
    pub data_chunks: u32,
    /// Its rack, if it named one.
    pub rack: Option<String>,
}

#[allow(unused_variables, clippy::unused_self)]
impl Directory {
    /// An empty directory.
    pub fn new(config: DirectoryConfig, seed: u64) -> Self {
        Directory { config, rng: Rng::seeded(seed) }
    }

    /// A host says where it is and what it exchanges. `observed` is the address that its announce came from.
    pub fn handle_announce(&mut self, now: Instant, peer: PeerId, observed: IpAddr, announce: &Announce) -> Announced {
        let empty = |image| SwarmPeers { image, peers: Vec::new(), cohort: Cohort::default() };
        Announced {
            interval_ms: self.config.leeching_interval.as_millis() as u32,
            swarms: announce.swarms.iter().map(|swarm| empty(swarm.image)).collect(),
        }
    }

    /// A host is gone from all swarms, or not welcome any more.
    pub fn handle_leave(&mut self, now: Instant, peer: PeerId) {
        self.rng.next_u64();
    }

    /// The time given to [`Directory::poll_timeout`] has come: forgets hosts that did not announce in time.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// When to call [`Directory::handle_timeout`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Every swarm and how far it is, in the order of image ids.
    pub fn swarms(&self) -> impl Iterator<Item = (ImageId, Cohort)> + '_ {
        core::iter::empty()
    }

    /// How far a swarm is; all zero for one that nobody announced.
    pub fn cohort(&self, image: ImageId) -> Cohort {
        Cohort::default()
    }

    /// The hosts of a swarm, in the order of their ids.
    pub fn hosts(&self, image: ImageId) -> impl Iterator<Item = HostStatus> + '_ {
        core::iter::empty()
    }
}
