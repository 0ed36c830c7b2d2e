//! How often a node wakes up.
//!
//! The crate's thread waits for a datagram for 50 ms at most, and looks at its requests, time-outs and commands whenever that
//! wait has ended: twenty times a second also when nothing happens, which cost an idle daemon as much CPU as all else that
//! it does. The wait is a property of the socket, so it is set from here: long while nothing is under way, short
//! while something is, and a command's datagram to the node itself, which it takes for rubbish, ends a long one.
//!
//! The socket is the crate's, and the crate does not give it out; it is found among this process's own by its address, and
//! duplicated by `pidfd_getfd`. Where that is forbidden the node is as it was, at its price.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The wait while something is under way, which is the crate's own.
const SHORT: Duration = Duration::from_millis(50);
/// And while nothing is. Pings of nodes that are due may be so much later.
const LONG: Duration = Duration::from_secs(2);

/// The pace of one node; clones are the same node's.
#[derive(Clone, Debug)]
pub(super) struct Pace(Option<Arc<Waits>>);

#[derive(Debug)]
struct Waits {
    /// The node's own socket.
    socket: UdpSocket,
    /// Where a datagram to the node itself goes.
    node: SocketAddrV4,
    /// What is under way.
    under_way: Mutex<usize>,
}

/// Something under way: as long as it lives, the node looks often.
#[derive(Debug)]
pub(super) struct UnderWay(Option<Arc<Waits>>);

impl Pace {
    /// Of the node that listens on `listen` in this process.
    pub(super) fn of(listen: SocketAddrV4) -> Self {
        match socket_at(listen) {
            Ok(socket) => {
                let ip = if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST } else { *listen.ip() };
                let node = SocketAddrV4::new(ip, listen.port());
                let waits = Waits { socket, node, under_way: Mutex::new(0) };
                waits.wait_for(LONG);
                Pace(Some(Arc::new(waits)))
            }
            Err(error) => {
                tracing::debug!(%listen, %error, "the node of the DHT wakes up twenty times a second");
                Pace(None)
            }
        }
    }

    /// Says that something is begun, at once.
    pub(super) fn begin(&self) -> UnderWay {
        if let Some(waits) = &self.0 {
            let mut under_way = waits.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            *under_way += 1;
            if *under_way == 1 {
                waits.wait_for(SHORT);
            }
        }
        UnderWay(self.0.clone())
    }
}

impl UnderWay {
    /// Ends the wait that the node may be in; to be called when it has been told what to do.
    pub(super) fn wake(&self) {
        if let Some(waits) = &self.0 {
            waits.wake();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(waits) = &self.0 {
            let mut under_way = waits.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            *under_way -= 1;
            if *under_way == 0 {
                waits.wait_for(LONG);
            }
        }
    }
}

impl Waits {
    /// Ends the wait that the node may be in; lost, the node sees what is new at the end of it.
    fn wake(&self) {
        let _ = self.socket.send_to(&[], self.node);
    }

    fn wait_for(&self, wait: Duration) {
        self.socket.set_read_timeout(Some(wait)).expect("a wait that is not zero, on a socket that is open");
    }
}

impl Drop for Waits {
    /// Lets the node see that nobody is left to tell it anything, so that it gives up its port.
    fn drop(&mut self) {
        self.wake();
    }
}

/// The UDP socket of this process that is bound to `listen`.
fn socket_at(listen: SocketAddrV4) -> io::Result<UdpSocket> {
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
