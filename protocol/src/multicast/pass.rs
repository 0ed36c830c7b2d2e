//! One pass over some blocks: their packets in the order in which they are sent.
//!
//! Blocks are interleaved symbol by symbol, so that packets that follow each other belong to different blocks. A burst of
//! losses, or a batch that is lost as a whole, then costs many blocks one symbol each rather than one block many. Each round
//! begins with another block: a full queue drops the end of each burst, and would otherwise always drop the same blocks.

use core::ops::Range;
use std::collections::VecDeque;

use crate::geometry::ChunkIndex;

/// What is sent of one block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BlockPlan {
    /// Which block.
    pub chunk: ChunkIndex,
    /// Source symbols.
    pub k: u8,
    /// Parity symbols made so far, these included.
    pub h: u8,
    /// Numbers of the symbols that are sent.
    pub symbols: Range<u8>,
}

/// A packet without session and sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Planned {
    /// Which block.
    pub chunk: ChunkIndex,
    /// Number of the symbol.
    pub symbol: u8,
    /// Source symbols of the block.
    pub k: u8,
    /// Parity symbols made so far.
    pub h: u8,
    /// Packets until the block's last one.
    pub rest: u16,
}

/// The packets that are left of a pass, and the blocks that it has.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    packets: VecDeque<Planned>,
    blocks: Vec<BlockPlan>,
}

impl Pass {
    /// A pass over `blocks`, each of which has symbols to send.
    pub(super) fn new(blocks: Vec<BlockPlan>) -> Self {
        let longest = blocks.iter().map(|block| block.symbols.len()).max().unwrap_or(0);
        let rounds = (0..longest).flat_map(|round| {
            let (last, first) = blocks.split_at(round % blocks.len());
            let in_round = first.iter().chain(last).filter(move |block| round < block.symbols.len());
            in_round.map(move |block| (block, block.symbols.start + round as u8))
        });
        let mut packets: VecDeque<Planned> = rounds
            .map(|(block, symbol)| Planned { chunk: block.chunk, symbol, k: block.k, h: block.h, rest: 0 })
            .collect();
        for block in &blocks {
            let last = packets.iter().rposition(|packet| packet.chunk == block.chunk).unwrap_or(0);
            let its = packets.iter_mut().enumerate().filter(|(_, packet)| packet.chunk == block.chunk);
            its.for_each(|(at, packet)| packet.rest = (last - at) as u16);
        }
        Pass { packets, blocks }
    }

    /// Takes the next packet.
    pub(super) fn next(&mut self) -> Option<Planned> {
        self.packets.pop_front()
    }

    /// Whether no packet is left.
    pub(super) fn is_over(&self) -> bool {
        self.packets.is_empty()
    }

    /// The blocks.
    pub(super) fn blocks(&self) -> &[BlockPlan] {
        &self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    #[test]
    fn neighbours_are_of_different_blocks_and_each_packet_tells_how_many_follow() {
        let geometry = Geometry::of_len(1 << 20).unwrap();
        let plan = |number, k, symbols| BlockPlan { chunk: geometry.chunk(number).unwrap(), k, h: 1, symbols };
        let mut pass = Pass::new(vec![plan(0, 2, 0..3), plan(1, 1, 0..2), plan(2, 9, 9..10)]);
        let mut packets = Vec::new();
        while let Some(packet) = pass.next() {
            packets.push((packet.chunk.number(), packet.symbol, packet.rest));
        }
        assert_eq!(packets, [(0, 0, 5), (1, 0, 2), (2, 9, 0), (1, 1, 0), (0, 1, 1), (0, 2, 0)]);
        assert!(pass.is_over());
    }
}
