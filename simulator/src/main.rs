//! Fleets of Drover hosts, and their rivals, on virtual time.

mod cli;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use drover_sim::check::{self, command::CheckArgs};

use crate::cli::{accuracy, compare, run, study};

/// Runs fleets of Drover hosts on virtual time.
#[derive(Parser)]
#[command(name = "drover-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Compare(compare::Arguments),
    Study(study::Arguments),
    Accuracy(accuracy::Arguments),
    /// Run small fleets through all that can go wrong, one for each seed.
    Check(CheckArgs),
}

/// A run failed, or its result is impossible.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Study(arguments) => study::run(&arguments),
        Command::Accuracy(arguments) => accuracy::run(&arguments),
        Command::Check(arguments) => match check::command::run(&arguments) {
            Ok(false) => return ExitCode::from(FAILED),
            Ok(true) => Ok(()),
            Err(error) => Err(error.into()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "drover-sim: {error}");
            ExitCode::from(FAILED)
        }
    }
}
