//! One host: the real swarm machine while it runs, what is on its disk, and what it counts.

use core::ops::Range;

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
    /// What is on its disk, while it does not run; else the swarm knows.
    pub(crate) stored: Option<ChunkSet>,
    /// Which life it lives: what belongs to an earlier one is void.
    pub(crate) life: u32,
    /// For when its timer is set.
    pub(crate) armed: Option<Instant>,
    /// Hosts that it is connected with, by number.
    pub(crate) links: Vec<Link>,
    /// Its requests, until they end: some ten.
    pub(crate) requests: Vec<RequestId>,
    /// What it was asked for: some ten.
    pub(crate) serves: Vec<Serve>,
    /// When it was complete for the first time.
    pub(crate) completed_at: Option<Instant>,
    /// Bytes of messages that it sent and that no flow has carried yet.
    pub(crate) unsent_control: u64,
    /// Counted in bytes.
    pub(crate) counts: Counts,
}

/// A connection, as one end sees it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) host: u32,
    /// How much of the other's log was heard here.
    pub(crate) heard: u32,
}

/// What was asked of a host, from the question until the last byte has left.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) id: ServeId,
    pub(crate) to: usize,
    /// The life in which `to` asked.
    pub(crate) to_life: u32,
    pub(crate) request: RequestId,
    /// Numbers of the chunks that have not left yet.
    pub(crate) chunks: Vec<Range<u32>>,
    /// Bytes of chunks that have left entirely.
    pub(crate) left_bytes: u64,
    /// Bytes of messages that leave before them.
    pub(crate) control: u64,
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
    /// Messages that left this host.
    pub(crate) control: u64,
    /// Came from another rack, whether of use or not.
    pub(crate) from_other_racks: u64,
}

impl Host {
    pub(crate) fn new(stored: ChunkSet) -> Self {
        Host {
            swarm: None,
            stored: Some(stored),
            life: 0,
            armed: None,
            links: Vec::new(),
            requests: Vec::new(),
            serves: Vec::new(),
            completed_at: None,
            unsent_control: 0,
            counts: Counts::default(),
        }
    }

    /// Ends this life: all that is not on disk is gone. Gives the flows that it was sending.
    pub(crate) fn die(&mut self) -> Vec<FlowId> {
        self.stored = self.swarm.take().map(|swarm| swarm.held().clone());
        self.life += 1;
        self.armed = None;
        self.links.clear();
        self.requests.clear();
        self.unsent_control = 0;
        std::mem::take(&mut self.serves).into_iter().filter_map(|serve| serve.flow).collect()
    }

    /// It is connected with another, whose log it needs to hear from `heard` on.
    pub(crate) fn connect(&mut self, host: usize, heard: u32) {
        let link = Link { host: host as u32, heard };
        match self.place_of(host) {
            Ok(at) => self.links[at] = link,
            Err(at) => self.links.insert(at, link),
        }
    }

    /// It is not connected with another any more; says whether it was.
    pub(crate) fn disconnect(&mut self, host: usize) -> bool {
        self.place_of(host).map(|at| self.links.remove(at)).is_ok()
    }

    /// Whether it is connected with another.
    pub(crate) fn is_connected(&self, host: usize) -> bool {
        self.place_of(host).is_ok()
    }

    /// Forgets a request; says whether it was one.
    pub(crate) fn end_request(&mut self, request: RequestId) -> bool {
        let at = self.requests.iter().position(|&other| other == request);
        at.map(|at| self.requests.swap_remove(at)).is_some()
    }

    /// What it was asked for under this name.
    pub(crate) fn serve(&mut self, id: ServeId) -> Option<&mut Serve> {
        self.serves.iter_mut().find(|serve| serve.id == id)
    }

    /// Forgets what it was asked for under this name.
    pub(crate) fn end_serve(&mut self, id: ServeId) -> Option<Serve> {
        let at = self.serves.iter().position(|serve| serve.id == id)?;
        Some(self.serves.swap_remove(at))
    }

    fn place_of(&self, host: usize) -> Result<usize, usize> {
        self.links.binary_search_by_key(&(host as u32), |link| link.host)
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
