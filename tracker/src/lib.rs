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
//! DIR/revoked.json       keys of members that were shut out, if any was
//! DIR/members/           one small file for each member that has a certificate, to name it by
//! DIR/tokens/            one small file for each join token, named by its hash
//! DIR/releases.redb      the newest release of each name
//! DIR/tracker.toml       settings that `init` was told
//! DIR/lock               held by the one tracker that runs on this folder
//! ```
//!
//! A cluster may have several trackers, which know nothing of each other: each has a state folder of its own with the
//! same CA in it, made by `drover-tracker init --cluster`. Hosts name all of them in their settings, announce to all and
//! carry releases from one to the other. The CA's key then lies on as many machines. Tokens count at the tracker that
//! made them, and each has a list of publishers of its own: a publisher who joined at one is made known to the others with
//! `drover-tracker publishers --add`. A host that is revoked at one is shut out by that one and by all
//! agents; the others go on renewing its certificate until it is revoked there, too.
//!
//! What always holds:
//! - A token lets one host in, once, and only while its time lasts; of two that race with it, one is refused. In a copy
//!   of the state folder it lets nobody in.
//! - A certificate is given for a key that proved itself, with the role that the token was made for, or, at a renewal,
//!   the name and role that the connection was authenticated by.
//! - A key that was revoked gets no certificate, first or new, and its connections are closed within seconds.
//! - A release is kept and offered only if a trusted publisher signed it, and versions of a name only grow.
//! - Which hosts exchange what is held in memory only: a tracker that restarts learns it again within an interval.
//!
//! What is decided about introductions is in `drover_protocol::directory`; this crate carries it out.

pub mod cluster;
pub mod config;
mod dht;
mod http;
mod introductions;
mod joining;
mod limits;
mod list_file;
mod members;
pub mod publishers;
pub mod releases;
pub mod revoked;
pub mod roster;
mod server;
mod session;
pub mod tokens;
mod tracker;

pub use tracker::{StartError, StartOptions, Tracker};

#[cfg(test)]
mod tests;
