//! What is compared: ways to give a virtual machine a disk of its own that begins as a master.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::operation::{Operation, Part};

/// A technique, by the name that `--only` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Technique {
    /// A full copy in a raw file: what all others are compared with
    Plain,
    /// A raw file that shares the master's blocks (FICLONE)
    Reflink,
    /// An overlay with clusters of 64 KiB
    Qcow2Compat,
    /// An overlay with clusters of 128 KiB in 32 subclusters
    Qcow2Fast,
    /// A VHD that grows, without a parent, as qemu makes and writes it: stands in for writes to a differencing one
    VhdDynamic,
    /// The master with a footer, read by vhdimount: what the differencing one is compared with
    VhdFixed,
    /// A differencing VHD over that, read by vhdimount
    Vhd,
    /// A device-mapper snapshot of the master's file
    Dm,
    /// A full copy in a logical volume: what the next two are compared with
    Volume,
    /// A classic snapshot of a volume that is a copy of the master
    LvmThick,
    /// A thin volume with such a copy as its external origin
    LvmThin,
}

impl Technique {
    /// All, in the order of table and plot.
    pub(super) const ALL: [Technique; 11] = [
        Technique::Plain,
        Technique::Reflink,
        Technique::Qcow2Compat,
        Technique::Qcow2Fast,
        Technique::VhdDynamic,
        Technique::VhdFixed,
        Technique::Vhd,
        Technique::Dm,
        Technique::Volume,
        Technique::LvmThick,
        Technique::LvmThin,
    ];

    /// Those that take part in a part of the study.
    pub(super) fn of(part: Part) -> impl Iterator<Item = Technique> {
        Technique::ALL.into_iter().filter(move |technique| match part {
            Part::Blocks => !technique.needs_device_mapper(),
            Part::Files => technique.is_served_by_qemu(),
            Part::Machine => technique.needs_device_mapper() || *technique == Technique::Plain,
        })
    }

    /// What it is compared with: the plain file by the same program on the same path.
    pub(super) fn yardstick(self) -> Technique {
        match self {
            Technique::VhdFixed | Technique::Vhd => Technique::VhdFixed,
            Technique::Volume | Technique::LvmThick | Technique::LvmThin => Technique::Volume,
            _ => Technique::Plain,
        }
    }

    /// Whether qemu reads and writes it. It opens a differencing VHD, too, but gives zeros for what the parent has.
    pub(super) fn is_served_by_qemu(self) -> bool {
        !matches!(self, Technique::VhdFixed | Technique::Vhd) && !self.needs_device_mapper()
    }

    /// Whether it is a device of the kernel's.
    fn needs_device_mapper(self) -> bool {
        matches!(self, Technique::Dm | Technique::Volume | Technique::LvmThick | Technique::LvmThin)
    }

    /// Why an operation can't be measured with it, if it can't.
    pub(super) fn obstacle(self, operation: Operation) -> Option<&'static str> {
        match self {
            Technique::Vhd if operation.writes() => Some("no program here writes it"),
            Technique::VhdFixed if operation.writes() => Some("vhdimount only reads"),
            _ => None,
        }
    }
}

impl fmt::Display for Technique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Technique::Plain => "plain file",
            Technique::Reflink => "reflink",
            Technique::Qcow2Compat => "qcow2 compat",
            Technique::Qcow2Fast => "qcow2 fast",
            Technique::VhdDynamic => "VHD dynamic (no parent)",
            Technique::VhdFixed => "VHD fixed (vhdimount)",
            Technique::Vhd => "VHD differencing (vhdimount)",
            Technique::Dm => "dm-snapshot",
            Technique::Volume => "plain volume",
            Technique::LvmThick => "LVM thick snapshot",
            Technique::LvmThin => "LVM thin volume",
        })
    }
}
