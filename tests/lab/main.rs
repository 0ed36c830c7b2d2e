//! The lab: Drover and what people use today on the same wires, in one run.
//!
//! `lab run` builds the hosts of each case in network namespaces ([`network`]), lets each contender ([`contenders`]) bring
//! the image of the case to all of them, compares every file, and prints a table of when the first, the median and the
//! last host had it over the soonest possible ([`report`]). `lab pair` shows what Drover costs over bare QUIC ([`pair`]).
//! It needs root, and leaves nothing behind.
//!
//! `lab publish`, `idle`, `memory`, `latency` and `clones` measure what needs no wires, with real daemons of this machine beside
//! their goals ([`goal`]). `lab attack` shows what members that are against the others cost them ([`attack`]). `lab accuracy` measures what the simulator is judged by ([`accuracy`]). `lab study` measures the clones that Drover's drivers make, as disks ([`study`]).
#![expect(clippy::print_stdout, reason = "this program prints tables")]

mod accuracy;
mod attack;
mod case;
mod clones;
mod contenders;
mod goal;
mod idle;
mod latency;
mod limits;
mod measure;
mod memory;
mod network;
mod pair;
mod publish;
mod raw;
mod report;
mod run;
mod scratch;
mod study;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use drover_harness::outer;

use crate::case::Case;

/// Drover and what people use today on the same wires
#[derive(Parser, Debug)]
#[command(name = "lab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Name the cases and the contenders, and what is missing to run them
    List,
    /// Run cases and print the table
    Run(run::Arguments),
    /// How long real daemons take where the simulator says how long they should
    Accuracy(accuracy::Arguments),
    /// What moving a gibibyte between two hosts costs, beside bare QUIC
    Pair(pair::Arguments),
    /// One end of bare QUIC; `lab pair` starts these
    #[command(subcommand, hide = true)]
    Raw(raw::Arguments),
    /// What a gang of members costs the others
    Attack(attack::Arguments),
    /// One of the gang; `lab attack` starts these
    #[command(hide = true)]
    Hostile(attack::Hostile),
    /// How fast a file becomes a master, beside b3sum, and cp with sync
    Publish(publish::Arguments),
    /// What a daemon costs that has masters and neighbours, and nothing to do
    Idle(idle::Arguments),
    /// What agents take at the most while a large master goes around
    Memory(memory::Arguments),
    /// How soon a release is heard of, and its arrival known
    Latency(latency::Arguments),
    /// How long many clones take to make, list and remove
    Clones(clones::Arguments),
    /// What each technique of making clones costs a virtual machine
    Study(study::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn execute(self) -> Result<ExitCode, Box<dyn Error>> {
        match self.command {
            Command::List => list().map(|()| ExitCode::SUCCESS),
            Command::Run(arguments) => inside(|| run::run(&arguments)),
            Command::Accuracy(arguments) => inside(|| accuracy::run(&arguments)),
            Command::Pair(arguments) => inside(|| pair::run(&arguments)),
            Command::Raw(arguments) => {
                raw::run(arguments).map_err(|error| error as Box<dyn Error>)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Attack(arguments) => inside(|| attack::run(&arguments)),
            Command::Hostile(arguments) => arguments.run(),
            Command::Publish(arguments) => inside(|| publish::run(&arguments)),
            Command::Idle(arguments) => inside(|| idle::run(&arguments)),
            Command::Memory(arguments) => inside(|| memory::run(&arguments)),
            Command::Latency(arguments) => inside(|| latency::run(&arguments)),
            Command::Clones(arguments) => inside(|| clones::run(&arguments)),
            Command::Study(arguments) => inside(|| study::run(&arguments)),
        }
    }
}

/// Runs a command inside the outer namespace, which this program enters by starting anew.
fn inside(command: impl FnOnce() -> Result<ExitCode, Box<dyn Error>>) -> Result<ExitCode, Box<dyn Error>> {
    if !outer::is_inside() {
        if !rustix::process::geteuid().is_root() {
            return Err("making networks needs root: run it with sudo".into());
        }
        let status = outer::enter(std::env::args_os().skip(1))?;
        return Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
    }
    outer::settle()?;
    command()
}

fn list() -> Result<(), Box<dyn Error>> {
    println!("cases");
    for case in Case::all()? {
        println!("  {:<12} {}", case.name, case.title);
    }
    println!("contenders");
    for contender in contenders::all() {
        let state = contender.missing().map_or_else(|| "ready".to_owned(), |missing| format!("missing: {missing}"));
        println!("  {:<16} {state}", contender.name());
    }
    Ok(())
}
