//! Running programs that do what we don't do ourselves.
//!
//! Arguments are passed as they are, never through a shell; output is in English whatever the user's language, because
//! some of it is looked at; a program that fails is quoted, so that a person sees what it said.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use super::driver::Unusable;

/// How much of what a failing program says is kept, in characters.
const QUOTE_LEN: usize = 600;

/// Programs that drivers run, each by a path or by a name that is looked for in `PATH` and where administrators' programs
/// are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// `qemu-img`.
    pub qemu_img: PathBuf,
    /// `qemu-io`, which comes with it.
    pub qemu_io: PathBuf,
    /// `dmsetup`.
    pub dmsetup: PathBuf,
    /// `losetup`.
    pub losetup: PathBuf,
    /// `lvm`, the one program behind `lvcreate` and the rest.
    pub lvm: PathBuf,
}

impl Default for Tools {
    fn default() -> Self {
        Tools {
            qemu_img: PathBuf::from("qemu-img"),
            qemu_io: PathBuf::from("qemu-io"),
            dmsetup: PathBuf::from("dmsetup"),
            losetup: PathBuf::from("losetup"),
            lvm: PathBuf::from("lvm"),
        }
    }
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{} was not found; {advice}", program.display())]
    Missing {
        /// The program.
        program: PathBuf,
        /// How to get it.
        advice: &'static str,
    },
    /// It could not be started.
    #[error("can't run {}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{} failed: {said}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// What it said.
        said: String,
    },
    /// It ended with an error and did not say which.
    #[error("{} failed ({status}) without a word", program.display())]
    Silent {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// It did not come to its end.
    #[error("{} was ended by signal {signal} before it was done", program.display())]
    Killed {
        /// The program.
        program: PathBuf,
        /// Which signal.
        signal: i32,
    },
    /// It succeeded, with an answer that makes no sense.
    #[error("{} gave an answer that can't be understood: {what}", program.display())]
    Answer {
        /// The program.
        program: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl ToolError {
    /// Why a driver that needs the program can't be used, and what can be done instead of installing it.
    pub(super) fn unusable(&self, instead: &str) -> Unusable {
        match self {
            ToolError::Missing { .. } => Unusable(format!("{self} or {instead}")),
            _ => Unusable(self.to_string()),
        }
    }
}

/// A program and what to do where it is missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tool<'a> {
    pub(super) program: &'a Path,
    pub(super) advice: &'static str,
}

impl Tool<'_> {
    /// Runs it to its end, however it ends of itself.
    pub(super) fn output(&self, arguments: impl FnOnce(&mut Command)) -> Result<Output, ToolError> {
        let mut command = Command::new(self.program);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        arguments(&mut command);
        let program = || self.program.to_owned();
        let output = command.output().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ToolError::Missing { program: program(), advice: self.advice },
            _ => ToolError::Start { program: program(), source },
        })?;
        match output.status.signal() {
            Some(signal) => Err(ToolError::Killed { program: program(), signal }),
            None => Ok(output),
        }
    }

    /// Runs it and gives what it printed, if it succeeded.
    pub(super) fn run(&self, arguments: impl FnOnce(&mut Command)) -> Result<String, ToolError> {
        let output = self.output(arguments)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(self.failure(&output))
    }

    /// Why it failed that ended with an error.
    pub(super) fn failure(&self, output: &Output) -> ToolError {
        let (program, said) = (self.program.to_owned(), said(output));
        if said.is_empty() {
            return ToolError::Silent { program, status: output.status };
        }
        ToolError::Failed { program, said }
    }

    pub(super) fn nonsense(&self, what: impl ToString) -> ToolError {
        ToolError::Answer { program: self.program.to_owned(), what: what.to_string() }
    }
}

/// What a failing program said, on one line. Some, as qemu-io, say it where others print.
pub(super) fn said(output: &Output) -> String {
    let is_silent = output.stderr.trim_ascii().is_empty();
    let text = String::from_utf8_lossy(if is_silent { &output.stdout } else { &output.stderr });
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").chars().take(QUOTE_LEN).collect()
}
