//! The Drover agent: brings master images to a host and makes clones of them.

pub mod handover;
