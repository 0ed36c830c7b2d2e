//! The Drover agent: brings master images to a host, verified, and makes clones of them.
//!
//! [`cli`] is the command `drover`; [`control`] is the socket between it and the daemon, which builds the parts and
//! keeps them going; [`config`] is what the daemon is told; [`store`] keeps masters on disk; [`exchange`] moves them
//! between hosts, by [`multicast`] too where that is faster; [`handover`] makes clones of sealed masters.

pub mod cli;
mod clock;
pub mod config;
pub mod control;
mod daemon;
mod discovery;
mod driver;
pub mod exchange;
#[doc(hidden)]
pub mod fuzzing;
pub mod handover;
pub mod multicast;
pub mod quantity;
pub mod store;
mod transfer;
mod transport;
