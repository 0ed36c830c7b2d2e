//! The task of this host's node in the cluster's hash table.
//!
//! It announces what this host exchanges, and looks up what has few neighbours here; both also under a key for the cluster
//! as such, so that a host that exchanges nothing finds others by which it hears of releases. What it finds are
//! addresses: whoever answers there by QUIC and belongs to the cluster is a candidate, others cost a dial now and then.
//!
//! It also looks up releases, mostly while no tracker tells of them, and puts those into the table that it lacks (see
//! [`items`](super::items)). What it finds is told on like what a peer tells.
//!
//! The node begins with trackers and with hosts of the settings, of the last run and of the address book, each one port
//! after its own. Nodes that it knew are kept in `STATE/dht.json`. One that knows nobody for a while is started anew with
//! the addresses that are known by then, and so is one whose thread has ended. Nodes know who shows itself to them: this
//! one does so to trackers when it announces, and at once when a tracker has come back, and to whom its lookups ask.

mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_link::dht::{DhtNode, DhtSettings, PORT_FREE, beside, load_nodes, save_nodes};
use drover_protocol::hints::{FEW_NEIGHBOURS, FOUND_MOST, LookupPace, Source, Strangers};
use drover_protocol::id::ImageId;
use drover_protocol::item::Item;
use drover_protocol::lookup::ClusterSecret;
use drover_protocol::networks::Networks;
use drover_protocol::rng::Rng;
use futures_util::future::join;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::items::{Held, Items, Wanted};
use super::secret::Secret;
use super::{Announcements, addresses};
use crate::clock;
use crate::store::Store;
use crate::transfer::workers::Workers;
use crate::transport::{Event, Links, Router};
use turns::Turns;

/// How often it is looked what is due.
const LOOK: Duration = Duration::from_secs(1);
/// What is announced is announced again so often, and as soon as twice as many nodes are known: those that took it were few,
/// and others are closer.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(600);
/// The cluster after this time already, three times as late each time, since with it this host looks around for nodes.
const LOOK_AROUND_FIRST: Duration = Duration::from_secs(5);
/// What nobody took is announced again so soon.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(2);
/// Announces that are under way at a time, and as many lookups.
const AT_ONCE: usize = 4;
/// Hosts of the address book beside which there may be nodes to begin with.
const BESIDE_MOST: usize = 32;
/// When it is tried again to listen.
const LISTEN_AGAIN: Duration = Duration::from_secs(60);
/// A node that knows nobody for so long is started anew, if there is somebody to begin with.
const ALONE_MOST: Duration = Duration::from_secs(20);
/// A node that is ill is given up for a new one, but for none that is younger.
const NEW_NODE_AFTER: Duration = Duration::from_secs(10);
/// Nodes to begin with at the most.
const BEGIN_MOST: usize = 128;
/// How often it is looked how many nodes are known.
const LOOK_AT_NODES: Duration = Duration::from_secs(5);
/// How soon nodes are kept, and how often after that; also as soon as there are twice as many.
const KEEP_FIRST: Duration = Duration::from_secs(5);
const KEEP_EVERY: Duration = Duration::from_secs(300);

/// How this host's node stands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DhtStatus {
    /// Where it listens, if it runs.
    pub listen: Option<SocketAddrV4>,
    /// Nodes that it knows.
    pub nodes: usize,
    /// Why it does not run.
    pub problem: Option<String>,
    /// How often it was given up for a new one since its thread had ended.
    #[serde(default)]
    pub restarts: u32,
}

/// What the task needs.
pub(crate) struct Parts {
    pub(crate) links: Links,
    pub(crate) router: Router,
    pub(crate) announcements: Announcements,
    pub(crate) workers: Workers,
    pub(crate) store: Store,
    pub(crate) items: Items,
    pub(crate) secret: Secret,
    /// Trackers and hosts of the settings, "host:port".
    pub(crate) named: Vec<String>,
    /// Where this host listens for QUIC.
    pub(crate) listen: SocketAddr,
    /// The node's port, if it is not the usual one.
    pub(crate) port: Option<u16>,
    pub(crate) networks: Networks,
    /// Where nodes are kept.
    pub(crate) file: PathBuf,
    pub(crate) status: Arc<Mutex<DhtStatus>>,
}

/// What hosts are found under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Sought {
    Cluster,
    Image(ImageId),
}

/// What is done about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Work {
    Announce,
    Find,
}

/// How it stands with what is announced.
#[derive(Clone, Copy, Debug)]
struct Announced {
    again_at: Instant,
    /// Nodes that were known when it was announced last.
    nodes: usize,
}

impl Announced {
    /// Whether it is to be announced, now that so many nodes are known.
    fn is_due(&self, now: Instant, nodes: usize) -> bool {
        self.again_at <= now || nodes >= 2 * self.nodes.max(1)
    }
}

/// What has ended.
enum Done {
    Announced(Sought, BTreeSet<SocketAddr>, Result<(), String>),
    Found(Sought, BTreeSet<SocketAddr>),
    /// The latest item of a release, and what became of this host's own if the table lacked it.
    LookedUp(Wanted, Option<Item>, Result<(), String>),
    Dialled(SocketAddr, bool),
}

struct Task {
    parts: Parts,
    secret: ClusterSecret,
    node: DhtNode,
    rng: Rng,
    /// Nodes that were known when it was looked last.
    nodes: usize,
    /// How often this host has looked around.
    looked_around: u32,
    announced: BTreeMap<Sought, Announced>,
    finding: BTreeMap<Sought, LookupPace>,
    /// Trackers that can be reached.
    reachable: watch::Receiver<u32>,
    /// What is under way.
    busy: BTreeSet<(Sought, Work)>,
    /// Hosts that a lookup has found before its end.
    early: mpsc::UnboundedSender<(Sought, Vec<SocketAddr>)>,
    found_early: mpsc::UnboundedReceiver<(Sought, Vec<SocketAddr>)>,
    strangers: Strangers<Sought>,
    releases: Turns,
    under_way: JoinSet<Done>,
}

/// Runs until dropped.
pub(crate) async fn run(mut parts: Parts) {
    say(&parts, |status| status.problem = Some(parts.secret.why_unknown().to_owned()));
    let secret = parts.secret.known().await;
    // The port before the node's.
    let port = parts.port.map_or(parts.listen.port(), |port| port.saturating_sub(1));
    let Some(listen) = beside(SocketAddr::new(parts.listen.ip(), port)) else {
        return say(&parts, |status| status.problem = Some("it needs an IPv4 address to listen on".to_owned()));
    };
    say(&parts, |status| status.problem = Some("it looks for nodes to begin with".to_owned()));
    loop {
        let bootstraps = bootstraps(&parts, listen).await;
        if bootstraps.is_empty() {
            say(&parts, |status| status.problem = Some("no tracker and no host is known to begin with".to_owned()));
            sleep(KEEP_FIRST).await;
            continue;
        }
        let settings = DhtSettings {
            listen,
            bootstraps: bootstraps.clone(),
            networks: parts.networks.clone(),
            pass: secret.pass(),
        };
        let node = match DhtNode::start(settings) {
            Ok(node) => node,
            Err(error) => {
                tracing::warn!(
                    "no DHT: can't listen on {listen} (UDP): {error}; the setting dht_port takes another port"
                );
                say(&parts, |status| status.problem = Some(format!("can't listen on {listen}: {error}")));
                sleep(LISTEN_AGAIN).await;
                continue;
            }
        };
        say(&parts, |status| (status.listen, status.nodes, status.problem) = (Some(listen), 0, None));
        parts = Task::new(parts, secret, node).run(listen, &bootstraps).await;
        sleep(PORT_FREE).await;
    }
}

fn say(parts: &Parts, change: impl FnOnce(&mut DhtStatus)) {
    change(&mut parts.status.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Nodes to begin with.
async fn bootstraps(parts: &Parts, own: SocketAddrV4) -> Vec<SocketAddrV4> {
    let (file, networks) = (parts.file.clone(), parts.networks.clone());
    let kept = parts.workers.run(move || load_nodes(&file, &networks)).await;
    let mut found: BTreeSet<SocketAddrV4> = kept.into_iter().chain(beside_named(&parts.named).await).collect();
    let hosts = parts.links.reachable(&mut Rng::seeded(clock::seed()), BESIDE_MOST);
    found.extend(hosts.into_iter().filter_map(|(_, addr)| beside(addr)));
    found.remove(&own);
    let mut found: Vec<SocketAddrV4> = found.into_iter().collect();
    if found.len() > BEGIN_MOST {
        Rng::seeded(clock::seed()).shuffle(&mut found);
        found.truncate(BEGIN_MOST);
    }
    found
}

/// Where the nodes of trackers and hosts of the settings are.
async fn beside_named(named: &[String]) -> Vec<SocketAddrV4> {
    addresses(named).await.into_iter().filter_map(beside).collect()
}

/// Where the host is whose node this is, if it has the usual ports. It is asked when nobody is connected: two hosts alone keep
/// each other's announces, and neither asks itself.
fn host_beside(node: SocketAddrV4) -> Option<SocketAddr> {
    let port = node.port().checked_sub(1).filter(|&port| port > 0)?;
    Some(SocketAddr::from((*node.ip(), port)))
}

/// Whether this may begin: it is not under way already, and not too much is.
fn may_begin(busy: &BTreeSet<(Sought, Work)>, sought: Sought, work: Work) -> bool {
    !busy.contains(&(sought, work)) && busy.iter().filter(|(_, other)| *other == work).count() < AT_ONCE
}

impl Task {
    fn new(parts: Parts, secret: ClusterSecret, node: DhtNode) -> Self {
        let (early, found_early) = mpsc::unbounded_channel();
        Task {
            early,
            found_early,
            reachable: parts.announcements.watch_reachable(),
            parts,
            secret,
            node,
            rng: Rng::seeded(clock::seed()),
            nodes: 0,
            looked_around: 0,
            announced: BTreeMap::new(),
            finding: BTreeMap::new(),
            busy: BTreeSet::new(),
            strangers: Strangers::default(),
            releases: Turns::default(),
            under_way: JoinSet::new(),
        }
    }

    /// Runs for as long as the node is of use; gives the parts back for the next.
    async fn run(mut self, own: SocketAddrV4, began_with: &[SocketAddrV4]) -> Parts {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        let (mut look_at, mut keep_at) = (began, began + KEEP_FIRST);
        let (mut alone_since, mut kept) = (Instant::now(), 0);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                Some(done) = self.under_way.join_next() => {
                    if let Ok(done) = done {
                        self.on_done(done).await;
                    }
                    continue;
                }
                Some((sought, found)) = self.found_early.recv() => {
                    self.on_found(sought, found);
                    self.dial_some();
                    continue;
                }
            }
            let now = Instant::now();
            if let Some(why) = self.node.problem()
                && now - began >= NEW_NODE_AFTER
            {
                tracing::warn!("this host's node of the DHT is started anew: {why}");
                say(&self.parts, |status| status.restarts += 1);
                return self.parts;
            }
            self.greet_trackers(now);
            self.announce_what_is_due(now);
            self.find_what_lacks();
            self.look_up_releases(now);
            if now < look_at {
                continue;
            }
            look_at = now + LOOK_AT_NODES;
            let nodes = self.node.nodes().await;
            self.nodes = nodes.len();
            say(&self.parts, |status| status.nodes = nodes.len());
            if !nodes.is_empty() {
                alone_since = now;
            } else if now - alone_since >= ALONE_MOST {
                alone_since = now;
                if bootstraps(&self.parts, own).await.iter().any(|known| !began_with.contains(known)) {
                    return self.parts;
                }
            }
            if !nodes.is_empty() && (now >= keep_at || nodes.len() >= 2 * kept.max(1)) {
                (keep_at, kept) = (now + clock::jittered(KEEP_EVERY), nodes.len());
                self.keep(nodes).await;
            }
        }
    }

    async fn keep(&self, nodes: Vec<SocketAddrV4>) {
        let (file, networks) = (self.parts.file.clone(), self.parts.networks.clone());
        if let Err(error) = self.parts.workers.run(move || save_nodes(&file, &networks, &nodes)).await {
            tracing::warn!("nodes of the DHT are not kept: {error}");
        }
    }

    fn key(&self, sought: Sought) -> [u8; drover_protocol::lookup::KEY_LEN] {
        match sought {
            Sought::Cluster => self.secret.key_of_cluster(),
            Sought::Image(image) => self.secret.key_of_image(image),
        }
    }

    /// Looks around anew when a tracker has come back, which may have forgotten everybody.
    fn greet_trackers(&mut self, now: Instant) {
        if self.reachable.has_changed().unwrap_or(false) && *self.reachable.borrow_and_update() > 0 {
            self.announced.insert(Sought::Cluster, Announced { again_at: now, nodes: 0 });
            self.looked_around = 0;
        }
    }

    fn announce_what_is_due(&mut self, now: Instant) {
        let images = self.parts.announcements.images().into_iter().map(Sought::Image);
        let current: BTreeSet<Sought> = images.chain([Sought::Cluster]).collect();
        self.announced.retain(|sought, _| current.contains(sought));
        for sought in current {
            let announced = self.announced.entry(sought).or_insert(Announced { again_at: now, nodes: 0 });
            if !announced.is_due(now, self.nodes) || !may_begin(&self.busy, sought, Work::Announce) {
                continue;
            }
            self.busy.insert((sought, Work::Announce));
            let (node, key, port) = (self.node.clone(), self.key(sought), self.parts.listen.port());
            let (named, early) = (self.parts.named.clone(), self.early.clone());
            self.under_way.spawn(async move {
                let announce = node.announce(key, port, |found| drop(early.send((sought, found))));
                let look_around = async {
                    if sought == Sought::Cluster {
                        node.look_around(&beside_named(&named).await).await;
                    }
                };
                // What it learns of nodes that are nearer serves the next announce, which is soon.
                let ((found, kept), ()) = join(announce, look_around).await;
                Done::Announced(sought, found, kept)
            });
        }
    }

    fn find_what_lacks(&mut self) {
        let mut lacking: Vec<Sought> =
            self.parts.announcements.lacking(FEW_NEIGHBOURS).into_iter().map(Sought::Image).collect();
        if self.parts.links.all().len() < FEW_NEIGHBOURS {
            lacking.push(Sought::Cluster);
        }
        self.finding.retain(|sought, _| lacking.contains(sought));
        let (now, has_tracker) = (clock::now(), self.parts.announcements.trackers_reachable() > 0);
        for sought in lacking {
            let pace = self.finding.entry(sought).or_insert(LookupPace::new(now, has_tracker));
            // An announce that is under way finds them, too.
            let is_served = self.busy.contains(&(sought, Work::Announce));
            if !may_begin(&self.busy, sought, Work::Find) || !pace.is_due(now, &mut self.rng) || is_served {
                continue;
            }
            self.busy.insert((sought, Work::Find));
            let (node, key, early) = (self.node.clone(), self.key(sought), self.early.clone());
            self.under_way.spawn(async move {
                // Nobody waits for it any more when the task has ended.
                let found = node.find(key, |found| drop(early.send((sought, found)))).await;
                Done::Found(sought, found)
            });
        }
    }

    /// Looks up releases, and puts the items that this host has and the table lacks.
    fn look_up_releases(&mut self, now: Instant) {
        let items = &self.parts.items;
        let trackers = self.parts.announcements.trackers_reachable();
        for wanted in self.releases.due(now, items.wanted(), &items.take_fresh(), trackers) {
            let (node, secret, workers) = (self.node.clone(), self.secret, self.parts.workers.clone());
            let (items, store) = (items.clone(), self.parts.store.clone());
            self.under_way.spawn(async move {
                let found = node.get(wanted.publisher, secret.of_name(&wanted.name).salt()).await;
                let which = wanted.clone();
                let ours = workers.run(move || items.item(&which, store.catalog(), &secret)).await;
                let lacks = |ours: &Item| found.as_ref().is_none_or(|found| found.seq < ours.seq);
                let put = match ours.filter(lacks) {
                    Some(ours) => node.put(&ours).await,
                    None => Ok(()),
                };
                Done::LookedUp(wanted, found, put)
            });
        }
    }

    /// Tells of the release in an item, and keeps what makes it one.
    async fn take_item(&self, wanted: Wanted, item: Item) {
        let Wanted { publisher, name } = wanted;
        let signed = match item.open(&name, &self.secret.of_name(&name)) {
            Ok(signed) => signed,
            Err(error) => return tracing::debug!(%name, %publisher, %error, "an item in the DHT is of no use"),
        };
        let (version, signature) = (item.seq, item.signature);
        if self.parts.store.catalog().highest_seen(&name).is_some_and(|seen| seen > version) {
            return tracing::debug!("release {name}@{version} found in the DHT, where a later one is known here");
        }
        if self.parts.links.gossip().found(signed) {
            tracing::info!("release {name}@{version} found in the DHT");
        }
        let items = self.parts.items.clone();
        if items.hold(&name, Held { version, publisher, signature })
            && let Err(error) = self.parts.workers.run(move || items.save()).await
        {
            tracing::warn!("items of the DHT are not kept: {error}");
        }
    }

    async fn on_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Announced(sought, found, result) => {
                self.on_found(sought, found);
                self.busy.remove(&(sought, Work::Announce));
                if let Err(error) = &result {
                    tracing::debug!(?sought, error, "announced to nobody");
                }
                let wait = match sought {
                    _ if result.is_err() => ANNOUNCE_RETRY,
                    Sought::Image(_) => ANNOUNCE_EVERY,
                    Sought::Cluster => {
                        let wait = (LOOK_AROUND_FIRST * 3u32.pow(self.looked_around.min(8))).min(ANNOUNCE_EVERY);
                        self.looked_around += 1;
                        wait
                    }
                };
                if let Some(announced) = self.announced.get_mut(&sought) {
                    *announced = Announced { again_at: now + clock::jittered(wait), nodes: self.nodes };
                }
            }
            Done::Found(sought, mut found) => {
                self.busy.remove(&(sought, Work::Find));
                if self.parts.links.all().is_empty() {
                    let nodes = self.node.nodes().await.into_iter().take(FOUND_MOST);
                    found.extend(nodes.filter_map(host_beside));
                }
                tracing::debug!(?sought, found = found.len(), "looked up in the DHT");
                self.on_found(sought, found);
            }
            Done::LookedUp(wanted, found, put) => {
                self.releases.done(now, &wanted, put.is_ok());
                if let Err(error) = put {
                    tracing::debug!(name = %wanted.name, error, "an item is not in the DHT yet");
                }
                if let Some(item) = found {
                    self.take_item(wanted, item).await;
                }
            }
            Done::Dialled(addr, true) => self.strangers.reached(addr),
            Done::Dialled(addr, false) => self.strangers.failed(clock::now(), addr),
        }
        self.dial_some();
    }

    fn on_found(&mut self, sought: Sought, found: impl IntoIterator<Item = SocketAddr>) {
        let others = found.into_iter().filter(|addr| *addr != self.parts.listen);
        self.strangers.found(clock::now(), &mut self.rng, sought, others);
    }

    /// Dials some of the hosts that were found; those that are known are candidates at once.
    fn dial_some(&mut self) {
        while let Some((addr, sought)) = self.strangers.dial() {
            let (links, router) = (self.parts.links.clone(), self.parts.router.clone());
            self.under_way.spawn(async move {
                let link = match links.peer_at(addr) {
                    Some(peer) => links.reach(peer).await,
                    None => {
                        let reached = links.reach_addr(addr, Source::Dht).await;
                        reached
                            .inspect_err(|error| tracing::debug!(error, "nobody at an address of the DHT"))
                            .ok()
                            .flatten()
                    }
                };
                let reached = link.is_some();
                if let (Some(link), Sought::Image(image)) = (link, sought)
                    && let Some(driver) = router.driver_of(image)
                {
                    // A driver that has just ended needs no candidates.
                    let _ = driver.send(Event::Candidates(Source::Dht, vec![link.peer()])).await;
                }
                Done::Dialled(addr, reached)
            });
        }
    }
}
