//! `drover fetch`: brings a master to this host.

use clap::Args;

use super::output::say;
use super::progress::Progress;
use super::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{Event, Fetch as Request, MasterRef};

/// Bring a master to this host; returns when it is verified and sealed, and prints its path
///
/// May be interrupted: the daemon goes on. Run it again to see how far it is.
#[derive(Args, Debug)]
pub(super) struct Fetch {
    /// NAME (its newest version), NAME@VERSION, image id or its first 8 digits or more
    master: MasterRef,
    /// Start it, and return at once
    #[arg(long)]
    no_wait: bool,
}

impl Fetch {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let output = common.output();
        let mut progress = Progress::new(output, &self.master.to_string());
        let request = Request { master: self.master.clone(), wait: !self.no_wait };
        let mut events = common.client().stream("/v1/fetch", &request).await?;
        let last = events.last(|event| progress.show(event)).await;
        progress.finish();
        match last? {
            _ if output.is_json() => {}
            Event::Fetched(master) => {
                if let Some(path) = &master.path {
                    output.line(&path.display().to_string())?;
                }
            }
            Event::Started { image } => {
                output.line(&image.to_string())?;
                say("started; `drover status` shows how far it is");
            }
            _ => return Err(Problem::failed(format!("fetch {}", self.master), "the daemon ended without a result")),
        }
        Ok(Exit::Done)
    }
}
