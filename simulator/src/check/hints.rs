//! A tracker and a hash table that lie about where hosts are, for as long as the fleet lives.
//!
//! They know everything that the true ones know, and say what costs most: right peers at wrong addresses, peers that there
//! are not, as many as an answer holds, what was true yesterday, and now and then the truth, so that nobody can just stop
//! listening. Most fleets have a true tracker beside them; in the others hosts are found by what slips out.

use std::collections::BTreeSet;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use drover_protocol::announce::{Announced, Cohort, MAX_PEERS_HANDED_OUT, MAX_SWARMS, SwarmPeers};
use drover_protocol::hints::FOUND_MOST;
use drover_protocol::id::ImageId;
use drover_protocol::message::{MAX_ADDRS, PeerAddress};
use drover_protocol::rng::Rng;

use super::fault::{Fault, FaultCounts};
use super::host::peer_id;

/// Port of every host.
const PORT: u16 = 7444;
/// True answers that are kept, to be said again.
const KEPT_MOST: usize = 16;

/// The liar.
#[derive(Debug)]
pub(super) struct Liar {
    rng: Rng,
    hosts: usize,
    kept: Vec<Vec<PeerAddress>>,
}

impl Liar {
    /// One in a fleet of so many hosts, bystanders included.
    pub(super) fn new(seed: u64, hosts: usize) -> Self {
        Liar { rng: Rng::seeded(seed), hosts, kept: Vec::new() }
    }

    /// The true tracker told somebody this.
    pub(super) fn overhear(&mut self, told: &Announced) {
        let peers = told.swarms.iter().flat_map(|swarm| swarm.peers.iter().cloned()).collect();
        if self.kept.len() < KEPT_MOST {
            self.kept.push(peers);
        } else {
            let at = self.rng.below(KEPT_MOST as u32) as usize;
            self.kept[at] = peers;
        }
    }

    /// What the lying tracker answers.
    pub(super) fn announced(&mut self, asker: usize, image: ImageId, counts: &mut FaultCounts) -> Announced {
        let mut swarms = 1;
        let peers = match self.rng.below(12) {
            0..3 => self.count(counts, Fault::WrongAddresses, Self::wrong),
            3..5 => self.count(counts, Fault::DeadAddresses, |liar| liar.dead(8, 1)),
            5..7 => {
                // More swarms than were asked about, so that there are thousands.
                swarms = if self.rng.chance(0.02) { MAX_SWARMS } else { 2 };
                self.count(counts, Fault::ManyAddresses, |liar| liar.dead(MAX_PEERS_HANDED_OUT, MAX_ADDRS))
            }
            7..9 => self.count(counts, Fault::OldAddresses, Self::old),
            9 => vec![PeerAddress { peer: peer_id(asker), addrs: vec![addr_of(asker)] }],
            10 => Vec::new(),
            _ => (0..self.hosts).map(|host| PeerAddress { peer: peer_id(host), addrs: vec![addr_of(host)] }).collect(),
        };
        let about = |peers: &[PeerAddress]| SwarmPeers { image, peers: peers.to_vec(), cohort: Cohort::default() };
        let mut swarms: Vec<SwarmPeers> = (0..swarms).map(|_| about(&peers)).collect();
        if self.rng.chance(0.1) {
            swarms.insert(0, SwarmPeers { image: ImageId::from_bytes([0xee; 32]), ..about(&peers) });
        }
        Announced { interval_ms: 0, swarms }
    }

    /// What the hash table gives in the place of these.
    pub(super) fn found(&mut self, true_ones: &BTreeSet<SocketAddr>, counts: &mut FaultCounts) -> Vec<SocketAddr> {
        counts.add(Fault::LyingTable);
        let mut found: Vec<SocketAddr> = (0..2 * FOUND_MOST).map(|_| self.nowhere()).collect();
        found.extend((0..self.hosts).map(addr_of).filter(|addr| !true_ones.contains(addr)));
        if self.rng.chance(0.5) {
            found.extend(true_ones);
        }
        self.rng.shuffle(&mut found);
        found
    }

    fn count<T>(&mut self, counts: &mut FaultCounts, fault: Fault, lie: impl FnOnce(&mut Self) -> T) -> T {
        counts.add(fault);
        lie(self)
    }

    /// Every host where another is, where nobody is, or outside of the networks.
    fn wrong(&mut self) -> Vec<PeerAddress> {
        (0..self.hosts)
            .map(|host| {
                let addrs = (0..MAX_ADDRS).map(|_| match self.rng.below(3) {
                    0 => addr_of((host + 1 + self.rng.below(self.hosts as u32 - 1) as usize) % self.hosts),
                    1 => self.nowhere(),
                    _ => SocketAddr::from((Ipv4Addr::new(203, 0, 113, self.rng.below(256) as u8), PORT)),
                });
                PeerAddress { peer: peer_id(host), addrs: addrs.collect() }
            })
            .collect()
    }

    /// Peers that there are not.
    fn dead(&mut self, peers: usize, addrs: usize) -> Vec<PeerAddress> {
        (0..peers)
            .map(|_| {
                let peer = peer_id(1 << 20 | self.rng.below(1 << 20) as usize);
                PeerAddress { peer, addrs: (0..addrs).map(|_| self.nowhere()).collect() }
            })
            .collect()
    }

    /// What was true once, with where hosts were yesterday.
    fn old(&mut self) -> Vec<PeerAddress> {
        let mut peers = self.rng.pick(&self.kept).cloned().unwrap_or_default();
        for about in &mut peers {
            if self.rng.chance(0.5) {
                about.addrs.insert(0, self.nowhere());
                about.addrs.truncate(1);
            }
        }
        peers
    }

    /// An address in the cluster's networks at which there is nobody.
    fn nowhere(&mut self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from_bits(0x0a80_0000 | self.rng.below(1 << 20)), PORT))
    }
}

/// Where a host is.
pub(super) fn addr_of(host: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 | host as u32), PORT))
}

/// Which host that is, if one of so many.
pub(super) fn host_at(addr: SocketAddr, hosts: usize) -> Option<usize> {
    let IpAddr::V4(ip) = addr.ip() else { return None };
    let host = (ip.to_bits().checked_sub(0x0a00_0000)?) as usize;
    (host < hosts && addr == addr_of(host)).then_some(host)
}
