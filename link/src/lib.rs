//! QUIC with mutual TLS between the members of a cluster.
//!
//! A cluster has one certificate authority ([`ca`]), which lives on its tracker. Every member has a short-lived
//! certificate from it ([`identity`]), got with a one-use token ([`token`], [`enrol`]), and shows it on every connection
//! it opens or accepts ([`endpoint`]). What comes out of a finished handshake is a [`endpoint::Connection`]: who the other
//! side is, which protocol version both speak, and a control stream of length-limited frames ([`frame`]).
//!
//! What always holds:
//! - A connection is handed out only after both sides proved, by TLS 1.3 and the standard verifiers, to hold the key of
//!   a certificate of the cluster that is valid now. Session tickets and 0-RTT are off, so that this is so for each one.
//! - With a key that is revoked nobody is a member, whatever certificate it has.
//! - Who somebody is, is read from that certificate alone: never from an address, a name in a message, or a request.
//! - What a stranger can make this side hold is bounded: handshakes, connections, streams, windows and frames.
//!
//! Beside that, a node of the cluster's distributed hash table ([`dht`]), which proves nothing and finds addresses.
//!
//! This crate moves frames and proves identities; what is said is decided elsewhere.

pub mod ca;
pub mod close;
pub mod config;
mod crowd;
pub mod dht;
pub mod durable;
pub mod endpoint;
pub mod enrol;
pub mod frame;
mod handshake;
pub mod identity;
pub mod kept;
pub mod member;
pub mod rotation;
mod tls;
pub mod token;

#[cfg(test)]
mod tests;
