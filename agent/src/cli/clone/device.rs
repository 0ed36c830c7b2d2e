//! `drover clone activate` and `deactivate`: devices, which a reboot takes away.

use clap::Args;
use drover_protocol::release::Name;
use serde_json::json;

use super::{records, refuse_device};
use crate::cli::output::{complain, warn};
use crate::cli::{Common, Exit};
use crate::control::{Code, Problem};
use crate::handover::{Activated, Activity, Handover, Outcome};

/// Make the devices of clones that need one (dm, lvm-thin, lvm-thick), as after a reboot
///
/// With --all, first completes or cleans what a crash left unfinished of the clones that this user made, and fails if any
/// is left unfinished. drover-clones.service runs that at every boot.
#[derive(Args, Debug)]
pub(super) struct Activate {
    /// The clone
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    clone: Option<Name>,
    /// All clones
    #[arg(long)]
    all: bool,
}

impl Activate {
    pub(super) fn run(&self, common: &Common, handover: &Handover) -> Result<Exit, Problem> {
        match &self.clone {
            Some(clone) => {
                let what = format!("clone activate {clone}");
                let was = handover.activate(clone).map_err(|error| refuse_device(&what, &error))?;
                say(common, clone, was, "activated")
            }
            None => all(common, handover),
        }
    }
}

fn all(common: &Common, handover: &Handover) -> Result<Exit, Problem> {
    let what = "clone activate --all";
    let recovered = handover.recover().map_err(|error| Problem::explained(Code::Failed, what, &error))?;
    let mut failed = false;
    for clone in recovered {
        match clone.outcome {
            Outcome::Completed => warn(&format!("{} was unfinished, and is whole now", clone.name)),
            Outcome::Rests(master) => warn(&format!(
                "{0} was being moved, and rests on {master} now: a machine that was set up with another master is to be told \
                 what `drover clone xml {0}` (or qemu, xl) prints",
                clone.name
            )),
            Outcome::Cleaned => warn(&format!("{} was not finished: nothing of it is left", clone.name)),
            Outcome::Foreign => warn(&format!(
                "{} is unfinished, and another user's: the daemon sets its own right when it starts, and this command, run \
                 by who made it, does",
                clone.name
            )),
            Outcome::Left(why) => {
                failed = true;
                complain(&Problem::failed(format!("clone {} is unfinished", clone.name), why));
            }
        }
    }
    let listing = handover.list().map_err(|error| records(what, &error))?;
    listing.unreadable.iter().for_each(|error| warn(&error.to_string()));
    let activated = handover.activate_all().map_err(|error| refuse_device(what, &error))?;
    failed |= !listing.unreadable.is_empty();
    for Activated { name, was } in activated {
        match was {
            // At a boot only what has a device is news.
            Ok(Activity::File) => {}
            Ok(was) => drop(say(common, &name, was, "activated")?),
            Err(error) => {
                failed = true;
                complain(&Problem::explained(Code::Failed, format!("clone activate {name}"), &error));
            }
        }
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

pub(super) fn deactivate(common: &Common, handover: &Handover, clone: &Name) -> Result<Exit, Problem> {
    let what = format!("clone deactivate {clone}");
    let was = handover.deactivate(clone).map_err(|error| refuse_device(&what, &error))?;
    let before = if was == Activity::Active { Activity::Inactive } else { was };
    say(common, clone, before, "deactivated")
}

/// One line a clone. `was` is inactive if something was done.
fn say(common: &Common, clone: &Name, was: Activity, done: &str) -> Result<Exit, Problem> {
    let found = json!({ "name": clone, "changed": was == Activity::Inactive, "file": was == Activity::File });
    common.output().print(&found, |_| match was {
        Activity::File => format!("{clone}: it is a file and has no device"),
        Activity::Inactive => format!("{clone}: {done}"),
        Activity::Active => format!("{clone}: it was already"),
    })?;
    Ok(Exit::Done)
}
