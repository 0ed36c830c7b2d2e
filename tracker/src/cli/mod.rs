//! The command line: one file for each command.
//!
//! Data goes to stdout, the rest to stderr. Exit codes: 0 done, 1 not done (the message says what, why and what to do),
//! 2 the command line or the settings can't be understood.

mod ca;
mod init;
mod members;
mod publishers;
mod revoke;
mod run;
mod token;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Introduces Drover agents to each other, lets hosts join and keeps releases.
#[derive(Parser)]
#[command(name = "drover-tracker", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Go over to another CA, while the hosts go on.
    Ca(ca::CaArguments),
    /// Make a cluster: its CA, the tracker's certificate and the first publisher's key. Or make another tracker of one
    ///
    /// A cluster may have several trackers, so that hosts can join, renew and meet while one is away. Copy ca/,
    /// publishers.json and, if there is one, revoked.json from the first one's state folder to the other machine, over a channel that keeps secrets, then run
    /// there: drover-tracker init --cluster COPY --listen ADDR:PORT. Remove the copy. Name all trackers in the settings of
    /// all hosts: trackers = ["FIRST:7440", "OTHER:7440"]. Tokens count at the tracker that made them.
    Init(init::InitArguments),
    /// List the members that have a certificate, and those that were revoked.
    Members(members::MembersArguments),
    /// Shut a host out for good, within seconds: its key counts for nothing any more.
    Revoke(revoke::RevokeArguments),
    /// Run the tracker until it is told to stop.
    Run(run::RunArguments),
    /// List the publishers whom the cluster trusts, add or remove one.
    Publishers(publishers::PublishersArguments),
    /// Make a one-use token with which a host can join, and print it.
    Token(token::TokenArguments),
}

/// Where a cluster's state is.
#[derive(clap::Args)]
struct StateArgument {
    /// The tracker's state folder.
    #[arg(long, value_name = "DIR", env = "DROVER_TRACKER_STATE", default_value = "/var/lib/drover-tracker")]
    state: PathBuf,
}

/// How a command ended that did not do what it was told.
enum Failure {
    /// Not done.
    Failed(String),
    /// Not understood.
    Usage(String),
}

pub(crate) fn run() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Ca(arguments) => ca::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Members(arguments) => members::run(&arguments),
        Command::Revoke(arguments) => revoke::run(&arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Publishers(arguments) => publishers::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
    };
    let (text, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(text)) => (text, 1),
        Err(Failure::Usage(text)) => (text, 2),
    };
    // If stderr is closed, there is nobody to tell.
    let _ = writeln!(io::stderr(), "drover-tracker: {text}");
    ExitCode::from(code)
}

impl Failure {
    fn failed(error: impl Display) -> Self {
        Failure::Failed(error.to_string())
    }

    fn usage(error: impl Display) -> Self {
        Failure::Usage(error.to_string())
    }
}

/// Data for whoever called.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::failed(format!("can't print: {error}")))
}
