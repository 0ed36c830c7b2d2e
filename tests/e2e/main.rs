//! The main job with real processes: a module per behaviour.

mod attacks;
mod certificates;
mod clone;
mod damage;
mod discovery;
mod liar;
mod limits;
mod lying_nodes;
mod multicast;
mod publish_fetch;
mod publishers;
mod refusals;
mod resume;
mod revocation;
mod strangers;
mod subscribe;
mod tidy;
mod tracker_loss;
mod two_trackers;
