//! What the disk refuses: the words of `drover_durability`.

pub(super) use drover_durability::Doing;
pub use drover_durability::{DiskError, Trouble};
