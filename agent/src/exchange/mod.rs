//! Everything between the store and the network: one [`Exchange`] moves this host's masters.
//!
//! It runs on one current-thread runtime (measured: a quarter cheaper than two threads) and has its own threads for disk
//! and hashing. Its parts:
//!
//! - one task for each image (`driver`) that owns the image's `Swarm`;
//! - one task for each peer that is connected (`transport`), shared by all images;
//! - one task for each tracker, and one that keeps this host part of the fleet without any (`discovery`);
//! - tasks for the bytes under way (`transfer`), bounded by two pools of buffers.
//!
//! They know each other by bounded channels. What an image's exchange costs in memory is its manifest, a few bits for
//! each of its chunks, and its share of the pools.

mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_link::endpoint::Endpoint;
use drover_protocol::announce::{Announce, Enrolment, MAX_SWARMS, SwarmAnnounce, TrackerReply, TrackerRequest};
use drover_protocol::id::{ImageId, PeerId, PublisherKey};
use drover_protocol::item::{Item, ItemError, ItemSignature};
use drover_protocol::lookup::NameSecret;
use drover_protocol::release::{Name, SignedRelease};
use drover_protocol::swarm::SwarmConfig;
use tokio::sync::{Semaphore, broadcast, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

pub use self::status::{Banned, Connected, MulticastRole, MulticastStatus, PeerExchange, Phase, TransferStatus};
use crate::discovery::Announcements;
use crate::discovery::dht;
pub use crate::discovery::dht::DhtStatus;
use crate::discovery::elsewhere::{Elsewhere, Watched};
use crate::discovery::finder;
use crate::discovery::gossip::Gossip;
use crate::discovery::items::{Held, Items};
use crate::discovery::remembered::Remembered;
use crate::discovery::revoked::Revoked;
use crate::discovery::secret::Secret;
pub use crate::discovery::statics::StaticPeer;
use crate::discovery::statics::StaticPeers;
pub use crate::discovery::tracker::TrackerStatus;
use crate::discovery::tracker::{self, Tracker};
use crate::driver::limits::{Limits, Rates};
use crate::driver::{self, Goal, Handle, Input};
use crate::multicast::MulticastSettings;
use crate::multicast::probe::{ProbeError, Probed, Prober};
use crate::store::Store;
use crate::transfer::buffers::Buffers;
pub use crate::transfer::workers::StartWorkersError;
use crate::transfer::workers::Workers;
use crate::transport::{Link, Links, Router};
use drover_protocol::hints::AddressBook;
pub use drover_protocol::hints::{KnownHost, Source};
use drover_protocol::networks::Networks;

/// Releases that wait for a listener that does not listen. Older ones are lost to it; trackers tell them again.
const RELEASES_KEPT: usize = 1024;
/// Threads for what may take long: a slow sync of one image must not keep another from sealing.
const SYNC_THREADS: usize = 2;
/// KiB of manifests that are handed out at the same time: those of most images to a whole fleet that begins together, of
/// an image of a terabyte to one host.
const MANIFESTS_KIB: usize = 32 << 10;
/// How long shutting down may take, for the last checkpoint and for neighbours to hear of it.
const LEAVE_DEADLINE: Duration = Duration::from_secs(2);
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);
const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What an exchange is made of.
pub struct ExchangeParts {
    /// Where masters are.
    pub store: Store,
    /// What it talks through; closed by [`Exchange::shutdown`].
    pub endpoint: Endpoint,
    /// Who this host is.
    pub me: PeerId,
    /// Trackers to announce to, "host:port" each.
    pub trackers: Vec<String>,
    /// Everything else.
    pub settings: ExchangeSettings,
}

/// How an exchange takes part in the cluster's hash table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DhtChoice {
    /// The UDP port of its node, if it is not the one after that for QUIC.
    pub port: Option<u16>,
    /// Networks that nodes are in.
    pub networks: Networks,
}

/// How an exchange behaves.
#[derive(Clone, PartialEq, Debug)]
pub struct ExchangeSettings {
    /// The rack that this host stands in, if known: neighbours are then sought there first.
    pub rack: Option<String>,
    /// Where this host listens, as trackers are told. An unspecified address stands for the one that they see.
    pub listen: Vec<SocketAddr>,
    /// Hosts of the cluster, "host:port" each, to begin with when no tracker answers.
    pub peers: Vec<String>,
    /// Where hosts may be that others tell of.
    pub networks: Networks,
    /// Whether it takes part in the cluster's hash table, and how.
    pub dht: Option<DhtChoice>,
    /// How each image's swarm behaves; the limits in it are for all images together.
    pub swarm: SwarmConfig,
    /// Threads that verify, write and read chunks.
    pub disk_threads: usize,
    /// Bytes of masters that may be on their way from the network to the disk.
    pub receive_buffer: usize,
    /// Bytes of masters that may be on their way from the disk to the network.
    pub send_buffer: usize,
    /// How it takes part in multicast.
    pub multicast: MulticastSettings,
}

impl Default for ExchangeSettings {
    fn default() -> Self {
        ExchangeSettings {
            rack: None,
            listen: Vec::new(),
            peers: Vec::new(),
            networks: Networks::default(),
            dht: None,
            swarm: SwarmConfig::default(),
            // One hashes while the other waits for the disk; hashing alone does 4.6 GB/s a thread.
            disk_threads: 2,
            // A disk may pause for 15 ms at 10 Gbit/s.
            receive_buffer: 24 << 20,
            // A few uploads of 1 MiB each, read ahead, and what is not acknowledged yet.
            send_buffer: 24 << 20,
            multicast: MulticastSettings::default(),
        }
    }
}

/// Why no tracker did what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskTrackersError {
    /// There is none.
    #[error("no tracker is configured; name one in the settings (trackers) or join a cluster")]
    NoTracker,
    /// None answered: what each was tried with.
    #[error("no tracker answered: {}", told(.0))]
    Unreachable(Vec<(String, String)>),
    /// At least one answered, and none did it.
    #[error("no tracker did it: {}", told(.0))]
    Refused(Vec<(String, String)>),
}

/// Which trackers took a release.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PostOutcome {
    /// Those that did, "host:port".
    pub taken: Vec<String>,
    /// Those that did not, and why.
    pub refused: Vec<(String, String)>,
}

/// What trackers gave to a member that renews.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renewal {
    /// At least one, each from another tracker.
    pub enrolments: Vec<Enrolment>,
    /// Whether every tracker gave one.
    pub by_all: bool,
}

/// The exchange of this host's masters. Clones are handles on the same one; it runs until [`Exchange::shutdown`].
#[derive(Clone)]
pub struct Exchange(Arc<Inner>);

struct Inner {
    parts: Arc<driver::Parts>,
    prober: Prober,
    endpoint: Endpoint,
    listen: Vec<SocketAddr>,
    rack: Option<String>,
    releases: broadcast::Sender<SignedRelease>,
    publishers: watch::Sender<Vec<PublisherKey>>,
    /// Tasks that look for hosts.
    seekers: Vec<AbortHandle>,
    dht: Option<Arc<Mutex<DhtStatus>>>,
    statics: StaticPeers,
    elsewhere: Elsewhere,
    secret: Secret,
    items: Items,
    remembered: Remembered,
    drivers: Mutex<Drivers>,
}

#[derive(Default)]
struct Drivers {
    running: BTreeMap<ImageId, Handle>,
    closed: bool,
}

/// What the tasks of an exchange know each other by.
struct Shared {
    links: Links,
    router: Router,
    announcements: Announcements,
    workers: Workers,
    store: Store,
}

impl Shared {
    /// Starts the task that looks for hosts in all other ways.
    fn start_finder(&self, remembered: Remembered, statics: StaticPeers) -> AbortHandle {
        let parts = finder::Parts {
            links: self.links.clone(),
            router: self.router.clone(),
            announcements: self.announcements.clone(),
            workers: self.workers.clone(),
            remembered,
            statics,
        };
        tokio::spawn(finder::run(parts)).abort_handle()
    }

    /// Starts the task of the cluster's hash table, unless the settings switch it off, and gives where it tells how it stands.
    fn start_dht(
        self,
        settings: &ExchangeSettings,
        trackers: &[String],
        items: &Items,
        secret: &Secret,
    ) -> Option<(AbortHandle, Arc<Mutex<DhtStatus>>)> {
        let (choice, listen) = (settings.dht.clone()?, *settings.listen.first()?);
        let Shared { links, router, announcements, workers, store } = self;
        let status = Arc::new(Mutex::new(DhtStatus::default()));
        let task = dht::Parts {
            links,
            router,
            announcements,
            workers,
            file: store.state().join("dht.json"),
            store,
            items: items.clone(),
            secret: secret.clone(),
            named: trackers.iter().chain(&settings.peers).cloned().collect(),
            listen,
            port: choice.port,
            networks: choice.networks,
            status: Arc::clone(&status),
        };
        Some((tokio::spawn(dht::run(task)).abort_handle(), status))
    }
}

/// Has looked what of the settings is outside of the networks, if these leave anything out.
fn start_look(
    elsewhere: &Elsewhere,
    listening: IpAddr,
    trackers: &[String],
    settings: &ExchangeSettings,
) -> Option<AbortHandle> {
    let of_table = settings.dht.as_ref().map(|choice| &choice.networks);
    let watched = Watched::of(listening, &settings.networks, of_table)?;
    let named = (trackers.to_vec(), settings.peers.clone());
    Some(tokio::spawn(elsewhere.clone().look(watched, named)).abort_handle())
}

impl Exchange {
    /// Starts it. Must be called on a tokio runtime, which should have one thread.
    pub fn start(given: ExchangeParts) -> Result<Self, StartWorkersError> {
        let ExchangeParts { store, endpoint, me, trackers, settings } = given;
        let router = Router::default();
        let sync = Workers::start("drover-sync", SYNC_THREADS)?;
        let (releases, _) = broadcast::channel(RELEASES_KEPT);
        let publishers = watch::Sender::new(Vec::new());
        let gossip = Gossip::new(store.clone(), sync.clone(), releases.clone());
        let book = AddressBook::of(settings.networks.clone());
        let links = Links::new(endpoint.clone(), me, router.clone(), gossip, book);
        // Before anybody is let in or dialled.
        let revoked = Revoked::load(store.state().join("revoked.json"), links.clone());
        let listening = settings.listen.first().map_or(UNSPECIFIED, |listen| listen.ip());
        let prober = Prober::new(me, settings.multicast.clone(), listening);
        router.set_prober(prober.clone());
        let announcements = Announcements::default();
        let remembered = Remembered::in_state(store.state());
        let statics = StaticPeers::of(&settings.peers);
        let shared = Shared {
            links: links.clone(),
            router: router.clone(),
            announcements: announcements.clone(),
            workers: sync.clone(),
            store: store.clone(),
        };
        let mut seekers = vec![shared.start_finder(remembered.clone(), statics.clone())];
        let secret = Secret::load(store.state().join("cluster.secret"));
        let items = Items::load(store.state().join("items.json"));
        let dht = shared.start_dht(&settings, &trackers, &items, &secret);
        let dht = dht.map(|(task, status)| {
            seekers.push(task);
            status
        });
        let elsewhere = Elsewhere::default();
        seekers.extend(start_look(&elsewhere, listening, &trackers, &settings));
        let start_tracker = |(number, address): (usize, String)| {
            let parts = tracker::Parts {
                source: Source::Tracker(u16::try_from(number).unwrap_or(u16::MAX)),
                endpoint: endpoint.clone(),
                links: links.clone(),
                router: router.clone(),
                announcements: announcements.clone(),
                store: store.clone(),
                secret: secret.clone(),
                revoked: revoked.clone(),
                workers: sync.clone(),
                releases: releases.clone(),
                publishers: publishers.clone(),
                listen: settings.listen.clone(),
                rack: settings.rack.clone(),
                dht: dht.is_some(),
            };
            Tracker::start(address, parts)
        };
        let trackers = trackers.into_iter().enumerate().map(start_tracker).collect();
        let parts = Arc::new(driver::Parts {
            me,
            trackers,
            disk: Workers::start("drover-disk", settings.disk_threads)?,
            receiving: Buffers::of(settings.receive_buffer),
            serving: Buffers::of(settings.send_buffer),
            manifests: Arc::new(Semaphore::new(MANIFESTS_KIB)),
            swarm: settings.swarm.clone(),
            multicast: settings.multicast.clone(),
            listen: listening,
            limits: Limits::new(Rates { upload: settings.swarm.upload_limit, download: settings.swarm.download_limit }),
            store,
            links: links.clone(),
            router,
            sync,
            announcements,
        });
        log_worst_case(&endpoint, &settings);
        tokio::spawn(links.accept());
        let ExchangeSettings { listen, rack, .. } = settings;
        let drivers = Mutex::default();
        Ok(Exchange(Arc::new(Inner {
            parts,
            prober,
            endpoint,
            listen,
            rack,
            releases,
            publishers,
            seekers,
            dht,
            statics,
            elsewhere,
            secret,
            items,
            remembered,
            drivers,
        })))
    }

    /// Offers what the store has of an image, and fetches what it lacks. For every image at start, and after a publish.
    pub fn seed(&self, image: ImageId) -> watch::Receiver<TransferStatus> {
        self.begin(image, Goal::Seed)
    }

    /// Fetches an image, or joins the fetch that is under way; the length of its content is known from a release. The
    /// receiver tells how it stands, at most a few times a second; the transfer does not depend on it.
    pub fn fetch(&self, image: ImageId, content_len: Option<u64>) -> watch::Receiver<TransferStatus> {
        self.begin(image, Goal::Fetch { content_len })
    }

    /// Leaves the swarm of an image and has nothing open of it any more. What has come of it stays in the store.
    pub async fn stop(&self, image: ImageId) {
        let handle = self.drivers().running.remove(&image);
        if let Some(handle) = handle {
            stop(handle).await;
        }
    }

    /// How every exchange stands.
    pub fn status(&self) -> Vec<TransferStatus> {
        let drivers = self.drivers();
        drivers.running.values().map(|handle| self.with_trackers(handle.status.borrow().clone())).collect()
    }

    /// How the exchange of one image stands.
    pub fn status_of(&self, image: ImageId) -> Option<TransferStatus> {
        let drivers = self.drivers();
        drivers.running.get(&image).map(|handle| self.with_trackers(handle.status.borrow().clone()))
    }

    /// Every tracker of the settings.
    pub fn trackers(&self) -> Vec<TrackerStatus> {
        self.0.parts.trackers.iter().map(Tracker::status).collect()
    }

    /// Releases as trackers and peers tell of them: all newest ones after each connect, then each new one. Nothing about
    /// them is checked, and they come again and again.
    pub fn releases(&self) -> broadcast::Receiver<SignedRelease> {
        self.0.releases.subscribe()
    }

    /// Whom the tracker trusts to publish that told of it last; it has changed when one has told.
    pub fn publishers(&self) -> watch::Receiver<Vec<PublisherKey>> {
        self.0.publishers.subscribe()
    }

    /// Tells everybody who is connected of a release that is new here.
    pub fn spread(&self, signed: &SignedRelease) {
        let links = &self.0.parts.links;
        links.gossip().spread(&links.all(), signed);
    }

    /// From now on, looks for releases of these names by these publishers in the cluster's hash table.
    pub fn seek_releases(&self, publishers: Vec<PublisherKey>, names: Vec<Name>) {
        self.0.items.seek(publishers, names);
    }

    /// What a publisher signs an item of the hash table with; `None` if this host takes no part in the table, or has not
    /// been told the cluster's secret.
    pub fn name_secret(&self, name: &Name) -> Option<NameSecret> {
        let secret = self.0.secret.now();
        self.0.dht.as_ref().and(secret).map(|secret| secret.of_name(name))
    }

    /// Puts a release into the cluster's hash table, by what its publisher signed with the secret of its name, and keeps it there.
    /// The release must be in the store's catalog.
    pub async fn keep_in_table(&self, signed: &SignedRelease, signature: ItemSignature) -> Result<(), ItemError> {
        let (name, version) = signed.claim().ok_or(ItemError::Release)?;
        let Some(secret) = self.name_secret(&name) else { return Ok(()) };
        Item::with_signature(signed, &secret, signature)?;
        let items = self.0.items.clone();
        items.give(&name, Held { version, publisher: signed.publisher, signature });
        if let Err(error) = self.0.parts.sync.run(move || items.save()).await {
            tracing::warn!("items of the DHT are not kept: {error}");
        }
        Ok(())
    }

    /// Hosts that this one is connected with, for whatever image or none.
    pub fn hosts(&self) -> Vec<Connected> {
        let links = &self.0.parts.links;
        let host = |link: Link| Connected {
            peer: link.peer(),
            name: link.member().name.clone(),
            addr: link.remote_addr(),
            found: links.source(link.peer()),
        };
        links.all().into_iter().map(host).collect()
    }

    /// How its node of the cluster's hash table stands; `None` if it has none.
    pub fn dht(&self) -> Option<DhtStatus> {
        self.0.dht.as_ref().map(|status| status.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// How the hosts that the settings name stand.
    pub fn static_peers(&self) -> Vec<StaticPeer> {
        self.0.statics.show()
    }

    /// What of the settings is outside of the networks that they name, and what follows.
    pub fn warnings(&self) -> Vec<String> {
        self.0.elsewhere.show()
    }

    /// Of how many hosts an address is known.
    pub fn known_hosts(&self) -> usize {
        self.0.parts.links.known()
    }

    /// Hosts of which an address is known and that this one is not connected with.
    pub fn away(&self) -> Vec<KnownHost> {
        self.0.parts.links.away()
    }

    /// Gives a release to all trackers; goes well if at least one takes it. The others get it when they are reached, if
    /// it is in the store's catalog.
    pub async fn post(&self, release: SignedRelease) -> Result<PostOutcome, AskTrackersError> {
        let answers = self.ask_all(&TrackerRequest::Post(release)).await;
        let is_answered = answers.iter().any(|(_, answer)| answer.is_ok());
        let mut outcome = PostOutcome::default();
        for (address, answer) in answers {
            match answer {
                Ok(TrackerReply::Posted) => outcome.taken.push(address),
                Ok(other) => outcome.refused.push((address, refusal(other))),
                Err(why) => outcome.refused.push((address, why)),
            }
        }
        if outcome.taken.is_empty() { Err(nobody(outcome.refused, is_answered)) } else { Ok(outcome) }
    }

    /// Has new certificates made for this host's key by all trackers, since each knows only the publishers that it was
    /// told of; goes well if at least one does it. `csr` is the certificate request (PKCS#10, DER).
    pub async fn renew(&self, csr: Vec<u8>) -> Result<Renewal, AskTrackersError> {
        let (mut enrolments, mut refused) = (Vec::new(), Vec::new());
        let answers = self.ask_all(&TrackerRequest::Renew { csr }).await;
        let is_answered = answers.iter().any(|(_, answer)| answer.is_ok());
        for (address, answer) in answers {
            match answer {
                Ok(TrackerReply::Renewed(enrolment)) => enrolments.push(enrolment),
                Ok(other) => refused.push((address, refusal(other))),
                Err(why) => refused.push((address, why)),
            }
        }
        if enrolments.is_empty() {
            return Err(nobody(refused, is_answered));
        }
        Ok(Renewal { enrolments, by_all: refused.is_empty() })
    }

    /// Finds out whether the network carries multicast to hosts, named as in their certificates; to all that there is a connection
    /// with, if none is named. Gives what was found of each.
    pub async fn probe_multicast(&self, names: Vec<String>) -> Result<(Vec<String>, Probed), ProbeError> {
        let links = self.0.parts.links.all();
        let names =
            if names.is_empty() { links.iter().map(|link| link.member().name.clone()).collect() } else { names };
        let named = |name: &String| links.iter().find(|link| link.member().name == *name).cloned();
        let probed = self.0.prober.probe(names.iter().map(named).collect()).await?;
        Ok((names, probed))
    }

    /// Peers that are not let in any more, and why.
    pub fn banned(&self) -> Vec<(PeerId, String)> {
        self.0.parts.links.banned()
    }

    /// Leaves all swarms, makes durable what has come, and closes the endpoint. Takes three seconds at the most.
    pub async fn shutdown(&self) {
        let running = {
            let mut drivers = self.drivers();
            drivers.closed = true;
            std::mem::take(&mut drivers.running)
        };
        let images: Vec<ImageId> = running.keys().copied().collect();
        let mut stopping = JoinSet::new();
        for handle in running.into_values() {
            stopping.spawn(stop(handle));
        }
        let left = timeout(CLOSE_DEADLINE, self.leave_trackers(&images));
        let stopped = timeout(LEAVE_DEADLINE, stopping.join_all());
        let (_, stopped) = tokio::join!(left, stopped);
        if stopped.is_err() {
            tracing::warn!(
                "the disk was too slow for a last checkpoint; some seconds of transfer will be fetched again"
            );
        }
        self.0.parts.trackers.iter().for_each(Tracker::stop);
        self.0.seekers.iter().for_each(AbortHandle::abort);
        let (links, remembered) = (self.0.parts.links.clone(), self.0.remembered.clone());
        let _ = timeout(CLOSE_DEADLINE, self.0.parts.sync.run(move || finder::remember(&links, &remembered))).await;
        self.0.parts.links.close();
        self.0.endpoint.close("this host shuts down");
        // Peers that do not hear of it notice by their own time-outs.
        let _ = timeout(CLOSE_DEADLINE, self.0.endpoint.wait_idle()).await;
    }

    fn begin(&self, image: ImageId, goal: Goal) -> watch::Receiver<TransferStatus> {
        let mut drivers = self.drivers();
        if let Some(handle) = drivers.running.get(&image).filter(|handle| !handle.inbox.is_closed()) {
            return handle.status.clone();
        }
        if drivers.closed {
            let (_, status) = watch::channel(TransferStatus {
                phase: Phase::Failed("this host shuts down".to_owned()),
                ..TransferStatus::unknown(image, crate::clock::unix_s())
            });
            return status;
        }
        let handle = driver::start(self.0.parts.clone(), image, goal);
        let status = handle.status.clone();
        drivers.running.insert(image, handle);
        status
    }

    /// What trackers say changes without the image's driver.
    fn with_trackers(&self, status: TransferStatus) -> TransferStatus {
        let announcements = &self.0.parts.announcements;
        TransferStatus {
            cohort: announcements.cohort(status.image),
            trackers_reachable: announcements.trackers_reachable(),
            ..status
        }
    }

    /// Tells trackers that this host leaves these swarms, so that it is introduced to nobody any more.
    async fn leave_trackers(&self, images: &[ImageId]) {
        let leave = |&image| SwarmAnnounce { image, held_chunks: 0, data_chunks: 0, want_peers: 0, leaving: true };
        for images in images.chunks(MAX_SWARMS) {
            let swarms = images.iter().map(leave).collect();
            let announce = Announce { listen: self.0.listen.clone(), rack: self.0.rack.clone(), swarms };
            self.ask_all(&TrackerRequest::Announce(announce)).await;
        }
    }

    async fn ask_all(&self, request: &TrackerRequest) -> Vec<(String, Result<TrackerReply, String>)> {
        let calls = self.0.parts.trackers.iter().map(|tracker| async {
            let answer = tracker.call(request.clone()).await;
            (tracker.status().address, answer)
        });
        futures_util::future::join_all(calls).await
    }

    fn drivers(&self) -> MutexGuard<'_, Drivers> {
        self.0.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says what hostile peers could make this host use, from its settings.
fn log_worst_case(endpoint: &Endpoint, settings: &ExchangeSettings) {
    let buffers = (settings.receive_buffer + settings.send_buffer) as u64;
    let worst_case = endpoint.config().worst_case_memory() + buffers;
    tracing::info!(worst_case_mib = worst_case >> 20, "memory that peers can make this host use, beside manifests");
}

async fn stop(handle: Handle) {
    let (done, stopped) = oneshot::channel();
    // A driver that has ended by itself has stopped.
    if handle.inbox.send(Input::Stop(done)).await.is_ok() {
        let _ = stopped.await;
    }
}

fn refusal(reply: TrackerReply) -> String {
    match reply {
        TrackerReply::Refused(why) => why,
        _ => "it answered with something else".to_owned(),
    }
}

fn nobody(failed: Vec<(String, String)>, is_answered: bool) -> AskTrackersError {
    match (failed.is_empty(), is_answered) {
        (true, _) => AskTrackersError::NoTracker,
        (false, false) => AskTrackersError::Unreachable(failed),
        (false, true) => AskTrackersError::Refused(failed),
    }
}

fn told(reasons: &[(String, String)]) -> String {
    let reasons: Vec<_> = reasons.iter().map(|(address, why)| format!("{address}: {why}")).collect();
    reasons.join("; ")
}
