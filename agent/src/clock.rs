//! The one place of the agent that reads time and entropy.
//!
//! Machines get time as a number since the agent's start, so that what they did can be told from a log: an instant in a
//! log line is an offset from the start of the process. Seeds are drawn here and logged by whoever draws them.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use drover_protocol::rng::Rng;
use drover_protocol::time::{Duration, Instant};

/// Time since the first call in this process; never goes back.
pub(crate) fn now() -> Instant {
    let since = tokio::time::Instant::now().saturating_duration_since(start());
    Instant::START + since
}

/// The moment at which the runtime's timer has to fire for `at`.
pub(crate) fn timer_at(at: Instant) -> tokio::time::Instant {
    start() + at.since(Instant::START)
}

/// Seconds since 1970 (UTC), as the host's clock has it; 0 if that is before 1970.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A random number from the system, to seed a machine with.
pub(crate) fn seed() -> u64 {
    getrandom::u64().expect("the system gives random numbers once it has booted")
}

/// `duration` less up to a quarter of it, so that hosts that began together do not go on in step.
pub(crate) fn jittered(duration: Duration) -> Duration {
    let quarter = duration.as_millis() as u32 / 4;
    duration - Duration::from_millis(u64::from(Rng::seeded(seed()).below(quarter.max(1))))
}

/// Some part of `duration`, at random.
pub(crate) fn part_of(duration: Duration) -> Duration {
    Duration::from_millis(u64::from(Rng::seeded(seed()).below((duration.as_millis() as u32).max(1))))
}

fn start() -> tokio::time::Instant {
    static START: OnceLock<tokio::time::Instant> = OnceLock::new();
    *START.get_or_init(tokio::time::Instant::now)
}
