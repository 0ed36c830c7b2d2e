//! Multicast of an image to many hosts at once.

pub mod fec;
pub mod packet;
