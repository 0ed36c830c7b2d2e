//! How many connections one address may open: else one machine with many certificates, or none, would take every place that
//! an endpoint has.
//!
//! An address counts once it has shown that it is its own. Loopback addresses are free: fleets on one machine are for trying.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The share of an endpoint's places that one address may take is one in this many.
pub(crate) const SHARE: usize = 4;

/// What each address has.
#[derive(Debug)]
pub(crate) struct Crowd {
    most: usize,
    places: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A place that an address has until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Option<(Arc<Crowd>, IpAddr)>);

impl Crowd {
    /// Of an endpoint with this many places.
    pub(crate) fn of(places: usize) -> Arc<Self> {
        Arc::new(Crowd { most: (places / SHARE).max(1), places: Mutex::default() })
    }

    /// The most places that one address has.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Whether an address has no place left.
    pub(crate) fn is_full(&self, addr: IpAddr) -> bool {
        counted(addr).is_some_and(|addr| self.places().get(&addr).is_some_and(|&taken| taken >= self.most))
    }

    /// A place for an address, if it has one left.
    pub(crate) fn enter(self: &Arc<Self>, addr: IpAddr) -> Option<Place> {
        let Some(addr) = counted(addr) else { return Some(Place(None)) };
        let mut places = self.places();
        let taken = places.entry(addr).or_default();
        if *taken >= self.most {
            return None;
        }
        *taken += 1;
        Some(Place(Some((self.clone(), addr))))
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((crowd, addr)) = self.0.take() else { return };
        let mut places = crowd.places();
        if let Some(taken) = places.get_mut(&addr) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&addr);
            }
        }
    }
}

/// What an address is counted as: of IPv6 the network, which is the least that one machine is given. `None` if it is free.
fn counted(addr: IpAddr) -> Option<IpAddr> {
    match addr.to_canonical() {
        addr if addr.is_loopback() => None,
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into()),
        addr => Some(addr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_gets_its_share_and_no_more_until_it_gives_some_back() {
        let crowd = Crowd::of(8);
        let first = crowd.enter(ip("10.0.0.1")).expect("a place");
        let _second = crowd.enter(ip("::ffff:10.0.0.1")).expect("the same address in other clothes");
        assert!(crowd.is_full(ip("10.0.0.1")) && crowd.enter(ip("10.0.0.1")).is_none());
        assert!(crowd.enter(ip("10.0.0.2")).is_some(), "another address has places of its own");
        drop(first);
        assert!(crowd.enter(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_and_loopback_is_free() {
        let crowd = Crowd::of(4);
        let _first = crowd.enter(ip("2001:db8::1")).expect("a place");
        assert!(crowd.enter(ip("2001:db8::2")).is_none());
        assert!(crowd.enter(ip("2001:db8:0:1::2")).is_some());
        let local: Vec<_> = (0..9).map(|_| crowd.enter(ip("127.0.0.1")).expect("free")).collect();
        drop(local);
        assert_eq!(crowd.places().len(), 1, "what is given back is forgotten");
    }
}
