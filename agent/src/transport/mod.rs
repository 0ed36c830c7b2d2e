//! Connections with peers: one for each identity, whoever dialled, shared by all images.
//!
//! Who a peer is comes from its certificate alone; the [`AddressBook`] holds hints. A [`Link`] is known here exactly as long as
//! its task runs, and its end is told to every driver, always after everything else that came by it. When two hosts dial
//! each other at the same time, both keep the connection that the host with the smaller id dialled.
//!
//! A peer that is banned stays out for as long as this process lives; one whose key is revoked stays out.

pub(crate) mod link;
pub(crate) mod router;

use core::fmt;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_link::endpoint::{Connection, Endpoint, Expect, Incoming};
use drover_link::member::Role;
use drover_protocol::discovery::DiscoveryMessage;
use drover_protocol::hints::{AddressBook, DIAL_STAGGER, KnownHost, Source};
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::{MAX_PEERS, PeerAddress, PeerMessage};
use drover_protocol::revocation::Revocation;
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;
use quinn::VarInt;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub(crate) use self::link::Link;
pub(crate) use self::router::{Asked, Event, Router};
use crate::clock;
use crate::discovery::gossip::Gossip;

/// Peers that are dialled at the same time.
const MOST_DIALS: usize = 32;
/// A peer that could not be reached is left alone for so long, doubled with each failure.
const BACKOFF_LEAST: Duration = Duration::from_millis(500);
const BACKOFF_MOST: Duration = Duration::from_secs(5);
/// Two connections made within so long were dialled at the same time from both ends.
const SIMULTANEOUS: Duration = Duration::from_secs(5);
/// Peers whose failures are remembered.
const MOST_FAILURES: usize = 4096;

/// All links of this host. Clones share them.
#[derive(Clone)]
pub(crate) struct Links(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    me: PeerId,
    router: Router,
    gossip: Gossip,
    book: Mutex<AddressBook>,
    table: Mutex<Table>,
    dials: Semaphore,
}

/// A peer that had no room for this host is left alone for so long.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(60);
/// One place in so many is not taken by dialling peers.
const FOR_OTHERS_PART: usize = 4;

#[derive(Debug, Default)]
struct Table {
    links: BTreeMap<PeerId, Link>,
    dialling: BTreeMap<PeerId, Vec<oneshot::Sender<Option<Link>>>>,
    failures: BTreeMap<PeerId, Failures>,
    /// Whom not to let in again, and why.
    banned: BTreeMap<PeerId, String>,
    last_id: u64,
    closing: bool,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    until: Instant,
}

/// Why this side closes a connection. The numbers are QUIC application error codes and never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Closing {
    /// The program ends.
    Shutdown = 0x10,
    /// Nobody uses the connection.
    Unused = 0x11,
    /// There is another connection with the same peer.
    Duplicate = 0x12,
    /// The peer does not read what it is sent.
    NotReading = 0x13,
    /// The peer sent what is no message.
    Malformed = 0x14,
    /// The peer was caught doing what no honest one does.
    Banned = 0x15,
    /// The peer is no host.
    Role = 0x16,
    /// The peer's key is revoked.
    Revoked = 0x17,
    /// Both ends are this host.
    Own = 0x18,
    /// Others need the place more.
    Room = 0x19,
}

impl Links {
    /// Links of the host `me` over `endpoint`; events go to the drivers in `router`, addresses into `book`.
    pub(crate) fn new(endpoint: Endpoint, me: PeerId, router: Router, gossip: Gossip, book: AddressBook) -> Self {
        Links(Arc::new(Inner {
            endpoint,
            me,
            router,
            gossip,
            book: Mutex::new(book),
            table: Mutex::default(),
            dials: Semaphore::new(MOST_DIALS),
        }))
    }

    /// Lets peers in, until the endpoint is closed. It bounds the number of handshakes.
    pub(crate) async fn accept(self) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                incoming = self.0.endpoint.accept() => match incoming {
                    Some(incoming) => { handshakes.spawn(self.clone().let_in(incoming)); }
                    None => return,
                },
                Some(_) = handshakes.join_next() => {}
            }
        }
    }

    /// The link that stands with `peer`, if one does.
    pub(crate) fn standing(&self, peer: PeerId) -> Option<Link> {
        self.table().links.get(&peer).filter(|link| !link.is_closed()).cloned()
    }

    /// All links that stand.
    pub(crate) fn all(&self) -> Vec<Link> {
        self.table().links.values().filter(|link| !link.is_closed()).cloned().collect()
    }

    /// The link with whatever host of the cluster answers at `addr`, of which `source` told; `None` if that is this host
    /// itself. Who dials addresses without a
    /// name bounds their number, so that they do not hold up those of peers.
    pub(crate) async fn reach_addr(&self, addr: SocketAddr, source: Source) -> Result<Option<Link>, String> {
        let connection = match self.0.endpoint.connect(addr, Expect::Host).await {
            // The other end saw it first.
            Err(error) if error.closed_with() == Some(VarInt::from_u32(Closing::Own as u32)) => return Ok(None),
            connected => connected.map_err(|error| error.to_string())?,
        };
        let member = connection.member().clone();
        if member.peer == self.0.me {
            close(&connection, Closing::Own);
            return Ok(None);
        }
        let refused = || format!("{} ({}) at {addr} is not connected with now", member.name, member.peer.short());
        self.register(connection, Some(source)).map(Some).ok_or_else(refused)
    }

    /// This host.
    pub(crate) fn me(&self) -> PeerId {
        self.0.me
    }

    /// The link with `peer`, dialled if there is none; `None` if it can't be reached now.
    pub(crate) async fn reach(&self, peer: PeerId) -> Option<Link> {
        let reached = {
            let mut table = self.table();
            if let Some(link) = table.links.get(&peer).filter(|link| !link.is_closed()) {
                return Some(link.clone());
            }
            if peer == self.0.me
                || table.closing
                || !self.may_dial_peers()
                || !table.may_dial(peer)
                || self.0.endpoint.is_revoked(peer)
            {
                return None;
            }
            let (waiter, reached) = oneshot::channel();
            let waiters = table.dialling.entry(peer).or_default();
            waiters.push(waiter);
            if waiters.len() == 1 {
                tokio::spawn(self.clone().dial(peer));
            }
            reached
        };
        reached.await.ok().flatten()
    }

    /// Remembers where these peers may be reached, as `source` told; gives those that are worth trying.
    pub(crate) fn learn(&self, peers: &[PeerAddress], source: Source) -> Vec<PeerId> {
        let now = clock::now();
        let mut book = self.book();
        let others = || peers.iter().take(MAX_PEERS).filter(|about| about.peer != self.0.me);
        for about in others() {
            book.hint(now, about.peer, &about.addrs, source);
        }
        others().map(|about| about.peer).collect()
    }

    /// Tells a peer about others that exchange `image`, as far as their addresses are known.
    pub(crate) fn introduce(&self, to: &Link, image: ImageId, about: &[PeerId]) {
        let peers = self.addresses(about);
        if !peers.is_empty() {
            to.send(PeerMessage::Peers { image, peers });
        }
    }

    /// The same, also if there is nobody to tell about: that, too, is an answer.
    pub(crate) fn tell_peers(&self, to: &Link, image: ImageId, about: &[PeerId]) {
        to.send(PeerMessage::Peers { image, peers: self.addresses(about) });
    }

    /// Tells a peer about hosts that were reached, whatever they exchange.
    pub(crate) fn tell_hosts(&self, to: &Link) {
        let reachable = self.reachable(&mut Rng::seeded(clock::seed()), MAX_PEERS);
        let others = reachable.into_iter().filter(|&(peer, _)| peer != to.peer());
        let peers = others.map(|(peer, addr)| PeerAddress { peer, addrs: vec![addr] }).collect();
        to.send(PeerMessage::Discovery(DiscoveryMessage::Hosts { peers }));
    }

    /// Some of the hosts that were reached, and where.
    pub(crate) fn reachable(&self, rng: &mut Rng, most: usize) -> Vec<(PeerId, SocketAddr)> {
        self.book().reachable(rng, most)
    }

    /// Some hosts that may be dialled now.
    pub(crate) fn some(&self, rng: &mut Rng, most: usize) -> Vec<PeerId> {
        self.book().some(clock::now(), rng, most)
    }

    /// Places for connections that are taken, and all that there are.
    pub(crate) fn places(&self) -> (usize, usize) {
        (self.0.endpoint.members(), self.0.endpoint.config().max_connections)
    }

    /// Whether this host dials others by itself: a part of its places is for those that dial it.
    fn may_dial_peers(&self) -> bool {
        let (taken, places) = self.places();
        taken < places - places / FOR_OTHERS_PART
    }

    /// Hosts that were connected with this one and may be dialled now, in a random order.
    pub(crate) fn met(&self, rng: &mut Rng) -> Vec<PeerId> {
        self.book().met(clock::now(), rng)
    }

    /// How many hosts there is an address of.
    pub(crate) fn known(&self) -> usize {
        self.book().peer_count()
    }

    /// Hosts that there is an address of and no link with.
    pub(crate) fn away(&self) -> Vec<KnownHost> {
        let now = clock::now();
        let mut known = self.book().known(now);
        known.retain(|host| self.standing(host.peer).is_none());
        known
    }

    /// Who was reached at this address, last.
    pub(crate) fn peer_at(&self, addr: SocketAddr) -> Option<PeerId> {
        self.book().peer_at(addr)
    }

    /// How a peer that was reached had been found.
    pub(crate) fn source(&self, peer: PeerId) -> Option<Source> {
        self.book().source(peer)
    }

    /// Disconnects a peer and never lets it in again.
    pub(crate) fn ban(&self, peer: PeerId, misdeed: String) {
        tracing::warn!(peer = %peer, misdeed, "banned");
        let link = {
            let mut table = self.table();
            table.banned.insert(peer, misdeed);
            table.links.get(&peer).cloned()
        };
        if let Some(link) = link {
            link.close(Closing::Banned);
        }
    }

    /// From now on, nobody with one of these keys is let in or dialled; links with them end. Gives those that are new.
    pub(crate) fn revoke(&self, revocations: &[Revocation]) -> Vec<Revocation> {
        let news = self.0.endpoint.revoke(revocations);
        for revocation in &news {
            tracing::warn!(peer = %revocation.peer, "revoked");
            // After the endpoint knows: what is registered from here on is looked at under this lock.
            let link = self.table().links.get(&revocation.peer).cloned();
            if let Some(link) = link {
                link.close(Closing::Revoked);
            }
        }
        news
    }

    /// Whether nobody is let in with this key.
    pub(crate) fn is_revoked(&self, peer: PeerId) -> bool {
        self.0.endpoint.is_revoked(peer)
    }

    /// All keys that nobody is let in with.
    pub(crate) fn revoked(&self) -> Vec<Revocation> {
        self.0.endpoint.revoked()
    }

    /// Whom not to let in, and why.
    pub(crate) fn banned(&self) -> Vec<(PeerId, String)> {
        self.table().banned.iter().map(|(&peer, misdeed)| (peer, misdeed.clone())).collect()
    }

    /// Makes no more links and ends those that are.
    pub(crate) fn close(&self) {
        let links: Vec<_> = {
            let mut table = self.table();
            table.closing = true;
            table.links.values().cloned().collect()
        };
        for link in links {
            link.close(Closing::Shutdown);
        }
    }

    pub(crate) fn router(&self) -> &Router {
        &self.0.router
    }

    pub(crate) fn gossip(&self) -> &Gossip {
        &self.0.gossip
    }

    async fn let_in(self, incoming: Incoming) {
        match incoming.handshake().await {
            Ok(connection) => {
                self.register(connection, None);
            }
            Err(error) => tracing::debug!(%error, "a connection from outside failed"),
        }
    }

    async fn dial(self, peer: PeerId) {
        let link = match self.dial_addrs(peer).await {
            Some(connection) => self.register(connection, None),
            // The peer may have dialled this host meanwhile, and not kept this side's connection.
            None => self.standing(peer),
        };
        let waiters = {
            let mut table = self.table();
            if link.is_none() {
                table.note_failure(peer);
            }
            table.dialling.remove(&peer).unwrap_or_default()
        };
        for waiter in waiters {
            // Who does not wait any more does not need the link.
            let _ = waiter.send(link.clone());
        }
    }

    /// Dials the peer's addresses, some a little later than those before, and takes the first that answers. What comes to
    /// be known meanwhile is dialled, too.
    async fn dial_addrs(&self, peer: PeerId) -> Option<Connection> {
        let _permit = self.0.dials.acquire().await.ok()?;
        let (mut tried, mut dials) = (Vec::new(), JoinSet::new());
        loop {
            let next = self.book().next_addrs(clock::now(), peer, &tried);
            for addr in next {
                tried.push(addr);
                let endpoint = self.0.endpoint.clone();
                dials.spawn(async move {
                    let dialled = endpoint.connect(addr, Expect::Peer(peer)).await;
                    let dialled =
                        dialled.inspect_err(|error| tracing::debug!(peer = %peer.short(), %error, "can't connect"));
                    dialled.map_err(|_| addr)
                });
            }
            if dials.is_empty() {
                return None;
            }
            tokio::select! {
                Some(dialled) = dials.join_next() => match dialled {
                    Ok(Ok(connection)) => return Some(connection),
                    // Of two dials at the same time one fails, and says nothing against the address.
                    Ok(Err(addr)) if self.standing(peer).is_none() => self.book().failed(clock::now(), peer, addr),
                    Ok(Err(_)) | Err(_) => {}
                },
                () = sleep(DIAL_STAGGER) => {}
            }
        }
    }

    /// Makes a fresh connection the link with its peer, or closes it; gives the link that stands with the peer then.
    /// `told` is who named its address, if no peer was expected there.
    fn register(&self, connection: Connection, told: Option<Source>) -> Option<Link> {
        let member = connection.member();
        let (peer, addr) = (member.peer, connection.link().remote_addr());
        if member.role == Role::Tracker {
            close(&connection, Closing::Role);
            return None;
        }
        let mut table = self.table();
        if self.0.endpoint.is_revoked(peer) {
            drop(table);
            close(&connection, Closing::Revoked);
            return None;
        }
        let stands = table.links.get(&peer).filter(|link| !link.is_closed()).cloned();
        if let Err(why) = table.admits(&connection, stands.as_ref(), self.0.me) {
            drop(table);
            close(&connection, why);
            return stands.filter(|_| why == Closing::Duplicate);
        }
        table.last_id += 1;
        let (link, ends) = Link::new(table.last_id, connection);
        table.links.insert(peer, link.clone());
        table.failures.remove(&peer);
        drop(table);
        if let Some(old) = stands {
            old.close(Closing::Duplicate);
        }
        self.book().reached(clock::now(), peer, addr, told);
        tracing::debug!(peer = %peer.short(), name = link.member().name, %addr, dialled = link.dialled_here(), "linked");
        tokio::spawn(self.clone().run(link.clone(), ends));
        Some(link)
    }

    async fn run(self, link: Link, ends: link::Ends) {
        let greet = self.0.gossip.greet(&link);
        let (_, ()) = tokio::join!(greet, link::run(self.clone(), link.clone(), ends));
        {
            let mut table = self.table();
            if table.links.get(&link.peer()) == Some(&link) {
                table.links.remove(&link.peer());
            }
            if link.was_closed_there(Closing::Room) {
                let until = clock::now() + LEFT_ALONE_FOR;
                table.failures.insert(link.peer(), Failures { count: 1, until });
            }
        }
        if link.was_closed_there(Closing::Banned) {
            let host = &link.member().name;
            tracing::warn!(
                "the host {host} ({}) shut this one out, as for wrong bytes: `drover verify` tells whether a master here is \
                 damaged; it lets this host in again when its own daemon was restarted",
                link.peer().short()
            );
        }
        for driver in self.0.router.drivers() {
            // A driver that has ended uses no link.
            let _ = driver.send(Event::Disconnected(link.clone())).await;
        }
    }

    fn addresses(&self, about: &[PeerId]) -> Vec<PeerAddress> {
        let book = self.book();
        about.iter().take(MAX_PEERS).filter_map(|&peer| book.tell(peer)).collect()
    }

    fn book(&self) -> MutexGuard<'_, AddressBook> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.table().links.values()).finish()
    }
}

impl Table {
    /// Whether a fresh connection becomes the link with its peer, with which `stands` is the link so far.
    fn admits(&self, fresh: &Connection, stands: Option<&Link>, me: PeerId) -> Result<(), Closing> {
        let peer = fresh.member().peer;
        if peer == me {
            return Err(Closing::Own);
        }
        if self.banned.contains_key(&peer) {
            return Err(Closing::Banned);
        }
        if self.closing {
            return Err(Closing::Shutdown);
        }
        let Some(stands) = stands else { return Ok(()) };
        // A host dials only when it has no link: a second dial from the same end, or one long after the first, means
        // that the link that stands is dead and this side has not noticed yet.
        let fresh_dialled_here = fresh.link().quic.side().is_client();
        let simultaneous = stands.dialled_here() != fresh_dialled_here && stands.age() < SIMULTANEOUS;
        let dialler = if fresh_dialled_here { me } else { peer };
        if simultaneous && dialler != me.min(peer) { Err(Closing::Duplicate) } else { Ok(()) }
    }

    fn may_dial(&self, peer: PeerId) -> bool {
        let backed_off = self.failures.get(&peer).is_some_and(|failures| failures.until > clock::now());
        !backed_off && !self.banned.contains_key(&peer)
    }

    fn note_failure(&mut self, peer: PeerId) {
        if self.failures.len() >= MOST_FAILURES {
            let now = clock::now();
            self.failures.retain(|_, failures| failures.until > now);
        }
        let count = self.failures.get(&peer).map_or(0, |failures| failures.count);
        let backoff = (BACKOFF_LEAST * 2u32.pow(count.min(8))).min(BACKOFF_MOST);
        let until = clock::now() + clock::jittered(backoff);
        self.failures.insert(peer, Failures { count: count + 1, until });
    }
}

fn close(connection: &Connection, why: Closing) {
    connection.link().close(VarInt::from_u32(why as u32), why.text());
}

impl Closing {
    /// What the peer is told.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Closing::Shutdown => "this host shuts down",
            Closing::Unused => "nobody uses this connection",
            Closing::Room => "others need the place more",
            Closing::Duplicate => "there is another connection",
            Closing::NotReading => "messages were not read",
            Closing::Malformed => "a message was malformed",
            Closing::Banned => "banned",
            Closing::Own => "this is that host itself",
            Closing::Revoked => "this member was revoked",
            Closing::Role => "only hosts and publishers exchange masters",
        }
    }
}
