//! Where peers may be reached: hints from trackers, other peers, the hash table, settings and connections, bounded in
//! number.
//!
//! An address is never trusted: whoever answers there has to prove by certificate that it is the peer. What dialling
//! showed outranks what anybody said: an address that was reached comes first, one that failed comes last and is left
//! alone for a while, however often it is named. Of each address the book knows from whom it has it: what different
//! sources said takes turns, and when there is no more room, it is the source that said most that gives way.

use std::collections::BTreeMap;

use core::net::SocketAddr;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::Source;
use crate::id::PeerId;
use crate::message::{MAX_ADDRS, PeerAddress};
use crate::networks::Networks;
use crate::rng::Rng;
use crate::time::Instant;

/// Most peers in the book: the neighbourhoods of some hundred images.
pub const BOOK_MOST: usize = 4096;
/// The next address of a peer is tried beside the one before after so long.
pub const DIAL_STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one peer that are tried in one dial: some may come to be known while it lasts.
const TRIED_MOST: usize = 2 * MAX_ADDRS;
/// An address that could not be reached is left alone for so long, doubled with each failure.
const BACKOFF_LEAST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(30);

/// A peer in the book, for people to see.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownHost {
    /// Who.
    pub peer: PeerId,
    /// Whether it was connected with before.
    pub met: bool,
    /// Where it may be, the best address first.
    pub addrs: Vec<KnownAddress>,
}

/// An address in the book.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownAddress {
    /// Which.
    pub addr: SocketAddr,
    /// Who told of it.
    pub found: Source,
    /// How often it was dialled in vain since it was last reached.
    pub failures: u32,
    /// In how many seconds it may be dialled again.
    pub retry_in_s: u64,
}

/// The book.
#[derive(Debug, Default)]
pub struct AddressBook {
    entries: BTreeMap<PeerId, Entry>,
    networks: Networks,
}

#[derive(Debug)]
struct Entry {
    /// The address that a connection came from or went to, last, and how it had come to be known.
    reached: Option<(SocketAddr, Source)>,
    /// Whether there ever was a connection, in this life or the one before.
    is_met: bool,
    /// What was said of it, the latest first.
    hints: Vec<Hint>,
    /// Who named the peer first, and when it was named last.
    source: Source,
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
    pub fn of(networks: Networks) -> Self {
        AddressBook { entries: BTreeMap::new(), networks }
    }

    /// Somebody said that a peer may be reached at these addresses. Who said so of an address first is what counts.
    pub fn hint(&mut self, now: Instant, peer: PeerId, addrs: &[SocketAddr], source: Source) {
        let usable = addrs.iter().copied().filter(is_dialable).filter(|addr| self.networks.contain(addr.ip()));
        let usable: Vec<SocketAddr> = usable.take(MAX_ADDRS).collect();
        if usable.is_empty() {
            return;
        }
        let entry = self.entry(now, peer, source);
        entry.is_met |= source == Source::Remembered;
        for addr in usable.into_iter().rev() {
            let known = entry.hints.iter().position(|known| known.addr == addr).map(|at| entry.hints.remove(at));
            let hint = known.unwrap_or(Hint { addr, source, failures: 0, retry_at: Instant::START });
            entry.hints.insert(0, hint);
        }
        entry.keep_bound();
    }

    /// A connection with the peer stands, to or from this address. `told` is how the address was known, if not from the
    /// book.
    pub fn reached(&mut self, now: Instant, peer: PeerId, addr: SocketAddr, told: Option<Source>) {
        let entry = self.entry(now, peer, told.unwrap_or(Source::DialledHere));
        let known = entry.hints.iter_mut().find(|hint| hint.addr == addr);
        let source = told.or(known.as_ref().map(|hint| hint.source)).unwrap_or(Source::DialledHere);
        if let Some(hint) = known {
            hint.failures = 0;
        }
        entry.is_met = true;
        // The first connection to an address is what tells how the peer was found; the next ones follow from it.
        let before = entry.reached.filter(|&(before, _)| before == addr);
        entry.reached = before.or(Some((addr, source)));
    }

    /// Nobody, or somebody else, answered for the peer at this address.
    pub fn failed(&mut self, now: Instant, peer: PeerId, addr: SocketAddr) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        if let Some((_, source)) = entry.reached.take_if(|(reached, _)| *reached == addr)
            && !entry.hints.iter().any(|hint| hint.addr == addr)
        {
            entry.hints.push(Hint { addr, source, failures: 0, retry_at: now });
            entry.keep_bound();
        }
        if let Some(hint) = entry.hints.iter_mut().find(|hint| hint.addr == addr) {
            hint.retry_at = now + (BACKOFF_LEAST * 2u32.pow(hint.failures.min(10))).min(BACKOFF_MOST);
            hint.failures = hint.failures.saturating_add(1);
        }
    }

    /// Where to try now, the best first.
    pub fn addrs(&self, now: Instant, peer: PeerId) -> Vec<SocketAddr> {
        self.ranked(peer, |hint| hint.retry_at <= now)
    }

    /// Where to try next in a dial that tried these addresses so far: the best that each source said, at the same time, so
    /// that the truth of one need not wait for the lies of another. What comes to be known during a dial is tried in it.
    pub fn next_addrs(&self, now: Instant, peer: PeerId, tried: &[SocketAddr]) -> Vec<SocketAddr> {
        let left = TRIED_MOST.saturating_sub(tried.len());
        let mut next = self.turns(peer, |hint| hint.retry_at <= now && !tried.contains(&hint.addr));
        if let Some(&(failures, turn, _)) = next.first() {
            next.retain(|other| (other.0, other.1) == (failures, turn));
        }
        let reached = self.entries.get(&peer).and_then(|entry| self.way_to(entry));
        match reached.filter(|addr| !tried.contains(addr)) {
            Some(reached) => [reached].into_iter().take(left).collect(),
            None => next.into_iter().map(|(_, _, addr)| addr).take(left).collect(),
        }
    }

    /// How the address of a peer that was reached came to be known.
    pub fn source(&self, peer: PeerId) -> Option<Source> {
        self.entries.get(&peer)?.reached.map(|(_, source)| source)
    }

    /// Who was reached at this address, last.
    pub fn peer_at(&self, addr: SocketAddr) -> Option<PeerId> {
        let is_there = |entry: &Entry| entry.reached.is_some_and(|(reached, _)| reached == addr);
        self.entries.iter().find(|(_, entry)| is_there(entry)).map(|(&peer, _)| peer)
    }

    /// What to tell another peer about this one; `None` if nothing is known.
    pub fn tell(&self, peer: PeerId) -> Option<PeerAddress> {
        let addrs = self.ranked(peer, |_| true);
        (!addrs.is_empty()).then_some(PeerAddress { peer, addrs })
    }

    /// Up to `most` peers that were reached, at random, with where.
    pub fn reachable(&self, rng: &mut Rng, most: usize) -> Vec<(PeerId, SocketAddr)> {
        let reached = |(&peer, entry): (&PeerId, &Entry)| self.way_to(entry).map(|addr| (peer, addr));
        let mut peers: Vec<_> = self.entries.iter().filter_map(reached).collect();
        rng.shuffle(&mut peers);
        peers.truncate(most);
        peers
    }

    /// Up to `most` peers that may be dialled now, at random.
    pub fn some(&self, now: Instant, rng: &mut Rng, most: usize) -> Vec<PeerId> {
        let mut peers = self.ready(now, rng, |_| true);
        peers.truncate(most);
        peers
    }

    /// Peers that there once was a connection with and that may be dialled now, in a random order.
    pub fn met(&self, now: Instant, rng: &mut Rng) -> Vec<PeerId> {
        self.ready(now, rng, |entry| entry.is_met)
    }

    /// All peers in the book, and what is known of each.
    pub fn known(&self, now: Instant) -> Vec<KnownHost> {
        let address = |hint: &Hint| KnownAddress {
            addr: hint.addr,
            found: hint.source,
            failures: hint.failures,
            retry_in_s: hint.retry_at.since(now).as_secs_f64().ceil() as u64,
        };
        let host = |(&peer, entry): (&PeerId, &Entry)| {
            let reached = entry.reached.map(|(addr, source)| Hint { addr, source, failures: 0, retry_at: now });
            let others = entry.hints.iter().filter(|hint| reached.is_none_or(|reached| reached.addr != hint.addr));
            let mut hints: Vec<&Hint> = reached.iter().chain(others).collect();
            hints.sort_by_key(|hint| hint.failures);
            KnownHost { peer, met: entry.is_met, addrs: hints.into_iter().map(address).collect() }
        };
        self.entries.iter().map(host).collect()
    }

    /// Peers in the book.
    pub fn peer_count(&self) -> usize {
        self.entries.len()
    }

    /// Where a peer was reached, if it may be dialled there: a member that dialled from outside of the networks is talked
    /// with, and neither dialled nor told of, unless the settings name it.
    fn way_to(&self, entry: &Entry) -> Option<SocketAddr> {
        let (addr, source) = entry.reached?;
        (source == Source::Static || self.networks.contain(addr.ip())).then_some(addr)
    }

    /// Those of whom this holds and that may be dialled now, in a random order.
    fn ready(&self, now: Instant, rng: &mut Rng, holds: impl Fn(&Entry) -> bool) -> Vec<PeerId> {
        let ready = |entry: &Entry| self.way_to(entry).is_some() || entry.hints.iter().any(|hint| hint.retry_at <= now);
        let them = self.entries.iter().filter(|(_, entry)| holds(entry) && ready(entry));
        let mut peers: Vec<PeerId> = them.map(|(&peer, _)| peer).collect();
        rng.shuffle(&mut peers);
        peers
    }

    fn ranked(&self, peer: PeerId, ready: impl Fn(&Hint) -> bool) -> Vec<SocketAddr> {
        let reached = self.entries.get(&peer).and_then(|entry| self.way_to(entry));
        let hints = self.turns(peer, ready).into_iter().map(|(_, _, addr)| addr);
        reached.into_iter().chain(hints).take(MAX_ADDRS).collect()
    }

    /// What was said of a peer and was not reached, the best first: how often each address failed, and how many that failed as
    /// often the same source said after it.
    fn turns(&self, peer: PeerId, ready: impl Fn(&Hint) -> bool) -> Vec<(u32, usize, SocketAddr)> {
        let Some(entry) = self.entries.get(&peer) else { return Vec::new() };
        let reached = entry.reached.map(|(addr, _)| addr);
        let hints: Vec<&Hint> =
            entry.hints.iter().filter(|hint| Some(hint.addr) != reached).filter(|hint| ready(hint)).collect();
        let alike = |one: &Hint, other: &Hint| (one.source, one.failures) == (other.source, other.failures);
        let turn_of = |at: usize| hints[..at].iter().filter(|before| alike(before, hints[at])).count();
        let mut turns: Vec<_> =
            hints.iter().enumerate().map(|(at, hint)| (hint.failures, turn_of(at), hint.addr)).collect();
        turns.sort_by_key(|&(failures, turn, _)| (failures, turn));
        turns
    }

    fn entry(&mut self, now: Instant, peer: PeerId, source: Source) -> &mut Entry {
        if self.entries.len() >= BOOK_MOST && !self.entries.contains_key(&peer) {
            self.make_room();
        }
        let entry = self.entries.entry(peer).or_insert(Entry {
            reached: None,
            is_met: false,
            hints: Vec::new(),
            source,
            heard: now,
        });
        entry.heard = now;
        entry
    }

    /// Forgets a peer that can't be reached, rather one that never could: of the source that named most of those, the one
    /// heard of longest ago.
    fn make_room(&mut self) {
        let mut named: BTreeMap<Source, usize> = BTreeMap::new();
        for entry in self.entries.values().filter(|entry| entry.reached.is_none()) {
            *named.entry(entry.source).or_default() += 1;
        }
        let fullest = named.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source);
        let rank = |entry: &Entry| (entry.reached.is_some(), entry.is_met, Some(entry.source) != fullest, entry.heard);
        let oldest = self.entries.iter().min_by_key(|(_, entry)| rank(entry)).map(|(&peer, _)| peer);
        oldest.map(|peer| self.entries.remove(&peer));
    }
}

impl Entry {
    /// Forgets what is too much: of the source that said most, what failed most often, and of that the oldest.
    fn keep_bound(&mut self) {
        while self.hints.len() > MAX_ADDRS {
            let said = |source: Source| self.hints.iter().filter(|hint| hint.source == source).count();
            let rank = |at: &usize| (said(self.hints[*at].source), self.hints[*at].failures, *at);
            let Some(worst) = (0..self.hints.len()).max_by_key(rank) else { return };
            self.hints.remove(worst);
        }
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

    const TRACKER: Source = Source::Tracker(0);
    const NOW: Instant = Instant::START;

    fn ports(book: &AddressBook, now: Instant) -> Vec<u16> {
        book.addrs(now, peer(1)).iter().map(SocketAddr::port).collect()
    }

    #[test]
    fn who_dialled_from_outside_of_the_networks_is_not_dialled_there_unless_settings_name_it() {
        let mut book = AddressBook::of("10.7.0.0/16".parse().expect("a network"));
        let outside = addr("192.0.2.9:7444");
        book.reached(NOW, peer(1), outside, None);
        assert_eq!(book.source(peer(1)), Some(Source::DialledHere), "it is talked with");
        assert!(book.addrs(NOW, peer(1)).is_empty() && book.next_addrs(NOW, peer(1), &[]).is_empty());
        assert!(book.tell(peer(1)).is_none() && book.some(NOW, &mut Rng::seeded(1), 9).is_empty());
        assert!(book.reachable(&mut Rng::seeded(1), 9).is_empty());
        book.reached(NOW, peer(2), outside, Some(Source::Static));
        assert_eq!(book.addrs(NOW, peer(2)), [outside]);
    }

    #[test]
    fn what_was_reached_comes_first_and_the_latest_hint_next() {
        let mut book = AddressBook::default();
        book.hint(NOW, peer(1), &[addr("10.0.0.1:1"), addr("10.0.0.1:2")], TRACKER);
        book.hint(NOW, peer(1), &[addr("10.0.0.1:3")], Source::Dht);
        book.reached(NOW, peer(1), addr("10.0.0.1:2"), None);
        assert_eq!(ports(&book, NOW), [2, 3, 1]);
        assert_eq!(book.source(peer(1)), Some(TRACKER), "as the address was learnt");
    }

    #[test]
    fn an_address_that_failed_is_left_alone_however_often_it_is_named() {
        let mut book = AddressBook::default();
        book.hint(NOW, peer(1), &[addr("10.0.0.1:1"), addr("10.0.0.1:2")], TRACKER);
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
        book.hint(NOW, peer(1), &bad, TRACKER);
        assert_eq!((book.addrs(NOW, peer(1)), book.tell(peer(1))), (Vec::new(), None));
    }

    #[test]
    fn what_lies_outside_of_the_networks_is_not_kept() {
        let mut book = AddressBook::of("10.0.0.0/8".parse::<Networks>().unwrap());
        book.hint(NOW, peer(1), &[addr("192.0.2.1:7444"), addr("10.1.2.3:7444")], Source::PeerExchange(peer(9)));
        assert_eq!(book.addrs(NOW, peer(1)), [addr("10.1.2.3:7444")]);
    }

    #[test]
    fn who_says_much_of_a_peer_neither_hides_nor_drops_what_others_say() {
        let mut book = AddressBook::default();
        book.hint(NOW, peer(1), &[addr("10.0.0.1:1")], TRACKER);
        for round in 0..100 {
            let lies: Vec<SocketAddr> =
                (0..MAX_ADDRS as u16).map(|at| ([10, 0, 0, 9], 1000 + round * 100 + at).into()).collect();
            book.hint(NOW, peer(1), &lies, Source::Dht);
            assert!(ports(&book, NOW).len() <= MAX_ADDRS);
            assert!(ports(&book, NOW)[..2].contains(&1), "{:?}", ports(&book, NOW));
        }
    }

    #[test]
    fn a_dial_tries_what_comes_to_be_known_while_it_lasts_and_comes_to_an_end() {
        let mut book = AddressBook::default();
        book.hint(NOW, peer(1), &[addr("10.0.0.1:1")], Source::Dht);
        let mut tried = book.next_addrs(NOW, peer(1), &[]);
        assert_eq!(tried, [addr("10.0.0.1:1")]);
        assert_eq!(book.next_addrs(NOW, peer(1), &tried), []);
        for port in 2.. {
            book.hint(NOW, peer(1), &[SocketAddr::from(([10, 0, 0, 1], port))], TRACKER);
            let next = book.next_addrs(NOW, peer(1), &tried);
            if next.is_empty() {
                break;
            }
            tried.extend(next);
        }
        assert_eq!(tried.len(), TRIED_MOST);
    }

    #[test]
    fn what_each_source_said_is_tried_at_once_and_what_was_reached_alone() {
        let mut book = AddressBook::default();
        book.hint(NOW, peer(1), &[addr("10.0.0.1:1"), addr("10.0.0.1:2")], Source::Dht);
        book.hint(NOW, peer(1), &[addr("10.0.0.1:3")], TRACKER);
        let first = book.next_addrs(NOW, peer(1), &[]);
        assert_eq!(first, [addr("10.0.0.1:3"), addr("10.0.0.1:1")]);
        assert_eq!(book.next_addrs(NOW, peer(1), &first), [addr("10.0.0.1:2")]);
        book.reached(NOW, peer(1), addr("10.0.0.1:2"), None);
        assert_eq!(book.next_addrs(NOW, peer(1), &[]), [addr("10.0.0.1:2")]);
    }

    #[test]
    fn who_names_thousands_keeps_room_for_others() {
        let mut book = AddressBook::default();
        for number in 0..BOOK_MOST as u32 {
            book.hint(NOW, peer(number), &[addr("10.0.0.2:1")], Source::Dht);
        }
        let later = NOW + Duration::from_secs(1);
        for number in 10_000..10_064 {
            book.hint(NOW, peer(number), &[addr("10.0.0.3:1")], TRACKER);
        }
        for number in 20_000..25_000 {
            book.hint(later, peer(number), &[addr("10.0.0.2:1")], Source::Dht);
        }
        assert_eq!(book.peer_count(), BOOK_MOST);
        assert!((10_000..10_064).all(|number| !book.addrs(later, peer(number)).is_empty()));
    }

    #[test]
    fn who_was_met_and_does_not_answer_any_more_is_told_from_who_was_only_named() {
        let mut book = AddressBook::default();
        book.reached(NOW, peer(1), addr("10.0.0.1:1"), None);
        book.failed(NOW, peer(1), addr("10.0.0.1:1"));
        for number in 2..2 * BOOK_MOST as u32 {
            book.hint(NOW, peer(number), &[addr("10.0.0.2:1")], Source::Dht);
        }
        let mut rng = Rng::seeded(1);
        let known = book.known(NOW).into_iter().find(|host| host.peer == peer(1)).expect("it is kept");
        let found = KnownAddress { addr: addr("10.0.0.1:1"), found: Source::DialledHere, failures: 1, retry_in_s: 1 };
        assert_eq!(known, KnownHost { peer: peer(1), met: true, addrs: vec![found] });
        assert_eq!(book.met(NOW, &mut rng), [], "it is left alone for a while");
        assert_eq!(book.met(NOW + BACKOFF_LEAST, &mut rng), [peer(1)]);
    }

    #[test]
    fn the_book_stays_within_its_bound_and_keeps_who_was_reached() {
        let mut book = AddressBook::default();
        book.reached(NOW, peer(0), addr("10.0.0.1:1"), None);
        for number in 1..BOOK_MOST as u32 + 100 {
            let now = Instant::from_millis(u64::from(number));
            book.hint(now, peer(number), &vec![addr("10.0.0.2:1"); 3 * MAX_ADDRS], TRACKER);
        }
        assert_eq!(book.entries.len(), BOOK_MOST);
        assert!(!book.addrs(NOW, peer(0)).is_empty());
        assert!(book.addrs(NOW, peer(1)).is_empty());
        let mut rng = Rng::seeded(1);
        assert_eq!(book.reachable(&mut rng, 9), [(peer(0), addr("10.0.0.1:1"))]);
        assert_eq!(book.some(NOW, &mut rng, 7).len(), 7);
    }
}
