//! Lengths: of an image, of its chunks, of its pieces; and the only maker of their indices.
//!
//! A [`ChunkIndex`] or [`PieceIndex`] exists only for a chunk or piece that the image has, because a number from
//! outside becomes one only through [`Geometry::chunk`] or [`Geometry::piece`]. An index belongs to the geometry that
//! made it; a machine or a store holds indices of one image only.

use core::ops::Range;

/// Length of a chunk in bytes, the unit of identity and verification. Only an image's last chunk may be shorter.
pub const CHUNK_LEN: u32 = 64 * 1024;
/// Unit in which a request names ranges, in bytes.
pub const PAGE_LEN: u32 = 4 * 1024;
/// Shortest piece in bytes. Of a small image the length of a piece decides how long the first and the last of them take to
/// get around: of 64 MiB for 15 hosts the last finished at 1.21 of the bound with 256 KiB, at 1.17 with 128 KiB, at 1.16 with
/// 64 KiB, which takes twice as many requests (simulated).
pub const MIN_PIECE_LEN: u32 = 128 * 1024;
/// Longest piece in bytes.
pub const MAX_PIECE_LEN: u32 = 16 * 1024 * 1024;
/// Longest image in bytes (1 TiB): bounds a manifest to 512 MiB and a have set to 65,536 pieces.
pub const MAX_IMAGE_LEN: u64 = 1 << 40;
/// How many pieces the rule for a piece's length aims at.
const PIECES_AIMED_AT: u64 = 2048;

/// The number of a chunk within its image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChunkIndex(pub(crate) u32);

/// The number of a piece within its image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceIndex(pub(crate) u32);

impl ChunkIndex {
    /// The plain number, for the wire and for arithmetic.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl PieceIndex {
    /// The plain number, for the wire and for arithmetic.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Why lengths make no geometry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The image has no bytes.
    #[error("the image is empty")]
    Empty,
    /// The image is longer than [`MAX_IMAGE_LEN`].
    #[error("the image is {0} bytes long, the most is {MAX_IMAGE_LEN}")]
    TooLong(u64),
    /// The length of a piece is no power of two between [`MIN_PIECE_LEN`] and [`MAX_PIECE_LEN`].
    #[error("{0} is no length of a piece: a power of two from {MIN_PIECE_LEN} to {MAX_PIECE_LEN}")]
    PieceLen(u32),
}

/// How an image is divided into chunks and pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    len: u64,
    piece_len: u32,
}

impl Geometry {
    /// The geometry of an image of `len` bytes, with the usual length of a piece:
    /// `clamp(next_power_of_two(len / 2048), 128 KiB, 16 MiB)`.
    pub fn of_len(len: u64) -> Result<Self, GeometryError> {
        let piece_len = (len / PIECES_AIMED_AT)
            .clamp(u64::from(MIN_PIECE_LEN), u64::from(MAX_PIECE_LEN))
            .next_power_of_two()
            .min(u64::from(MAX_PIECE_LEN));
        Self::new(len, piece_len as u32)
    }

    /// The geometry of an image of `len` bytes in pieces of `piece_len` bytes.
    pub fn new(len: u64, piece_len: u32) -> Result<Self, GeometryError> {
        if len == 0 {
            return Err(GeometryError::Empty);
        }
        if len > MAX_IMAGE_LEN {
            return Err(GeometryError::TooLong(len));
        }
        if !piece_len.is_power_of_two() || !(MIN_PIECE_LEN..=MAX_PIECE_LEN).contains(&piece_len) {
            return Err(GeometryError::PieceLen(piece_len));
        }
        Ok(Geometry { len, piece_len })
    }

    /// Length of the image in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Never: an empty image has no geometry.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Length of a piece in bytes; the last may be shorter.
    pub const fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Number of chunks.
    pub const fn chunk_count(&self) -> u32 {
        self.len.div_ceil(CHUNK_LEN as u64) as u32
    }

    /// Number of pieces.
    pub const fn piece_count(&self) -> u32 {
        self.len.div_ceil(self.piece_len as u64) as u32
    }

    /// Number of chunks in every piece but the last.
    pub const fn chunks_per_piece(&self) -> u32 {
        self.piece_len / CHUNK_LEN
    }

    /// The chunk of this number, if the image has it.
    pub fn chunk(&self, number: u32) -> Option<ChunkIndex> {
        (number < self.chunk_count()).then_some(ChunkIndex(number))
    }

    /// The piece of this number, if the image has it.
    pub fn piece(&self, number: u32) -> Option<PieceIndex> {
        (number < self.piece_count()).then_some(PieceIndex(number))
    }

    /// All chunks in order.
    pub fn chunks(&self) -> impl DoubleEndedIterator<Item = ChunkIndex> + ExactSizeIterator + use<> {
        (0..self.chunk_count()).map(ChunkIndex)
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        (0..self.piece_count()).map(PieceIndex)
    }

    /// The piece that a chunk lies in.
    pub const fn piece_of(&self, chunk: ChunkIndex) -> PieceIndex {
        PieceIndex(chunk.0 / self.chunks_per_piece())
    }

    /// Numbers of the chunks of a piece.
    pub fn chunk_numbers(&self, piece: PieceIndex) -> Range<u32> {
        let first = piece.0 * self.chunks_per_piece();
        first..(first + self.chunks_per_piece()).min(self.chunk_count())
    }

    /// The chunks of a piece in order.
    pub fn chunks_of(
        &self,
        piece: PieceIndex,
    ) -> impl DoubleEndedIterator<Item = ChunkIndex> + ExactSizeIterator + use<> {
        self.chunk_numbers(piece).map(ChunkIndex)
    }

    /// Where a chunk begins within the image, in bytes.
    pub const fn chunk_offset(&self, chunk: ChunkIndex) -> u64 {
        chunk.0 as u64 * CHUNK_LEN as u64
    }

    /// Length of a chunk in bytes: [`CHUNK_LEN`] for all but the last.
    pub fn chunk_len(&self, chunk: ChunkIndex) -> u32 {
        (self.len - self.chunk_offset(chunk)).min(u64::from(CHUNK_LEN)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_grows_with_the_image_within_its_limits() {
        let piece_len = |len| Geometry::of_len(len).unwrap().piece_len();
        assert_eq!(piece_len(1), 128 << 10);
        assert_eq!(piece_len(128 << 20), 128 << 10);
        assert_eq!(piece_len(512 << 20), 256 << 10);
        assert_eq!(piece_len(8 << 30), 4 << 20);
        assert_eq!(piece_len(10 << 30), 8 << 20);
        assert_eq!(piece_len(60 << 30), 16 << 20);
        assert_eq!(piece_len(MAX_IMAGE_LEN), 16 << 20);
    }

    #[test]
    fn the_last_chunk_and_piece_may_be_short() {
        let geometry = Geometry::new((256 << 10) + 100, 256 << 10).unwrap();
        assert_eq!((geometry.chunk_count(), geometry.piece_count()), (5, 2));
        let last = geometry.chunk(4).unwrap();
        assert_eq!(geometry.chunk_len(last), 100);
        assert_eq!(geometry.piece_of(last), geometry.piece(1).unwrap());
        assert_eq!(geometry.chunk_numbers(geometry.piece(1).unwrap()), 4..5);
        assert_eq!((geometry.chunk(5), geometry.piece(2)), (None, None));
    }

    #[test]
    fn lengths_out_of_bounds_are_refused() {
        assert_eq!(Geometry::of_len(0), Err(GeometryError::Empty));
        assert_eq!(Geometry::of_len(MAX_IMAGE_LEN + 1), Err(GeometryError::TooLong(MAX_IMAGE_LEN + 1)));
        assert_eq!(Geometry::new(1, 300 << 10), Err(GeometryError::PieceLen(300 << 10)));
        assert_eq!(Geometry::new(1, 32 << 20), Err(GeometryError::PieceLen(32 << 20)));
    }
}
