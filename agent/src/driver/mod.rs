//! One task owns the exchange of one image and does what its [`Swarm`] asks.
//!
//! First the manifest is found ([`manifest`]), if the store does not have it. Then the loop is always: take an input, call
//! `handle_*`, drain `poll_output`, arm one timer. Nothing in the loop waits: bytes are moved by tasks and worker threads
//! that report by the inbox, which is bounded, so that who reports too fast waits.
//!
//! What is decided here is only what concerns this host's disk ([`durability`]): when to make durable what came, what to
//! do when the disk refuses, when to seal. Everything about peers is the swarm's decision.

mod durability;
pub(crate) mod limits;
mod manifest;
mod multicast;
mod report;
mod streams;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use drover_protocol::hints::Candidates;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::{LeaveReason, PeerMessage, SwarmMessage};
use drover_protocol::multicast::election::LeaseReply;
use drover_protocol::swarm::{Output, RequestEnd, RequestId, ServeId, Swarm, SwarmConfig};
use drover_protocol::time::Instant;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::sleep_until;

use self::durability::{Durability, Origin};
use self::limits::{Limits, Rates};
use self::manifest::Found;
use self::multicast::Multicast;
use self::report::Reporter;
use self::streams::Serve;
use crate::clock;
use crate::discovery::Announcements;
use crate::discovery::tracker::Tracker;
use crate::exchange::{Phase, TransferStatus};
use crate::multicast::{MulticastSettings, receiving, sending};
use crate::store::{CheckpointError, Image, MasterInfo, ReadError, SealError, Store};
use crate::transfer::buffers::Buffers;
use crate::transfer::ingest::Batch;
use crate::transfer::serve::Served;
use crate::transfer::workers::Workers;
use crate::transport::{Event, Link, Links, Router};

/// Reports that wait for a driver. Who has one more waits.
const INBOX_LEN: usize = 128;

/// What all drivers share.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) me: PeerId,
    pub(crate) store: Store,
    pub(crate) links: Links,
    pub(crate) router: Router,
    /// Threads that verify, write and read chunks.
    pub(crate) disk: Workers,
    /// Threads for what may take long: syncing, sealing, manifests.
    pub(crate) sync: Workers,
    pub(crate) receiving: Buffers,
    pub(crate) serving: Buffers,
    /// KiB of manifests that may be handed out at the same time.
    pub(crate) manifests: Arc<Semaphore>,
    pub(crate) announcements: Announcements,
    /// In the order of the settings.
    pub(crate) trackers: Vec<Tracker>,
    /// Where this host listens.
    pub(crate) listen: IpAddr,
    pub(crate) multicast: MulticastSettings,
    pub(crate) swarm: SwarmConfig,
    pub(crate) limits: Limits,
}

/// What an exchange is begun for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Goal {
    /// To offer what the store has of the image, and fetch what it lacks.
    Seed,
    /// To fetch all of it; if the length of its content is known from a release, it must be that.
    Fetch { content_len: Option<u64> },
}

/// A running driver.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) inbox: mpsc::Sender<Input>,
    pub(crate) status: watch::Receiver<TransferStatus>,
}

/// What the driver's own tasks, and the exchange, tell it.
#[derive(Debug)]
pub(crate) enum Input {
    /// A dial has ended.
    Reached(PeerId, Option<Link>),
    /// Chunks that a request brought were looked at.
    Came(RequestId, Batch),
    /// A request has ended.
    RequestEnded(RequestId, RequestEnd),
    /// A request of a peer's was served, or not.
    Served(ServeId, Served),
    /// A checkpoint has ended.
    Checkpointed(Result<u32, CheckpointError>),
    /// A chunk that the disk did not take was tried again.
    Retried(Batch),
    /// The master is sealed, or not.
    Sealed(Box<Result<MasterInfo, SealError>>),
    /// A tracker answered a wish to send by multicast.
    Leased(LeaseReply),
    /// The thread of the session with this number has something to say.
    Sending(u64, sending::Report),
    /// The same of a session that is heard.
    Receiving(u64, receiving::Report),
    /// Leave the swarm, make durable what there is, and end; tell when that is done.
    Stop(oneshot::Sender<()>),
}

/// Why a driver ends.
#[derive(Debug)]
enum End {
    Stopped(Option<oneshot::Sender<()>>),
    Failed(String),
}

/// Starts the exchange of `image`.
pub(crate) fn start(parts: Arc<Parts>, image: ImageId, goal: Goal) -> Handle {
    let (inbox, inputs) = mpsc::channel(INBOX_LEN);
    let (status, seen) = watch::channel(TransferStatus::unknown(image, clock::unix_s()));
    let events = parts.router.register(image);
    let inlets = Inlets { events, inputs, reports: inbox.clone() };
    tokio::spawn(async move {
        let reporter = Reporter::new(image, status, parts.announcements.clone());
        run(parts, image, goal, inlets, reporter).await;
    });
    Handle { inbox, status: seen }
}

/// Where a driver's inputs come from, and where its tasks report to.
#[derive(Debug)]
struct Inlets {
    events: mpsc::Receiver<Event>,
    inputs: mpsc::Receiver<Input>,
    reports: mpsc::Sender<Input>,
}

async fn run(parts: Arc<Parts>, image: ImageId, goal: Goal, mut inlets: Inlets, mut reporter: Reporter) {
    let store = parts.store.clone();
    let held = parts.sync.run(move || store.image(image)).await;
    let found = match (held, goal) {
        (Some(held), _) => Found::Image(held, Candidates::default()),
        (None, Goal::Seed) => Found::Nothing(End::Failed("this host does not hold the image".to_owned())),
        (None, Goal::Fetch { content_len }) => {
            reporter.announce_unknown();
            manifest::find(&parts, image, content_len, &mut inlets).await
        }
    };
    let end = match found {
        Found::Image(disk, candidates) => Driver::new(parts.clone(), disk, inlets, &mut reporter).run(candidates).await,
        Found::Nothing(end) => end,
    };
    parts.announcements.remove(image);
    match end {
        End::Stopped(done) => {
            if let Some(done) = done {
                // Who asked may be gone.
                let _ = done.send(());
            }
        }
        End::Failed(why) => {
            tracing::error!(%image, why, "given up");
            reporter.set_phase(Phase::Failed(why));
        }
    }
}

struct Driver<'a> {
    parts: Arc<Parts>,
    disk: Arc<Image>,
    swarm: Swarm,
    inlets: Inlets,
    reporter: &'a mut Reporter,
    /// Links by which the swarm's peers are connected.
    peers: BTreeMap<PeerId, Link>,
    /// Requests of ours; one is cancelled by dropping its entry.
    requests: BTreeMap<RequestId, oneshot::Sender<()>>,
    serves: BTreeMap<ServeId, Serve>,
    last_serve: u64,
    durability: Durability,
    multicast: Multicast,
    /// Whether any chunk has come since this began.
    has_begun: bool,
    /// This swarm's share of the host's limits.
    rates: Rates,
    end: Option<End>,
}

impl<'a> Driver<'a> {
    fn new(parts: Arc<Parts>, disk: Arc<Image>, inlets: Inlets, reporter: &'a mut Reporter) -> Self {
        let manifest = disk.manifest();
        let seed = clock::seed();
        tracing::debug!(image = %disk.id().short(), seed, "swarm begins");
        let (geometry, data, held) = (manifest.geometry(), manifest.data_chunks(), disk.held());
        let multicast = Multicast::new(clock::now(), disk.id(), &parts.multicast);
        let rates = Rates { upload: parts.swarm.upload_limit, download: parts.swarm.download_limit };
        let swarm = Swarm::new(clock::now(), parts.me, geometry, data, held, parts.swarm.clone(), seed);
        Driver {
            parts,
            disk,
            swarm,
            inlets,
            reporter,
            peers: BTreeMap::new(),
            requests: BTreeMap::new(),
            serves: BTreeMap::new(),
            last_serve: 0,
            durability: Durability::default(),
            multicast,
            has_begun: false,
            rates,
            end: None,
        }
    }

    async fn run(mut self, searched: Candidates) -> End {
        self.reporter.begin(&self.disk, &self.swarm);
        self.seal_if_complete();
        self.swarm.handle_searched(clock::now(), searched);
        loop {
            self.drain();
            if let Some(end) = self.end.take() {
                return self.leave(end).await;
            }
            if self.reporter.publish_if_due(&self.swarm, || self.multicast.status()) {
                self.take_share();
            }
            let others = [self.durability.wake_at(), self.multicast.wake_at(), self.reporter.wake_at()];
            let wake = [self.swarm.poll_timeout()].into_iter().chain(others);
            let wake = wake.flatten().min();
            tokio::select! {
                Some(event) = self.inlets.events.recv() => self.on_event(event),
                Some(input) = self.inlets.inputs.recv() => self.on_input(input),
                () = sleep_until(clock::timer_at(wake.unwrap_or_default())), if wake.is_some() => self.on_timer(),
            }
        }
    }

    /// Takes this swarm's share of the host's limits, as it is now.
    fn take_share(&mut self) {
        let now = clock::now();
        let rates = self.parts.limits.share(now, self.disk.id());
        if rates != self.rates {
            self.rates = rates;
            self.swarm.set_rate_limits(now, rates.upload, rates.download);
            self.drain();
        }
    }

    fn on_event(&mut self, event: Event) {
        let now = clock::now();
        match event {
            Event::Message { link, message } => {
                if self.admit(now, &link) {
                    self.swarm.handle_message(now, link.peer(), message);
                    self.multicast.note_news(now, self.swarm.is_complete());
                }
            }
            Event::Multicast { link, message } => self.on_multicast_message(now, &link, message),
            Event::Candidates(source, peers) => self.swarm.handle_candidates(now, source, &peers),
            Event::AskedPeers(link) => {
                let about: Vec<PeerId> = self.peers.keys().copied().filter(|&peer| peer != link.peer()).collect();
                self.parts.links.tell_peers(&link, self.disk.id(), &about);
            }
            Event::Asked(asked) => self.on_asked(now, asked),
            Event::Disconnected(link) => {
                self.multicast.note_disconnected(link.peer());
                if self.peers.get(&link.peer()) == Some(&link) {
                    self.lose(now, link.peer());
                }
            }
        }
        self.reporter.note_change();
    }

    fn on_input(&mut self, input: Input) {
        let now = clock::now();
        match input {
            Input::Reached(peer, link) => match link.filter(|link| !link.is_closed()) {
                Some(link) => self.meet(now, &link),
                None => self.swarm.handle_connect_failed(now, peer),
            },
            Input::Came(request, batch) => self.on_batch(now, Origin::Request(request), batch),
            Input::Retried(batch) => self.on_batch(now, Origin::Trial, batch),
            Input::RequestEnded(request, end) => {
                // Cancelled ones are not there any more, and the swarm has forgotten them.
                if self.requests.remove(&request).is_some() {
                    self.swarm.handle_request_ended(now, request, end);
                }
            }
            Input::Served(serve, served) => self.on_served(now, serve, served),
            Input::Checkpointed(result) => self.on_checkpointed(now, result),
            Input::Sealed(result) => self.on_sealed(now, *result),
            Input::Leased(reply) => self.on_leased(now, &reply),
            Input::Sending(session, report) => self.on_sending(now, session, report),
            Input::Receiving(session, report) => self.on_receiving(now, session, report),
            Input::Stop(done) => self.end = Some(End::Stopped(Some(done))),
        }
        self.reporter.note_change();
    }

    fn on_timer(&mut self) {
        let now = clock::now();
        if self.swarm.poll_timeout().is_some_and(|at| at <= now) {
            self.swarm.handle_timeout(now);
        }
        if self.durability.wake_at().is_some_and(|at| at <= now) {
            self.on_durability_due(now);
        }
        self.on_multicast_due(now);
    }

    fn drain(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let now = clock::now();
        match output {
            Output::Connect { peer } => self.connect(now, peer),
            Output::Send { peer, message } => self.send(peer, message),
            Output::SendPeers { peer, about } => {
                if let Some(link) = self.peers.get(&peer) {
                    self.parts.links.introduce(link, self.disk.id(), &about);
                }
            }
            Output::Request { peer, request, piece, chunks } => self.ask(now, peer, request, piece, chunks),
            Output::Cancel { request, .. } => {
                self.requests.remove(&request);
            }
            Output::Serve { serve, .. } => self.grant(serve),
            Output::Refuse { serve, refusal, .. } => self.refuse(serve, refusal),
            Output::Ban { peer, misdeed } => {
                self.forget(peer);
                self.parts.links.ban(peer, misdeed.to_string());
            }
            Output::Dropped { peer } => self.forget(peer),
            Output::Complete => self.seal_if_complete(),
        }
    }

    fn connect(&mut self, now: Instant, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(|link| !link.is_closed()) {
            return self.swarm.handle_connected(now, peer);
        }
        let (links, reports) = (self.parts.links.clone(), self.inlets.reports.clone());
        tokio::spawn(async move {
            let link = links.reach(peer).await;
            // A driver that has ended reaches nobody.
            let _ = reports.send(Input::Reached(peer, link)).await;
        });
    }

    fn send(&mut self, peer: PeerId, message: SwarmMessage) {
        if let Some(link) = self.peers.get(&peer) {
            link.send(PeerMessage::Swarm { image: self.disk.id(), message });
        }
    }

    /// Makes sure that this link is the one by which the peer is connected; `false` if that is over.
    fn admit(&mut self, now: Instant, link: &Link) -> bool {
        let peer = link.peer();
        if let Some(known) = self.peers.get(&peer) {
            if known == link {
                return true;
            }
            if known.id() > link.id() {
                return false;
            }
            // The peer has come back before this side noticed that it had gone.
            self.forget(peer);
            self.swarm.handle_disconnected(now, peer);
            self.drain();
        }
        // The end of a link is told after everything that came by it, so that a closed one is never known for long.
        if link.is_closed() {
            return false;
        }
        link.hold();
        self.reporter.note_peer(peer, &link.member().name, self.parts.links.source(peer));
        self.peers.insert(peer, link.clone());
        true
    }

    /// A link that was dialled, or took the place of another, stands: the swarm asks the peer to be a neighbour.
    fn meet(&mut self, now: Instant, link: &Link) {
        if self.admit(now, link) {
            self.swarm.handle_connected(now, link.peer());
        } else {
            self.swarm.handle_connect_failed(now, link.peer());
        }
    }

    /// The link with a peer is gone.
    fn lose(&mut self, now: Instant, peer: PeerId) {
        self.forget(peer);
        self.swarm.handle_disconnected(now, peer);
        self.drain();
        // Both sides had dialled, and kept the other link.
        if let Some(link) = self.parts.links.standing(peer) {
            self.meet(now, &link);
        }
    }

    /// Forgets the link with a peer, and everything under way on it for this image.
    fn forget(&mut self, peer: PeerId) {
        if let Some(link) = self.peers.remove(&peer) {
            link.release();
        }
        self.serves.retain(|_, serve| serve.peer != peer);
    }

    /// Ends the exchange: tells the neighbours and makes durable what came.
    async fn leave(mut self, end: End) -> End {
        let reason = LeaveReason::NotHere;
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.send(peer, SwarmMessage::Leave { reason });
            self.forget(peer);
        }
        self.requests.clear();
        self.multicast.stop();
        let disk = self.disk.clone();
        if let Err(error) = self.parts.sync.run(move || disk.checkpoint()).await {
            tracing::warn!(image = %self.disk.id(), %error, "the last checkpoint failed");
        }
        end
    }

    fn withdraw(&mut self, error: &ReadError) {
        self.end.get_or_insert(End::Failed(error.to_string()));
    }
}
