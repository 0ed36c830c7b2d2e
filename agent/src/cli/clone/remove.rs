//! `drover clone rm`.

use drover_protocol::release::Name;

use crate::cli::output::warn;
use crate::cli::{Common, Exit};
use crate::control::{Code, Problem};
use crate::handover::{CloneRecord, Handover, RemoveError};

/// Removes one after the other; what can't be removed does not keep the rest.
pub(super) fn run(common: &Common, handover: &Handover, clones: &[Name]) -> Result<Exit, Problem> {
    let (mut removed, mut refused) = (Vec::new(), None);
    for clone in clones {
        match handover.remove(clone) {
            Ok(done) => {
                if !done.file_existed {
                    warn(&format!("{clone}: it was gone already"));
                }
                done.note.into_iter().for_each(|note| warn(&note));
                removed.push(done.record);
            }
            Err(error) => {
                if let Some(problem) = refused.replace(refuse(clone, &error)) {
                    crate::cli::output::complain(&problem);
                }
            }
        }
    }
    let line = |record: &CloneRecord| format!("removed {}, {}", record.name, record.path.display());
    match (&removed[..], clones.len()) {
        ([one], 1) => common.output().print(one, line)?,
        ([], 1) => {}
        (many, _) => common.output().print(&many, |many| many.iter().map(line).collect::<Vec<_>>().join("\n"))?,
    }
    refused.map_or(Ok(Exit::Done), Err)
}

fn refuse(clone: &Name, error: &RemoveError) -> Problem {
    let code = match error {
        RemoveError::Unknown(_) => Code::NotFound,
        RemoveError::BeingMade(_) | RemoveError::InUse { .. } => Code::Refused,
        RemoveError::Record(error) => super::code_of(error),
        RemoveError::File { .. } | RemoveError::Device { .. } => Code::Failed,
    };
    Problem::explained(code, format!("clone rm {clone}"), error)
}
