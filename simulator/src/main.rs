//! Runs scenarios and prints what came out.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use drover_sim::{Scenario, run};

/// Runs fleets of Drover hosts on virtual time.
#[derive(Parser)]
#[command(name = "drover-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run scenarios, one after the other, and print a table for each.
    Run {
        /// Files that describe them, in TOML.
        #[arg(required = true)]
        scenarios: Vec<PathBuf>,
        /// Use this seed instead of the scenario's.
        #[arg(long)]
        seed: Option<u64>,
        /// Print one JSON object for each scenario instead.
        #[arg(long)]
        json: bool,
    },
    /// Run small fleets through all that can go wrong, one for each seed.
    Check(drover_sim::check::command::CheckArgs),
}

/// A run failed, or its result is impossible.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let (scenarios, seed, json) = match Cli::parse().command {
        Command::Run { scenarios, seed, json } => (scenarios, seed, json),
        Command::Check(args) => return run_check(&args),
    };
    for path in scenarios {
        if let Err(error) = run_one(&path, seed, json) {
            let _ = writeln!(std::io::stderr(), "drover-sim: {}: {error}", path.display());
            return ExitCode::from(FAILED);
        }
    }
    ExitCode::SUCCESS
}

fn run_check(args: &drover_sim::check::command::CheckArgs) -> ExitCode {
    match drover_sim::check::command::run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "drover-sim: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn run_one(path: &std::path::Path, seed: Option<u64>, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let scenario = Scenario::load(path, seed)?;
    let report = run(&scenario)?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "{}\n\n{report}", path.display())?;
    }
    Ok(())
}
