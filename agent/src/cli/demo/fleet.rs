//! The daemons of the demo: child processes that end with this one, whatever becomes of it.
//!
//! Each child's standard input is a pipe from here: it ends in order when the pipe closes, also when this process is
//! killed. Dropping a child kills it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use drover_link::enrol::{JoinOptions, join};
use drover_protocol::id::{ImageId, PeerId};
use futures_util::future::{join_all, try_join_all};
use indicatif::MultiProgress;
use tokio::process::{Child, Command};

use super::DemoCluster;
use crate::cli::output::{Output, say};
use crate::cli::progress::Progress;
use crate::control::Problem;
use crate::control::api::{Event, MasterRef, Phase, Status, Transfer, Verify};
use crate::control::client::Client;
use crate::control::problem::chain;
use crate::daemon::IDENTITY;

/// The publisher and the hosts.
pub(super) struct Fleet {
    /// The publisher first.
    members: Vec<Host>,
}

/// One daemon.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) state: PathBuf,
    pub(super) client: Client,
    peer: PeerId,
    child: std::sync::Mutex<Child>,
}

/// How a master came to a host.
pub(super) struct Arrival {
    pub(super) seconds: f64,
    pub(super) from_publisher: u64,
    pub(super) from_peers: u64,
}

impl Fleet {
    /// Starts a publisher and `count` hosts that subscribe to the demo's name, and waits until they answer.
    pub(super) async fn start(
        folder: &Path,
        cluster: &DemoCluster,
        count: u8,
        settings: &str,
    ) -> Result<Self, Problem> {
        let names = std::iter::once("publisher".to_owned()).chain((1..=count).map(|number| format!("host-{number}")));
        let starting = names.enumerate().map(|(at, name)| Host::start(folder, cluster, at as u8, name, settings));
        let members = try_join_all(starting).await?;
        try_join_all(members.iter().map(Host::wait_until_ready)).await?;
        Ok(Fleet { members })
    }

    pub(super) fn publisher(&self) -> &Host {
        &self.members[0]
    }

    pub(super) fn hosts(&self) -> &[Host] {
        &self.members[1..]
    }

    /// Shows how an image comes to every host, and returns how it did.
    pub(super) async fn watch(&self, image: ImageId, since: Instant, quiet: bool) -> Result<Vec<Arrival>, Problem> {
        let bars = MultiProgress::new();
        let publisher = self.publisher().peer;
        let watched = self.hosts().iter().map(|host| host.watch(image, publisher, since, (!quiet).then_some(&bars)));
        try_join_all(watched).await
    }

    /// The least and the most that any host holds of an image, in percent.
    pub(super) async fn held_percent(&self, image: ImageId) -> (u64, u64) {
        let statuses = join_all(self.hosts().iter().map(Host::status)).await;
        let held = |status: Status| {
            let transfer = status.transfers.into_iter().find(|transfer| transfer.image == image)?;
            Some(transfer.held_bytes * 100 / transfer.data_bytes.max(1))
        };
        let held: Vec<u64> = statuses.into_iter().map(|status| status.ok().and_then(held).unwrap_or(0)).collect();
        (held.iter().copied().min().unwrap_or(0), held.iter().copied().max().unwrap_or(0))
    }

    /// Has every host read its master again.
    pub(super) async fn verify(&self, image: ImageId) -> Result<(), Problem> {
        try_join_all(self.hosts().iter().map(|host| host.verify(image))).await.map(|_| ())
    }

    /// Ends all daemons in order.
    pub(super) async fn stop(self) {
        join_all(self.members.into_iter().map(Host::stop)).await;
    }
}

impl Host {
    async fn start(
        folder: &Path,
        cluster: &DemoCluster,
        at: u8,
        name: String,
        settings: &str,
    ) -> Result<Self, Problem> {
        let state = folder.join(&name);
        let (address, token) = (cluster.address.to_string(), cluster.token()?);
        let options = JoinOptions { tracker: &address, token: &token, name: &name, publisher: None };
        let identity = join(&options, &state.join(IDENTITY)).await;
        let identity = identity.map_err(|error| Problem::failed(format!("{name} joins"), chain(&error)))?;
        let child = spawn(&state, listen_address(at), at > 0, settings);
        let child = child.map_err(|error| Problem::failed(format!("start {name}"), error))?;
        let (client, peer) = (Client::new(&state), identity.peer_id());
        Ok(Host { name, state, client, peer, child: std::sync::Mutex::new(child) })
    }

    async fn wait_until_ready(&self) -> Result<(), Problem> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            match self.status().await {
                Ok(status) if status.trackers.iter().any(|tracker| tracker.reachable) => return Ok(()),
                Err(problem) if Instant::now() >= deadline => return Err(problem),
                Ok(_) if Instant::now() >= deadline => {
                    return Err(Problem::failed(&self.name, "it does not reach the tracker"));
                }
                _ => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }

    async fn watch(
        &self,
        image: ImageId,
        publisher: PeerId,
        since: Instant,
        bars: Option<&MultiProgress>,
    ) -> Result<Arrival, Problem> {
        let mut progress = bars.map(|bars| Progress::among(bars, Output::new(false), &self.name));
        let (mut last_bytes, mut last_change) = (0, Instant::now());
        loop {
            let found = self.status().await?.transfers.into_iter().find(|transfer| transfer.image == image);
            if let Some(transfer) = found {
                if let Some(progress) = &mut progress {
                    progress.show(&Event::Transfer(Box::new(transfer.clone())));
                }
                if transfer.phase == Phase::Complete {
                    let seconds = since.elapsed().as_secs_f64();
                    if let Some(progress) = &progress {
                        progress.end_with(&format!("sealed after {seconds:.1} s"));
                    }
                    return Ok(arrival(&transfer, publisher, seconds));
                }
                if transfer.phase == Phase::Failed {
                    return Err(Problem::failed(&self.name, transfer.reason.unwrap_or_default()));
                }
                if transfer.held_bytes != last_bytes {
                    (last_bytes, last_change) = (transfer.held_bytes, Instant::now());
                }
            }
            if last_change.elapsed() > STALL_PATIENCE {
                return Err(Problem::failed(&self.name, format!("no byte came for {} s", STALL_PATIENCE.as_secs())));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn verify(&self, image: ImageId) -> Result<(), Problem> {
        let request = Verify { master: MasterRef::Image(image) };
        match self.client.stream("/v1/verify", &request).await?.last(|_| {}).await? {
            Event::Verified(verified) if verified.damaged_count == 0 => Ok(()),
            Event::Verified(verified) => {
                Err(Problem::failed(&self.name, format!("{} chunks of its master are damaged", verified.damaged_count)))
            }
            _ => Err(Problem::failed(&self.name, "it ended without saying whether its master is good")),
        }
    }

    /// Its status, unless it has ended.
    async fn status(&self) -> Result<Status, Problem> {
        let ended = self.child.lock().ok().and_then(|mut child| child.try_wait().ok().flatten());
        if let Some(ended) = ended {
            let log = std::fs::read_to_string(self.state.join(LOG)).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(3).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            return Err(Problem::failed(&self.name, format!("its daemon ended ({ended})")).todo(tail));
        }
        self.client.get("/v1/status").await
    }

    async fn stop(self) {
        let Ok(mut child) = self.child.into_inner() else { return };
        drop(child.stdin.take());
        if tokio::time::timeout(STOP_PATIENCE, child.wait()).await.is_err() {
            say(&format!("{} did not end in order and is killed", self.name));
            let _ = child.kill().await;
        }
    }
}

/// The last warnings and errors in the logs of the daemons in `folder`, as text for people.
pub(super) fn troubles(folder: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else { return String::new() };
    let mut told = Vec::new();
    for entry in entries.flatten() {
        let log = std::fs::read_to_string(entry.path().join(LOG)).unwrap_or_default();
        let bad = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        let mut lines: Vec<&str> = log.lines().rev().filter(bad).take(LINES_TOLD).collect();
        lines.reverse();
        told.extend(lines.iter().map(|line| format!("{}: {line}", entry.file_name().to_string_lossy())));
    }
    told.truncate(MOST_LINES_TOLD);
    told.join("\n")
}

fn arrival(transfer: &Transfer, publisher: PeerId, seconds: f64) -> Arrival {
    let taken = |from_publisher: bool| {
        let peers = transfer.peers.iter().filter(|peer| (peer.peer == publisher) == from_publisher);
        peers.map(|peer| peer.taken_bytes).sum()
    };
    Arrival { seconds, from_publisher: taken(true), from_peers: taken(false) }
}

fn spawn(state: &Path, listen: SocketAddr, subscribes: bool, more: &str) -> io::Result<Child> {
    let log = std::fs::File::create(state.join(LOG))?;
    let mut command = Command::new(std::env::current_exe()?);
    // Settings of a real daemon on this machine are not the demo's.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"DROVER_") && name != "DROVER_LOG" {
            command.env_remove(name);
        }
    }
    // The file is named, and empty, so that /etc/drover/drover.toml is none of it; sealed masters must go with the
    // folder, so they are not made immutable.
    let settings = state.join("drover.toml");
    std::fs::write(&settings, format!("immutable = false\n{more}"))?;
    command.args(["daemon", "--stop-with-stdin", "--listen", &listen.to_string()]);
    command.arg("--state").arg(state).arg("--config").arg(&settings);
    command.env("DROVER_SUBSCRIBE", if subscribes { super::NAME } else { "" });
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn()
}

/// 127.0.0.11 and on, where this machine has all of 127/8, as Linux does; else 127.0.0.1. A free port in any case.
fn listen_address(at: u8) -> SocketAddr {
    let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11 + at)), 0);
    if UdpSocket::bind(own).is_ok() { own } else { SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0) }
}

const LOG: &str = "log";
/// Of each daemon, and of all.
const LINES_TOLD: usize = 3;
const MOST_LINES_TOLD: usize = 20;
/// A daemon is ready in tens of milliseconds; a hundred of them on two processors take longer.
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(6);
const STALL_PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
