//! How full a clone is whose room for differences is bounded, and from when on people are told.

use serde::Serialize;

use super::verify::Finding;

/// How full a clone's room for differences is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// What is full at 100 %: the snapshot's own room, or the data or metadata of the pool that it shares.
    pub of: &'static str,
    /// How full that is, 0 to 100.
    pub percent: f64,
    /// What the kernel says instead of numbers when the clone is lost or stuck: `Invalid`,
    /// `Overflow`, `Merge failed`; of a pool `Out of data`, `Metadata read-only`, `Failed`.
    pub fault: Option<&'static str>,
}

impl Usage {
    /// What people should be told of it, if that is anything.
    pub fn alarm(&self) -> Option<String> {
        let (of, percent) = (self.of, self.percent);
        match self.fault {
            Some(word @ ("Overflow" | "Out of data" | "Metadata read-only")) => {
                let room = if word == "Overflow" { "room" } else { "pool" };
                Some(format!("{word}: its {room} is full and writes fail; what was written before can still be read"))
            }
            Some(word) => Some(format!("{word}: its differences are lost")),
            None if percent >= ALARM_PERCENT => Some(format!("its {of} is {percent:.0} % full")),
            None => None,
        }
    }

    pub(super) fn finding(&self) -> Option<Finding> {
        let alarm = self.alarm()?;
        Some(if self.fault.is_some() { Finding::fault(alarm) } else { Finding::note(alarm) })
    }
}

/// From here on people are warned, in percent.
const ALARM_PERCENT: f64 = 80.0;
