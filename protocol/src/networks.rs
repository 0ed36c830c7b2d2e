//! The networks that hosts of a cluster are in: what others say is elsewhere is not dialled.
//!
//! Addresses of the settings (trackers, static peers) are the administrator's word and dialled wherever they are.

use core::net::{IpAddr, Ipv4Addr};
use core::str::FromStr;

use serde::Serialize;

/// A list of networks; none stands for all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Networks(Vec<Network>);

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    base: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network; write it like 10.7.0.0/16 or fd00::/8")]
pub struct ParseNetworkError(String);

impl Networks {
    /// Those that belong to nobody in the public Internet: private, link-local and loopback addresses.
    pub fn private() -> Self {
        let list = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"];
        list.into_iter()
            .chain(["fc00::/7", "fe80::/10", "::1/128"])
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .expect("constants")
    }

    /// Whether an address is in one of them.
    pub fn contain(&self, ip: IpAddr) -> bool {
        self.0.is_empty() || self.0.iter().any(|network| network.contains(ip.to_canonical()))
    }

    /// Those of IPv4: an address in each, and how many of its first bits count.
    pub fn v4(&self) -> impl Iterator<Item = (Ipv4Addr, u8)> {
        self.0.iter().filter_map(|network| match network.base {
            IpAddr::V4(base) => Some((base, network.bits)),
            IpAddr::V6(_) => None,
        })
    }

    /// Each as it is written in settings.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|network| format!("{}/{}", network.base, network.bits))
    }

    /// Whether no network is named, which stands for all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Networks> for Networks {
    fn from_iter<I: IntoIterator<Item = Networks>>(lists: I) -> Self {
        Networks(lists.into_iter().flat_map(|list| list.0).collect())
    }
}

impl FromStr for Networks {
    type Err = ParseNetworkError;
    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let network = || {
            let (base, bits) = text.split_once('/')?;
            let (base, bits): (IpAddr, u8) = (base.parse().ok()?, bits.parse().ok()?);
            match base.to_canonical() {
                v4 @ IpAddr::V4(_) if base.is_ipv6() => {
                    let bits = bits.checked_sub(IN_V6).filter(|&bits| bits <= 32)?;
                    Some(Network { base: v4, bits })
                }
                _ => (bits <= if base.is_ipv4() { 32 } else { 128 }).then_some(Network { base, bits }),
            }
        };
        network()
            .map(|network| Networks(vec![network]))
            .ok_or_else(|| ParseNetworkError(text.chars().take(60).collect()))
    }
}

/// The bits before an address of IPv4 that is written as one of IPv6.
const IN_V6: u8 = 96;

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        let (base, ip, len) = match (self.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => (u128::from(base.to_bits()), u128::from(ip.to_bits()), 32),
            (IpAddr::V6(base), IpAddr::V6(ip)) => (base.to_bits(), ip.to_bits(), 128),
            _ => return false,
        };
        // A network of 0 bits has everything in it; a shift by all bits would be an overflow.
        (base ^ ip).checked_shr(len - u32::from(self.bits)).unwrap_or(0) == 0
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}/{}", self.base, self.bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(network: &str, ip: &str) -> bool {
        network.parse::<Networks>().unwrap().contain(ip.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_a_network_by_its_first_bits() {
        for (network, inside, outside) in [
            ("10.7.0.0/16", "10.7.255.1", "10.8.0.1"),
            ("10.7.0.8/30", "10.7.0.11", "10.7.0.12"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.6"),
            ("fd00::/8", "fdff::1", "fe00::1"),
        ] {
            assert!(is_in(network, inside) && !is_in(network, outside), "{network}");
        }
        assert!(is_in("0.0.0.0/0", "8.8.8.8") && is_in("::/0", "2001:db8::1") && !is_in("0.0.0.0/0", "2001:db8::1"));
        assert!(is_in("10.0.0.0/8", "::ffff:10.1.1.1"), "IPv4 in IPv6's clothes");
        assert!(is_in("::ffff:10.0.0.0/104", "10.1.1.1") && !is_in("::ffff:10.0.0.0/104", "11.1.1.1"), "the same");
    }

    #[test]
    fn no_network_is_every_network_and_private_ones_are_none_of_the_internet() {
        assert!(Networks::default().contain("8.8.8.8".parse().unwrap()));
        let private = Networks::private();
        for (ip, inside) in [
            ("10.1.1.1", true),
            ("127.3.2.1", true),
            ("172.32.0.1", false),
            ("8.8.8.8", false),
            ("fd12::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(private.contain(ip.parse().unwrap()), inside, "{ip}");
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "ten/8", "", "10.0.0.0/-1", "::ffff:10.0.0.0/8"] {
            assert!(text.parse::<Networks>().unwrap_err().to_string().contains("10.7.0.0/16"), "{text}");
        }
    }
}
