//! The words by which people say how a clone is to be made: which technique, for which hypervisor, laid out how.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::driver::Unusable;

/// A technique of making clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverName {
    /// A raw file that shares the master's blocks on disk (FICLONE).
    Reflink,
    /// A qcow2 file with the master as its backing file.
    Qcow2,
    /// A differencing VHD on a fixed VHD that is the master with a footer.
    Vhd,
    /// A thin logical volume with a read-only copy of the master as its external origin.
    LvmThin,
    /// A classic snapshot of a logical volume that is a copy of the master.
    LvmThick,
    /// A device-mapper snapshot of the master's file.
    Dm,
    /// A full copy as a raw file that keeps holes.
    Copy,
}

/// Which driver is to make a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// The first that works, in the order of [`DriverName::ALL`].
    #[default]
    Auto,
    /// The first of the two that make logical volumes.
    Lvm,
    /// This one or none.
    Named(DriverName),
}

/// What virtual machines are to run the clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hypervisor {
    /// Whatever there is.
    #[default]
    Any,
    /// KVM, by qemu.
    Kvm,
    /// Xen: `xl`, XenServer, XCP-ng.
    Xen,
    /// Hyper-V.
    HyperV,
}

/// How a qcow2 clone is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Clusters of 64 KiB: every reader of qcow2 takes it.
    #[default]
    Compat,
    /// Clusters of 128 KiB in 32 subclusters: a guest's write of 4 KiB takes 4 KiB. Needs qemu 5.2 wherever it runs.
    Fast,
}

/// A text that names no driver or profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no {what}: use {known}")]
pub struct ParseChoiceError {
    given: String,
    what: &'static str,
    known: &'static str,
}

impl DriverName {
    /// All of them, in the order in which [`Choice::Auto`] tries them: least cost to disk and guest first.
    pub const ALL: [DriverName; 7] = [
        DriverName::Reflink,
        DriverName::Qcow2,
        DriverName::Vhd,
        DriverName::LvmThin,
        DriverName::LvmThick,
        DriverName::Dm,
        DriverName::Copy,
    ];

    /// The word for it in commands and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            DriverName::Reflink => "reflink",
            DriverName::Qcow2 => "qcow2",
            DriverName::Vhd => "vhd",
            DriverName::LvmThin => "lvm-thin",
            DriverName::LvmThick => "lvm-thick",
            DriverName::Dm => "dm",
            DriverName::Copy => "copy",
        }
    }

    /// How hypervisors call the format of what it makes.
    pub const fn format(self) -> &'static str {
        match self {
            DriverName::Qcow2 => "qcow2",
            DriverName::Vhd => "vhd",
            _ => "raw",
        }
    }

    /// Why clones of this kind are nothing for a hypervisor, if they are not.
    pub(super) fn unfit_for(self, hypervisor: Hypervisor) -> Option<Unusable> {
        let why = match (hypervisor, self) {
            (Hypervisor::Kvm | Hypervisor::Any, DriverName::Vhd) => {
                "qemu reads zeros where a differencing VHD has nothing of its own; it is for Xen and Hyper-V: say \
                 --hypervisor xen or hyperv"
            }
            (Hypervisor::HyperV, driver) if driver != DriverName::Vhd => "of what Drover makes Hyper-V takes VHD alone",
            _ => return None,
        };
        Some(Unusable(why.to_owned()))
    }
}

impl Choice {
    /// The drivers that may make the clone, in the order in which they are tried.
    pub(super) fn drivers(self, hypervisor: Hypervisor) -> Vec<DriverName> {
        match self {
            Choice::Named(driver) => vec![driver],
            Choice::Lvm => vec![DriverName::LvmThin, DriverName::LvmThick],
            Choice::Auto => {
                let mut all = DriverName::ALL.to_vec();
                if hypervisor == Hypervisor::Xen {
                    // Older pools of XenServer and XCP-ng read nothing else.
                    all.swap(1, 2);
                }
                all
            }
        }
    }
}

impl Profile {
    /// The word for it in commands and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Profile::Compat => "compat",
            Profile::Fast => "fast",
        }
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Choice {
    type Err = ParseChoiceError;
    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let named = || DriverName::ALL.into_iter().find(|driver| driver.as_str() == text);
        match text {
            "auto" => Ok(Choice::Auto),
            "lvm" => Ok(Choice::Lvm),
            _ => named().map(Choice::Named).ok_or_else(|| ParseChoiceError {
                given: text.chars().take(80).collect(),
                what: "driver",
                known: "auto, reflink, qcow2, vhd, lvm, lvm-thin, lvm-thick, dm or copy",
            }),
        }
    }
}

impl FromStr for Hypervisor {
    type Err = ParseChoiceError;
    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        match text {
            "any" => Ok(Hypervisor::Any),
            "kvm" => Ok(Hypervisor::Kvm),
            "xen" => Ok(Hypervisor::Xen),
            "hyperv" => Ok(Hypervisor::HyperV),
            _ => Err(ParseChoiceError {
                given: text.chars().take(80).collect(),
                what: "hypervisor",
                known: "any, kvm, xen or hyperv",
            }),
        }
    }
}

impl FromStr for Profile {
    type Err = ParseChoiceError;
    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let named = [Profile::Compat, Profile::Fast].into_iter().find(|profile| profile.as_str() == text);
        named.ok_or_else(|| ParseChoiceError {
            given: text.chars().take(80).collect(),
            what: "profile",
            known: "compat or fast",
        })
    }
}
