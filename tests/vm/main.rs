//! Clones in real virtual machines.
//!
//! [`boot`] starts machines from clones of every kind that is a file. [`dm`], [`lvm`] and [`drills`] put Drover itself into
//! a machine, where there are a device-mapper, loop devices and a volume group of its own, whatever the host has. [`rig`] is
//! what they stand on.
//!
//! QEMU always runs with `-accel tcg`: a `/dev/kvm` may be there, pass every probe, and then run nothing. Whether a machine
//! did its work is told by the text that it prints, never by QEMU's exit code, which is 0 after a panic, too.

mod boot;
mod dm;
mod drills;
mod lvm;
mod rig;
