//! A release is what a trusted publisher signed, and nothing else.

use drover_protocol::codec::{self, Message as _};
use drover_protocol::geometry::MAX_IMAGE_LEN;
use drover_protocol::id::{ContentHash, ImageId, PublisherKey};
use drover_protocol::release::{MAX_BODY_LEN, Name, Release, ReleaseError, SeenVersion, SignedRelease};
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn public(number: u8) -> PublisherKey {
    PublisherKey::from_bytes(key(number).verifying_key().to_bytes())
}

fn release() -> Release {
    Release {
        format: 1,
        name: "debian-13".parse().unwrap(),
        version: 3,
        image: ImageId::from_bytes([1; 32]),
        content_len: 10 << 30,
        content_hash: ContentHash::from_bytes([2; 32]),
        created_unix_s: NOW - DAY,
        expires_unix_s: NOW + 90 * DAY,
    }
}

/// `body`, signed as a release is, whatever it is.
fn signed(body: Vec<u8>) -> SignedRelease {
    let signature = key(1).sign(&[b"drover release v1\0", &body[..]].concat()).to_bytes().to_vec();
    SignedRelease { body, publisher: public(1), signature }
}

fn refusal(release: &Release) -> ReleaseError {
    release.sign(&key(1)).verify(&[public(1)], NOW).expect_err("it is not acceptable")
}

#[test]
fn a_trusted_publisher_s_release_is_accepted() {
    let signed = release().sign(&key(1));
    assert_eq!(signed.verify(&[public(2), public(1)], NOW), Ok(release()));
    assert_eq!(codec::decode::<SignedRelease>(&codec::encode(&signed).unwrap()), Ok(signed));
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = codec::encode(&release().sign(&key(1))).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let accepted = codec::decode::<SignedRelease>(&bytes).is_ok_and(|it| it.verify(&[public(1)], NOW).is_ok());
        assert!(!accepted, "bit {bit} of {} passed", good.len() * 8);
    }
}

#[test]
fn a_stranger_s_release_is_refused() {
    let signed = release().sign(&key(2));
    assert_eq!(signed.verify(&[public(1)], NOW), Err(ReleaseError::UnknownPublisher(public(2))));
    assert_eq!(signed.verify(&[], NOW), Err(ReleaseError::UnknownPublisher(public(2))));
    let passed_off = SignedRelease { publisher: public(1), ..signed };
    assert_eq!(passed_off.verify(&[public(1)], NOW), Err(ReleaseError::Signature(public(1))));
}

#[test]
fn a_signature_over_the_bare_body_is_refused() {
    let body = release().sign(&key(1)).body;
    let signature = key(1).sign(&body).to_bytes().to_vec();
    let signed = SignedRelease { body, publisher: public(1), signature };
    assert_eq!(signed.verify(&[public(1)], NOW), Err(ReleaseError::Signature(public(1))));
}

#[test]
fn a_weak_key_is_refused_even_if_pinned() {
    // The identity point: with it, some signatures fit any message.
    let mut weak = [0; 32];
    weak[0] = 1;
    let publisher = PublisherKey::from_bytes(weak);
    let mut signature = vec![0; 64];
    signature[0] = 1;
    let signed = SignedRelease { body: release().sign(&key(1)).body, publisher, signature };
    assert_eq!(signed.verify(&[publisher], NOW), Err(ReleaseError::Signature(publisher)));
}

#[test]
fn its_time_must_have_come_and_not_be_over() {
    assert!(matches!(refusal(&Release { expires_unix_s: NOW, ..release() }), ReleaseError::Expired { .. }));
    assert!(matches!(
        refusal(&Release { created_unix_s: NOW + DAY + 1, ..release() }),
        ReleaseError::FromTheFuture { .. }
    ));
    let slightly_ahead = Release { created_unix_s: NOW + DAY, ..release() }.sign(&key(1));
    assert!(slightly_ahead.verify(&[public(1)], NOW).is_ok());
    let expired = Release { expires_unix_s: 0, ..release() };
    assert_eq!(expired.sign(&key(1)).verify_signature(&[public(1)]), Ok(expired), "for masters that are held");
    // A clock at the end of time does not overflow.
    assert!(matches!(release().sign(&key(1)).verify(&[public(1)], u64::MAX), Err(ReleaseError::Expired { .. })));
}

#[test]
fn values_that_no_release_has_are_refused() {
    assert!(matches!(refusal(&Release { version: 0, ..release() }), ReleaseError::Malformed(_)));
    assert!(matches!(refusal(&Release { content_len: 0, ..release() }), ReleaseError::Malformed(_)));
    assert!(matches!(refusal(&Release { content_len: MAX_IMAGE_LEN + 1, ..release() }), ReleaseError::Malformed(_)));
    assert_eq!(refusal(&Release { format: 2, ..release() }), ReleaseError::Format(2));
    assert_eq!(signed(vec![2]).verify(&[public(1)], NOW), Err(ReleaseError::Format(2)));
    assert!(matches!(signed(vec![]).verify(&[public(1)], NOW), Err(ReleaseError::Malformed(_))));
}

#[test]
fn a_signed_body_that_is_not_canonical_is_refused() {
    let good = release().sign(&key(1)).body;
    assert_eq!(signed(good.clone()).verify(&[public(1)], NOW), Ok(release()));
    let malformed = |body| matches!(signed(body).verify(&[public(1)], NOW), Err(ReleaseError::Malformed(_)));
    assert!(malformed([&good[..], &[0]].concat()));
    assert!(malformed([&[0x81, 0x00], &good[1..]].concat()), "a padded number");
    assert!(malformed(good[..good.len() - 1].to_vec()));
    // The name's first letter lies after format and length.
    let mut upper = good;
    upper[2] = b'D';
    assert!(malformed(upper));
}

#[test]
fn versions_of_a_name_only_grow() {
    let seen = |version, image| SeenVersion { version, image: ImageId::from_bytes([image; 32]) };
    assert_eq!(release().check_against(None), Ok(()));
    assert_eq!(release().check_against(Some(&seen(2, 9))), Ok(()));
    assert_eq!(release().check_against(Some(&seen(3, 1))), Ok(()), "the same again");
    assert!(matches!(release().check_against(Some(&seen(3, 9))), Err(ReleaseError::Equivocation { .. })));
    assert!(matches!(release().check_against(Some(&seen(4, 1))), Err(ReleaseError::Rollback { seen: 4, .. })));
}

#[test]
fn names_are_short_and_plain() {
    let longest = "a".repeat(64);
    for good in ["a", "0", "debian-13", "a.b_c-d", &longest] {
        assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
    }
    let too_long = "a".repeat(65);
    for bad in ["", ".", "..", "-a", "_a", ".a", "A", "a/b", "a b", "a\0", "ä", "a\n", &too_long] {
        assert!(bad.parse::<Name>().is_err(), "{bad:?} passed");
    }
}

#[test]
fn the_largest_release_fits_its_bounds() {
    let largest = Release {
        format: u16::MAX,
        name: "z".repeat(64).parse().unwrap(),
        version: u64::MAX,
        image: ImageId::from_bytes([255; 32]),
        content_len: MAX_IMAGE_LEN,
        content_hash: ContentHash::from_bytes([255; 32]),
        created_unix_s: u64::MAX,
        expires_unix_s: u64::MAX,
    };
    let signed = largest.sign(&key(1));
    assert!(signed.body.len() <= MAX_BODY_LEN);
    assert!(codec::encode(&signed).unwrap().len() <= SignedRelease::MAX_LEN);
}

proptest! {
    #[test]
    fn what_is_signed_is_read_back(
        name in "[a-z0-9][a-z0-9._-]{0,63}",
        version in 1..u64::MAX,
        image in any::<[u8; 32]>(),
        content_len in 1..=MAX_IMAGE_LEN,
        content_hash in any::<[u8; 32]>(),
        created_unix_s in 0..NOW,
        expires_unix_s in NOW + 1..,
    ) {
        let release = Release {
            format: 1,
            name: name.parse().unwrap(),
            version,
            image: ImageId::from_bytes(image),
            content_len,
            content_hash: ContentHash::from_bytes(content_hash),
            created_unix_s,
            expires_unix_s,
        };
        prop_assert_eq!(release.sign(&key(1)).verify(&[public(1)], NOW), Ok(release));
    }

    #[test]
    fn no_signed_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..256)) {
        // Most of these are no release; what matters is that a trusted but broken publisher does no harm.
        let _ = signed(body).verify(&[public(1)], NOW);
    }
}
