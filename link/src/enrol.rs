//! How a host becomes a member, and stays one.
//!
//! A host that joins makes its key, dials the tracker that its administrator named, recognises the CA by the token's pin
//! and the tracker by its role, and only then sends the token. Nothing is written before the certificate that came back
//! was found to be for this key and from that CA. Renewal asks any tracker, as a member. A host whose certificate has
//! expired is no member any more: it joins again, with a new token and the key that it has.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use drover_protocol::announce::{Enrolment, JoinReply, JoinRequest, TrackerReply, TrackerRequest};
use drover_protocol::id::PublisherKey;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;

use crate::close;
use crate::config::LinkConfig;
use crate::durable::WriteError;
use crate::endpoint::{Link, canonical, open};
use crate::frame::{RequestError, request};
use crate::handshake;
use crate::identity::{Identity, IdentityError, MemberKey, unix_now_s};
use crate::member::{HostNameError, Member, Role, SERVER_NAME, check_host_name};
use crate::tls;
use crate::token::JoinToken;

/// How long a tracker may take to answer. It writes to its disk before it does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the tracker is waited for to hear that this host has its answer.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a host needs in order to join.
pub struct JoinOptions<'a> {
    /// Where a tracker is, "host:port".
    pub tracker: &'a str,
    /// The token that the tracker gave out.
    pub token: &'a JoinToken,
    /// What the host is to be called: 1 to 64 of `a-z 0-9 . _ -`.
    pub name: &'a str,
    /// The key that it will sign releases with; needed with a publisher's token.
    pub publisher: Option<PublisherKey>,
}

/// Why a host has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has joined before, and could still renew; or it was another cluster that it joined.
    #[error(
        "{0} already holds an identity, which is not expired or not of this cluster; to join anew, stop the daemon and \
         remove that folder first"
    )]
    AlreadyJoined(PathBuf),
    /// No host can be called that.
    #[error(transparent)]
    Name(#[from] HostNameError),
    /// A publisher's token, but no key to publish with.
    #[error("this token is for a publisher; a publisher's key must be given with it")]
    NoPublisherKey,
    /// The tracker's name leads nowhere.
    #[error("can't find the tracker {tracker:?}: {cause}; give it as host:port")]
    Resolve {
        /// As it was given.
        tracker: String,
        /// What the system said.
        cause: io::Error,
    },
    /// No socket.
    #[error("can't open a UDP socket: {0}")]
    Socket(io::Error),
    /// Nobody answers.
    #[error(
        "no answer from tracker {0}: is `drover-tracker run` running there, and does UDP to that port get through?"
    )]
    NoAnswer(String),
    /// Somebody answers, who is not of the cluster that gave out the token.
    #[error(
        "{0} is not the tracker that gave out this token (its CA does not have the token's pin): check the address, get \
         a new token if the cluster was made anew, and suspect that somebody is in between"
    )]
    OtherCluster(String),
    /// A member of the cluster answers, but no tracker.
    #[error("{tracker} is {found}, which is no tracker; the token was not sent")]
    NoTracker {
        /// As it was given.
        tracker: String,
        /// Who answers there.
        found: Member,
    },
    /// The connection did not come about, and the token was not used.
    #[error("no connection with tracker {tracker}: {reason}")]
    Connection {
        /// As it was given.
        tracker: String,
        /// Why.
        reason: String,
    },
    /// The connection broke after the token was sent.
    #[error("tracker {tracker} did not answer: {reason}; the token may be used up, get a new one")]
    NoReply {
        /// As it was given.
        tracker: String,
        /// Why.
        reason: String,
    },
    /// The tracker says no, and why.
    #[error("the tracker refused: {0}")]
    Refused(String),
    /// An identity is there that can't be read.
    #[error(transparent)]
    Unreadable(IdentityError),
    /// The tracker said yes, but what it sent is no use.
    #[error("the tracker's answer can't be used: {0}")]
    BadEnrolment(#[from] IdentityError),
    /// The identity can't be written.
    #[error("joined, but {0}; the token is used up: make room and get a new one")]
    Save(#[from] WriteError),
}

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// No answer.
    #[error("the tracker did not answer: {0}")]
    Request(#[from] RequestError),
    /// No answer in time.
    #[error("the tracker did not answer within {ANSWER_TIMEOUT:?}")]
    TimedOut,
    /// The tracker says no, and why.
    #[error("the tracker refused: {0}")]
    Refused(String),
    /// An answer to another question.
    #[error("the tracker answered another question")]
    OtherAnswer,
    /// What it sent is no use.
    #[error("the tracker's answer can't be used: {0}")]
    BadEnrolment(#[from] IdentityError),
}

/// Joins the cluster that gave out the token and saves the new identity in `dir`. If an identity of the same cluster is
/// there that has expired, it gets a new certificate: key and trackers stay. Must be called within a tokio runtime.
pub async fn join(options: &JoinOptions<'_>, dir: &Path) -> Result<Identity, JoinError> {
    let expired = if Identity::exists(dir) { Some(expired(dir, options.token)?) } else { None };
    check_host_name(options.name)?;
    if options.token.role() == Role::Publisher && options.publisher.is_none() {
        return Err(JoinError::NoPublisherKey);
    }
    let key = expired.as_ref().map_or_else(|| Arc::new(MemberKey::generate()), |identity| identity.key().clone());
    let (connection, endpoint) = reach(options).await?;
    let enrolment = ask(&connection, options, &key).await;
    close::close(&connection, close::DONE, "");
    // Else a program that ends now would leave the tracker waiting.
    let _ = timeout(GOODBYE, endpoint.wait_idle()).await;
    let Enrolment { certificate, ca, publishers } = enrolment?;
    let mut trackers = vec![options.tracker.to_owned()];
    let known = expired.iter().flat_map(Identity::trackers);
    trackers.extend(known.filter(|tracker| *tracker != options.tracker).cloned());
    let identity = Identity::new(key, certificate, ca, publishers, trackers)?;
    if identity.ca_pin() != options.token.pin() {
        return Err(JoinError::OtherCluster(options.tracker.to_owned()));
    }
    identity.save(dir)?;
    Ok(identity)
}

/// The identity in `dir`, if a token may replace it.
fn expired(dir: &Path, token: &JoinToken) -> Result<Identity, JoinError> {
    let identity = Identity::load(dir).map_err(JoinError::Unreadable)?;
    if identity.expires_unix_s() < unix_now_s() && identity.trusts(token.pin()) {
        return Ok(identity);
    }
    Err(JoinError::AlreadyJoined(dir.to_owned()))
}

/// A new certificate for the same key from the tracker at the other end of `link`. The caller saves it and tells its
/// endpoint.
pub async fn renew(link: &Link, identity: &Identity) -> Result<Identity, RenewError> {
    let question = TrackerRequest::Renew { csr: identity.key().request() };
    let answer = timeout(ANSWER_TIMEOUT, request(&link.quic, &question)).await.map_err(|_| RenewError::TimedOut)??;
    match answer {
        TrackerReply::Renewed(Enrolment { certificate, ca, publishers }) => {
            Ok(identity.renewed(certificate, ca, publishers)?)
        }
        TrackerReply::Refused(why) => Err(RenewError::Refused(why)),
        _ => Err(RenewError::OtherAnswer),
    }
}

/// A connection with the tracker that gave out the token, and with nobody else.
async fn reach(options: &JoinOptions<'_>) -> Result<(quinn::Connection, quinn::Endpoint), JoinError> {
    let resolve = |cause| JoinError::Resolve { tracker: options.tracker.to_owned(), cause };
    let addrs: Vec<_> = tokio::net::lookup_host(options.tracker).await.map_err(resolve)?.collect();
    let mut last = resolve(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    for addr in addrs.into_iter().take(8) {
        match dial(addr, options).await {
            Ok(reached) => return Ok(reached),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn dial(addr: SocketAddr, options: &JoinOptions<'_>) -> Result<(quinn::Connection, quinn::Endpoint), JoinError> {
    let tracker = || options.tracker.to_owned();
    let failed = |reason: String| JoinError::Connection { tracker: tracker(), reason };
    let config = LinkConfig::default();
    let any = if addr.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0u16; 8], 0)) };
    let endpoint = open(any, &config, None).map_err(JoinError::Socket)?;
    let (tls, pin_missed) = tls::joining_config(options.token.pin()).map_err(|error| failed(error.to_string()))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| failed(error.to_string()))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(config.transport());
    let connecting =
        endpoint.connect_with(client, canonical(addr), SERVER_NAME).map_err(|error| failed(error.to_string()))?;
    let connected = timeout(config.handshake_timeout, connecting).await;
    let connection = match connected {
        Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => return Err(JoinError::NoAnswer(tracker())),
        Ok(Err(_)) if pin_missed.load(Ordering::Relaxed) => return Err(JoinError::OtherCluster(tracker())),
        Ok(Err(error)) => return Err(failed(close::reason(&error))),
        Ok(Ok(connection)) => connection,
    };
    // Any member could show the CA's certificate; only a tracker may have the token.
    let (found, _) = handshake::member(&connection).map_err(|error| failed(error.to_string()))?;
    if found.role != Role::Tracker {
        close::close(&connection, close::WRONG_PEER, "a tracker was to be reached");
        return Err(JoinError::NoTracker { tracker: tracker(), found });
    }
    Ok((connection, endpoint))
}

async fn ask(
    connection: &quinn::Connection,
    options: &JoinOptions<'_>,
    key: &MemberKey,
) -> Result<Enrolment, JoinError> {
    let no_reply = |reason: String| JoinError::NoReply { tracker: options.tracker.to_owned(), reason };
    let question = JoinRequest {
        token: *options.token.secret(),
        csr: key.request(),
        host: options.name.to_owned(),
        publisher: options.publisher,
    };
    let answer = timeout(ANSWER_TIMEOUT, request(connection, &question)).await;
    match answer.map_err(|_| no_reply("it took too long".to_owned()))? {
        Ok(JoinReply::Joined(enrolment)) => Ok(enrolment),
        Ok(JoinReply::Refused(why)) => Err(JoinError::Refused(close::shown(why.as_bytes()))),
        Err(error) => Err(no_reply(connection.close_reason().map_or(error.to_string(), |why| close::reason(&why)))),
    }
}
