//! One host: the real swarm machine while it runs, what is on its disk, and what it counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use drover_protocol::have::ChunkSet;
use drover_protocol::id::PeerId;
use drover_protocol::swarm::{RequestId, ServeId, Swarm};
use drover_protocol::time::Instant;

use crate::fabric::FlowId;

/// A host of the simulation.
#[derive(Debug)]
pub(crate) struct Host {
    /// While it runs.
    pub(crate) swarm: Option<Swarm>,
    /// What is on its disk: outlives the swarm.
    pub(crate) stored: ChunkSet,
    /// Which life it lives: what belongs to an earlier one is void.
    pub(crate) life: u32,
    /// For when its timer is set.
    pub(crate) armed: Option<Instant>,
    /// Hosts that it is connected with.
    pub(crate) connected: BTreeSet<usize>,
    /// Its requests, until they end.
    pub(crate) requests: BTreeSet<RequestId>,
    /// What it was asked for.
    pub(crate) serves: BTreeMap<ServeId, Serve>,
    /// When it was complete for the first time.
    pub(crate) completed_at: Option<Instant>,
    /// Counted in bytes.
    pub(crate) counts: Counts,
}

/// What was asked of a host, from the question until the last byte has left.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) to: usize,
    /// The life in which `to` asked.
    pub(crate) to_life: u32,
    pub(crate) request: RequestId,
    /// Numbers of the chunks that have not left yet.
    pub(crate) chunks: VecDeque<u32>,
    /// Bytes of chunks that have left entirely.
    pub(crate) left_bytes: u64,
    /// While bytes leave.
    pub(crate) flow: Option<FlowId>,
}

/// Bytes that came and went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    /// Left this host.
    pub(crate) sent: u64,
    /// Came and were stored: from the publisher.
    pub(crate) from_publisher: u64,
    /// Came and were stored: from others.
    pub(crate) from_peers: u64,
    /// Came and were of no use.
    pub(crate) wasted: u64,
    /// Came from another rack, whether of use or not.
    pub(crate) from_other_racks: u64,
}

impl Host {
    pub(crate) fn new(stored: ChunkSet) -> Self {
        Host {
            swarm: None,
            stored,
            life: 0,
            armed: None,
            connected: BTreeSet::new(),
            requests: BTreeSet::new(),
            serves: BTreeMap::new(),
            completed_at: None,
            counts: Counts::default(),
        }
    }

    /// Ends this life: all that is not on disk is gone. Gives the flows that it was sending.
    pub(crate) fn die(&mut self) -> Vec<FlowId> {
        self.swarm = None;
        self.life += 1;
        self.armed = None;
        self.connected.clear();
        self.requests.clear();
        std::mem::take(&mut self.serves).into_values().filter_map(|serve| serve.flow).collect()
    }
}

/// Who the host of this number is.
pub(crate) fn peer_id(host: usize) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(host as u64).to_be_bytes());
    PeerId::from_bytes(bytes)
}

/// Which host this is.
pub(crate) fn host_of(peer: PeerId) -> usize {
    let (number, _) = peer.as_bytes().split_first_chunk().expect("an id is longer than a number");
    u64::from_be_bytes(*number) as usize
}
