//! What agents tell each other so that a fleet holds together without a tracker: who else is there, who exchanges an
//! image, which releases are out.
//!
//! All of it is hints. A host that was named has to prove itself by its certificate when it is dialled, and a release
//! is verified as if a tracker had told it. A side of a version before [`DISCOVERY_SINCE`] is told none of this: it
//! would take it for malformed.

use serde::{Deserialize, Serialize};

use crate::codec::Message;
use crate::id::ImageId;
use crate::message::{MAX_PEERS, PeerAddress, check_peers, within};
use crate::release::SignedRelease;

/// The first version of the protocol that knows these messages.
pub const DISCOVERY_SINCE: u16 = 2;
/// Most releases in one message; more are told in several.
pub const MAX_RELEASES_TOLD: usize = 64;

/// What is said about hosts, images and releases at large.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DiscoveryMessage {
    /// "Who exchanges this image?" Answered by a list of peers, which may be empty, by a host that exchanges it itself.
    AskPeers {
        /// Which image.
        image: ImageId,
    },
    /// "Which hosts of the cluster do you know?" Answered by `Hosts`.
    AskHosts,
    /// Some hosts of the cluster, whatever they exchange.
    Hosts {
        /// Who, at most [`MAX_PEERS`].
        peers: Vec<PeerAddress>,
    },
    /// Newest releases of some names: when a connection begins, and each new one as it becomes known.
    Releases {
        /// Which, at most [`MAX_RELEASES_TOLD`].
        releases: Vec<SignedRelease>,
    },
}

impl DiscoveryMessage {
    /// Whether every list in it keeps its bound.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self {
            DiscoveryMessage::AskPeers { .. } | DiscoveryMessage::AskHosts => Ok(()),
            DiscoveryMessage::Hosts { peers } => check_peers(peers, MAX_PEERS),
            DiscoveryMessage::Releases { releases } => {
                within(releases.len(), MAX_RELEASES_TOLD, "too many releases")?;
                releases.iter().try_for_each(Message::check)
            }
        }
    }
}
