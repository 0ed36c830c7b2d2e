//! Sockets of a session: one that sends to a group, one that hears it. Both move packets in batches (`UDP_SEGMENT`, `recvmmsg` and
//! `UDP_GRO`, by `quinn-udp`) and never fragment.
//!
//! A receiver's socket is bound to the group, not to every address, and has joined it on one interface: it hears nothing
//! else. Its buffer is to hold what comes while the thread is away; the system seldom grants what is asked, and what it grants is
//! logged. Packets that found no room in it are counted by the system (`drops` in `/proc/net/udp`): they are no loss of the network's.

use std::fs;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::sockopt::{set_ip_multicast_if_with_ifindex, set_socket_recv_buffer_size_force};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::interface::Interface;

/// Sends packets to a group.
#[derive(Debug)]
pub(crate) struct GroupSender {
    socket: Socket,
    state: UdpSocketState,
    group: SocketAddr,
}

/// Hears a group's packets.
#[derive(Debug)]
pub(crate) struct GroupReceiver {
    socket: Socket,
    state: UdpSocketState,
    group: Ipv4Addr,
    source: Ipv4Addr,
    interface: Interface,
    /// By which the system lists the socket.
    inode: u64,
    is_joined: bool,
    room: Vec<u8>,
}

impl GroupSender {
    /// A socket that sends to `group` from the interface's address. What it sends does not leave the subnet.
    pub(crate) fn open(interface: &Interface, group: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddr::from((interface.address, 0)).into())?;
        set_ip_multicast_if_with_ifindex(&socket, &Ipv4Addr::UNSPECIFIED, &Ipv4Addr::UNSPECIFIED, interface.index)?;
        socket.set_multicast_ttl_v4(1)?;
        // Hosts on this machine hear it only where everything stays on this machine.
        socket.set_multicast_loop_v4(interface.address.is_loopback())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(GroupSender { socket, state, group })
    }

    /// Sends packets of `packet_len` bytes each, as many of them as the socket takes; gives the number of bytes that it took. It takes
    /// none (`WouldBlock`) while the interface is behind.
    pub(crate) fn send(&self, packets: &[u8], packet_len: usize) -> io::Result<usize> {
        let at_once = self.state.max_gso_segments().min(SEGMENTS_MOST) * packet_len;
        let mut sent = 0;
        for batch in packets.chunks(at_once) {
            let segment_size = (batch.len() > packet_len).then_some(packet_len);
            let transmit = Transmit { destination: self.group, ecn: None, contents: batch, segment_size, src_ip: None };
            match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
                Ok(()) => sent += batch.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && sent > 0 => break,
                // The card can't cut batches: from now on there are none, and this one is lost like any other packets.
                Err(_) if segment_size.is_some() && self.state.max_gso_segments() == 1 => sent += batch.len(),
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}

impl GroupReceiver {
    /// A socket for packets that `source` sends to `group`, which it has not joined yet.
    pub(crate) fn open(interface: &Interface, group: SocketAddr, source: IpAddr) -> io::Result<Self> {
        let (IpAddr::V4(to), IpAddr::V4(source)) = (group.ip(), source) else {
            return Err(io::Error::other("this host takes part in IPv4 groups only"));
        };
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&group.into())?;
        socket.set_multicast_all_v4(false)?;
        if set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            socket.set_recv_buffer_size(BUFFER)?;
        }
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // The system counts what a packet takes, not what it holds, and says twice what it was asked for.
        let granted = socket.recv_buffer_size()?;
        tracing::info!(%group, interface = interface.name, asked = 2 * BUFFER, granted, "socket for multicast");
        Ok(GroupReceiver {
            inode: rustix::fs::fstat(&socket)?.st_ino,
            socket,
            state,
            group: to,
            source,
            interface: interface.clone(),
            is_joined: false,
            room: vec![0; ROOM_LEN * BATCH_SIZE],
        })
    }

    /// Joins the group, or joins it again: switches learn anew where it is wanted.
    pub(crate) fn join(&mut self) -> io::Result<()> {
        self.leave();
        let index = InterfaceIndexOrAddress::Index(self.interface.index);
        if is_of_one_source(self.group) {
            self.socket.join_ssm_v4(&self.source, &self.group, &self.interface.address)?;
        } else {
            self.socket.join_multicast_v4_n(&self.group, &index)?;
        }
        self.is_joined = true;
        Ok(())
    }

    /// Leaves the group.
    pub(crate) fn leave(&mut self) {
        if !std::mem::take(&mut self.is_joined) {
            return;
        }
        let index = InterfaceIndexOrAddress::Index(self.interface.index);
        let left = if is_of_one_source(self.group) {
            self.socket.leave_ssm_v4(&self.source, &self.group, &self.interface.address)
        } else {
            self.socket.leave_multicast_v4_n(&self.group, &index)
        };
        if let Err(error) = left {
            tracing::debug!(group = %self.group, %error, "can't leave a group; it ends with its socket");
        }
    }

    /// Hands every packet that has come to `take`, with the address that it comes from; `false` if there was none. At most one batch, so
    /// that whoever sends without end does not keep the caller.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(IpAddr, &mut [u8])) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices = self.room.chunks_exact_mut(ROOM_LEN).map(IoSliceMut::new);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| slices.next().expect("there is room for a whole batch"));
        let received = match self.state.recv(UdpSockRef::from(&self.socket), &mut buffers, &mut metas) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        for (meta, buffer) in metas.iter().zip(&mut buffers).take(received) {
            for packet in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                take(meta.addr.ip(), packet);
            }
        }
        Ok(received > 0)
    }

    /// Packets that found no room in the socket's buffer so far.
    pub(crate) fn dropped(&self) -> u64 {
        let sockets = fs::read_to_string("/proc/self/net/udp").unwrap_or_default();
        drops_of(&sockets, self.inode).unwrap_or(0)
    }
}

impl AsFd for GroupSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for GroupReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// 232/8 is for groups that are joined with their source (RFC 4607).
fn is_of_one_source(group: Ipv4Addr) -> bool {
    group.octets()[0] == 232
}

/// The last column of a socket's line; the tenth is its inode.
fn drops_of(sockets: &str, inode: u64) -> Option<u64> {
    let fields = sockets.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut mine = fields.filter(|fields| fields.get(9).and_then(|field| field.parse().ok()) == Some(inode));
    mine.next()?.last()?.parse().ok()
}

/// What the socket is to hold: an eighth of a second at 1 Gbit/s.
const BUFFER: usize = 16 << 20;
/// Packets of one batch: the number of blocks that are interleaved, so that a batch that gets lost costs each of them one symbol.
const SEGMENTS_MOST: usize = 16;
/// The longest packet, or the longest batch that the system makes of several.
const ROOM_LEN: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn loopback(group: Ipv4Addr) -> Interface {
        Interface::find(None, Ipv4Addr::LOCALHOST.into(), group).unwrap()
    }

    /// Sends three packets of 1,000 bytes on the loopback interface, and gives what is heard.
    fn heard(group: Ipv4Addr, port: u16, joined: bool) -> Vec<(IpAddr, Vec<u8>)> {
        let (interface, to) = (loopback(group), SocketAddr::from((group, port)));
        let mut receiver = GroupReceiver::open(&interface, to, Ipv4Addr::LOCALHOST.into()).unwrap();
        if joined {
            receiver.join().unwrap();
            receiver.join().unwrap();
        }
        let sender = GroupSender::open(&interface, to).unwrap();
        let packets: Vec<u8> = [1, 2, 3].iter().flat_map(|&byte| [byte; 1000]).collect();
        assert_eq!(sender.send(&packets, 1000).unwrap(), 3000);
        let mut heard = Vec::new();
        let until = Instant::now() + Duration::from_secs(if joined { 10 } else { 0 });
        while heard.len() < 3 {
            let any = receiver.receive(|from, packet| heard.push((from, packet.to_vec()))).unwrap();
            if !any && Instant::now() >= until {
                break;
            }
        }
        assert_eq!(receiver.dropped(), 0);
        receiver.leave();
        heard
    }

    #[test]
    fn a_group_is_heard_by_who_joined_it() {
        for (group, port) in [(Ipv4Addr::new(239, 255, 77, 1), 50_071), (Ipv4Addr::new(232, 1, 77, 1), 50_072)] {
            let packets = heard(group, port, true);
            assert_eq!(packets.len(), 3, "of {group}");
            for ((from, packet), byte) in packets.iter().zip(1..) {
                assert_eq!((*from, packet.as_slice()), (Ipv4Addr::LOCALHOST.into(), [byte; 1000].as_slice()));
            }
        }
        assert_eq!(heard(Ipv4Addr::new(239, 255, 77, 2), 50_073, false), []);
    }

    #[test]
    fn drops_are_read_from_the_line_of_the_socket() {
        let sockets = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             23: 0100007F:C350 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1234 2 0000000000000000 0\n\
             24: 0204FFEF:C351 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5678 2 0000000000000000 42\n";
        assert_eq!((drops_of(sockets, 5678), drops_of(sockets, 1)), (Some(42), None));
    }
}
