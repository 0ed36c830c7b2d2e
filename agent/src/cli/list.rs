//! `drover list`: the masters on this host.

use clap::Args;

use super::output::table;
use super::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{Master, MasterState};
use crate::quantity::Bytes;

/// List the masters on this host, complete and incoming
///
/// With --json: an array of objects with name, version, image, path, content_len, data_len, state, percent, sealed,
/// in_place, checked_unix_s, verified, doubt, newest, problem and clones. SEALED is what protects it: immutable (not even root writes to it),
/// mode (root alone could), broken (somebody made it writable; `drover verify` seals it again), or watched (the publisher's own file). Its state is complete, spoilt (was whole, and is not served
/// any more), incoming
/// or failed; problem says why. A doubt says why its bytes may have changed since they were compared; no clones are made of it
/// until `drover verify` settles that.
#[derive(Args, Debug)]
pub(super) struct List {}

impl List {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let masters: Vec<Master> = common.client().get("/v1/masters").await?;
        common.output().print(&masters, |masters| show(masters))?;
        Ok(Exit::Done)
    }
}

fn show(masters: &[Master]) -> String {
    let rows: Vec<Vec<String>> = masters.iter().map(row).collect();
    let table = table(&["MASTER", "STATE", "LENGTH", "DATA", "SEALED", "CLONES", "PATH"], &rows, &[2, 3]);
    let problems = masters.iter().filter_map(|master| Some((master, master.label(), master.problem.as_ref()?)));
    let problems = problems.map(|(master, label, problem)| format!("{label}: {problem}; {}", mend(master)));
    let doubts = masters.iter().filter_map(|master| Some((master, master.doubt.as_ref()?)));
    let doubts =
        doubts.map(|(master, doubt)| format!("{}: it may have changed: {doubt}; {}", master.label(), settle(master)));
    std::iter::once(table).chain(problems).chain(doubts).collect::<Vec<_>>().join("\n")
}

/// What to do about a master that may have changed.
pub(super) fn settle(master: &Master) -> String {
    format!("`drover verify {}` reads it again and settles that", master.label())
}

/// What to do about a master that is not as it should be.
pub(super) fn mend(master: &Master) -> String {
    let label = master.label();
    match master.state {
        MasterState::Failed => format!("`drover fetch {label}` tries again"),
        _ if master.in_place => {
            format!("publish the file again, or `drover fetch {label}` if another host has it")
        }
        _ => format!("`drover fetch {label}` mends it, if another host has it; else publish it again"),
    }
}

fn row(master: &Master) -> Vec<String> {
    let label = match (&master.name, master.newest) {
        (None, _) => master.image.to_string(),
        (Some(_), true) => master.label(),
        (Some(_), false) => format!("{} (superseded)", master.label()),
    };
    let state = match master.state {
        MasterState::Complete => "complete".to_owned(),
        MasterState::Spoilt => "SPOILT".to_owned(),
        MasterState::Failed => "FAILED".to_owned(),
        // Neither its length nor how much of it is here is known before its manifest is.
        MasterState::Incoming if master.data_len == 0 && master.percent == 0.0 => "looking for it".to_owned(),
        MasterState::Incoming => format!("{:.0} %", master.percent),
    };
    let path = master.path.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string());
    let clones = if master.clones.is_empty() { "-".to_owned() } else { master.clones.join(",") };
    let sealed = master.sealed.clone().unwrap_or_else(|| "-".to_owned());
    let (length, data) = (Bytes(master.content_len).to_string(), Bytes(master.data_len).to_string());
    vec![label, state, length, data, sealed, clones, path]
}
