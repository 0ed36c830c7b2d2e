//! `drover clone`: copy-on-write disks on the masters of this host.
//!
//! Clones are made by this process, not by the daemon: it has the rights that its caller has on the folder of the
//! clone. The daemon is only asked which master is meant and where it lies.

mod adopt;
mod create;
mod device;
mod drivers;
mod list;
mod machine;
mod rebase;
mod remove;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use drover_protocol::release::Name;

use super::{Common, Exit};
use crate::control::api::{Master, MasterRef, MasterState};
use crate::control::client::Client;
use crate::control::{Code, Problem};
use crate::handover::{CloneRecord, CreateError, DeviceError, Handover, LookupError, RecordError};

/// Make and keep clones: copy-on-write disks on the masters of this host
#[derive(Args, Debug)]
pub(super) struct Clone {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Create(create::Create),
    /// List the clones of this host, and how full those are whose room is bounded
    List,
    /// Show what is known of a clone, as JSON
    Info {
        /// The clone
        clone: Name,
    },
    /// Check a clone and the master that it rests on
    Verify {
        /// The clone
        clone: Name,
        /// Read and hash all of what it rests on, too: the master, or its copy beside the clone
        #[arg(long)]
        full: bool,
    },
    Rm(remove::Rm),
    /// Take the record of a clone over that another user wrote, or a disk that was restored, after a look at its paths
    ///
    /// What is at the clone's path counts as its disk from then on. A command acts only on records that its own user wrote: whoever takes the daemon over could else have root remove a
    /// file of its choice. Records that root wrote with a version before this rule are the daemon's user's, too.
    Adopt {
        /// The clone
        clone: Name,
    },
    Drivers(drivers::Drivers),
    Activate(device::Activate),
    /// Take the device of a clone away; nothing of the clone is lost
    Deactivate {
        /// The clone
        clone: Name,
    },
    Xml(machine::Xml),
    /// Print arguments for qemu that give it the clone as a virtio disk
    Qemu {
        /// The clone
        clone: Name,
    },
    Xl(machine::Xl),
    /// Move a clone to another master: the guest sees what it saw, and the old master can go
    Rebase {
        /// The clone
        clone: Name,
        /// NAME, NAME@VERSION, image id or its first 8 digits or more
        master: MasterRef,
    },
}

impl Clone {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let handover = Handover::new(&common.state);
        match &self.action {
            Action::Create(create) => create.run(common, handover).await,
            Action::List => list::run(common, &handover),
            Action::Info { clone } => list::info(common, &handover, clone),
            Action::Verify { clone, full } => verify::run(common, &handover, clone, *full).await,
            Action::Rm(rm) => rm.run(common, &handover),
            Action::Adopt { clone } => adopt::run(common, &handover, clone),
            Action::Drivers(drivers) => drivers.run(common, &handover).await,
            Action::Activate(activate) => activate.run(common, &handover),
            Action::Deactivate { clone } => device::deactivate(common, &handover, clone),
            Action::Xml(xml) => xml.run(common, &handover),
            Action::Qemu { clone } => machine::qemu(common, &handover, clone),
            Action::Xl(xl) => xl.run(common, &handover),
            Action::Rebase { clone, master } => rebase::run(common, handover, clone, master).await,
        }
    }
}

/// The master as the hand-over wants it, if it is complete.
async fn find(client: &Client, wanted: &MasterRef) -> Result<crate::handover::Master, Problem> {
    let master: Master = client.get(&format!("/v1/masters/{wanted}")).await?;
    if let Some(problem) = &master.problem {
        return Err(Problem::new(Code::Refused, format!("clone {wanted}"), problem).todo(super::list::mend(&master)));
    }
    if let Some(doubt) = &master.doubt {
        let why = format!("its master may have changed: {doubt}");
        return Err(Problem::new(Code::Refused, format!("clone {wanted}"), why).todo(super::list::settle(&master)));
    }
    as_source(&master).ok_or_else(|| {
        Problem::failed(format!("clone {wanted}"), format!("it is not complete: {:.0} % is here", master.percent))
            .todo(format!("`drover fetch {wanted}` returns when it is"))
    })
}

/// What the daemon says of the master that a clone was made from; none if the store does not hold it any more.
async fn of_record(client: &Client, record: &CloneRecord) -> Result<Option<Master>, Problem> {
    match client.get(&format!("/v1/masters/{}", record.image)).await {
        Ok(master) => Ok(Some(master)),
        Err(problem) if problem.code == Code::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// The master as the hand-over wants it, if clones may be made from it.
pub(super) fn as_source(master: &Master) -> Option<crate::handover::Master> {
    held(master).filter(|_| master.state == MasterState::Complete)
}

/// The master as the hand-over wants it, also if it is damaged.
fn held(master: &Master) -> Option<crate::handover::Master> {
    let (Some(path), Some(content_hash)) = (&master.path, master.content_hash) else { return None };
    Some(crate::handover::Master {
        image: master.image,
        release: master.name.is_some().then(|| master.label()),
        path: path.clone(),
        content_len: master.content_len,
        content_hash,
        in_place: master.in_place,
        verified: master.verified,
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    std::path::absolute(path).map_err(|error| Problem::new(Code::Usage, path.display().to_string(), error))
}

/// What the hand-over refused, by which exit code.
pub(super) fn refuse(what: &str, error: &CreateError) -> Problem {
    let code = match error {
        CreateError::NameTaken { .. }
        | CreateError::PathTaken { .. }
        | CreateError::Unusable { .. }
        | CreateError::NoDriver(_) => Code::Refused,
        CreateError::TooSmall { .. }
        | CreateError::NotSectors { .. }
        | CreateError::Twice { .. }
        | CreateError::Target(_) => Code::Usage,
        _ => Code::Failed,
    };
    Problem::explained(code, what, error)
}

fn lookup(what: &str, clone: &Name, error: &LookupError) -> Problem {
    match error {
        LookupError::Unknown(_) => Problem::explained(Code::NotFound, format!("{what} {clone}"), error),
        LookupError::BeingMade(_)
        | LookupError::OtherBase { .. }
        | LookupError::Link { .. }
        | LookupError::Short { .. } => Problem::explained(Code::Refused, format!("{what} {clone}"), error),
        LookupError::Record(error) => records(what, error),
    }
}

fn records(what: &str, error: &RecordError) -> Problem {
    Problem::explained(code_of(error), what, error)
}

fn code_of(error: &RecordError) -> Code {
    if matches!(error, RecordError::Foreign { .. }) { Code::Refused } else { Code::Failed }
}

fn refuse_device(what: &str, error: &DeviceError) -> Problem {
    let code = match error {
        DeviceError::Unknown(_) => Code::NotFound,
        DeviceError::Unfinished(_)
        | DeviceError::Left { .. }
        | DeviceError::Cleaned(_)
        | DeviceError::Lost { .. }
        | DeviceError::InUse(_) => Code::Refused,
        DeviceError::Record(error) => code_of(error),
        DeviceError::Device { .. } => Code::Failed,
    };
    Problem::explained(code, what, error)
}
