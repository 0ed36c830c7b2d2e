//! A member of the cluster that does not play by the rules: it has a valid certificate and the real link, and lies.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_link::config::LinkConfig;
use drover_link::endpoint::{Connection, Endpoint, Expect, Link};
use drover_link::frame::{FrameReceiver, FrameSender, read_frame, request, write_frame};
use drover_link::identity::Identity;
use drover_protocol::announce::{Announce, SwarmAnnounce, TrackerReply, TrackerRequest};
use drover_protocol::geometry::Geometry;
use drover_protocol::have::WireHave;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::{DataReply, DataRequest, PageRange, PeerMessage, SwarmMessage};

/// What it does. It says that it holds everything, but for the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misbehaviour {
    /// Accepts requests and sends bytes that it made up. It has no manifest to give.
    WrongBytes,
    /// The same, and makes up manifests, too.
    WrongManifest,
    /// Accepts requests and sends nothing.
    Stalls,
    /// Holds nothing, asks everybody for the same pieces again and again, as many at a time as it likes, and drops what comes.
    Takes,
}

/// A running bad peer. Dropping it ends it.
#[derive(Debug)]
pub struct BadPeer {
    /// Who it is.
    pub peer: PeerId,
    bytes: Arc<AtomicU64>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// The image that it claims to hold.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Which image.
    pub image: ImageId,
    /// Its length in bytes.
    pub content_len: u64,
}

impl BadPeer {
    /// Starts one on `listen` with the identity that a joined host has in `state`, and announces it to `tracker`. Without a
    /// claim it waits for the first release that the tracker tells of.
    #[track_caller]
    pub fn start(
        state: &Path,
        listen: SocketAddr,
        tracker: SocketAddr,
        claim: Option<Claim>,
        misbehaviour: Misbehaviour,
    ) -> Self {
        let identity = Identity::load(&state.join("identity")).expect("the host has joined");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be started");
        let bytes = Arc::new(AtomicU64::new(0));
        let endpoint = {
            let _entered = runtime.enter();
            Endpoint::bind(listen, &identity, LinkConfig::default()).expect("the address is free")
        };
        let part = Part { listen, misbehaviour, bytes: bytes.clone() };
        runtime.spawn(part.play(endpoint, tracker, claim));
        BadPeer { peer: identity.peer_id(), bytes, runtime: Some(runtime) }
    }

    /// Bytes that it was asked for; of one that takes, bytes that it took.
    pub fn asked_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for BadPeer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What all of its tasks know.
#[derive(Clone, Debug)]
struct Part {
    listen: SocketAddr,
    misbehaviour: Misbehaviour,
    bytes: Arc<AtomicU64>,
}

impl Part {
    async fn play(self, endpoint: Endpoint, tracker: SocketAddr, claim: Option<Claim>) {
        let connection = endpoint.connect(tracker, Expect::Tracker).await.expect("the tracker answers");
        let claim = match claim {
            Some(claim) => claim,
            None => first_release(&connection.link().quic).await.expect("the tracker tells of a release"),
        };
        tokio::spawn(self.clone().accept(endpoint.clone(), claim));
        self.announce(&endpoint, &connection, claim).await;
    }

    /// Announces itself every second. Who takes dials everybody that it hears of by that.
    async fn announce(self, endpoint: &Endpoint, tracker: &Connection, claim: Claim) {
        let takes = self.misbehaviour == Misbehaviour::Takes;
        let (held_chunks, want_peers) = if takes { (0, MOST_PEERS) } else { (1, 0) };
        let swarm = SwarmAnnounce { image: claim.image, held_chunks, data_chunks: 1, want_peers, leaving: false };
        let announce =
            TrackerRequest::Announce(Announce { listen: vec![self.listen], rack: None, swarms: vec![swarm] });
        let mut every = tokio::time::interval(Duration::from_secs(1));
        let mut known = BTreeSet::new();
        loop {
            every.tick().await;
            let reply: Result<TrackerReply, _> = request(&tracker.link().quic, &announce).await;
            let Ok(TrackerReply::Announced(announced)) = reply else { return };
            let peers = announced.swarms.into_iter().flat_map(|swarm| swarm.peers);
            for peer in peers.filter(|peer| takes && known.insert(peer.peer)) {
                let (part, endpoint) = (self.clone(), endpoint.clone());
                tokio::spawn(async move {
                    for addr in peer.addrs {
                        if let Ok(connection) = endpoint.connect(addr, Expect::Peer(peer.peer)).await {
                            return part.meet(connection, claim).await;
                        }
                    }
                });
            }
        }
    }

    async fn accept(self, endpoint: Endpoint, claim: Claim) {
        while let Some(incoming) = endpoint.accept().await {
            let part = self.clone();
            tokio::spawn(async move {
                if let Ok(connection) = incoming.handshake().await {
                    part.meet(connection, claim).await;
                }
            });
        }
    }

    async fn meet(self, connection: Connection, claim: Claim) {
        let (link, sender, receiver) = connection.split();
        if self.misbehaviour == Misbehaviour::Takes {
            for stream in 0..TAKEN_AT_ONCE {
                tokio::spawn(self.clone().take(link.clone(), claim, stream));
            }
        }
        tokio::spawn(self.clone().converse(sender, receiver, claim));
        while let Ok((send, receive)) = link.quic.accept_bi().await {
            tokio::spawn(self.clone().serve(send, receive));
        }
    }

    async fn serve(self, mut send: quinn::SendStream, mut receive: quinn::RecvStream) {
        let Ok(Some(asked)) = read_frame::<DataRequest>(&mut receive).await else { return };
        let is_manifest = matches!(asked, DataRequest::Manifest { .. });
        if self.misbehaviour == Misbehaviour::Takes || (self.misbehaviour == Misbehaviour::WrongBytes && is_manifest) {
            let _ = write_frame(&mut send, &DataReply::NotHeld).await;
            let _ = send.finish();
            return;
        }
        let len = match &asked {
            DataRequest::Manifest { .. } => 4096,
            DataRequest::Pages { ranges, .. } => ranges.iter().map(|range| u64::from(range.count) * 4096).sum(),
        };
        self.bytes.fetch_add(len, Ordering::Relaxed);
        let _ = write_frame(&mut send, &DataReply::Accepted { len }).await;
        if self.misbehaviour == Misbehaviour::Stalls {
            return std::future::pending().await;
        }
        let _ = send.write_all(&vec![0xbd; len as usize]).await;
        let _ = send.finish();
        let _ = send.stopped().await;
    }

    /// Tells whoever joins what is said to be here. Who takes joins by itself.
    async fn converse(
        self,
        mut sender: FrameSender<PeerMessage>,
        mut receiver: FrameReceiver<PeerMessage>,
        claim: Claim,
    ) {
        let image = claim.image;
        let pieces = geometry(claim).piece_count();
        let takes = self.misbehaviour == Misbehaviour::Takes;
        let have = WireHave::Runs(if takes { Vec::new() } else { vec![(0, pieces)] });
        if takes {
            let message = SwarmMessage::Join { have: have.clone() };
            let _ = sender.send(&PeerMessage::Swarm { image, message }).await;
        }
        while let Ok(Some(message)) = receiver.next().await {
            let PeerMessage::Swarm { image: of, message: SwarmMessage::Join { .. } } = message else { continue };
            let message = SwarmMessage::Have { have: have.clone() };
            if of == image && sender.send(&PeerMessage::Swarm { image, message }).await.is_err() {
                return;
            }
        }
    }

    /// Asks for one piece after the other, beginning where no other stream does, and drops what comes.
    async fn take(self, link: Link, claim: Claim, begin: u32) {
        let (pieces, piece_len) = (geometry(claim).piece_count(), geometry(claim).piece_len());
        for number in (0..pieces).cycle().skip((begin * pieces / TAKEN_AT_ONCE) as usize) {
            let len = (claim.content_len - u64::from(number) * u64::from(piece_len)).min(u64::from(piece_len));
            let ranges = vec![PageRange { first: 0, count: len.div_ceil(4096) as u32 }];
            let asked = DataRequest::Pages { image: claim.image, piece: number, ranges };
            let Ok((mut send, mut receive)) = link.quic.open_bi().await else { return };
            if write_frame(&mut send, &asked).await.is_err() {
                return;
            }
            let _ = send.finish();
            match read_frame::<DataReply>(&mut receive).await {
                Ok(Some(DataReply::Accepted { .. })) => {
                    while let Ok(Some(chunk)) = receive.read_chunk(usize::MAX, false).await {
                        self.bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                    }
                }
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

fn geometry(claim: Claim) -> Geometry {
    Geometry::of_len(claim.content_len).expect("a length of an image")
}

/// The first release that a tracker tells of; `None` if it ends the connection before.
pub async fn first_release(tracker: &quinn::Connection) -> Option<Claim> {
    let (mut send, mut receive) = tracker.open_bi().await.ok()?;
    write_frame(&mut send, &TrackerRequest::Watch).await.ok()?;
    while let Ok(Some(reply)) = read_frame(&mut receive).await {
        let TrackerReply::Releases(releases) = reply else { continue };
        let release = releases.first().map(|signed| signed.verify_intact());
        if let Some(Ok(release)) = release {
            return Some(Claim { image: release.image, content_len: release.content_len });
        }
    }
    None
}

/// As many as a tracker hands out.
const MOST_PEERS: u16 = 64;
/// Requests that one that takes has under way with each host.
const TAKEN_AT_ONCE: u32 = 16;
