//! The Drover agent: brings master images to a host, verified, and makes clones of them.
//!
//! [`cli`] is the command `drover`; [`control`] is the socket between it and the daemon; [`config`] is what the daemon
//! is told; [`store`] keeps masters on disk; [`handover`] makes clones of
//! sealed masters.

pub mod cli;
pub mod config;
pub mod control;
pub mod handover;
pub mod quantity;
pub mod store;
