//! Where this host learnt of a peer, so that an administrator can be told.

use drover_protocol::id::PeerId;
use serde::{Deserialize, Serialize};

/// How an address came to be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by", content = "from")]
pub enum Source {
    /// A tracker named it.
    Tracker,
    /// This peer named it.
    PeerExchange(PeerId),
    /// This host was connected with it before its last restart.
    Remembered,
    /// The setting `peers` names it.
    Static,
    /// It stood in the cluster's distributed hash table.
    Dht,
    /// The peer dialled this host.
    DialledHere,
}

impl Source {
    /// In a few words, as people see it.
    pub const fn word(self) -> &'static str {
        match self {
            Source::Tracker => "by a tracker",
            Source::PeerExchange(_) => "by other hosts",
            Source::Remembered => "remembered",
            Source::Static => "by the settings",
            Source::Dht => "in the DHT",
            Source::DialledHere => "dialled this host",
        }
    }
}
