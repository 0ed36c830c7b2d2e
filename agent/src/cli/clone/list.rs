//! `drover clone list` and `drover clone info`.

use std::collections::BTreeMap;

use drover_protocol::release::Name;
use serde::Serialize;

use super::{lookup, records};
use crate::cli::output::{table, warn};
use crate::cli::{Common, Exit};
use crate::control::Problem;
use crate::handover::{CloneRecord, CloneState, Handover, Lost, Usage};
use crate::quantity::Bytes;

/// What `clone list --json` prints of a clone.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    record: &'a CloneRecord,
    /// How full it is, of a clone whose room is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Usage>,
    /// Why it has no disk, of one that should have.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<&'a Lost>,
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
        clone.unfinished().into_iter().chain(clone.missing()).chain(clone.alarm()).for_each(|text| warn(&text));
    }
    listing.unreadable.iter().for_each(|error| warn(&error.to_string()));
    Ok(if listing.unreadable.is_empty() { Exit::Done } else { Exit::Failed })
}

pub(super) fn info(common: &Common, handover: &Handover, clone: &Name) -> Result<Exit, Problem> {
    let record = handover.get(clone).map_err(|error| lookup("clone info", clone, &error))?;
    let record = handover.as_found(vec![record]).remove(0);
    let json = |record: &CloneRecord| serde_json::to_string_pretty(record).unwrap_or_default();
    common.output().print(&record, json)?;
    Ok(Exit::Done)
}

impl<'a> Listed<'a> {
    fn new(record: &'a CloneRecord, usage: &'a BTreeMap<String, Usage>, lost: &'a BTreeMap<Name, Lost>) -> Listed<'a> {
        Listed { record, usage: usage.get(record.name.as_str()), lost: lost.get(&record.name) }
    }

    fn row(&self) -> Vec<String> {
        let record = self.record;
        let state = match (record.state, self.usage.and_then(|usage| usage.fault)) {
            (CloneState::Making, _) => "unfinished",
            (CloneState::Removing, _) => "removing",
            (CloneState::Ready, _) if self.lost.is_some() => self.lost.map_or("", Lost::word),
            (CloneState::Ready, Some(fault)) => fault,
            (CloneState::Ready, None) if record.moving_to.is_some() => "moving",
            (CloneState::Ready, None) => "ready",
        };
        vec![
            record.name.to_string(),
            record.release.clone().unwrap_or_else(|| record.image.short()),
            record.driver.to_string(),
            Bytes(record.disk_len).to_string(),
            self.usage.map_or_else(|| "-".to_owned(), |usage| format!("{:.0} %", usage.percent)),
            state.to_owned(),
            record.device.as_ref().unwrap_or(&record.path).display().to_string(),
        ]
    }

    fn unfinished(&self) -> Option<String> {
        let CloneRecord { name, state, .. } = self.record;
        (*state != CloneState::Ready).then(|| {
            format!(
                "{name} is being made or removed, or a crash interrupted that, which `drover clone activate --all`, run by \
                 the user who made it, sets right"
            )
        })
    }

    fn missing(&self) -> Option<String> {
        self.lost.map(|lost| format!("{}: {lost}", self.record.name))
    }

    fn alarm(&self) -> Option<String> {
        let alarm = self.usage?.alarm()?;
        Some(format!("{}: {alarm}", self.record.name))
    }
}
