//! How often a node wakes up.
//!
//! The crate's thread waits for a datagram for 50 ms at most, and looks at its time-outs and commands whenever that
//! wait has ended: twenty times a second also when nothing happens, which cost an idle daemon as much CPU as all else that
//! it does. The wait is a property of the socket, so it is set from here; a command's datagram to the node itself, which it
//! takes for rubbish, ends a long one. Nothing that the node does by itself is in a hurry: it pings nodes that it has not
//! heard of for minutes.
//!
//! Without the socket (see [`socket`](super::socket)) the node is as it was, at its price.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// The wait. What was to end one and got lost is seen at its end.
const WAIT: Duration = Duration::from_secs(2);

/// The pace of one node; clones are the same node's.
#[derive(Clone, Debug)]
pub(super) struct Pace(Option<Arc<Waits>>);

#[derive(Debug)]
struct Waits {
    /// The node's own socket.
    socket: UdpSocket,
    /// Where a datagram to the node itself goes.
    node: SocketAddrV4,
}

impl Pace {
    /// Of the node that listens on `listen` with this socket.
    pub(super) fn of(listen: SocketAddrV4, socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(WAIT)).expect("a wait that is not zero, on a socket that is open");
        let node = SocketAddrV4::new(waker(listen), listen.port());
        Pace(Some(Arc::new(Waits { socket, node })))
    }

    /// The crate's own, twenty times a second.
    pub(super) fn of_the_crate() -> Self {
        Pace(None)
    }

    /// Sends a packet from the node's socket, if that can be had; lost, it is sent again another time.
    pub(super) fn send(&self, packet: &[u8], to: SocketAddrV4) {
        if let Some(waits) = &self.0 {
            let _ = waits.socket.send_to(packet, to);
        }
    }

    /// Ends the wait that the node may be in; to be called when it has been told what to do.
    pub(super) fn wake(&self) {
        if let Some(waits) = &self.0 {
            waits.wake();
        }
    }
}

impl Waits {
    fn wake(&self) {
        let _ = self.socket.send_to(&[], self.node);
    }
}

impl Drop for Waits {
    /// Lets the node see that nobody is left to tell it anything, so that it gives up its port.
    fn drop(&mut self) {
        self.wake();
    }
}

/// Where what wakes the node that listens on `listen` comes from, and goes to.
pub(super) fn waker(listen: SocketAddrV4) -> Ipv4Addr {
    if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST } else { *listen.ip() }
}
