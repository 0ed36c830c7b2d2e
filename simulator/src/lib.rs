//! Fleets on virtual time: the real `Swarm` and `Directory` machines, in a made-up world.
//!
//! Modelled: access links, and links between racks, that flows share max-min fairly, one latency between any two hosts, dialling, announces to a
//! tracker and its answers, hosts that come late, die, and come back with what they had stored.
//!
//! Not modelled, and who could notice: congestion control and loss (a lossy or long path is slower than here); bytes and processing of control messages (thousands of hosts
//! with tiny pieces); disks and processors (links faster than them); the fetch of the manifest, some round trips and a
//! two-thousandth of the bytes.
//!
//! What a machine decides is never decided here. A run repeats exactly: the same scenario and seed give the same trace.

pub mod check;
mod checker;
pub mod fabric;
mod host;
pub mod queue;
pub mod report;
pub mod scenario;
mod trace;
mod tracker;
mod world;

pub use report::Report;
pub use scenario::Scenario;
pub use world::{RunError, run};
