//! Runs scenarios and prints what came out.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use drover_sim::accuracy::{Accuracy, Measured};
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
    /// Compare the simulator with what `lab accuracy` measured of real daemons.
    Accuracy {
        /// What the lab wrote.
        measured: PathBuf,
        /// Print JSON instead of the table.
        #[arg(long)]
        json: bool,
    },
}

/// A run failed, or its result is impossible.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { scenarios, seed, json } => {
            each(&scenarios, |path| run_one(path, seed, json).map(|()| ExitCode::SUCCESS))
        }
        Command::Accuracy { measured, json } => each(&[measured], |path| accuracy(path, json)),
    }
}

/// Does something with one file after the other, until it fails.
fn each(paths: &[PathBuf], mut what: impl FnMut(&Path) -> Result<ExitCode, Box<dyn Error>>) -> ExitCode {
    for path in paths {
        match what(path) {
            Ok(code) if code == ExitCode::SUCCESS => {}
            Ok(code) => return code,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "drover-sim: {}: {error}", path.display());
                return ExitCode::from(FAILED);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Fails if the cases that judge are not within the goals.
fn accuracy(path: &Path, json: bool) -> Result<ExitCode, Box<dyn Error>> {
    let accuracy = Accuracy::of(&Measured::load(path)?)?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&accuracy)?)?;
    } else {
        write!(out, "{accuracy}")?;
    }
    Ok(if accuracy.is_reached() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn run_one(path: &Path, seed: Option<u64>, json: bool) -> Result<(), Box<dyn Error>> {
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
