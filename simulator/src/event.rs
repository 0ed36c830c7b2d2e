//! What is still to happen in the made-up world.

use core::ops::Range;
use core::time::Duration;

use drover_protocol::message::SwarmMessage;
use drover_protocol::swarm::{RequestEnd, RequestId};

/// What happens to a host, to the tracker, or between two hosts, at some time.
///
/// Hosts are named by their numbers. A host's `life` counts its deaths: what was meant for an earlier life is void.
#[derive(Debug)]
pub(crate) enum Event {
    Arrive {
        host: usize,
    },
    Die {
        host: usize,
    },
    TrackerDies,
    TrackerIsBack,
    Timer {
        host: usize,
        life: u32,
    },
    Announce {
        host: usize,
        life: u32,
    },
    /// What the tracker answered.
    Told {
        host: usize,
        life: u32,
        peers: Box<[u32]>,
        again: Duration,
    },
    Dialled {
        from: usize,
        from_life: u32,
        to: usize,
    },
    Say {
        from: usize,
        from_life: u32,
        to: usize,
        to_life: u32,
        message: Box<SwarmMessage>,
    },
    /// What a host said that it holds comes to its neighbours, up to this length of its log.
    News {
        host: usize,
        life: u32,
        len: u32,
    },
    Peers {
        from: usize,
        to: usize,
        life: u32,
        about: Box<[u32]>,
    },
    Ask {
        from: usize,
        from_life: u32,
        to: usize,
        request: RequestId,
        piece: u32,
        chunks: Vec<Range<u32>>,
    },
    Cancel {
        from: usize,
        from_life: u32,
        to: usize,
        request: RequestId,
    },
    /// Chunks that left `from` have come; `is_done` if they were the request's last.
    Arrived {
        from: usize,
        to: usize,
        life: u32,
        request: RequestId,
        chunks: Vec<Range<u32>>,
        is_done: bool,
    },
    Refused {
        to: usize,
        life: u32,
        request: RequestId,
        end: RequestEnd,
    },
    /// The connection with a peer turns out to be dead.
    Lost {
        host: usize,
        life: u32,
        peer: usize,
    },
}
