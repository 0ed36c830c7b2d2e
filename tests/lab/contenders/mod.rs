//! What competes: Drover and what people use today, each run as its users would.
//!
//! A contender is told a [`Stage`]: a network, the image at its source and a folder for each host. It starts what it needs
//! in the hosts' namespaces, says when the clock starts, and gives back when each host had the whole file, and where. The
//! clock starts when the receivers have been told what to fetch and the source begins to offer it; each contender's
//! documentation says what is in its time and what is not. The lab compares every file with the image after the clock has
//! stopped.

mod aria2;
pub(crate) mod drover;
mod http;
mod libtorrent;
mod nfs;
mod process;
pub(crate) mod program;
mod rqbit;
mod sendme;
mod torrent;
mod udpcast;
mod uftp;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) use process::{Guard, poll};

use crate::case::Case;
use crate::measure::Meter;
use crate::network::{Network, NetworkError};

/// One system that brings a file from a source to all other hosts.
pub(crate) trait Contender {
    /// What the command line and the table call it.
    fn name(&self) -> &'static str;

    /// What it needs that is not on this machine, and how to install it.
    fn missing(&self) -> Option<String>;

    /// Spreads the image once.
    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError>;
}

/// Every contender, in the order of the table.
pub(crate) fn all() -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(drover::Drover::DEFAULT),
        Box::new(drover::Drover::MULTICAST),
        Box::new(uftp::Uftp),
        Box::new(udpcast::Udpcast),
        Box::new(aria2::Aria2),
        Box::new(libtorrent::Libtorrent),
        Box::new(rqbit::Rqbit),
        Box::new(sendme::Sendme),
        Box::new(http::Http),
        Box::new(nfs::Nfs),
    ]
}

/// What a contender runs on.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    /// The hosts.
    pub(crate) network: &'a Network,
    /// The source's file. It is in the page cache, and is not changed.
    pub(crate) image: &'a Path,
    /// An empty folder, removed afterwards; see [`Stage::host_folder`].
    pub(crate) folder: &'a Path,
    /// The case.
    pub(crate) case: &'a Case,
    meter: &'a Meter,
    started: Cell<Option<Instant>>,
}

/// What a contender did.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Every receiver, in the order in which they had the whole file.
    pub(crate) finished: Vec<Finished>,
    /// What else it has to say; goes into the JSON as it is. `wasted_bytes`, what the receivers got twice or for nothing,
    /// has a place in the table.
    pub(crate) details: serde_json::Value,
}

/// A host that has the whole file.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    /// Which host.
    pub(crate) host: usize,
    /// Its file.
    pub(crate) file: PathBuf,
    /// Since the clock was started.
    pub(crate) after: Duration,
}

/// Why a contender gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContenderError {
    /// A process could not be started or waited for.
    #[error("start {what}: {cause}")]
    Start {
        /// Which.
        what: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A process ended as it must not.
    #[error("{what} ended with {how}:\n{last}")]
    Failed {
        /// Which.
        what: String,
        /// How.
        how: String,
        /// The last lines that it printed.
        last: String,
    },
    /// Something did not happen in time.
    #[error("waited {seconds} s in vain for {what}")]
    Deadline {
        /// What.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// A file could not be made, read or moved.
    #[error("{what}: {cause}")]
    File {
        /// What was being done to which file.
        what: String,
        /// Why not.
        cause: std::io::Error,
    },
    /// It said something that the lab does not understand.
    #[error("{what} said something unexpected: {said}")]
    Answer {
        /// Who.
        what: String,
        /// What.
        said: String,
    },
    /// It was measured as faster than any schedule could be: the measurement is wrong.
    #[error("the measurement is wrong: {0}")]
    Impossible(String),
    /// The network can't be read.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl<'a> Stage<'a> {
    /// A stage that nobody was on yet.
    pub(crate) fn new(
        network: &'a Network,
        case: &'a Case,
        image: &'a Path,
        folder: &'a Path,
        meter: &'a Meter,
    ) -> Self {
        Stage { network, image, folder, case, meter, started: Cell::new(None) }
    }

    /// The folder of a host; there from the first call on.
    pub(crate) fn host_folder(&self, host: usize) -> Result<PathBuf, ContenderError> {
        self.sub_folder(&format!("host{host}"))
    }

    /// A folder for what is not a host's own; there from the first call on.
    pub(crate) fn sub_folder(&self, name: &str) -> Result<PathBuf, ContenderError> {
        let folder = self.folder.join(name);
        let made = std::fs::create_dir_all(&folder);
        made.map_err(|cause| ContenderError::File { what: format!("make the folder {}", folder.display()), cause })?;
        Ok(folder)
    }

    /// Starts a process, to be ended when the guard is dropped, with the peak of its memory watched. `command` says where
    /// it runs (see `NetHost::command`); `host` is whose it is, if it is one host's. `role` is what the report sums up
    /// memory by, as in "agent" or "client". What it prints goes to `ROLE-HOST.log` in the stage's folder.
    pub(crate) fn start(
        &self,
        host: Option<usize>,
        role: &str,
        command: &mut Command,
    ) -> Result<Guard, ContenderError> {
        let (what, log) = match host {
            Some(host) => (format!("{role} of host {host}"), format!("{role}-{host}.log")),
            None => (role.to_owned(), format!("{role}.log")),
        };
        let guard = Guard::start(&what, command, &self.folder.join(log))?;
        self.meter.watch(host, role, guard.pid());
        Ok(guard)
    }

    /// The clock starts: bytes, CPU and time count from here on. To be called once, right before the source begins.
    pub(crate) fn start_clock(&self) -> Result<Instant, ContenderError> {
        let started = self.meter.start()?;
        self.started.set(Some(started));
        Ok(started)
    }

    /// Asks `look` for every receiver that is not done yet, every few milliseconds, until all are; then stops the clock.
    /// `look` gives the host's file as soon as it is whole.
    pub(crate) fn finish_line(
        &self,
        mut look: impl FnMut(usize) -> Result<Option<PathBuf>, ContenderError>,
    ) -> Result<Vec<Finished>, ContenderError> {
        let started = self.started.get().map_or_else(|| self.start_clock(), Ok)?;
        let mut running: Vec<usize> = self.case.receivers().collect();
        let mut finished = Vec::new();
        while !running.is_empty() {
            let mut still = Vec::new();
            for &host in &running {
                match look(host)? {
                    Some(file) => finished.push(Finished { host, file, after: started.elapsed() }),
                    None => still.push(host),
                }
            }
            running = still;
            if running.is_empty() {
                break;
            }
            if started.elapsed() > self.deadline() {
                let what = format!("hosts {running:?} to have the whole file");
                return Err(ContenderError::Deadline { what, seconds: self.deadline().as_secs() });
            }
            std::thread::sleep(FINISH_POLL);
        }
        self.meter.stop()?;
        Ok(finished)
    }

    /// [`Stage::finish_line`] for receivers that are processes which end when they have the file: one `(host, process,
    /// file)` each.
    pub(crate) fn wait_for_ends(
        &self,
        mut receivers: Vec<(usize, Guard, PathBuf)>,
    ) -> Result<Vec<Finished>, ContenderError> {
        self.finish_line(|host| {
            let missing = || ContenderError::Answer { what: format!("host {host}"), said: "no process".to_owned() };
            let (_, process, file) = receivers.iter_mut().find(|(of, _, _)| *of == host).ok_or_else(missing)?;
            Ok(process.ended()?.map(|_| file.clone()))
        })
    }

    /// When to give up: far beyond what one source takes that serves every host a copy of its own.
    pub(crate) fn deadline(&self) -> Duration {
        let receivers = self.case.receivers().len() as f64;
        let bound = self.case.receivers().filter_map(|host| self.case.bound_s(host)).fold(0.0, f64::max);
        Duration::from_secs_f64(60.0 + bound * receivers * 2.0)
    }
}

/// Far below a thousandth of what any case takes; a look at a file costs microseconds.
const FINISH_POLL: Duration = Duration::from_millis(4);
