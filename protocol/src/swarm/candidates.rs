//! Peers that might become neighbours: named by a tracker or by other peers, or neighbours of former days.
//!
//! A name is a hint. One that can't be reached is left alone for a while and tried again later, so that neither a dead
//! host nor a made-up one costs more than a dial now and then, and a host that comes back is found again.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::id::PeerId;
use crate::rng::Rng;
use crate::time::Instant;

/// Most names kept: enough to fill the neighbours some times over.
const CANDIDATES_MOST: usize = 192;
/// How long a peer that can't be reached is left alone.
const FAILED_FOR: Duration = Duration::from_secs(30);
/// How long a dial may take before it counts as failed, if the driver says nothing.
const DIAL_MOST: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Not to be dialled before.
    retry_at: Instant,
    /// How often in a row dialling it failed.
    failures: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    known: BTreeMap<PeerId, Candidate>,
    /// Whose dial is under way; it is given up at `retry_at`.
    dialled: Vec<PeerId>,
    /// Whether there may be one that failed: when there is no more room, most names come in vain.
    has_failed: bool,
}

impl Candidates {
    /// Somebody named `peer`.
    pub(super) fn add(&mut self, now: Instant, peer: PeerId) {
        if self.known.contains_key(&peer) {
            return;
        }
        if self.known.len() >= CANDIDATES_MOST {
            let Some(worst) = self.worst() else { return };
            self.remove(&worst);
        }
        self.known.insert(peer, Candidate { retry_at: now, failures: 0 });
    }

    /// A peer is to be left alone for a while, and is a candidate again after that.
    pub(super) fn postpone(&mut self, now: Instant, peer: PeerId, by: Duration) {
        self.add(now, peer);
        if let Some(known) = self.known.get_mut(&peer) {
            known.retry_at = now + by;
        }
        self.end_dial(peer);
    }

    /// Dialling a peer failed.
    pub(super) fn failed(&mut self, now: Instant, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.failures = known.failures.saturating_add(1);
            known.retry_at = now + FAILED_FOR;
            self.has_failed = true;
        }
        self.end_dial(peer);
    }

    /// A peer was reached.
    pub(super) fn reached(&mut self, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.failures = 0;
        }
        self.end_dial(peer);
    }

    /// Never again.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.known.remove(peer);
        self.end_dial(*peer);
    }

    /// One that may be dialled now, at random; it counts as being dialled from now on.
    pub(super) fn dial(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        is_neighbour: impl Fn(&PeerId) -> bool,
    ) -> Option<PeerId> {
        let ready: Vec<PeerId> = self
            .known
            .iter()
            .filter(|(peer, known)| known.retry_at <= now && !self.dialled.contains(peer) && !is_neighbour(peer))
            .map(|(peer, _)| *peer)
            .collect();
        let peer = *rng.pick(&ready)?;
        if let Some(known) = self.known.get_mut(&peer) {
            known.retry_at = now + DIAL_MOST;
            self.dialled.push(peer);
        }
        Some(peer)
    }

    /// Gives up dials of which nothing was heard.
    pub(super) fn expire_dials(&mut self, now: Instant) {
        let is_over = |peer: &PeerId| self.known.get(peer).is_none_or(|known| known.retry_at <= now);
        let over: Vec<PeerId> = self.dialled.iter().copied().filter(is_over).collect();
        over.into_iter().for_each(|peer| self.failed(now, peer));
    }

    /// How many are being dialled.
    pub(super) fn dialling(&self) -> usize {
        self.dialled.len()
    }

    /// When the next one may be dialled, or a dial is to be given up.
    pub(super) fn next_at(&self, is_neighbour: impl Fn(&PeerId) -> bool) -> Option<Instant> {
        self.known.iter().filter(|(peer, _)| !is_neighbour(peer)).map(|(_, known)| known.retry_at).min()
    }

    /// The one that failed most often in a row.
    fn worst(&mut self) -> Option<PeerId> {
        if !self.has_failed {
            return None;
        }
        let failed = self.known.iter().filter(|(_, known)| known.failures > 0);
        let worst = failed.max_by_key(|(_, known)| known.failures).map(|(peer, _)| *peer);
        self.has_failed = worst.is_some();
        worst
    }

    fn end_dial(&mut self, peer: PeerId) {
        self.dialled.retain(|other| *other != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    #[test]
    fn names_are_bounded_and_those_that_failed_make_room() {
        let (mut candidates, mut rng) = (Candidates::default(), Rng::seeded(1));
        let now = Instant::from_millis(1000);
        for number in 0..5000 {
            candidates.add(now, peer(number));
        }
        assert_eq!(candidates.known.len(), CANDIDATES_MOST);
        let failed = candidates.dial(now, &mut rng, |_| false).expect("a candidate");
        candidates.failed(now, failed);
        candidates.add(now, peer(9999));
        assert_eq!(candidates.known.len(), CANDIDATES_MOST);
        assert!(!candidates.known.contains_key(&failed));
    }

    #[test]
    fn a_dial_of_which_nothing_is_heard_is_given_up_and_tried_again_later() {
        let (mut candidates, mut rng) = (Candidates::default(), Rng::seeded(1));
        let now = Instant::from_millis(1000);
        candidates.add(now, peer(1));
        assert_eq!(candidates.dial(now, &mut rng, |_| false), Some(peer(1)));
        assert_eq!((candidates.dial(now, &mut rng, |_| false), candidates.dialling()), (None, 1));
        candidates.expire_dials(now + DIAL_MOST);
        assert_eq!(candidates.dialling(), 0);
        assert_eq!(candidates.dial(now + DIAL_MOST, &mut rng, |_| false), None);
        assert_eq!(candidates.dial(now + DIAL_MOST + FAILED_FOR, &mut rng, |_| false), Some(peer(1)));
    }
}
