//! A running tracker, for the program and for those who keep one in their own process.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use drover_link::ca::{CaError, CertificateAuthority};
use drover_link::config::LinkConfig;
use drover_link::durable::WriteError;
use drover_link::endpoint::{BindError, Endpoint};
use drover_link::identity::{Identity, IdentityError, unix_now_s};
use drover_protocol::directory::DirectoryConfig;
use drover_protocol::networks::Networks;
use tokio::sync::{broadcast, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::cluster::{self, InitError, LockError, StateLock};
use crate::config::DEFAULT_CERTIFICATE_LIFE;
use crate::dht;
use crate::http;
use crate::introductions::Introductions;
use crate::limits::{LISTS_CHECK, REVOCATION_BACKLOG, WATCH_BACKLOG};
use crate::members::Members;
use crate::publishers::Publishers;
use crate::releases::{OpenError, Releases};
use crate::revoked::Revoked;
use crate::roster::Roster;
use crate::server::{self, Server};
use crate::tokens::Tokens;

/// How long members have to hear that the tracker goes.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often it is looked whether the tracker's certificate is due, members' certificates have expired and old tokens can
/// go; more often if certificates are short-lived.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(600);

/// A running tracker. Dropping it stops it at once; [`shutdown`](Self::shutdown) says goodbye.
pub struct Tracker {
    server: Arc<Server>,
    endpoint: Endpoint,
    accepting: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    local_addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    _lock: StateLock,
}

/// How a tracker is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartOptions {
    /// UDP address for hosts.
    pub listen: SocketAddr,
    /// TCP address for status, if any.
    pub http: Option<SocketAddr>,
    /// How long certificates of hosts and publishers are good for.
    pub certificate_life: Duration,
    /// How many publishers have to sign a release, at least 1.
    pub signatures: usize,
    /// Networks that hosts are in, if there is to be a node of the hash table.
    pub dht: Option<Networks>,
    /// Other trackers of the cluster, "host:port", whose nodes are to know this one's.
    pub trackers: Vec<String>,
}

/// Why a tracker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no cluster.
    #[error("{0} holds no cluster; make one with `drover-tracker init`, or name its folder with --state")]
    NoCluster(PathBuf),
    /// The state folder can't be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The CA can't be read.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The tracker's identity can't be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The tracker's certificate can't be renewed.
    #[error("can't renew the tracker's own certificate: {0}")]
    Renew(#[from] OwnRenewalError),
    /// The list of publishers can't be read.
    #[error("can't read {path}: {cause}; restore it: a JSON list of publishers' keys")]
    Publishers {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: io::Error,
    },
    /// The list of revoked keys can't be read.
    #[error("can't read {path}: {cause}; restore it: without it, members that were shut out could come in again")]
    Revoked {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: io::Error,
    },
    /// The members' files can't be read.
    #[error("can't read the members in {path}: {cause}")]
    Roster {
        /// The state folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The releases can't be read.
    #[error(transparent)]
    Releases(#[from] OpenError),
    /// The address for hosts can't be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The address for status can't be used.
    #[error("can't listen on {addr} (TCP, status): {cause}; choose another with --http, or --http off")]
    Http {
        /// Which address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// Why the tracker's own certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum OwnRenewalError {
    /// It can't be made.
    #[error(transparent)]
    Make(#[from] InitError),
    /// It can't be written.
    #[error(transparent)]
    Save(#[from] WriteError),
}

impl Tracker {
    /// Starts a tracker without a node of the hash table on the state folder `dir`, which `init` made. Must be called
    /// within a tokio runtime; reads some small files before it returns.
    pub fn start(dir: &Path, listen: SocketAddr, http: Option<SocketAddr>) -> Result<Tracker, StartError> {
        let certificate_life = DEFAULT_CERTIFICATE_LIFE;
        let (signatures, dht, trackers) = (1, None, Vec::new());
        Self::start_with(dir, StartOptions { listen, http, certificate_life, signatures, dht, trackers })
    }

    /// The same, with all choices.
    pub fn start_with(dir: &Path, options: StartOptions) -> Result<Tracker, StartError> {
        let StartOptions { listen, http, certificate_life, signatures, dht, trackers } = options;
        if !cluster::ca_folder(dir).exists() {
            return Err(StartError::NoCluster(dir.to_owned()));
        }
        let lock = StateLock::take(dir)?;
        let ca = CertificateAuthority::load(&cluster::ca_folder(dir))?;
        let identity = Identity::load(&cluster::identity_folder(dir))?;
        let identity = renewed_if_due(dir, &ca, &identity)?.unwrap_or(identity);
        let publishers = Publishers::load(dir)
            .map_err(|cause| StartError::Publishers { path: crate::publishers::path(dir), cause })?;
        let revoked =
            Revoked::load(dir).map_err(|cause| StartError::Revoked { path: crate::revoked::path(dir), cause })?;
        let roster = Roster::load(dir).map_err(|cause| StartError::Roster { path: dir.to_owned(), cause })?;
        let releases = Releases::open(&dir.join("releases.redb"))?;
        let config = LinkConfig::tracker();
        info!(worst_case_mib = config.worst_case_memory() >> 20, "memory that connections can take is bounded");
        let endpoint = Endpoint::bind_tracker(listen, &identity, config)?;
        endpoint.revoke(&revoked.told());
        let local_addr = endpoint.local_addr().map_err(|cause| BindError::Socket { addr: listen, cause })?;
        let status = http.map(bind_http).transpose()?;

        let (introductions, directory_task) = Introductions::new(DirectoryConfig::default(), seed());
        let server = Arc::new(Server {
            ca,
            tokens: Tokens::in_state(dir),
            certificate_life,
            publishers_told: watch::Sender::new(publishers.all()),
            publishers,
            signatures,
            roster,
            revoked,
            endpoint: endpoint.clone(),
            revocations: broadcast::channel(REVOCATION_BACKLOG).0,
            introductions,
            members: Members::default(),
            news: broadcast::channel(WATCH_BACKLOG).0,
            identity: RwLock::new(identity),
            releases: Mutex::new(releases),
        });
        let accepting = tokio::spawn(server::accept(server.clone(), endpoint.clone()));
        let mut tasks = vec![
            tokio::spawn(directory_task),
            tokio::spawn(upkeep(dir.to_owned(), server.clone(), endpoint.clone())),
            tokio::spawn(follow_lists(server.clone())),
        ];
        let pass = server.ca.cluster_secret().pass();
        tasks.extend(dht.map(|networks| tokio::spawn(dht::run(local_addr, networks, pass, trackers))));
        let http_addr = status.as_ref().map(|(_, addr)| *addr);
        if let Some((listener, _)) = status {
            tasks.push(tokio::spawn(http::serve(Arc::downgrade(&server), listener)));
        }
        Ok(Tracker { server, endpoint, accepting, tasks, local_addr, http_addr, _lock: lock })
    }

    /// Closes all connections, telling why, and stops; its state folder is free then. What was acknowledged is on disk
    /// already, so nothing is lost by not waiting for this.
    pub async fn shutdown(mut self) {
        self.endpoint.close("the tracker shuts down");
        // Who has not heard it by then finds out by silence.
        let _ = timeout(GOODBYE, self.endpoint.wait_idle()).await;
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks.drain(..).chain([std::mem::replace(&mut self.accepting, tokio::spawn(async {}))]) {
            let _ = timeout(GOODBYE, task).await;
        }
    }

    /// Where hosts reach it (UDP).
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where its status is to be had (TCP), if anywhere.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// How many members are connected.
    pub fn members(&self) -> usize {
        self.server.members.count()
    }

    #[cfg(test)]
    pub(crate) fn server_for_tests(&self) -> &Server {
        &self.server
    }

    /// Whether its parts answer; waits at most `patience` for them.
    pub async fn is_alive(&self, patience: Duration) -> bool {
        http::is_alive(&self.server, patience).await
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.accepting.abort();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Renews the tracker's certificate in time, forgets old tokens and parts from members whose time is over.
async fn upkeep(dir: PathBuf, server: Arc<Server>, endpoint: Endpoint) {
    let interval = UPKEEP_INTERVAL.min(server.certificate_life / 4);
    loop {
        server.members.close_expired(unix_now_s());
        let (dir, blocking) = (dir.clone(), server.clone());
        let renewed = spawn_blocking(move || {
            if let Err(error) = blocking.tokens.sweep() {
                warn!(%error, "can't remove old tokens");
            }
            for link in blocking.members.all() {
                blocking.note(&link.member, link.certificate_expires_unix_s);
            }
            if let Err(error) = blocking.roster.sweep(unix_now_s()) {
                warn!(%error, "can't forget members whose certificates have expired");
            }
            let identity = blocking.identity.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            renewed_if_due(&dir, &blocking.ca, &identity)
        });
        match renewed.await {
            Ok(Ok(Some(identity))) => {
                if let Err(error) = endpoint.set_identity(&identity) {
                    warn!(%error, "can't use the tracker's new certificate");
                }
                *server.identity.write().unwrap_or_else(std::sync::PoisonError::into_inner) = identity;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => warn!(%error, "can't renew the tracker's own certificate; trying again later"),
            Err(error) => warn!(%error, "upkeep failed"),
        }
        sleep(interval).await;
    }
}

/// Acts on what commands have changed in the lists of revoked keys and of publishers.
async fn follow_lists(server: Arc<Server>) {
    loop {
        server.shut_out_revoked().await;
        server.tell_of_publishers();
        sleep(LISTS_CHECK).await;
    }
}

fn renewed_if_due(
    dir: &Path,
    ca: &CertificateAuthority,
    identity: &Identity,
) -> Result<Option<Identity>, OwnRenewalError> {
    // Members are to trust, and to be shown, what the CA's folder says now.
    let is_current = identity.roots_der() == ca.roots();
    if is_current && unix_now_s() < identity.renew_after_unix_s() {
        return Ok(None);
    }
    let renewed = cluster::issue_own(ca, identity.key().clone())?;
    renewed.save(&cluster::identity_folder(dir))?;
    info!("renewed the tracker's own certificate");
    Ok(Some(renewed))
}

fn bind_http(addr: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), StartError> {
    let bind = || {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((tokio::net::TcpListener::from_std(listener)?, bound))
    };
    if !addr.ip().is_loopback() {
        warn!(%addr, "status is open to whoever reaches this address");
    }
    bind().map_err(|cause| StartError::Http { addr, cause })
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system's random numbers work");
    u64::from_le_bytes(bytes)
}
