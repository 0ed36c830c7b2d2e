//! The task that keeps one tracker informed, and hears of releases from it.
//!
//! It keeps one connection, dialled again for as long as the process lives, and does on it, at the same time:
//! announce what this host exchanges, every so often and at once when something changed that matters to others; watch
//! for releases; carry requests of the exchange; look whether its node of the hash table answers. After each connect
//! everything is announced at once and the newest releases that this host knows and the tracker does not are posted,
//! so that a tracker that lost its memory is filled again.
//!
//! A tracker that is away stops nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use drover_link::close;
use drover_link::dht::{answers, beside};
use drover_link::endpoint::{Connection, Endpoint, Expect};
use drover_link::frame::{read_frame, request, write_frame};
use drover_protocol::announce::{Announce, Announced, MAX_SWARMS, SwarmAnnounce, TrackerReply, TrackerRequest};
use drover_protocol::discovery::DISCOVERY_SINCE;
use drover_protocol::hints::Source;
use drover_protocol::id::PublisherKey;
use drover_protocol::message::MULTICAST_SINCE;
use drover_protocol::release::SignedRelease;
use serde::{Deserialize, Serialize};
use tokio::net::lookup_host;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Announcements;
use super::gossip::newest_of_each_name;
use super::revoked::Revoked;
use super::secret::Secret;
use crate::clock;
use crate::store::Store;
use crate::transfer::workers::Workers;
use crate::transport::{Event, Links, Router};

/// A tracker that is away is dialled again after so long, doubled with each failure.
const REDIAL_LEAST: Duration = Duration::from_millis(500);
const REDIAL_MOST: Duration = Duration::from_secs(15);
/// A tracker answers within this time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// After an announce, changes within so long go into the next. The first after a while is told at once: a host that waits
/// for its first peers, or a fleet that waits for its last host, waits for nothing.
const GATHER: Duration = Duration::from_millis(100);
/// When to announce again to a tracker that refused.
const AFTER_REFUSAL: Duration = Duration::from_secs(15);
/// How often it is looked whether the tracker's node hears this host, and how soon again if it does not.
const NODE_EVERY: Duration = Duration::from_secs(600);
const NODE_AGAIN: Duration = Duration::from_secs(60);
/// Requests that wait to be carried.
const QUEUE_LEN: usize = 64;

/// How a tracker stands, as this host sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TrackerStatus {
    /// "host:port", as in the settings.
    pub address: String,
    /// Whether there is a connection with it.
    pub reachable: bool,
    /// What went wrong last, until it goes well again.
    pub problem: Option<String>,
    /// What is wrong with its node of the hash table, while there is a connection.
    #[serde(default)]
    pub node_problem: Option<String>,
}

/// What the task of a tracker needs.
pub(crate) struct Parts {
    /// Which tracker it is.
    pub(crate) source: Source,
    pub(crate) endpoint: Endpoint,
    pub(crate) links: Links,
    pub(crate) router: Router,
    pub(crate) announcements: Announcements,
    pub(crate) store: Store,
    pub(crate) secret: Secret,
    pub(crate) revoked: Revoked,
    pub(crate) workers: Workers,
    pub(crate) releases: broadcast::Sender<SignedRelease>,
    /// Publishers whom the tracker trusts that told of them last.
    pub(crate) publishers: watch::Sender<Vec<PublisherKey>>,
    /// Where this host listens, as trackers are told.
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) rack: Option<String>,
    /// Whether this host takes part in the hash table.
    pub(crate) dht: bool,
}

/// A running task. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    calls: mpsc::Sender<Call>,
    status: watch::Receiver<TrackerStatus>,
    task: AbortHandle,
}

/// A request of the exchange's, and who waits for the answer.
#[derive(Debug)]
struct Call {
    request: TrackerRequest,
    answer: oneshot::Sender<Result<TrackerReply, String>>,
}

impl Tracker {
    /// Starts the task for the tracker at `address` ("host:port").
    pub(crate) fn start(address: String, parts: Parts) -> Self {
        let (calls, queue) = mpsc::channel(QUEUE_LEN);
        let (status, seen) =
            watch::channel(TrackerStatus { address, reachable: false, problem: None, node_problem: None });
        let task = tokio::spawn(Task { parts, status, announced: 0 }.run(queue)).abort_handle();
        Tracker { calls, status: seen, task }
    }

    /// Asks the tracker something; the error says why there is no answer.
    pub(crate) async fn call(&self, request: TrackerRequest) -> Result<TrackerReply, String> {
        let (answer, answered) = oneshot::channel();
        let gone = || "this host shuts down".to_owned();
        self.calls.send(Call { request, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| "the connection was lost".to_owned())?
    }

    /// Ends the task; calls fail from then on.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }

    pub(crate) fn status(&self) -> TrackerStatus {
        self.status.borrow().clone()
    }
}

struct Task {
    parts: Parts,
    status: watch::Sender<TrackerStatus>,
    /// Up to which count of urgent changes this tracker knows what was left.
    announced: u64,
}

impl Task {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let mut wait = REDIAL_LEAST;
        loop {
            let (dialled_at, status) = (Instant::now(), self.status.clone());
            let dialled = tokio::select! {
                dialled = self.dial() => dialled,
                never = refuse_calls(&mut calls, &status) => match never {},
            };
            let problem = match dialled {
                Ok(connection) => {
                    self.set_reachable(true, None);
                    let problem = self.converse(connection, &mut calls).await;
                    tracing::info!(tracker = self.address(), problem, "tracker lost");
                    problem
                }
                Err(problem) => problem,
            };
            self.set_reachable(false, Some(problem));
            wait = if dialled_at.elapsed() > REDIAL_MOST { REDIAL_LEAST } else { (wait * 2).min(REDIAL_MOST) };
            tokio::select! {
                () = sleep(clock::jittered(wait)) => {}
                never = refuse_calls(&mut calls, &status) => match never {},
            }
        }
    }

    fn address(&self) -> String {
        self.status.borrow().address.clone()
    }

    fn set_reachable(&self, reachable: bool, problem: Option<String>) {
        self.status.send_modify(|status| {
            if status.reachable != reachable {
                self.parts.announcements.note_reachable(reachable);
            }
            (status.reachable, status.problem, status.node_problem) = (reachable, problem, None);
        });
    }

    async fn dial(&self) -> Result<Connection, String> {
        let address = self.address();
        let addrs = lookup_host(&address).await.map_err(|error| format!("can't find {address}: {error}"))?;
        let mut problem = format!("{address} has no address");
        for addr in addrs {
            match self.parts.endpoint.connect(addr, Expect::Tracker).await {
                Ok(connection) => return Ok(connection),
                Err(error) => problem = error.to_string(),
            }
        }
        Err(problem)
    }

    /// Does everything that there is to do with a tracker, until the connection is lost; says why that was.
    async fn converse(&mut self, connection: Connection, calls: &mut mpsc::Receiver<Call>) -> String {
        let (link, _sender, mut control) = connection.split();
        let quic = &link.quic;
        tracing::info!(tracker = self.address(), "tracker reached");
        let announced = self.announced;
        let announce = Announcing { parts: &self.parts, status: &self.status, quic, announced };
        let (problem, announced) = {
            let mut announced = announced;
            let problem = tokio::select! {
                problem = announce.run(&mut announced) => problem,
                problem = watch_releases(&self.parts, quic) => problem,
                problem = carry(quic, link.version, calls) => problem,
                problem = repost(&self.parts, quic) => problem,
                problem = learn_secret(&self.parts, quic, link.version) => problem,
                never = watch_node(&self.parts, &self.status, quic.remote_address()) => match never {},
                error = quic.closed() => close::reason(&error),
                // Trackers say nothing on the control stream; its end is the connection's.
                _ = async { while let Ok(Some(_)) = control.next().await {} } => "it ended the connection".to_owned(),
            };
            (problem, announced)
        };
        self.announced = announced;
        problem
    }
}

enum Never {}

/// Answers calls while there is no connection.
async fn refuse_calls(calls: &mut mpsc::Receiver<Call>, status: &watch::Sender<TrackerStatus>) -> Never {
    while let Some(call) = calls.recv().await {
        let status = status.borrow().clone();
        let why = status.problem.unwrap_or_else(|| format!("{} has not answered yet", status.address));
        // Who asked may have given up.
        let _ = call.answer.send(Err(why));
    }
    core::future::pending().await
}

/// Carries calls, several at a time, to a tracker of this version of the protocol.
async fn carry(quic: &quinn::Connection, version: u16, calls: &mut mpsc::Receiver<Call>) -> String {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            Some(call) = calls.recv() => {
                if version < MULTICAST_SINCE && matches!(call.request, TrackerRequest::Lease(_) | TrackerRequest::EndLease { .. }) {
                    let _ = call.answer.send(Err("the tracker is of an older version, which knows no multicast".to_owned()));
                    continue;
                }
                let quic = quic.clone();
                under_way.spawn(async move {
                    let answer = ask(&quic, &call.request).await;
                    // Who asked may have given up.
                    let _ = call.answer.send(answer);
                });
            }
            Some(_) = under_way.join_next() => {}
            else => core::future::pending::<()>().await,
        }
    }
}

async fn ask(quic: &quinn::Connection, question: &TrackerRequest) -> Result<TrackerReply, String> {
    match timeout(ANSWER_DEADLINE, request(quic, question)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not answer within {} s", ANSWER_DEADLINE.as_secs())),
    }
}

struct Announcing<'a> {
    parts: &'a Parts,
    status: &'a watch::Sender<TrackerStatus>,
    quic: &'a quinn::Connection,
    announced: u64,
}

impl Announcing<'_> {
    /// Announces for as long as the tracker answers.
    async fn run(mut self, announced: &mut u64) -> String {
        let mut changes = self.parts.announcements.urgent.subscribe();
        loop {
            let gathered = Instant::now() + GATHER;
            changes.mark_unchanged();
            let (swarms, count) = self.parts.announcements.announced_since(self.announced);
            let mut again = None;
            for swarms in swarms.chunks(MAX_SWARMS) {
                match self.announce(swarms).await {
                    Ok(interval) => again = Some(again.map_or(interval, |least: Duration| least.min(interval))),
                    Err(problem) => return problem,
                }
            }
            (self.announced, *announced) = (count, count);
            let next = again.map(|interval| Instant::now() + clock::jittered(interval));
            tokio::select! {
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                changed = changes.changed() => match changed {
                    Ok(()) => sleep_until(gathered).await,
                    Err(_) => core::future::pending().await,
                },
            }
        }
    }

    /// Announces some swarms; says when to come again.
    async fn announce(&self, swarms: &[SwarmAnnounce]) -> Result<Duration, String> {
        let announce =
            Announce { listen: self.parts.listen.clone(), rack: self.parts.rack.clone(), swarms: swarms.to_vec() };
        match ask(self.quic, &TrackerRequest::Announce(announce)).await? {
            TrackerReply::Announced(announced) => {
                self.set_problem(None);
                Ok(self.learn(announced, swarms).await)
            }
            TrackerReply::Refused(why) => {
                self.set_problem(Some(why));
                Ok(AFTER_REFUSAL)
            }
            _ => Err("it answered an announce with something else".to_owned()),
        }
    }

    async fn learn(&self, announced: Announced, asked: &[SwarmAnnounce]) -> Duration {
        let interval = announced.interval();
        for swarm in announced.of_announced(asked) {
            self.parts.announcements.set_cohort(swarm.image, swarm.cohort);
            let peers = self.parts.links.learn(&swarm.peers, self.parts.source);
            if let Some(driver) = self.parts.router.driver_of(swarm.image).filter(|_| !peers.is_empty()) {
                // A driver that has just ended needs no candidates.
                let _ = driver.send(Event::Candidates(self.parts.source, peers)).await;
            }
        }
        interval
    }

    fn set_problem(&self, problem: Option<String>) {
        self.status.send_if_modified(|status| {
            let modified = status.problem != problem;
            status.problem = problem;
            modified
        });
    }
}

/// Passes on what the tracker tells of, for as long as it does: releases, how far swarms are, who is revoked, and whom
/// it trusts to publish.
async fn watch_releases(parts: &Parts, quic: &quinn::Connection) -> String {
    let watch = async {
        let (mut send, mut receive) = quic.open_bi().await.map_err(|error| close::reason(&error))?;
        write_frame(&mut send, &TrackerRequest::Watch).await.map_err(|error| error.to_string())?;
        loop {
            match read_frame(&mut receive).await {
                Ok(Some(TrackerReply::Releases(releases))) => {
                    for release in releases {
                        // Nobody listens yet, or any more.
                        let _ = parts.releases.send(release);
                    }
                }
                Ok(Some(TrackerReply::Cohorts(cohorts))) => {
                    cohorts.iter().for_each(|swarm| parts.announcements.set_cohort(swarm.image, swarm.cohort));
                }
                Ok(Some(TrackerReply::Revoked(told))) => parts.revoked.learn(&told, &parts.workers).await,
                Ok(Some(TrackerReply::Publishers(told))) => drop(parts.publishers.send_replace(told)),
                Ok(Some(TrackerReply::Refused(why))) => return Err(why),
                Ok(_) => return Err::<Never, _>("it stopped telling of releases".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    match watch.await {
        Ok(never) => match never {},
        Err(problem) => problem,
    }
}

/// Looks now and then whether the tracker's node of the hash table hears this host: one that does not says nothing, and this
/// host would be missed only when the tracker is gone.
async fn watch_node(parts: &Parts, status: &watch::Sender<TrackerStatus>, tracker: SocketAddr) -> Never {
    let (Some(node), Some(IpAddr::V4(from)), true) =
        (beside(tracker), parts.listen.first().map(SocketAddr::ip), parts.dht)
    else {
        return core::future::pending().await;
    };
    let secret = parts.secret.known().await;
    loop {
        // What can't be asked is not known.
        let is_silent = answers(from, node, secret.pass()).await.is_ok_and(|answers| !answers);
        let problem = is_silent.then(|| {
            format!(
                "its node of the DHT ({node}, UDP) does not answer this host, which so meets others there only by hosts that \
                 it knows: see that networks in its tracker.toml has this host's address in it, that dht is not false \
                 there, and that no firewall is between"
            )
        });
        if let Some(problem) = problem.as_ref().filter(|_| status.borrow().node_problem.is_none()) {
            tracing::warn!(tracker = status.borrow().address, "{problem}");
        }
        status.send_modify(|status| status.node_problem = problem);
        sleep(clock::jittered(if is_silent { NODE_AGAIN } else { NODE_EVERY })).await;
    }
}

/// Asks for the cluster's secret. Ends only if the tracker does not answer.
async fn learn_secret(parts: &Parts, quic: &quinn::Connection, version: u16) -> String {
    if version >= DISCOVERY_SINCE {
        match ask(quic, &TrackerRequest::Secret).await {
            Ok(TrackerReply::Secret(secret)) => parts.secret.learn(secret, &parts.workers).await,
            Ok(_) => tracing::debug!("the tracker does not tell the cluster's secret"),
            Err(problem) => return problem,
        }
    }
    core::future::pending().await
}

/// Posts the newest releases that this host knows and the tracker does not. Ends only if the tracker does not answer.
async fn repost(parts: &Parts, quic: &quinn::Connection) -> String {
    let store = parts.store.clone();
    let known = parts.workers.run(move || newest_of_each_name(&store)).await;
    if !known.is_empty() {
        match ask(quic, &TrackerRequest::Releases { names: Vec::new() }).await {
            Ok(TrackerReply::Releases(theirs)) => {
                let theirs: BTreeSet<Vec<u8>> = theirs.into_iter().map(|signed| signed.body).collect();
                for signed in known.into_iter().filter(|signed| !theirs.contains(&signed.body)) {
                    match ask(quic, &TrackerRequest::Post(signed)).await {
                        Ok(TrackerReply::Refused(why)) => tracing::debug!(why, "the tracker wants no release of ours"),
                        Ok(_) => {}
                        Err(problem) => return problem,
                    }
                }
            }
            Ok(_) => return "it answered a question for releases with something else".to_owned(),
            Err(problem) => return problem,
        }
    }
    core::future::pending().await
}
