//! What agents say to each other.
//!
//! A connection has one control stream, on which each side first sends a [`Hello`] and then [`PeerMessage`]s, each as a
//! frame of `codec`. Bytes of masters travel on streams of their own: the asking side sends a [`DataRequest`], the other
//! answers with a [`DataReply`] and, if that accepts, with the bytes and nothing more. Who resets or stops such a stream
//! cancels the request.
//!
//! Numbers of pieces and pages are plain here; they become indices only through the image's geometry.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::announce::MAX_LABEL_LEN;
use crate::codec::Message;
use crate::discovery::DiscoveryMessage;
use crate::have::{WireDelta, WireHave};
use crate::id::{ImageId, PeerId};
use crate::multicast::message::MulticastMessage;
use crate::multicast::probe::ProbeMessage;
use crate::parts::WireParts;
use crate::planted::{Bug, is_planted};

/// The versions of the protocol that this code speaks: lowest and highest.
pub const PROTOCOL_VERSIONS: (u16, u16) = (1, 4);
/// The first version that knows of multicast. Nothing of it is said to a side of an older one, which would take it for
/// malformed.
pub const MULTICAST_SINCE: u16 = 2;
/// Most ranges in one request.
pub const MAX_RANGES: usize = 256;
/// Most peers in one list.
pub const MAX_PEERS: usize = 64;
/// Most addresses of one peer.
pub const MAX_ADDRS: usize = 8;
/// Longest name of a program in a hello, in bytes.
pub const MAX_AGENT_LEN: usize = 64;

/// The first frame on a control stream, in both directions. Its form never changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest version of the protocol that the sender speaks.
    pub lowest: u16,
    /// Highest version of the protocol that the sender speaks.
    pub highest: u16,
    /// Name and version of the program, for logs: at most [`MAX_AGENT_LEN`] bytes.
    pub agent: String,
}

/// The two sides have no version in common.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no common protocol version: {agent:?} speaks {lowest} to {highest}, this host {} to {}; update the older of the two",
    PROTOCOL_VERSIONS.0,
    PROTOCOL_VERSIONS.1
)]
pub struct VersionError {
    /// What the other side called itself.
    pub agent: String,
    /// Lowest version that the other side speaks.
    pub lowest: u16,
    /// Highest version that the other side speaks.
    pub highest: u16,
}

/// What follows the hello on a control stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PeerMessage {
    /// About the exchange of one image.
    Swarm {
        /// Which image.
        image: ImageId,
        /// What about it.
        message: SwarmMessage,
    },
    /// Other hosts that exchange an image: hints, nothing more.
    Peers {
        /// Which image.
        image: ImageId,
        /// Who, at most [`MAX_PEERS`].
        peers: Vec<PeerAddress>,
    },
    /// About a multicast session of one image.
    Multicast {
        /// Which image.
        image: ImageId,
        /// What about it.
        message: MulticastMessage,
    },
    /// About a probe of the network for multicast. From version [`MULTICAST_SINCE`] on.
    Probe(ProbeMessage),
    /// About hosts, images and releases at large. From version [`DISCOVERY_SINCE`](crate::discovery::DISCOVERY_SINCE) on.
    Discovery(DiscoveryMessage),
}

/// What neighbours in a swarm tell each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SwarmMessage {
    /// "I exchange this image and hold these pieces; tell me yours." Answered by `Have` or `Leave`.
    Join {
        /// All pieces held.
        have: WireHave,
    },
    /// All pieces held: the answer to `Join`, or a correction that takes pieces back.
    Have {
        /// All pieces held.
        have: WireHave,
    },
    /// Pieces that came to be held since the last message.
    HaveDelta {
        /// Which.
        delta: WireDelta,
    },
    /// "Do not count on me for this image any more."
    Leave {
        /// Why.
        reason: LeaveReason,
    },
    /// Chunks held of pieces that are not held whole. It replaces the `Partial` before; `Join` and `Have` take it back,
    /// and so does an announcement of the piece for that piece. Only for a sender that can't go on, or to one.
    Partial {
        /// Whether the sender lacks something that it can ask of nobody: it is to be told such parts, too.
        is_stuck: bool,
        /// Which chunks.
        parts: WireParts,
    },
    /// "I stand in this rack." Said after `Join`, and after the `Have` that answers one, by who knows its rack.
    Rack {
        /// Its name, at most [`MAX_LABEL_LEN`] bytes.
        rack: String,
    },
    /// Pieces that the sender is bringing into its rack: others in the rack will have them from there. It replaces the
    /// `Importing` before.
    Importing {
        /// Which.
        pieces: WireDelta,
    },
}

/// Why a neighbour leaves or is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LeaveReason {
    /// It has as many neighbours as it wants.
    Full,
    /// It does not exchange this image (any more).
    NotHere,
    /// It chose better neighbours.
    Useless,
    /// It caught this side sending wrong bytes.
    Banned,
}

/// Where a peer may be reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerAddress {
    /// Who.
    pub peer: PeerId,
    /// Where, at most [`MAX_ADDRS`].
    pub addrs: Vec<SocketAddr>,
}

/// The first frame on a data stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DataRequest {
    /// The manifest of an image.
    Manifest {
        /// Which image.
        image: ImageId,
    },
    /// Parts of a piece.
    Pages {
        /// Which image.
        image: ImageId,
        /// Number of the piece.
        piece: u32,
        /// Ranges in it, rising and apart, at most [`MAX_RANGES`].
        ranges: Vec<PageRange>,
    },
}

/// Pages of a piece. Today always whole chunks: `first` and `count` are multiples of 16, but that the image's last
/// chunk ends with its last page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PageRange {
    /// First page, counted from the piece's start, in units of `PAGE_LEN`.
    pub first: u32,
    /// How many pages.
    pub count: u32,
}

/// The first frame of the answer on a data stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DataReply {
    /// The bytes follow, in the order of the request.
    Accepted {
        /// How many, in bytes.
        len: u64,
    },
    /// No upload slot is free; ask elsewhere, or here again later.
    Busy {
        /// When asking here again makes sense, in milliseconds.
        retry_after_ms: u32,
        /// A piece that this host would rather hand out now: one that it has not handed out yet.
        instead: Option<u32>,
    },
    /// Not held here.
    NotHeld,
}

impl Hello {
    /// What this code says of itself.
    pub fn ours(agent: &str) -> Self {
        let agent = agent[..agent.floor_char_boundary(MAX_AGENT_LEN)].to_owned();
        Hello { lowest: PROTOCOL_VERSIONS.0, highest: PROTOCOL_VERSIONS.1, agent }
    }

    /// The version to speak with the sender of this hello: the highest that both know.
    pub fn agree(&self) -> Result<u16, VersionError> {
        let version = self.highest.min(PROTOCOL_VERSIONS.1);
        if version >= self.lowest.max(PROTOCOL_VERSIONS.0) || is_planted(Bug::IgnoreVersions) {
            return Ok(version);
        }
        let agent = self.agent.chars().filter(|c| !c.is_control()).take(64).collect();
        Err(VersionError { agent, lowest: self.lowest, highest: self.highest })
    }
}

impl Message for Hello {
    const MAX_LEN: usize = 512;
    const NAME: &'static str = "hello";

    fn check(&self) -> Result<(), &'static str> {
        within(self.agent.len(), MAX_AGENT_LEN, "a name of the program that is too long")
    }
}

impl Message for PeerMessage {
    /// A full set of 65,536 pieces is 8 KiB; a list of 64 peers with 8 addresses each about 14 KiB;
    /// the largest parts are 52 KiB.
    const MAX_LEN: usize = 64 * 1024;
    const NAME: &'static str = "peer message";

    fn check(&self) -> Result<(), &'static str> {
        match self {
            PeerMessage::Peers { peers, .. } => check_peers(peers, MAX_PEERS),
            PeerMessage::Swarm { message: SwarmMessage::Partial { parts, .. }, .. } => parts.check(),
            PeerMessage::Swarm { message: SwarmMessage::Rack { rack }, .. } => {
                within(rack.len(), MAX_LABEL_LEN, "a rack's name that is too long")
            }
            PeerMessage::Multicast { message, .. } => message.check(),
            PeerMessage::Probe(message) => message.check(),
            PeerMessage::Discovery(message) => message.check(),
            // Sets and deltas are checked against their image's geometry when they are read.
            PeerMessage::Swarm { .. } => Ok(()),
        }
    }
}

impl Message for DataRequest {
    const MAX_LEN: usize = 4 * 1024;
    const NAME: &'static str = "data request";

    fn check(&self) -> Result<(), &'static str> {
        match self {
            DataRequest::Manifest { .. } => Ok(()),
            DataRequest::Pages { ranges, .. } => within(ranges.len(), MAX_RANGES, "too many ranges"),
        }
    }
}

impl Message for DataReply {
    const MAX_LEN: usize = 64;
    const NAME: &'static str = "data reply";
}

/// Whether a list of peers keeps its bounds: `most` of them, each with at most [`MAX_ADDRS`] addresses.
pub(crate) fn check_peers(peers: &[PeerAddress], most: usize) -> Result<(), &'static str> {
    within(peers.len(), most, "too many peers")?;
    peers.iter().try_for_each(|peer| within(peer.addrs.len(), MAX_ADDRS, "too many addresses of a peer"))
}

/// `Ok` if `len` is at most `most`, else what is wrong.
pub(crate) fn within(len: usize, most: usize, what: &'static str) -> Result<(), &'static str> {
    if len <= most { Ok(()) } else { Err(what) }
}
