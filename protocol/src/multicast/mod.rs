//! Multicast of an image to many hosts at once.

pub mod fec;
pub mod group;
pub mod packet;
pub mod parity;
pub mod rate;
