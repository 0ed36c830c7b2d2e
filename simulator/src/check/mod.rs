//! Bad days: small fleets on virtual time, where everything that can go wrong does.
//!
//! A run has 3 to 12 hosts and 32 to 256 pieces. Each host has the real `Swarm`, and the real order of writes
//! (`drover_durability`) on a `disk` that tears, loses and refuses; the tracker is the real `Directory`; what is said is
//! encoded and decoded. Everything is drawn from the seed (`plan`). First there is chaos, and `invariants` are checked after
//! every event; then all faults end, and everything must come to its end within a bound: everybody complete, if what all
//! have together is the whole image, else everybody with all that there is, and naming the rest.
//!
//! Where others are a host is told by a tracker and a hash table (`discovery`), and in some runs a second tracker and the
//! table lie to the end (`hints`): nothing of it may ever be wrong, no list may outgrow its bound, and how much it slows
//! down a fleet with which nothing else is wrong is measured (`slowdown`).
//!
//! Made up: chunks are tokens of a KiB (`token`), each host's driver is one like the agent's (`world`, `drive`, `work`),
//! and the network (`net`) is what QUIC makes of a bad one. Not in here: QUIC and TLS themselves, threads, the real file
//! systems, the hand-over to clones. A bug in the agent's own driver is found by the agent's tests, not by this.

mod chaos;
pub mod command;
mod crash;
mod discovery;
mod disk;
mod drive;
mod event;
mod fault;
mod hints;
mod host;
mod hostile;
mod images;
mod invariants;
mod net;
mod plan;
#[cfg(feature = "planted")]
mod planted;
mod seek;
mod slowdown;
#[cfg(test)]
mod tests;
mod token;
mod tracker;
mod versions;
mod work;
mod world;

pub use fault::{Fault, FaultCounts};
pub use images::{CrashImages, crash_images};
#[cfg(feature = "planted")]
pub use planted::{Found, find};
pub use slowdown::{SLOWER_MOST, Slowdown, slowdown};

use std::panic::{AssertUnwindSafe, catch_unwind};

use drover_protocol::time::{Duration, Instant};

use plan::Plan;
use world::World;

/// What came of one seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What must not be and was, if anything.
    pub violation: Option<String>,
    /// Faults that were injected.
    pub faults: FaultCounts,
    /// Events that happened.
    pub events: u64,
    /// How long it lasted, in the hosts' time.
    pub lasted: Duration,
    /// When the last host became complete.
    pub completed_at: Instant,
    /// Hash of all that happened.
    pub trace: String,
    /// What happened, in words, if that was wanted.
    pub log: Vec<String>,
}

/// Runs one seed. A panic of any part is a violation as well.
pub fn run_seed(seed: u64, is_logged: bool) -> Outcome {
    run_plan(seed, || Plan::draw(seed), is_logged)
}

fn run_plan(seed: u64, plan: impl FnOnce() -> Plan, is_logged: bool) -> Outcome {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(plan(), is_logged);
        world.run();
        let mut faults = world.counts.clone();
        world.hosts.iter().for_each(|host| host.disk.with(|inner| faults.add_all(&inner.counts)));
        if world.plan.hosts.iter().any(|host| host.versions != drover_protocol::message::PROTOCOL_VERSIONS) {
            faults.add(Fault::MixedVersions);
        }
        Outcome {
            seed,
            violation: world.violation,
            faults,
            events: world.events,
            lasted: world.now.since(Instant::START),
            completed_at: world.completed_at,
            trace: world.trace.hash(),
            log: world.log.unwrap_or_default(),
        }
    }));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Outcome {
            seed,
            violation: Some(format!("a panic: {}", text.unwrap_or("of no known kind"))),
            faults: FaultCounts::default(),
            events: 0,
            lasted: Duration::ZERO,
            completed_at: Instant::START,
            trace: String::new(),
            log: Vec::new(),
        }
    })
}
