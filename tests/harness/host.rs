//! One host of a fleet: a state folder and, most of the time, a running agent.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::command::{Outcome, drover, run};
use crate::process::Process;
use crate::wait::{wait_for, wait_until};
use crate::wires::{self, within};

/// A host.
#[derive(Debug)]
pub struct Host {
    /// What the cluster calls it.
    pub name: String,
    /// Its state folder.
    pub state: PathBuf,
    log: PathBuf,
    listen: String,
    namespace: Option<String>,
    agent: Option<Process>,
}

/// A line of `drover list --json`.
#[derive(Debug, Clone)]
pub struct MasterLine {
    /// `NAME@VERSION`, empty if no release names it.
    pub release: String,
    /// The image id.
    pub image: String,
    /// Where the raw file lies.
    pub path: PathBuf,
    /// Whether it is whole and sealed.
    pub sealed: bool,
}

impl Host {
    pub(crate) fn new(name: String, dir: &Path, addr: Ipv4Addr, settings: &str) -> Self {
        let state = dir.join(&name);
        std::fs::create_dir_all(&state).expect("a test's folder can be written");
        let (log, listen) = (dir.join(format!("{name}.log")), format!("{addr}:7444"));
        let host = Host { name, state, log, listen, namespace: None, agent: None };
        host.set_settings(settings);
        host
    }

    /// The same host in a network namespace.
    pub(crate) fn in_namespace(self, namespace: String) -> Self {
        Host { namespace: Some(namespace), ..self }
    }

    /// Where its agent listens.
    pub fn listen(&self) -> std::net::SocketAddr {
        self.listen.parse().expect("an address of ours")
    }

    /// `drover --state ...` of this host.
    pub fn command(&self) -> Command {
        let mut command = drover();
        command.arg("--state").arg(&self.state);
        match &self.namespace {
            Some(namespace) => within(namespace, &command),
            None => command,
        }
    }

    /// Another command, to be run on this host.
    pub fn within(&self, command: &Command) -> Command {
        let namespace = self.namespace.as_ref().expect("a host on wires");
        within(namespace, command)
    }

    /// Runs `drover ARGS` on this host.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        run(self.command().args(args))
    }

    /// Has every packet to a multicast group dropped that reaches it. Only for a host on wires.
    #[track_caller]
    pub fn block_multicast(&self) {
        let namespace = self.namespace.as_deref().expect("only a host on wires can be cut off");
        let rules = "table netdev block { chain groups { type filter hook ingress device eth0 priority 0; \
                     ip daddr 224.0.0.0/4 drop; }; }";
        run(&mut within(namespace, Command::new("nft").arg(rules))).ok();
    }

    /// Cuts it off from everybody but the nodes of the hash table: no packet comes to where it listens. Only for a host on
    /// wires.
    #[track_caller]
    pub fn cut_off(&self) {
        let port = self.listen().port();
        let rules =
            format!("table inet cut {{ chain in {{ type filter hook input priority 0; udp dport {port} drop; }}; }}");
        run(&mut self.within(Command::new("nft").arg(rules))).ok();
    }

    /// Has every packet dropped that comes from one of these addresses. Only for a host on wires.
    #[track_caller]
    pub fn cut_off_from(&self, others: &[IpAddr]) {
        let others: Vec<String> = others.iter().map(IpAddr::to_string).collect();
        let from = others.join(", ");
        let rules = format!(
            "table inet cut {{ chain in {{ type filter hook input priority 0; ip saddr {{ {from} }} drop; }}; }}"
        );
        run(&mut self.within(Command::new("nft").arg(rules))).ok();
    }

    /// Ends [`cut_off`](Host::cut_off) or [`cut_off_from`](Host::cut_off_from).
    #[track_caller]
    pub fn let_in_again(&self) {
        run(&mut self.within(Command::new("nft").arg("delete table inet cut"))).ok();
    }

    /// Lets no more than this come to it from now on. Only for a host on wires.
    #[track_caller]
    pub fn slow_down(&self, mbit_s: u32) {
        let wire = wires::wire_to(self.listen().ip());
        let rate = format!("{mbit_s}mbit");
        let bucket = ["root", "tbf", "rate", &rate, "burst", "16kb", "limit", "256kb"];
        run(Command::new("tc").args(["qdisc", "add", "dev", &wire]).args(bucket)).ok();
    }

    /// Replaces its settings; they count from the agent's next start.
    pub fn set_settings(&self, settings: &str) {
        let text = format!("listen = \"{}\"\n{settings}\n", self.listen);
        std::fs::write(self.state.join("drover.toml"), text).expect("a test's folder can be written");
    }

    /// Joins it to a cluster.
    #[track_caller]
    pub fn join(&self, tracker: &str, token: &str) -> Outcome {
        run(self.command().args(["join", tracker, token, "--name", &self.name]))
    }

    /// Starts its agent and waits until that answers.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts its agent with these environment variables and waits until it answers.
    #[track_caller]
    pub fn start_with(&mut self, env: &[(&str, &Path)]) {
        self.agent = Some(Process::start(self.command().arg("daemon").envs(env.iter().copied()), &self.log));
        let state = self.state.clone();
        wait_for("the agent to answer", Duration::from_secs(30), || {
            let answered = run(drover().arg("--state").arg(&state).args(["status", "--json"])).code == Some(0);
            assert!(answered || self.runs(), "{} ended at its start:\n{}", self.name, self.log());
            answered.then_some(())
        });
    }

    /// Starts its agent without waiting.
    #[track_caller]
    pub fn spawn(&mut self) {
        self.agent = Some(Process::start(self.command().arg("daemon"), &self.log));
    }

    /// Ends its agent as a power cut would: SIGKILL.
    pub fn kill(&mut self) {
        self.agent.take().expect("the agent runs").kill();
    }

    /// Ends its agent in order: SIGTERM.
    #[track_caller]
    pub fn terminate(&mut self) {
        let status = self.agent.take().expect("the agent runs").terminate();
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.log());
    }

    /// Stops its agent where it is, as a debugger would: SIGSTOP.
    #[track_caller]
    pub fn suspend(&self) {
        self.agent().signal(Signal::STOP);
    }

    /// Lets it go on.
    #[track_caller]
    pub fn resume(&self) {
        self.agent().signal(Signal::CONT);
    }

    /// The running agent.
    pub fn agent(&self) -> &Process {
        self.agent.as_ref().expect("the agent runs")
    }

    /// Whether its agent runs.
    pub fn runs(&mut self) -> bool {
        self.agent.as_mut().is_some_and(Process::runs)
    }

    /// What its agent logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `drover status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.run(&["status", "--json"]).json()
    }

    /// Has the agent fetch a release, without waiting for it.
    #[track_caller]
    pub fn spawn_fetch(&self, release: &str) {
        self.run(&["fetch", release, "--no-wait"]).ok();
    }

    /// The transfer of an image in `drover status --json`, if there is one.
    #[track_caller]
    pub fn transfer(&self, image: &str) -> Option<Value> {
        let status = self.status();
        status["transfers"].as_array().into_iter().flatten().find(|transfer| transfer["image"] == image).cloned()
    }

    /// `drover list --json`.
    #[track_caller]
    pub fn masters(&self) -> Vec<MasterLine> {
        let list = self.run(&["list", "--json"]).json();
        let release = |master: &Value| Some(format!("{}@{}", master["name"].as_str()?, master["version"].as_u64()?));
        let line = |master: &Value| MasterLine {
            release: release(master).unwrap_or_default(),
            image: master["image"].as_str().unwrap_or_default().to_owned(),
            path: master["path"].as_str().unwrap_or_default().into(),
            sealed: master["state"] == "complete",
        };
        list.as_array().or_else(|| list["masters"].as_array()).into_iter().flatten().map(line).collect()
    }

    /// Waits until the release is sealed here and gives its line.
    #[track_caller]
    pub fn wait_sealed(&self, release: &str, deadline: Duration) -> MasterLine {
        let sealed = |line: &&MasterLine| line.release == release && line.sealed;
        let what = format!("{release} to be sealed on {}", self.name);
        let lines = wait_until(&what, deadline, || self.masters(), |lines| lines.iter().any(|line| sealed(&line)));
        lines.iter().find(sealed).cloned().expect("it was just seen")
    }
}
