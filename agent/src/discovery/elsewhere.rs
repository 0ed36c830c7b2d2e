//! What of the settings is outside of the networks that hosts are in by these settings.
//!
//! Others pass over a host whose address is outside of their networks, and nothing that they do tells it why. So it looks
//! itself, when it starts, and says what is wrong.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};

use drover_protocol::networks::Networks;

use super::addresses;

/// What was found, once it was looked. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Elsewhere(Arc<OnceLock<Vec<String>>>);

/// What is looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Watched {
    /// Where this host listens.
    listen: IpAddr,
    networks: Networks,
    /// Whether the settings name them; else they are those that hold for the hash table alone.
    are_named: bool,
}

impl Elsewhere {
    /// Looks, and warns in the log. `named` are trackers and static peers of the settings.
    pub(crate) async fn look(self, watched: Watched, named: (Vec<String>, Vec<String>)) {
        let (trackers, peers) = (addresses(&named.0).await, addresses(&named.1).await);
        let found = watched.warnings(&trackers, &peers);
        found.iter().for_each(|warning| tracing::warn!("{warning}"));
        let _ = self.0.set(found);
    }

    pub(crate) fn show(&self) -> Vec<String> {
        self.0.get().cloned().unwrap_or_default()
    }
}

impl Watched {
    /// Of a host that listens there, with these networks and those of the hash table, if it takes part in it. `None` if
    /// there are none to be outside of.
    pub(crate) fn of(listen: IpAddr, networks: &Networks, of_table: Option<&Networks>) -> Option<Self> {
        let are_named = !networks.is_empty();
        let networks = if are_named { networks } else { of_table? };
        Some(Watched { listen, networks: networks.clone(), are_named })
    }

    /// What is outside, what follows and what to do.
    pub(crate) fn warnings(&self, trackers: &[SocketAddr], peers: &[SocketAddr]) -> Vec<String> {
        let own = self.own(trackers.iter().chain(peers));
        let own = own.into_iter().filter(|&ip| self.is_outside(ip)).map(|ip| {
            let follows = match self.are_named {
                true => "hosts with the same networks do not dial it when they are told of it, and it has no part in the DHT",
                false => "it has no part in the DHT",
            };
            format!("this host's own address {ip} is {}: {follows}; {TODO}", self.outside())
        });
        let peers = peers.iter().filter(|peer| self.is_outside(peer.ip())).map(|peer| {
            format!("the static peer {peer} is {}: nobody is led to it but by such a setting; {TODO}", self.outside())
        });
        own.chain(peers).collect()
    }

    /// Where others find this host: where it listens, or else where its packets to these come from. Nothing is sent.
    fn own<'a>(&self, to: impl Iterator<Item = &'a SocketAddr>) -> BTreeSet<IpAddr> {
        if !self.listen.is_unspecified() {
            return BTreeSet::from([self.listen.to_canonical()]);
        }
        // What is on this machine is no way to others.
        to.filter_map(|&to| source_for(to)).filter(|ip| !ip.is_loopback()).collect()
    }

    /// The hash table is for IPv4 alone.
    fn is_outside(&self, ip: IpAddr) -> bool {
        let matters = self.are_named || ip.to_canonical().is_ipv4();
        matters && !self.networks.contain(ip)
    }

    fn outside(&self) -> String {
        match self.are_named {
            true => format!("outside of networks ({})", self.networks.texts().collect::<Vec<_>>().join(", ")),
            false => "not private, and networks is not set".to_owned(),
        }
    }
}

const TODO: &str = "name its network in networks, in the settings of all hosts and in tracker.toml";

fn source_for(to: SocketAddr) -> Option<IpAddr> {
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(listen: &str, networks: &str, of_table: Option<&Networks>, peers: &[&str]) -> Vec<String> {
        let networks: Networks =
            networks.split_whitespace().map(|text| text.parse::<Networks>().expect("a network")).collect();
        let peers: Vec<SocketAddr> = peers.iter().map(|peer| peer.parse().expect("an address")).collect();
        let watched = Watched::of(listen.parse().expect("an address"), &networks, of_table);
        watched.map(|watched| watched.warnings(&[], &peers)).unwrap_or_default()
    }

    #[test]
    fn an_own_address_outside_of_the_networks_is_named_with_them_and_with_what_to_do() {
        let warned = warnings("192.0.2.5", "10.7.0.0/16 fd00::/8", None, &[]);
        assert_eq!(warned.len(), 1);
        for part in ["192.0.2.5", "10.7.0.0/16, fd00::/8", "do not dial it", "tracker.toml"] {
            assert!(warned[0].contains(part), "{part} is missing in {warned:?}");
        }
        assert_eq!(warnings("10.7.1.1", "10.7.0.0/16", None, &["10.7.1.2:7444"]), [""; 0]);
        assert_eq!(warnings("192.0.2.5", "", None, &["192.0.2.6:7444"]), [""; 0], "every network, and no table");
    }

    #[test]
    fn without_networks_only_the_table_asks_for_private_addresses() {
        let private = Networks::private();
        let warned = warnings("192.0.2.5", "", Some(&private), &[]);
        assert!(warned.len() == 1 && warned[0].contains("networks is not set"), "{warned:?}");
        assert_eq!(warnings("10.7.1.1", "", Some(&private), &[]), [""; 0]);
        assert_eq!(warnings("2001:db8::1", "", Some(&private), &[]), [""; 0], "the table is for IPv4 alone");
    }

    #[test]
    fn a_static_peer_outside_is_named_and_so_is_what_this_host_reaches_it_by() {
        let warned = warnings("10.7.1.1", "10.7.0.0/16", None, &["10.7.1.2:7444", "192.0.2.6:7444"]);
        assert!(warned.len() == 1 && warned[0].contains("static peer 192.0.2.6:7444"), "{warned:?}");
        // Listening everywhere, it is seen where its packets come from; on the way to itself that says nothing.
        let to_itself = warnings("0.0.0.0", "10.7.0.0/16", None, &["127.0.0.1:7444"]);
        assert!(to_itself.iter().all(|warning| !warning.contains("own address")), "{to_itself:?}");
    }
}
