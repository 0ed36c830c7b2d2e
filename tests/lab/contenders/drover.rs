//! Drover: a real tracker, real daemons that joined with tokens and subscribe to a name, and `drover publish`.
//!
//! In its time: `drover publish` from its start on, which imports the file into the store of the source's daemon by copy (or
//! reflink, where the file system can), signs the release and hands it to the tracker; the news of it to the subscribers;
//! the transfer, with every chunk checked; and sealing, that is until the synced file lies in `masters/`. Not in it: joining
//! and starting the daemons. The tracker runs on the service host, which is in no count; with racks, each host is told its
//! own, as an operator would.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use drover_harness::path_of;
use drover_link::identity::Identity;
use drover_protocol::id::PeerId;
use serde_json::{Value, json};

use super::program::output;
use super::{Contender, ContenderError, Delivery, Guard, Stage, poll};
use crate::attack::{Gang, MADE_UP};
use crate::measure::process_cpu_s;
use crate::network::NetHost;

/// Drover as this build made it, with the default settings or with multicast switched on, left alone or attacked.
#[derive(Debug)]
pub(crate) struct Drover {
    name: &'static str,
    settings: &'static str,
    attacked_by: Option<Gang>,
}

/// A cluster whose daemons run and see their tracker. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Cluster {
    tracker: Tracker,
    agents: Vec<Agent>,
}

#[derive(Debug)]
struct Tracker {
    state: PathBuf,
    address: SocketAddr,
    process: Guard,
}

/// Those who attack.
#[derive(Debug)]
struct Besiegers {
    members: Vec<PeerId>,
    processes: Vec<Guard>,
}

/// One host's daemon.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Its state folder.
    pub(crate) state: PathBuf,
    process: Guard,
}

impl Drover {
    /// As it is installed.
    pub(crate) const DEFAULT: Drover = Drover { name: "drover", settings: "", attacked_by: None };
    /// With `multicast = "on"` on every host. It is not told how fast the wires are.
    pub(crate) const MULTICAST: Drover =
        Drover { name: "drover-multicast", settings: "multicast = \"on\"", attacked_by: None };

    /// The first, with a gang on the hosts of the case that are hostile.
    pub(crate) const fn attacked_by(gang: Gang) -> Self {
        Drover { attacked_by: Some(gang), ..Drover::DEFAULT }
    }
}

impl Contender for Drover {
    fn name(&self) -> &'static str {
        self.name
    }

    fn missing(&self) -> Option<String> {
        let built = ["drover", "drover-tracker"].iter().all(|program| path_of(program).is_some());
        (!built).then(|| "build it in the same profile: cargo build -p drover-agent -p drover-tracker".to_owned())
    }

    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError> {
        let mut cluster = Cluster::start(stage, self.settings)?;
        let gang = self.attacked_by.map(|gang| cluster.attack(stage, gang)).transpose()?;
        stage.start_clock()?;
        let mut publish = cluster.publish(stage, &[])?;
        let finished = stage.finish_line(|host| {
            publish.ended()?;
            cluster.agents[host].process.must_run()?;
            Ok(cluster.agents[host].sealed())
        })?;
        publish.wait(PATIENCE)?;
        let statuses = cluster.statuses()?;
        let wasted = statuses.iter().filter_map(|status| status["transfers"][0]["wasted_bytes"].as_u64()).sum::<u64>();
        let published = last_line(&publish.printed());
        let mut details = json!({ "wasted_bytes": wasted, "published": published, "hosts": statuses });
        if let Some(gang) = &gang {
            let members: Vec<String> = gang.members.iter().map(PeerId::to_string).collect();
            details["gang"] = json!(members);
            details["gang_says"] = gang.processes.iter().map(|process| last_line(&process.printed())).collect();
            if self.attacked_by.is_some_and(Gang::is_flood) {
                details["made_up"] = json!(stage.network.apart(stage.network.host(0))?);
            }
            details["source_cpu_s"] = json!(process_cpu_s(cluster.agents[0].pid()));
        }
        cluster.end();
        Ok(Delivery { finished, details })
    }
}

impl Cluster {
    /// Starts the tracker and a daemon on every host, all but the source's subscribed, with these lines added to the
    /// settings of each; waits until all see the tracker.
    pub(crate) fn start(stage: &Stage<'_>, settings: &str) -> Result<Self, ContenderError> {
        Self::start_with(stage, settings, true)
    }

    /// The same without any that is subscribed: each fetches what it is told to.
    pub(crate) fn start_without_subscribers(stage: &Stage<'_>, settings: &str) -> Result<Self, ContenderError> {
        Self::start_with(stage, settings, false)
    }

    fn start_with(stage: &Stage<'_>, settings: &str, subscribed: bool) -> Result<Self, ContenderError> {
        let tracker = Tracker::start(stage)?;
        let mut agents = Vec::new();
        for host in &stage.network.hosts()[stage.case.members()] {
            let subscribe =
                if subscribed && host.index != 0 { format!("subscribe = [\"{NAME}\"]\n") } else { String::new() };
            agents.push(Agent::start(stage, host, &tracker, &format!("{settings}\n{subscribe}"))?);
        }
        for (host, agent) in agents.iter().enumerate() {
            poll(&format!("the agent of host {host} to see the tracker"), PATIENCE, || {
                let status = agent.status().ok();
                let sees = |status: Value| status["trackers"][0]["reachable"].as_bool().unwrap_or(false);
                Ok(status.is_some_and(sees).then_some(()))
            })?;
        }
        Ok(Cluster { tracker, agents })
    }

    /// Starts to publish the stage's image at the source.
    pub(crate) fn publish(&self, stage: &Stage<'_>, options: &[&str]) -> Result<Guard, ContenderError> {
        let mut publish = on(stage.network.host(0), "drover")?;
        publish.arg("--state").arg(&self.agents[0].state).arg("publish").arg(stage.image).args(["--name", NAME]);
        publish.args(["--json", "--key"]).arg(self.tracker.state.join("publisher.key")).args(options);
        stage.start(Some(0), "publish", &mut publish)
    }

    /// Starts a gang on the hosts that are hostile, against the source, with as many certificates of hosts as it has; gives
    /// who they are.
    fn attack(&self, stage: &Stage<'_>, gang: Gang) -> Result<Besiegers, ContenderError> {
        let source = stage.network.host(0);
        if gang.is_flood() {
            stage.network.set_apart(source, MADE_UP)?;
        }
        let mut besiegers = Besiegers { members: Vec::new(), processes: Vec::new() };
        for host in &stage.network.hosts()[stage.case.members().end..] {
            let folder = stage.host_folder(host.index)?;
            for number in 0..gang.certificates() {
                let state = folder.join(format!("state-{number}"));
                self.tracker.join(stage, host, &state, &format!("host{}-{number}", host.index))?;
                let identity = Identity::load(&state.join("identity")).map_err(|error| ContenderError::Answer {
                    what: "drover join".to_owned(),
                    said: error.to_string(),
                })?;
                besiegers.members.push(identity.peer_id());
            }
            let own = std::env::current_exe();
            let own = own.map_err(|cause| ContenderError::Start { what: "the lab itself".to_owned(), cause })?;
            let mut command = host.command(own);
            command.args(gang.command()).arg(&folder).arg(format!("{}:7444", host.address));
            command.arg(self.tracker.address.to_string()).arg(format!("{}:7444", source.address));
            besiegers.processes.push(stage.start(Some(host.index), "hostile", &mut command)?);
        }
        Ok(besiegers)
    }

    /// The daemon of a host.
    pub(crate) fn agent(&self, host: usize) -> &Agent {
        &self.agents[host]
    }

    /// `drover status --json` of every host.
    pub(crate) fn statuses(&self) -> Result<Vec<Value>, ContenderError> {
        self.agents.iter().map(Agent::status).collect()
    }

    /// Ends everything in order.
    pub(crate) fn end(self) {
        for agent in self.agents {
            agent.process.terminate(PATIENCE);
        }
        self.tracker.process.terminate(PATIENCE);
    }
}

impl Tracker {
    fn start(stage: &Stage<'_>) -> Result<Self, ContenderError> {
        let host = stage.network.service();
        let state = stage.sub_folder("tracker")?;
        let address = SocketAddr::from((host.address, 7440));
        let mut init = on(host, "drover-tracker")?;
        output(init.arg("init").arg("--state").arg(&state).args(["--listen", &address.to_string()]))?;
        let mut run = on(host, "drover-tracker")?;
        run.arg("run").arg("--state").arg(&state).args(["--http", "off"]);
        let mut process = stage.start(None, "tracker", &mut run)?;
        poll("the tracker to run", PATIENCE, || {
            process.must_run()?;
            Ok(process.printed().contains("the tracker runs").then_some(()))
        })?;
        Ok(Tracker { state, address, process })
    }

    /// Has a host join.
    fn join(&self, stage: &Stage<'_>, host: &NetHost, state: &Path, name: &str) -> Result<(), ContenderError> {
        let mut join = on(host, "drover")?;
        join.arg("--state").arg(state).args(["join", &self.address.to_string(), &self.token(stage)?]);
        output(join.args(["--name", name])).map(drop)
    }

    fn token(&self, stage: &Stage<'_>) -> Result<String, ContenderError> {
        let mut token = on(stage.network.service(), "drover-tracker")?;
        Ok(output(token.arg("token").arg("--state").arg(&self.state))?.trim().to_owned())
    }
}

impl Agent {
    fn start(stage: &Stage<'_>, host: &NetHost, tracker: &Tracker, settings: &str) -> Result<Self, ContenderError> {
        let state = stage.host_folder(host.index)?.join("state");
        tracker.join(stage, host, &state, &format!("host{}", host.index))?;
        let mut text = format!("listen = \"{}:7444\"\n{settings}\n", host.address);
        if stage.case.racks.is_some() {
            text.push_str(&format!("rack = \"rack-{}\"\n", stage.case.rack(host.index)));
        }
        let file = state.join("drover.toml");
        let written = std::fs::write(&file, text);
        written.map_err(|cause| ContenderError::File { what: format!("write {}", file.display()), cause })?;
        let mut daemon = on(host, "drover")?;
        daemon.arg("--state").arg(&state).arg("daemon");
        let process = stage.start(Some(host.index), "agent", &mut daemon)?;
        Ok(Agent { state, process })
    }

    /// The file of the one master that is sealed here, as soon as there is one.
    pub(crate) fn sealed(&self) -> Option<PathBuf> {
        let masters = std::fs::read_dir(self.state.join("masters")).ok()?;
        let files = masters.flatten().map(|entry| entry.path().join("disk.raw"));
        files.into_iter().find(|file| file.exists())
    }

    /// `drover status --json`.
    pub(crate) fn status(&self) -> Result<Value, ContenderError> {
        let mut status = drover("drover")?;
        let said = output(status.arg("--state").arg(&self.state).args(["status", "--json"]))?;
        serde_json::from_str(&said).map_err(|_| ContenderError::Answer { what: "drover status".to_owned(), said })
    }

    /// Runs a command of this host's `drover` to its end; gives what it printed.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String, ContenderError> {
        let mut command = drover("drover")?;
        output(command.arg("--state").arg(&self.state).args(arguments))
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// A program of this build on a host.
fn on(host: &NetHost, program: &str) -> Result<Command, ContenderError> {
    Ok(clean(host.command(path(program)?)))
}

/// A program of this build that only talks to a daemon's socket, which is on the file system.
fn drover(program: &str) -> Result<Command, ContenderError> {
    Ok(clean(Command::new(path(program)?)))
}

fn path(program: &str) -> Result<PathBuf, ContenderError> {
    let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "it is not built");
    path_of(program).ok_or_else(|| ContenderError::Start { what: program.to_owned(), cause: missing() })
}

/// Without the settings of whoever runs the lab, except for what is to be logged.
fn clean(mut command: Command) -> Command {
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("DROVER_") && key != "DROVER_LOG") {
        command.env_remove(key);
    }
    command
}

fn last_line(printed: &str) -> Value {
    let last = printed.lines().rev().find(|line| line.starts_with(['{', '['])).unwrap_or_default();
    serde_json::from_str(last).unwrap_or_default()
}

/// What the image is published as.
pub(crate) const NAME: &str = "image";
/// For what takes moments on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
