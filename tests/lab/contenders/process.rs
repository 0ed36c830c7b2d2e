//! A process that a contender started, and waiting for such.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::ContenderError;

/// A process, its children and what they print. Dropping it ends all of them, by the id of their process group.
#[derive(Debug)]
pub(crate) struct Guard {
    what: String,
    child: Child,
    log: PathBuf,
}

impl Guard {
    /// Starts `command` as the leader of a process group of its own. What it prints is appended to `log`.
    pub(crate) fn start(what: &str, command: &mut Command, log: &Path) -> Result<Self, ContenderError> {
        let unable = |cause| ContenderError::Start { what: what.to_owned(), cause };
        let out = File::options().create(true).append(true).open(log).map_err(unable)?;
        let err = out.try_clone().map_err(unable)?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command.spawn().map_err(unable)?;
        Ok(Guard { what: what.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id, which is that of its group, too.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has. An error if that was not a success.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, ContenderError> {
        match self.child.try_wait() {
            Ok(Some(status)) if !status.success() => Err(self.failed(&status.to_string())),
            Ok(ended) => Ok(ended),
            Err(cause) => Err(ContenderError::Start { what: self.what.clone(), cause }),
        }
    }

    /// An error if it does not run any more, which a server must not do, however it ended.
    pub(crate) fn must_run(&mut self) -> Result<(), ContenderError> {
        self.ended()?.map_or(Ok(()), |status| Err(self.failed(&status.to_string())))
    }

    /// Waits for its successful end.
    pub(crate) fn wait(&mut self, deadline: Duration) -> Result<(), ContenderError> {
        let what = format!("{} to end", self.what);
        poll(&what, deadline, || Ok(self.ended()?.map(drop)))
    }

    /// Asks it to end by SIGTERM; gives it the time, then ends it all the same.
    pub(crate) fn terminate(mut self, patience: Duration) {
        self.signal(Signal::TERM);
        let _ = poll(&self.what.clone(), patience, || Ok(self.child.try_wait().ok().flatten()));
    }

    /// What it printed so far.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn failed(&self, how: &str) -> ContenderError {
        let printed = self.printed();
        let lines: Vec<&str> = printed.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        ContenderError::Failed { what: self.what.clone(), how: how.to_owned(), last }
    }

    fn signal(&self, signal: Signal) {
        // Its children keep the group's id taken after the leader was waited for; and without any, ids are handed out in
        // turn, so that the next process to get this one is a long way off.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Asks `look` every few milliseconds until it gives something.
pub(crate) fn poll<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>, ContenderError>,
) -> Result<T, ContenderError> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begun.elapsed() > deadline {
            return Err(ContenderError::Deadline { what: what.to_owned(), seconds: deadline.as_secs() });
        }
        std::thread::sleep(POLL);
    }
}

/// A thousandth of what the fastest case takes.
const POLL: Duration = Duration::from_millis(5);
/// What of a failed process's output is shown.
const LAST_LINES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, folder: &tempfile::TempDir) -> Guard {
        let log = folder.path().join("log");
        Guard::start("a shell", Command::new("sh").args(["-c", script]), &log).expect("there is a shell")
    }

    #[test]
    fn dropping_it_ends_its_children_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let guard = start("sleep 1000 & echo $!; wait", &folder);
        let child = poll("the child", Duration::from_secs(20), || Ok(guard.printed().trim().parse::<u32>().ok()));
        let child = child.expect("it starts");
        drop(guard);
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
        };
        poll("the child to be gone", Duration::from_secs(20), gone).expect("it was in the group");
    }

    #[test]
    fn a_failure_shows_what_was_printed_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut guard = start("echo first; echo why >&2; exit 3", &folder);
        let error = guard.wait(Duration::from_secs(20)).expect_err("it failed").to_string();
        assert!(error.contains("a shell") && error.contains("why") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_server_must_not_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut guard = start("true", &folder);
        guard.wait(Duration::from_secs(20)).expect("it succeeds");
        assert!(guard.must_run().is_err());
    }
}
