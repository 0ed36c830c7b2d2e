//! What the formats promise, tried with random values: what is written is read back, what was altered is refused, and
//! nothing that a stranger sends makes us panic. Proptest prints and keeps the seed of whatever fails.

mod codec;
mod geometry;
mod have;
mod manifest;
mod parts;
mod release;
