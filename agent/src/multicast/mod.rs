//! Multicast on real sockets: the drivers of `drover_protocol::multicast`.
//!
//! A session takes part in one direction: `sending` owns a `Sender`, `receiving` a `Receiver`, each on a thread of its own,
//! because packets come and go by the hundred in the time that a busy runtime needs to come round. The image's driver starts them,
//! passes on what peers say, and hears of them by its inbox. What arrives goes the way of every chunk from `Manifest::verify` on.
//!
//! [`probe`] finds out for an administrator whether a network is fit. `interface` knows what the network cards are, `socket` joins
//! groups and moves batches, `mailbox` wakes a thread that waits for a socket.

pub(crate) mod interface;
pub(crate) mod mailbox;
pub mod probe;
pub(crate) mod receiving;
pub(crate) mod sending;
pub(crate) mod socket;

use drover_protocol::multicast::choice::Mode;
use drover_protocol::multicast::group::GroupRange;
use drover_protocol::multicast::packet::SessionKey;

/// How a host takes part in multicast.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MulticastSettings {
    /// Whether.
    pub mode: Mode,
    /// Groups and ports of the sessions that it begins.
    pub groups: GroupRange,
    /// The interface; found by the routing table if none is named.
    pub interface: Option<String>,
    /// Most bytes per second that it sends.
    pub limit: Option<u64>,
}

/// A key for one session or probe.
pub(crate) fn new_key() -> SessionKey {
    let mut key = [0; 32];
    getrandom::fill(&mut key).expect("the system gives random numbers once it has booted");
    SessionKey::from_bytes(key)
}
