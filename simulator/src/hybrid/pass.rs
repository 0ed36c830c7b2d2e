//! What a sender sends before it turns to other blocks: one event for all members, instead of one for each packet.
//!
//! The machines interleave the symbols of some blocks and go on to the next ones when all are sent. Here it is noted which
//! symbols went out in which order, and members hear of all of them when the last has come: by some milliseconds later than
//! packet by packet, at the end of a transfer as much as at its beginning. Which packets each loses is drawn one by one.

use drover_protocol::multicast::packet::Header;

/// Symbols of some blocks, as they were sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    /// In the order of sending: which block, by its place, and which symbol.
    packets: Vec<(u8, u8)>,
    blocks: Vec<Block>,
    /// The first packet's header.
    first: Option<Header>,
    /// Packets that get lost before they reach anybody.
    pub(super) lost: Vec<u32>,
    /// At which rate it was sent, in bytes per second on the wire.
    pub(super) rate: u64,
}

/// What is sent of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// The last packet's header.
    pub(super) last: Header,
    /// A bit for each symbol.
    pub(super) symbols: u128,
}

impl Pass {
    /// A packet is sent.
    pub(super) fn add(&mut self, header: Header) {
        self.first.get_or_insert(header);
        let place = self.blocks.iter().position(|block| block.last.chunk == header.chunk);
        let place = place.unwrap_or_else(|| {
            self.blocks.push(Block { last: header, symbols: 0 });
            self.blocks.len() - 1
        });
        let block = &mut self.blocks[place];
        block.last = header;
        block.symbols |= 1 << header.symbol;
        self.packets.push((place as u8, header.symbol));
    }

    /// Number of packets.
    pub(super) fn len(&self) -> u32 {
        self.packets.len() as u32
    }

    /// What comes of it if packets at these places get lost.
    pub(super) fn without<'a>(&self, lost: impl Iterator<Item = &'a u32>) -> Vec<Block> {
        let mut blocks = self.blocks.clone();
        for &place in lost {
            let (block, symbol) = self.packets[place as usize];
            blocks[usize::from(block)].symbols &= !(1 << symbol);
        }
        blocks.retain(|block| block.symbols != 0);
        blocks
    }

    /// Sequence number of its first packet; 0 if there is none.
    pub(super) fn first_sequence(&self) -> u64 {
        self.first.map_or(0, |first| first.sequence)
    }
}
