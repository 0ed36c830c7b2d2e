//! A cluster on loopback: a real tracker, hosts with real stores and endpoints, all in this process.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drover_agent::exchange::{Exchange, ExchangeParts, ExchangeSettings, Phase, TransferStatus};
use drover_agent::store::import::{ImportMode, ImportSource, Imported, import};
use drover_agent::store::{self, Store};
use drover_link::ca::CertificateAuthority;
use drover_link::config::LinkConfig;
use drover_link::endpoint::Endpoint;
use drover_link::identity::{Identity, MemberKey};
use drover_link::member::Role;
use drover_protocol::id::ImageId;
use drover_protocol::rng::Rng;
use drover_tracker::Tracker;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

/// Longer than anything here takes on a slow machine; a test that waits so long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const ANY: &str = "127.0.0.1:0";

pub(crate) struct Cluster {
    dir: TempDir,
    ca: CertificateAuthority,
    tracker: Option<Tracker>,
    addr: SocketAddr,
}

pub(crate) struct Host {
    pub identity: Identity,
    pub store: Store,
    pub exchange: Exchange,
    dir: TempDir,
    settings: ExchangeSettings,
    tracker: String,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        drover_tracker::cluster::init(dir.path(), ANY.parse().unwrap()).unwrap();
        let ca = CertificateAuthority::load(&dir.path().join("ca")).unwrap();
        let tracker = Tracker::start(dir.path(), ANY.parse().unwrap(), None).unwrap();
        let addr = tracker.local_addr();
        Cluster { dir, ca, tracker: Some(tracker), addr }
    }

    pub(crate) async fn stop_tracker(&mut self) {
        self.tracker.take().expect("the tracker runs").shutdown().await;
    }

    /// Starts the tracker again where it was, with nothing but what it had on disk.
    pub(crate) async fn restart_tracker(&mut self) {
        self.tracker = Some(
            eventually("the tracker starts", async || Tracker::start(self.dir.path(), self.addr, None).ok()).await,
        );
    }

    pub(crate) fn tracker(&self) -> String {
        self.addr.to_string()
    }

    pub(crate) fn tracker_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        let key = Arc::new(MemberKey::generate());
        let certificate = self.ca.issue(&key.request(), Role::Host, name, 7).unwrap();
        Identity::new(key, certificate, self.ca.certificate().to_vec(), Vec::new(), Vec::new()).unwrap()
    }

    pub(crate) fn host(&self, name: &str) -> Host {
        self.host_with(name, |_| {})
    }

    pub(crate) fn host_with(&self, name: &str, adjust: impl FnOnce(&mut ExchangeSettings)) -> Host {
        let mut settings = ExchangeSettings::default();
        adjust(&mut settings);
        Host::start(TempDir::new().unwrap(), self.identity(name), settings, self.tracker(), ANY.parse().unwrap())
    }
}

impl Host {
    fn start(
        dir: TempDir,
        identity: Identity,
        mut settings: ExchangeSettings,
        tracker: String,
        listen: SocketAddr,
    ) -> Self {
        let store = Store::open_with(dir.path(), store::Settings { immutable: false }).unwrap();
        let endpoint = Endpoint::bind(listen, &identity, LinkConfig::default()).unwrap();
        settings.listen = vec![endpoint.local_addr().unwrap()];
        let parts = ExchangeParts {
            store: store.clone(),
            endpoint,
            me: identity.peer_id(),
            trackers: vec![tracker.clone()],
            settings: settings.clone(),
        };
        let exchange = Exchange::start(parts).unwrap();
        Host { identity, store, exchange, dir, settings, tracker }
    }

    /// Ends as an orderly shutdown does; the state stays.
    pub(crate) async fn stop(self) -> Stopped {
        self.exchange.shutdown().await;
        Stopped { dir: self.dir, identity: self.identity, settings: self.settings, tracker: self.tracker }
    }

    /// Makes `content` a master of this host's store, and offers it.
    pub(crate) async fn publish(&self, content: &[u8], mode: ImportMode) -> Imported {
        let path = self.dir.path().join("source.raw");
        fs::write(&path, content).unwrap();
        let source = ImportSource { mode, ..ImportSource::new(path) };
        let imported = import(&self.store, &source, &|_| {}).unwrap();
        reaches(&mut self.exchange.seed(imported.image), "the publisher offers it", is_complete).await;
        imported
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.dir.path().join("source.raw")
    }

    pub(crate) fn master(&self, image: ImageId) -> Vec<u8> {
        fs::read(self.store.master(image).expect("the master is sealed").path).unwrap()
    }
}

/// A host that is not running.
pub(crate) struct Stopped {
    dir: TempDir,
    identity: Identity,
    settings: ExchangeSettings,
    tracker: String,
}

impl Stopped {
    pub(crate) async fn start(self) -> Host {
        let Stopped { dir, identity, settings, tracker } = self;
        let listen = settings.listen[0];
        // The store is free as soon as the last task of the former life has ended, the port with it.
        eventually("the state folder is free", async || Store::open(dir.path()).ok().map(drop)).await;
        eventually("the port is free", async || std::net::UdpSocket::bind(listen).ok().map(drop)).await;
        Host::start(dir, identity, settings, tracker, listen)
    }
}

/// `len` bytes: random ones with runs of zeros between, so that both kinds of chunks occur.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    eprintln!("content: seed {seed}, {len} bytes");
    let mut rng = Rng::seeded(seed);
    let mut content = vec![0; len];
    for part in content.chunks_mut(512 * 1024) {
        if rng.chance(0.75) {
            for word in part.chunks_mut(8) {
                let bytes = rng.next_u64().to_le_bytes();
                word.copy_from_slice(&bytes[..word.len()]);
            }
        }
    }
    content
}

pub(crate) fn is_complete(status: &TransferStatus) -> bool {
    assert!(!matches!(status.phase, Phase::Failed(_)), "failed: {:?}", status.phase);
    status.phase == Phase::Complete
}

/// Waits until the status is as wanted.
pub(crate) async fn reaches(
    status: &mut watch::Receiver<TransferStatus>,
    what: &str,
    wanted: impl FnMut(&TransferStatus) -> bool,
) -> TransferStatus {
    let reached = timeout(DEADLINE, status.wait_for(wanted)).await.map(|reached| reached.expect("it runs").clone());
    reached.unwrap_or_else(|_| panic!("not reached: {what}; last {:#?}", status.borrow()))
}

/// Tries until there is something.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let tried = async {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, tried).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}
