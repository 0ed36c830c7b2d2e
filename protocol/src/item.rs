//! Releases as items of the cluster's hash table, so that a new one is found without a tracker.
//!
//! An item is a mutable item of BEP 44: a node keeps it for whoever asks for its publisher and its salt, and lets only a
//! later one by the same publisher take its place. Its sequence number is the release's version and its value the signed
//! release, sealed, so that nodes learn neither what a release is called nor what it names; both follow from the release
//! and from a secret of the release's name. What makes an item of a release is the publisher's signature over all of this,
//! given when the release is signed: whoever has the release and this signature can put the item anew, and nobody else can
//! make one.
//!
//! An item is a hint like all that is found in the table: what was sealed in it is verified like any release.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::codec::{self, Message};
use crate::id::PublisherKey;
use crate::lookup::{KEY_LEN, NameSecret};
use crate::release::{Name, SignedRelease};

/// Longest value that nodes keep, by BEP 44. That of a release takes at most 680 bytes.
pub const MAX_VALUE_LEN: usize = 1000;

/// An item, as nodes keep it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// Whose it is: `k` of BEP 44.
    pub publisher: PublisherKey,
    /// Which of the publisher's items it is.
    pub salt: [u8; KEY_LEN],
    /// The higher one counts; at most 2^63 - 1.
    pub seq: u64,
    /// At most [`MAX_VALUE_LEN`] bytes.
    pub value: Vec<u8>,
    /// The publisher's, over the three before.
    pub signature: ItemSignature,
}

/// A publisher's signature over an item: Ed25519, 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemSignature(#[serde(with = "serde_bytes")] [u8; 64]);

/// Why a release and an item do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// Its version is no sequence number of BEP 44.
    #[error("the version of the release is above 2^63 - 1")]
    Version,
    /// The signature is not the publisher's over this item.
    #[error("the signature does not fit the item")]
    Signature,
    /// What is in it was not sealed with the secret of this name.
    #[error("what is in it was sealed with another secret, or altered")]
    Sealed,
    /// What was sealed is no release, or not the one that the item is said to be of.
    #[error("what is sealed in it is not the release that it is said to be")]
    Release,
}

impl Item {
    /// The item of a release that `key` has signed, which is called what `secret` is the secret of.
    pub fn sign(signed: &SignedRelease, secret: &NameSecret, key: &SigningKey) -> Result<Self, ItemError> {
        let mut item = Self::unsigned(signed, secret)?;
        item.signature = ItemSignature(key.sign(&item.signed_bytes()).to_bytes());
        Ok(item)
    }

    /// The item of a release whose publisher gave this signature.
    pub fn with_signature(
        signed: &SignedRelease,
        secret: &NameSecret,
        signature: ItemSignature,
    ) -> Result<Self, ItemError> {
        let item = Item { signature, ..Self::unsigned(signed, secret)? };
        item.verify().map(|()| item)
    }

    /// Whether the publisher has signed it.
    pub fn verify(&self) -> Result<(), ItemError> {
        let key = VerifyingKey::from_bytes(self.publisher.as_bytes()).map_err(|_| ItemError::Signature)?;
        let verified = key.verify_strict(&self.signed_bytes(), &Signature::from_bytes(&self.signature.0));
        verified.map_err(|_| ItemError::Signature)
    }

    /// The release of `name` that is in it. Nothing says yet that it is to be believed.
    pub fn open(&self, name: &Name, secret: &NameSecret) -> Result<SignedRelease, ItemError> {
        let (nonce, sealed) = self.value.split_first_chunk::<NONCE_LEN>().ok_or(ItemError::Sealed)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = cipher(secret).open_in_place(nonce, Aad::empty(), &mut sealed).map_err(|_| ItemError::Sealed)?;
        let signed: SignedRelease = codec::decode(opened).map_err(|_| ItemError::Release)?;
        let is_said = signed.publisher == self.publisher && signed.claim() == Some((name.clone(), self.seq));
        if is_said { Ok(signed) } else { Err(ItemError::Release) }
    }

    fn unsigned(signed: &SignedRelease, secret: &NameSecret) -> Result<Self, ItemError> {
        let (_, seq) = signed.claim().ok_or(ItemError::Release)?;
        i64::try_from(seq).map_err(|_| ItemError::Version)?;
        let release = codec::encode(signed).map_err(|_| ItemError::Release)?;
        let (publisher, salt, value) = (signed.publisher, secret.salt(), seal(release, secret));
        Ok(Item { publisher, salt, seq, value, signature: ItemSignature([0; 64]) })
    }

    /// What BEP 44 has signed: salt, sequence number and value as they are in a message.
    fn signed_bytes(&self) -> Vec<u8> {
        let salt = [format!("4:salt{}:", self.salt.len()).as_bytes(), &self.salt].concat();
        let seq = format!("3:seqi{}e", self.seq);
        let value = [format!("1:v{}:", self.value.len()).as_bytes(), &self.value].concat();
        [salt, seq.into_bytes(), value].concat()
    }
}

impl ItemSignature {
    /// The signature of these bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        ItemSignature(bytes)
    }

    /// As bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

/// A nonce, and the release sealed with it. The nonce is a hash of the release, so that the same release makes the same
/// value everywhere and two releases never share one.
fn seal(mut release: Vec<u8>, secret: &NameSecret) -> Vec<u8> {
    let nonce = secret.nonce(&release);
    let sealing = Nonce::assume_unique_for_key(nonce);
    cipher(secret)
        .seal_in_place_append_tag(sealing, Aad::empty(), &mut release)
        .expect("a release is far shorter than what the cipher takes");
    [&nonce[..], &release].concat()
}

fn cipher(secret: &NameSecret) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret.sealing_key()).expect("the key has the cipher's length"))
}

const _: () = assert!(NONCE_LEN + SignedRelease::MAX_LEN + MAX_TAG_LEN <= MAX_VALUE_LEN);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ContentHash, ImageId};
    use crate::lookup::ClusterSecret;
    use crate::release::{RELEASE_FORMAT, Release};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn release(name: &str, version: u64, key: &SigningKey) -> SignedRelease {
        let release = Release {
            format: RELEASE_FORMAT,
            name: name.parse().unwrap(),
            version,
            image: ImageId::from_bytes([7; 32]),
            content_len: u64::MAX >> 24,
            content_hash: ContentHash::from_bytes([8; 32]),
            created_unix_s: u64::MAX,
            expires_unix_s: u64::MAX,
        };
        release.sign(key)
    }

    fn secret_of(name: &str) -> NameSecret {
        ClusterSecret::from_bytes([1; 32]).of_name(&name.parse().unwrap())
    }

    #[test]
    fn an_item_holds_its_release_for_who_knows_the_secret_and_shows_nothing_of_it_to_others() {
        let (key, secret) = (key(1), secret_of("golden"));
        let signed = release("golden", 3, &key);
        let item = Item::sign(&signed, &secret, &key).unwrap();
        let name: Name = "golden".parse().unwrap();
        assert_eq!(item.open(&name, &secret), Ok(signed.clone()));
        assert_eq!((item.publisher, item.seq), (signed.publisher, 3));
        assert_eq!(Item::with_signature(&signed, &secret, item.signature), Ok(item.clone()), "it can be put anew");
        let shown = [&item.salt[..], &item.value].concat();
        for part in [b"golden".as_slice(), &[7; 32], &signed.signatures] {
            assert!(!shown.windows(part.len()).any(|window| window == part), "{part:?} can be seen");
        }
        assert_eq!(item.open(&name, &secret_of("silver")), Err(ItemError::Sealed));
        let elsewhere = ClusterSecret::from_bytes([2; 32]).of_name(&name);
        assert_eq!(item.open(&name, &elsewhere), Err(ItemError::Sealed));
        assert_ne!(item.salt, elsewhere.salt());
    }

    #[test]
    fn the_longest_release_fits() {
        let (name, key) = ("a".repeat(64), key(1));
        let mut signed = release(&name, i64::MAX as u64, &key);
        (2..=5).for_each(|seed| assert_eq!(signed.cosign(&self::key(seed)), Ok(true)));
        let item = Item::sign(&signed, &secret_of(&name), &key).unwrap();
        assert!(item.value.len() <= MAX_VALUE_LEN, "{} bytes", item.value.len());
        let too_late = release(&name, i64::MAX as u64 + 1, &key);
        assert_eq!(Item::sign(&too_late, &secret_of(&name), &key), Err(ItemError::Version));
    }

    #[test]
    fn no_bit_of_an_item_can_be_altered_and_no_signature_be_used_for_another_release() {
        let (key, secret) = (key(1), secret_of("golden"));
        let (signed, later) = (release("golden", 3, &key), release("golden", 4, &key));
        let item = Item::sign(&signed, &secret, &key).unwrap();
        let name: Name = "golden".parse().unwrap();
        for bit in 0..8 * item.value.len() {
            let mut altered = item.clone();
            altered.value[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(altered.open(&name, &secret), Err(ItemError::Sealed), "bit {bit}");
        }
        for len in 0..item.value.len() {
            let cut = Item { value: item.value[..len].to_vec(), ..item.clone() };
            assert_eq!(cut.open(&name, &secret), Err(ItemError::Sealed), "{len} bytes");
        }
        assert_eq!(Item::with_signature(&later, &secret, item.signature), Err(ItemError::Signature));
        let theirs = release("golden", 3, &self::key(2));
        assert_eq!(Item::with_signature(&theirs, &secret, item.signature), Err(ItemError::Signature));
    }

    #[test]
    fn an_item_that_holds_another_release_than_it_says_is_not_opened() {
        let (key, secret) = (key(1), secret_of("golden"));
        let name: Name = "golden".parse().unwrap();
        let item = Item::sign(&release("golden", 3, &key), &secret, &key).unwrap();
        assert_eq!(Item { seq: 4, ..item.clone() }.open(&name, &secret), Err(ItemError::Release), "replayed as later");
        let of_another = Item::sign(&release("silver", 3, &key), &secret, &key).unwrap();
        assert_eq!(of_another.open(&name, &secret), Err(ItemError::Release));
        let by_another = Item::sign(&release("golden", 3, &self::key(2)), &secret, &key).unwrap();
        assert_eq!(Item { publisher: item.publisher, ..by_another }.open(&name, &secret), Err(ItemError::Release));
    }
}
