//! Parts of pieces, plain and on the wire.

use std::collections::BTreeSet;

use drover_protocol::geometry::{CHUNK_LEN, Geometry};
use drover_protocol::have::{HaveError, WireDelta};
use drover_protocol::parts::{Parts, WireParts};
use proptest::prelude::*;

fn image(chunks: u32, piece_len: u32) -> Geometry {
    Geometry::new(u64::from(chunks) * u64::from(CHUNK_LEN), piece_len).unwrap()
}

fn geometry() -> impl Strategy<Value = Geometry> {
    (1..1500u32, 18..25u32).prop_map(|(chunks, log)| image(chunks, 1 << log))
}

fn parts_of(geometry: &Geometry, numbers: &BTreeSet<u32>) -> Parts {
    let mut parts = Parts::default();
    for chunk in numbers.iter().filter_map(|&number| geometry.chunk(number)) {
        parts.insert(geometry, chunk);
    }
    parts
}

proptest! {
    #[test]
    fn parts_are_what_was_put_in_and_come_back_from_the_wire(
        geometry in geometry(),
        numbers in prop::collection::btree_set(0..1500u32, 0..200),
    ) {
        let parts = parts_of(&geometry, &numbers);
        for chunk in geometry.chunks() {
            prop_assert_eq!(parts.contains(&geometry, chunk), numbers.contains(&chunk.number()));
        }
        let all: Vec<u32> = parts
            .pieces()
            .flat_map(|piece| parts.chunks_of(&geometry, piece).map(|chunk| chunk.number()).collect::<Vec<_>>())
            .collect();
        prop_assert!(all.iter().eq(numbers.range(..geometry.chunk_count())));
        prop_assert_eq!(WireParts::of(&parts, &geometry).to_parts(&geometry), Ok(parts));
    }

    #[test]
    fn no_parts_from_the_wire_make_it_panic(
        geometry in geometry(),
        pieces in prop::collection::vec((prop_oneof![0..9u32, any::<u32>()], prop_oneof![0..3u32, any::<u32>()]), 0..9),
        chunks in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let wire = WireParts { pieces: WireDelta(pieces), chunks };
        if let Ok(parts) = wire.to_parts(&geometry) {
            prop_assert_eq!(WireParts::of(&parts, &geometry).to_parts(&geometry), Ok(parts));
        }
    }
}

#[test]
fn parts_that_do_not_fit_the_image_are_refused() {
    // Two pieces of 64 chunks, and one of a single chunk.
    let geometry = image(129, 4 << 20);
    let parts =
        |run, chunks: &[u8]| WireParts { pieces: WireDelta(vec![run]), chunks: chunks.to_vec() }.to_parts(&geometry);
    assert!(parts((0, 1), &[0xff; 8]).is_ok());
    assert!(parts((2, 1), &[1, 0, 0, 0, 0, 0, 0, 0]).is_ok());
    assert_eq!(parts((2, 1), &[3, 0, 0, 0, 0, 0, 0, 0]), Err(HaveError::Bitmap), "a chunk after the last");
    assert_eq!(parts((2, 2), &[1; 16]), Err(HaveError::Run));
    assert_eq!(parts((0, 0), &[]), Err(HaveError::Run));
    assert_eq!(parts((0, 1), &[1; 7]), Err(HaveError::Bitmap));
    assert_eq!(parts((0, 1), &[1; 9]), Err(HaveError::Bitmap));
    assert_eq!(parts((0, 1), &[0; 8]), Err(HaveError::Bitmap), "nothing of the piece");
}

#[test]
fn every_piece_of_an_image_of_16_gib_fits() {
    for gib in [1, 8, 10, 16] {
        let geometry = Geometry::of_len(gib << 30).unwrap();
        assert!(WireParts::most(&geometry) >= geometry.piece_count() as usize, "{gib} GiB");
    }
    assert_eq!(WireParts::most(&Geometry::of_len(60 << 30).unwrap()), 1024);
}
