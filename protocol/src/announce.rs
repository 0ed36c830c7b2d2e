//! What agents and trackers say to each other.
//!
//! An agent's connection to a tracker begins like one to a peer: a control stream with a `Hello` each. Every
//! [`TrackerRequest`] then has a stream of its own and is answered by one [`TrackerReply`]; only `Watch` is answered by
//! one for each release, one whenever hosts joined, left or completed swarms, and one for keys that are revoked, for as
//! long as the stream is open. Enrolment is a protocol of its own (ALPN `drover-join/1`),
//! because the joining host has no certificate yet: one stream, one [`JoinRequest`], one [`JoinReply`].

use std::collections::BTreeSet;

use core::net::SocketAddr;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::Message;
use crate::id::{ImageId, PublisherKey};
use crate::lookup::ClusterSecret;
use crate::message::{MAX_ADDRS, PeerAddress, check_peers, within};
use crate::multicast::election::{LeaseReply, LeaseRequest};
use crate::multicast::packet::SessionId;
use crate::release::{Name, SignedRelease};
use crate::revocation::{MAX_REVOKED, Revocation};

/// Most swarms in one announce.
pub const MAX_SWARMS: usize = 64;
/// Most peers handed out for one swarm.
pub const MAX_PEERS_HANDED_OUT: usize = 64;
/// Longest name of a rack or host in bytes.
pub const MAX_LABEL_LEN: usize = 64;
/// What a tracker may say about when to announce again.
const INTERVAL_LEAST: Duration = Duration::from_millis(500);
const INTERVAL_MOST: Duration = Duration::from_secs(300);
/// Most releases in one reply, and most names in a question.
pub const MAX_RELEASES: usize = 1024;
/// Longest certificate or certificate request in bytes: one with a P-256 key has some 600.
pub const MAX_CERTIFICATE_LEN: usize = 4 * 1024;
/// Most swarms whose progress is told in one reply.
pub const MAX_COHORTS: usize = 1024;
/// Most publishers that a cluster trusts.
pub const MAX_PUBLISHERS: usize = 64;
/// The first version of the protocol in which trackers tell of publishers who come and go.
pub const PUBLISHERS_SINCE: u16 = 4;
/// Longest text of a refusal in bytes.
pub const MAX_REFUSAL_LEN: usize = 1024;

/// What an agent asks a tracker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TrackerRequest {
    /// "I am here, I exchange these images; whom should I know?"
    Announce(Announce),
    /// A new release, to be kept and offered.
    Post(SignedRelease),
    /// The newest release of each of these names, or of every name if none is given.
    Releases {
        /// Which names, at most [`MAX_RELEASES`].
        names: Vec<Name>,
    },
    /// Every newest release now, and each new one as it comes; also, how far swarms are in which that changed, and which
    /// keys are revoked.
    Watch,
    /// A new certificate for the key that this connection is authenticated by.
    Renew {
        /// PKCS#10 certificate request, DER; only its key counts.
        csr: Vec<u8>,
    },
    /// A host that holds an image wants to send it by multicast, or goes on to. From version [`MULTICAST_SINCE`] on.
    ///
    /// [`MULTICAST_SINCE`]: crate::message::MULTICAST_SINCE
    Lease(LeaseRequest),
    /// It does not send it any more. From the same version on.
    EndLease {
        /// Which image.
        image: ImageId,
        /// In which session.
        session: SessionId,
    },
    /// The secret that all members of the cluster share and nobody else knows. From version
    /// [`DISCOVERY_SINCE`](crate::discovery::DISCOVERY_SINCE) on.
    Secret,
}

/// Where an agent is and what it exchanges.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Announce {
    /// Where it listens, at most [`MAX_ADDRS`] addresses. An unspecified address (0.0.0.0, ::) stands for the one that the tracker sees.
    pub listen: Vec<SocketAddr>,
    /// The rack it stands in, if its settings say so; at most [`MAX_LABEL_LEN`] bytes.
    pub rack: Option<String>,
    /// What it exchanges, at most [`MAX_SWARMS`].
    pub swarms: Vec<SwarmAnnounce>,
}

/// One image that an agent exchanges.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SwarmAnnounce {
    /// Which image.
    pub image: ImageId,
    /// Data chunks held.
    pub held_chunks: u32,
    /// Data chunks that the image has; 0 while its manifest is not known. An image of nothing but zeros is announced
    /// as 1 of 1, because 0 of 0 tells nobody that it is complete.
    pub data_chunks: u32,
    /// How many peers to hand out.
    pub want_peers: u16,
    /// It leaves this swarm: forget it.
    pub leaving: bool,
}

/// What a tracker answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TrackerReply {
    /// To an announce.
    Announced(Announced),
    /// To a post: kept, or known already.
    Posted,
    /// To a list or a watch.
    Releases(Vec<SignedRelease>),
    /// To a renewal.
    Renewed(Enrolment),
    /// Not done. The text says what, why and what to do.
    Refused(String),
    /// To a watch: swarms, at most [`MAX_COHORTS`], in which a host has joined, left or become complete.
    Cohorts(Vec<SwarmCohort>),
    /// To a wish for a lease.
    Lease(LeaseReply),
    /// To the end of a lease.
    LeaseEnded,
    /// To a question for the cluster's secret.
    Secret(ClusterSecret),
    /// To a watch: keys, at most [`MAX_REVOKED`], that are revoked; all of them at first, then those that come to be. From
    /// version [`REVOCATION_SINCE`](crate::revocation::REVOCATION_SINCE) on.
    Revoked(Vec<Revocation>),
    /// To a watch: the publishers whom this tracker trusts, at most [`MAX_PUBLISHERS`]; at first, and whenever that changes. From
    /// version [`PUBLISHERS_SINCE`] on.
    Publishers(Vec<PublisherKey>),
}

/// How far one swarm is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SwarmCohort {
    /// Which image.
    pub image: ImageId,
    /// How far all of its hosts are.
    pub cohort: Cohort,
}

/// What a tracker knows about the swarms that an agent announced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Announced {
    /// When to announce again, in milliseconds.
    pub interval_ms: u32,
    /// For each swarm of the announce, in its order.
    pub swarms: Vec<SwarmPeers>,
}

/// What a tracker knows about one swarm.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SwarmPeers {
    /// Which image.
    pub image: ImageId,
    /// Peers to try, at most [`MAX_PEERS_HANDED_OUT`].
    pub peers: Vec<PeerAddress>,
    /// How far all of them are.
    pub cohort: Cohort,
}

/// How far the hosts of one swarm are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cohort {
    /// Hosts that hold everything.
    pub seeders: u32,
    /// Hosts that do not yet.
    pub leechers: u32,
    /// The share of all data chunks that all hosts together hold, in thousandths.
    pub held_permille: u16,
}

/// The first frame of a host that wants to join.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret of the one-use token.
    pub token: [u8; 16],
    /// PKCS#10 certificate request, DER; only its key counts.
    pub csr: Vec<u8>,
    /// What the host wants to be called, at most [`MAX_LABEL_LEN`] bytes of `[a-z0-9._-]`.
    pub host: String,
    /// Set by a host that joins with a publisher's token: the key that it will sign releases with.
    pub publisher: Option<PublisherKey>,
}

/// The tracker's answer to a host that wants to join.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum JoinReply {
    /// Welcome.
    Joined(Enrolment),
    /// Not done. The text says what, why and what to do.
    Refused(String),
}

/// What a member of a cluster gets from its CA.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Enrolment {
    /// The host's certificate, DER.
    pub certificate: Vec<u8>,
    /// The CA's certificate, DER.
    pub ca: Vec<u8>,
    /// Keys of the publishers that the cluster trusts.
    pub publishers: Vec<PublisherKey>,
}

impl Message for TrackerRequest {
    const MAX_LEN: usize = 128 * 1024;
    const NAME: &'static str = "tracker request";

    fn check(&self) -> Result<(), &'static str> {
        match self {
            TrackerRequest::Announce(announce) => {
                within(announce.listen.len(), MAX_ADDRS, "too many addresses")?;
                within(announce.rack.as_ref().map_or(0, String::len), MAX_LABEL_LEN, "a rack's name that is too long")?;
                within(announce.swarms.len(), MAX_SWARMS, "too many swarms")
            }
            TrackerRequest::Post(release) => release.check(),
            TrackerRequest::Releases { names } => within(names.len(), MAX_RELEASES, "too many names"),
            TrackerRequest::Watch | TrackerRequest::Secret => Ok(()),
            TrackerRequest::Renew { csr } => within(csr.len(), MAX_CERTIFICATE_LEN, "a request that is too long"),
            TrackerRequest::Lease(request) => request.check(),
            TrackerRequest::EndLease { .. } => Ok(()),
        }
    }
}

impl Announced {
    /// When to announce again: whatever the tracker says, neither all the time nor never again.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.into()).clamp(INTERVAL_LEAST, INTERVAL_MOST)
    }

    /// What is said of those swarms that were announced, of each once: so a tracker names at most
    /// [`MAX_PEERS_HANDED_OUT`] peers for each of them.
    pub fn of_announced(self, announced: &[SwarmAnnounce]) -> Vec<SwarmPeers> {
        let staying = announced.iter().filter(|swarm| !swarm.leaving);
        let mut asked: BTreeSet<ImageId> = staying.map(|swarm| swarm.image).collect();
        self.swarms.into_iter().filter(|swarm| asked.remove(&swarm.image)).collect()
    }
}

impl Message for TrackerReply {
    /// 64 swarms of 64 peers with two IPv6 addresses each, or 1,024 releases of 768 bytes.
    const MAX_LEN: usize = 1024 * 1024;
    const NAME: &'static str = "tracker reply";

    fn check(&self) -> Result<(), &'static str> {
        match self {
            TrackerReply::Announced(announced) => {
                within(announced.swarms.len(), MAX_SWARMS, "too many swarms")?;
                announced.swarms.iter().try_for_each(|swarm| check_peers(&swarm.peers, MAX_PEERS_HANDED_OUT))
            }
            TrackerReply::Posted | TrackerReply::Lease(_) | TrackerReply::LeaseEnded | TrackerReply::Secret(_) => {
                Ok(())
            }
            TrackerReply::Releases(releases) => {
                within(releases.len(), MAX_RELEASES, "too many releases")?;
                releases.iter().try_for_each(Message::check)
            }
            TrackerReply::Renewed(enrolment) => enrolment.check(),
            TrackerReply::Refused(why) => within(why.len(), MAX_REFUSAL_LEN, "a refusal that is too long"),
            TrackerReply::Cohorts(cohorts) => within(cohorts.len(), MAX_COHORTS, "too many swarms"),
            TrackerReply::Revoked(revocations) => within(revocations.len(), MAX_REVOKED, "too many revoked keys"),
            TrackerReply::Publishers(publishers) => within(publishers.len(), MAX_PUBLISHERS, "too many publishers"),
        }
    }
}

impl Message for JoinRequest {
    const MAX_LEN: usize = 8 * 1024;
    const NAME: &'static str = "join request";

    fn check(&self) -> Result<(), &'static str> {
        within(self.csr.len(), MAX_CERTIFICATE_LEN, "a certificate request that is too long")?;
        within(self.host.len(), MAX_LABEL_LEN, "a host's name that is too long")
    }
}

impl Message for JoinReply {
    const MAX_LEN: usize = 64 * 1024;
    const NAME: &'static str = "join reply";

    fn check(&self) -> Result<(), &'static str> {
        match self {
            JoinReply::Joined(enrolment) => enrolment.check(),
            JoinReply::Refused(why) => within(why.len(), MAX_REFUSAL_LEN, "a refusal that is too long"),
        }
    }
}

impl Enrolment {
    fn check(&self) -> Result<(), &'static str> {
        within(self.certificate.len(), MAX_CERTIFICATE_LEN, "a certificate that is too long")?;
        within(self.ca.len(), MAX_CERTIFICATE_LEN, "a CA certificate that is too long")?;
        within(self.publishers.len(), MAX_PUBLISHERS, "too many publishers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_is_heard_on_each_swarm_once_and_on_none_that_was_not_announced() {
        let image = |number: u8| ImageId::from_bytes([number; 32]);
        let announced = |number: u8, leaving: bool| SwarmAnnounce {
            image: image(number),
            held_chunks: 0,
            data_chunks: 0,
            want_peers: 50,
            leaving,
        };
        let about = |number: u8| SwarmPeers { image: image(number), peers: Vec::new(), cohort: Cohort::default() };
        let answer = |interval_ms| Announced { interval_ms, swarms: [1, 2, 1, 3, 9, 1].map(about).to_vec() };
        let heard = answer(0).of_announced(&[announced(1, false), announced(2, false), announced(3, true)]);
        assert_eq!(heard, [about(1), about(2)]);
        let intervals = [0, 3000, u32::MAX].map(|interval_ms| answer(interval_ms).interval());
        assert_eq!(intervals, [INTERVAL_LEAST, Duration::from_secs(3), INTERVAL_MOST]);
    }
}
