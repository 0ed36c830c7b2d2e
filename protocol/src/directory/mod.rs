//! The tracker's memory: which hosts exchange which images, how far they are, and which of them to introduce.
//!
//! Hosts announce themselves; what they say is remembered for a few intervals and then forgotten. Nothing is kept
//! durably: a tracker that comes back empty knows its fleet again after one interval. What is handed out are hints, and
//! no safety rests on them.
//!
//! A host is who its certificate says (`PeerId`), so it counts once, however often it announces. What it says about
//! itself is believed within bounds: a liar can spoil its own share of the progress shown, fill a bounded number of
//! swarms, and name addresses where nobody answers.
//!
//! Whoever watches is told of each swarm in which a host joined, left or became complete: at once, if nothing was told for
//! a while, else with what else changes in that time ([`Directory::poll_changes`]).
//!
//! A host with more images than fit into one announce sends several; so an image that an announce does not mention
//! stays until it expires or is left.

mod address;
mod config;
mod selection;
mod swarm;
#[cfg(test)]
mod tests;

pub use address::MIN_PORT;
pub use config::DirectoryConfig;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::announce::{
    Announce, Announced, Cohort, MAX_COHORTS, MAX_LABEL_LEN, MAX_SWARMS, SwarmAnnounce, SwarmCohort, SwarmPeers,
};
use crate::id::{ImageId, PeerId};
use crate::message::PeerAddress;
use crate::rng::Rng;
use crate::time::Instant;

use selection::{Asker, Kind};
use swarm::{Record, SwarmRecords};

/// The tracker's memory of swarms.
#[derive(Debug)]
pub struct Directory {
    config: DirectoryConfig,
    rng: Rng,
    hosts: BTreeMap<PeerId, Host>,
    swarms: BTreeMap<ImageId, SwarmRecords>,
    /// When each record is forgotten unless its host announces again: one entry for each record.
    expiries: BTreeSet<(Instant, PeerId, ImageId)>,
    /// Hosts whose last announce had an image that they still fetch.
    leeching_hosts: usize,
    /// Swarms that changed since those who watch were told.
    changed: BTreeSet<ImageId>,
    /// From when on they may be told again.
    tell_at: Instant,
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
    /// Where it can be reached.
    pub addrs: Vec<SocketAddr>,
    /// Its rack, if it named one.
    pub rack: Option<String>,
}

/// What a host said about itself, whatever it exchanges.
#[derive(Debug, Default)]
struct Host {
    addrs: Vec<SocketAddr>,
    rack: Option<String>,
    leeching: bool,
    /// The swarms that have a record of it; never empty between inputs.
    images: BTreeSet<ImageId>,
}

impl Directory {
    /// An empty directory.
    pub fn new(config: DirectoryConfig, seed: u64) -> Self {
        Directory {
            config,
            rng: Rng::seeded(seed),
            hosts: BTreeMap::new(),
            swarms: BTreeMap::new(),
            expiries: BTreeSet::new(),
            leeching_hosts: 0,
            changed: BTreeSet::new(),
            tell_at: Instant::START,
        }
    }

    /// A host says where it is and what it exchanges. `observed` is the address that its announce came from.
    ///
    /// Of more than [`MAX_SWARMS`] swarms the first are taken. What finds no room is answered but not remembered.
    pub fn handle_announce(&mut self, now: Instant, peer: PeerId, observed: IpAddr, announce: &Announce) -> Announced {
        self.forgive_sleep(now);
        let announced = &announce.swarms[..announce.swarms.len().min(MAX_SWARMS)];
        let leeching = announced.iter().any(|swarm| !swarm.leaving && kind_of(swarm) == Kind::Leecher);
        let rack = announce.rack.clone().filter(|rack| (1..=MAX_LABEL_LEN).contains(&rack.len()));
        self.settle(peer, address::usable(&announce.listen, observed), rack.clone(), leeching);

        let interval = self.interval(leeching);
        let expires = now + interval * self.config.intervals_kept;
        for swarm in announced {
            if swarm.leaving {
                self.forget(peer, swarm.image);
            } else {
                self.remember(peer, swarm, expires);
            }
        }
        self.forget_host_without_swarms(peer);

        let swarms = announced.iter().map(|swarm| self.peers_for(peer, observed, rack.as_deref(), swarm)).collect();
        Announced { interval_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX), swarms }
    }

    /// A host is gone from all swarms, or not welcome any more.
    pub fn handle_leave(&mut self, now: Instant, peer: PeerId) {
        self.forgive_sleep(now);
        let images = self.hosts.get(&peer).map(|host| host.images.clone()).unwrap_or_default();
        for image in images {
            self.forget(peer, image);
        }
        self.forget_host_without_swarms(peer);
    }

    /// The time given to [`Directory::poll_timeout`] has come: forgets hosts that did not announce in time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.forgive_sleep(now);
        while let Some(&(expires, peer, image)) = self.expiries.first()
            && expires <= now
        {
            self.forget(peer, image);
            self.forget_host_without_swarms(peer);
        }
    }

    /// Swarms that changed, if it is time to tell of them; none otherwise. To be asked after each input.
    pub fn poll_changes(&mut self, now: Instant) -> Vec<SwarmCohort> {
        if self.changed.is_empty() || now < self.tell_at {
            return Vec::new();
        }
        let hosts = Duration::from_secs(self.hosts.len() as u64);
        self.tell_at = now + self.config.telling_interval.max(hosts / self.config.announces_per_s.max(1));
        let mut told = Vec::new();
        while told.len() < MAX_COHORTS
            && let Some(image) = self.changed.pop_first()
        {
            told.push(SwarmCohort { image, cohort: self.cohort(image) });
        }
        told
    }

    /// When to call [`Directory::handle_timeout`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let tell_at = (!self.changed.is_empty()).then_some(self.tell_at);
        self.next_expiry().into_iter().chain(tell_at).min()
    }

    /// Every swarm and how far it is, in the order of image ids.
    pub fn swarms(&self) -> impl Iterator<Item = (ImageId, Cohort)> + '_ {
        self.swarms.iter().map(|(&image, swarm)| (image, swarm.cohort()))
    }

    /// How far a swarm is; all zero for one that nobody announced.
    pub fn cohort(&self, image: ImageId) -> Cohort {
        self.swarms.get(&image).map_or_else(Cohort::default, SwarmRecords::cohort)
    }

    /// Whether a host says that it holds all of an image.
    pub fn is_seeder(&self, peer: PeerId, image: ImageId) -> bool {
        let record = self.swarms.get(&image).and_then(|swarm| swarm.record(peer));
        record.is_some_and(|record| record.kind() == Kind::Seeder)
    }

    /// The hosts of a swarm, in the order of their ids.
    pub fn hosts(&self, image: ImageId) -> impl Iterator<Item = HostStatus> + '_ {
        self.swarms.get(&image).into_iter().flat_map(SwarmRecords::iter).map(|(peer, record)| {
            let host = &self.hosts[&peer];
            HostStatus {
                peer,
                held_chunks: record.held_chunks,
                data_chunks: record.data_chunks,
                addrs: host.addrs.clone(),
                rack: host.rack.clone(),
            }
        })
    }

    /// Notes what `peer` said about itself, and moves it within its swarms if that changed where it belongs.
    fn settle(&mut self, peer: PeerId, addrs: Vec<SocketAddr>, rack: Option<String>, leeching: bool) {
        let host = self.hosts.entry(peer).or_default();
        self.leeching_hosts -= usize::from(host.leeching);
        self.leeching_hosts += usize::from(leeching);
        host.leeching = leeching;
        let moved = host.rack != rack || host.addrs.is_empty() != addrs.is_empty();
        (host.addrs, host.rack) = (addrs, rack);
        if moved {
            for image in &host.images {
                let swarm = self.swarms.get_mut(image).expect("a host's images have swarms");
                swarm.settle(peer, !host.addrs.is_empty(), host.rack.as_deref());
            }
        }
    }

    /// Adds or renews a record, if there is room for it.
    fn remember(&mut self, peer: PeerId, announce: &SwarmAnnounce, expires: Instant) {
        let image = announce.image;
        let known = self.swarms.get(&image).and_then(|swarm| swarm.record(peer));
        if let Some(known) = known {
            self.expiries.remove(&(known.expires, peer, image));
        } else if !self.has_room(peer, image) {
            return;
        }
        let record = Record {
            held_chunks: announce.held_chunks.min(announce.data_chunks),
            data_chunks: announce.data_chunks,
            expires,
        };
        let host = self.hosts.get_mut(&peer).expect("a host is settled before it is remembered");
        host.images.insert(image);
        self.expiries.insert((expires, peer, image));
        let swarm = self.swarms.entry(image).or_default();
        let before = swarm.record(peer).map(|record| record.kind());
        swarm.put(peer, record, !host.addrs.is_empty(), host.rack.as_deref());
        if before != Some(record.kind()) {
            self.note_change(image);
        }
    }

    fn has_room(&self, peer: PeerId, image: ImageId) -> bool {
        let swarm_has_room = match self.swarms.get(&image) {
            Some(swarm) => swarm.len() < self.config.hosts_per_swarm_most,
            None => self.swarms.len() < self.config.swarms_most,
        };
        let host_has_room = self.hosts[&peer].images.len() < self.config.swarms_per_host_most;
        swarm_has_room && host_has_room && self.expiries.len() < self.config.records_most
    }

    /// Drops the record of `peer` in the swarm of `image`, if there is one.
    fn forget(&mut self, peer: PeerId, image: ImageId) {
        let Some(swarm) = self.swarms.get_mut(&image) else { return };
        let Some(record) = swarm.take(peer) else { return };
        if swarm.len() == 0 {
            self.swarms.remove(&image);
        }
        self.note_change(image);
        self.expiries.remove(&(record.expires, peer, image));
        self.hosts.get_mut(&peer).expect("a record has a host").images.remove(&image);
    }

    fn forget_host_without_swarms(&mut self, peer: PeerId) {
        if self.hosts.get(&peer).is_some_and(|host| host.images.is_empty()) {
            let host = self.hosts.remove(&peer).expect("it was just found");
            self.leeching_hosts -= usize::from(host.leeching);
        }
    }

    /// If the driver comes much too late, it was asleep (a suspended machine, a stopped process), and hosts may have
    /// announced to a deaf tracker: nobody is forgotten for that, everybody gets a full time again.
    fn forgive_sleep(&mut self, now: Instant) {
        if self.next_expiry().is_none_or(|due| now.since(due) <= self.config.lateness) {
            return;
        }
        let least = now + self.config.leeching_interval * self.config.intervals_kept;
        while let Some(&(expires, peer, image)) = self.expiries.first()
            && expires < least
        {
            self.expiries.remove(&(expires, peer, image));
            self.expiries.insert((least, peer, image));
            self.swarms.get_mut(&image).expect("an expiry has a swarm").renew(peer, least);
        }
    }

    /// What finds no room is told with the answers to announces only.
    fn note_change(&mut self, image: ImageId) {
        if self.changed.len() < self.config.swarms_most {
            self.changed.insert(image);
        }
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|&(expires, ..)| expires)
    }

    /// When a host announces again: as often as it needs, but never so often that the fleet swamps the tracker.
    fn interval(&self, leeching: bool) -> Duration {
        let (wanted, announcing) = if leeching {
            (self.config.leeching_interval, self.leeching_hosts)
        } else {
            (self.config.seeding_interval, self.hosts.len())
        };
        wanted.max(Duration::from_secs(announcing as u64) / self.config.announces_per_s.max(1))
    }

    fn peers_for(
        &mut self,
        peer: PeerId,
        observed: IpAddr,
        rack: Option<&str>,
        announce: &SwarmAnnounce,
    ) -> SwarmPeers {
        let image = announce.image;
        let Some(swarm) = self.swarms.get(&image) else {
            return SwarmPeers { image, peers: Vec::new(), cohort: Cohort::default() };
        };
        let want = usize::from(announce.want_peers).min(self.config.peers_handed_out_most);
        let asker = Asker {
            place: swarm.place(peer),
            kind: kind_of(announce),
            rack,
            want: if announce.leaving { 0 } else { want },
            elsewhere_percent: self.config.elsewhere_percent_least,
        };
        let picked = swarm.pool().pick(&mut self.rng, asker).into_iter();
        let addressed = picked.map(|peer| {
            let addrs = address::reachable_from(observed, &self.hosts[&peer].addrs);
            PeerAddress { peer, addrs }
        });
        SwarmPeers { image, peers: addressed.filter(|peer| !peer.addrs.is_empty()).collect(), cohort: swarm.cohort() }
    }
}

/// Who does not know how much there is, because it has no manifest yet, is a leecher.
fn kind_of(announce: &SwarmAnnounce) -> Kind {
    let complete = announce.data_chunks > 0 && announce.held_chunks >= announce.data_chunks;
    if complete { Kind::Seeder } else { Kind::Leecher }
}
