//! Which packets come to a node: questions with the cluster's pass, from its networks and from the nodes that it begins with.
//!
//! The crate asks its filter before it answers a request, but has by then taken the sender into its table, as many of one
//! machine as it says that it is, and tells others of them, who send them packets; and the address of a sender can be
//! forged. So the kernel drops what comes from elsewhere and what has no pass, by a program of classic BPF on the node's
//! socket. Answers to the crate's pings are dropped so, too, which it makes nothing of.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use drover_protocol::krpc::ASKER_AT;
use drover_protocol::lookup::PASS_LEN;
use drover_protocol::networks::Networks;
use socket2::{SockFilter, SockRef};

/// Lets in what has this pass and comes from these networks and addresses, and what wakes the node, which is bound to `own`.
pub(super) fn raise(
    socket: &UdpSocket,
    own: Ipv4Addr,
    pass: [u8; PASS_LEN],
    networks: &Networks,
    others: &[Ipv4Addr],
) -> io::Result<()> {
    let program = program(own, pass, networks, others);
    if program.len() > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there are too many networks"));
    }
    SockRef::from(socket).attach_filter(&program)
}

fn program(own: Ipv4Addr, pass: [u8; PASS_LEN], networks: &Networks, others: &[Ipv4Addr]) -> Vec<SockFilter> {
    let (first, second) = pass.split_at(4);
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("half a pass"));
    let mut program = vec![
        // An empty datagram from this node itself says nothing but that it should look.
        step(LOAD_HALF, UDP_LEN_AT),
        unless(EMPTY_UDP_LEN, 3),
        step(LOAD, SOURCE_AT),
        unless(own.to_bits(), 1),
        step(RETURN, WHOLE),
        step(LOAD, PASS_AT),
        only_if(word(first)),
        step(RETURN, NOTHING),
        step(LOAD, PASS_AT + 4),
        only_if(word(second)),
        step(RETURN, NOTHING),
    ];
    if networks.is_empty() {
        program.push(step(RETURN, WHOLE));
        return program;
    }
    program.extend([step(LOAD, SOURCE_AT), step(STORE_IN_X, 0)]);
    for (base, bits) in networks.v4().chain(others.iter().map(|&ip| (ip, 32))) {
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let network = base.to_bits() & mask;
        program.extend([step(LOAD_FROM_X, 0), step(AND, mask), unless(network, 1), step(RETURN, WHOLE)]);
    }
    program.push(step(RETURN, NOTHING));
    program
}

const fn step(code: u16, value: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, value)
}

/// Skips so many steps unless what was loaded is `value`.
const fn unless(value: u32, skip: u8) -> SockFilter {
    SockFilter::new(JUMP_IF_EQUAL, 0, skip, value)
}

/// Skips a step if what was loaded is `value`.
const fn only_if(value: u32) -> SockFilter {
    SockFilter::new(JUMP_IF_EQUAL, 1, 0, value)
}

// From linux/bpf_common.h and linux/filter.h.
const LOAD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_FROM_X: u16 = 0x87;
const STORE_IN_X: u16 = 0x07;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const WHOLE: u32 = u32::MAX;
const NOTHING: u32 = 0;
/// A program has no more steps.
const LONGEST: usize = 4096;
/// A packet for a UDP socket begins with the header of UDP; that of IP is counted from here.
const IP_AT: u32 = -0x10_0000_i32 as u32;
const SOURCE_AT: u32 = IP_AT + 12;
const UDP_LEN_AT: u32 = 4;
const PASS_AT: u32 = EMPTY_UDP_LEN + ASKER_AT as u32;
/// The header alone.
const EMPTY_UDP_LEN: u32 = 8;
