//! `drover clone rebase`.

use drover_protocol::release::Name;

use super::verify::have_noted;
use super::{find, lookup, of_record, refuse_device};
use crate::cli::list::settle;
use crate::cli::output::say;
use crate::cli::{Common, Exit};
use crate::control::api::MasterRef;
use crate::control::{Code, Problem};
use crate::handover::{CloneRecord, Handover, RebaseError};

pub(super) async fn run(
    common: &Common,
    handover: Handover,
    clone: &Name,
    master: &MasterRef,
) -> Result<Exit, Problem> {
    let what = format!("clone rebase {clone} {master}");
    let client = common.client();
    let source = find(&client, master).await?;
    let record = handover.get(clone).map_err(|error| lookup("clone rebase", clone, &error))?;
    let rests_on = of_record(&client, &record).await?;
    if let Some((master, doubt)) = rests_on.as_ref().and_then(|master| Some((master, master.doubt.as_ref()?))) {
        let why = format!("the master that it rests on may have changed, and a move would copy that into it: {doubt}");
        return Err(Problem::new(Code::Refused, what, why).todo(settle(master)));
    }
    if let Some(problem) = rests_on.and_then(|master| master.problem) {
        let why = format!("the master that it rests on is damaged, and a move would copy that into it: {problem}");
        let label = record.master_label();
        return Err(
            Problem::new(Code::Refused, what, why).todo(format!("`drover fetch {label}` mends the master first"))
        );
    }
    let (name, new) = (clone.clone(), source.image);
    let done = tokio::task::spawn_blocking(move || handover.rebase(&name, &source)).await;
    let rebased = match done.map_err(|error| Problem::failed(&what, error))? {
        Ok(rebased) => rebased,
        Err(error) => {
            match &error {
                RebaseError::Damaged { .. } => have_noted(&client, clone, record.image).await,
                RebaseError::NewDamaged { .. } => have_noted(&client, clone, new).await,
                _ => {}
            }
            return Err(refuse(&what, &error));
        }
    };
    common.output().print(&rebased.record, |record: &CloneRecord| {
        format!("{} rests on {}", record.name, record.master.path.display())
    })?;
    match rebased.moved {
        true => say(&format!(
            "machines that were set up with it name the old master: take what `drover clone xml {clone}` (or qemu, xl) prints \
             now, before that goes"
        )),
        false => say(&format!("{clone} rested on {master} already")),
    }
    Ok(Exit::Done)
}

fn refuse(what: &str, error: &RebaseError) -> Problem {
    let code = match error {
        RebaseError::Clone(error) => return refuse_device(what, error),
        RebaseError::Unmovable { .. }
        | RebaseError::InUse(_)
        | RebaseError::InPlace(_)
        | RebaseError::Elsewhere { .. }
        | RebaseError::Damaged { .. }
        | RebaseError::NewDamaged { .. } => Code::Refused,
        RebaseError::Master(_) | RebaseError::Move { .. } | RebaseError::Record(_) => Code::Failed,
    };
    Problem::explained(code, what, error)
}
