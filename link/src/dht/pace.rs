//! How often a node wakes up.
//!
//! The crate's thread waits for a datagram for 50 ms at most, and looks at its requests, time-outs and commands whenever that
//! wait has ended: twenty times a second also when nothing happens, which cost an idle daemon as much CPU as all else that
//! it does. The wait is a property of the socket, so it is set from here: long while nothing is under way, short
//! while something is, and a command's datagram to the node itself, which it takes for rubbish, ends a long one.
//!
//! Without the socket (see [`socket`](super::socket)) the node is as it was, at its price.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// Of the node that listens on `listen` with this socket.
    pub(super) fn of(listen: SocketAddrV4, socket: UdpSocket) -> Self {
        let node = SocketAddrV4::new(waker(listen), listen.port());
        let waits = Waits { socket, node, under_way: Mutex::new(0) };
        waits.wait_for(LONG);
        Pace(Some(Arc::new(waits)))
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

/// Where what wakes the node that listens on `listen` comes from, and goes to.
pub(super) fn waker(listen: SocketAddrV4) -> Ipv4Addr {
    if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST } else { *listen.ip() }
}
