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
/// in_place, newest, problem and clones.
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
    let table = table(&["MASTER", "STATE", "LENGTH", "DATA", "CLONES", "PATH"], &rows, &[2, 3]);
    let problems = masters.iter().filter_map(|master| Some((master.label(), master.problem.as_ref()?)));
    let problems = problems.map(|(label, problem)| format!("{label}: {problem}; `drover fetch {label}` mends it"));
    std::iter::once(table).chain(problems).collect::<Vec<_>>().join("\n")
}

fn row(master: &Master) -> Vec<String> {
    let label = match (&master.name, master.newest) {
        (None, _) => master.image.to_string(),
        (Some(_), true) => master.label(),
        (Some(_), false) => format!("{} (superseded)", master.label()),
    };
    let state = match master.state {
        MasterState::Complete if master.problem.is_some() => "SPOILT".to_owned(),
        MasterState::Complete => "complete".to_owned(),
        MasterState::Incoming => format!("{:.0} %", master.percent),
    };
    let path = master.path.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string());
    let clones = if master.clones.is_empty() { "-".to_owned() } else { master.clones.join(",") };
    vec![label, state, Bytes(master.content_len).to_string(), Bytes(master.data_len).to_string(), clones, path]
}
