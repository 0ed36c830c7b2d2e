//! Stories of whole sessions on virtual time: a sender and its members over a made-up network, with real packets.

mod batches;
mod faults;
mod hostile;
mod net;
mod sessions;
