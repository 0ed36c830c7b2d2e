//! `drover gc`: removes the masters that neither a name nor a clone needs any more.

use clap::Args;

use super::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{Collected, Gc as Request};
use crate::quantity::Bytes;

/// Remove superseded masters that no clone needs
///
/// Kept are, of each name, the newest complete versions (setting keep_versions) and everything newer, those that clones
/// need, and of those without a release what was fetched by its image id or published minutes ago.
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
    let kept = collected.kept.iter().map(|kept| {
        let names = if kept.names.is_empty() { kept.image.short() } else { kept.names.join(", ") };
        format!("kept {names}: {}", kept.why)
    });
    let sum = format!("{verb} {} masters, {}", collected.removed.len(), Bytes(sum));
    removed.chain(kept).chain([sum]).collect::<Vec<_>>().join("\n")
}
