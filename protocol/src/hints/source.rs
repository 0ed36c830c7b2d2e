//! Who told of a peer: so that each source is judged by what its names led to, and an administrator can be told.

use serde::{Deserialize, Serialize};

use crate::id::PeerId;

/// How a peer, or an address, came to be known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by", content = "from")]
pub enum Source {
    /// The tracker of this number, in the order of the settings from 0 on, named it.
    Tracker(u16),
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
            Source::Tracker(_) => "by a tracker",
            Source::PeerExchange(_) => "by other hosts",
            Source::Remembered => "remembered",
            Source::Static => "by the settings",
            Source::Dht => "in the DHT",
            Source::DialledHere => "dialled this host",
        }
    }
}
