//! How a transfer stands, for people and scripts.

use core::net::SocketAddr;
use core::ops::Range;

use drover_protocol::announce::Cohort;
use drover_protocol::hints::Source;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::multicast::choice::Mode;
use serde::{Deserialize, Serialize};

/// How the exchange of one image stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TransferStatus {
    /// Which image.
    pub image: ImageId,
    /// What is being done.
    pub phase: Phase,
    /// Length of the image in bytes, once its manifest is known.
    pub content_len: Option<u64>,
    /// Bytes that are not zeros and held here.
    pub held_bytes: u64,
    /// Bytes that are not zeros; 0 while the manifest is not known.
    pub data_bytes: u64,
    /// Bytes that peers gave this host, since the exchange began.
    pub taken_bytes: u64,
    /// Bytes that this host gave to peers, since the exchange began.
    pub given_bytes: u64,
    /// Bytes that came twice or for nothing.
    pub wasted_bytes: u64,
    /// The sum of what peers give now, in bytes per second.
    pub rate_bytes_per_s: u64,
    /// What was exchanged with whom.
    pub peers: Vec<PeerExchange>,
    /// The parts of the image, as ranges of bytes, that are missing here and held by no connected peer.
    pub unavailable: Vec<Range<u64>>,
    /// Peers that were banned for what they did to this image.
    pub banned: Vec<Banned>,
    /// How multicast of this image stands here.
    #[serde(default)]
    pub multicast: MulticastStatus,
    /// How far all hosts are, as far as a tracker has said.
    pub cohort: Cohort,
    /// Trackers that can be reached now.
    pub trackers_reachable: u32,
    /// When the exchange began in this process, in seconds since 1970 (UTC).
    pub started_unix_s: u64,
    /// When it became complete or failed, in seconds since 1970 (UTC).
    pub ended_unix_s: Option<u64>,
}

/// What is being done for an image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase", content = "why")]
pub enum Phase {
    /// Looking for peers and for the manifest.
    Manifest,
    /// Fetching what is missing.
    Fetching,
    /// Fetching waits for something that a person may have to do; it goes on by itself.
    Paused(String),
    /// Everything is there; making it durable and unchangeable.
    Sealing,
    /// Everything is there and sealed; it is offered to others.
    Complete,
    /// Given up, for this reason.
    Failed(String),
}

/// What was exchanged with one peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerExchange {
    /// Who.
    pub peer: PeerId,
    /// Its name, once it was connected.
    pub name: Option<String>,
    /// How it was found, once it was connected.
    #[serde(default)]
    pub found: Option<Source>,
    /// Whether it is a neighbour now.
    pub connected: bool,
    /// The share of the image's pieces that it says it holds, in thousandths.
    pub held_permille: u16,
    /// Bytes that it gave us.
    pub taken_bytes: u64,
    /// Bytes that we gave it.
    pub given_bytes: u64,
    /// Its rate to us, in bytes per second.
    pub rate_bytes_per_s: u64,
}

/// How multicast of one image stands on this host. Counts are of the session that is, or was last.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MulticastStatus {
    /// What the settings say.
    pub mode: Mode,
    /// What this host does.
    pub role: MulticastRole,
    /// Why nothing is sent or heard.
    pub why_not: Option<String>,
    /// Bytes per second that the sender sends now, headers included; 0 at a receiver.
    pub rate_bytes_per_s: u64,
    /// Packets lost, in millionths of those sent: at a sender what counts, at a receiver its own.
    pub loss_ppm: u32,
    /// Parity symbols of a block, at the sender.
    pub parity: u8,
    /// Hosts that take part, at the sender.
    pub members: u64,
    /// Packets sent, or heard.
    pub packets: u64,
    /// Packets of repair sent, or packets heard that were of no use.
    pub surplus_packets: u64,
    /// Packets that found no room in this host's socket.
    pub dropped_packets: u64,
    /// Bytes that multicast brought here.
    pub brought_bytes: u64,
    /// Blocks that were not what the manifest says.
    pub rejected_blocks: u32,
}

/// What a host does in a multicast session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MulticastRole {
    /// Nothing.
    #[default]
    None,
    /// It sends.
    Sending,
    /// It listens.
    Receiving,
}

/// A host that this one is connected with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connected {
    /// Who.
    pub peer: PeerId,
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub addr: SocketAddr,
    /// How it was found.
    pub found: Option<Source>,
}

/// A peer that is not let in again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Banned {
    /// Who.
    pub peer: PeerId,
    /// What it did.
    pub misdeed: String,
}

impl Phase {
    /// Whether nothing more will change by itself.
    pub const fn is_final(&self) -> bool {
        matches!(self, Phase::Complete | Phase::Failed(_))
    }
}

impl TransferStatus {
    /// Of an image of which nothing is known yet.
    pub(crate) fn unknown(image: ImageId, now_unix_s: u64) -> Self {
        TransferStatus {
            image,
            phase: Phase::Manifest,
            content_len: None,
            held_bytes: 0,
            data_bytes: 0,
            taken_bytes: 0,
            given_bytes: 0,
            wasted_bytes: 0,
            rate_bytes_per_s: 0,
            peers: Vec::new(),
            unavailable: Vec::new(),
            banned: Vec::new(),
            multicast: MulticastStatus::default(),
            cohort: Cohort::default(),
            trackers_reachable: 0,
            started_unix_s: now_unix_s,
            ended_unix_s: None,
        }
    }
}
