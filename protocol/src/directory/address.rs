//! Which of the addresses that a host announces are worth handing out.
//!
//! A host may say anything; what others get is a hint that mutual TLS checks. Still, a list of addresses makes a whole
//! fleet send packets there, so whatever can't be an agent is dropped: multicast and broadcast, well-known ports, and
//! addresses that mean something else on each machine or link.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::message::MAX_ADDRS;

/// Lowest port of an agent. Below are the well-known services, which an agent has no right and no reason to use, and
/// which nobody should make a fleet knock at.
pub const MIN_PORT: u16 = 1024;

/// The addresses to hand out for a host that says it listens at `announced` and whose packets come from `observed`.
pub(super) fn usable(announced: &[SocketAddr], observed: IpAddr) -> Vec<SocketAddr> {
    let observed = observed.to_canonical();
    let mut addrs: Vec<SocketAddr> = Vec::new();
    for addr in announced {
        let Some(ip) = concrete(addr.ip(), observed).filter(|&ip| is_unicast(ip)) else { continue };
        let addr = SocketAddr::new(ip, addr.port());
        // Who speaks to us from elsewhere is not on this machine, whatever it says.
        let elsewhere = ip.is_loopback() && !observed.is_loopback();
        if addr.port() < MIN_PORT || elsewhere || addrs.contains(&addr) {
            continue;
        }
        addrs.push(addr);
        if addrs.len() == MAX_ADDRS {
            break;
        }
    }
    addrs
}

/// Those of `addrs` that `asker` can reach: addresses on this machine are for hosts on this machine.
pub(super) fn reachable_from(asker: IpAddr, addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let local = asker.to_canonical().is_loopback();
    addrs.iter().copied().filter(|addr| local || !addr.ip().is_loopback()).collect()
}

/// `announced`, or `observed` in the place of an unspecified address that takes packets to `observed`.
fn concrete(announced: IpAddr, observed: IpAddr) -> Option<IpAddr> {
    match announced.to_canonical() {
        // Whoever listens on 0.0.0.0 only does not hear IPv6. A socket on :: usually hears both.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some(observed).filter(IpAddr::is_ipv4),
        ip if ip.is_unspecified() => Some(observed),
        ip => Some(ip),
    }
}

fn is_unicast(ip: IpAddr) -> bool {
    let elsewhere_different = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local() || ip.octets()[0] == 0,
        // Without its zone, which does not travel, a link-local address can't be dialled.
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_multicast() && !ip.is_unspecified() && !elsewhere_different
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable_of(announced: &[&str], observed: &str) -> Vec<String> {
        let announced: Vec<SocketAddr> = announced.iter().map(|addr| addr.parse().unwrap()).collect();
        usable(&announced, observed.parse().unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unspecified_address_stands_for_the_observed_one() {
        assert_eq!(usable_of(&["0.0.0.0:7444"], "10.0.0.5"), ["10.0.0.5:7444"]);
        assert_eq!(usable_of(&["[::]:7444"], "10.0.0.5"), ["10.0.0.5:7444"]);
        assert_eq!(usable_of(&["[::]:7444", "0.0.0.0:7444"], "::ffff:10.0.0.5"), ["10.0.0.5:7444"]);
        assert_eq!(usable_of(&["0.0.0.0:7444", "[::]:7444"], "fd00::5"), ["[fd00::5]:7444"]);
    }

    #[test]
    fn what_can_be_no_agent_is_dropped() {
        let refused = [
            "224.0.0.1:7444",
            "255.255.255.255:7444",
            "0.1.2.3:7444",
            "169.254.1.1:7444",
            "[ff02::1]:7444",
            "[fe80::1]:7444",
            "127.0.0.1:7444",
            "[::1]:7444",
            "10.0.0.5:53",
            "0.0.0.0:0",
        ];
        assert_eq!(usable_of(&refused, "10.0.0.5"), [""; 0]);
        assert_eq!(usable_of(&["10.0.0.6:7444", "10.0.0.6:7444"], "10.0.0.5"), ["10.0.0.6:7444"]);
        assert_eq!(usable_of(&["0.0.0.0:7444"], "224.0.0.1"), [""; 0]);
    }

    #[test]
    fn a_host_has_a_bounded_number_of_addresses() {
        let many: Vec<SocketAddr> = (2000..2100).map(|port| SocketAddr::from(([10, 0, 0, 5], port))).collect();
        assert_eq!(usable(&many, IpAddr::from([10, 0, 0, 5])).len(), MAX_ADDRS);
    }

    #[test]
    fn addresses_on_this_machine_are_for_this_machine() {
        let addrs: Vec<SocketAddr> = vec!["127.0.0.2:7444".parse().unwrap(), "10.0.0.5:7444".parse().unwrap()];
        assert_eq!(usable(&addrs, "127.0.0.2".parse().unwrap()), addrs);
        assert_eq!(reachable_from("127.0.0.3".parse().unwrap(), &addrs), addrs);
        assert_eq!(reachable_from("10.0.0.9".parse().unwrap(), &addrs), addrs[1..]);
    }
}
