//! `drover gc`: removes the masters that neither a name nor a clone needs any more.

use clap::Args;

use super::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{Collected, Gc as Request};
use crate::quantity::Bytes;

/// Remove superseded masters that no clone needs
///
/// Kept are, of each name, the newest complete versions (setting keep_versions) and everything newer, masters without
/// a name, and those that clones need.
#[derive(Args, Debug)]
pub(super) struct Gc {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let collected: Collected = common.client().post("/v1/gc", &Request { dry_run: self.dry_run }).await?;
        common.output().print(&collected, show)?;
        Ok(Exit::Done)
    }
}

fn show(collected: &Collected) -> String {
    let verb = if collected.dry_run { "would remove" } else { "removed" };
    let sum = collected.removed.iter().map(|removed| removed.bytes).sum();
    let removed = collected.removed.iter().map(|removed| super::rm::show(verb, removed));
    let kept = collected.kept.iter().map(|kept| format!("kept {}: {}", kept.names.join(", "), kept.why));
    let sum = format!("{verb} {} masters, {}", collected.removed.len(), Bytes(sum));
    removed.chain(kept).chain([sum]).collect::<Vec<_>>().join("\n")
}
