//! Making a cluster, and what the tools need of one that is there.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use drover_link::ca::{CaError, CertificateAuthority, IssueError, MEMBER_DAYS};
use drover_link::durable::{self, WriteError};
use drover_link::identity::{Identity, IdentityError, MemberKey, Role};
use drover_link::member::{HostNameError, check_host_name};
use drover_link::token::{CaPin, JoinToken};
use drover_protocol::id::PublisherKey;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, KeypairBytes};
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use crate::config;
use crate::publishers::{self, Publishers};
use crate::revoked::{self, Revoked};
use crate::tokens::{MintError, Tokens};

/// What the tracker calls itself in its certificate.
const TRACKER_NAME: &str = "tracker";

/// A cluster that was just made.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its state folder.
    pub dir: PathBuf,
    /// Recognises its CA.
    pub pin: CaPin,
    /// The first publisher whom it trusts.
    pub publisher: PublisherKey,
    /// Where that publisher's private key lies (PKCS#8, PEM, 0600).
    pub publisher_key: PathBuf,
}

/// Why no cluster was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Something is there already.
    #[error(
        "{0} exists: a cluster was made here before, or its making was interrupted. A new one would lock out every host \
         of the old one; use another --state, or move the old folder away"
    )]
    Exists(PathBuf),
    /// No cluster can be called that.
    #[error("the cluster's name: {0}")]
    Name(#[from] HostNameError),
    /// The CA can't be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The tracker's certificate can't be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The tracker's identity is no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no cluster to make another tracker of.
    #[error(
        "can't read {path}: {cause}; --cluster wants the state folder of a tracker of the cluster, or a copy of its ca/ \
             and publishers.json"
    )]
    NoCluster {
        /// What should be there.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no cluster.
    #[error("{0} holds no cluster; make one with `drover-tracker init`, or name its folder with --state")]
    NoCluster(PathBuf),
    /// The cluster can't be read.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The token can't be made.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// Why a state folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another tracker runs on it.
    #[error("{0} is used by another tracker that runs now; stop it first, or name another folder with --state")]
    Held(PathBuf),
    /// The lock can't be taken.
    #[error("can't lock {path}: {cause}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// The right to be the one tracker on a state folder; ends when it is dropped, or the process dies.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

/// Makes a cluster in `dir`: its CA, the tracker's certificate and the first publisher's key. Nothing is left behind if
/// it fails. `listen` is noted as the default of `drover-tracker run`.
pub fn init(dir: &Path, listen: SocketAddr) -> Result<Cluster, InitError> {
    init_named(dir, listen, "drover")
}

/// The same, with a name that shows in the CA's certificate.
pub fn init_named(dir: &Path, listen: SocketAddr, name: &str) -> Result<Cluster, InitError> {
    check_host_name(name)?;
    all_or_nothing(dir, || make(dir, listen, name))
}

/// Makes another tracker, in `dir`, of the cluster whose CA and publishers lie in `from`: the state folder of one of its
/// trackers, or a copy of `ca/`, `publishers.json` and, if there is one, `revoked.json` in there, which is all that is
/// read. The new tracker has a key and certificate of its own and no tokens; releases come to it from hosts.
pub fn init_another(dir: &Path, listen: SocketAddr, from: &Path) -> Result<CaPin, InitError> {
    let unreadable = |path: PathBuf| move |cause| InitError::NoCluster { path, cause };
    fs::metadata(ca_folder(from)).map_err(unreadable(ca_folder(from)))?;
    let publishers = Publishers::load(from).map_err(unreadable(publishers::path(from)))?.all();
    let revoked = Revoked::load(from).map_err(unreadable(revoked::path(from)))?.all();
    all_or_nothing(dir, || {
        durable::private_folder(dir)?;
        Publishers::create(dir, &publishers)?;
        if !revoked.is_empty() {
            Revoked::create(dir, &revoked)?;
        }
        let ca = CertificateAuthority::copy(&ca_folder(from), &ca_folder(dir))?;
        finish(dir, listen, &ca)?;
        Ok(ca.pin())
    })
}

/// Runs `make`, unless something is in `dir` already; if it fails, nothing of it is left.
fn all_or_nothing<T>(dir: &Path, make: impl FnOnce() -> Result<T, InitError>) -> Result<T, InitError> {
    let parts = parts(dir);
    if let Some(there) = parts.iter().find(|part| part.exists()) {
        return Err(InitError::Exists(there.clone()));
    }
    let made_dir = !dir.exists();
    make().inspect_err(|_| {
        // What can't be removed is named by the next attempt.
        for part in &parts {
            let _ = if part.is_dir() { fs::remove_dir_all(part) } else { fs::remove_file(part) };
        }
        if made_dir {
            let _ = fs::remove_dir(dir);
        }
    })
}

/// Makes a join token, whether the tracker runs or not.
pub fn new_token(dir: &Path, role: Role, ttl: Duration) -> Result<JoinToken, TokenError> {
    if !ca_folder(dir).exists() {
        return Err(TokenError::NoCluster(dir.to_owned()));
    }
    let pin = CertificateAuthority::load(&ca_folder(dir))?.pin();
    Ok(Tokens::in_state(dir).mint(role, ttl, pin)?)
}

/// A new certificate for the tracker's own key, or its first one.
pub(crate) fn issue_own(ca: &CertificateAuthority, key: Arc<MemberKey>) -> Result<Identity, InitError> {
    let certificate = ca.issue(&key.request(), Role::Tracker, TRACKER_NAME, MEMBER_DAYS)?;
    Ok(Identity::new(key, certificate, ca.roots(), Vec::new(), Vec::new())?)
}

/// Where in a tracker's state folder its CA lies.
pub fn ca_folder(dir: &Path) -> PathBuf {
    dir.join("ca")
}

pub(crate) fn identity_folder(dir: &Path) -> PathBuf {
    dir.join("identity")
}

impl StateLock {
    pub(crate) fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("lock");
        let failed = |cause| LockError::Io { path: path.clone(), cause };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held(dir.to_owned())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

fn parts(dir: &Path) -> [PathBuf; 7] {
    [
        ca_folder(dir),
        identity_folder(dir),
        dir.join("publisher.key"),
        publishers::path(dir),
        revoked::path(dir),
        dir.join("releases.redb"),
        config::default_file(dir),
    ]
}

fn make(dir: &Path, listen: SocketAddr, name: &str) -> Result<Cluster, InitError> {
    durable::private_folder(dir)?;
    let publisher_key = dir.join("publisher.key");
    let publisher = make_publisher(&publisher_key)?;
    Publishers::create(dir, &[publisher])?;
    let ca = CertificateAuthority::create(&ca_folder(dir), name)?;
    finish(dir, listen, &ca)?;
    Ok(Cluster { dir: dir.to_owned(), pin: ca.pin(), publisher, publisher_key })
}

/// What each tracker has of its own.
fn finish(dir: &Path, listen: SocketAddr, ca: &CertificateAuthority) -> Result<(), InitError> {
    durable::create(&config::default_file(dir), config::initial(listen).as_bytes(), durable::PUBLIC)?;
    Ok(issue_own(ca, Arc::new(MemberKey::generate()))?.save(&identity_folder(dir))?)
}

/// Makes a publisher's key pair and writes the private key to `path`.
fn make_publisher(path: &Path) -> Result<PublisherKey, WriteError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).expect("the system's random numbers work");
    let key = SigningKey::from_bytes(&seed);
    // Without the public half, which OpenSSL before 3.2 does not read.
    let bytes = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
    let text = bytes.to_pkcs8_pem(LineEnding::LF).expect("an Ed25519 key can be written as PKCS#8");
    durable::create(path, text.as_bytes(), durable::PRIVATE)?;
    Ok(PublisherKey::from_bytes(key.verifying_key().to_bytes()))
}
