//! Running a program to its end and looking at what it said.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a finished program left.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Its standard output; fails unless it exited with 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Fails unless it exited with something else than 0.
    #[track_caller]
    pub fn fails(self) {
        assert_ne!(self.code, Some(0), "it should have failed: {self:#?}");
    }

    /// Its standard output as JSON; fails unless it exited with 0.
    #[track_caller]
    pub fn last_json(self) -> serde_json::Value {
        let line = self.line.clone();
        let stdout = self.ok();
        let last = stdout.lines().rev().find(|text| !text.trim().is_empty()).unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|cause| panic!("{line}: no JSON ({cause}): {stdout}"))
    }

    /// Its standard output as JSON; fails unless it exited with 0.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let line = self.line.clone();
        let stdout = self.ok();
        serde_json::from_str(&stdout).unwrap_or_else(|cause| panic!("{line}: no JSON ({cause}): {stdout}"))
    }

    /// Its standard error; fails unless it refused, that is exited with something else than 0 and without a panic,
    /// and says every one of `words` (upper and lower case are the same).
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> String {
        assert!(matches!(self.code, Some(code) if code != 0 && code != 101), "should have been refused: {self:#?}");
        let said = self.stderr.to_lowercase();
        for word in words {
            assert!(said.contains(&word.to_lowercase()), "the error does not say {word:?}: {self:#?}");
        }
        self.stderr
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    let line = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|cause| panic!("can't run {line}: {cause}"));
    Outcome {
        line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The `drover` of this build.
pub fn drover() -> Command {
    program("drover")
}

/// The `drover-tracker` of this build.
pub fn tracker_program() -> Command {
    program("drover-tracker")
}

/// A program of this build, with no settings of the caller's environment.
pub fn program(name: &str) -> Command {
    let path = path_of(name)
        .unwrap_or_else(|| panic!("{name} is not built: run `cargo build --workspace` in the same profile first"));
    let mut command = Command::new(&path);
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("DROVER_") && key != "DROVER_LOG") {
        command.env_remove(key);
    }
    command
}

/// Where a program of this build is, if it was built. Test programs lie in `target/PROFILE/deps`, others in the folder above.
pub fn path_of(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a running program has a path");
    test.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.exists())
}
