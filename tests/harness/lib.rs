//! Real fleets for tests: a tracker and agents as processes of their own, each on its own loopback address.
//!
//! A [`Fleet`] owns a folder and its processes; dropping it ends both. The programs are those that the same build made,
//! found beside the test. Waiting is always for a condition, with a deadline that is generous enough for a slow machine
//! and fails with what was seen last.

mod bad_peer;
mod command;
mod fleet;
mod host;
mod image;
mod mount;
pub mod outer;
mod process;
mod stranger;
mod wait;
mod wires;

pub use bad_peer::{BadPeer, Claim, Misbehaviour, first_release};
pub use command::{Outcome, drover, path_of, program, run, tracker_program};
pub use fleet::{Fleet, FleetOptions};
pub use host::{Host, MasterLine};
pub use image::{TestImage, random_bytes};
pub use mount::Mount;
pub use process::Process;
pub use stranger::{Reaction, Stranger, Stream};
pub use wait::{LONG, wait_for, wait_until};

/// A seed for this run: the one in `DROVER_SEED`, else a fresh one; printed either way, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let fresh = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970");
        now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
    };
    let seed = std::env::var("DROVER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(fresh);
    eprintln!("{test}: DROVER_SEED={seed}");
    seed
}
