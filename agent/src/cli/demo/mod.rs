//! `drover demo`: the main job on this machine, with no set-up and no root.
//!
//! A tracker in this process, a publisher and some hosts as daemons of their own on 127.0.0.x, each with a state folder
//! of its own: what runs is what runs in a fleet, only closer together. One file is published, every host fetches it by
//! its subscription, every master is read again and verified, and a clone is made on each.
//!
//! It leaves nothing running and, unless told to, nothing lying about; if something fails, what the logs say of it is
//! printed before they go.

mod disk;
mod fleet;
mod report;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use drover_link::identity::Role;
use drover_protocol::id::ImageId;
use drover_protocol::networks::Networks;
use drover_protocol::release::Name;
use drover_tracker::cluster;
use drover_tracker::{StartOptions, Tracker};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::fleet::{Arrival, Fleet};
use self::report::{HostReport, Report};
use super::output::{say, warn};
use super::passphrase::Passphrase;
use super::progress::Progress;
use super::{Common, Exit};
use crate::control::api::{Event, ImportMode, Imported, Publish};
use crate::control::problem::chain;
use crate::control::{Code, Problem};
use crate::handover::{CloneSpec, Handover};
use crate::quantity::{Bytes, parse_duration};

/// Show the main job on this machine: one file to N hosts, verified, and a clone on each
///
/// Starts a tracker, a publisher and N hosts on 127.0.0.x, needs no root and no set-up, and cleans up after itself.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// The disk to spread: raw, qcow2, vmdk, vhd or vhdx (default: a small file system made for this)
    file: Option<PathBuf>,
    /// How many hosts, the publisher not counted
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    hosts: u8,
    /// End the tracker so long after the release, as in 2s: the hosts, slowed down for this, complete alone, and a second
    /// release reaches them with no tracker to tell of it
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    no_tracker_after: Option<Duration>,
    /// Leave everything in place at the end: masters, clones, logs
    #[arg(long)]
    keep: bool,
    /// Work in a new folder in here (default: the folder for temporary files)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The one name that is released.
const NAME: &str = "demo";
const DAY_S: u64 = 24 * 3600;
/// What each host gives at the most when the tracker is to go in the middle of it: the demo's own disk takes some ten
/// seconds then.
const SLOW: &str = "upload_limit = \"8MiB\"\n";
/// Bytes of the second release.
const SECOND_LEN: usize = 8 << 20;
const CLEAN_UP_PATIENCE: Duration = Duration::from_secs(5);

impl Demo {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        if let Some(file) = &self.file {
            check_file(file)?;
        }
        // Before there is a folder, which is to go whatever ends this.
        let terminate = signal(SignalKind::terminate()).map_err(|error| Problem::failed("demo", error))?;
        let folder = self.work_folder()?;
        let result = tokio::select! {
            result = self.show(common, folder.path()) => result,
            () = interrupted(terminate) => {
                say("interrupted");
                self.leave(folder)?;
                return Ok(Exit::Interrupted);
            }
        };
        let report = match result {
            Ok(report) => report,
            Err(problem) => {
                let said = fleet::troubles(folder.path());
                let todo = [problem.todo.clone(), said].into_iter().filter(|text| !text.is_empty());
                let told = problem.todo(todo.collect::<Vec<_>>().join("\n"));
                if let Err(left) = self.leave(folder) {
                    warn(&left.to_string());
                }
                return Err(told);
            }
        };
        // Before anything is printed: closed standard output ends this process at once.
        self.leave(folder)?;
        common.output().print(&report, |report| report.table())?;
        if !common.json {
            say(report::NEXT_COMMANDS);
        }
        Ok(Exit::Done)
    }

    /// Removes the folder, or says where it stays.
    fn leave(&self, folder: tempfile::TempDir) -> Result<(), Problem> {
        let path = folder.keep();
        if self.keep {
            say(&format!("kept in {}: masters, clones and logs", path.display()));
            return Ok(());
        }
        // A daemon that was killed just now may still write its last file.
        let deadline = Instant::now() + CLEAN_UP_PATIENCE;
        loop {
            match std::fs::remove_dir_all(&path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(Problem::failed(format!("remove {}", path.display()), error));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    async fn show(&self, common: &Common, folder: &Path) -> Result<Report, Problem> {
        let quiet = common.json;
        let tell = |text: &str| {
            if !quiet {
                say(text);
            }
        };
        let file = match &self.file {
            Some(file) => std::path::absolute(file).map_err(|error| Problem::failed("demo", error))?,
            None => {
                let (folder, made) = (folder.to_owned(), "make a disk to spread");
                let disk = tokio::task::spawn_blocking(move || disk::make(&folder)).await;
                let disk = disk
                    .map_err(|error| Problem::failed(made, error))?
                    .map_err(|error| Problem::failed(made, error))?;
                tell(&format!("made a disk: {}", disk.what));
                disk.path
            }
        };
        let tracker = start_tracker(&folder.join("tracker")).await?;
        tell(&format!("tracker on {}", tracker.cluster.address));
        let fleet =
            Fleet::start(folder, &tracker.cluster, self.hosts, self.no_tracker_after.map_or("", |_| SLOW)).await?;
        tell(&format!("publisher and hosts ({}) run, each with a state folder in {}", self.hosts, folder.display()));
        let imported = self.publish(common, &fleet, &tracker.cluster, &file, 1).await?;
        tell(&format!(
            "released {NAME}@1: image {}, {} with {} of data",
            imported.image.short(),
            Bytes(imported.content_len),
            Bytes(imported.data_len)
        ));
        let mut running = Some(tracker.running);
        let arrivals = self.watch(&fleet, imported.image, &mut running, quiet).await?;
        if self.no_tracker_after.is_some() {
            let second = self.publish(common, &fleet, &tracker.cluster, &make_second(folder)?, 2).await?;
            tell(&format!("released {NAME}@2 without a tracker: image {}", second.image.short()));
            fleet.watch(second.image, Instant::now(), quiet).await?;
        }
        tell("every host has it; reading every master again");
        fleet.verify(imported.image).await?;
        tell("every master is byte for byte what was published; making a clone on each host");
        let hosts = self.clone_on_each(&fleet, arrivals).await?;
        let report = Report { image: imported.image, data_bytes: imported.data_len, hosts };
        fleet.stop().await;
        if let Some(running) = running {
            running.shutdown().await;
        }
        Ok(report)
    }

    /// Shows how the first release comes to every host, and ends the tracker meanwhile if it was told to.
    async fn watch(
        &self,
        fleet: &Fleet,
        image: ImageId,
        running: &mut Option<Tracker>,
        quiet: bool,
    ) -> Result<Vec<Arrival>, Problem> {
        let mut watching = std::pin::pin!(fleet.watch(image, Instant::now(), quiet));
        let Some(after) = self.no_tracker_after else { return watching.await };
        // Hosts that are all done before do not wait for it.
        let early = tokio::select! {
            arrivals = &mut watching => Some(arrivals?),
            () = tokio::time::sleep(after) => None,
        };
        let held = fleet.held_percent(image).await;
        if let Some(running) = running.take() {
            running.shutdown().await;
        }
        if !quiet {
            say(&format!("the tracker is gone; hosts have {} % to {} %", held.0, held.1));
        }
        match early {
            Some(arrivals) => Ok(arrivals),
            None => watching.await,
        }
    }

    fn work_folder(&self) -> Result<tempfile::TempDir, Problem> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("drover-demo-");
        let made = match &self.dir {
            Some(dir) => std::fs::create_dir_all(dir).and_then(|()| builder.tempdir_in(dir)),
            None => builder.tempdir(),
        };
        made.map_err(|error| Problem::failed("make a folder for the demo", error).todo("name another one with --dir"))
    }

    async fn publish(
        &self,
        common: &Common,
        fleet: &Fleet,
        cluster: &DemoCluster,
        file: &Path,
        version: u64,
    ) -> Result<Imported, Problem> {
        let key = super::key::read(&cluster.publisher_key, &Passphrase::default())?;
        let name: Name = NAME.parse().expect("the name is a constant");
        let mut progress = Progress::new(common.output(), "publisher");
        let request = Publish { path: file.to_owned(), format: None, mode: ImportMode::Auto };
        let show = |event: &Event| {
            if !common.json {
                progress.show(event);
            }
        };
        let imported = super::publish::import(&fleet.publisher().client, &request, show).await;
        progress.finish();
        let released =
            super::publish::release(&fleet.publisher().client, &key, &name, version, 7 * DAY_S, imported?).await?;
        if released.taken_by.is_empty() && self.no_tracker_after.is_none() {
            let why = format!("the tracker did not take the release: {}", released.problems.join("; "));
            return Err(Problem::failed("demo", why));
        }
        Ok(released.imported)
    }

    async fn clone_on_each(&self, fleet: &Fleet, arrivals: Vec<Arrival>) -> Result<Vec<HostReport>, Problem> {
        let mut reports = Vec::new();
        for (host, arrival) in fleet.hosts().iter().zip(arrivals) {
            let name: Name = format!("{}-vm", host.name).parse().expect("a host's name is short and plain");
            let out = host.state.join(format!("{name}.img"));
            let spec = CloneSpec::new(name, out);
            let found = host.client.get(&format!("/v1/masters/{NAME}")).await?;
            let what = format!("clone on {}", host.name);
            let master = super::clone::as_source(&found).ok_or_else(|| Problem::failed(&what, "it is not complete"))?;
            let handover = Handover::new(&host.state);
            let made = tokio::task::spawn_blocking(move || handover.create(&master, &spec)).await;
            let made = made.map_err(|error| Problem::failed(&what, error))?;
            let created = made.map_err(|error| super::clone::refuse(&what, &error))?;
            reports.push(HostReport::new(host, arrival, &created));
        }
        Ok(reports)
    }
}

/// When somebody ends the demo.
async fn interrupted(mut terminate: Signal) {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Another disk to spread: some data and nothing else.
fn make_second(folder: &Path) -> Result<PathBuf, Problem> {
    let (path, mut bytes) = (folder.join("second.raw"), vec![0; SECOND_LEN]);
    blake3::Hasher::new().update(b"second").finalize_xof().fill(&mut bytes);
    std::fs::write(&path, bytes).map_err(|error| Problem::failed("make a second disk", error))?;
    Ok(path)
}

/// What would fail after everything was started is refused before.
fn check_file(file: &Path) -> Result<(), Problem> {
    let what = || format!("demo {}", file.display());
    match std::fs::metadata(file) {
        Ok(facts) if facts.is_file() => Ok(()),
        Ok(_) => Err(Problem::new(Code::Usage, what(), "it is no regular file").todo("give a disk image file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Problem::new(Code::NotFound, what(), "there is no such file"))
        }
        Err(error) => Err(Problem::failed(what(), error)),
    }
}

/// A tracker in this process.
struct RunningTracker {
    running: Tracker,
    cluster: DemoCluster,
}

/// The cluster that it made.
pub(super) struct DemoCluster {
    folder: PathBuf,
    publisher_key: PathBuf,
    address: SocketAddr,
}

async fn start_tracker(folder: &Path) -> Result<RunningTracker, Problem> {
    let what = "start a tracker";
    let listen: SocketAddr = "127.0.0.1:0".parse().expect("the address is a constant");
    let made = cluster::init(folder, listen).map_err(|error| Problem::failed(what, chain(&error)))?;
    let (certificate_life, dht) = (Duration::from_secs(DAY_S), Some(Networks::private()));
    let options = StartOptions { listen, http: None, certificate_life, signatures: 1, dht, trackers: Vec::new() };
    let running = Tracker::start_with(folder, options).map_err(|error| Problem::failed(what, chain(&error)))?;
    let address = running.local_addr();
    let cluster = DemoCluster { folder: folder.to_owned(), publisher_key: made.publisher_key, address };
    Ok(RunningTracker { running, cluster })
}

impl DemoCluster {
    /// A token for one more host.
    fn token(&self) -> Result<drover_link::token::JoinToken, Problem> {
        let hour = std::time::Duration::from_secs(3600);
        cluster::new_token(&self.folder, Role::Host, hour)
            .map_err(|error| Problem::failed("make a token", chain(&error)))
    }
}
