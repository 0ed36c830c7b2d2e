//! Which symbols of which blocks came, and which blocks have been passed by: the receiver's side without payload.

use std::collections::BTreeMap;

use super::packet::Header;
use crate::geometry::ChunkIndex;
use crate::time::{Duration, Instant};

/// Incomplete blocks, at most so many.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    blocks: BTreeMap<ChunkIndex, Incoming>,
    most: usize,
}

/// What came of one block.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    k: u8,
    symbols: u128,
    /// Sequence number of the last packet of the latest pass over the block.
    due: u64,
    /// When it was reported as lacking, if it was.
    reported: Option<Instant>,
    /// Complete, and waiting for its verification.
    is_decoding: bool,
}

/// What a symbol is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Symbol {
    /// It was there before, or is not needed any more.
    Useless,
    /// It is kept.
    Kept,
    /// It is kept, and the block can be decoded.
    Completes,
}

impl Blocks {
    /// No blocks yet, and at most `most`.
    pub(super) fn new(most: usize) -> Self {
        Blocks { blocks: BTreeMap::new(), most: most.max(1) }
    }

    /// Symbols of a block came: a bit for each. `header` is that of the last packet.
    pub(super) fn add(&mut self, chunk: ChunkIndex, header: &Header, symbols: u128) -> Symbol {
        let fresh = Incoming { k: header.k, symbols: 0, due: 0, reported: None, is_decoding: false };
        let block = self.blocks.entry(chunk).or_insert(fresh);
        block.due = block.due.max(header.sequence.saturating_add(u64::from(header.rest)));
        if block.is_decoding || symbols & !block.symbols == 0 {
            return Symbol::Useless;
        }
        block.symbols |= symbols;
        if block.symbols.count_ones() < u32::from(block.k) {
            return Symbol::Kept;
        }
        block.is_decoding = true;
        Symbol::Completes
    }

    /// Forgets a block; says whether something of it was there.
    pub(super) fn remove(&mut self, chunk: ChunkIndex) -> bool {
        self.blocks.remove(&chunk).is_some()
    }

    /// If there are as many blocks as there may be, forgets the one whose pass ends first, to make room.
    pub(super) fn evict(&mut self, newcomer: ChunkIndex) -> Option<ChunkIndex> {
        if self.blocks.len() < self.most || self.blocks.contains_key(&newcomer) {
            return None;
        }
        let waiting = self.blocks.iter().filter(|(_, block)| !block.is_decoding);
        let oldest = waiting.min_by_key(|(_, block)| block.due).map(|(&chunk, _)| chunk)?;
        self.remove(oldest);
        Some(oldest)
    }

    /// Whether no block may be added. Only so while all of them wait for their verification.
    pub(super) fn is_full(&self) -> bool {
        self.blocks.len() >= self.most
    }

    /// Whether something of a block is there.
    pub(super) fn contains(&self, chunk: ChunkIndex) -> bool {
        self.blocks.contains_key(&chunk)
    }

    /// Takes those that are not complete.
    pub(super) fn take_waiting(&mut self) -> Vec<ChunkIndex> {
        let waiting = self.blocks.extract_if(.., |_, block| !block.is_decoding);
        waiting.map(|(chunk, _)| chunk).collect()
    }

    /// Blocks whose last packet, with some grace, is below `passed`, and that were not reported yet: which, and how many symbols each
    /// lacks. They count as reported from now on.
    pub(super) fn take_lacking(&mut self, now: Instant, passed: u64, most: usize) -> Vec<(ChunkIndex, u8)> {
        let lacking = self.blocks.iter_mut().filter(|(_, block)| block.is_lacking(passed) && block.reported.is_none());
        lacking
            .take(most)
            .map(|(&chunk, block)| {
                block.reported = Some(now);
                (chunk, block.k - block.symbols.count_ones() as u8)
            })
            .collect()
    }

    /// Blocks that were reported at least `wait` ago, and lack symbols still.
    pub(super) fn given_up(&self, now: Instant, passed: u64, wait: Duration) -> Vec<ChunkIndex> {
        let is_late = |block: &Incoming| block.reported.is_some_and(|at| at + wait <= now) && block.is_lacking(passed);
        self.blocks.iter().filter(|(_, block)| is_late(block)).map(|(&chunk, _)| chunk).collect()
    }
}

impl Incoming {
    fn is_lacking(&self, passed: u64) -> bool {
        !self.is_decoding && self.due < passed
    }
}
