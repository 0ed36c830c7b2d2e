//! Merging what members ask to have repaired.
//!
//! A member says how many symbols a block lacks, not which ones: any parity symbol that was not sent yet helps everybody who lacks
//! one, whichever it lost (Nonnenmacher, Biersack and Towsley 1998). Requests are collected until every member had its turn. Then a
//! block gets as many more parity symbols as at least so many members can use each; others go to the swarm, which
//! they do by themselves when no repair comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::fec::PARITY_MOST;
use crate::geometry::ChunkIndex;
use crate::id::PeerId;
use crate::time::{Duration, Instant};

/// More parity for a block that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Patch {
    /// Which block.
    pub chunk: ChunkIndex,
    /// Parity symbols that were sent before.
    pub from: u8,
    /// Parity symbols that will have been sent.
    pub to: u8,
}

/// What was sent lately, and what members lack of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Repair {
    /// Parity symbols sent of each of the last blocks.
    parity: BTreeMap<ChunkIndex, u8>,
    order: VecDeque<ChunkIndex>,
    requests: BTreeMap<ChunkIndex, Request>,
    /// Requests by age.
    ages: BTreeSet<(Instant, ChunkIndex)>,
}

#[derive(Clone, Debug)]
struct Request {
    since: Instant,
    lacking: BTreeMap<PeerId, u8>,
}

impl Repair {
    /// A block is sent with `parity` parity symbols.
    pub(super) fn sent(&mut self, chunk: ChunkIndex, parity: u8) {
        if self.parity.insert(chunk, parity).is_none() {
            self.order.push_back(chunk);
        }
        // Sent anew: what was asked before is answered by that.
        self.drop_request(chunk);
        if self.order.len() > BLOCKS_REMEMBERED
            && let Some(old) = self.order.pop_front()
        {
            self.parity.remove(&old);
            self.drop_request(old);
        }
    }

    /// A member lacks so many symbols of a block. Blocks that were not sent lately are not repaired.
    pub(super) fn ask(&mut self, now: Instant, peer: PeerId, chunk: ChunkIndex, symbols: u8) {
        if !self.parity.contains_key(&chunk) || symbols == 0 {
            return;
        }
        let ages = &mut self.ages;
        let request = self.requests.entry(chunk).or_insert_with(|| {
            ages.insert((now, chunk));
            Request { since: now, lacking: BTreeMap::new() }
        });
        request.lacking.insert(peer, symbols);
    }

    /// Takes the next patch that is due: asked for at least `wait` ago and by at least `least` members.
    pub(super) fn next_patch(&mut self, now: Instant, wait: Duration, least: usize) -> Option<Patch> {
        while let Some(&(since, chunk)) = self.ages.first()
            && since + wait <= now
        {
            let request = self.drop_request(chunk).expect("an age has a request");
            let mut lacking: Vec<u8> = request.lacking.into_values().collect();
            lacking.sort_unstable_by(|a, b| b.cmp(a));
            // The i-th further symbol helps those who lack at least i: as many as help `least` of them.
            let Some(&symbols) = lacking.get(least.max(1) - 1) else { continue };
            let parity = self.parity.get_mut(&chunk).expect("what is asked for was sent");
            let (from, to) = (*parity, (*parity + symbols).min(PARITY_MOST));
            if from < to {
                *parity = to;
                return Some(Patch { chunk, from, to });
            }
        }
        None
    }

    /// When the next request is due.
    pub(super) fn next_due(&self, wait: Duration) -> Option<Instant> {
        self.ages.first().map(|&(since, _)| since + wait)
    }

    fn drop_request(&mut self, chunk: ChunkIndex) -> Option<Request> {
        let request = self.requests.remove(&chunk)?;
        self.ages.remove(&(request.since, chunk));
        Some(request)
    }
}

/// Blocks that can be repaired: the last 256 MiB, some seconds at 1 Gbit/s.
const BLOCKS_REMEMBERED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    const WAIT: Duration = Duration::from_millis(500);

    fn chunk(number: u32) -> ChunkIndex {
        Geometry::of_len(1 << 30).unwrap().chunk(number).unwrap()
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn asked(lacking: &[u8]) -> Repair {
        let mut repair = Repair::default();
        repair.sent(chunk(1), 2);
        for (number, &symbols) in lacking.iter().enumerate() {
            repair.ask(Instant::START, peer(number as u8), chunk(1), symbols);
        }
        repair
    }

    #[test]
    fn as_many_symbols_as_enough_members_can_use() {
        let patch = |lacking: &[u8]| asked(lacking).next_patch(Instant::START + WAIT, WAIT, 3);
        assert_eq!(patch(&[1, 5, 3, 2]), Some(Patch { chunk: chunk(1), from: 2, to: 4 }));
        assert_eq!(patch(&[9, 9]), None);
        assert_eq!(patch(&[126; 3]), Some(Patch { chunk: chunk(1), from: 2, to: PARITY_MOST }));
    }

    #[test]
    fn requests_are_collected_first_and_answered_once() {
        let mut repair = asked(&[1, 1, 1]);
        assert_eq!(repair.next_patch(Instant::from_millis(499), WAIT, 3), None);
        assert_eq!(repair.next_due(WAIT), Some(Instant::from_millis(500)));
        assert!(repair.next_patch(Instant::from_millis(500), WAIT, 3).is_some());
        assert_eq!(repair.next_patch(Instant::from_millis(500), WAIT, 3), None);
        assert_eq!(repair.next_due(WAIT), None);
        repair.ask(Instant::from_millis(600), peer(1), chunk(1), 1);
        let patch = repair.next_patch(Instant::from_millis(1100), WAIT, 1);
        assert_eq!(patch, Some(Patch { chunk: chunk(1), from: 3, to: 4 }));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut repair = asked(&[1, 1, 1]);
        for number in 2..2 + BLOCKS_REMEMBERED as u32 {
            repair.sent(chunk(number), 1);
        }
        assert_eq!(repair.next_due(WAIT), None);
        repair.ask(Instant::START, peer(1), chunk(1), 1);
        assert_eq!(repair.next_due(WAIT), None);
        assert_eq!((repair.parity.len(), repair.order.len()), (BLOCKS_REMEMBERED, BLOCKS_REMEMBERED));
    }
}
