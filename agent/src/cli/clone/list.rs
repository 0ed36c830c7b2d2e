//! `drover clone list` and `drover clone info`.

use std::collections::BTreeMap;

use drover_protocol::release::Name;
use serde::ser::Error;
use serde::{Serialize, Serializer};

use super::{lookup, records};
use crate::cli::output::{table, warn};
use crate::cli::{Common, Exit};
use crate::control::Problem;
use crate::handover::{CloneRecord, CloneState, Handover, Lost, Usage};
use crate::quantity::Bytes;

/// A clone as it was found.
struct Listed<'a> {
    record: &'a CloneRecord,
    /// How full it is, of a clone whose room is bounded.
    usage: Option<&'a Usage>,
    /// Why no guest should be given it, of one that is finished.
    lost: Option<&'a Lost>,
}

/// As JSON it is its record, with the state as it was found, and what else was.
impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut json = serde_json::to_value(self.record).map_err(S::Error::custom)?;
        json["state"] = self.state().into();
        if let Some(usage) = self.usage {
            json["usage"] = serde_json::to_value(usage).map_err(S::Error::custom)?;
        }
        if let Some(lost) = self.lost {
            json["lost"] = lost.to_string().into();
        }
        json.serialize(to)
    }
}

pub(super) fn run(common: &Common, handover: &Handover) -> Result<Exit, Problem> {
    let listing = handover.list().map_err(|error| records("clone list", &error))?;
    let records = handover.as_found(listing.records);
    let usage: BTreeMap<String, Usage> = handover.usage(&records);
    let lost = handover.lost(&records);
    let listed = |record| Listed::new(record, &usage, &lost);
    let clones: Vec<Listed<'_>> = records.iter().map(listed).collect();
    common.output().print(&clones, |clones| {
        let rows: Vec<Vec<String>> = clones.iter().map(Listed::row).collect();
        table(&["CLONE", "MASTER", "DRIVER", "DISK", "FULL", "STATE", "PATH"], &rows, &[3, 4])
    })?;
    for clone in &clones {
        clone.unfinished().into_iter().chain(clone.loss()).chain(clone.alarm()).for_each(|text| warn(&text));
    }
    listing.unreadable.iter().for_each(|error| warn(&error.to_string()));
    Ok(if listing.unreadable.is_empty() { Exit::Done } else { Exit::Failed })
}

pub(super) fn info(common: &Common, handover: &Handover, clone: &Name) -> Result<Exit, Problem> {
    let record = handover.get(clone).map_err(|error| lookup("clone info", clone, &error))?;
    let records = handover.as_found(vec![record]);
    let (usage, lost) = (handover.usage(&records), handover.lost(&records));
    let found = Listed::new(&records[0], &usage, &lost);
    common.output().print(&found, |found| serde_json::to_string_pretty(found).unwrap_or_default())?;
    Ok(Exit::Done)
}

impl<'a> Listed<'a> {
    fn new(record: &'a CloneRecord, usage: &'a BTreeMap<String, Usage>, lost: &'a BTreeMap<Name, Lost>) -> Listed<'a> {
        Listed { record, usage: usage.get(record.name.as_str()), lost: lost.get(&record.name) }
    }

    /// The word for how it is, the same wherever it is shown.
    fn state(&self) -> &'static str {
        match (self.record.state, self.lost, self.usage.and_then(|usage| usage.fault)) {
            (CloneState::Making, ..) => "unfinished",
            (CloneState::Removing, ..) => "removing",
            (CloneState::Ready, Some(lost), _) => lost.word(),
            (CloneState::Ready, None, Some(fault)) => fault,
            (CloneState::Ready, None, None) if self.record.moving_to.is_some() => "moving",
            (CloneState::Ready, None, None) => "ready",
        }
    }

    fn row(&self) -> Vec<String> {
        let record = self.record;
        vec![
            record.name.to_string(),
            record.release.clone().unwrap_or_else(|| record.image.short()),
            record.driver.to_string(),
            Bytes(record.disk_len).to_string(),
            self.usage.map_or_else(|| "-".to_owned(), |usage| format!("{:.0} %", usage.percent)),
            self.state().to_owned(),
            record.device.as_ref().unwrap_or(&record.path).display().to_string(),
        ]
    }

    fn unfinished(&self) -> Option<String> {
        let CloneRecord { name, state, moving_to, .. } = self.record;
        (*state != CloneState::Ready || moving_to.is_some()).then(|| {
            format!(
                "{name} is being made, moved or removed, or a crash interrupted that, which `drover clone activate --all`, run by \
                 the user who made it, sets right"
            )
        })
    }

    fn loss(&self) -> Option<String> {
        let name = &self.record.name;
        self.lost.map(|lost| format!("{name}: {lost}; {}", lost.advice(name)))
    }

    fn alarm(&self) -> Option<String> {
        let alarm = self.usage?.alarm()?;
        Some(format!("{}: {alarm}", self.record.name))
    }
}
