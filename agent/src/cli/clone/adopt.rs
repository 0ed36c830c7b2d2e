//! `drover clone adopt`.

use drover_protocol::release::Name;

use super::lookup;
use crate::cli::{Common, Exit};
use crate::control::Problem;
use crate::handover::{CloneRecord, Handover};

/// Takes a record over and prints what it says, to be looked at once more.
pub(super) fn run(common: &Common, handover: &Handover, clone: &Name) -> Result<Exit, Problem> {
    let record = handover.adopt(clone).map_err(|error| lookup("clone adopt", clone, &error))?;
    let line = |record: &CloneRecord| {
        let base = record.base.as_ref().map(|base| format!(", rests on {}", base.display())).unwrap_or_default();
        format!("{} is acted on from now on: {} at {}{base}", record.name, record.driver, record.path.display())
    };
    common.output().print(&record, line)?;
    Ok(Exit::Done)
}
