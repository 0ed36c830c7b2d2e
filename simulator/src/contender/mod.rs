//! Ways to bring an image to a fleet, side by side on the same scenario.
//!
//! Ours, with and without its multicast, is run by its real machines. The others have no code of their own here: each is its arithmetic, an exact schedule
//! over the same links, and is as good as its idea can be. What it does when somebody dies or comes late is told in its
//! module. Headers and loss cost each what its transport leaves.
//!
//! Every result is compared with the bounds that hold for its kind; one below its bound is an error of the model.
//!

mod bound;
mod chain;
mod fluid;
mod multicast;
mod outcome;
mod swarm;
mod timeline;
mod tree;
mod unicast;

use clap::ValueEnum;
use drover_protocol::time::Instant;
use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;
use crate::world::RunError;

pub use outcome::{HostOutcome, Outcome};

/// Share of an Ethernet frame that TCP over IPv4 leaves at an MTU of 1,500: 1,448 of 1,514 bytes.
pub const TCP_GOODPUT: f64 = 1448.0 / 1514.0;

/// A way to bring an image to a fleet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// Every host copies the image from one NFS server.
    Nfs,
    /// Nothing is copied: machines run from the NFS server and read what they need.
    NfsOnDemand,
    /// Every host downloads the image from one HTTP server.
    Http,
    /// One stream to all, in lock-step with the slowest, like udpcast.
    Multicast,
    /// Each host passes every piece on to the next, in order of racks.
    Chain,
    /// Whoever has the whole image sends it to one more host at a time: a binomial tree.
    Tree,
    /// Drover's swarm, the real machines.
    P2p,
    /// Drover's swarm with Drover's multicast, the real machines.
    Hybrid,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The scenario does not say what the contender needs.
    #[error("{contender} needs {what} in the scenario")]
    Missing {
        /// Which.
        contender: Contender,
        /// The key.
        what: &'static str,
    },
    /// The swarm could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A result that can't be: the model is wrong.
    #[error("{contender}: the result is impossible, so the model is wrong: {problem}")]
    Impossible {
        /// Which.
        contender: Contender,
        /// What can't be.
        problem: String,
    },
}

/// What a contender did, host by host.
#[derive(Clone, PartialEq, Debug, Default)]
struct Course {
    /// When each host was complete; the publisher is host 0.
    completed: Vec<Option<Instant>>,
    /// Bytes of the image that left the publisher.
    source_bytes: u64,
    /// Bytes of the image that came into each rack from others.
    rack_bytes: Vec<u64>,
    /// What stopped it, if it stopped.
    stopped: Option<String>,
    /// What the publisher still sends to running machines, in bytes per second, when the start is over.
    load: u64,
}

impl Contender {
    /// Whether its outcome depends on the seed beyond what the scenario draws.
    pub fn throws_dice(self) -> bool {
        matches!(self, Contender::P2p | Contender::Hybrid)
    }

    /// All that make sense in a scenario.
    pub fn all(scenario: &Scenario) -> Vec<Self> {
        let makes_sense = |contender: &Contender| *contender != Contender::NfsOnDemand || scenario.vms.is_some();
        Contender::value_variants().iter().copied().filter(makes_sense).collect()
    }

    /// What it makes of a scenario.
    ///
    /// # Errors
    /// The scenario lacks what it needs, or the outcome is below a bound.
    pub fn compete(self, scenario: &Scenario) -> Result<Outcome, CompareError> {
        let course = match self {
            Contender::Nfs => unicast::nfs(scenario),
            Contender::NfsOnDemand => {
                let vms = scenario.vms.ok_or(CompareError::Missing { contender: self, what: "vms" })?;
                unicast::on_demand(scenario, vms)
            }
            Contender::Http => unicast::http(scenario),
            Contender::Multicast => multicast::lock_step(scenario),
            Contender::Chain => chain::pass_on(scenario),
            Contender::Tree => tree::double(scenario),
            Contender::P2p => swarm::exchange(scenario)?,
            Contender::Hybrid => swarm::exchange_with_multicast(scenario)?,
        };
        let outcome = Outcome::new(scenario, self, course);
        let impossible = |problem| CompareError::Impossible { contender: self, problem };
        outcome.check(scenario).map_err(impossible)?;
        Ok(outcome)
    }
}

impl Course {
    fn new(scenario: &Scenario) -> Self {
        Course {
            completed: vec![None; scenario.hosts.len()],
            rack_bytes: vec![0; scenario.rack_count()],
            ..Course::default()
        }
    }

    /// Notes that bytes of the image went from one host to another.
    fn sent(&mut self, scenario: &Scenario, from: usize, to: usize, bytes: u64) {
        if from == 0 {
            self.source_bytes += bytes;
        }
        if let Some(rack) = scenario.hosts[to].rack
            && scenario.hosts[from].rack != Some(rack)
        {
            self.rack_bytes[rack] += bytes;
        }
    }
}

impl core::fmt::Display for Contender {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let value = self.to_possible_value().expect("every contender can be named");
        f.pad(value.get_name())
    }
}

/// Hosts that fetch, the publisher's rack first, then rack by rack.
fn in_rack_order(scenario: &Scenario) -> Vec<usize> {
    let mut order: Vec<usize> = (1..scenario.hosts.len()).collect();
    let home = scenario.hosts[0].rack;
    order.sort_by_key(|&host| (scenario.hosts[host].rack != home, scenario.hosts[host].rack, host));
    order
}
