//! `drover clone drivers`.

use std::path::PathBuf;

use clap::Args;

use super::{absolute, find, refuse};
use crate::cli::output::table;
use crate::cli::{Common, Exit};
use crate::control::Problem;
use crate::control::api::MasterRef;
use crate::handover::{Handover, Hypervisor};

/// Show which drivers work here, and why the others do not
///
/// With a master, for clones of that one; without, what can be told of any.
#[derive(Args, Debug)]
pub(super) struct Drivers {
    /// NAME, NAME@VERSION, image id or its first 8 digits or more
    master: Option<MasterRef>,
    /// The folder that the clones would go to, or /dev/GROUP for logical volumes
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    at: PathBuf,
    /// What is to run them: any, kvm, xen or hyperv
    #[arg(long, default_value = "any")]
    hypervisor: Hypervisor,
}

impl Drivers {
    pub(super) async fn run(&self, common: &Common, handover: &Handover) -> Result<Exit, Problem> {
        let master = match &self.master {
            Some(master) => Some(find(&common.client(), master).await?),
            None => None,
        };
        let at = self.at.canonicalize().or_else(|_| absolute(&self.at))?;
        let out = at.join("drover-probe");
        let reports = handover.reports(master.as_ref(), &out, self.hypervisor);
        let reports = reports.map_err(|error| refuse("clone drivers", &error))?;
        common.output().print(&reports, |reports| {
            let rows = reports.iter().map(|report| {
                let works = report.unusable.clone().unwrap_or_else(|| "works".to_owned());
                vec![report.driver.to_string(), works, report.note.to_owned()]
            });
            table(&["DRIVER", "HERE", "WHAT IT IS LIKE"], &rows.collect::<Vec<_>>(), &[])
        })?;
        Ok(Exit::Done)
    }
}
