//! How the daemon shows itself to people and scripts.

use drover_protocol::id::ImageId;

use super::Daemon;
use crate::control::Problem;
use crate::control::api::{self, API_VERSION};
use crate::exchange::{Phase, TransferStatus};

impl Daemon {
    /// Everything that is in memory; nothing is read from the disk.
    pub(crate) fn status(&self) -> api::Status {
        let identity = self.identity();
        let tracker = |tracker: crate::exchange::TrackerStatus| api::Tracker {
            address: tracker.address,
            reachable: tracker.reachable,
            problem: tracker.problem,
            node_problem: tracker.node_problem,
        };
        let host = |host: crate::exchange::Connected| api::Host {
            peer: host.peer,
            name: host.name,
            addr: host.addr,
            found: host.found,
        };
        api::Status {
            v: API_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: identity.member().name.clone(),
            peer: identity.peer_id(),
            listen: vec![self.inner.listen],
            state: self.store().state().to_owned(),
            started_unix_s: self.inner.started_unix_s,
            certificate_expires_unix_s: identity.expires_unix_s(),
            trackers: self.exchange().trackers().into_iter().map(tracker).collect(),
            subscribed: self.settings().subscribe.clone(),
            transfers: self.exchange().status().iter().map(|status| self.transfer(status)).collect(),
            hosts: self.exchange().hosts().into_iter().map(host).collect(),
            known_hosts: self.exchange().known_hosts(),
            away: self.exchange().away(),
            static_peers: self.exchange().static_peers(),
            warnings: [
                self.exchange().warnings(),
                self.too_few_publishers(),
                self.stale_releases(),
                self.spoilt_masters(),
            ]
            .concat(),
            dht: self.exchange().dht(),
            unposted: self.notes().unposted().iter().map(|(name, version)| format!("{name}@{version}")).collect(),
        }
    }

    /// Whether the network carries multicast to hosts.
    pub(crate) async fn probe_multicast(&self, hosts: Vec<String>) -> Result<api::ProbedMulticast, Problem> {
        let probed = self.exchange().probe_multicast(hosts).await;
        let (names, probed) = probed.map_err(|error| Problem::failed("multicast probe", error))?;
        let hosts = names.into_iter().zip(probed.hosts);
        let hosts = hosts.map(|(host, found)| api::ProbedHost { host, text: found.to_string(), found });
        Ok(api::ProbedMulticast { rate_bytes_per_s: probed.bytes_per_s, hosts: hosts.collect() })
    }

    /// A transfer as the control socket shows it.
    pub(super) fn transfer(&self, status: &TransferStatus) -> api::Transfer {
        let (phase, reason) = match &status.phase {
            Phase::Manifest => (api::Phase::Manifest, None),
            Phase::Fetching => (api::Phase::Fetching, None),
            Phase::Paused(why) => (api::Phase::Paused, Some(why.clone())),
            Phase::Sealing => (api::Phase::Sealing, None),
            Phase::Complete => (api::Phase::Complete, None),
            Phase::Failed(why) => (api::Phase::Failed, Some(why.clone())),
        };
        let peers = status.peers.iter().map(|peer| api::Peer {
            peer: peer.peer,
            name: peer.name.clone(),
            found: peer.found,
            connected: peer.connected,
            taken_bytes: peer.taken_bytes,
            given_bytes: peer.given_bytes,
            rate_bytes_per_s: peer.rate_bytes_per_s,
        });
        // By whatever it was caught at: a wrong manifest comes before there is a swarm that could name it.
        let banned = self.exchange().banned().into_iter().map(|(peer, misdeed)| api::Banned { peer, misdeed });
        api::Transfer {
            image: status.image,
            names: self.labels_of(status.image),
            phase,
            reason,
            held_bytes: status.held_bytes,
            data_bytes: status.data_bytes,
            content_len: status.content_len.unwrap_or(0),
            wasted_bytes: status.wasted_bytes,
            given_bytes: status.given_bytes,
            taken_bytes: status.taken_bytes,
            peers: peers.collect(),
            unavailable: status.unavailable.iter().map(|range| (range.start, range.end)).collect(),
            banned: banned.collect(),
            seeders: status.cohort.seeders,
            leechers: status.cohort.leechers,
            multicast: status.multicast.clone(),
        }
    }

    pub(super) fn labels_of(&self, image: ImageId) -> Vec<String> {
        self.releases_of(image).iter().map(|release| format!("{}@{}", release.name, release.version)).collect()
    }
}
