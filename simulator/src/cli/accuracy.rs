//! `drover-sim accuracy`: beside real daemons.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use drover_sim::accuracy::{Accuracy, Measured};

use super::{Failure, about};

/// Compare the simulator with what `lab accuracy` measured of real daemons. Fails if it is further off than it may be.
#[derive(Args)]
pub(crate) struct Arguments {
    /// What the lab wrote.
    measured: PathBuf,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    judge(arguments).map_err(about(&arguments.measured))
}

fn judge(arguments: &Arguments) -> Result<(), Failure> {
    let accuracy = Accuracy::of(&Measured::load(&arguments.measured)?)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&accuracy)?)?;
    } else {
        write!(out, "{accuracy}")?;
    }
    if !accuracy.is_reached() {
        return Err("the simulator is further from what was measured than it may be".into());
    }
    Ok(())
}
