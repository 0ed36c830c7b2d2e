//! The rig: parts from Debian's packages, disks and archives made of them, QEMU, and programs run inside its guests.

mod disk;
mod guest;
mod host;
mod initramfs;
mod machine;
mod parts;

pub(crate) use disk::Tree;
pub(crate) use host::GuestHost;
pub(crate) use initramfs::Initramfs;
pub(crate) use machine::{Machine, Setup};
pub(crate) use parts::Parts;
