//! The erasure code: a chunk as source symbols, parity symbols made of them, and the way back.
//!
//! The only part of multicast that sees payload. A block is a chunk in `k` symbols of equal length, the last one filled up with
//! zeros, and parity: a systematic Reed-Solomon code over GF(2^8) (`reed-solomon-erasure`: a Vandermonde matrix times the inverse of
//! its upper square). Any `k` symbols give the chunk back. Parity symbol `i` is the same whatever the number of parity symbols
//! made, so more can be made later, as repair, without knowing what was sent before.
//!
//! Nothing is decoded unless a source symbol is lost. A decoded chunk is not trusted: one forged symbol among those
//! that made it spoils it, and the code does not notice. `Manifest::verify` does.
//!
//! A code is made once for each shape and kept; its matrices for patterns of losses are kept by the library.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use reed_solomon_erasure::galois_8::ReedSolomon;

use crate::geometry::CHUNK_LEN;

/// Usual length of a symbol in bytes: 48 make a chunk, and with header, tag and the headers of IPv6 it still fits a frame of 1,500.
/// 64 of 1,024 cost 3 % more of the wire.
pub const SYMBOL_LEN: usize = 1366;
/// Shortest symbol that a session may have: so that a block's symbols, parity included, fit 128 bits.
pub const SYMBOL_LEN_LEAST: usize = 600;
/// Longest symbol that a session may have: a jumbo frame of 9,000 bytes.
pub const SYMBOL_LEN_MOST: usize = 8900;
/// Most parity symbols of a block. More than a third would not be a network for multicast.
pub const PARITY_MOST: u8 = 16;

/// How a block is divided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shape {
    /// Source symbols.
    pub k: u8,
    /// Parity symbols.
    pub h: u8,
}

/// How many source symbols a chunk of `chunk_len` bytes has.
///
/// # Panics
///
/// If the chunk is empty or longer than [`CHUNK_LEN`], or the symbol shorter than [`SYMBOL_LEN_LEAST`].
pub fn source_symbols(chunk_len: u32, symbol_len: usize) -> u8 {
    assert!((1..=CHUNK_LEN).contains(&chunk_len), "a chunk has bytes, and no more than {CHUNK_LEN}");
    assert!(symbol_len >= SYMBOL_LEN_LEAST, "a symbol has at least {SYMBOL_LEN_LEAST} bytes");
    (chunk_len as usize).div_ceil(symbol_len) as u8
}

/// The codes that were needed so far.
#[derive(Debug, Default)]
pub struct Codes {
    codes: BTreeMap<Shape, ReedSolomon>,
}

/// A chunk with its parity, as symbols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedBlock {
    symbols: Vec<u8>,
    symbol_len: usize,
}

/// The symbols of incomplete blocks at a receiver: a bounded pool of buffers.
///
/// The receiver machine decides which symbols are kept and which blocks are dropped; this holds their bytes.
#[derive(Debug)]
pub struct BlockPool {
    codes: Codes,
    symbol_len: usize,
    blocks: BTreeMap<u32, Block>,
    spare: Vec<Vec<u8>>,
}

/// One incomplete block: places for `k` source and [`PARITY_MOST`] parity symbols, and which of them are filled.
#[derive(Debug)]
struct Block {
    k: u8,
    symbols: Vec<u8>,
    filled: u128,
}

impl Codes {
    fn get(&mut self, shape: Shape) -> &ReedSolomon {
        assert!(shape.k > 0 && (1..=PARITY_MOST).contains(&shape.h), "a code has symbols of both kinds");
        match self.codes.entry(shape) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let code = ReedSolomon::new(usize::from(shape.k), usize::from(shape.h));
                entry.insert(code.expect("a block has at most 126 symbols, the code allows 255"))
            }
        }
    }

    /// `chunk` and its first `h` parity symbols, in symbols of `symbol_len` bytes.
    pub fn encode(&mut self, chunk: &[u8], symbol_len: usize, h: u8) -> EncodedBlock {
        let k = source_symbols(chunk.len() as u32, symbol_len);
        let sources_len = usize::from(k) * symbol_len;
        let mut symbols = vec![0; sources_len + usize::from(h) * symbol_len];
        symbols[..chunk.len()].copy_from_slice(chunk);
        if h > 0 {
            let (sources, parity) = symbols.split_at_mut(sources_len);
            let sources: Vec<&[u8]> = sources.chunks_exact(symbol_len).collect();
            let mut parity: Vec<&mut [u8]> = parity.chunks_exact_mut(symbol_len).collect();
            let done = self.get(Shape { k, h }).encode_sep(&sources, &mut parity);
            done.expect("the symbols have the code's shape");
        }
        EncodedBlock { symbols, symbol_len }
    }
}

impl EncodedBlock {
    /// The symbol of this number, source or parity; `None` of one that was not made.
    pub fn symbol(&self, number: u8) -> Option<&[u8]> {
        self.symbols.chunks_exact(self.symbol_len).nth(usize::from(number))
    }
}

impl BlockPool {
    /// An empty pool for symbols of `symbol_len` bytes.
    pub fn new(symbol_len: usize) -> Self {
        BlockPool { codes: Codes::default(), symbol_len, blocks: BTreeMap::new(), spare: Vec::new() }
    }

    /// Bytes that one block of a whole chunk takes.
    pub fn block_len(symbol_len: usize) -> usize {
        (usize::from(source_symbols(CHUNK_LEN, symbol_len)) + usize::from(PARITY_MOST)) * symbol_len
    }

    /// Keeps a symbol of the block `chunk` with `k` source symbols. The receiver machine said that it fits.
    ///
    /// # Panics
    ///
    /// If the symbol has another length than the session's, or a number that the block does not have.
    pub fn insert(&mut self, chunk: u32, k: u8, number: u8, symbol: &[u8]) {
        assert!(number < k + PARITY_MOST, "the receiver machine lets no other symbol through");
        let symbol_len = self.symbol_len;
        let block = self.blocks.entry(chunk).or_insert_with(|| {
            let mut symbols = self.spare.pop().unwrap_or_default();
            symbols.resize(usize::from(k + PARITY_MOST) * symbol_len, 0);
            Block { k, symbols, filled: 0 }
        });
        let from = usize::from(number) * symbol_len;
        block.symbols[from..from + symbol_len].copy_from_slice(symbol);
        block.filled |= 1 << number;
    }

    /// Hands out the chunk's `chunk_len` bytes and forgets the block; `None` if it has fewer than `k` symbols.
    pub fn decode(&mut self, chunk: u32, chunk_len: u32) -> Option<Vec<u8>> {
        let block = self.blocks.get_mut(&chunk)?;
        let k = block.k;
        if (block.filled.count_ones() as u8) < k || source_symbols(chunk_len, self.symbol_len) != k {
            return None;
        }
        let sources = (1u128 << k) - 1;
        if block.filled & sources != sources {
            let filled = block.filled;
            let symbols = block.symbols.chunks_exact_mut(self.symbol_len).enumerate();
            let mut symbols: Vec<(&mut [u8], bool)> =
                symbols.map(|(number, symbol)| (symbol, filled & (1 << number) != 0)).collect();
            let done = self.codes.get(Shape { k, h: PARITY_MOST }).reconstruct_data(&mut symbols);
            done.expect("there are k symbols of equal length");
        }
        let bytes = block.symbols[..chunk_len as usize].to_vec();
        self.forget(chunk);
        Some(bytes)
    }

    /// Drops what is kept of a block.
    pub fn forget(&mut self, chunk: u32) {
        if let Some(block) = self.blocks.remove(&chunk)
            && self.spare.len() < SPARE_MOST
        {
            self.spare.push(block.symbols);
        }
    }

    /// Number of blocks that something is kept of.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// Buffers kept for the next blocks: as many as are interleaved, twice.
const SPARE_MOST: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn chunk_of(rng: &mut Rng, len: usize) -> Vec<u8> {
        (0..len).map(|_| rng.next_u64() as u8).collect()
    }

    /// Any `k` of the symbols, by losing as many as there is parity.
    fn survivors(rng: &mut Rng, k: u8, h: u8) -> Vec<u8> {
        let mut numbers: Vec<u8> = (0..k + h).collect();
        rng.shuffle(&mut numbers);
        numbers.truncate(usize::from(k));
        numbers
    }

    #[test]
    fn a_chunk_is_48_usual_symbols() {
        assert_eq!(source_symbols(CHUNK_LEN, SYMBOL_LEN), 48);
        assert_eq!(source_symbols(1, SYMBOL_LEN), 1);
        let longest = source_symbols(CHUNK_LEN, SYMBOL_LEN_LEAST) + PARITY_MOST;
        assert!(longest <= 127, "{longest} symbols fit the bits of a block");
    }

    #[test]
    fn too_few_symbols_give_nothing_and_stay() {
        let mut pool = BlockPool::new(SYMBOL_LEN);
        let block = Codes::default().encode(&[1; 5000], SYMBOL_LEN, 1);
        for number in [0, 1, 4] {
            pool.insert(7, 4, number, block.symbol(number).unwrap());
        }
        assert_eq!(pool.decode(7, 5000), None);
        assert_eq!(pool.decode(8, 5000), None);
        pool.insert(7, 4, 2, block.symbol(2).unwrap());
        assert_eq!(pool.decode(7, 5000), Some(vec![1; 5000]));
        assert!(pool.is_empty());
    }

    #[test]
    fn a_reused_buffer_shows_nothing_of_its_past() {
        let mut pool = BlockPool::new(SYMBOL_LEN);
        let mut codes = Codes::default();
        for byte in 1..4 {
            let block = codes.encode(&[byte; 3000], SYMBOL_LEN, 2);
            for number in [0, 3, 4] {
                pool.insert(0, 3, number, block.symbol(number).unwrap());
            }
            assert_eq!(pool.decode(0, 3000), Some(vec![byte; 3000]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_k_symbols_of_any_shape_give_the_chunk(
            len in 1..=CHUNK_LEN, symbol_len in SYMBOL_LEN_LEAST..2000, h in 0..=PARITY_MOST, seed: u64,
        ) {
            let mut rng = Rng::seeded(seed);
            let chunk = chunk_of(&mut rng, len as usize);
            let block = Codes::default().encode(&chunk, symbol_len, h);
            let k = source_symbols(len, symbol_len);
            let mut pool = BlockPool::new(symbol_len);
            for number in survivors(&mut rng, k, h) {
                pool.insert(1, k, number, block.symbol(number).unwrap());
            }
            prop_assert_eq!(pool.decode(1, len), Some(chunk));
        }

        #[test]
        fn parity_made_later_is_the_same(len in 1..=CHUNK_LEN, first in 1..PARITY_MOST, seed: u64) {
            let mut codes = Codes::default();
            let chunk = chunk_of(&mut Rng::seeded(seed), len as usize);
            let (few, all) = (codes.encode(&chunk, SYMBOL_LEN, first), codes.encode(&chunk, SYMBOL_LEN, PARITY_MOST));
            let k = source_symbols(len, SYMBOL_LEN);
            for number in 0..k + first {
                prop_assert_eq!(few.symbol(number), all.symbol(number));
            }
            prop_assert_eq!(few.symbol(k + first), None);
        }
    }
}
