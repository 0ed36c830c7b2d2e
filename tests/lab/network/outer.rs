//! The namespaces around the whole lab.
//!
//! The lab starts itself again under `unshare`, with networks, mounts and processes of its own. The kernel ends every
//! process in there as soon as the inner lab is gone, and the inner lab as soon as the outer one is (also by SIGKILL), so no
//! rival's daemon survives a run that was broken off.

use std::path::Path;
use std::process::{Command, ExitCode};

use super::NetworkError;

/// Set for the inner program. Not named like a setting of Drover, which reads its own from the environment.
const INSIDE: &str = "LAB_IS_INSIDE";

/// Whether this process is the inner one.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again, with the same arguments, inside namespaces of its own. Needs root.
pub(crate) fn enter() -> Result<ExitCode, NetworkError> {
    let unable = |cause| NetworkError::Tool { tool: "unshare".to_owned(), cause };
    let program = std::env::current_exe().map_err(unable)?;
    let mut inner = Command::new("setpriv");
    inner.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--mount", "--propagation", "private"]);
    inner.args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]);
    inner.arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    let status = inner.status().map_err(unable)?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Prepares the namespaces that this process was started in: names of network namespaces are private from here on.
pub(crate) fn settle() -> Result<(), NetworkError> {
    let names = Path::new("/run/netns");
    std::fs::create_dir_all(names)
        .map_err(|cause| NetworkError::Tool { tool: format!("mkdir {}", names.display()), cause })?;
    super::build::tool(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(names))?;
    super::build::tool(Command::new("ip").args(["link", "set", "lo", "up"])).map(drop)
}
