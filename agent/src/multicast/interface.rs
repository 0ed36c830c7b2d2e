//! The network interface that multicast goes by, and what the system says of it.
//!
//! An interface is named in the settings, or found: the one that has the address this host listens on, or, if that is every address, the
//! one that the routing table has for a group. Everything is bound to it by its index, so that a second card or a tunnel can't get in
//! the way. A wireless one is never used: access points send frames to a group slowly and without acknowledgement.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;

use drover_protocol::multicast::choice::Unfit;
use drover_protocol::multicast::fec::{SYMBOL_LEN, SYMBOL_LEN_LEAST};
use drover_protocol::multicast::packet::packet_len;
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::set_ip_multicast_if_with_ifindex;

use super::MulticastSettings;

/// An interface with an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    /// Where packets that leave by it come from.
    pub(crate) address: Ipv4Addr,
    /// Bytes per second that it carries, if it knows.
    pub(crate) bytes_per_s: Option<u64>,
    /// Length of the longest packet.
    mtu: usize,
}

impl Interface {
    /// The interface that the settings name, or the one by which a host that listens at `listen` reaches `group`.
    pub(crate) fn for_group(settings: &MulticastSettings, listen: IpAddr, group: IpAddr) -> Result<Self, Unfit> {
        match group {
            IpAddr::V4(group) => Interface::find(settings.interface.as_deref(), listen, group),
            IpAddr::V6(_) => Err(Unfit::NoInterface("groups are of IPv4 only".to_owned())),
        }
    }

    /// The interface of this name, or the one by which a host that listens at `listen` reaches `group`.
    pub(super) fn find(name: Option<&str>, listen: IpAddr, group: Ipv4Addr) -> Result<Self, Unfit> {
        let found = match name {
            Some(name) => Interface::named(name, group),
            None => {
                let address = match listen {
                    IpAddr::V4(address) if !address.is_unspecified() => address,
                    _ => source_for(group, None).map_err(|error| {
                        Unfit::NoInterface(format!("the routing table has none for {group} ({error})"))
                    })?,
                };
                Interface::with_address(address)
            }
        }?;
        if is_wireless(&found.name) { Err(Unfit::Wireless(found.name)) } else { Ok(found) }
    }

    /// Length of symbols that fit its packets without being fragmented.
    pub(crate) fn symbol_len(&self) -> usize {
        let most = self.mtu.saturating_sub(IP_AND_UDP + packet_len(0));
        most.clamp(SYMBOL_LEN_LEAST, SYMBOL_LEN)
    }

    fn named(name: &str, group: Ipv4Addr) -> Result<Self, Unfit> {
        let unusable = |why: String| Unfit::NoInterface(format!("{name}: {why}"));
        let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|error| unusable(error.to_string()))?;
        let index = name_to_index(&probe, name).map_err(|error| unusable(error.to_string()))?;
        let address = source_for(group, Some(index)).map_err(|error| unusable(error.to_string()))?;
        // The system names the address of another one if this has none.
        if name_of(address, &routes()).as_deref() != Some(name) {
            return Err(unusable("it has no IPv4 address".to_owned()));
        }
        Ok(Self::with(name.to_owned(), index, address))
    }

    fn with_address(address: Ipv4Addr) -> Result<Self, Unfit> {
        let unknown = |why: String| Unfit::NoInterface(format!("none is known that has {address}{why}"));
        let name = name_of(address, &routes()).ok_or_else(|| unknown(String::new()))?;
        let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|error| unknown(format!(" ({error})")))?;
        let index = name_to_index(&probe, &name).map_err(|error| unknown(format!(" ({error})")))?;
        Ok(Self::with(name, index, address))
    }

    fn with(name: String, index: u32, address: Ipv4Addr) -> Self {
        let said = |what: &str| fs::read_to_string(folder(&name).join(what)).ok()?.trim().parse::<i64>().ok();
        // In Mbit/s; what has no speed, or does not know it yet, says so in different ways.
        let speed = said("speed").filter(|&mbit| (1..=1_000_000).contains(&mbit));
        let mtu = said("mtu").map_or(ETHERNET_MTU, |mtu| mtu as usize);
        Interface { name, index, address, bytes_per_s: speed.map(|mbit| mbit as u64 * 125_000), mtu }
    }
}

fn routes() -> String {
    fs::read_to_string("/proc/self/net/route").unwrap_or_default()
}

/// The interface in whose subnet an address of this host is: that of the closest route without a gateway.
fn name_of(address: Ipv4Addr, routes: &str) -> Option<String> {
    if address.is_loopback() {
        return Some("lo".to_owned());
    }
    // Addresses in there are in the order of bytes in memory.
    let number =
        |field: &str| u32::from_str_radix(field, 16).ok().map(|number| u32::from_be_bytes(number.to_ne_bytes()));
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (to, gateway, mask) = (number(fields.get(1)?)?, number(fields.get(2)?)?, number(fields.get(7)?)?);
        let is_direct = gateway == 0 && mask != 0 && address.to_bits() & mask == to;
        is_direct.then(|| (mask, fields[0].to_owned()))
    };
    routes.lines().skip(1).filter_map(route).max().map(|(_, name)| name)
}

/// The address that packets to `group` come from, by the interface of this index or by the routing table. Nothing is sent.
fn source_for(group: Ipv4Addr, index: Option<u32>) -> std::io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    if let Some(index) = index {
        set_ip_multicast_if_with_ifindex(&socket, &Ipv4Addr::UNSPECIFIED, &Ipv4Addr::UNSPECIFIED, index)?;
    }
    socket.connect(SocketAddr::from((group, DISCARD_PORT)))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => unreachable!("the socket was bound to an IPv4 address"),
    }
}

fn is_wireless(name: &str) -> bool {
    ["wireless", "phy80211"].iter().any(|entry| folder(name).join(entry).exists())
}

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(SYSFS).join(name)
}

const SYSFS: &str = "/sys/class/net";
const ETHERNET_MTU: usize = 1500;
const IP_AND_UDP: usize = 28;
/// Any would do.
const DISCARD_PORT: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 1, 2);

    #[test]
    fn the_interface_of_an_address_is_found_and_one_that_is_not_there_is_named() {
        let found = Interface::find(None, Ipv4Addr::LOCALHOST.into(), GROUP).unwrap();
        assert_eq!((found.name.as_str(), found.address), ("lo", Ipv4Addr::LOCALHOST));
        assert_eq!(found.symbol_len(), SYMBOL_LEN);
        let error = Interface::find(Some("no-such-0"), Ipv4Addr::LOCALHOST.into(), GROUP).unwrap_err().to_string();
        assert!(error.contains("no-such-0") && error.contains("multicast_interface"), "{error}");
    }

    #[test]
    fn an_interface_is_told_by_the_closest_direct_route() {
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n\
            eth0 0000000A 00000000 0001 0 0 0 000000FF 0 0 0\n\
            vlan7 0007000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
            eth0 000000E0 00000000 0001 0 0 0 000000F0 0 0 0\n";
        let of = |address: [u8; 4]| name_of(address.into(), routes);
        assert_eq!(of([10, 0, 7, 1]).as_deref(), Some("vlan7"));
        assert_eq!(of([10, 200, 0, 1]).as_deref(), Some("eth0"));
        assert_eq!((of([192, 168, 0, 1]), of([127, 3, 0, 1]).as_deref()), (None, Some("lo")));
    }

    #[test]
    fn symbols_fit_the_interface() {
        let of_mtu = |mtu| {
            let (name, address) = ("x".to_owned(), Ipv4Addr::LOCALHOST);
            Interface { name, index: 1, address, bytes_per_s: None, mtu }.symbol_len()
        };
        assert_eq!((of_mtu(1500), of_mtu(9000)), (SYMBOL_LEN, SYMBOL_LEN));
        assert_eq!(of_mtu(1280), 1280 - 28 - 42);
    }
}
