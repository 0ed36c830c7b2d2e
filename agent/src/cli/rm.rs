//! `drover rm`: removes a master that nothing needs.

use clap::Args;

use super::output::warn;
use super::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{MasterRef, Removed};
use crate::quantity::Bytes;

/// Remove a master from this host; refused while clones would be lost without it
#[derive(Args, Debug)]
pub(super) struct Rm {
    /// NAME, NAME@VERSION, image id or its first 8 digits or more
    master: MasterRef,
}

impl Rm {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let removed: Removed = common.client().delete(&format!("/v1/masters/{}", self.master)).await?;
        common.output().print(&removed, |removed| show("removed", removed))?;
        if let Some(note) = &removed.note {
            warn(note);
        }
        Ok(Exit::Done)
    }
}

/// `removed base@1 (ab12…), 64.0 MiB`.
pub(super) fn show(verb: &str, removed: &Removed) -> String {
    let names = if removed.names.is_empty() { "master".to_owned() } else { removed.names.join(", ") };
    format!("{verb} {names} ({}), {}", removed.image.short(), Bytes(removed.bytes))
}
