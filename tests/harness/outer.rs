//! Namespaces around a whole program that makes networks.
//!
//! The program starts itself again under `unshare`, with networks, mounts and processes of its own. The kernel ends every
//! process in there as soon as the inner program is gone, and the inner one as soon as the outer one is (also by SIGKILL),
//! so nothing survives a run that was broken off, and nothing leaves the machine.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// Set for the inner program. Not named like a setting of Drover, which reads its own from the environment.
const INSIDE: &str = "HARNESS_IS_INSIDE";

/// Whether this process is the inner one.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again, with these arguments, inside namespaces of its own, and waits for its end. Needs root.
pub fn enter(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<ExitStatus> {
    let mut inner = Command::new("setpriv");
    inner.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--mount", "--propagation", "private"]);
    inner.args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]);
    inner.arg(std::env::current_exe()?).args(arguments).env(INSIDE, "1").status()
}

/// Prepares the namespaces that this process was started in: names of network namespaces are private from here on.
pub fn settle() -> io::Result<()> {
    let names = Path::new("/run/netns");
    std::fs::create_dir_all(names)?;
    done(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(names))?;
    done(Command::new("ip").args(["link", "set", "lo", "up"]))
}

/// For tests: whether this process is the inner one. If not, the test of this name has been run inside, and has passed.
#[track_caller]
pub fn runs_inside(test: &str) -> bool {
    if is_inside() {
        settle().expect("root may prepare its own namespaces");
        return true;
    }
    let status = enter(["--exact", test, "--nocapture"]).expect("util-linux has setpriv and unshare");
    assert!(status.success(), "{test} failed inside namespaces of its own; what it said stands above");
    false
}

fn done(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
