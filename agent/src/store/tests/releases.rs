//! Versions only grow, whatever happens to the host.

use drover_protocol::id::{ImageId, PublisherKey};
use drover_protocol::release::{Name, RELEASE_FORMAT, Release, ReleaseError, SignedRelease, Trust};
use ed25519_dalek::SigningKey;

use super::*;
use crate::store::fault::with_hook;
use crate::store::{AcceptError, Accepted};

const NOW: u64 = 1_800_000_000;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn trusted() -> [PublisherKey; 1] {
    [PublisherKey::from_bytes(key().verifying_key().to_bytes())]
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn release(text: &str, version: u64, image: u8) -> SignedRelease {
    let release = Release {
        format: RELEASE_FORMAT,
        name: name(text),
        version,
        image: ImageId::from_bytes([image; 32]),
        content_len: 1 << 20,
        content_hash: ContentHash::from_bytes([image; 32]),
        created_unix_s: NOW,
        expires_unix_s: NOW + 1000,
    };
    release.sign(&key())
}

fn accept(store: &Store, signed: &SignedRelease) -> Result<Accepted, AcceptError> {
    store.catalog().accept(signed, &trusted(), NOW)
}

fn refused(store: &Store, signed: &SignedRelease) -> ReleaseError {
    match accept(store, signed) {
        Err(AcceptError::Release(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lower_version_is_refused_also_after_a_restart() {
    let state = TestState::new();
    let mut store = state.open();
    assert!(accept(&store, &release("web", 1, 1)).unwrap().new);
    assert!(accept(&store, &release("web", 3, 3)).unwrap().new);
    for restarts in 0..2 {
        assert!(!accept(&store, &release("web", 1, 1)).unwrap().new, "one that is known is no surprise");
        assert!(matches!(refused(&store, &release("web", 2, 2)), ReleaseError::Rollback { seen: 3, .. }));
        assert!(matches!(refused(&store, &release("web", 3, 4)), ReleaseError::Equivocation { .. }));
        assert!(matches!(refused(&store, &release("web", 1, 9)), ReleaseError::Rollback { .. }));
        assert_eq!(store.catalog().newest(&name("web")).unwrap().version, 3, "after {restarts} restarts");
        assert_eq!(store.catalog().resolve(&name("web"), Some(1)).unwrap().image, ImageId::from_bytes([1; 32]));
        assert_eq!(store.catalog().signed(&name("web"), 3), Some(release("web", 3, 3)));
        drop(store);
        store = state.open();
    }
}

#[test]
fn as_many_have_to_sign_as_this_host_asks_for_and_the_form_that_most_have_signed_is_kept() {
    let state = TestState::new();
    let store = state.open();
    let (first, second) = (key(), SigningKey::from_bytes(&[4; 32]));
    let publishers = [&first, &second].map(|key| PublisherKey::from_bytes(key.verifying_key().to_bytes()));
    let accept = |store: &Store, signed: &SignedRelease, signatures| {
        let accepted = store.catalog().accept(signed, Trust { publishers: &publishers, signatures }, NOW);
        accepted.map(|accepted| accepted.new)
    };
    let one = release("web", 1, 1);
    let mut two = one.clone();
    two.cosign(&second).unwrap();
    let refused = accept(&store, &one, 2).unwrap_err();
    assert!(matches!(refused, AcceptError::Release(ReleaseError::TooFewSignatures { has: 1, wanted: 2 })), "{refused}");
    assert_eq!(store.catalog().newest(&name("web")), None, "it uses up no version");
    assert!(accept(&store, &one, 1).unwrap() && accept(&store, &two, 1).unwrap());
    drop(store);
    let store = state.open();
    assert!(
        !accept(&store, &one, 1).unwrap() && !accept(&store, &two, 1).unwrap() && !accept(&store, &two, 2).unwrap()
    );
    assert_eq!(store.catalog().signed(&name("web"), 1), Some(two));
}

#[test]
fn a_release_that_was_signed_anew_lives_longer_and_its_older_form_does_not_come_back() {
    let state = TestState::new();
    let store = state.open();
    let signed_anew = |expires_unix_s: u64, image: u8| {
        let old = release("web", 1, image).verify(&trusted(), NOW).unwrap();
        Release { created_unix_s: NOW + 1, expires_unix_s, ..old }.sign(&key())
    };
    assert!(accept(&store, &release("web", 1, 1)).unwrap().new);
    let renewed = signed_anew(NOW + 9000, 1);
    assert!(accept(&store, &renewed).unwrap().new);
    for older in [release("web", 1, 1), signed_anew(NOW + 8000, 1)] {
        let accepted = accept(&store, &older).unwrap();
        assert_eq!((accepted.new, accepted.release.expires_unix_s), (false, NOW + 9000), "it says nothing new");
    }
    assert!(matches!(refused(&store, &signed_anew(NOW + 9999, 2)), ReleaseError::Equivocation { .. }));
    drop(store);
    let store = state.open();
    assert_eq!(store.catalog().signed(&name("web"), 1), Some(renewed));
}

#[test]
fn a_release_that_can_not_be_kept_is_not_accepted() {
    let state = TestState::new();
    let store = state.open();
    let signed = release("web", 1, 1);
    let result = with_hook(failing(Step::WriteRelease, io::ErrorKind::StorageFull), || accept(&store, &signed));
    assert!(matches!(result, Err(AcceptError::Disk(_))), "{result:?}");
    assert_eq!(store.catalog().newest(&name("web")), None);
    assert!(accept(&store, &signed).unwrap().new);
}

#[test]
fn a_stranger_s_release_an_altered_and_an_expired_one_are_refused() {
    let state = TestState::new();
    let store = state.open();
    let signed = release("web", 1, 1);
    let untrusted = store.catalog().accept(&signed, &[], NOW).unwrap_err();
    assert!(untrusted.to_string().contains("not one of the publishers"), "{untrusted}");
    let mut altered = signed.clone();
    altered.body[10] ^= 1;
    assert!(matches!(refused(&store, &altered), ReleaseError::Signature(_)));
    let late = store.catalog().accept(&signed, &trusted(), NOW + 1000).unwrap_err();
    assert!(late.to_string().contains("expired"), "{late}");
    assert!(store.catalog().all().is_empty());
    assert_eq!(fs::read_dir(state.path().join("releases")).unwrap().count(), 0);
}

#[test]
fn a_damaged_release_file_is_named_and_its_version_still_counts() {
    let state = TestState::new();
    let store = state.open();
    for (text, version) in [("web", 1), ("web", 2), ("db", 7)] {
        accept(&store, &release(text, version, 1)).unwrap();
    }
    drop(store);
    let path = state.path().join("releases/web/2");
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 0x10;
        fs::write(&path, altered).unwrap();
        let store = state.open();
        assert!(store.unreadable()[0].contains("releases/web/2"), "byte {at}: {:?}", store.unreadable());
        assert_eq!(store.catalog().newest(&name("db")).unwrap().version, 7);
        assert_eq!(store.catalog().newest(&name("web")).unwrap().version, 1);
        assert_eq!(store.catalog().highest_seen(&name("web")), Some(2));
    }
    let store = state.open();
    assert!(accept(&store, &release("web", 2, 1)).unwrap().new, "the same again mends it");
    assert_eq!(store.catalog().newest(&name("web")).unwrap().version, 2);
}

#[test]
fn the_highest_version_is_never_forgotten() {
    let state = TestState::new();
    let store = state.open();
    for version in 1..=2 {
        accept(&store, &release("web", version, version as u8)).unwrap();
    }
    assert!(store.catalog().forget(&name("web"), 1).unwrap());
    assert!(!store.catalog().forget(&name("web"), 1).unwrap());
    assert!(!store.catalog().forget(&name("web"), 2).unwrap());
    drop(store);
    let store = state.open();
    assert_eq!(store.catalog().all().len(), 1);
    assert!(matches!(refused(&store, &release("web", 1, 1)), ReleaseError::Rollback { .. }));
}
