//! Multicast of an image to many hosts at once, into the same map of chunks that the swarm fills.
//!
//! A session has one sender, which holds the image, and members, which lack some of it. The machines are
//!
//! - [`choice::Choice`]: whether to send at all, or leave all to the swarm;
//! - [`election::Candidate`] and [`election::Leases`]: which seeder sends, and that there is never more than one;
//! - [`sender::Sender`]: which symbols, when, and to whom it still makes sense;
//! - [`receiver::Receiver`]: what came, what is lacking, when to leave.
//!
//! They are driven like every machine of this crate and see no payload. Around them, without a state that decides: [`packet`] seals and opens
//! datagrams, [`fec`] makes parity and decodes, [`group`] names group and port, [`message`] is what is said over QUIC.
//!
//! A sender's driver reads chunks for `Load`, encodes them with [`fec::Codes`], and seals what `Transmit` names with
//! [`packet::Sealer`]. A receiver's driver opens each datagram with [`packet::Opener`], asks the receiver about its header, puts the
//! symbol into a [`fec::BlockPool`] if it is to be kept, and hands what `Decode` names to `Manifest::verify`.
//!
//! What is not sent or does not arrive is a matter of the swarm, which goes on all the time: a host asks its peers for what multicast
//! missed, and for everything if multicast is slow (`swarm::Swarm::set_carried`). So nobody is waited for, nobody slows the
//! others, and every failure here ends the same way: the host leaves the group and asks its peers.

mod blocks;
pub mod choice;
pub mod config;
pub mod election;
pub mod fec;
pub mod group;
mod members;
pub mod message;
pub mod packet;
pub mod parity;
mod pass;
pub mod probe;
pub mod rate;
pub mod receiver;
mod repair;
mod schedule;
pub mod sender;
#[cfg(test)]
mod tests;
