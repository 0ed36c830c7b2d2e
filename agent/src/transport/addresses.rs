//! Where peers may be reached: hints from trackers, other peers, the hash table, settings and connections, bounded in
//! number.
//!
//! An address is never trusted: whoever answers there has to prove by certificate that it is the peer. What dialling
//! showed outranks what anybody said: an address that was reached comes first, one that failed comes last and is left
//! alone for a while, however often it is named. When the book is full, the peer that was heard of longest ago makes
//! room. Of each address the book knows from whom it has it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use drover_protocol::id::PeerId;
use drover_protocol::message::{MAX_ADDRS, PeerAddress};
use drover_protocol::rng::Rng;
use drover_protocol::time::Instant;

use crate::discovery::source::Source;
use drover_link::networks::Networks;

/// Most peers in the book: the neighbourhoods of some hundred images.
const MOST_PEERS: usize = 4096;
/// An address that could not be reached is left alone for so long, doubled with each failure.
const BACKOFF_LEAST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(30);

/// The book.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    entries: BTreeMap<PeerId, Entry>,
    networks: Networks,
}

#[derive(Debug)]
struct Entry {
    /// The address that a connection came from or went to, last, and how it had come to be known.
    reached: Option<(SocketAddr, Source)>,
    /// What was said of it, the latest first.
    hints: Vec<Hint>,
    heard: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Hint {
    addr: SocketAddr,
    source: Source,
    failures: u32,
    /// Not to be dialled before.
    retry_at: Instant,
}

impl AddressBook {
    /// An empty book that takes in addresses of these networks.
    pub(crate) fn of(networks: Networks) -> Self {
        AddressBook { entries: BTreeMap::new(), networks }
    }

    /// Somebody said that a peer may be reached at these addresses. Who said so of an address first is what counts.
    pub(crate) fn hint(&mut self, now: Instant, peer: PeerId, addrs: &[SocketAddr], source: Source) {
        let usable = addrs.iter().copied().filter(is_dialable).filter(|addr| self.networks.contain(addr.ip()));
        let usable: Vec<SocketAddr> = usable.take(MAX_ADDRS).collect();
        if usable.is_empty() {
            return;
        }
        let entry = self.entry(now, peer);
        for addr in usable.into_iter().rev() {
            let known = entry.hints.iter().position(|known| known.addr == addr).map(|at| entry.hints.remove(at));
            let hint = known.unwrap_or(Hint { addr, source, failures: 0, retry_at: Instant::START });
            entry.hints.insert(0, hint);
        }
        entry.hints.truncate(MAX_ADDRS);
    }

    /// A connection with the peer stands, to or from this address. `told` is how the address was known, if not from the
    /// book.
    pub(crate) fn reached(&mut self, now: Instant, peer: PeerId, addr: SocketAddr, told: Option<Source>) {
        let entry = self.entry(now, peer);
        let known = entry.hints.iter_mut().find(|hint| hint.addr == addr);
        let source = told.or(known.as_ref().map(|hint| hint.source)).unwrap_or(Source::DialledHere);
        if let Some(hint) = known {
            hint.failures = 0;
        }
        // The first connection to an address is what tells how the peer was found; the next ones follow from it.
        let before = entry.reached.filter(|&(before, _)| before == addr);
        entry.reached = before.or(Some((addr, source)));
    }

    /// Nobody, or somebody else, answered for the peer at this address.
    pub(crate) fn failed(&mut self, now: Instant, peer: PeerId, addr: SocketAddr) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        if let Some((_, source)) = entry.reached.take_if(|(reached, _)| *reached == addr)
            && !entry.hints.iter().any(|hint| hint.addr == addr)
        {
            entry.hints.push(Hint { addr, source, failures: 0, retry_at: now });
            if entry.hints.len() > MAX_ADDRS {
                entry.hints.remove(0);
            }
        }
        if let Some(hint) = entry.hints.iter_mut().find(|hint| hint.addr == addr) {
            hint.retry_at = now + (BACKOFF_LEAST * 2u32.pow(hint.failures.min(10))).min(BACKOFF_MOST);
            hint.failures = hint.failures.saturating_add(1);
        }
    }

    /// Where to try now, the best first.
    pub(crate) fn addrs(&self, now: Instant, peer: PeerId) -> Vec<SocketAddr> {
        let ready = |hint: &&Hint| hint.retry_at <= now;
        self.ranked(peer, ready)
    }

    /// How the address of a peer that was reached came to be known.
    pub(crate) fn source(&self, peer: PeerId) -> Option<Source> {
        self.entries.get(&peer)?.reached.map(|(_, source)| source)
    }

    /// Who was reached at this address, last.
    pub(crate) fn peer_at(&self, addr: SocketAddr) -> Option<PeerId> {
        let is_there = |entry: &Entry| entry.reached.is_some_and(|(reached, _)| reached == addr);
        self.entries.iter().find(|(_, entry)| is_there(entry)).map(|(&peer, _)| peer)
    }

    /// What to tell another peer about this one; `None` if nothing is known.
    pub(crate) fn tell(&self, peer: PeerId) -> Option<PeerAddress> {
        let addrs = self.ranked(peer, |_| true);
        (!addrs.is_empty()).then_some(PeerAddress { peer, addrs })
    }

    /// Up to `most` peers that were reached, at random, with where.
    pub(crate) fn reachable(&self, rng: &mut Rng, most: usize) -> Vec<(PeerId, SocketAddr)> {
        let reached = |(&peer, entry): (&PeerId, &Entry)| entry.reached.map(|(addr, _)| (peer, addr));
        let mut peers: Vec<_> = self.entries.iter().filter_map(reached).collect();
        rng.shuffle(&mut peers);
        peers.truncate(most);
        peers
    }

    /// Up to `most` peers that may be dialled now, at random.
    pub(crate) fn some(&self, now: Instant, rng: &mut Rng, most: usize) -> Vec<PeerId> {
        let ready = |entry: &Entry| entry.reached.is_some() || entry.hints.iter().any(|hint| hint.retry_at <= now);
        let mut peers: Vec<PeerId> =
            self.entries.iter().filter(|(_, entry)| ready(entry)).map(|(&peer, _)| peer).collect();
        rng.shuffle(&mut peers);
        peers.truncate(most);
        peers
    }

    /// Peers in the book.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn ranked(&self, peer: PeerId, ready: impl Fn(&&Hint) -> bool) -> Vec<SocketAddr> {
        let Some(entry) = self.entries.get(&peer) else { return Vec::new() };
        let reached = entry.reached.map(|(addr, _)| addr);
        let mut hints: Vec<Hint> =
            entry.hints.iter().filter(|hint| Some(hint.addr) != reached).filter(ready).copied().collect();
        hints.sort_by_key(|hint| hint.failures);
        reached.into_iter().chain(hints.into_iter().map(|hint| hint.addr)).take(MAX_ADDRS).collect()
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

    const NOW: Instant = Instant::START;

    fn ports(book: &AddressBook, now: Instant) -> Vec<u16> {
        book.addrs(now, peer(1)).iter().map(SocketAddr::port).collect()
    }

    #[test]
    fn what_was_reached_comes_first_and_the_latest_hint_next() {
        let mut book = AddressBook::default();
        book.hint(NOW, peer(1), &[addr("10.0.0.1:1"), addr("10.0.0.1:2")], Source::Tracker);
        book.hint(NOW, peer(1), &[addr("10.0.0.1:3")], Source::Dht);
        book.reached(NOW, peer(1), addr("10.0.0.1:2"), None);
        assert_eq!(ports(&book, NOW), [2, 3, 1]);
        assert_eq!(book.source(peer(1)), Some(Source::Tracker), "as the address was learnt");
    }

    #[test]
    fn an_address_that_failed_is_left_alone_however_often_it_is_named() {
        let mut book = AddressBook::default();
        book.hint(NOW, peer(1), &[addr("10.0.0.1:1"), addr("10.0.0.1:2")], Source::Tracker);
        book.reached(NOW, peer(1), addr("10.0.0.1:1"), None);
        book.failed(NOW, peer(1), addr("10.0.0.1:1"));
        book.hint(NOW, peer(1), &[addr("10.0.0.1:1")], Source::Dht);
        assert_eq!(ports(&book, NOW), [2]);
        assert_eq!(ports(&book, NOW + BACKOFF_LEAST), [2, 1], "the one that failed comes last");
        for _ in 0..20 {
            book.failed(NOW, peer(1), addr("10.0.0.1:1"));
        }
        assert_eq!(ports(&book, NOW + BACKOFF_MOST), [2, 1], "and is tried again in the end");
    }

    #[test]
    fn who_dialled_is_known_by_that_until_somebody_has_named_it() {
        let mut book = AddressBook::default();
        book.reached(NOW, peer(1), addr("10.0.0.1:1"), None);
        assert_eq!(book.source(peer(1)), Some(Source::DialledHere));
        book.reached(NOW, peer(2), addr("10.0.0.2:1"), Some(Source::Static));
        book.reached(NOW, peer(2), addr("10.0.0.2:1"), None);
        assert_eq!(book.source(peer(2)), Some(Source::Static), "it stays the way by which it was found");
    }

    #[test]
    fn what_nobody_can_dial_is_not_kept() {
        let mut book = AddressBook::default();
        let bad = [addr("0.0.0.0:7"), addr("10.0.0.1:0"), addr("224.0.0.1:7")];
        book.hint(NOW, peer(1), &bad, Source::Tracker);
        assert_eq!((book.addrs(NOW, peer(1)), book.tell(peer(1))), (Vec::new(), None));
    }

    #[test]
    fn what_lies_outside_of_the_networks_is_not_kept() {
        let mut book = AddressBook::of("10.0.0.0/8".parse::<Networks>().unwrap());
        book.hint(NOW, peer(1), &[addr("192.0.2.1:7444"), addr("10.1.2.3:7444")], Source::PeerExchange(peer(9)));
        assert_eq!(book.addrs(NOW, peer(1)), [addr("10.1.2.3:7444")]);
    }

    #[test]
    fn the_book_stays_within_its_bound_and_keeps_who_was_reached() {
        let mut book = AddressBook::default();
        book.reached(NOW, peer(0), addr("10.0.0.1:1"), None);
        for number in 1..MOST_PEERS as u32 + 100 {
            let now = Instant::from_millis(u64::from(number));
            book.hint(now, peer(number), &vec![addr("10.0.0.2:1"); 3 * MAX_ADDRS], Source::Tracker);
        }
        assert_eq!(book.entries.len(), MOST_PEERS);
        assert!(!book.addrs(NOW, peer(0)).is_empty());
        assert!(book.addrs(NOW, peer(1)).is_empty());
        let mut rng = Rng::seeded(1);
        assert_eq!(book.reachable(&mut rng, 9), [(peer(0), addr("10.0.0.1:1"))]);
        assert_eq!(book.some(NOW, &mut rng, 7).len(), 7);
    }
}
