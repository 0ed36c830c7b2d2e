//! A node of the cluster's own distributed hash table: where hosts find each other when no tracker answers.
//!
//! It speaks BEP 5 and BEP 44 over UDP and IPv4, on the port after the one for QUIC. What it keeps for others and answers is
//! the `mainline` crate's server, which begins with nobody, never with the crate's public bootstraps: only such a node takes
//! those into its table who ask it, and by itself asks nobody else. Lookups are ours (see `asker`), since the crate's go on
//! for as long as each answer names a node that is nearer, to whatever address. After a lookup a node shows itself to those
//! that answered, so that they know it. Packets from outside of the cluster's networks, or without its pass, are dropped
//! (see `fence`), and none are sent there, but to nodes that the settings name.
//!
//! Nothing here is trusted. A node that lies can name wrong addresses, and is told keys that say nothing to who does not
//! know the cluster's secret; who answers at an address proves by certificate whether it belongs here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_protocol::hints::FOUND_MOST;
use drover_protocol::id::PublisherKey;
use drover_protocol::item::{Item, MAX_VALUE_LEN};
use drover_protocol::krpc::{LONGEST, NodeId, Question, Told};
use drover_protocol::lookup::{KEY_LEN, PASS_LEN};
use drover_protocol::networks::Networks;
use drover_protocol::walk::{NEAREST, Walk};
use futures_util::future::join;
use mainline::async_dht::AsyncDht;
use mainline::{Dht, MutableItem, RequestFilter, RequestSpecific, ServerSettings};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::durable::{self, WriteError};
use crate::kept;

mod asker;
mod contacts;
mod fence;
mod health;
mod pace;
mod socket;

use asker::Asker;
use contacts::Contacts;
use health::Health;
use pace::Pace;

/// After this time a node that was dropped has given up its port.
pub const PORT_FREE: Duration = Duration::from_millis(500);
/// Keys, and hosts for each, that a node keeps for others: 4 MB.
const KEYS_KEPT: usize = 512;
const HOSTS_KEPT: usize = 128;
/// Items that a node keeps for others: as many as a cluster has names, 1.2 MB. The one that nobody asked for longest makes
/// room.
const ITEMS_KEPT: usize = 1024;
/// Values that nobody signed, of which the cluster has none.
const VALUES_KEPT: usize = 1;
/// Nodes that are kept over restarts.
const NODES_KEPT: usize = 64;
/// A node that answers none of so many pings, each after so long, does not hear who asks.
const PINGS: usize = 3;
const PING_WAIT: Duration = Duration::from_secs(1);
/// Addresses that whoever tells any gives before a lookup ends.
const EARLY: usize = 4;
/// Nodes that asked this one with which a lookup begins at the most.
const ASKED_MOST: usize = 64;
/// A file of ours is no longer.
const LONGEST_FILE: u64 = 16 * 1024;

/// What is logged by this filter, but for what the crate says itself unless the filter names it: "could not bootstrap" every two
/// seconds, without a cause, for as long as nobody is known. The status tells that.
pub fn log_filter(filter: &str) -> String {
    if filter.contains("mainline") { filter.to_owned() } else { format!("{filter},mainline=off") }
}

/// What a node is told.
#[derive(Clone, Debug)]
pub struct DhtSettings {
    /// Where it listens.
    pub listen: SocketAddrV4,
    /// Nodes to begin with; a tracker's, which looks up nothing, hears them wherever they are.
    pub bootstraps: Vec<SocketAddrV4>,
    /// Networks that hosts are in.
    pub networks: Networks,
    /// The cluster's, without which nobody is heard.
    pub pass: [u8; PASS_LEN],
}

/// A running node. It ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct DhtNode {
    dht: AsyncDht,
    /// Dropped after the sender of commands, so that the thread sees at once that there are no more.
    pace: Pace,
    health: Health,
    networks: Networks,
    /// Where its questions come from, and as whose.
    ip: Ipv4Addr,
    asker: NodeId,
    bootstraps: Arc<[SocketAddrV4]>,
    contacts: Arc<Mutex<Contacts>>,
}

/// Where the node beside a QUIC endpoint is, by the rule that holds for all members; `None` if there is none, as for IPv6.
pub fn beside(endpoint: SocketAddr) -> Option<SocketAddrV4> {
    match (endpoint.ip().to_canonical(), endpoint.port().checked_add(1)) {
        (IpAddr::V4(ip), Some(port)) => Some(SocketAddrV4::new(ip, port)),
        (IpAddr::V6(ip), Some(port)) if ip.is_unspecified() => Some(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)),
        _ => None,
    }
}

/// Whether a node hears this host, asked from its address `from` on a port of its own, with the cluster's pass. No node takes
/// the asker into its table for it.
pub async fn answers(from: Ipv4Addr, node: SocketAddrV4, pass: [u8; PASS_LEN]) -> io::Result<bool> {
    let socket = UdpSocket::bind((from, 0)).await?;
    socket.connect(node).await?;
    let question = Question::Hosts([0; KEY_LEN]).encode(&asker_with(pass), *b"ping");
    for _ in 0..PINGS {
        // What is wrong may be over at the next try, as when nobody listens there yet.
        let _ = socket.send(&question).await;
        match timeout(PING_WAIT, socket.recv(&mut [0; LONGEST])).await {
            Ok(Ok(_)) => return Ok(true),
            Ok(Err(_)) => sleep(PING_WAIT).await,
            Err(_) => {}
        }
    }
    Ok(false)
}

impl DhtNode {
    /// Starts a node, which has a thread of its own.
    pub fn start(settings: DhtSettings) -> io::Result<Self> {
        let DhtSettings { listen, bootstraps, networks, pass } = settings;
        let server = ServerSettings {
            max_info_hashes: KEYS_KEPT,
            max_peers_per_info_hash: HOSTS_KEPT,
            max_immutable_values: VALUES_KEPT,
            max_mutable_values: ITEMS_KEPT,
            filter: Box::new(OfTheCluster(networks.clone())),
        };
        let mut builder = Dht::builder();
        builder.server_mode().server_settings(server).bind_address(*listen.ip()).port(listen.port());
        // Without this the crate takes public bootstraps.
        builder.no_bootstrap();
        let dht = builder.build()?.as_async();
        let pace = match socket::at(listen) {
            Ok(socket) => {
                // Whom the settings name may be elsewhere.
                let is_elsewhere = |ip: &Ipv4Addr| !networks.contain((*ip).into());
                let named: Vec<Ipv4Addr> = bootstraps.iter().map(|node| *node.ip()).filter(is_elsewhere).collect();
                if let Err(error) = fence::raise(&socket, pace::waker(listen), pass, &networks, &named) {
                    tracing::warn!("the DHT takes packets of strangers: {error}");
                }
                Pace::of(listen, socket)
            }
            Err(error) => {
                tracing::warn!(
                    "the DHT takes packets of strangers, wakes up often, and others do not come to know this host's node: \
                     its socket can't be had: {error}"
                );
                Pace::of_the_crate()
            }
        };
        let (ip, asker, bootstraps) = (*listen.ip(), asker_with(pass), bootstraps.into());
        let (health, contacts) = (Health::default(), Arc::default());
        Ok(DhtNode { dht, pace, health, networks, ip, asker, bootstraps, contacts })
    }

    /// Why this node is of no more use, if it is not: a new one has to be started.
    pub fn problem(&self) -> Option<&'static str> {
        self.health.problem()
    }

    /// Addresses that were announced under a key, at most [`FOUND_MOST`], those in the cluster's networks only, as far as they
    /// were told within ten seconds. A few of whoever tells any go to `early` at once, so that nobody who answers late
    /// keeps others' waiting.
    pub async fn find(&self, key: [u8; KEY_LEN], early: impl Fn(Vec<SocketAddr>)) -> BTreeSet<SocketAddr> {
        self.find_with(key, early).await.0
    }

    /// The same, with what can ask more of those that answered.
    async fn find_with(
        &self,
        key: [u8; KEY_LEN],
        early: impl Fn(Vec<SocketAddr>),
    ) -> (BTreeSet<SocketAddr>, Option<(Asker, Walk)>) {
        let mut told_by: BTreeMap<Ipv4Addr, BTreeSet<SocketAddr>> = BTreeMap::new();
        let walked = self
            .look_up(key, Question::Hosts(key), |node, told| {
                let usable = || told.hosts.iter().filter(|host| self.networks.contain((*host.ip()).into()));
                let by_node = told_by.entry(*node.ip()).or_default();
                if by_node.is_empty() && usable().next().is_some() {
                    early(usable().take(EARLY).copied().map(SocketAddr::V4).collect());
                }
                by_node.extend(usable().copied().map(SocketAddr::V4));
            })
            .await;
        (in_turn(told_by.into_values().collect(), FOUND_MOST), walked)
    }

    /// Announces this host under a key, at the address that others see and this port. The error says why nobody took it. The
    /// lookup that this takes finds addresses as [`DhtNode::find`] does.
    pub async fn announce(
        &self,
        key: [u8; KEY_LEN],
        port: u16,
        early: impl Fn(Vec<SocketAddr>),
    ) -> (BTreeSet<SocketAddr>, Result<(), String>) {
        let (found, walked) = self.find_with(key, early).await;
        let kept = match walked {
            Some((mut asker, walk)) => {
                asker.keep(walk.nearest(), |token| Question::Announce { key, port, token }).await
            }
            None => Err(NO_LOOKUP.to_owned()),
        };
        (found, kept)
    }

    /// Has an item kept by the nodes that are closest to it, unless they have a later one. The error says why nobody took
    /// it.
    pub async fn put(&self, item: &Item) -> Result<(), String> {
        i64::try_from(item.seq).map_err(|_| "its sequence number is too high".to_owned())?;
        if item.value.len() > MAX_VALUE_LEN {
            return Err(format!("its value has {} bytes, and at most {MAX_VALUE_LEN} are kept", item.value.len()));
        }
        self.put_unchecked(item).await
    }

    async fn put_unchecked(&self, item: &Item) -> Result<(), String> {
        let target = target_of(item.publisher, item.salt);
        let (mut asker, walk) = self.look_up(target, Question::Item(target), |_, _| {}).await.ok_or(NO_LOOKUP)?;
        asker.keep(walk.nearest(), |token| Question::Put { target, item, token }).await
    }

    /// The latest of a publisher's items with this salt that any node has. Its signature fits.
    pub async fn get(&self, publisher: PublisherKey, salt: [u8; KEY_LEN]) -> Option<Item> {
        let (target, mut latest) = (target_of(publisher, salt), None::<Item>);
        self.look_up(target, Question::Item(target), |_, told| {
            let item = told.item.clone().and_then(|item| item.signed_with(salt));
            let is_sought = |item: &Item| item.publisher == publisher && item.value.len() <= MAX_VALUE_LEN;
            if let Some(item) = item.filter(is_sought)
                && latest.as_ref().is_none_or(|latest| latest.seq < item.seq)
            {
                latest = Some(item);
            }
        })
        .await;
        latest
    }

    /// Looks up which nodes are near to this one, by which it learns of others, and shows itself to `trackers`, which learn of
    /// it.
    pub async fn look_around(&self, trackers: &[SocketAddrV4]) {
        let Some(own) = self.own_id().await else { return };
        self.greet(&own, trackers.iter().copied());
        self.look_up(own, Question::Hosts(own), |_, _| {}).await;
    }

    /// Shows this node to others, which take it into their tables.
    pub async fn show_to(&self, nodes: &[SocketAddrV4]) {
        if let Some(own) = self.own_id().await {
            self.greet(&own, nodes.iter().copied());
        }
    }

    /// Other nodes that this one knows: those that answered it, and behind them those that asked it. One that was started anew
    /// has another number, and counts once.
    pub async fn nodes(&self) -> Vec<SocketAddrV4> {
        let answered = self.contacts().all(Instant::now()).into_iter().map(|(_, node)| node);
        let mut seen = BTreeSet::new();
        let asked = self.table().await;
        let known = answered.chain(asked).filter(|node| self.networks.contain((*node.ip()).into()));
        known.filter(|node| seen.insert(*node)).collect()
    }

    /// Asks whoever is nearest to `target`, and shows this node to those that answered. Nothing if it can't ask.
    async fn look_up(
        &self,
        target: NodeId,
        question: Question<'_>,
        mut on_told: impl FnMut(SocketAddrV4, &Told),
    ) -> Option<(Asker, Walk)> {
        let own = self.own_id().await?;
        let mut walk = self.begin(target, &own).await;
        let asker = Asker::new(self.ip, self.asker, Arc::clone(&self.contacts)).await;
        let mut asker = asker.inspect_err(|error| tracing::debug!(%error, "the DHT can't be asked")).ok()?;
        let mut answered = Vec::new();
        let may_be = |node: &SocketAddrV4| self.networks.contain((*node.ip()).into());
        asker
            .walk(&mut walk, question, may_be, |node, told| {
                if told.id != own {
                    self.contacts().answered(Instant::now(), node, told.id);
                    answered.push(node);
                }
                on_told(node, told);
            })
            .await;
        self.greet(&own, answered.into_iter());
        Some((asker, walk))
    }

    /// A lookup that begins with nodes that have answered, and with all that are known while these are at few addresses or it
    /// is this node that is looked up.
    async fn begin(&self, target: NodeId, own: &NodeId) -> Walk {
        let mut walk = Walk::new(target);
        let answered = self.contacts().all(Instant::now());
        for (id, node) in &answered {
            walk.begin_with(*id, *node);
        }
        let addresses: BTreeSet<&Ipv4Addr> = answered.iter().map(|(_, node)| node.ip()).collect();
        if addresses.len() < NEAREST || target == *own {
            let asked = self.table().await.into_iter().take(ASKED_MOST);
            self.bootstraps.iter().copied().chain(asked).for_each(|node| walk.begin_at(node));
        }
        walk
    }

    /// Asks these nodes from this one's own socket, by which they take it into their tables.
    fn greet(&self, own: &NodeId, nodes: impl Iterator<Item = SocketAddrV4>) {
        // The crate takes no answer to a question that it did not ask.
        let question = Question::NearMe(*own).encode(&self.asker, [0xff; 4]);
        nodes.for_each(|node| self.pace.send(&question, node));
    }

    /// Nodes in the crate's table: those that asked this one lately.
    async fn table(&self) -> Vec<SocketAddrV4> {
        let table = self.health.ask(async { self.woken(self.dht.to_bootstrap()).await }).await.unwrap_or_default();
        let nodes = table.iter().filter_map(|text| text.parse::<SocketAddrV4>().ok());
        nodes.filter(|node| self.networks.contain((*node.ip()).into())).collect()
    }

    async fn own_id(&self) -> Option<NodeId> {
        self.health.ask(async { *self.woken(self.dht.info()).await.id().as_bytes() }).await
    }

    fn contacts(&self) -> MutexGuard<'_, Contacts> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a command gives that is sent when it is first polled.
    async fn woken<T>(&self, command: impl Future<Output = T>) -> T {
        join(command, async { self.pace.wake() }).await.0
    }
}

/// An id to ask with.
fn asker_with(pass: [u8; PASS_LEN]) -> NodeId {
    let mut id = NodeId::default();
    getrandom::fill(&mut id[PASS_LEN..]).expect("the kernel gives random bytes");
    id[..PASS_LEN].copy_from_slice(&pass);
    id
}

/// By what an item is found (BEP 44).
fn target_of(publisher: PublisherKey, salt: [u8; KEY_LEN]) -> NodeId {
    *MutableItem::target_from_key(publisher.as_bytes(), Some(&salt)).as_bytes()
}

/// One of each in turn, at most so many, so that nobody who tells many leaves no room for the others.
fn in_turn(told: Vec<BTreeSet<SocketAddr>>, most: usize) -> BTreeSet<SocketAddr> {
    let mut told: Vec<_> = told.into_iter().map(BTreeSet::into_iter).collect();
    let mut found = BTreeSet::new();
    while found.len() < most && !told.is_empty() {
        told.retain_mut(|hosts| match hosts.next() {
            Some(host) if found.len() < most => {
                found.insert(host);
                true
            }
            _ => false,
        });
    }
    found
}

/// The nodes in these networks that [`save_nodes`] kept; none if the file is missing or damaged, which is logged and costs a
/// slower start.
pub fn load_nodes(path: &Path, networks: &Networks) -> Vec<SocketAddrV4> {
    let kept: Vec<SocketAddrV4> = kept::load(path, LONGEST_FILE).unwrap_or_default();
    kept.into_iter().filter(|node| networks.contain((*node.ip()).into())).take(NODES_KEPT).collect()
}

/// Keeps these nodes over a restart, and behind them those that were kept before, as far as there is room: a host that
/// comes up while most others are down is not to forget them.
pub fn save_nodes(path: &Path, networks: &Networks, nodes: &[SocketAddrV4]) -> Result<(), WriteError> {
    let mut kept = nodes.to_vec();
    kept.extend(load_nodes(path, networks).into_iter().filter(|node| !nodes.contains(node)));
    kept.truncate(NODES_KEPT);
    let json = serde_json::to_vec(&kept).expect("addresses are plain JSON");
    durable::replace(path, &json, durable::PRIVATE)
}

const NO_LOOKUP: &str = "the node can't ask others";

/// Lets in requests from the cluster's networks only.
#[derive(Clone, Debug)]
struct OfTheCluster(Networks);

impl RequestFilter for OfTheCluster {
    fn allow_request(&self, _request: &RequestSpecific, from: SocketAddrV4) -> bool {
        self.0.contain((*from.ip()).into())
    }
}

#[cfg(test)]
mod tests;
