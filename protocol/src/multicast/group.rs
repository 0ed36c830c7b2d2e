//! Group and port of a session: derived from its id, within a range that the administrator sets.
//!
//! So sessions of one range seldom meet, and nobody has to hand out addresses. By default groups are in 239.255/16, the
//! scope that routers keep within a site (RFC 2365). Groups whose Ethernet address is that of a well-known one (x.0.0.y and
//! x.128.0.y share theirs with 224.0.0.y) are never taken: switches flood those.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;

use super::packet::SessionId;

/// Groups and ports that sessions may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupRange {
    family: Family,
    ports: RangeInclusive<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Family {
    V4 {
        base: Ipv4Addr,
        prefix_len: u32,
    },
    /// ff15::/16: transient, of a site, with 32 bits of group id (RFC 3307).
    V6,
}

/// Why a range can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupRangeError {
    /// Not within 239/8 (a site's own groups) or 232/8 (groups of one source), or not between 2^8 and 2^24 groups.
    #[error("{base}/{prefix_len} is no range of groups: it must lie in 239.0.0.0/8 or 232.0.0.0/8, from /8 to /24")]
    Groups {
        /// First address.
        base: Ipv4Addr,
        /// Bits that are given.
        prefix_len: u32,
    },
    /// No ports, or well-known ones.
    #[error("{first} to {last} is no range of ports: it must rise and begin at 1024 or above")]
    Ports {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// All groups of the range have Ethernet addresses of well-known groups.
    #[error("all groups of {0}/24 share their Ethernet addresses with well-known ones")]
    WellKnown(Ipv4Addr),
}

impl Default for GroupRange {
    /// 239.255.0.0/16.
    fn default() -> Self {
        GroupRange { family: Family::V4 { base: Ipv4Addr::new(239, 255, 0, 0), prefix_len: 16 }, ports: Self::PORTS }
    }
}

/// Without the ports.
impl core::fmt::Display for GroupRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.family {
            Family::V4 { base, prefix_len } => write!(f, "{base}/{prefix_len}"),
            Family::V6 => f.write_str("ff15::/16"),
        }
    }
}

impl GroupRange {
    /// Ports 49152 to 65535, which no service is registered for.
    pub const PORTS: RangeInclusive<u16> = 49152..=65535;

    /// The groups of `base`/`prefix_len` and these ports.
    pub fn v4(base: Ipv4Addr, prefix_len: u32, ports: RangeInclusive<u16>) -> Result<Self, GroupRangeError> {
        if !matches!(base.octets()[0], 232 | 239) || !(8..=24).contains(&prefix_len) {
            return Err(GroupRangeError::Groups { base, prefix_len });
        }
        let base = Ipv4Addr::from_bits(base.to_bits() & (u32::MAX << (32 - prefix_len)));
        if prefix_len == 24 && is_well_known(base) {
            return Err(GroupRangeError::WellKnown(base));
        }
        check_ports(&ports)?;
        Ok(GroupRange { family: Family::V4 { base, prefix_len }, ports })
    }

    /// The groups of ff15::/16 and these ports.
    pub fn v6(ports: RangeInclusive<u16>) -> Result<Self, GroupRangeError> {
        check_ports(&ports)?;
        Ok(GroupRange { family: Family::V6, ports })
    }

    /// Group and port of a session.
    pub fn of(&self, session: SessionId) -> SocketAddr {
        let mut draws = draws(session);
        let mut draw = || draws.next().expect("there is no end of draws");
        let group = match self.family {
            Family::V4 { base, prefix_len } => IpAddr::V4(loop {
                // At most half of a range that was let in is well-known, so this ends soon.
                let group = Ipv4Addr::from_bits(base.to_bits() | (draw() & (u32::MAX >> prefix_len)));
                if !is_well_known(group) {
                    break group;
                }
            }),
            // RFC 3307 leaves ids from 0x80000000 on to whoever draws them.
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits((0xff15 << 112) | u128::from(draw() | 1 << 31))),
        };
        let ports = u32::from(self.ports.end() - self.ports.start()) + 1;
        SocketAddr::new(group, self.ports.start() + (draw() % ports) as u16)
    }
}

fn check_ports(ports: &RangeInclusive<u16>) -> Result<(), GroupRangeError> {
    let (&first, &last) = (ports.start(), ports.end());
    if first >= 1024 && first <= last { Ok(()) } else { Err(GroupRangeError::Ports { first, last }) }
}

/// Of a group's address 23 bits go into its Ethernet address.
fn is_well_known(group: Ipv4Addr) -> bool {
    group.to_bits() & 0x007f_ff00 == 0
}

/// Numbers that only the session decides: BLAKE3 as a stream.
fn draws(session: SessionId) -> impl Iterator<Item = u32> {
    let mut hasher = blake3::Hasher::new_derive_key("drover multicast group v1");
    hasher.update(&session.0.to_le_bytes());
    let mut stream = hasher.finalize_xof();
    core::iter::repeat_with(move || {
        let mut bytes = [0; 4];
        stream.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_its_group_in_the_range_and_always_the_same() {
        let range = GroupRange::v4(Ipv4Addr::new(239, 1, 7, 0), 23, 5000..=5003).unwrap();
        for id in 0..1000 {
            let group = range.of(SessionId(id));
            assert_eq!(group, range.of(SessionId(id)));
            assert!((5000..=5003).contains(&group.port()), "{group}");
            let IpAddr::V4(ip) = group.ip() else { panic!("{group} is of IPv4") };
            assert!(matches!(ip.octets(), [239, 1, 6 | 7, _]), "{group}");
        }
        assert_ne!(GroupRange::default().of(SessionId(1)), GroupRange::default().of(SessionId(2)));
    }

    #[test]
    fn groups_that_switches_flood_are_never_taken() {
        let range = GroupRange::v4(Ipv4Addr::new(239, 128, 0, 0), 22, 5000..=5000).unwrap();
        for id in 0..1000 {
            let IpAddr::V4(ip) = range.of(SessionId(id)).ip() else { panic!("it is of IPv4") };
            assert!(matches!(ip.octets(), [239, 128, 1..=3, _]), "{ip}");
        }
    }

    #[test]
    fn groups_of_ipv6_are_transient_and_of_the_site() {
        let group = GroupRange::v6(5000..=5000).unwrap().of(SessionId(9));
        assert!(group.to_string().starts_with("[ff15::"), "{group}");
    }

    #[test]
    fn ranges_that_are_nobodys_to_use_are_refused() {
        let v4 = |base: [u8; 4], len, ports| GroupRange::v4(base.into(), len, ports);
        assert!(matches!(v4([224, 0, 0, 0], 24, 5000..=5001), Err(GroupRangeError::Groups { .. })));
        assert!(matches!(v4([239, 1, 2, 3], 32, 5000..=5001), Err(GroupRangeError::Groups { .. })));
        assert!(matches!(v4([239, 0, 0, 0], 24, 5000..=5001), Err(GroupRangeError::WellKnown(_))));
        assert!(matches!(v4([239, 255, 0, 0], 16, 80..=90), Err(GroupRangeError::Ports { .. })));
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
        let reversed = 5001..=5000;
        assert!(matches!(GroupRange::v6(reversed), Err(GroupRangeError::Ports { .. })));
    }
}
