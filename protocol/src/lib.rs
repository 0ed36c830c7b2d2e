//! The decisions of Drover, without anything that does them.
//!
//! Which piece next, of whom, whom to serve, which peers to introduce: machines of this crate decide, and drivers (the
//! agent, the tracker, the simulator) carry it out on real sockets and disks or in a made-up world. There is no socket,
//! file, clock, entropy, thread or async runtime in here, and no container whose order could differ between two runs;
//! `clippy.toml` keeps it so. Payload never enters a machine.
//!
//! # How to drive a machine
//!
//! Inputs are `handle_*(now, ..)` calls; `now` never goes back. After each input call `poll_output` until it is `None`
//! and do what it says; then arm one timer for `poll_timeout` and call `handle_timeout` when it fires. Randomness comes
//! from the seed given at construction, so the same inputs give the same outputs.
//!
//! A peer that misbehaves is an output. A broken invariant of ours is a panic. Errors are for what comes from outside.

pub mod announce;
pub mod codec;
pub mod directory;
pub mod discovery;
pub mod geometry;
pub mod have;
pub mod hints;
pub mod id;
pub mod item;
pub mod krpc;
pub mod lookup;
pub mod manifest;
pub mod message;
pub mod multicast;
pub mod networks;
pub mod pacing;
pub mod parts;
pub mod planted;
pub mod release;
pub mod revocation;
pub mod rng;
pub mod swarm;
pub mod time;
pub mod walk;
