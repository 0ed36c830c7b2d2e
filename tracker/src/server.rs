//! What all connections share, and the loop that accepts them.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use drover_link::ca::CertificateAuthority;
use drover_link::close;
use drover_link::endpoint::{Accepted, Endpoint, HandshakeError, Incoming};
use drover_link::identity::{Identity, unix_now_s};
use drover_link::member::Member;
use drover_protocol::announce::MAX_REFUSAL_LEN;
use drover_protocol::id::{PeerId, PublisherKey};
use drover_protocol::release::{Name, Release, SignedRelease, Trust};
use drover_protocol::revocation::Revocation;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::introductions::Introductions;
use crate::members::Members;
use crate::publishers::Publishers;
use crate::releases::{PostError, Posted, Releases};
use crate::revoked::Revoked;
use crate::roster::Roster;
use crate::tokens::Tokens;
use crate::{joining, session};

/// What all connections share.
pub(crate) struct Server {
    pub(crate) ca: CertificateAuthority,
    pub(crate) tokens: Tokens,
    /// How long certificates of members are good for.
    pub(crate) certificate_life: Duration,
    pub(crate) publishers: Publishers,
    /// Whom it trusts, for those who watch.
    pub(crate) publishers_told: watch::Sender<Vec<PublisherKey>>,
    /// How many of them have to sign a release.
    pub(crate) signatures: usize,
    pub(crate) roster: Roster,
    pub(crate) revoked: Revoked,
    /// Turns away those whose keys are revoked.
    pub(crate) endpoint: Endpoint,
    /// Keys that come to be revoked, for those who watch.
    pub(crate) revocations: broadcast::Sender<Vec<Revocation>>,
    pub(crate) introductions: Introductions,
    pub(crate) members: Members,
    /// Each new release, for those who watch.
    pub(crate) news: broadcast::Sender<SignedRelease>,
    pub(crate) identity: RwLock<Identity>,
    /// Held while a release is written: one at a time, and whoever reads meanwhile waits for a disk's moment.
    pub(crate) releases: Mutex<Releases>,
}

impl Server {
    /// Keeps a release and tells everybody who watches. Blocks for the disk.
    pub(crate) fn post(&self, signed: &SignedRelease) -> Result<(Release, Posted), PostError> {
        let (mut releases, publishers) = (self.releases(), self.publishers.all());
        let (release, posted) =
            releases.post(signed, Trust { publishers: &publishers, signatures: self.signatures }, unix_now_s())?;
        if posted == Posted::New {
            // Under the lock, so that watchers hear versions in their order. Nobody may be watching.
            let _ = self.news.send(signed.clone());
        }
        Ok((release, posted))
    }

    /// The newest release of each of these names, or of all.
    pub(crate) fn newest(&self, names: &[Name]) -> Vec<SignedRelease> {
        self.releases().newest(names, unix_now_s())
    }

    /// Tells everybody who watches of publishers who came or went since this was called last. Blocks for the disk.
    pub(crate) fn tell_of_publishers(&self) {
        let now = self.publishers.all();
        self.publishers_told.send_if_modified(|told| {
            let is_news = *told != now;
            *told = now;
            is_news
        });
    }

    /// Shuts out those who were revoked since this was called last, and tells everybody who watches.
    pub(crate) async fn shut_out_revoked(&self) {
        let news = self.endpoint.revoke(&self.revoked.told());
        for revocation in &news {
            info!(peer = %revocation.peer, "revoked");
            self.members.close(revocation.peer, close::REVOKED, "this host was revoked");
            self.introductions.leave(revocation.peer).await;
        }
        if !news.is_empty() {
            // Nobody may be watching.
            let _ = self.revocations.send(news);
        }
    }

    /// Notes that a member has a certificate until then, so that it can be named. Blocks for the disk.
    pub(crate) fn note(&self, member: &Member, expires_unix_s: u64) {
        if let Err(error) = self.roster.note(member, expires_unix_s) {
            warn!(%member, %error, "can't note a member; it can be revoked by its key only");
        }
    }

    /// Whether the key of a member, or of who wants to be one, is revoked.
    pub(crate) fn is_revoked(&self, peer: PeerId) -> bool {
        self.endpoint.is_revoked(peer)
    }

    /// The releases, once nobody else has them.
    pub(crate) fn releases(&self) -> MutexGuard<'_, Releases> {
        self.releases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts until the endpoint is closed, and ends all connections' tasks with it.
pub(crate) async fn accept(server: Arc<Server>, endpoint: Endpoint) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => drop(connections.spawn(meet(server.clone(), incoming))),
                None => return connections.shutdown().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn meet(server: Arc<Server>, incoming: Incoming) {
    let from = incoming.remote_addr();
    match incoming.identify().await {
        Ok(Accepted::Member(connection)) => session::serve(server, connection).await,
        Ok(Accepted::Joining(joining)) => joining::serve(server, joining).await,
        Err(HandshakeError::Connection(_)) => debug!(%from, "a handshake broke off"),
        Err(error) => debug!(%from, %error, "turned away"),
    }
}

/// The text of a refusal, no longer than one may be.
pub(crate) fn refusal(error: &impl Display) -> String {
    let mut text = error.to_string();
    let end = (0..=MAX_REFUSAL_LEN).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.truncate(end);
    text
}
