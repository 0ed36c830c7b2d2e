//! `drover clone rm`.

use clap::Args;
use drover_protocol::release::Name;

use crate::cli::output::{complain, warn};
use crate::cli::{Common, Exit};
use crate::control::{Code, Problem};
use crate::handover::{CloneRecord, CloneState, Handover, RemoveError, Removed};

/// Remove clones: their files or volumes and their records
#[derive(Args, Debug)]
pub(super) struct Rm {
    /// The clones
    #[arg(required = true)]
    clones: Vec<Name>,
    /// Remove the records alone of clones whose disks are gone for good, whose file system or volume group can't be reached
    /// and is lost, or whose paths something else has by now; what they rested on is no longer kept for them
    #[arg(long)]
    forget: bool,
}

impl Rm {
    /// Removes one after the other; what can't be removed does not keep the rest.
    pub(super) fn run(&self, common: &Common, handover: &Handover) -> Result<Exit, Problem> {
        let (mut removed, mut refused) = (Vec::new(), None);
        for (clone, done) in self.each(handover) {
            match done {
                Ok(record) => removed.push(record),
                Err(error) => {
                    if let Some(problem) = refused.replace(refuse(clone, &error)) {
                        complain(&problem);
                    }
                }
            }
        }
        let done = if self.forget { "forgot" } else { "removed" };
        let line = |record: &CloneRecord| format!("{done} {}, {}", record.name, record.path.display());
        match (&removed[..], self.clones.len()) {
            ([one], 1) => common.output().print(one, line)?,
            ([], 1) => {}
            (many, _) => common.output().print(&many, |many| many.iter().map(line).collect::<Vec<_>>().join("\n"))?,
        }
        refused.map_or(Ok(Exit::Done), Err)
    }

    /// Removes or forgets them, as it is asked for.
    fn each<'a>(&'a self, handover: &'a Handover) -> Box<dyn Iterator<Item = Done<'a>> + 'a> {
        if self.forget {
            return Box::new(self.clones.iter().map(|clone| (clone, handover.forget(clone).map(forgotten))));
        }
        Box::new(handover.remove_all(&self.clones).map(|(clone, done)| (clone, done.map(told))))
    }
}

/// What became of a clone.
type Done<'a> = (&'a Name, Result<CloneRecord, RemoveError>);

/// Says what there is to say of a clone that was removed.
fn told(removed: Removed) -> CloneRecord {
    if !removed.file_existed {
        warn(&format!("{}: it was gone already", removed.record.name));
    }
    removed.note.into_iter().for_each(|note| warn(&note));
    removed.record
}

/// Says what there is to say of a clone that was forgotten.
fn forgotten(record: CloneRecord) -> CloneRecord {
    if record.state == CloneState::Making {
        let (name, temporary) = (&record.name, record.temporary.display());
        warn(&format!(
            "{name} was not finished: what there is of it, {temporary}, stays; remove it by hand if it is seen again"
        ));
    }
    record
}

fn refuse(clone: &Name, error: &RemoveError) -> Problem {
    let code = match error {
        RemoveError::Unknown(_) => Code::NotFound,
        RemoveError::BeingMade(_)
        | RemoveError::BeingMoved(_)
        | RemoveError::InUse { .. }
        | RemoveError::Gone { .. }
        | RemoveError::Written { .. }
        | RemoveError::Replaced { .. }
        | RemoveError::Unreachable { .. }
        | RemoveError::Reachable { .. } => Code::Refused,
        RemoveError::Record(error) => super::code_of(error),
        RemoveError::File { .. } | RemoveError::Name { .. } | RemoveError::Device { .. } => Code::Failed,
    };
    Problem::explained(code, format!("clone rm {clone}"), error)
}
