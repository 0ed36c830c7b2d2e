//! Peers that may have to do with an image: named by a tracker, by other peers or the hash table, or neighbours of former
//! days. A swarm finds its neighbours among them, and a host that lacks the manifest asks them for it.
//!
//! A name is a hint. One that can't be reached is left alone for a while and tried again later, so that neither a dead
//! host nor a made-up one costs more than a dial now and then, and a host that comes back is found again.
//!
//! Who names many is not to crowd out who names few: when there is no more room, it is the source with the most names
//! that gives way. Next is dialled a name of the source of which the fewest dials failed or wait, since the last that
//! succeeded; one that only lies is soon the last. A dial that takes long does not keep others from being tried, and each
//! source may have one under way, however many the others have.

use std::collections::BTreeMap;

use core::cmp::Reverse;
use core::time::Duration;

use super::Source;
use crate::id::PeerId;
use crate::planted::{Bug, is_planted};
use crate::rng::Rng;
use crate::time::Instant;

/// Most names kept: enough to fill the neighbours some times over.
pub const CANDIDATES_MOST: usize = 192;
/// How long a peer that can't be reached is left alone, doubled with each failure.
const FAILED_LEAST: Duration = Duration::from_secs(2);
const FAILED_MOST: Duration = Duration::from_secs(30);
/// How long a dial may take before it counts as failed, if the driver says nothing.
const DIAL_MOST: Duration = Duration::from_secs(15);
/// A dial that takes longer takes no place any more: who lives answers within some round trips.
const SLOW: Duration = Duration::from_millis(250);
/// Dials of candidates that are under way at most, slow or not.
pub const DIALS_MOST: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Not to be dialled before.
    retry_at: Instant,
    /// How often in a row dialling it failed.
    failures: u16,
    /// Number of who named it.
    source: u16,
}

#[derive(Clone, Copy, Debug)]
struct Dial {
    peer: PeerId,
    began: Instant,
}

/// How a source stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    source: Source,
    /// Names that are kept of it.
    names: u16,
    /// Dials of its names that failed since the last that succeeded.
    failures: u32,
    /// Whether there may be one that failed: when there is no more room, most names come in vain.
    has_failed: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Candidates {
    known: BTreeMap<PeerId, Candidate>,
    /// Dials under way; each is given up at its candidate's `retry_at`.
    dialled: Vec<Dial>,
    /// One that has no names is forgotten when its place is needed.
    sources: Vec<Standing>,
}

impl Candidates {
    /// `source` named `peer`.
    pub fn add(&mut self, now: Instant, source: Source, peer: PeerId) {
        if self.known.contains_key(&peer) {
            return self.name_again(now, source, peer);
        }
        let source = self.number_of(source);
        if self.known.len() < CANDIDATES_MOST || is_planted(Bug::KeepEveryHint) || self.make_room(source) {
            self.known.insert(peer, Candidate { retry_at: now, failures: 0, source });
            self.sources[usize::from(source)].names += 1;
        }
    }

    /// A peer is to be left alone for a while, and is a candidate again after that.
    pub fn postpone(&mut self, now: Instant, peer: PeerId, by: Duration) {
        self.add(now, Source::DialledHere, peer);
        if let Some(known) = self.known.get_mut(&peer) {
            known.retry_at = now + by;
        }
        self.end_dial(peer);
    }

    /// Dialling a peer failed.
    pub fn failed(&mut self, now: Instant, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.retry_at = now + (FAILED_LEAST * 2u32.pow(known.failures.min(8).into())).min(FAILED_MOST);
            known.failures = known.failures.saturating_add(1);
            let standing = &mut self.sources[usize::from(known.source)];
            standing.failures = standing.failures.saturating_add(1);
            standing.has_failed = true;
        }
        self.end_dial(peer);
    }

    /// A peer was reached.
    pub fn reached(&mut self, now: Instant, peer: PeerId) {
        self.seen(now, peer);
        self.end_dial(peer);
    }

    /// A peer showed that it is there, whatever became of a dial.
    pub fn seen(&mut self, now: Instant, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&peer) {
            self.sources[usize::from(known.source)].failures = 0;
            if known.failures > 0 {
                (known.failures, known.retry_at) = (0, now);
            }
        }
    }

    /// Never again.
    pub fn remove(&mut self, peer: &PeerId) {
        if let Some(known) = self.known.remove(peer) {
            self.sources[usize::from(known.source)].names -= 1;
        }
        self.end_dial(*peer);
    }

    /// From now on they are for something else: nothing is under way, and who did not fail may be dialled at once.
    pub fn begin_anew(&mut self, now: Instant) {
        self.dialled.clear();
        self.known.values_mut().filter(|known| known.failures == 0).for_each(|known| known.retry_at = now);
    }

    /// One that may be dialled now, if there are so many places for such as answer; it counts as being dialled from now on.
    pub fn dial(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        places: usize,
        is_neighbour: impl Fn(&PeerId) -> bool,
    ) -> Option<PeerId> {
        let (has_place, under_way) = (self.has_place(now, places), self.under_way());
        if places == 0 || self.dialled.len() >= DIALS_MOST {
            return None;
        }
        let may_be = |peer: &PeerId, known: &Candidate| {
            known.retry_at <= now
                && (has_place || under_way[usize::from(known.source)] == 0)
                && !self.is_dialled(peer)
                && !is_neighbour(peer)
        };
        let ready = self.known.iter().filter(|(peer, known)| may_be(peer, known));
        let ready: Vec<(PeerId, u16)> = ready.map(|(peer, known)| (*peer, known.source)).collect();
        let burdens: Vec<u32> =
            self.sources.iter().zip(&under_way).map(|(standing, waiting)| standing.failures + waiting).collect();
        let least = ready.iter().map(|(_, source)| burdens[usize::from(*source)]).min()?;
        let mut sources: Vec<u16> = ready.iter().map(|(_, source)| *source).collect();
        sources.retain(|source| burdens[usize::from(*source)] == least);
        sources.sort_unstable();
        sources.dedup();
        let source = *rng.pick(&sources)?;
        let of_source: Vec<PeerId> = ready.iter().filter(|(_, of)| *of == source).map(|(peer, _)| *peer).collect();
        let peer = *rng.pick(&of_source)?;
        if let Some(known) = self.known.get_mut(&peer) {
            known.retry_at = now + DIAL_MOST;
            self.dialled.push(Dial { peer, began: now });
        }
        Some(peer)
    }

    /// Gives up dials of which nothing was heard.
    pub fn expire_dials(&mut self, now: Instant) {
        let is_over = |peer: &PeerId| self.known.get(peer).is_none_or(|known| known.retry_at <= now);
        let over: Vec<PeerId> = self.dialled.iter().map(|dial| dial.peer).filter(is_over).collect();
        over.into_iter().for_each(|peer| self.failed(now, peer));
    }

    /// When the next one may be dialled, while there are so many places.
    pub fn next_dial_at(&self, now: Instant, places: usize, is_neighbour: impl Fn(&PeerId) -> bool) -> Option<Instant> {
        if places == 0 || self.dialled.len() >= DIALS_MOST {
            return None;
        }
        let (has_place, under_way) = (self.has_place(now, places), self.under_way());
        let may_be = |peer: &PeerId, known: &Candidate| {
            (has_place || under_way[usize::from(known.source)] == 0) && !self.is_dialled(peer) && !is_neighbour(peer)
        };
        let next = self.known.iter().filter(|(peer, known)| may_be(peer, known)).map(|(_, known)| known.retry_at);
        let slow_at = self.dialled.iter().map(|dial| dial.began + SLOW).filter(|at| !has_place && *at > now);
        next.chain(slow_at).min()
    }

    /// When a dial is to be given up.
    pub fn give_up_at(&self) -> Option<Instant> {
        self.dialled.iter().filter_map(|dial| self.known.get(&dial.peer)).map(|known| known.retry_at).min()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nobody was named.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether one more may be dialled, whoever named it.
    fn has_place(&self, now: Instant, places: usize) -> bool {
        self.dialled.iter().filter(|dial| dial.began + SLOW > now).count() < places
    }

    fn is_dialled(&self, peer: &PeerId) -> bool {
        self.dialled.iter().any(|dial| dial.peer == *peer)
    }

    /// For each source, how many dials of its names are under way.
    fn under_way(&self) -> Vec<u32> {
        let mut under_way = vec![0; self.sources.len()];
        for known in self.dialled.iter().filter_map(|dial| self.known.get(&dial.peer)) {
            under_way[usize::from(known.source)] += 1;
        }
        under_way
    }

    /// One that failed for the first time is worth a second try if somebody names it whose names led somewhere.
    fn name_again(&mut self, now: Instant, source: Source, peer: PeerId) {
        if self.known.get(&peer).is_none_or(|known| known.failures != 1) || self.is_dialled(&peer) {
            return;
        }
        let source = self.number_of(source);
        let Some(known) = self.known.get_mut(&peer) else { return };
        let failures = |source: u16| self.sources[usize::from(source)].failures;
        if failures(source) < failures(known.source) {
            self.sources[usize::from(known.source)].names -= 1;
            self.sources[usize::from(source)].names += 1;
            (known.source, known.retry_at) = (source, now);
            // So that it has only one such try.
            known.failures += 1;
        }
    }

    /// The number of a source.
    fn number_of(&mut self, source: Source) -> u16 {
        let fresh = Standing { source, names: 0, failures: 0, has_failed: false };
        let known = self.sources.iter().position(|standing| standing.source == source);
        let at = known.or_else(|| {
            let empty = self.sources.iter().position(|standing| standing.names == 0)?;
            self.sources[empty] = fresh;
            Some(empty)
        });
        let at = at.unwrap_or_else(|| {
            self.sources.push(fresh);
            self.sources.len() - 1
        });
        u16::try_from(at).expect("each source but the last has a name")
    }

    /// Removes one for one more of this source; says whether there is room then.
    fn make_room(&mut self, newcomer: u16) -> bool {
        let names = |source: u16| self.sources[usize::from(source)].names;
        let fullest = (0..self.sources.len() as u16).max_by_key(|&source| names(source)).unwrap_or(newcomer);
        let is_crowded_out = names(newcomer) + 1 < names(fullest);
        let from = if is_crowded_out { fullest } else { newcomer };
        if !is_crowded_out && !self.sources[usize::from(from)].has_failed {
            return false;
        }
        let may_go = |peer: &PeerId, known: &Candidate| {
            known.source == from && (is_crowded_out || known.failures > 0) && !self.is_dialled(peer)
        };
        let worst = self.known.iter().filter(|(peer, known)| may_go(peer, known));
        let worst = worst.max_by_key(|(_, known)| (known.failures, Reverse(known.retry_at))).map(|(peer, _)| *peer);
        match worst {
            Some(peer) => self.remove(&peer),
            None => self.sources[usize::from(from)].has_failed = false,
        }
        worst.is_some()
    }

    fn end_dial(&mut self, peer: PeerId) {
        self.dialled.retain(|dial| dial.peer != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACKER: Source = Source::Tracker(0);
    const NOW: Instant = Instant::from_millis(1000);

    fn peer(number: u32) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    /// Dials whoever may be dialled now, as far as there are places.
    fn dial_all(candidates: &mut Candidates, now: Instant, rng: &mut Rng, places: usize) -> Vec<PeerId> {
        core::iter::from_fn(|| candidates.dial(now, rng, places, |_| false)).collect()
    }

    #[test]
    fn names_are_bounded_and_those_that_failed_make_room() {
        let (mut candidates, mut rng) = (Candidates::default(), Rng::seeded(1));
        for number in 0..5000 {
            candidates.add(NOW, TRACKER, peer(number));
        }
        assert_eq!(candidates.len(), CANDIDATES_MOST);
        let failed = candidates.dial(NOW, &mut rng, 1, |_| false).expect("a candidate");
        candidates.failed(NOW, failed);
        candidates.add(NOW, TRACKER, peer(9999));
        assert_eq!(candidates.len(), CANDIDATES_MOST);
        assert!(!candidates.known.contains_key(&failed));
    }

    #[test]
    fn who_names_thousands_leaves_room_for_who_names_few() {
        let mut candidates = Candidates::default();
        for number in 0..5000 {
            candidates.add(NOW, Source::Dht, peer(number));
        }
        for number in 10_000..10_100 {
            candidates.add(NOW, TRACKER, peer(number));
        }
        for number in 20_000..30_000 {
            candidates.add(NOW, Source::Dht, peer(number));
            candidates.add(NOW, Source::PeerExchange(peer(number % 7)), peer(number + 10_000));
        }
        assert_eq!(candidates.len(), CANDIDATES_MOST);
        let of_tracker = candidates.known.range(peer(10_000)..peer(10_100)).count();
        assert!(of_tracker >= CANDIDATES_MOST / 9 - 1, "{of_tracker} of nine sources' share");
        let counted: usize = candidates.sources.iter().map(|standing| usize::from(standing.names)).sum();
        assert_eq!(counted, CANDIDATES_MOST);
    }

    #[test]
    fn sources_come_and_go_in_bounded_memory() {
        let (mut candidates, mut rng) = (Candidates::default(), Rng::seeded(1));
        for number in 0..20_000 {
            candidates.add(NOW, Source::PeerExchange(peer(number)), peer(number + 50_000));
            let failed = candidates.dial(NOW, &mut rng, 1, |_| false);
            failed.into_iter().for_each(|failed| candidates.failed(NOW, failed));
            assert!(candidates.sources.len() <= CANDIDATES_MOST + 1);
        }
    }

    #[test]
    fn a_dial_of_which_nothing_is_heard_is_given_up_and_tried_again_later() {
        let (mut candidates, mut rng) = (Candidates::default(), Rng::seeded(1));
        candidates.add(NOW, TRACKER, peer(1));
        assert_eq!(dial_all(&mut candidates, NOW, &mut rng, 2), [peer(1)]);
        candidates.expire_dials(NOW + DIAL_MOST);
        assert!(candidates.dialled.is_empty());
        assert_eq!(dial_all(&mut candidates, NOW + DIAL_MOST, &mut rng, 2), []);
        assert_eq!(candidates.next_dial_at(NOW + DIAL_MOST, 2, |_| false), Some(NOW + DIAL_MOST + FAILED_LEAST));
        assert_eq!(dial_all(&mut candidates, NOW + DIAL_MOST + FAILED_LEAST, &mut rng, 2), [peer(1)]);
    }

    #[test]
    fn a_dial_that_takes_long_keeps_nobody_from_being_tried() {
        let (mut candidates, mut rng) = (Candidates::default(), Rng::seeded(1));
        (0..100).for_each(|number| candidates.add(NOW, TRACKER, peer(number)));
        assert_eq!(dial_all(&mut candidates, NOW, &mut rng, 3).len(), 3);
        assert_eq!(candidates.next_dial_at(NOW, 3, |_| false), Some(NOW + SLOW));
        assert_eq!(dial_all(&mut candidates, NOW + SLOW, &mut rng, 3).len(), 3);
        let later = (2..20).map(|times| dial_all(&mut candidates, NOW + SLOW * times, &mut rng, 3).len());
        assert_eq!(later.sum::<usize>(), DIALS_MOST - 6, "a bounded number is under way");
    }

    #[test]
    fn who_comes_first_with_lies_keeps_no_other_source_waiting() {
        let (mut candidates, mut rng) = (Candidates::default(), Rng::seeded(1));
        (0..100).for_each(|number| candidates.add(NOW, Source::Dht, peer(number)));
        assert_eq!(dial_all(&mut candidates, NOW, &mut rng, 3).len(), 3);
        candidates.add(NOW, TRACKER, peer(1000));
        candidates.add(NOW, TRACKER, peer(1001));
        assert_eq!(candidates.next_dial_at(NOW, 3, |_| false), Some(NOW));
        let dialled = dial_all(&mut candidates, NOW, &mut rng, 3);
        assert!(dialled.len() == 1 && dialled[0] >= peer(1000));
        assert_eq!(dial_all(&mut candidates, NOW, &mut rng, 0), [], "with no place at all");
    }

    #[test]
    fn who_only_lies_is_asked_last() {
        let (mut candidates, mut rng) = (Candidates::default(), Rng::seeded(1));
        for number in 0..500 {
            candidates.add(NOW, Source::Dht, peer(number));
        }
        (1000..1020).for_each(|number| candidates.add(NOW, TRACKER, peer(number)));
        let mut answered = 0;
        for dials in 0..40 {
            let dialled = candidates.dial(NOW, &mut rng, 8, |_| false).expect("a candidate");
            match dialled >= peer(1000) {
                true => {
                    candidates.postpone(NOW, dialled, FAILED_MOST);
                    candidates.reached(NOW, dialled);
                    answered += 1;
                }
                false => candidates.failed(NOW, dialled),
            }
            assert!(answered == 20 || answered >= dials - 1, "{answered} of {dials}");
        }
        assert_eq!(answered, 20);
    }

    #[test]
    fn who_failed_by_one_word_has_a_second_try_by_another() {
        let (mut candidates, mut rng) = (Candidates::default(), Rng::seeded(1));
        candidates.add(NOW, Source::Dht, peer(1));
        assert_eq!(dial_all(&mut candidates, NOW, &mut rng, 1), [peer(1)]);
        candidates.failed(NOW, peer(1));
        candidates.add(NOW, Source::Dht, peer(1));
        assert_eq!(dial_all(&mut candidates, NOW, &mut rng, 1), []);
        candidates.add(NOW, TRACKER, peer(1));
        assert_eq!(dial_all(&mut candidates, NOW, &mut rng, 1), [peer(1)]);
        candidates.failed(NOW, peer(1));
        candidates.add(NOW, Source::Remembered, peer(1));
        assert_eq!(dial_all(&mut candidates, NOW, &mut rng, 1), []);
    }
}
