//! `drover clone xml`, `qemu` and `xl`: a clone as hypervisors want it told.

use clap::Args;
use drover_protocol::release::Name;

use super::refuse_device;
use crate::cli::{Common, Exit};
use crate::control::{Code, Problem};
use crate::handover::{CloneRecord, Handover, MachineError, qemu_arguments, xen_disk, xml_disk};

/// Print a libvirt <disk> element, with the whole backing chain named
#[derive(Args, Debug)]
pub(super) struct Xml {
    /// The clone
    clone: Name,
    /// What the guest calls the disk
    #[arg(long, default_value = "vda", value_parser = device_name)]
    target: String,
}

/// Print an entry for the disk list of an xl configuration
#[derive(Args, Debug)]
pub(super) struct Xl {
    /// The clone
    clone: Name,
    /// What the guest calls the disk
    #[arg(long, default_value = "xvda", value_parser = device_name)]
    target: String,
}

impl Xml {
    pub(super) fn run(&self, common: &Common, handover: &Handover) -> Result<Exit, Problem> {
        let record = get("clone xml", handover, &self.clone)?;
        let text = xml_disk(&record, &self.target).map_err(|error| refuse("clone xml", &error))?;
        common.output().print(&text, Clone::clone)?;
        Ok(Exit::Done)
    }
}

impl Xl {
    pub(super) fn run(&self, common: &Common, handover: &Handover) -> Result<Exit, Problem> {
        let record = get("clone xl", handover, &self.clone)?;
        let text = xen_disk(&record, &self.target).map_err(|error| refuse("clone xl", &error))?;
        common.output().print(&text, Clone::clone)?;
        Ok(Exit::Done)
    }
}

/// For people and scripts a line that a shell reads back; as JSON an array.
pub(super) fn qemu(common: &Common, handover: &Handover, clone: &Name) -> Result<Exit, Problem> {
    let record = get("clone qemu", handover, clone)?;
    let arguments = qemu_arguments(&record).map_err(|error| refuse("clone qemu", &error))?;
    common.output().print(&arguments, |arguments| {
        arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
    })?;
    Ok(Exit::Done)
}

fn get(what: &str, handover: &Handover, clone: &Name) -> Result<CloneRecord, Problem> {
    handover.get_finished(clone).map_err(|error| refuse_device(&format!("{what} {clone}"), &error))
}

fn refuse(what: &str, error: &MachineError) -> Problem {
    let code = if matches!(error, MachineError::Target(_)) { Code::Usage } else { Code::Refused };
    Problem::explained(code, what, error)
}

/// Reads what a guest calls a disk: `vda`, `sdb`, `xvda1`.
fn device_name(text: &str) -> Result<String, String> {
    let good = !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if good { Ok(text.to_owned()) } else { Err("write it like vda, sdb or xvda".to_owned()) }
}

/// As a word of a shell.
fn quoted(argument: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_=,./:".contains(character);
    if argument.chars().all(plain) { argument.to_owned() } else { format!("'{}'", argument.replace('\'', r"'\''")) }
}
