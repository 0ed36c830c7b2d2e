//! The kinds of faults, and how often each was injected.

use std::fmt;

/// What goes wrong in a run, on purpose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A packet is lost and sent again later.
    Loss,
    /// A message or chunk takes much longer than usual.
    Delay,
    /// What was sent later on another stream comes earlier.
    Reorder,
    /// A chunk comes once more: after its request was cancelled, or by a second one.
    Duplicate,
    /// A connection breaks; its ends notice at different times.
    Break,
    /// Nothing gets from one host to another for a while.
    OneWay,
    /// Two groups of hosts lose and find each other again and again.
    Flapping,
    /// A host stops, and its disk loses what was not synced.
    Crash,
    /// The same in the middle of the disk's work.
    PowerCut,
    /// A crash keeps only some sectors of a write.
    TornWrite,
    /// A crash loses a write, a length or a name that was not synced.
    LostWrite,
    /// A read fails.
    ReadError,
    /// A write fails, perhaps half done.
    WriteError,
    /// A sync fails, and its pages count as clean.
    SyncError,
    /// The disk is full for a while.
    DiskFull,
    /// The disk is read-only for a while.
    ReadOnly,
    /// A bit on the disk flips.
    BitRot,
    /// The disk takes seconds for what it does.
    DiskStall,
    /// A host does nothing for a while, and wakes up late.
    Suspend,
    /// A host's clock jumps by up to a year.
    ClockJump,
    /// A peer sends wrong bytes.
    WrongBytes,
    /// A peer announces what it does not hold.
    FalseHave,
    /// A peer sends another manifest than was asked for.
    WrongManifest,
    /// A peer announces pieces that the image does not have.
    BadHave,
    /// A peer takes a request and does not go on with it.
    StallingPeer,
    /// A peer asks for everything at once, again and again.
    GreedyPeer,
    /// The tracker names hosts that are not there, the asker itself, or nobody; or plays back old releases.
    LyingTracker,
    /// The tracker loses its memory.
    TrackerRestart,
    /// A host speaks other versions of the protocol.
    MixedVersions,
    /// A second tracker names right hosts at wrong addresses, some of them outside of the cluster's networks.
    WrongAddresses,
    /// It names hosts that there are not.
    DeadAddresses,
    /// It names as many of those as an answer holds, each with as many addresses as it may have.
    ManyAddresses,
    /// It names hosts where they were before.
    OldAddresses,
    /// The hash table is full of addresses at which there is nobody.
    LyingTable,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Fault; 34] = [
        Fault::Loss,
        Fault::Delay,
        Fault::Reorder,
        Fault::Duplicate,
        Fault::Break,
        Fault::OneWay,
        Fault::Flapping,
        Fault::Crash,
        Fault::PowerCut,
        Fault::TornWrite,
        Fault::LostWrite,
        Fault::ReadError,
        Fault::WriteError,
        Fault::SyncError,
        Fault::DiskFull,
        Fault::ReadOnly,
        Fault::BitRot,
        Fault::DiskStall,
        Fault::Suspend,
        Fault::ClockJump,
        Fault::WrongBytes,
        Fault::FalseHave,
        Fault::WrongManifest,
        Fault::BadHave,
        Fault::StallingPeer,
        Fault::GreedyPeer,
        Fault::LyingTracker,
        Fault::TrackerRestart,
        Fault::MixedVersions,
        Fault::WrongAddresses,
        Fault::DeadAddresses,
        Fault::ManyAddresses,
        Fault::OldAddresses,
        Fault::LyingTable,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How often each kind of fault was injected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultCounts([u64; Fault::ALL.len()]);

impl Default for FaultCounts {
    fn default() -> Self {
        FaultCounts([0; Fault::ALL.len()])
    }
}

impl FaultCounts {
    /// Counts one.
    pub fn add(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often this kind was injected.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds the counts of another run.
    pub fn add_all(&mut self, other: &FaultCounts) {
        for (mine, its) in self.0.iter_mut().zip(&other.0) {
            *mine += its;
        }
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}
