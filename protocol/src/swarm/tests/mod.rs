//! Stories of one swarm on a hand-moved clock, and of many joined by timed queues.

mod asking;
mod fleet;
mod hostile;
mod meeting;
mod mesh;
mod racks;
mod serving;
mod sharing;
mod stage;
