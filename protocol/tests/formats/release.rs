//! A release is what a trusted publisher signed, and nothing else.

use drover_protocol::codec::{self, Message as _};
use drover_protocol::geometry::MAX_IMAGE_LEN;
use drover_protocol::id::{ContentHash, ImageId, PublisherKey};
use drover_protocol::release::{
    CosignError, MAX_BODY_LEN, Name, Release, ReleaseError, SeenVersion, SignedRelease, Trust,
};
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
    let signatures = key(1).sign(&[b"drover release v1\0", &body[..]].concat()).to_bytes().to_vec();
    SignedRelease { body, publisher: public(1), signatures }
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
    let signatures = key(1).sign(&body).to_bytes().to_vec();
    let signed = SignedRelease { body, publisher: public(1), signatures };
    assert_eq!(signed.verify(&[public(1)], NOW), Err(ReleaseError::Signature(public(1))));
}

#[test]
fn a_weak_key_is_refused_even_if_pinned() {
    // The identity point: with it, some signatures fit any message.
    let mut weak = [0; 32];
    weak[0] = 1;
    let publisher = PublisherKey::from_bytes(weak);
    let mut signatures = vec![0; 64];
    signatures[0] = 1;
    let signed = SignedRelease { body: release().sign(&key(1)).body, publisher, signatures };
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
    assert_eq!(expired.sign(&key(1)).verify_signatures(&[public(1)]), Ok(expired), "for masters that are held");
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

/// The release, signed by `maker` and then by `others`.
fn signed_by(maker: u8, others: &[u8]) -> SignedRelease {
    let mut signed = release().sign(&key(maker));
    others.iter().for_each(|&other| assert!(signed.cosign(&key(other)).is_ok()));
    signed
}

fn of(publishers: &[PublisherKey], signatures: usize) -> Trust<'_> {
    Trust { publishers, signatures }
}

#[test]
fn as_many_trusted_publishers_have_to_sign_as_a_host_asks_for() {
    let trusted = [public(1), public(2), public(3)];
    let too_few = |has, wanted| Err(ReleaseError::TooFewSignatures { has, wanted });
    assert_eq!(signed_by(1, &[]).verify(of(&trusted, 2), NOW), too_few(1, 2));
    assert_eq!(signed_by(1, &[1]), signed_by(1, &[]), "nobody signs twice");
    assert_eq!(signed_by(1, &[2, 2]), signed_by(1, &[2]));
    assert_eq!(signed_by(1, &[2]).verify(of(&trusted, 2), NOW), Ok(release()));
    assert_eq!(signed_by(1, &[2, 3]), signed_by(1, &[3, 2]), "whoever signs first");
    assert_eq!(signed_by(2, &[3, 1]).verify(of(&trusted, 3), NOW), Ok(release()));
    assert_eq!(signed_by(1, &[9]).verify(of(&trusted, 2), NOW), too_few(1, 2), "a stranger does not count");
    assert_eq!(signed_by(1, &[2, 9]).verify(of(&trusted, 2), NOW), Ok(release()), "and spoils nothing");
    assert_eq!(signed_by(9, &[1, 2]).verify(of(&trusted, 2), NOW), Ok(release()), "whoever made it");
    assert_eq!(signed_by(9, &[8]).verify(of(&trusted, 1), NOW), Err(ReleaseError::UnknownPublisher(public(9))));
    let mut full = signed_by(1, &[2, 3, 4, 5]);
    assert_eq!(full.verify(of(&trusted, 3), NOW), Ok(release()));
    assert_eq!(codec::decode::<SignedRelease>(&codec::encode(&full).unwrap()), Ok(full.clone()));
    assert_eq!(full.cosign(&key(6)), Err(CosignError::TooMany));
    assert_eq!((full.cosign(&key(5)), full.cosign(&key(1))), (Ok(false), Ok(false)), "they have signed");
}

#[test]
fn every_flipped_bit_of_a_release_with_two_signatures_is_refused_where_both_have_to_be() {
    let (trusted, good) = ([public(1), public(2)], codec::encode(&signed_by(1, &[2])).unwrap());
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let signed = codec::decode::<SignedRelease>(&bytes);
        assert!(!signed.is_ok_and(|it| it.verify(of(&trusted, 2), NOW).is_ok()), "bit {bit} of {}", good.len() * 8);
    }
}

#[test]
fn a_signature_counts_once_and_in_one_place_only() {
    let trusted = [public(1), public(2), public(3)];
    let with = |signatures: &[&[u8]]| SignedRelease { signatures: signatures.concat(), ..signed_by(1, &[]) };
    let (both, all) = (signed_by(1, &[2]).signatures, signed_by(1, &[2, 3]).signatures);
    let (own, second) = both.split_at(64);
    let (earlier, later) = all[64..].split_at(96);
    let by_maker = [public(1).as_bytes(), own].concat();
    for (what, signed) in [
        ("the same one twice", with(&[own, second, second])),
        ("the maker's again", with(&[own, &by_maker])),
        ("the other way round", with(&[own, later, earlier])),
        ("cut", with(&[own, &second[..95]])),
        ("longer", with(&[own, second, &[0]])),
        ("none", with(&[])),
        ("another's with its key", with(&[own, &[public(3).as_bytes(), &second[32..]].concat()])),
        ("six", with(&[own, &second.repeat(5)])),
    ] {
        assert!(matches!(signed.verify(of(&trusted, 1), NOW), Err(ReleaseError::Signature(_))), "{what}");
        assert!(signed.clone().cosign(&key(4)).is_err(), "{what}");
    }
    assert!(with(&[own, earlier, later]).verify(of(&trusted, 3), NOW).is_ok());
}

#[test]
fn a_form_with_more_trusted_signatures_is_news_and_one_with_as_many_is_not() {
    let trusted = [public(1), public(2), public(3)];
    let news = |new: &SignedRelease, known: &SignedRelease| new.adds_signers_to(known, &trusted);
    let (one, two) = (signed_by(1, &[]), signed_by(1, &[2]));
    assert!(news(&two, &one) && !news(&one, &two) && !news(&two, &two));
    assert!(
        !news(&signed_by(1, &[3]), &two) && !news(&signed_by(1, &[2, 9]), &two),
        "or two could take turns for ever"
    );
    let mut shorter = Release { expires_unix_s: NOW + 1, ..release() }.sign(&key(1));
    assert_eq!(shorter.cosign(&key(2)), Ok(true));
    assert!(!news(&shorter, &one), "it ends earlier");
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
