//! A node's socket, which is the crate's and which the crate does not give out.
//!
//! It is found among this process's own by its address, and duplicated by `pidfd_getfd`, which may be forbidden.

use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{OwnedFd, RawFd};
use std::{fs, io};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The UDP socket of this process that is bound to `listen`.
pub(super) fn at(listen: SocketAddrV4) -> io::Result<UdpSocket> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // Asked for by its link, for a duplicate of a file with locks would give them up when it is closed.
        let is_socket = fs::read_link(format!("/proc/self/fd/{number}"))
            .is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        if !is_socket {
            continue;
        }
        let socket: OwnedFd = pidfd_getfd(&own, number, PidfdGetfdFlags::empty())?;
        let is_udp = socket2::SockRef::from(&socket).r#type().is_ok_and(|kind| kind == socket2::Type::DGRAM);
        let socket = UdpSocket::from(socket);
        if is_udp && socket.local_addr().is_ok_and(|addr| addr == listen.into()) {
            return Ok(socket);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the node's socket is not among those of this process"))
}
