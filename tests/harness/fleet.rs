//! A cluster with its tracker and hosts.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::command::{run, tracker_program};
use crate::host::Host;
use crate::process::Process;
use crate::wait::wait_for;
use crate::wires::{self, Wires, within};

/// A tracker and hosts, each on a loopback address of its own, or in a network namespace of its own.
#[derive(Debug)]
pub struct Fleet {
    dir: TempDir,
    net: [u8; 3],
    wires: Option<Wires>,
    trackers: Vec<Option<Process>>,
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
        Self::with_tracker(options, "")
    }

    /// The same, with these lines added to the tracker's settings file.
    #[track_caller]
    pub fn with_tracker(options: &FleetOptions, tracker_settings: &str) -> Self {
        Self::on(free_net(), None, options, tracker_settings)
    }

    /// A cluster with its tracker, each host of which will be in a network namespace of its own; see
    /// [`outer`](crate::outer).
    #[track_caller]
    pub fn wired() -> Self {
        Self::on(wires::NET, Some(Wires::build()), &FleetOptions::default(), "")
    }

    #[track_caller]
    fn on(net: [u8; 3], wires: Option<Wires>, options: &FleetOptions, tracker_settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("drover-test-").tempdir().expect("a temporary folder can be made");
        let mut fleet = Fleet { dir, net, wires, trackers: Vec::new(), hosts: Vec::new() };
        fleet.init_tracker(&[]);
        fleet.set_tracker_settings(tracker_settings);
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

    /// Makes another tracker of the cluster and starts it.
    #[track_caller]
    pub fn add_tracker(&mut self) {
        let first = self.tracker_state();
        self.init_tracker(&["--cluster", first.to_str().expect("ASCII")]);
        self.start_tracker_at(self.trackers.len() - 1);
    }

    #[track_caller]
    fn init_tracker(&mut self, more: &[&str]) {
        self.trackers.push(None);
        let at = self.trackers.len() - 1;
        let mut init = tracker_program();
        init.arg("init").arg("--state").arg(self.tracker_state_at(at)).args(["--listen", &self.tracker_addr_at(at)]);
        run(init.args(more)).ok();
    }

    fn set_tracker_settings(&self, settings: &str) {
        let path = self.tracker_state().join("tracker.toml");
        let text = std::fs::read_to_string(&path).expect("`init` writes settings");
        std::fs::write(&path, format!("{text}{settings}\n")).expect("a test's folder can be written");
    }

    /// Joins a host and writes its settings, but does not start it and does not keep it.
    #[track_caller]
    pub fn join_host(&self, settings: &str) -> Host {
        self.join_host_at(0, settings)
    }

    /// The same at one of several trackers.
    #[track_caller]
    pub fn join_host_at(&self, tracker: usize, settings: &str) -> Host {
        let host = self.new_host(settings);
        let token = self.token_at(tracker, &["--role", "host"]);
        host.join(&self.tracker_addr_at(tracker), &token).ok();
        host
    }

    /// A host with settings that has not joined; it is not kept.
    pub fn new_host(&self, settings: &str) -> Host {
        let number = self.hosts.len();
        let last = 11 + number as u8;
        let host = Host::new(format!("host{number}"), self.dir.path(), self.addr(last), settings);
        match &self.wires {
            Some(wires) => host.in_namespace(wires.host(last)),
            None => host,
        }
    }

    /// A fresh token of the running tracker's cluster.
    #[track_caller]
    pub fn token(&self, role: &str) -> String {
        self.token_with(&["--role", role])
    }

    /// A fresh token, asked for with these arguments.
    #[track_caller]
    pub fn token_with(&self, args: &[&str]) -> String {
        self.token_at(0, args)
    }

    /// A fresh token of one of several trackers, asked for with these arguments.
    #[track_caller]
    pub fn token_at(&self, tracker: usize, args: &[&str]) -> String {
        let mut token = tracker_program();
        run(token.arg("token").arg("--state").arg(self.tracker_state_at(tracker)).args(args)).ok().trim().to_owned()
    }

    /// Joins a host that no agent is started for: an identity for a program that speaks the protocol itself.
    #[track_caller]
    pub fn join_asking(&self) -> Host {
        let host = Host::new("asking".to_owned(), self.dir.path(), self.addr(200), "");
        host.join(&self.tracker_addr(), &self.token("host")).ok();
        host
    }

    /// Starts the tracker (again) and waits until it answers.
    #[track_caller]
    pub fn start_tracker(&mut self) {
        self.start_tracker_at(0);
    }

    #[track_caller]
    fn start_tracker_at(&mut self, at: usize) {
        let last = at as u8 + 1;
        let http = format!("{}:7441", self.addr(last));
        let mut command = tracker_program();
        command.arg("run").arg("--state").arg(self.tracker_state_at(at)).args(["--http", &http]);
        if let Some(wires) = &self.wires {
            command = within(&wires.host(last), &command);
        }
        self.trackers[at] = Some(Process::start(&mut command, &self.path("tracker.log")));
        wait_for("the tracker to answer", Duration::from_secs(20), || {
            std::net::TcpStream::connect(&http).ok().map(drop)
        });
    }

    /// Ends the tracker as a power cut would.
    pub fn kill_tracker(&mut self) {
        self.trackers[0].take().expect("the tracker runs").kill();
    }

    /// Where the tracker listens.
    pub fn tracker_addr(&self) -> String {
        self.tracker_addr_at(0)
    }

    /// Where one of several trackers listens.
    pub fn tracker_addr_at(&self, at: usize) -> String {
        format!("{}:7440", self.addr(at as u8 + 1))
    }

    /// The tracker's state folder.
    pub fn tracker_state(&self) -> PathBuf {
        self.tracker_state_at(0)
    }

    fn addr(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, last)
    }

    fn tracker_state_at(&self, at: usize) -> PathBuf {
        self.path(&if at == 0 { "tracker".to_owned() } else { format!("tracker{at}") })
    }

    /// The first publisher's key.
    pub fn publisher_key(&self) -> PathBuf {
        self.tracker_state().join("publisher.key")
    }

    /// From now on, counts what leaves the tracker and the hosts to come for addresses outside of the fleet: `count` of
    /// them, the tracker first.
    #[track_caller]
    pub fn count_what_leaves(&self, count: usize) {
        let wires = self.wires.as_ref().expect("a fleet on wires");
        lasts(count).for_each(|last| wires.add_default_route(last));
    }

    /// How many packets left each of them.
    #[track_caller]
    pub fn left(&self) -> Vec<u64> {
        let wires = self.wires.as_ref().expect("a fleet on wires");
        lasts(FIRST_HOSTS_COUNTED).map_while(|last| wires.left_by_default_route(last)).collect()
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

/// Last bytes of the addresses of the tracker and of hosts.
fn lasts(count: usize) -> impl Iterator<Item = u8> {
    std::iter::once(1).chain(11..).take(count)
}

/// More than any test has.
const FIRST_HOSTS_COUNTED: usize = 100;

/// First bytes of a 127.x.y.0/24 in which no other fleet of this machine has its tracker.
fn free_net() -> [u8; 3] {
    let mut draw = std::process::id().wrapping_mul(0x9e37_79b9);
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    wait_for("a free loopback network", Duration::from_secs(5), || {
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        draw = draw.wrapping_add(number.wrapping_mul(0x85eb_ca6b)).rotate_left(7) | 1;
        let net = [127, 16 + (draw >> 8) as u8 % 200, (draw >> 16) as u8];
        UdpSocket::bind((Ipv4Addr::new(net[0], net[1], net[2], 1), 7440)).ok().map(|_| net)
    })
}
