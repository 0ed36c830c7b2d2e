//! Stories of one swarm on a hand-moved clock, and of many joined by timed queues.

mod fleet;
mod mesh;
