//! Chunks of a piece as the page ranges of a request, and back.
//!
//! Today a range is always whole chunks. What a peer sends is checked against the image's geometry here, before anything
//! is looked up.

use core::ops::Range;

use drover_protocol::geometry::{CHUNK_LEN, Geometry, PAGE_LEN, PieceIndex};
use drover_protocol::message::{MAX_RANGES, PageRange};

const PAGES_PER_CHUNK: u32 = CHUNK_LEN / PAGE_LEN;

/// The page ranges that ask for `chunks`, which are numbers within the image, rising, apart and all of `piece`.
pub(crate) fn to_pages(geometry: &Geometry, piece: PieceIndex, chunks: &[Range<u32>]) -> Vec<PageRange> {
    let first_of_piece = geometry.chunk_numbers(piece).start;
    let pages = chunks.iter().map(|run| {
        let last = geometry.chunk(run.end - 1).expect("a request of ours is for chunks that the image has");
        let last_pages = geometry.chunk_len(last).div_ceil(PAGE_LEN);
        PageRange {
            first: (run.start - first_of_piece) * PAGES_PER_CHUNK,
            count: (run.end - 1 - run.start) * PAGES_PER_CHUNK + last_pages,
        }
    });
    pages.collect()
}

/// The chunks (numbers within the image) that a peer's `ranges` of the piece with this number ask for; `None` if they are
/// not whole chunks of it, rising and apart.
pub(crate) fn to_chunks(geometry: &Geometry, piece: u32, ranges: &[PageRange]) -> Option<Vec<Range<u32>>> {
    let of_piece = geometry.chunk_numbers(geometry.piece(piece)?);
    if ranges.is_empty() || ranges.len() > MAX_RANGES {
        return None;
    }
    let mut chunks: Vec<Range<u32>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let start = of_piece.start.checked_add(range.first / PAGES_PER_CHUNK)?;
        let end = start.checked_add(range.count.div_ceil(PAGES_PER_CHUNK))?;
        let apart = chunks.last().is_none_or(|before| before.end < start);
        if start >= end || end > of_piece.end || !apart {
            return None;
        }
        chunks.push(start..end);
    }
    // One form only: what our own side would have written for these chunks.
    (to_pages(geometry, geometry.piece(piece)?, &chunks) == ranges).then_some(chunks)
}

/// Bytes in these chunks.
pub(crate) fn bytes_in(geometry: &Geometry, chunks: &[Range<u32>]) -> u64 {
    let len = |run: &Range<u32>| {
        let end = (u64::from(run.end) * u64::from(CHUNK_LEN)).min(geometry.len());
        end.saturating_sub(u64::from(run.start) * u64::from(CHUNK_LEN))
    };
    chunks.iter().map(len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pieces: four chunks, then two, of which the last is 5,000 bytes long.
    fn geometry() -> Geometry {
        Geometry::new(5 * u64::from(CHUNK_LEN) + 5000, 256 << 10).unwrap()
    }

    #[test]
    fn chunks_become_pages_and_pages_chunks() {
        let geometry = geometry();
        let both = [0..1, 2..4];
        let cases: [(u32, &[Range<u32>], u64); 3] = [
            (0, &both, 3 * 65536),
            (1, core::slice::from_ref(&(4..6)), 65536 + 5000),
            (1, core::slice::from_ref(&(5..6)), 5000),
        ];
        for (piece, chunks, bytes) in cases {
            let pages = to_pages(&geometry, geometry.piece(piece).unwrap(), chunks);
            assert_eq!(bytes_in(&geometry, chunks), bytes);
            assert_eq!(to_chunks(&geometry, piece, &pages).as_deref(), Some(chunks));
        }
        let last = to_pages(&geometry, geometry.piece(1).unwrap(), &[4..5, 5..6]);
        assert_eq!(last[1], PageRange { first: 16, count: 2 });
    }

    #[test]
    fn ranges_that_are_not_whole_chunks_of_the_piece_are_refused() {
        let geometry = geometry();
        let refused = |piece, ranges: &[(u32, u32)]| {
            let ranges: Vec<_> = ranges.iter().map(|&(first, count)| PageRange { first, count }).collect();
            assert_eq!(to_chunks(&geometry, piece, &ranges), None, "{piece} {ranges:?}");
        };
        refused(0, &[]);
        refused(2, &[(0, 16)]);
        refused(u32::MAX, &[(0, 16)]);
        refused(0, &[(0, 0)]);
        refused(0, &[(8, 16)]);
        refused(0, &[(0, 15)]);
        refused(0, &[(0, 80)]);
        refused(0, &[(u32::MAX, u32::MAX)]);
        refused(0, &[(0, u32::MAX)]);
        refused(0, &[(32, 16), (0, 16)]);
        refused(0, &[(0, 16), (16, 16)]);
        refused(1, &[(0, 32)]);
        refused(0, &vec![(0, 16); MAX_RANGES + 1]);
    }
}
