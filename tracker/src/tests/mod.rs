//! Real trackers on loopback: hosts join, announce, post and watch; others are turned away.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_link::config::LinkConfig;
use drover_link::endpoint::{Connection, Endpoint, Expect, Link};
use drover_link::enrol::{JoinError, JoinOptions, join};
use drover_link::frame::request;
use drover_link::identity::{Identity, Role, unix_now_s};
use drover_link::token::JoinToken;
use drover_protocol::announce::{TrackerReply, TrackerRequest};
use drover_protocol::id::{ContentHash, ImageId, PublisherKey};
use drover_protocol::release::{RELEASE_FORMAT, Release, SignedRelease};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::tokens::DEFAULT_TTL;
use crate::{Tracker, cluster};

mod hash_table;
mod hostile;
mod introducing;
mod joining;
mod leasing;
mod posting;
mod revoking;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster in a folder, with its tracker running.
struct Fleet {
    folder: TempDir,
    tracker: Tracker,
    publisher: SigningKey,
}

/// A host that has joined and is connected.
struct Host {
    link: Link,
    identity: Identity,
    _endpoint: Endpoint,
    _connection: Box<dyn std::any::Any + Send>,
}

impl Fleet {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = folder.path().join("tracker");
        let cluster = cluster::init(&state, LOOPBACK).expect("a new cluster");
        let text = std::fs::read_to_string(&cluster.publisher_key).expect("a key");
        let publisher = SigningKey::from_pkcs8_pem(&text).expect("a PKCS#8 key");
        assert_eq!(publisher.verifying_key().to_bytes(), *cluster.publisher.as_bytes());
        let tracker = Tracker::start(&state, LOOPBACK, None).expect("a tracker");
        Fleet { folder, tracker, publisher }
    }

    async fn restart(self) -> Self {
        let Fleet { folder, tracker, publisher } = self;
        tracker.shutdown().await;
        let tracker = Tracker::start(&folder.path().join("tracker"), LOOPBACK, None).expect("a tracker again");
        Fleet { folder, tracker, publisher }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("tracker")
    }

    fn token(&self, role: Role) -> JoinToken {
        cluster::new_token(&self.state(), role, DEFAULT_TTL).expect("a token")
    }

    async fn join(&self, token: &JoinToken, name: &str) -> Result<Identity, JoinError> {
        let dir = self.folder.path().join(name);
        join_in(&dir, &self.tracker.local_addr().to_string(), token, name, None).await
    }

    /// A new host that has joined and is connected.
    async fn host(&self, name: &str) -> Host {
        let identity = self.join(&self.token(Role::Host), name).await.expect("joined");
        self.connect(identity).await
    }

    async fn connect(&self, identity: Identity) -> Host {
        self.connect_with(identity, patient()).await
    }

    async fn connect_with(&self, identity: Identity, config: LinkConfig) -> Host {
        let endpoint = Endpoint::bind(LOOPBACK, &identity, config).expect("an endpoint");
        let connected = endpoint.connect(self.tracker.local_addr(), Expect::Tracker).await;
        let (link, send, receive) = Connection::split(connected.expect("the tracker answers"));
        Host { link, identity, _endpoint: endpoint, _connection: Box::new((send, receive)) }
    }

    fn release(&self, name: &str, version: u64) -> Release {
        let now = unix_now_s();
        Release {
            format: RELEASE_FORMAT,
            name: name.parse().expect("a name"),
            version,
            image: ImageId::from_bytes([version as u8; 32]),
            content_len: 65536,
            content_hash: ContentHash::from_bytes([9; 32]),
            created_unix_s: now,
            expires_unix_s: now + 3600,
        }
    }

    fn signed(&self, name: &str, version: u64) -> SignedRelease {
        self.release(name, version).sign(&self.publisher)
    }
}

impl Host {
    async fn ask(&self, question: &TrackerRequest) -> TrackerReply {
        timeout(PATIENCE, request(&self.link.quic, question)).await.expect("in time").expect("an answer")
    }

    async fn refused(&self, question: &TrackerRequest) -> String {
        match self.ask(question).await {
            TrackerReply::Refused(why) => why,
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn patient() -> LinkConfig {
    LinkConfig { connect_timeout: PATIENCE, handshake_timeout: PATIENCE, ..LinkConfig::default() }
}

async fn join_in(
    dir: &Path,
    tracker: &str,
    token: &JoinToken,
    name: &str,
    publisher: Option<PublisherKey>,
) -> Result<Identity, JoinError> {
    join(&JoinOptions { tracker, token, name, publisher }, dir).await
}
