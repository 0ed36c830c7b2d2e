//! One UDP socket that dials and accepts members.
//!
//! An [`Endpoint`] hands out a [`Connection`] only after both sides have proved who they are and agreed on a version, all
//! of it under a deadline. Strangers get no further than a bounded number of handshakes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_protocol::id::PeerId;
use drover_protocol::message::{Hello, PeerMessage};
use drover_protocol::revocation::{Revocation, RevocationList};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;
use tracing::debug;

use crate::close;
use crate::config::{INCOMING_BUFFER, LinkConfig, MAX_HANDSHAKES, RETRY_ABOVE};
use crate::crowd::{Crowd, Place};
use crate::frame::{FrameReceiver, FrameSender};
use crate::handshake::{self, Greeting};
use crate::identity::{Identity, unix_now_s};
use crate::member::{Member, Role, SERVER_NAME};
use crate::tls::{self, ALPN_JOIN, Admission};

pub use crate::handshake::HandshakeError;

/// Dials and accepts members. Clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

/// Whom a dialled address must turn out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// This member.
    Peer(PeerId),
    /// Any tracker of the cluster.
    Tracker,
    /// Any host or publisher of the cluster: only the address is known.
    Host,
}

/// A stranger that knocks.
pub struct Incoming {
    quic: quinn::Incoming,
    slot: Slot,
    shared: Arc<Shared>,
}

/// What a stranger turned out to be.
pub enum Accepted {
    /// A member of the cluster.
    Member(Connection),
    /// A host without a certificate that wants to join; only trackers see these.
    Joining(Joining),
}

/// A connection with a host that is no member yet. It counts as a handshake until it is dropped, so give it a deadline.
pub struct Joining {
    /// The connection; its other side is anybody.
    pub quic: quinn::Connection,
    _slot: Slot,
}

/// A connection between two members, with its control stream.
pub struct Connection {
    link: Link,
    control: (FrameSender<PeerMessage>, FrameReceiver<PeerMessage>),
}

/// A connection between two members, for opening and accepting streams. Clones are the same connection, which closes
/// when the last of them and its streams are dropped.
#[derive(Clone)]
pub struct Link {
    /// The QUIC connection.
    pub quic: quinn::Connection,
    /// Who the other side is.
    pub member: Arc<Member>,
    /// The version of the protocol that both speak.
    pub version: u16,
    /// What the other side calls its program.
    pub agent: Arc<str>,
    /// Until when the certificate that the other side showed is valid, in seconds since 1970 (UTC). TLS looks at it once;
    /// a connection that lives longer is the keeper's to close.
    pub certificate_expires_unix_s: u64,
    _slot: Arc<Slot>,
}

/// Why an endpoint can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address can't be used.
    #[error("can't listen on {addr} (UDP): {cause}")]
    Socket {
        /// Which address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The identity can't be used.
    #[error("this host's certificate can't be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a member can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address can't be dialled.
    #[error("can't dial {addr}: {cause}")]
    Dial {
        /// Which address.
        addr: SocketAddr,
        /// What QUIC said.
        cause: quinn::ConnectError,
    },
    /// Nobody answers.
    #[error("no answer from {0}: is it running, and does UDP to that port get through?")]
    NoAnswer(SocketAddr),
    /// Somebody answers, who does not belong to this cluster.
    #[error("{addr} could not prove to belong to this host's cluster: {cause}")]
    Stranger {
        /// Which address.
        addr: SocketAddr,
        /// What TLS said.
        cause: String,
    },
    /// Another member answers.
    #[error("{addr} is {found}, not the peer {expected} that was to be reached")]
    OtherPeer {
        /// Which address.
        addr: SocketAddr,
        /// Who answers there.
        found: Box<Member>,
        /// Who should.
        expected: PeerId,
    },
    /// A tracker answers where a host was to be reached.
    #[error("{addr} is {found}, which is no host")]
    NoHost {
        /// Which address.
        addr: SocketAddr,
        /// Who answers there.
        found: Box<Member>,
    },
    /// A member answers, but no tracker.
    #[error("{addr} is {found}, which is no tracker")]
    NoTracker {
        /// Which address.
        addr: SocketAddr,
        /// Who answers there.
        found: Box<Member>,
    },
    /// The handshake failed.
    #[error("no connection with {addr}: {cause}")]
    Handshake {
        /// Which address.
        addr: SocketAddr,
        /// How.
        #[source]
        cause: HandshakeError,
    },
}

struct Shared {
    quic: quinn::Endpoint,
    config: LinkConfig,
    admission: Admission,
    hello: Hello,
    client: Mutex<quinn::ClientConfig>,
    revoked: Mutex<RevocationList>,
    members: Arc<AtomicUsize>,
    /// Connections with trackers that were dialled: one for each that the settings name.
    trackers: Arc<AtomicUsize>,
    handshakes: Arc<AtomicUsize>,
    /// The members that dialled this endpoint, and the handshakes of addresses that are proven, by address.
    crowds: (Arc<Crowd>, Arc<Crowd>),
}

/// One of a counted number of places, and of those of an address.
struct Slot {
    count: Arc<AtomicUsize>,
    _place: Option<Place>,
}

impl ConnectError {
    /// The code with which the other side, which is a member, closed the connection before it was one.
    pub fn closed_with(&self) -> Option<quinn::VarInt> {
        match self {
            ConnectError::Handshake {
                cause: HandshakeError::Connection(quinn::ConnectionError::ApplicationClosed(close)),
                ..
            } => Some(close.error_code),
            _ => None,
        }
    }
}

/// What becomes of somebody who knocks.
enum Verdict {
    Refuse(&'static str),
    /// It has to show first that its address is its own.
    Prove,
    LetIn(Option<Place>),
}

impl Endpoint {
    /// Listens on `addr` as an agent: members only, in both directions. Must be called within a tokio runtime.
    pub fn bind(addr: SocketAddr, identity: &Identity, config: LinkConfig) -> Result<Self, BindError> {
        Self::new(addr, identity, config, Admission::Members)
    }

    /// Listens on `addr` as a tracker: members, and hosts that want to join.
    pub fn bind_tracker(addr: SocketAddr, identity: &Identity, config: LinkConfig) -> Result<Self, BindError> {
        Self::new(addr, identity, config, Admission::MembersAndJoining)
    }

    /// From now on, new connections in both directions use this identity; the others go on as they are.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), BindError> {
        let (server, client) = quic_configs(identity, &self.shared.config, self.shared.admission)?;
        self.shared.quic.set_server_config(Some(server));
        *self.shared.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    /// From now on, nobody with one of these keys is taken for a member, in either direction. Gives those that are new;
    /// closing the connections that stand is the caller's.
    pub fn revoke(&self, revocations: &[Revocation]) -> Vec<Revocation> {
        self.shared.revoked().learn(unix_now_s(), revocations)
    }

    /// Whether nobody with this key is taken for a member.
    pub fn is_revoked(&self, peer: PeerId) -> bool {
        self.shared.revoked().is_revoked(unix_now_s(), peer)
    }

    /// All keys that nobody is taken for a member with.
    pub fn revoked(&self) -> Vec<Revocation> {
        self.shared.revoked().all()
    }

    /// Dials a member.
    pub async fn connect(&self, addr: SocketAddr, expect: Expect) -> Result<Connection, ConnectError> {
        let shared = &self.shared;
        let failed = |cause| ConnectError::Handshake { addr, cause };
        let slot = match expect {
            // The cluster's own: a host that is full must hear what is revoked, renew, and be found all the same.
            Expect::Tracker => Slot::new(&shared.trackers, None),
            Expect::Peer(_) | Expect::Host => shared.member_slot(None).map_err(failed)?,
        };
        let client = shared.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connecting =
            shared.quic.connect_with(client, addr, SERVER_NAME).map_err(|cause| ConnectError::Dial { addr, cause })?;
        let connected = timeout(shared.config.connect_timeout, connecting).await;
        let quic = connected.map_err(|_| ConnectError::NoAnswer(addr))?.map_err(|error| dial_error(addr, error))?;
        let shown = handshake::member(&quic).map_err(failed)?;
        shared.check_not_revoked(&quic, &shown.0).map_err(failed)?;
        check_expected(addr, expect, &shown.0).inspect_err(|error| {
            close::close(&quic, close::WRONG_PEER, &error.to_string());
        })?;
        let greeting = shared.within_deadline(&quic, handshake::greet_dialled(&quic, &shared.hello)).await;
        Ok(Connection::new(quic, shown, greeting.map_err(failed)?, slot))
    }

    /// The next stranger that knocks, or `None` once the endpoint is closed. Strangers beyond the limits are turned away
    /// in here, so somebody must always be waiting in it.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let quic = self.shared.quic.accept().await?;
            match self.shared.verdict(&quic) {
                Verdict::Refuse(why) => {
                    debug!(from = %quic.remote_address(), "refused: {why}");
                    quic.refuse();
                }
                // It was just asked whether this may be done; there is nothing to do if not.
                Verdict::Prove => drop(quic.retry()),
                Verdict::LetIn(place) => {
                    let slot = Slot::new(&self.shared.handshakes, place);
                    return Some(Incoming { quic, slot, shared: self.shared.clone() });
                }
            }
        }
    }

    /// Closes all connections and takes no more.
    pub fn close(&self, reason: &str) {
        self.shared.quic.close(close::DONE, reason.as_bytes());
    }

    /// Waits until the other sides know, or had time to learn, that the connections are closed.
    pub async fn wait_idle(&self) {
        self.shared.quic.wait_idle().await;
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.quic.local_addr()
    }

    /// How many connections with members there are, and dials under way, but for trackers.
    pub fn members(&self) -> usize {
        self.shared.members.load(Ordering::Relaxed)
    }

    /// The settings.
    pub fn config(&self) -> &LinkConfig {
        &self.shared.config
    }

    fn new(addr: SocketAddr, identity: &Identity, config: LinkConfig, admission: Admission) -> Result<Self, BindError> {
        let (server, client) = quic_configs(identity, &config, admission)?;
        let quic = open(addr, &config, Some(server)).map_err(|cause| BindError::Socket { addr, cause })?;
        let crowds = (Crowd::of(config.max_connections), Crowd::of(MAX_HANDSHAKES));
        let shared = Shared {
            quic,
            admission,
            hello: Hello { lowest: config.versions.0, highest: config.versions.1, ..Hello::ours(&config.agent) },
            config,
            client: Mutex::new(client),
            revoked: Mutex::default(),
            members: Arc::default(),
            trackers: Arc::default(),
            handshakes: Arc::default(),
            crowds,
        };
        Ok(Endpoint { shared: Arc::new(shared) })
    }
}

impl Incoming {
    /// Where it comes from, as far as its packets say.
    pub fn remote_addr(&self) -> SocketAddr {
        canonical(self.quic.remote_address())
    }

    #[cfg(test)]
    pub(crate) fn address_is_proven(&self) -> bool {
        self.quic.remote_address_validated()
    }

    /// Turns it away unheard.
    pub fn refuse(self) {
        self.quic.refuse();
    }

    /// Finishes the handshake with a member.
    pub async fn handshake(self) -> Result<Connection, HandshakeError> {
        match self.identify().await? {
            Accepted::Member(connection) => Ok(connection),
            Accepted::Joining(joining) => {
                handshake::refuse(&joining.quic, &HandshakeError::NoCertificate);
                Err(HandshakeError::NoCertificate)
            }
        }
    }

    /// Finishes the handshake with a member, or finds out that it is a host that wants to join.
    pub async fn identify(self) -> Result<Accepted, HandshakeError> {
        let Incoming { quic, slot, shared } = self;
        let deadline = shared.config.handshake_timeout;
        let quic = timeout(deadline, quic.accept()?).await.map_err(|_| HandshakeError::TimedOut(deadline))??;
        if handshake::protocol(&quic).as_deref() == Some(ALPN_JOIN) {
            return Ok(Accepted::Joining(Joining { quic, _slot: slot }));
        }
        // Trackers let strangers through TLS so that they can join; with any other protocol they get nothing.
        let shown = handshake::member(&quic).inspect_err(|error| handshake::refuse(&quic, error))?;
        shared.check_not_revoked(&quic, &shown.0)?;
        let place = shared.place_of(quic.remote_address()).inspect_err(|error| handshake::refuse(&quic, error))?;
        let member_slot = shared.member_slot(Some(place)).inspect_err(|error| handshake::refuse(&quic, error))?;
        let greeting = shared.within_deadline(&quic, handshake::greet_accepted(&quic, &shared.hello)).await?;
        Ok(Accepted::Member(Connection::new(quic, shown, greeting, member_slot)))
    }
}

impl Joining {
    /// Where it comes from.
    pub fn remote_addr(&self) -> SocketAddr {
        canonical(self.quic.remote_address())
    }
}

impl Connection {
    fn new(quic: quinn::Connection, shown: (Member, u64), greeting: Greeting, slot: Slot) -> Self {
        let link = Link {
            quic,
            member: Arc::new(shown.0),
            certificate_expires_unix_s: shown.1,
            version: greeting.version,
            agent: greeting.agent.into(),
            _slot: Arc::new(slot),
        };
        Connection { link, control: (FrameSender::new(greeting.send), FrameReceiver::new(greeting.receive)) }
    }

    /// Who the other side is.
    pub fn member(&self) -> &Member {
        &self.link.member
    }

    /// The connection without its control stream.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The connection, and both directions of its control stream. The control stream closes with them: keep them.
    pub fn split(self) -> (Link, FrameSender<PeerMessage>, FrameReceiver<PeerMessage>) {
        (self.link, self.control.0, self.control.1)
    }
}

impl Link {
    /// Where the other side is.
    pub fn remote_addr(&self) -> SocketAddr {
        canonical(self.quic.remote_address())
    }

    /// Closes the connection, with a code of [`close`] and a reason that the other side can show.
    pub fn close(&self, code: quinn::VarInt, reason: &str) {
        close::close(&self.quic, code, reason);
    }
}

impl Shared {
    fn revoked(&self) -> MutexGuard<'_, RevocationList> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection if the other side's key is revoked.
    fn check_not_revoked(&self, quic: &quinn::Connection, member: &Member) -> Result<(), HandshakeError> {
        if !self.revoked().is_revoked(unix_now_s(), member.peer) {
            return Ok(());
        }
        let error = HandshakeError::Revoked(Box::new(member.clone()));
        handshake::refuse(quic, &error);
        Err(error)
    }

    /// Before anything is computed for a stranger.
    fn verdict(&self, quic: &quinn::Incoming) -> Verdict {
        let under_way = self.handshakes.load(Ordering::Relaxed);
        let from = quic.remote_address().ip();
        let (members, handshakes) = &self.crowds;
        let is_crowded = members.is_full(from);
        if under_way >= MAX_HANDSHAKES {
            Verdict::Refuse("too many handshakes")
        } else if !quic.remote_address_validated() {
            let must_prove = (under_way >= RETRY_ABOVE || is_crowded) && quic.may_retry();
            if must_prove { Verdict::Prove } else { Verdict::LetIn(None) }
        } else if is_crowded {
            Verdict::Refuse("its address has all the connections that one may have")
        } else {
            let place = handshakes.enter(from);
            place.map_or(Verdict::Refuse("its address has too many handshakes"), |place| Verdict::LetIn(Some(place)))
        }
    }

    /// A place among the connections of the address that dialled.
    fn place_of(&self, from: SocketAddr) -> Result<Place, HandshakeError> {
        let (members, _) = &self.crowds;
        members.enter(from.ip()).ok_or(HandshakeError::Crowded(members.most()))
    }

    fn member_slot(&self, place: Option<Place>) -> Result<Slot, HandshakeError> {
        let slot = Slot::new(&self.members, place);
        let max = self.config.max_connections;
        if slot.count.load(Ordering::Relaxed) > max { Err(HandshakeError::Full(max)) } else { Ok(slot) }
    }

    /// Closes the connection if the greeting fails or takes too long.
    async fn within_deadline(
        &self,
        quic: &quinn::Connection,
        greeting: impl Future<Output = Result<Greeting, HandshakeError>>,
    ) -> Result<Greeting, HandshakeError> {
        let deadline = self.config.handshake_timeout;
        let result = timeout(deadline, greeting).await.unwrap_or(Err(HandshakeError::TimedOut(deadline)));
        result.inspect_err(|error| handshake::refuse(quic, error))
    }
}

impl Slot {
    fn new(count: &Arc<AtomicUsize>, place: Option<Place>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Slot { count: count.clone(), _place: place }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A quinn endpoint on a socket with large buffers.
pub(crate) fn open(
    addr: SocketAddr,
    config: &LinkConfig,
    server: Option<quinn::ServerConfig>,
) -> io::Result<quinn::Endpoint> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        // `[::]` is to mean both families, whatever the system's default is.
        socket.set_only_v6(addr.ip() != IpAddr::from([0u16; 8]))?;
    }
    // Best effort: without privileges the system gives no more than its own limit.
    for set in [Socket::set_recv_buffer_size, Socket::set_send_buffer_size] {
        if let Err(error) = set(&socket, config.socket_buffer) {
            debug!(%error, "can't enlarge the socket's buffers");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    let mut endpoint = quinn::EndpointConfig::default();
    endpoint
        .max_udp_payload_size(config.max_udp_payload())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    quinn::Endpoint::new(endpoint, server, socket.into(), Arc::new(quinn::TokioRuntime))
}

/// `addr` as IPv4 where it is IPv4 in IPv6's clothes.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn quic_configs(
    identity: &Identity,
    config: &LinkConfig,
    admission: Admission,
) -> Result<(quinn::ServerConfig, quinn::ClientConfig), rustls::Error> {
    let no_suite = |error: quinn::crypto::rustls::NoInitialCipherSuite| rustls::Error::General(error.to_string());
    let server = QuicServerConfig::try_from(tls::server_config(identity, admission)?).map_err(no_suite)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
    server
        .transport_config(config.transport())
        // A few more than are let in: they are told so by `accept`, the rest is ignored.
        .max_incoming(MAX_HANDSHAKES + RETRY_ABOVE)
        .incoming_buffer_size(INCOMING_BUFFER.0)
        .incoming_buffer_size_total(INCOMING_BUFFER.1);
    let client = QuicClientConfig::try_from(tls::client_config(identity)?).map_err(no_suite)?;
    let mut client = quinn::ClientConfig::new(Arc::new(client));
    client.transport_config(config.transport());
    Ok((server, client))
}

fn check_expected(addr: SocketAddr, expect: Expect, found: &Member) -> Result<(), ConnectError> {
    match expect {
        Expect::Peer(expected) if expected != found.peer => {
            Err(ConnectError::OtherPeer { addr, found: Box::new(found.clone()), expected })
        }
        Expect::Tracker if found.role != Role::Tracker => {
            Err(ConnectError::NoTracker { addr, found: Box::new(found.clone()) })
        }
        Expect::Host if found.role == Role::Tracker => {
            Err(ConnectError::NoHost { addr, found: Box::new(found.clone()) })
        }
        _ => Ok(()),
    }
}

fn dial_error(addr: SocketAddr, error: quinn::ConnectionError) -> ConnectError {
    match error {
        quinn::ConnectionError::TimedOut => ConnectError::NoAnswer(addr),
        quinn::ConnectionError::TransportError(cause) if close::alert(cause.code).is_some() => {
            ConnectError::Stranger { addr, cause: cause.to_string() }
        }
        cause => ConnectError::Handshake { addr, cause: HandshakeError::Connection(cause) },
    }
}
