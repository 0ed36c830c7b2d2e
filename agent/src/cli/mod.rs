//! The command line: one file for each command, with its arguments, its call and its printing.
//!
//! What a command found goes to standard output, everything else to standard error, so that output can be piped. With
//! `--json` the output is JSON: one object, or one event a line for what takes time. Every command ends with one of
//! these exit codes, which never change their meaning:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | tried and failed; or `verify` found damage |
//! | 2 | the command line or a settings file makes no sense |
//! | 3 | no such master, release, clone or file |
//! | 4 | a rule forbids it: untrusted publisher, lower version, clones in the way, token already used |
//! | 5 | the daemon does not answer |
//! | 6 | no tracker answers; `publish`: the release is kept, and posted when one does |
//! | 130 | interrupted |
//!
//! A command that fails says `drover: WHAT: WHY` and, on a second line, what to do.

mod check_config;
mod clone;
mod cosign;
mod daemon;
mod demo;
mod drop_in;
mod fetch;
mod gc;
mod held;
mod join;
mod key;
mod keygen;
mod list;
mod multicast;
mod output;
mod passphrase;
mod post;
mod progress;
mod publish;
mod renew;
mod rm;
mod status;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use drover_link::durable;

use crate::control::client::Client;
use crate::control::{Code, Problem};
use output::Output;

/// Brings VM master images to every host of a fleet, verified, and makes clones of them.
#[derive(Parser, Debug)]
#[command(name = "drover", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// State folder of the daemon, which also holds its socket
    #[arg(long, global = true, env = "DROVER_STATE", default_value = "/var/lib/drover", value_name = "DIR")]
    state: PathBuf,
    /// Print JSON: one object, or one event a line for what takes time
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::Demo),
    Join(join::Join),
    Keygen(keygen::Keygen),
    Daemon(daemon::Daemon),
    Publish(publish::Publish),
    Renew(renew::Renew),
    Cosign(cosign::Cosign),
    Post(post::Post),
    Fetch(fetch::Fetch),
    List(list::List),
    Status(status::Status),
    Verify(verify::Verify),
    Rm(rm::Rm),
    Gc(gc::Gc),
    Multicast(multicast::Multicast),
    Clone(clone::Clone),
    CheckConfig(check_config::CheckConfig),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(cli));
            // A blocking read that nobody waits for any more must not keep the command from ending.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Problem::failed("start", error)),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(problem) => {
            output::complain(&problem);
            Exit::from(problem.code).into()
        }
    }
}

async fn run(cli: Cli) -> Result<Exit, Problem> {
    let common = cli.common;
    match cli.command {
        Command::Demo(command) => command.run(&common).await,
        Command::Join(command) => command.run(&common).await,
        Command::Keygen(command) => command.run(&common),
        Command::Daemon(command) => command.run(&common).await,
        Command::Publish(command) => command.run(&common).await,
        Command::Renew(command) => command.run(&common).await,
        Command::Cosign(command) => command.run(&common),
        Command::Post(command) => command.run(&common).await,
        Command::Fetch(command) => command.run(&common).await,
        Command::List(command) => command.run(&common).await,
        Command::Status(command) => command.run(&common).await,
        Command::Verify(command) => command.run(&common).await,
        Command::Rm(command) => command.run(&common).await,
        Command::Gc(command) => command.run(&common).await,
        Command::Multicast(command) => command.run(&common).await,
        Command::Clone(command) => command.run(&common).await,
        Command::CheckConfig(command) => command.run(&common),
    }
}

/// How the command ends. The numbers are documented in the module's table and in `--help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    DaemonUnreachable = 5,
    TrackerUnreachable = 6,
    Interrupted = 130,
}

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  tried and failed; verify: damage was found
    2  the command line or a settings file makes no sense
    3  no such master, release, clone or file
    4  a rule forbids it: untrusted publisher, lower version, clones in the way, token already used
    5  the daemon does not answer
    6  no tracker answers; publish: the release is kept, and posted when one does
  130  interrupted";

/// Blocking work of one process, the daemon's included: import, verification and clones run one or two at a time.
const BLOCKING_THREADS: usize = 16;

impl Common {
    fn client(&self) -> Client {
        Client::new(&self.state)
    }

    fn output(&self) -> Output {
        Output::new(self.json)
    }

    /// Refuses a state folder in which others may have planted something.
    fn check_state(&self) -> Result<(), Problem> {
        let todo = "look at what is in it, then `chmod o-w` it, or use another folder";
        durable::refuse_open_folder(&self.state)
            .map_err(|error| Problem::explained(Code::Refused, "state folder", &error).todo(todo))
    }
}

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        match code {
            Code::Failed => Exit::Failed,
            Code::Usage => Exit::Usage,
            Code::NotFound => Exit::NotFound,
            Code::Refused => Exit::Refused,
            Code::DaemonUnreachable => Exit::DaemonUnreachable,
            Code::TrackerUnreachable => Exit::TrackerUnreachable,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        for exit in [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Refused,
            Exit::DaemonUnreachable,
            Exit::TrackerUnreachable,
            Exit::Interrupted,
        ] {
            let line = format!("{:>5}  ", exit as u8);
            assert!(EXIT_CODES.contains(&line), "{exit:?} is not explained");
        }
    }
}
