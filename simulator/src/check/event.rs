//! What is still to happen in a bad day.
//!
//! Hosts are named by their numbers. A host's `life` counts its starts: what was meant for an earlier life is void.

use core::net::SocketAddr;
use core::ops::Range;

use drover_durability::CheckpointError;
use drover_protocol::announce::Announced;
use drover_protocol::swarm::{RequestEnd, RequestId, ServeId};

use super::plan::Trouble;
use super::token::Token;
use super::work::SealResult;

/// What happens next.
#[derive(Debug)]
pub(super) enum Event {
    Trouble(Trouble),
    /// A host gets power.
    Start {
        host: usize,
    },
    Timer {
        host: usize,
        life: u32,
    },
    Announce {
        host: usize,
        life: u32,
        tracker: u16,
    },
    /// What a tracker answered.
    Told {
        host: usize,
        life: u32,
        tracker: u16,
        announced: Announced,
    },
    /// It is looked whether the hash table is to be asked.
    LookUp {
        host: usize,
        life: u32,
    },
    /// What it answered.
    Found {
        host: usize,
        life: u32,
        found: Vec<SocketAddr>,
    },
    /// One of those addresses was dialled.
    Knocked {
        host: usize,
        life: u32,
        addr: SocketAddr,
    },
    /// A host asks somebody for the manifest.
    Seek {
        host: usize,
        life: u32,
    },
    Manifest {
        host: usize,
        life: u32,
        from: usize,
        /// `None` if it does not have it.
        bytes: Option<Vec<u8>>,
    },
    Release {
        host: usize,
        number: usize,
    },
    /// A dial goes on to the next address.
    Dial {
        from: usize,
        life: u32,
        to: usize,
        dial: u64,
        step: u32,
    },
    /// What became of one address is known.
    Dialled {
        from: usize,
        life: u32,
        to: usize,
        dial: u64,
        addr: SocketAddr,
    },
    /// A frame on a control stream.
    Heard {
        link: usize,
        at: usize,
        frame: Vec<u8>,
    },
    Asked {
        link: usize,
        at: usize,
        request: RequestId,
        piece: u32,
        chunks: Vec<Range<u32>>,
    },
    Cancelled {
        link: usize,
        at: usize,
        request: RequestId,
    },
    Answered {
        link: usize,
        at: usize,
        request: RequestId,
        end: RequestEnd,
    },
    /// The next chunk of a serve is to be sent.
    Send {
        host: usize,
        life: u32,
        serve: ServeId,
    },
    Came {
        link: usize,
        at: usize,
        request: RequestId,
        chunk: u32,
        token: Token,
        is_last: bool,
    },
    /// The disk has time for a chunk that came.
    Store {
        host: usize,
        life: u32,
        /// Who sent it.
        peer: usize,
        request: RequestId,
        chunk: u32,
        token: Token,
        is_last: bool,
    },
    /// Something is to be made durable, tried again or sealed.
    Work {
        host: usize,
        life: u32,
    },
    Checkpointed {
        host: usize,
        life: u32,
        result: Result<u32, CheckpointError>,
    },
    Sealed {
        host: usize,
        life: u32,
        result: SealResult,
    },
    Lost {
        link: usize,
        at: usize,
    },
    /// A disk has room again, or can be written again.
    Relief {
        host: usize,
        is_full: bool,
    },
    Greed {
        host: usize,
        life: u32,
    },
    Heal,
    Look,
}
