//! Programs of the system that rivals are made of: whether one is installed, and whether one that was started listens
//! yet, which is the only word of being ready that most of them have.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{ContenderError, Guard, poll};

/// A kind of socket that a program listens at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Socket {
    /// One that takes connections.
    Tcp,
    /// One that takes datagrams.
    Udp,
}

/// Where an installed program is.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are where only root's path leads.
    let folders = std::env::split_paths(&path).chain(SERVERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Which Debian packages are still to be installed, if any: one for each program or file that is not there.
pub(crate) fn missing_packages(needed: &[(&str, &str)]) -> Option<String> {
    let there = |what: &str| if what.starts_with('/') { Path::new(what).exists() } else { find(what).is_some() };
    let packages: Vec<&str> = needed.iter().filter(|(what, _)| !there(what)).map(|&(_, package)| package).collect();
    (!packages.is_empty()).then(|| format!("apt-get install {}", packages.join(" ")))
}

/// Waits until a process, or another in its network namespace, listens at a port.
pub(super) fn wait_to_listen(process: &mut Guard, socket: Socket, port: u16) -> Result<(), ContenderError> {
    let protocol = match socket {
        Socket::Tcp => "tcp",
        Socket::Udp => "udp",
    };
    // Who listens by IPv6 does so by IPv4, too.
    let tables = ["", "6"].map(|version| format!("/proc/{}/net/{protocol}{version}", process.pid()));
    poll(&format!("someone to listen at port {port}"), PATIENCE, || {
        process.must_run()?;
        let mut sockets = tables.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default());
        Ok(sockets.any(|sockets| listens(&sockets, socket, port)).then_some(()))
    })
}

/// Whether a table of the kernel's has such a socket. Its second column is the local address and port in hexadecimal
/// figures, its fourth the state.
fn listens(table: &str, socket: Socket, port: u16) -> bool {
    let state = match socket {
        Socket::Tcp => "0A",
        Socket::Udp => "07",
    };
    let port = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(state)
    })
}

/// Runs a command that takes moments to its successful end and gives what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String, ContenderError> {
    let done = command.output();
    let done = done.map_err(|cause| ContenderError::Start { what: format!("{command:?}"), cause })?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let last = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(ContenderError::Failed { what: format!("{command:?}"), how: done.status.to_string(), last })
}

/// Writes a file that a rival is started with.
pub(super) fn write(file: &Path, text: &str) -> Result<(), ContenderError> {
    let unable = |cause| ContenderError::File { what: format!("write {}", file.display()), cause };
    std::fs::write(file, text).map_err(unable)
}

/// Makes a folder.
pub(super) fn make_folder(folder: &Path) -> Result<(), ContenderError> {
    let unable = |cause| ContenderError::File { what: format!("make the folder {}", folder.display()), cause };
    std::fs::create_dir_all(folder).map_err(unable)
}

/// Gives a second name to a file, where a rival wants it in a folder of its own.
pub(super) fn link(file: &Path, name: &Path) -> Result<(), ContenderError> {
    let unable = |cause| ContenderError::File { what: format!("link {}", name.display()), cause };
    std::fs::hard_link(file, name).map_err(unable)
}

const SERVERS: [&str; 2] = ["/usr/sbin", "/sbin"];
/// For what takes moments on an idle machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_socket_of_the_port_counts() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 0142420A:0050 00000000:0000 0A 00000000:00000000\n\
            1: 0142420A:1F90 0242420A:0050 01 00000000:00000000\n";
        assert!(listens(table, Socket::Tcp, 80));
        assert!(!listens(table, Socket::Tcp, 8080), "it is connected");
        assert!(!listens(table, Socket::Udp, 80));
    }

    #[test]
    fn a_missing_package_is_named() {
        assert_eq!(missing_packages(&[("sh", "dash"), ("/", "base-files")]), None);
        let missing = missing_packages(&[("sh", "dash"), ("no-such-program", "thing")]);
        assert_eq!(missing.as_deref(), Some("apt-get install thing"));
    }
}
