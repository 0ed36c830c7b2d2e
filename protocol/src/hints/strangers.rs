//! Addresses without a name, as a hash table gives them: when to ask for some, and which of them to dial.
//!
//! A table may be full of lies. What they cost is bounded by how often there is a lookup, how many of its addresses are
//! dialled, and how many at a time; an address that led nowhere is not dialled again for a while, so that the next lookup
//! comes to others.

use std::collections::{BTreeMap, VecDeque};

use core::net::SocketAddr;
use core::time::Duration;

use crate::rng::Rng;
use crate::time::Instant;

/// Addresses that are taken from one lookup; a table full of lies gives no more.
pub const FOUND_MOST: usize = 256;
/// Addresses that led nowhere and are remembered, at most: what several lookups can give.
pub const STRANGERS_MOST: usize = 1024;
/// Addresses that wait to be dialled. What a lookup gives beyond is found by a later one.
const WAITING_MOST: usize = 32;
/// Addresses that are dialled at the same time.
const DIALS_MOST: usize = 8;
/// An address that led nowhere is not dialled again so soon.
const DEAD_FOR: Duration = Duration::from_secs(120);
/// While a tracker answers it is the first to name neighbours.
pub const TRACKERS_FIRST: Duration = Duration::from_secs(5);
/// What is looked up in vain is looked up again after this time, twice as late each time.
pub const FIND_LEAST: Duration = Duration::from_secs(2);
/// But no later than this.
pub const FIND_MOST: Duration = Duration::from_secs(60);

/// Addresses that were found, each for what was sought, and what became of them.
#[derive(Debug)]
pub struct Strangers<T> {
    waiting: VecDeque<(SocketAddr, T)>,
    dialled: Vec<SocketAddr>,
    /// Until when those that led nowhere are left alone.
    dead: BTreeMap<SocketAddr, Instant>,
}

/// When the next lookup of one key is due.
#[derive(Clone, Copy, Debug)]
pub struct LookupPace {
    next: Instant,
    tries: u32,
}

impl<T> Default for Strangers<T> {
    fn default() -> Self {
        Strangers { waiting: VecDeque::new(), dialled: Vec::new(), dead: BTreeMap::new() }
    }
}

impl<T: Copy + PartialEq> Strangers<T> {
    /// A lookup of `sought` gave these; some of those that are new are to be dialled, at random.
    pub fn found(&mut self, now: Instant, rng: &mut Rng, sought: T, found: impl IntoIterator<Item = SocketAddr>) {
        self.dead.retain(|_, until| *until > now);
        let is_known = |addr: SocketAddr| self.dead.contains_key(&addr) || self.waiting.contains(&(addr, sought));
        let fresh = found.into_iter().take(FOUND_MOST).filter(|&addr| !is_known(addr));
        let mut fresh: Vec<(SocketAddr, T)> = fresh.map(|addr| (addr, sought)).collect();
        rng.shuffle(&mut fresh);
        fresh.truncate(WAITING_MOST - self.waiting.len());
        self.waiting.extend(fresh);
    }

    /// The next to dial now, if another may be; it counts as being dialled until its end is told.
    pub fn dial(&mut self) -> Option<(SocketAddr, T)> {
        if self.dialled.len() >= DIALS_MOST {
            return None;
        }
        let (addr, sought) = self.waiting.pop_front()?;
        self.dialled.push(addr);
        Some((addr, sought))
    }

    /// A host of the cluster answered at this address.
    pub fn reached(&mut self, addr: SocketAddr) {
        self.end_dial(addr);
    }

    /// None did.
    pub fn failed(&mut self, now: Instant, addr: SocketAddr) {
        self.end_dial(addr);
        if self.dead.len() >= STRANGERS_MOST {
            let oldest = self.dead.iter().min_by_key(|(_, until)| **until).map(|(addr, _)| *addr);
            oldest.map(|addr| self.dead.remove(&addr));
        }
        self.dead.insert(addr, now + DEAD_FOR);
    }

    /// Addresses that led nowhere, as far as they are remembered: at most [`STRANGERS_MOST`].
    pub fn dead_count(&self) -> usize {
        self.dead.len()
    }

    fn end_dial(&mut self, addr: SocketAddr) {
        if let Some(at) = self.dialled.iter().position(|other| *other == addr) {
            self.dialled.swap_remove(at);
        }
    }
}

impl LookupPace {
    /// What is lacking from now on is looked up at once, or a little later if a tracker answers.
    pub fn new(now: Instant, has_tracker: bool) -> Self {
        LookupPace { next: if has_tracker { now + TRACKERS_FIRST } else { now }, tries: 0 }
    }

    /// Whether a lookup is due; if so, it is taken to begin now.
    pub fn is_due(&mut self, now: Instant, rng: &mut Rng) -> bool {
        let is_due = self.next <= now;
        if is_due {
            let wait = (FIND_LEAST * 2u32.pow(self.tries.min(10))).min(FIND_MOST);
            // Up to a quarter sooner, so that hosts that began together do not go on in step.
            self.next = now + (wait - wait * rng.below(1000) / 4000);
            self.tries = self.tries.saturating_add(1);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: u32) -> SocketAddr {
        SocketAddr::from((core::net::Ipv4Addr::from_bits(0x0a00_0000 + number), 7444))
    }

    #[test]
    fn a_table_full_of_lies_is_gone_through_and_costs_so_many_dials_a_lookup() {
        let (mut strangers, mut rng) = (Strangers::default(), Rng::seeded(1));
        let live = addr(200);
        for lookup in 0..20 {
            let now = Instant::from_millis(lookup * 1000);
            strangers.found(now, &mut rng, (), (0..1000).map(addr));
            let mut dials = 0;
            loop {
                let dialled: Vec<SocketAddr> =
                    core::iter::from_fn(|| strangers.dial()).map(|(addr, ())| addr).collect();
                assert!(dialled.len() <= DIALS_MOST);
                if dialled.contains(&live) {
                    return;
                }
                if dialled.is_empty() {
                    break;
                }
                dials += dialled.len();
                dialled.into_iter().for_each(|addr| strangers.failed(now, addr));
            }
            assert!(dials <= WAITING_MOST, "{dials}");
        }
        panic!("the one address that is right was never dialled");
    }

    #[test]
    fn what_led_nowhere_is_forgotten_in_time_and_never_takes_more_than_its_bound() {
        let (mut strangers, mut rng) = (Strangers::default(), Rng::seeded(1));
        let now = Instant::from_millis(1000);
        for number in 0..3 * STRANGERS_MOST as u32 {
            strangers.failed(now + Duration::from_millis(number.into()), addr(number));
            assert!(strangers.dead_count() <= STRANGERS_MOST);
        }
        let last = addr(3 * STRANGERS_MOST as u32 - 1);
        strangers.found(now, &mut rng, (), [last]);
        assert_eq!(strangers.dial(), None);
        strangers.found(now, &mut rng, (), [addr(0)]);
        assert_eq!(strangers.dial(), Some((addr(0), ())), "the oldest made room");
        let later = now + DEAD_FOR + Duration::from_secs(60);
        strangers.found(later, &mut rng, (), [last]);
        assert_eq!(strangers.dial(), Some((last, ())));
        assert_eq!(strangers.dead_count(), 0);
    }

    #[test]
    fn lookups_in_vain_become_rare() {
        let (mut pace, mut rng) = (LookupPace::new(Instant::START, true), Rng::seeded(1));
        assert!(!pace.is_due(Instant::from_millis(4999), &mut rng));
        let due = (5..600).filter(|second| pace.is_due(Instant::from_millis(second * 1000), &mut rng)).count();
        assert!((12..=18).contains(&due), "{due} lookups in ten minutes");
        assert!(LookupPace::new(Instant::START, false).is_due(Instant::START, &mut rng));
    }
}
