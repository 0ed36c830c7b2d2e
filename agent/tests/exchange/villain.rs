//! A member of the cluster that does not behave: it speaks the protocol by hand.

use std::time::Duration;

use drover_link::config::LinkConfig;
use drover_link::endpoint::{Connection, Endpoint, Expect};
use drover_link::frame::{read_frame, request, write_frame};
use drover_protocol::announce::{Announce, SwarmAnnounce, TrackerReply, TrackerRequest};
use drover_protocol::geometry::{Geometry, PAGE_LEN};
use drover_protocol::have::{PieceSet, WireHave};
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::manifest::Manifest;
use drover_protocol::message::{DataReply, DataRequest, PeerMessage, SwarmMessage};
use quinn::{RecvStream, SendStream};

use crate::world::Cluster;

/// What it does when it is asked for something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Habit {
    /// Chunks of garbage, the right manifest.
    WrongBytes,
    /// Nothing: it accepts, and no byte follows.
    Stalls,
    /// Garbage as the manifest.
    WrongManifest,
}

/// It claims to hold everything.
pub(crate) struct Villain {
    peer: PeerId,
    _endpoint: Endpoint,
}

#[derive(Clone)]
struct Character {
    habit: Habit,
    image: ImageId,
    geometry: Geometry,
    manifest: Vec<u8>,
}

impl Villain {
    pub(crate) async fn start(cluster: &Cluster, habit: Habit, manifest: &Manifest) -> Self {
        let identity = cluster.identity("villain");
        let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap(), &identity, LinkConfig::default()).unwrap();
        let (image, geometry) = (manifest.image_id(), manifest.geometry());
        let character = Character { habit, image, geometry, manifest: manifest.to_bytes() };
        let tracker = endpoint.connect(cluster.tracker_addr(), Expect::Tracker).await.unwrap();
        let swarm = SwarmAnnounce { image, held_chunks: 9, data_chunks: 9, want_peers: 0, leaving: false };
        let listen = vec![endpoint.local_addr().unwrap()];
        let announce = TrackerRequest::Announce(Announce { listen, rack: None, swarms: vec![swarm] });
        let reply: TrackerReply = request(&tracker.link().quic, &announce).await.unwrap();
        assert!(matches!(reply, TrackerReply::Announced(_)), "{reply:?}");
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            // The tracker forgets who is not connected.
            let _tracker = tracker;
            while let Some(incoming) = accepting.accept().await {
                let character = character.clone();
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.handshake().await {
                        character.converse(connection).await;
                    }
                });
            }
        });
        Villain { peer: identity.peer_id(), _endpoint: endpoint }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }
}

impl Character {
    async fn converse(self, connection: Connection) {
        let (link, mut sender, mut receiver) = connection.split();
        loop {
            tokio::select! {
                message = receiver.next() => match message {
                    Ok(Some(PeerMessage::Swarm { image, message: SwarmMessage::Join { .. } })) => {
                        let have = WireHave::of(&PieceSet::full(&self.geometry));
                        let message = SwarmMessage::Have { have };
                        let _ = sender.send(&PeerMessage::Swarm { image, message }).await;
                    }
                    Ok(Some(_)) => {}
                    _ => return,
                },
                stream = link.quic.accept_bi() => match stream {
                    Ok((send, recv)) => { tokio::spawn(self.clone().answer(send, recv)); }
                    Err(_) => return,
                },
            }
        }
    }

    async fn answer(self, mut send: SendStream, mut recv: RecvStream) {
        let Ok(Some(asked)) = read_frame::<DataRequest>(&mut recv).await else { return };
        let (len, bytes) = match (&asked, self.habit) {
            (DataRequest::Manifest { image }, habit) => {
                assert_eq!(*image, self.image);
                let len = self.manifest.len() as u64;
                let bytes = if habit == Habit::WrongManifest { vec![7; self.manifest.len()] } else { self.manifest };
                (len, bytes)
            }
            (DataRequest::Pages { ranges, .. }, _) => {
                let len = ranges.iter().map(|range| u64::from(range.count) * u64::from(PAGE_LEN)).sum();
                (len, vec![7; len as usize])
            }
        };
        let _ = write_frame(&mut send, &DataReply::Accepted { len }).await;
        if self.habit == Habit::Stalls {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        let _ = send.write_all(&bytes).await;
        let _ = send.finish();
    }
}
