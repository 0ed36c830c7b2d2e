//! A manifest has one form; every other is refused.

use drover_protocol::geometry::{CHUNK_LEN, Geometry};
use drover_protocol::have::ChunkSet;
use drover_protocol::id::ContentHash;
use drover_protocol::manifest::{
    ChunkError, Manifest, ManifestBuilder, ManifestError, hash_chunk, is_zeros, max_manifest_len,
};
use proptest::prelude::*;

const FULL: usize = CHUNK_LEN as usize;

/// The content of chunk `number` of an image where `data[number]` says whether there is any: recognisable, and cheap.
fn chunk_bytes(number: usize, data: bool, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if data {
        bytes[len - 1] = 1;
        let mark = (number as u32).to_le_bytes();
        let marked = len.min(4);
        bytes[..marked].copy_from_slice(&mark[..marked]);
        bytes[len - 1] |= 0x80;
    }
    bytes
}

/// The manifest of an image of `len` bytes whose chunk `i` holds data if `data[i]`.
fn manifest_of(len: u64, data: &[bool]) -> Manifest {
    let geometry = Geometry::of_len(len).unwrap();
    let mut builder = ManifestBuilder::new(geometry);
    let mut content = blake3::Hasher::new();
    for (chunk, &data) in geometry.chunks().zip(data) {
        let bytes = chunk_bytes(chunk.number() as usize, data, geometry.chunk_len(chunk) as usize);
        content.update(&bytes);
        builder.push((!is_zeros(&bytes)).then(|| hash_chunk(&bytes)));
    }
    builder.finish(ContentHash::from_bytes(content.finalize().into()))
}

/// Lengths up to 60 chunks, and which of the chunks hold data.
fn layout() -> impl Strategy<Value = (u64, Vec<bool>)> {
    (1..60 * u64::from(CHUNK_LEN)).prop_flat_map(|len| {
        let chunks = len.div_ceil(u64::from(CHUNK_LEN)) as usize;
        (Just(len), prop::collection::vec(any::<bool>(), chunks))
    })
}

/// Some 1 KiB: 31 chunks of data between three zero runs.
fn manifest_of_a_kib() -> Manifest {
    let data: Vec<bool> = (0..40).map(|chunk| ![0, 1, 10, 30, 31, 32, 33, 38, 39].contains(&chunk)).collect();
    manifest_of(40 * u64::from(CHUNK_LEN), &data)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_back((len, data) in layout()) {
        let manifest = manifest_of(len, &data);
        let bytes = manifest.to_bytes();
        prop_assert!(bytes.len() as u64 <= max_manifest_len(len));
        prop_assert_eq!(&Manifest::from_bytes(&bytes).unwrap(), &manifest);
        prop_assert_eq!(&Manifest::from_bytes_of(manifest.image_id(), &bytes).unwrap(), &manifest);
        prop_assert_eq!(<[u8; 32]>::from(blake3::hash(&bytes)), *manifest.image_id().as_bytes());
    }

    #[test]
    fn a_manifest_tells_data_from_zeros((len, data) in layout()) {
        let manifest = manifest_of(len, &data);
        let geometry = manifest.geometry();
        let mut data_len = 0;
        for chunk in geometry.chunks() {
            let is_data = data[chunk.number() as usize];
            prop_assert_eq!(manifest.is_zero(chunk), !is_data);
            prop_assert_eq!(manifest.data_chunks().contains(chunk), is_data);
            data_len += if is_data { u64::from(geometry.chunk_len(chunk)) } else { 0 };
        }
        prop_assert_eq!(manifest.data_len(), data_len);
        let zeros: u32 = manifest.zero_runs().map(|run| run.len() as u32).sum();
        prop_assert_eq!(zeros + manifest.data_chunks().count(), geometry.chunk_count());
    }

    #[test]
    fn a_piece_is_held_when_its_data_is((len, data) in layout(), missing in any::<prop::sample::Index>()) {
        let manifest = manifest_of(len, &data);
        let geometry = manifest.geometry();
        prop_assert!(manifest.pieces_held(&manifest.data_chunks()).is_full());
        let missing = geometry.chunk(missing.index(geometry.chunk_count() as usize) as u32).unwrap();
        let mut held = manifest.data_chunks();
        let lacks = held.remove(missing);
        let pieces = manifest.pieces_held(&held);
        prop_assert_eq!(pieces.count(), geometry.piece_count() - u32::from(lacks));
        prop_assert_eq!(pieces.contains(geometry.piece_of(missing)), !lacks);
        let of_zeros = manifest.pieces_held(&ChunkSet::empty(&geometry));
        for chunk in manifest.data_chunks().iter() {
            prop_assert!(!of_zeros.contains(geometry.piece_of(chunk)));
        }
    }

    #[test]
    fn only_the_right_bytes_are_verified(
        (len, data) in layout(),
        at in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let manifest = manifest_of(len, &data);
        let geometry = manifest.geometry();
        let chunk = geometry.chunk(at.index(data.len()) as u32).unwrap();
        let number = chunk.number() as usize;
        let right = chunk_bytes(number, data[number], geometry.chunk_len(chunk) as usize);
        let verified = manifest.verify(chunk, &right).unwrap();
        prop_assert_eq!((verified.image(), verified.index()), (manifest.image_id(), chunk));

        let mut wrong = right.clone();
        let flipped = flip.index(wrong.len());
        wrong[flipped] ^= 1 << bit;
        prop_assert_eq!(manifest.verify(chunk, wrong).unwrap_err(), ChunkError::Hash { chunk: chunk.number() });
        let long = [&right[..], &[0]].concat();
        let is_len_error = |error| matches!(error, ChunkError::Len { .. });
        prop_assert!(is_len_error(manifest.verify(chunk, long).unwrap_err()));
        prop_assert!(is_len_error(manifest.verify(chunk, &right[1..]).unwrap_err()));
        for other in geometry.chunks().filter(|other| data[other.number() as usize] && *other != chunk) {
            prop_assert!(manifest.verify(other, &right).is_err(), "a chunk's bytes are not another chunk's");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(manifest) = Manifest::from_bytes(&bytes) {
            prop_assert_eq!(manifest.to_bytes(), bytes);
        }
    }

    #[test]
    fn bytes_that_begin_well_do_not_make_it_panic(
        cut in 0..1100usize,
        tail in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = manifest_of_a_kib().to_bytes();
        bytes.truncate(cut);
        bytes.extend(tail);
        if let Ok(manifest) = Manifest::from_bytes(&bytes) {
            prop_assert_eq!(manifest.to_bytes(), bytes);
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let manifest = manifest_of_a_kib();
    let good = manifest.to_bytes();
    assert!((1000..1100).contains(&good.len()), "{} bytes", good.len());
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let refused = Manifest::from_bytes_of(manifest.image_id(), &bytes);
        assert!(matches!(refused, Err(ManifestError::OtherImage { .. })), "bit {bit} passed");
        // Not asked for by id, it is at most another image, in its one form.
        if let Ok(other) = Manifest::from_bytes(&bytes) {
            assert_eq!(other.to_bytes(), bytes, "bit {bit}");
            assert_ne!(other.image_id(), manifest.image_id());
        }
    }
}

/// The parts of a manifest as they are written, to write wrong ones.
#[derive(Clone)]
struct Parts {
    format: u16,
    len: u64,
    piece_len: u32,
    zero_runs: Vec<(u32, u32)>,
    hashes: Vec<[u8; 32]>,
}

impl Parts {
    /// Ten chunks: 3 of data, 2 of zeros, 4 of data, 1 of zeros.
    fn good() -> Self {
        Parts {
            format: 1,
            len: 10 * u64::from(CHUNK_LEN),
            piece_len: 256 << 10,
            zero_runs: vec![(3, 2), (4, 1)],
            hashes: (0..7).map(|number| [number; 32]).collect(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let head = (self.format, self.len, self.piece_len, [7u8; 32], &self.zero_runs, self.hashes.len() as u64 * 32);
        [postcard::to_stdvec(&head).unwrap(), self.hashes.concat()].concat()
    }

    fn refusal(&self) -> ManifestError {
        Manifest::from_bytes(&self.bytes()).expect_err("it is not well formed")
    }
}

fn not_canonical(change: impl Fn(&mut Parts)) {
    let mut parts = Parts::good();
    change(&mut parts);
    assert!(matches!(parts.refusal(), ManifestError::NotCanonical(_)), "{:?}", parts.refusal());
}

#[test]
fn forms_that_are_not_canonical_are_refused() {
    assert_eq!(Manifest::from_bytes(&Parts::good().bytes()).unwrap().to_bytes(), Parts::good().bytes());
    // Two runs that touch, an empty run, runs beyond the end, and one whose end is no number.
    not_canonical(|parts| parts.zero_runs = vec![(3, 1), (0, 1), (4, 1)]);
    not_canonical(|parts| parts.zero_runs = vec![(3, 2), (4, 1), (0, 0)]);
    not_canonical(|parts| parts.zero_runs = vec![(3, 2), (4, 2)]);
    not_canonical(|parts| parts.zero_runs = vec![(3, 2), (u32::MAX, 1)]);
    not_canonical(|parts| parts.zero_runs = vec![(3, 2), (1, u32::MAX)]);
    // Too few and too many hashes.
    not_canonical(|parts| parts.hashes.truncate(6));
    not_canonical(|parts| parts.hashes.push([9; 32]));
    not_canonical(|parts| parts.zero_runs.clear());
    // A chunk of zeros among the hashes: a whole one, and a short one at the end.
    not_canonical(|parts| parts.hashes[2] = *hash_chunk(&[0; FULL]).as_bytes());
    not_canonical(|parts| {
        parts.len -= 100;
        parts.zero_runs.pop();
        parts.hashes.push(*hash_chunk(&vec![0; FULL - 100]).as_bytes());
    });
}

#[test]
fn an_image_may_begin_with_zeros_or_be_nothing_else() {
    let all = manifest_of(10 * u64::from(CHUNK_LEN), &[false; 10]);
    assert_eq!(all.data_len(), 0);
    assert!(all.zero_runs().eq(core::iter::once(0..10)));
    assert_eq!(Manifest::from_bytes(&all.to_bytes()).unwrap(), all);
    assert!(all.pieces_held(&ChunkSet::empty(&all.geometry())).is_full());
}

#[test]
fn numbers_in_a_long_spelling_are_refused() {
    let good = Parts::good().bytes();
    // The format is the first byte: 1, or in two bytes 0x81 0x00.
    let padded = [&[0x81, 0x00], &good[1..]].concat();
    assert_eq!(Manifest::from_bytes(&padded), Err(ManifestError::NotCanonical("a number is not in its shortest form")),);
    // The length of the hashes: 224 is 0xe0 0x01, or in three bytes 0xe0 0x81 0x00.
    let at = good.len() - 7 * 32 - 2;
    assert_eq!(&good[at..at + 2], [0xe0, 0x01]);
    let padded = [&good[..at], &[0xe0, 0x81, 0x00], &good[at + 2..]].concat();
    assert_eq!(Manifest::from_bytes(&padded), Err(ManifestError::NotCanonical("a number is not in its shortest form")),);
}

#[test]
fn what_follows_or_lacks_is_refused() {
    let good = Parts::good().bytes();
    assert_eq!(Manifest::from_bytes(&[&good[..], &[0]].concat()), Err(ManifestError::NotCanonical("bytes follow it")));
    for len in 0..good.len() {
        assert!(matches!(Manifest::from_bytes(&good[..len]), Err(ManifestError::Malformed(_))), "{len} bytes passed");
    }
}

#[test]
fn impossible_images_and_later_formats_are_refused() {
    let with = |change: fn(&mut Parts)| {
        let mut parts = Parts::good();
        change(&mut parts);
        parts.refusal()
    };
    assert!(matches!(with(|parts| parts.len = 0), ManifestError::Geometry(_)));
    assert!(matches!(with(|parts| parts.len = u64::MAX), ManifestError::Geometry(_)));
    assert!(matches!(with(|parts| parts.piece_len = 64 << 10), ManifestError::Geometry(_)));
    assert_eq!(with(|parts| parts.format = 2), ManifestError::Format(2));
    // A later format may look different from its second field on; it is still told for what it is.
    assert_eq!(Manifest::from_bytes(&[2]), Err(ManifestError::Format(2)));
}

#[test]
fn a_million_chunks_are_quick_and_right() {
    let geometry = Geometry::of_len(1 << 36).unwrap();
    let mut builder = ManifestBuilder::new(geometry);
    for number in 0..geometry.chunk_count() {
        // Runs of zeros and of data, seven chunks each.
        builder.push((number / 7 % 2 == 0).then(|| hash_chunk(&number.to_le_bytes())));
    }
    let manifest = builder.finish(ContentHash::from_bytes([0; 32]));
    let bytes = manifest.to_bytes();
    assert_eq!(Manifest::from_bytes_of(manifest.image_id(), &bytes).unwrap(), manifest);
    let data = manifest.data_chunks();
    assert!(geometry.chunks().all(|chunk| data.contains(chunk) != manifest.is_zero(chunk)));
    assert!(manifest.pieces_held(&data).is_full());
}
