//! The tracker: it makes a cluster, lets hosts join it, introduces them to each other and keeps releases.
//!
//! It never touches a master, and nothing that runs needs it: hosts that know each other go on without it. What it must
//! not lose is small and lies in its state folder:
//!
//! ```text
//! DIR/ca/                the cluster's CA; its key never leaves this folder
//! DIR/identity/          the tracker's own certificate
//! DIR/publisher.key      the first publisher's key, made by `init`; may be moved to where masters are published
//! DIR/publishers.json    keys of the publishers that the cluster trusts
//! DIR/tokens/            one small file for each join token, named by its hash
//! DIR/releases.redb      the newest release of each name
//! DIR/tracker.toml       settings that `init` was told
//! DIR/lock               held by the one tracker that runs on this folder
//! ```
//!
//! What always holds:
//! - A token lets one host in, once, and only while its time lasts; of two that race with it, one is refused.
//! - A certificate is given for a key that proved itself, with the role that the token was made for, or, at a renewal,
//!   the name and role that the connection was authenticated by.
//! - A release is kept and offered only if a trusted publisher signed it, and versions of a name only grow.
//! - Which hosts exchange what is held in memory only: a tracker that restarts learns it again within an interval.
//!
//! What is decided about introductions is in `drover_protocol::directory`; this crate carries it out.

pub mod cluster;
pub mod config;
mod http;
mod introductions;
mod joining;
mod limits;
mod members;
mod publishers;
pub mod releases;
mod server;
mod session;
pub mod tokens;
mod tracker;

pub use tracker::{StartError, Tracker};

#[cfg(test)]
mod tests;
