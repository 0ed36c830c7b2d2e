//! Any bytes as the body of a release that a trusted publisher signed: an error, or a release whose one form they are.
#![no_main]

use drover_protocol::id::PublisherKey;
use drover_protocol::release::SignedRelease;
use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let key = SigningKey::from_bytes(&[1; 32]);
    let publisher = PublisherKey::from_bytes(key.verifying_key().to_bytes());
    let signature = key.sign(&[b"drover release v1\0", body].concat()).to_bytes().to_vec();
    let signed = SignedRelease { body: body.to_vec(), publisher, signature };
    if let Ok(release) = signed.verify_signature(&[publisher]) {
        assert_eq!(release.sign(&key), signed);
    }
});
