//! `drover-sim run`: the swarm alone.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use drover_sim::Scenario;

use super::{Failure, about};

/// Run scenarios, one after the other, and print a table for each.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Files that describe them, in TOML.
    #[arg(required = true)]
    scenarios: Vec<PathBuf>,
    /// Use this seed instead of the scenario's.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object for each scenario instead.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.scenarios.iter().try_for_each(|path| run_one(path, arguments).map_err(about(path)))
}

fn run_one(path: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let scenario = Scenario::load(path, arguments.seed)?;
    let report = drover_sim::run(&scenario)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "{}\n\n{report}", path.display())?;
    }
    Ok(())
}
