//! `drover-sim compare`: contenders side by side.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use drover_sim::{Comparison, Contender, Scenario};

use super::{Failure, about};

/// Let contenders compete on scenarios, and print a table for each.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Files that describe them, in TOML.
    #[arg(required = true)]
    scenarios: Vec<PathBuf>,
    /// Only these; else all that make sense.
    #[arg(long, value_enum)]
    contender: Vec<Contender>,
    /// Use this seed instead of the scenario's.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object for each scenario instead.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print a line for each host and contender instead.
    #[arg(long)]
    csv: bool,
    /// Also write NAME.json, NAME.csv and NAME.svg, the curves of completion, into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    for (at, path) in arguments.scenarios.iter().enumerate() {
        compare_one(path, arguments, at == 0).map_err(about(path))?;
    }
    Ok(())
}

fn compare_one(path: &Path, arguments: &Arguments, is_first: bool) -> Result<(), Failure> {
    let scenario = Scenario::load(path, arguments.seed)?;
    let all = Contender::all(&scenario);
    let contenders = if arguments.contender.is_empty() { &all } else { &arguments.contender };
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let comparison = Comparison::run(&name, &scenario, contenders)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&comparison)?)?;
    } else if arguments.csv {
        comparison.write_csv(&mut out, is_first)?;
    } else {
        writeln!(out, "{comparison}")?;
    }
    arguments.out.as_ref().map_or(Ok(()), |folder| write_files(&comparison, folder))
}

fn write_files(comparison: &Comparison, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let file = |ending: &str| folder.join(format!("{}.{ending}", comparison.scenario));
    std::fs::write(file("json"), serde_json::to_string_pretty(comparison)?)?;
    comparison.write_csv(std::fs::File::create(file("csv"))?, true)?;
    // A fleet of which nobody is complete has no curve.
    if comparison.outcomes.iter().any(|outcome| outcome.last_seconds.is_some()) {
        std::fs::write(file("svg"), comparison.curves()?)?;
    }
    Ok(())
}
