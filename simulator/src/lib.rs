//! Fleets on virtual time: the real `Swarm` and `Directory` machines, in a made-up world.
//!
//! [`run`] runs the swarm; [`compare`] sets it, alone and with Drover's multicast (`hybrid`), beside NFS, HTTP, another multicast and
//! textbook schedules ([`contender`]) on the same scenario; [`study`] makes plots of that.
//!
//! Modelled: access links, and links between racks or between sites, that flows share max-min fairly; one latency within a
//! site and one between sites; disks that are slower than the wires; loss, as a factor on what a host's links carry
//! ([`loss`]); dialling, announces to a tracker and its answers; hosts that come late, die, and come back with what they had
//! stored; a tracker that dies and comes back without its memory. What hosts tell each other takes a latency, and its
//! bytes go with the next flow from the same host.
//!
//! Not modelled, and who could notice: congestion control (a long path is slower than here); racks within sites;
//! processing of control messages (thousands of hosts with tiny pieces); processors (links faster than them); disks that
//! read and write at once (slow disks under a swarm); the fetch of the manifest, some round trips and a two-thousandth of
//! the bytes; for the contenders other than the swarm, everything that makes a real one slower than its idea.
//!
//! What a machine decides is never decided here. A run repeats exactly: the same scenario and seed give the same trace.

pub mod accuracy;
pub mod check;
mod checker;
pub mod compare;
pub mod contender;
mod event;
pub mod fabric;
mod host;
mod hybrid;
pub mod loss;
mod news;
pub mod plot;
pub mod queue;
pub mod report;
pub mod scenario;
pub mod study;
mod trace;
mod tracker;
mod world;

pub use compare::Comparison;
pub use contender::Contender;
pub use report::Report;
pub use scenario::Scenario;
pub use study::Study;
pub use world::{RunError, run, run_as_far};
