//! Every chunk lies in one piece, and together they are the image.

use drover_protocol::geometry::{CHUNK_LEN, Geometry, MAX_IMAGE_LEN, MAX_PIECE_LEN, MIN_PIECE_LEN};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_length_up_to_the_most_has_a_geometry(len in 1..=MAX_IMAGE_LEN) {
        let geometry = Geometry::of_len(len).unwrap();
        let piece_len = geometry.piece_len();
        prop_assert!(piece_len.is_power_of_two() && (MIN_PIECE_LEN..=MAX_PIECE_LEN).contains(&piece_len));
        prop_assert_eq!(u64::from(geometry.chunk_count()), len.div_ceil(u64::from(CHUNK_LEN)));
        prop_assert_eq!(u64::from(geometry.piece_count()), len.div_ceil(u64::from(piece_len)));
        prop_assert!(geometry.piece_count() <= 65_536);
        prop_assert!(piece_len == MAX_PIECE_LEN || geometry.piece_count() <= 2048);
        prop_assert_eq!(Geometry::new(len, piece_len), Ok(geometry));

        let last = geometry.chunk(geometry.chunk_count() - 1).unwrap();
        prop_assert_eq!(geometry.chunk_offset(last) + u64::from(geometry.chunk_len(last)), len);
        prop_assert!((1..=CHUNK_LEN).contains(&geometry.chunk_len(last)));
        prop_assert_eq!(geometry.piece_of(last).number(), geometry.piece_count() - 1);
        prop_assert!(geometry.chunk(geometry.chunk_count()).is_none());
        prop_assert!(geometry.piece(geometry.piece_count()).is_none());
    }

    #[test]
    fn pieces_divide_the_chunks(len in 1..40u64 << 20, shift in 0..7u32) {
        let geometry = Geometry::new(len, MIN_PIECE_LEN << shift).unwrap();
        let mut chunks = geometry.chunks();
        for piece in geometry.pieces() {
            for chunk in geometry.chunks_of(piece) {
                prop_assert_eq!(geometry.piece_of(chunk), piece);
                prop_assert_eq!(chunks.next(), Some(chunk));
            }
        }
        prop_assert_eq!(chunks.next(), None);
        let total: u64 = geometry.chunks().map(|chunk| u64::from(geometry.chunk_len(chunk))).sum();
        prop_assert_eq!(total, len);
    }
}
