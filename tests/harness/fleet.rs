//! A cluster with its tracker and hosts.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::command::{run, tracker_program};
use crate::host::Host;
use crate::process::Process;
use crate::wait::wait_for;

/// A tracker and hosts, each on a loopback address of its own.
#[derive(Debug)]
pub struct Fleet {
    dir: TempDir,
    net: [u8; 2],
    tracker: Option<Process>,
    /// The hosts in the order in which they were added. The first is the one that tests publish from.
    pub hosts: Vec<Host>,
}

/// What all hosts of a fleet are told.
#[derive(Debug, Clone, Default)]
pub struct FleetOptions {
    /// How many hosts.
    pub hosts: usize,
    /// Lines added to each host's settings file.
    pub settings: String,
}

impl Fleet {
    /// A cluster with its tracker and `hosts` running agents.
    #[track_caller]
    pub fn start(hosts: usize) -> Self {
        Self::with(&FleetOptions { hosts, ..FleetOptions::default() })
    }

    /// A cluster with its tracker and running agents that all have the same settings.
    #[track_caller]
    pub fn with(options: &FleetOptions) -> Self {
        let dir = tempfile::Builder::new().prefix("drover-test-").tempdir().expect("a temporary folder can be made");
        let mut fleet = Fleet { dir, net: free_net(), tracker: None, hosts: Vec::new() };
        let listen = fleet.tracker_addr();
        let state = fleet.tracker_state();
        run(tracker_program().arg("init").arg("--state").arg(&state).args(["--listen", &listen])).ok();
        fleet.start_tracker();
        for _ in 0..options.hosts {
            fleet.add_host(&options.settings);
        }
        fleet
    }

    /// Adds a host: joins it, writes its settings, starts its agent and waits until that answers.
    #[track_caller]
    pub fn add_host(&mut self, settings: &str) -> &mut Host {
        let mut host = self.join_host(settings);
        host.start();
        self.hosts.push(host);
        self.hosts.last_mut().expect("just added")
    }

    /// Joins a host and writes its settings, but does not start it and does not keep it.
    #[track_caller]
    pub fn join_host(&self, settings: &str) -> Host {
        let number = self.hosts.len();
        let addr = Ipv4Addr::new(127, self.net[0], self.net[1], 11 + number as u8);
        let host = Host::new(format!("host{number}"), self.dir.path(), addr, settings);
        host.join(&self.tracker_addr(), &self.token("host")).ok();
        host
    }

    /// A fresh token of the running tracker's cluster.
    #[track_caller]
    pub fn token(&self, role: &str) -> String {
        self.token_with(&["--role", role])
    }

    /// A fresh token, asked for with these arguments.
    #[track_caller]
    pub fn token_with(&self, args: &[&str]) -> String {
        let mut token = tracker_program();
        run(token.arg("token").arg("--state").arg(self.tracker_state()).args(args)).ok().trim().to_owned()
    }

    /// Starts the tracker (again) and waits until it answers.
    #[track_caller]
    pub fn start_tracker(&mut self) {
        let (listen, http) = (self.tracker_addr(), self.tracker_http());
        let mut command = tracker_program();
        command.arg("run").arg("--state").arg(self.tracker_state());
        command.args(["--listen", &listen, "--http", &http]);
        self.tracker = Some(Process::start(&mut command, &self.path("tracker.log")));
        wait_for("the tracker to answer", Duration::from_secs(20), || {
            std::net::TcpStream::connect(&http).ok().map(drop)
        });
    }

    /// Ends the tracker as a power cut would.
    pub fn kill_tracker(&mut self) {
        self.tracker.take().expect("the tracker runs").kill();
    }

    /// Where the tracker listens.
    pub fn tracker_addr(&self) -> String {
        format!("127.{}.{}.1:7440", self.net[0], self.net[1])
    }

    fn tracker_http(&self) -> String {
        format!("127.{}.{}.1:7441", self.net[0], self.net[1])
    }

    /// The tracker's state folder.
    pub fn tracker_state(&self) -> PathBuf {
        self.path("tracker")
    }

    /// The first publisher's key.
    pub fn publisher_key(&self) -> PathBuf {
        self.tracker_state().join("publisher.key")
    }

    /// A path in the fleet's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The fleet's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Publishes `file` from the first host and gives what was printed as JSON.
    #[track_caller]
    pub fn publish(&self, file: &Path, name: &str, more: &[&str]) -> serde_json::Value {
        let mut publish = self.hosts[0].command();
        publish.arg("publish").arg(file).args(["--name", name, "--json", "--key"]).arg(self.publisher_key()).args(more);
        run(&mut publish).last_json()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in &self.hosts {
                eprintln!("--- the last lines of {}'s log\n{}", host.name, last_lines(&host.log(), 30));
            }
            let log = std::fs::read_to_string(self.path("tracker.log")).unwrap_or_default();
            eprintln!("--- the last lines of the tracker's log\n{}", last_lines(&log, 15));
        }
        unprotect(self.dir.path());
    }
}

/// Sealed masters may be immutable; a temporary folder must be removable all the same.
fn unprotect(dir: &Path) {
    let _ = std::process::Command::new("chattr").args(["-R", "-f", "-i"]).arg(dir).output();
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Two middle bytes of a 127.x.y.0/24 in which no other fleet of this machine has its tracker.
fn free_net() -> [u8; 2] {
    let mut draw = std::process::id().wrapping_mul(0x9e37_79b9);
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    wait_for("a free loopback network", Duration::from_secs(5), || {
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        draw = draw.wrapping_add(number.wrapping_mul(0x85eb_ca6b)).rotate_left(7) | 1;
        let net = [16 + (draw >> 8) as u8 % 200, (draw >> 16) as u8];
        UdpSocket::bind((Ipv4Addr::new(127, net[0], net[1], 1), 7440)).ok().map(|_| net)
    })
}
