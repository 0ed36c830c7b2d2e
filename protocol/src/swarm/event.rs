//! What goes into a [`Swarm`](super::Swarm) beside plain calls, and what comes out of it.

use core::ops::Range;
use core::time::Duration;

use crate::geometry::PieceIndex;
use crate::id::PeerId;
use crate::message::SwarmMessage;

/// A request of ours, until it has ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A request of a peer's, named by the driver that got it, until it has ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServeId(pub u64);

/// What a [`Swarm`](super::Swarm) asks its driver to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Connect to a peer (or find that it is connected) and call `handle_connected` or `handle_connect_failed`.
    Connect {
        /// Whom.
        peer: PeerId,
    },
    /// Send this on the control stream of a connected peer.
    Send {
        /// To whom.
        peer: PeerId,
        /// What.
        message: SwarmMessage,
    },
    /// Tell a peer about others; the driver adds the addresses that it knows.
    SendPeers {
        /// To whom.
        peer: PeerId,
        /// About whom.
        about: Vec<PeerId>,
    },
    /// Ask a peer for chunks of a piece, on a stream of its own.
    ///
    /// For every chunk the driver calls `handle_chunk_stored` or `handle_chunk_rejected`, at the end
    /// `handle_request_ended`, which changes nothing when all of its chunks were stored.
    Request {
        /// Whom.
        peer: PeerId,
        /// Our name for it.
        request: RequestId,
        /// Which piece.
        piece: PieceIndex,
        /// Numbers of the chunks (within the image), rising and apart.
        chunks: Vec<Range<u32>>,
    },
    /// Stop a request: close its stream. No `handle_request_ended` has to follow.
    Cancel {
        /// Of whom it was asked.
        peer: PeerId,
        /// Which.
        request: RequestId,
    },
    /// Send a peer what it asked for; when all of it is handed to the network, or that failed, call `handle_served`.
    Serve {
        /// Whom.
        peer: PeerId,
        /// The driver's name for it.
        serve: ServeId,
    },
    /// Refuse a peer's request.
    Refuse {
        /// Whom.
        peer: PeerId,
        /// The driver's name for it.
        serve: ServeId,
        /// What to say.
        refusal: Refusal,
    },
    /// A peer sent bytes that are not what they were said to be: disconnect it and never let it in again.
    Ban {
        /// Whom.
        peer: PeerId,
        /// What it did, for the log.
        misdeed: Misdeed,
    },
    /// This peer is no neighbour any more; the driver may close the connection if no other swarm needs it.
    Dropped {
        /// Whom.
        peer: PeerId,
    },
    /// Every data chunk is held. Comes once, when that becomes so; again only after chunks were lost.
    Complete,
}

/// Why a request is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No slot is free.
    Busy {
        /// When to ask again.
        retry_after: Duration,
        /// A piece that would be handed out now.
        instead: Option<PieceIndex>,
    },
    /// Not held, or not of this image.
    NotHeld,
}

/// How a request of ours ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestEnd {
    /// Every byte came (what was wrong among them was reported as rejected).
    Done,
    /// Refused for now.
    Busy {
        /// When to ask again.
        retry_after: Duration,
        /// Number of a piece that the peer would rather hand out, unchecked.
        instead: Option<u32>,
    },
    /// The peer does not hold what it announced.
    NotHeld,
    /// The stream broke, or what came on it was malformed.
    Failed,
}

/// What a peer did that no honest one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misdeed {
    /// It sent a chunk with wrong bytes.
    WrongBytes {
        /// Number of the chunk.
        chunk: u32,
    },
    /// It sent a have set, delta or parts of pieces that do not fit the image.
    BadHave,
}

impl core::fmt::Display for Misdeed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Misdeed::WrongBytes { chunk } => write!(f, "it sent wrong bytes for chunk {chunk}"),
            Misdeed::BadHave => f.write_str("it announced pieces or chunks that the image does not have"),
        }
    }
}
