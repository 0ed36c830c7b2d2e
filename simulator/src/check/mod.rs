//! Bad days: small fleets on virtual time, where everything that can go wrong does.
//!
//! A run has 3 to 12 hosts and 32 to 256 pieces. Each host has the real `Swarm`, and the real order of writes
//! (`drover_durability`) on a `disk` that tears, loses and refuses; the tracker is the real `Directory`; what is said is
//! encoded and decoded. Everything is drawn from the seed (`plan`). First there is chaos, and `invariants` are checked after
//! every event; then all faults end, and everything must come to its end within a bound: everybody complete, if what all
//! have together is the whole image, else everybody with all that there is, and naming the rest.
//!
//! Made up: chunks are tokens of a KiB (`token`), each host's driver is one like the agent's (`world`, `drive`, `work`),
//! and the network (`net`) is what QUIC makes of a bad one. Not in here: QUIC and TLS themselves, threads, the real file
//! systems, the hand-over to clones. A bug in the agent's own driver is found by the agent's tests, not by this.

mod chaos;
pub mod command;
mod crash;
mod disk;
mod drive;
mod fault;
mod host;
mod hostile;
mod images;
mod invariants;
mod net;
mod plan;
#[cfg(feature = "planted")]
mod planted;
mod seek;
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
    /// Hash of all that happened.
    pub trace: String,
    /// What happened, in words, if that was wanted.
    pub log: Vec<String>,
}

/// Runs one seed. A panic of any part is a violation as well.
pub fn run_seed(seed: u64, is_logged: bool) -> Outcome {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(Plan::draw(seed), is_logged);
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
            trace: String::new(),
            log: Vec::new(),
        }
    })
}
