//! Sets of pieces and chunks, plain and on the wire.

use std::collections::BTreeSet;

use drover_protocol::geometry::{CHUNK_LEN, Geometry, MIN_PIECE_LEN};
use drover_protocol::have::{ChunkSet, HaveError, PieceSet, WireDelta, WireHave, runs_of};
use proptest::prelude::*;

fn pieces(count: u32) -> Geometry {
    Geometry::new(u64::from(count) * u64::from(MIN_PIECE_LEN), MIN_PIECE_LEN).unwrap()
}

fn set_of(geometry: &Geometry, members: impl IntoIterator<Item = u32>) -> PieceSet {
    let mut set = PieceSet::empty(geometry);
    for number in members {
        set.insert(geometry.piece(number).unwrap());
    }
    set
}

/// A number of pieces, and some of them: scattered or in runs.
fn members() -> impl Strategy<Value = (u32, BTreeSet<u32>)> {
    (1..700u32).prop_flat_map(|count| {
        let runs = prop::collection::vec((0..count, 0..80u32), 0..6)
            .prop_map(move |runs| runs.into_iter().flat_map(|(start, len)| start..(start + len).min(count)).collect());
        let scattered = prop::collection::btree_set(0..count, 0..=count as usize);
        (Just(count), prop_oneof![runs, scattered])
    })
}

fn wire_have() -> impl Strategy<Value = WireHave> {
    let small_or_any = || prop_oneof![0..10u32, any::<u32>()];
    prop_oneof![
        prop::collection::vec((small_or_any(), small_or_any()), 0..40).prop_map(WireHave::Runs),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(WireHave::Bitmap),
    ]
}

proptest! {
    #[test]
    fn a_set_is_what_was_put_in((count, members) in members()) {
        let set = set_of(&pieces(count), members.iter().copied());
        prop_assert_eq!(set.count() as usize, members.len());
        prop_assert!(set.iter().map(|piece| piece.number()).eq(members.iter().copied()));
        prop_assert!(set.runs().eq(runs_of(members.iter().copied())));
        let flat: Vec<u32> = set.runs().flatten().collect();
        prop_assert!(flat.iter().eq(members.iter()));
        prop_assert_eq!(set.words().iter().map(|word| word.count_ones()).sum::<u32>(), set.count());
    }

    #[test]
    fn a_run_is_its_members((count, members) in members(), from in 0..700u32, len in 0..300u32) {
        let (geometry, from) = (pieces(count), from.min(count));
        let to = (from + len).min(count);
        let mut by_run = set_of(&geometry, members.iter().copied());
        by_run.insert_run(from..to);
        prop_assert_eq!(by_run, set_of(&geometry, members.into_iter().chain(from..to)));
    }

    #[test]
    fn sets_differ_by_their_members((count, members) in members(), other in prop::collection::btree_set(0..700u32, 0..99)) {
        let geometry = pieces(count);
        let other: BTreeSet<u32> = other.into_iter().filter(|&number| number < count).collect();
        let (a, b) = (set_of(&geometry, members.iter().copied()), set_of(&geometry, other.iter().copied()));
        prop_assert!(a.difference(&b).map(|piece| piece.number()).eq(members.difference(&other).copied()));
        let mut without = a.clone();
        for piece in b.iter() {
            prop_assert_eq!(without.remove(piece), a.contains(piece));
        }
        prop_assert!(without.iter().eq(a.difference(&b)));
        prop_assert_eq!(without.count() as usize, a.difference(&b).count());
    }

    #[test]
    fn a_set_comes_back_from_the_wire((count, members) in members()) {
        let geometry = pieces(count);
        let set = set_of(&geometry, members);
        let wire = WireHave::of(&set);
        prop_assert_eq!(wire.to_set(&geometry), Ok(set));
        let bitmap_len = count.div_ceil(8) as usize;
        prop_assert!(postcard::to_stdvec(&wire).unwrap().len() <= (bitmap_len + 4).max(16));
    }

    #[test]
    fn a_delta_comes_back_from_the_wire((count, members) in members()) {
        let geometry = pieces(count);
        let set = set_of(&geometry, members);
        prop_assert_eq!(WireDelta::of(set.iter()).pieces(&geometry), Ok(set.iter().collect()));
    }

    #[test]
    fn no_set_from_the_wire_makes_it_panic(wire in wire_have(), count in 1..300u32) {
        let geometry = pieces(count);
        if let Ok(set) = wire.to_set(&geometry) {
            prop_assert_eq!(set.bound(), count);
            prop_assert_eq!(WireHave::of(&set).to_set(&geometry), Ok(set));
        }
    }

    #[test]
    fn no_delta_from_the_wire_makes_it_panic(runs in prop::collection::vec((any::<u32>(), any::<u32>()), 0..9), count in 1..300u32) {
        if let Ok(pieces) = WireDelta(runs).pieces(&pieces(count)) {
            prop_assert!(pieces.len() <= count as usize);
        }
    }
}

#[test]
fn what_does_not_fit_the_image_is_refused() {
    let geometry = pieces(100);
    let have = |wire: WireHave| wire.to_set(&geometry).unwrap_err();
    assert_eq!(have(WireHave::Runs(vec![(0, 101)])), HaveError::Run);
    assert_eq!(have(WireHave::Runs(vec![(100, 1)])), HaveError::Run);
    assert_eq!(have(WireHave::Runs(vec![(5, 0)])), HaveError::Run);
    assert_eq!(have(WireHave::Runs(vec![(u32::MAX, u32::MAX)])), HaveError::Run);
    assert_eq!(have(WireHave::Runs(vec![(1, 1); 20])), HaveError::TooManyRuns);
    assert_eq!(have(WireHave::Bitmap(vec![0; 12])), HaveError::Bitmap);
    assert_eq!(have(WireHave::Bitmap(vec![0; 14])), HaveError::Bitmap);
    assert_eq!(have(WireHave::Bitmap(vec![0xff; 13])), HaveError::Bitmap, "spare bits");
    let delta = |runs: &[(u32, u32)]| WireDelta(runs.to_vec()).pieces(&geometry);
    assert_eq!(delta(&[(99, 2)]), Err(HaveError::Run));
    assert_eq!(delta(&[(5, 0)]), Err(HaveError::Run));
    assert_eq!(delta(&[(5, 2), (6, 1)]), Err(HaveError::Run), "the same piece twice");
    assert_eq!(delta(&[(5, 2), (1, 1)]), Err(HaveError::Run), "falling");
    assert_eq!(delta(&[(u32::MAX, u32::MAX)]), Err(HaveError::Run));
}

#[test]
fn the_shorter_form_is_taken() {
    let geometry = pieces(2048);
    assert_eq!(WireHave::of(&PieceSet::empty(&geometry)), WireHave::Runs(vec![]));
    assert_eq!(WireHave::of(&PieceSet::full(&geometry)), WireHave::Runs(vec![(0, 2048)]));
    let every_other = set_of(&geometry, (0..2048).step_by(2));
    assert_eq!(WireHave::of(&every_other), WireHave::Bitmap(vec![0b0101_0101; 256]));
}

#[test]
fn a_full_set_has_no_bits_beyond_its_bound() {
    for chunks in [1, 63, 64, 65, 127, 128, 1000] {
        let geometry = Geometry::of_len(chunks * u64::from(CHUNK_LEN)).unwrap();
        let full = ChunkSet::full(&geometry);
        assert!(full.is_full());
        assert!(full.runs().eq(core::iter::once(0..chunks as u32)));
        assert_eq!(full.words().iter().map(|word| u64::from(word.count_ones())).sum::<u64>(), chunks);
    }
}
