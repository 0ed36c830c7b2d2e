//! Where peers may be reached: hints from trackers, other peers and connections, bounded in number.
//!
//! An address is never trusted: whoever answers there has to prove by certificate that it is the peer. An address that
//! was reached outranks every hint. When the book is full, the peer that was heard of longest ago makes room.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use drover_protocol::id::PeerId;
use drover_protocol::message::{MAX_ADDRS, PeerAddress};
use drover_protocol::time::Instant;

/// Most peers in the book: the neighbourhoods of some hundred images.
const MOST_PEERS: usize = 4096;

/// The book.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    entries: BTreeMap<PeerId, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The address that a connection came from or went to, last.
    reached: Option<SocketAddr>,
    /// What was said of it, the latest first.
    hints: Vec<SocketAddr>,
    heard: Instant,
}

impl AddressBook {
    /// Somebody said that a peer may be reached at these addresses.
    pub(crate) fn hint(&mut self, now: Instant, peer: PeerId, addrs: &[SocketAddr]) {
        let mut usable = addrs.iter().copied().filter(is_dialable).take(MAX_ADDRS).peekable();
        if usable.peek().is_none() {
            return;
        }
        let entry = self.entry(now, peer);
        for addr in usable.collect::<Vec<_>>().into_iter().rev() {
            entry.hints.retain(|&known| known != addr);
            entry.hints.insert(0, addr);
        }
        entry.hints.truncate(MAX_ADDRS);
    }

    /// A connection with the peer stands, to this address.
    pub(crate) fn reached(&mut self, now: Instant, peer: PeerId, addr: SocketAddr) {
        self.entry(now, peer).reached = Some(addr);
    }

    /// No connection could be made to the address where the peer was last.
    pub(crate) fn not_reached(&mut self, peer: PeerId) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.reached = None;
        }
    }

    /// Where to try, the best first.
    pub(crate) fn addrs(&self, peer: PeerId) -> Vec<SocketAddr> {
        let Some(entry) = self.entries.get(&peer) else { return Vec::new() };
        let hints = entry.hints.iter().copied().filter(|&addr| Some(addr) != entry.reached);
        entry.reached.into_iter().chain(hints).take(MAX_ADDRS).collect()
    }

    /// What to tell another peer about this one; `None` if nothing is known.
    pub(crate) fn tell(&self, peer: PeerId) -> Option<PeerAddress> {
        let addrs = self.addrs(peer);
        (!addrs.is_empty()).then_some(PeerAddress { peer, addrs })
    }

    fn entry(&mut self, now: Instant, peer: PeerId) -> &mut Entry {
        if self.entries.len() >= MOST_PEERS && !self.entries.contains_key(&peer) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| (entry.reached.is_some(), entry.heard));
            if let Some((&oldest, _)) = oldest {
                self.entries.remove(&oldest);
            }
        }
        let entry = self.entries.entry(peer).or_insert(Entry { reached: None, hints: Vec::new(), heard: now });
        entry.heard = now;
        entry
    }
}

fn is_dialable(addr: &SocketAddr) -> bool {
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_reached_comes_first_and_the_latest_hint_next() {
        let mut book = AddressBook::default();
        book.hint(Instant::START, peer(1), &[addr("10.0.0.1:1"), addr("10.0.0.1:2")]);
        book.hint(Instant::START, peer(1), &[addr("10.0.0.1:3")]);
        book.reached(Instant::START, peer(1), addr("10.0.0.1:2"));
        let ports: Vec<_> = book.addrs(peer(1)).iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [2, 3, 1]);
        book.not_reached(peer(1));
        let ports: Vec<_> = book.addrs(peer(1)).iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [3, 1, 2]);
    }

    #[test]
    fn what_nobody_can_dial_is_not_kept() {
        let mut book = AddressBook::default();
        book.hint(Instant::START, peer(1), &[addr("0.0.0.0:7"), addr("10.0.0.1:0"), addr("224.0.0.1:7")]);
        assert_eq!((book.addrs(peer(1)), book.tell(peer(1))), (Vec::new(), None));
    }

    #[test]
    fn the_book_stays_within_its_bound_and_keeps_who_was_reached() {
        let mut book = AddressBook::default();
        book.reached(Instant::START, peer(0), addr("10.0.0.1:1"));
        for number in 1..MOST_PEERS as u32 + 100 {
            let now = Instant::from_millis(u64::from(number));
            book.hint(now, peer(number), &vec![addr("10.0.0.2:1"); 3 * MAX_ADDRS]);
        }
        assert_eq!(book.entries.len(), MOST_PEERS);
        assert!(!book.addrs(peer(0)).is_empty());
        assert!(book.addrs(peer(1)).is_empty());
    }
}
