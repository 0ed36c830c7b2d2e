//! `drover clone`: copy-on-write disks on the masters of this host.
//!
//! Clones are made by this process, not by the daemon: it has the rights that its caller has on the folder of the
//! clone. The daemon is only asked which master is meant and where it lies.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use drover_protocol::release::Name;
use serde::Serialize;

use super::output::{say, table, warn};
use super::{Common, Exit};
use crate::control::api::{Event, Master, MasterRef, MasterState, Verify};
use crate::control::client::Client;
use crate::control::{Code, Problem};
use crate::handover::{
    Choice, CloneRecord, CloneSpec, CloneState, CreateError, Created, Finding, Handover, LookupError, NotTaken,
    Profile, RecordError, RemoveError, Severity,
};
use crate::quantity::{Bytes, parse_disk_size};

/// Make and keep clones: copy-on-write disks on the masters of this host
#[derive(Args, Debug)]
pub(super) struct Clone {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make a clone; prints its path
    Create(Create),
    /// List the clones of this host
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
        /// Read and hash the whole master, too
        #[arg(long)]
        full: bool,
    },
    /// Remove a clone: its file and its record
    Rm {
        /// The clone
        clone: Name,
    },
    /// Show which drivers work for a master and a folder, and why the others do not
    Drivers {
        /// NAME, NAME@VERSION or image id
        master: MasterRef,
        /// The folder that the clone would go to
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
}

#[derive(Args, Debug)]
struct Create {
    /// NAME, NAME@VERSION or image id
    master: MasterRef,
    /// What to call the clone
    clone: Name,
    /// Where its file shall be; nothing may be there
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// auto, reflink, qcow2 or copy; auto takes the first that works
    #[arg(long, default_value = "auto")]
    driver: Choice,
    /// How a qcow2 clone is laid out: compat (every reader takes it) or fast (needs qemu 5.2 wherever it runs)
    #[arg(long)]
    profile: Option<Profile>,
    /// Size of its disk, if larger than the master's: 20G or 20GiB; as in qemu, K, M, G and T are powers of 1024
    #[arg(long, value_parser = parse_disk_size)]
    size: Option<u64>,
}

impl Clone {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let handover = Handover::new(&common.state);
        match &self.action {
            Action::Create(create) => create.run(common, handover).await,
            Action::List => list(common, &handover),
            Action::Info { clone } => {
                let record = handover.get(clone).map_err(|error| lookup("clone info", clone, &error))?;
                let json = |record: &CloneRecord| serde_json::to_string_pretty(record).unwrap_or_default();
                common.output().print(&record, json)?;
                Ok(Exit::Done)
            }
            Action::Verify { clone, full } => verify(common, &handover, clone, *full).await,
            Action::Rm { clone } => remove(common, &handover, clone),
            Action::Drivers { master, folder } => drivers(common, &handover, master, folder).await,
        }
    }
}

impl Create {
    async fn run(&self, common: &Common, handover: Handover) -> Result<Exit, Problem> {
        let master = find(&common.client(), &self.master).await?;
        let out = absolute(&self.out)?;
        let (driver, profile, disk_len) = (self.driver, self.profile, self.size);
        let spec = CloneSpec { name: self.clone.clone(), out, driver, profile, disk_len };
        let what = format!("clone create {} {}", self.master, self.clone);
        // A full copy takes minutes; an interrupt in between leaves it to the daemon's next start to clean up.
        let made = tokio::task::spawn_blocking(move || handover.create(&master, &spec)).await;
        let created = made.map_err(|error| Problem::failed(&what, error))?.map_err(|error| refuse(&what, &error))?;
        created.warnings.iter().for_each(|warning| warn(warning));
        common.output().print(&Made::from(&created), |made| made.record.path.display().to_string())?;
        if !common.output().is_json() {
            tell(&created);
        }
        Ok(Exit::Done)
    }
}

/// What `clone create --json` prints.
#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    record: &'a CloneRecord,
    not_taken: &'a [NotTaken],
    warnings: &'a [String],
}

impl<'a> From<&'a Created> for Made<'a> {
    fn from(created: &'a Created) -> Self {
        Made { record: &created.record, not_taken: &created.not_taken, warnings: &created.warnings }
    }
}

fn tell(created: &Created) {
    let record = &created.record;
    let rests =
        if record.needs_master { "rests on the master, which stays until the clone goes" } else { "stands alone" };
    say(&format!("clone {}: made by {}, {} disk, {rests}", record.name, record.driver, Bytes(record.disk_len)));
    created.not_taken.iter().for_each(|other| say(&format!("  {} was not taken: {}", other.driver, other.reason)));
}

/// The master as the hand-over wants it, if it is complete.
async fn find(client: &Client, wanted: &MasterRef) -> Result<crate::handover::Master, Problem> {
    let master: Master = client.get(&format!("/v1/masters/{wanted}")).await?;
    if let Some(problem) = &master.problem {
        return Err(Problem::new(Code::Refused, format!("clone {wanted}"), problem).todo(super::list::mend(&master)));
    }
    as_source(&master).ok_or_else(|| {
        Problem::failed(format!("clone {wanted}"), format!("it is not complete: {:.0} % is here", master.percent))
            .todo(format!("`drover fetch {wanted}` returns when it is"))
    })
}

/// The master as the hand-over wants it.
pub(super) fn as_source(master: &Master) -> Option<crate::handover::Master> {
    let (MasterState::Complete, Some(path), Some(content_hash)) = (master.state, &master.path, master.content_hash)
    else {
        return None;
    };
    Some(crate::handover::Master {
        image: master.image,
        release: master.name.is_some().then(|| master.label()),
        path: path.clone(),
        content_len: master.content_len,
        content_hash,
        in_place: master.in_place,
    })
}

fn list(common: &Common, handover: &Handover) -> Result<Exit, Problem> {
    let listing = handover.list().map_err(|error| records("clone list", &error))?;
    common.output().print(&listing.records, |records| {
        let rows: Vec<Vec<String>> = records.iter().map(row).collect();
        table(&["CLONE", "MASTER", "DRIVER", "DISK", "STATE", "PATH"], &rows, &[3])
    })?;
    listing.unreadable.iter().for_each(|error| warn(&error.to_string()));
    Ok(if listing.unreadable.is_empty() { Exit::Done } else { Exit::Failed })
}

fn row(record: &CloneRecord) -> Vec<String> {
    let state = match record.state {
        CloneState::Making => "unfinished",
        CloneState::Ready => "ready",
    };
    vec![
        record.name.to_string(),
        record.release.clone().unwrap_or_else(|| record.image.short()),
        record.driver.to_string(),
        Bytes(record.disk_len).to_string(),
        state.to_owned(),
        record.path.display().to_string(),
    ]
}

async fn verify(common: &Common, handover: &Handover, clone: &Name, full: bool) -> Result<Exit, Problem> {
    let record = handover.get(clone).map_err(|error| lookup("clone verify", clone, &error))?;
    let client = common.client();
    let master: Option<Master> = match client.get(&format!("/v1/masters/{}", record.image)).await {
        Ok(master) => Some(master),
        Err(problem) if problem.code == Code::NotFound => None,
        Err(problem) => return Err(problem),
    };
    let source = master.as_ref().and_then(as_source);
    let found = handover.verify(clone, source.as_ref()).map_err(|error| lookup("clone verify", clone, &error))?;
    let mut verification = found;
    if let (true, Some((image, _))) = (full, &verification.master_to_hash) {
        let request = Verify { master: MasterRef::Image(*image) };
        let damaged = match client.stream("/v1/verify", &request).await?.last(|_| {}).await? {
            Event::Verified(verified) => verified.damaged_count,
            _ => return Err(Problem::failed(format!("clone verify {clone}"), "the daemon ended without a result")),
        };
        if damaged > 0 {
            let text = format!("{damaged} chunks of its master are damaged");
            verification.findings.insert(0, Finding { severity: Severity::Fault, text });
        } else {
            // What only the content could settle, it has settled.
            verification.findings.retain(|finding| finding.severity != Severity::Doubt);
        }
    }
    common.output().print(&verification, |verification| {
        let sound = if verification.is_sound() { "sound" } else { "NOT SOUND" };
        let first = format!("{clone}: {sound}{}", if verification.in_use { ", in use" } else { "" });
        let findings = verification.findings.iter().map(|finding| format!("  {}", finding.text));
        std::iter::once(first).chain(findings).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if verification.is_sound() { Exit::Done } else { Exit::Failed })
}

fn remove(common: &Common, handover: &Handover, clone: &Name) -> Result<Exit, Problem> {
    let what = format!("clone rm {clone}");
    let removed = handover.remove(clone).map_err(|error| {
        let code = match &error {
            RemoveError::Unknown(_) => Code::NotFound,
            RemoveError::BeingMade(_) | RemoveError::InUse { .. } => Code::Refused,
            RemoveError::File { .. } | RemoveError::Record(_) => Code::Failed,
        };
        Problem::explained(code, &what, &error)
    })?;
    common.output().print(&removed.record, |record| format!("removed {}, {}", record.name, record.path.display()))?;
    if !removed.file_existed {
        warn("its file was gone already");
    }
    Ok(Exit::Done)
}

async fn drivers(common: &Common, handover: &Handover, master: &MasterRef, folder: &Path) -> Result<Exit, Problem> {
    let source = find(&common.client(), master).await?;
    let what = format!("clone drivers {master}");
    let reports = handover.reports(&source, &absolute(folder)?).map_err(|error| refuse(&what, &error))?;
    common.output().print(&reports, |reports| {
        let rows = reports.iter().map(|report| {
            let works = report.unusable.clone().unwrap_or_else(|| "works".to_owned());
            vec![report.driver.to_string(), works, report.note.to_owned()]
        });
        table(&["DRIVER", "HERE", "WHAT IT IS LIKE"], &rows.collect::<Vec<_>>(), &[])
    })?;
    Ok(Exit::Done)
}

fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    std::path::absolute(path).map_err(|error| Problem::new(Code::Usage, path.display().to_string(), error))
}

/// What the hand-over refused, by which exit code.
pub(super) fn refuse(what: &str, error: &CreateError) -> Problem {
    let code = match error {
        CreateError::NameTaken { .. } | CreateError::Unusable { .. } | CreateError::NoDriver(_) => Code::Refused,
        CreateError::TooSmall { .. } | CreateError::NotSectors { .. } | CreateError::Target(_) => Code::Usage,
        _ => Code::Failed,
    };
    Problem::explained(code, what, error)
}

fn lookup(what: &str, clone: &Name, error: &LookupError) -> Problem {
    match error {
        LookupError::Unknown(_) => Problem::explained(Code::NotFound, format!("{what} {clone}"), error),
        LookupError::Record(error) => records(what, error),
    }
}

fn records(what: &str, error: &RecordError) -> Problem {
    Problem::explained(Code::Failed, what, error)
}
