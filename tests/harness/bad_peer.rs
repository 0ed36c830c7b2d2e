//! A member of the cluster that does not play by the rules: it has a valid certificate and the real link, and lies.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_link::config::LinkConfig;
use drover_link::endpoint::{Connection, Endpoint, Expect};
use drover_link::frame::{FrameReceiver, FrameSender, request};
use drover_link::identity::Identity;
use drover_protocol::announce::{Announce, SwarmAnnounce, TrackerReply, TrackerRequest};
use drover_protocol::have::WireHave;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::{DataReply, DataRequest, PeerMessage, SwarmMessage};

/// What it does with requests for data. It always says that it holds everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misbehaviour {
    /// Accepts them and sends bytes that it made up. It has no manifest to give.
    WrongBytes,
    /// The same, and makes up manifests, too.
    WrongManifest,
    /// Accepts them and sends nothing.
    Stalls,
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
    /// Starts one on `listen` with the identity that a joined host has in `state`, and announces it to `tracker`.
    #[track_caller]
    pub fn start(
        state: &Path,
        listen: SocketAddr,
        tracker: SocketAddr,
        claim: Claim,
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
        runtime.spawn(announce(endpoint.clone(), listen, tracker, claim));
        runtime.spawn(accept(endpoint, claim, misbehaviour, bytes.clone()));
        BadPeer { peer: identity.peer_id(), bytes, runtime: Some(runtime) }
    }

    /// Bytes that it was asked for.
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

async fn announce(endpoint: Endpoint, listen: SocketAddr, tracker: SocketAddr, claim: Claim) {
    let connection = endpoint.connect(tracker, Expect::Tracker).await.expect("the tracker answers");
    let swarm = SwarmAnnounce { image: claim.image, held_chunks: 1, data_chunks: 1, want_peers: 0, leaving: false };
    let announce = TrackerRequest::Announce(Announce { listen: vec![listen], rack: None, swarms: vec![swarm] });
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let reply: Result<TrackerReply, _> = request(&connection.link().quic, &announce).await;
        if !matches!(reply, Ok(TrackerReply::Announced(_))) {
            return;
        }
    }
}

async fn accept(endpoint: Endpoint, claim: Claim, misbehaviour: Misbehaviour, bytes: Arc<AtomicU64>) {
    while let Some(incoming) = endpoint.accept().await {
        let bytes = bytes.clone();
        tokio::spawn(async move {
            if let Ok(connection) = incoming.handshake().await {
                serve(connection, claim, misbehaviour, bytes).await;
            }
        });
    }
}

async fn serve(connection: Connection, claim: Claim, misbehaviour: Misbehaviour, bytes: Arc<AtomicU64>) {
    let (link, sender, receiver) = connection.split();
    tokio::spawn(answer_joins(sender, receiver, claim));
    while let Ok((mut send, mut receive)) = link.quic.accept_bi().await {
        let bytes = bytes.clone();
        tokio::spawn(async move {
            let Ok(Some(asked)) = drover_link::frame::read_frame::<DataRequest>(&mut receive).await else { return };
            let has_no_manifest = misbehaviour == Misbehaviour::WrongBytes;
            if has_no_manifest && matches!(asked, DataRequest::Manifest { .. }) {
                let _ = drover_link::frame::write_frame(&mut send, &DataReply::NotHeld).await;
                let _ = send.finish();
                return;
            }
            let len = match &asked {
                DataRequest::Manifest { .. } => 4096,
                DataRequest::Pages { ranges, .. } => ranges.iter().map(|range| u64::from(range.count) * 4096).sum(),
            };
            bytes.fetch_add(len, Ordering::Relaxed);
            let _ = drover_link::frame::write_frame(&mut send, &DataReply::Accepted { len }).await;
            match misbehaviour {
                Misbehaviour::WrongBytes | Misbehaviour::WrongManifest => {
                    let _ = send.write_all(&vec![0xbd; len as usize]).await;
                    let _ = send.finish();
                    let _ = send.stopped().await;
                }
                Misbehaviour::Stalls => std::future::pending().await,
            }
        });
    }
}

/// Tells whoever joins that everything is here.
async fn answer_joins(mut sender: FrameSender<PeerMessage>, mut receiver: FrameReceiver<PeerMessage>, claim: Claim) {
    let geometry = drover_protocol::geometry::Geometry::of_len(claim.content_len).expect("a length of an image");
    let have = WireHave::Runs(vec![(0, geometry.piece_count())]);
    while let Ok(Some(message)) = receiver.next().await {
        let PeerMessage::Swarm { image, message: SwarmMessage::Join { .. } } = message else { continue };
        let message = SwarmMessage::Have { have: have.clone() };
        if image == claim.image && sender.send(&PeerMessage::Swarm { image, message }).await.is_err() {
            return;
        }
    }
}
