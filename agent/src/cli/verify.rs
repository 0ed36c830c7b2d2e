//! `drover verify`: reads a master again and compares it with its manifest.

use clap::Args;

use super::progress::Progress;
use super::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{Event, MAX_DAMAGED, MasterRef, Verified, Verify as Request};
use crate::handover::record::MadeFrom;
use crate::quantity::Bytes;

/// Read a master again and compare every chunk with its manifest
///
/// Exit code 1 if anything is damaged; the damaged chunks (64 KiB each, counted from 0) are named.
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// NAME, NAME@VERSION, image id or its first 8 digits or more
    master: MasterRef,
}

impl Verify {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let output = common.output();
        let mut progress = Progress::new(output, &self.master.to_string());
        let mut events = common.client().stream("/v1/verify", &Request { master: self.master.clone() }).await?;
        let last = events.last(|event| progress.show(event)).await;
        progress.finish();
        let Event::Verified(verified) = last? else {
            return Err(Problem::failed(format!("verify {}", self.master), "the daemon ended without a result"));
        };
        if !output.is_json() {
            output.line(&format!("{}: {}", self.master, show(&verified)))?;
        }
        if verified.damaged_count == 0 {
            return Ok(Exit::Done);
        }
        let what = format!("verify {}", self.master);
        let clones = MadeFrom { readers: verified.clones, others: verified.others };
        Err(Problem::failed(what, format!("{} chunks are damaged", verified.damaged_count)).todo(format!(
            "its bytes on this host's disk changed: check the disk; `drover fetch {}` mends it if another host has \
                 it, and only the damaged chunks travel (else publish the file again). It is {clones}. What reads it does \
                 so until it is started anew after that",
            self.master
        )))
    }
}

fn show(verified: &Verified) -> String {
    if verified.damaged_count == 0 {
        return format!("good, {} of data compared", Bytes(verified.bytes));
    }
    let named = verified.damaged.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let more = if verified.damaged_count > MAX_DAMAGED as u64 { " ..." } else { "" };
    format!("DAMAGED, chunks {named}{more}")
}
