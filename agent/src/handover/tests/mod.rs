//! Stories of clones on real files, with qemu's own tools as the oracle. `qemu-img` and `qemu-io` must be installed.
//!
//! What needs a file system of its own (reflinks, a full disk, a read-only one) is mounted by the test where it may
//! mount; whoever may not is told which tests proved nothing.

mod batch;
mod content;
mod crash;
mod drills;
mod foreign;
mod life;
mod machine;
mod own;
mod rebase;
mod refusals;
mod vhd;
mod world;
