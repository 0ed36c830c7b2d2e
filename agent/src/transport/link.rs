//! One connection with one peer, and the task that reads and writes its control stream and takes in its data streams.
//!
//! A peer can neither fill memory nor hold up others: control messages to it wait in a short queue, and a peer that lets
//! the queue fill is disconnected; its own messages are read at a bounded rate; streams that it opens are bounded in
//! number by the connection's limits and have a deadline for their header.

use core::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use drover_link::close;
use drover_link::endpoint::{self, Connection};
use drover_link::frame::{FrameReceiver, FrameSender, prompt, read_frame, write_frame};
use drover_link::member::Member;
use drover_protocol::discovery::DISCOVERY_SINCE;
use drover_protocol::hints::Source;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::{
    DataReply, DataRequest, LeaveReason, MULTICAST_SINCE, PeerAddress, PeerMessage, SwarmMessage,
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep_until, timeout};

use super::router::{Asked, Event};
use super::{Closing, Links};
use crate::discovery::talk::Talk;

/// Control messages that wait for one peer. At ten have-deltas a second for each of a few images this is seconds.
const QUEUE_LEN: usize = 256;
/// Control messages that are read from one peer in a second; more wait.
const MESSAGES_PER_S: u32 = 2000;
/// A peer that opened a data stream sends its request at once.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is looked whether a link is of use to anybody. One that was not twice in a row is closed.
const USE_CHECK: Duration = Duration::from_secs(30);

/// A connection with a peer. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct Link(Arc<Inner>);

struct Inner {
    id: u64,
    wire: endpoint::Link,
    queue: mpsc::Sender<PeerMessage>,
    users: AtomicUsize,
    /// Payload streams that were put in order so far, counted downwards.
    ordered: AtomicI32,
    opened: Instant,
}

/// What the task of a link needs beside the link.
pub(super) struct Ends {
    sender: FrameSender<PeerMessage>,
    receiver: FrameReceiver<PeerMessage>,
    queue: mpsc::Receiver<PeerMessage>,
}

impl Link {
    pub(super) fn new(id: u64, connection: Connection) -> (Self, Ends) {
        let (queue, queued) = mpsc::channel(QUEUE_LEN);
        let (wire, sender, receiver) = connection.split();
        let inner =
            Inner { id, wire, queue, users: AtomicUsize::new(0), ordered: AtomicI32::new(0), opened: Instant::now() };
        (Link(Arc::new(inner)), Ends { sender, receiver, queue: queued })
    }

    /// Who is at the other end, by its certificate.
    pub(crate) fn peer(&self) -> PeerId {
        self.0.wire.member.peer
    }

    /// The other end's name and role, by its certificate.
    pub(crate) fn member(&self) -> &Member {
        &self.0.wire.member
    }

    /// Whether the other end knows of multicast: to one that does not, nothing is said of it.
    pub(crate) fn knows_multicast(&self) -> bool {
        self.0.wire.version >= MULTICAST_SINCE
    }

    /// Where the other end is.
    pub(crate) fn remote_addr(&self) -> SocketAddr {
        self.0.wire.remote_addr()
    }

    /// Whether the other end understands what is said about hosts, images and releases at large.
    pub(crate) fn knows_discovery(&self) -> bool {
        self.0.wire.version >= DISCOVERY_SINCE
    }

    /// Rises with each link of this process: of two links with one peer the later has the higher.
    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    /// Sends a message after those sent before. A peer that does not read them is disconnected.
    pub(crate) fn send(&self, message: PeerMessage) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.0.queue.try_send(message) {
            tracing::info!(peer = %self.peer().short(), "disconnecting a peer that does not read what it is sent");
            self.close(Closing::NotReading);
        }
    }

    /// Opens a data stream, as soon as the peer allows one more, and sends `request` on it.
    pub(crate) async fn ask(&self, request: &DataRequest) -> Option<RecvStream> {
        let (mut send, recv) = self.connection().open_bi().await.ok()?;
        prompt(&send);
        write_frame(&mut send, request).await.ok()?;
        // The request is all that this side says; a peer that is gone shows at reading.
        let _ = send.finish();
        Some(recv)
    }

    /// Has the payload on this stream sent after that of every stream put in order before: the first of several requests
    /// is whole after its own time, instead of all of them at the end, and packets carry no scraps. Short messages are
    /// sent before all of it.
    pub(crate) fn put_in_order(&self, stream: &SendStream) {
        // After two billion requests on one connection the next are merely sent in another order.
        let priority = self.0.ordered.fetch_sub(1, Ordering::Relaxed).min(0);
        // Fails only if the peer has stopped the stream, as writing will say.
        let _ = stream.set_priority(priority);
    }

    /// Ends the connection. Whoever uses the link hears of it by `Event::Disconnected`.
    pub(crate) fn close(&self, why: Closing) {
        self.0.wire.close(VarInt::from_u32(why as u32), why.text());
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.connection().close_reason().is_some()
    }

    /// One more driver has this peer as a neighbour, or is about to ask it something.
    pub(crate) fn hold(&self) {
        self.0.users.fetch_add(1, Ordering::Relaxed);
    }

    /// One driver less has this peer as a neighbour. A link without any is closed after a while.
    pub(crate) fn release(&self) {
        self.0.users.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes that were sent and received, with all that QUIC adds.
    pub(crate) fn carried_bytes(&self) -> u64 {
        let stats = self.0.wire.quic.stats();
        stats.udp_tx.bytes + stats.udp_rx.bytes
    }

    /// Closes it for others to have its place.
    pub(crate) fn make_way(&self) {
        self.close(Closing::Room);
    }

    /// Whether the other side closed it for this reason.
    pub(super) fn was_closed_there(&self, why: Closing) -> bool {
        let reason = self.connection().close_reason();
        matches!(reason, Some(quinn::ConnectionError::ApplicationClosed(closed))
            if closed.error_code == VarInt::from_u32(why as u32))
    }

    /// How long ago it was opened.
    pub(super) fn age(&self) -> Duration {
        self.0.opened.elapsed()
    }

    /// Whether this side dialled.
    pub(super) fn dialled_here(&self) -> bool {
        self.connection().side().is_client()
    }

    /// Whether both are ends of one connection: both derive the same secret from its handshake.
    #[cfg(test)]
    pub(crate) fn shares_connection_with(&self, other: &Link) -> bool {
        let secret = |link: &Link| {
            let mut secret = [0; 32];
            link.connection().export_keying_material(&mut secret, b"which connection", b"").ok().map(|()| secret)
        };
        secret(self).is_some() && secret(self) == secret(other)
    }

    pub(super) fn connection(&self) -> &quinn::Connection {
        &self.0.wire.quic
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {} with {}", self.id(), self.member())
    }
}

impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

/// Runs a link until it ends.
pub(super) async fn run(links: Links, link: Link, ends: Ends) {
    let Ends { sender, receiver, queue } = ends;
    let why = tokio::select! {
        why = read_control(&links, &link, receiver) => why,
        why = write_control(sender, queue) => why,
        why = accept_streams(&links, &link) => why,
        () = until_unused(&link) => "nobody uses it".to_owned(),
    };
    let why = link.connection().close_reason().map_or(why, |reason| close::reason(&reason));
    link.close(Closing::Unused);
    tracing::debug!(peer = %link.peer().short(), name = link.member().name, why, "link ended");
}

async fn read_control(links: &Links, link: &Link, mut receiver: FrameReceiver<PeerMessage>) -> String {
    let (mut second, mut read) = (Instant::now(), 0);
    let mut talk = Talk::default();
    loop {
        let message = match receiver.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return "the peer ended its control stream".to_owned(),
            Err(error) => {
                link.close(Closing::Malformed);
                return error.to_string();
            }
        };
        if second.elapsed() >= Duration::from_secs(1) {
            (second, read) = (Instant::now(), 0);
        }
        read += 1;
        if read > MESSAGES_PER_S {
            sleep_until(second + Duration::from_secs(1)).await;
        }
        match message {
            PeerMessage::Swarm { image, message } => route(links, link, image, message).await,
            PeerMessage::Peers { image, peers } => take_peers(links, link, image, peers).await,
            PeerMessage::Probe(message) => {
                if let Some(prober) = links.router().prober() {
                    prober.hear(link, message);
                }
            }
            PeerMessage::Multicast { image, message } => {
                // A host that does not exchange the image takes part in no session.
                if let Some(driver) = links.router().driver_of(image) {
                    // A driver that has just ended takes part in none either.
                    let _ = driver.send(Event::Multicast { link: link.clone(), message }).await;
                }
            }
            PeerMessage::Discovery(message) => talk.hear(links, link, message).await,
        }
    }
}

async fn route(links: &Links, link: &Link, image: ImageId, message: SwarmMessage) {
    let asks = matches!(message, SwarmMessage::Join { .. });
    let delivered = match links.router().driver_of(image) {
        Some(driver) => driver.send(Event::Message { link: link.clone(), message }).await.is_ok(),
        None => false,
    };
    if !delivered && asks {
        let message = SwarmMessage::Leave { reason: LeaveReason::NotHere };
        link.send(PeerMessage::Swarm { image, message });
    }
}

async fn take_peers(links: &Links, link: &Link, image: ImageId, peers: Vec<PeerAddress>) {
    let Some(driver) = links.router().driver_of(image) else { return };
    let source = Source::PeerExchange(link.peer());
    let mut peers = links.learn(&peers, source);
    // Who tells of others that exchange an image does so itself.
    peers.push(link.peer());
    // A driver that has just ended needs no candidates.
    let _ = driver.send(Event::Candidates(source, peers)).await;
}

async fn write_control(mut sender: FrameSender<PeerMessage>, mut queue: mpsc::Receiver<PeerMessage>) -> String {
    while let Some(message) = queue.recv().await {
        if let Err(error) = sender.send(&message).await {
            return error.to_string();
        }
    }
    "this side ended it".to_owned()
}

async fn accept_streams(links: &Links, link: &Link) -> String {
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            stream = link.connection().accept_bi() => match stream {
                Ok((send, recv)) => {
                    readers.spawn(read_request(links.clone(), link.clone(), send, recv));
                }
                Err(error) => return error.to_string(),
            },
            Some(_) = readers.join_next() => {}
        }
    }
}

/// Reads the request of a data stream and hands the stream to whom it concerns. Dropping the stream ends it unanswered.
async fn read_request(links: Links, link: Link, mut send: SendStream, mut recv: RecvStream) {
    let Ok(Ok(Some(request))) = timeout(REQUEST_DEADLINE, read_frame::<DataRequest>(&mut recv)).await else { return };
    let (DataRequest::Manifest { image } | DataRequest::Pages { image, .. }) = request;
    match links.router().driver_of(image) {
        Some(driver) => {
            // A driver that has just ended drops the stream, and the peer asks elsewhere.
            let _ = driver.send(Event::Asked(Asked { link, request, send })).await;
        }
        None => {
            prompt(&send);
            if write_frame(&mut send, &DataReply::NotHeld).await.is_ok() {
                let _ = send.finish();
            }
        }
    }
}

async fn until_unused(link: &Link) {
    let mut checks = interval_at(Instant::now() + USE_CHECK, USE_CHECK);
    let mut unused_before = false;
    loop {
        checks.tick().await;
        let unused = link.0.users.load(Ordering::Relaxed) == 0;
        if unused && unused_before {
            return;
        }
        unused_before = unused;
    }
}
