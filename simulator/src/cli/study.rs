//! `drover-sim study`: all plots on one page.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use drover_sim::Study;
use drover_sim::study::Extent;

use super::Failure;

/// Make the page of plots that compare all contenders, `study.html`, with each plot as SVG and all points as CSV.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Folder for it.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Small fleets and a small image: the same plots in seconds.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let extent = if arguments.quick { Extent::quick() } else { Extent::full() };
    let study = Study::run(&extent, |begun| {
        let _ = writeln!(std::io::stderr(), "{begun}");
    })?;
    study.write(&arguments.out)?;
    writeln!(std::io::stdout(), "{}", arguments.out.join("study.html").display())?;
    Ok(())
}
