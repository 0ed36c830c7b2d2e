//! What is measured.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// A part of the study: what loads the clones, and through what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Part {
    /// The clone as a block device, by fio
    Blocks,
    /// A file system on the clone, by Bonnie++
    Files,
    /// What needs a device-mapper, as a block device inside a virtual machine, by fio
    Machine,
}

/// One thing that is done to a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Operation {
    /// Of a fresh clone, from its start, 1 MiB at a time.
    SequentialRead,
    /// To a fresh clone, all of it, 1 MiB at a time.
    SequentialFirstWrite,
    /// The same once more.
    SequentialRewrite,
    /// Of a fresh clone, 4 KiB anywhere.
    RandomRead,
    /// To a fresh clone, 4 KiB anywhere, nowhere twice.
    RandomFirstWrite,
    /// The same once more, in the same order.
    RandomRewrite,
    /// Bonnie++ writes a file.
    FileWrite,
    /// Bonnie++ reads that file and writes it again, block by block.
    FileRewrite,
    /// Bonnie++ reads it.
    FileRead,
    /// Bonnie++ reads blocks of it anywhere, and writes every tenth again.
    FileSeeks,
}

/// Operations of fio's that one clone goes through, in this order. The next begin with a fresh one.
pub(super) const PHASES: [[Operation; 2]; 3] = [
    [Operation::SequentialRead, Operation::RandomRead],
    [Operation::SequentialFirstWrite, Operation::SequentialRewrite],
    [Operation::RandomFirstWrite, Operation::RandomRewrite],
];

impl Part {
    /// How it is measured, in half a sentence.
    pub(super) fn note(self) -> &'static str {
        match self {
            Part::Blocks => {
                "fresh clones over NBD from qemu-storage-daemon, `cache=none`; 1 MiB, 4 in flight, or 4 KiB, 16 in flight"
            }
            Part::Files => "loop device on nbdfuse on qemu-storage-daemon, `cache=none`; direct IO by 64 KiB",
            Part::Machine => "emulated processor (TCG): relative only",
        }
    }

    /// Its operations, in the order of table and plot.
    pub(super) fn operations(self) -> &'static [Operation] {
        match self {
            Part::Blocks | Part::Machine => &[
                Operation::SequentialRead,
                Operation::SequentialFirstWrite,
                Operation::SequentialRewrite,
                Operation::RandomRead,
                Operation::RandomFirstWrite,
                Operation::RandomRewrite,
            ],
            Part::Files => &[Operation::FileWrite, Operation::FileRewrite, Operation::FileRead, Operation::FileSeeks],
        }
    }
}

impl Operation {
    /// What is counted of it in a second.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Operation::FileSeeks => "seeks/s",
            _ if self.is_random() => "IO/s",
            _ => "MiB/s",
        }
    }

    /// Whether fio does it anywhere on the disk.
    pub(super) fn is_random(self) -> bool {
        matches!(self, Operation::RandomRead | Operation::RandomFirstWrite | Operation::RandomRewrite)
    }

    /// Whether the clone has to take writes.
    pub(super) fn writes(self) -> bool {
        !matches!(self, Operation::SequentialRead | Operation::RandomRead)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Blocks => "The disk itself, by fio",
            Part::Files => "ext4 on the disk, by Bonnie++",
            Part::Machine => "Device-mapper and LVM inside a virtual machine, by fio",
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::SequentialRead => "sequential read",
            Operation::SequentialFirstWrite => "sequential first write",
            Operation::SequentialRewrite => "sequential rewrite",
            Operation::RandomRead => "random read",
            Operation::RandomFirstWrite => "random first write",
            Operation::RandomRewrite => "random rewrite",
            Operation::FileWrite => "block write",
            Operation::FileRewrite => "block rewrite",
            Operation::FileRead => "block read",
            Operation::FileSeeks => "random seeks",
        })
    }
}
