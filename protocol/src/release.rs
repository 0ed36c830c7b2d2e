//! A release: the signed statement that a name, at a version, means an image.
//!
//! Signed by a publisher's Ed25519 key that hosts pin, and by as many more as a host asks for, so that one stolen key is not
//! enough. What is signed is the release's canonical bytes behind a domain separator, so a signature can't be taken for one
//! over anything else. A version of a name only grows: a host keeps the highest that it has seen and refuses a lower one,
//! and the same one with another image, whoever hands it over.

use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{SIGNATURE_LENGTH, Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::codec::Message;
use crate::geometry::MAX_IMAGE_LEN;
use crate::id::{ContentHash, ImageId, PublisherKey};
use crate::message::within;

/// The format that this code writes and reads.
pub const RELEASE_FORMAT: u16 = 1;
/// Longest body of a signed release in bytes; format 1 takes at most 166.
pub const MAX_BODY_LEN: usize = 256;
/// Publishers who may sign a release beside the one who made it: with more it would not fit into an item of the hash table.
pub const MOST_COSIGNERS: usize = 4;
/// A key and a signature.
const COSIGNATURE_LEN: usize = 32 + SIGNATURE_LENGTH;
const DOMAIN: &[u8] = b"drover release v1\0";
/// A clock may be this far behind the publisher's before a release counts as made in the future, in seconds.
const CLOCK_SLACK_S: u64 = 24 * 3600;

/// The name of a master through its versions: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(String);

/// A text that is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")]
pub struct ParseNameError(String);

/// What a publisher states.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Release {
    /// [`RELEASE_FORMAT`].
    pub format: u16,
    /// What it is called.
    pub name: Name,
    /// Which version of that name, at least 1.
    pub version: u64,
    /// Which image that is.
    pub image: ImageId,
    /// Length of the image in bytes; bounds what a host accepts as its manifest.
    pub content_len: u64,
    /// BLAKE3 of the whole content.
    pub content_hash: ContentHash,
    /// When it was made, in seconds since 1970 (UTC).
    pub created_unix_s: u64,
    /// From when on it must not be accepted any more, in seconds since 1970 (UTC).
    pub expires_unix_s: u64,
}

/// A release as it travels and is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedRelease {
    /// Canonical bytes of the [`Release`].
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// Who made it.
    pub publisher: PublisherKey,
    /// The publisher's signature, Ed25519 over the domain separator and `body`, 64 bytes; then, for each of at most
    /// [`MOST_COSIGNERS`] others, a key and its signature over the same, 96 bytes, in the order of the keys.
    #[serde(with = "serde_bytes")]
    pub signatures: Vec<u8>,
}

/// Whose signatures a release needs to be believed. A slice of publishers means any one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trust<'a> {
    /// Who counts.
    pub publishers: &'a [PublisherKey],
    /// How many of them have to sign, at least 1.
    pub signatures: usize,
}

/// Why a release is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// No pinned key made it.
    #[error("publisher {0} is not one of the publishers that this host trusts")]
    UnknownPublisher(PublisherKey),
    /// Fewer pinned keys signed it than have to.
    #[error("it has {has} of the {wanted} signatures by trusted publishers that it needs here")]
    TooFewSignatures {
        /// Trusted publishers who signed it.
        has: usize,
        /// How many have to.
        wanted: usize,
    },
    /// The signature is not the publisher's over these bytes.
    #[error("the signature does not fit the release: it was altered, or never signed by {0}")]
    Signature(PublisherKey),
    /// Signed, but not a release that this code reads.
    #[error("malformed release: {0}")]
    Malformed(&'static str),
    /// A later format than this code knows.
    #[error("release format {0}: this version reads {RELEASE_FORMAT}; update drover on this host")]
    Format(u16),
    /// Its time is over.
    #[error("release {name}@{version} expired at {expires_unix_s} (seconds since 1970); publish a newer one")]
    Expired {
        /// Its name.
        name: Name,
        /// Its version.
        version: u64,
        /// When it expired.
        expires_unix_s: u64,
    },
    /// It claims to be made in the future.
    #[error("release {name}@{version} was made more than a day in the future; is this host's clock right?")]
    FromTheFuture {
        /// Its name.
        name: Name,
        /// Its version.
        version: u64,
    },
    /// A higher version of the name was seen before.
    #[error("release {name}@{version} is older than version {seen}, which was seen before; versions only grow")]
    Rollback {
        /// Its name.
        name: Name,
        /// Its version.
        version: u64,
        /// The highest version seen.
        seen: u64,
    },
    /// The same version was seen before with another image.
    #[error(
        "release {name}@{version} names another image than the {name}@{version} seen before; publish it as a new version"
    )]
    Equivocation {
        /// Its name.
        name: Name,
        /// Its version.
        version: u64,
    },
}

/// Why a release can't be signed by one more publisher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CosignError {
    /// It is no release that is as it was signed.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// As many have signed it as can.
    #[error("{} publishers have signed it, which is the most that can", 1 + MOST_COSIGNERS)]
    TooMany,
}

/// The highest version of a name that was seen, and what it named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeenVersion {
    /// The version.
    pub version: u64,
    /// The image it named.
    pub image: ImageId,
}

impl Release {
    /// Signs it.
    pub fn sign(&self, key: &SigningKey) -> SignedRelease {
        let body = self.body();
        let signatures = key.sign(&signed_bytes(&body)).to_bytes().to_vec();
        SignedRelease { body, publisher: public_half(key), signatures }
    }

    fn body(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a release holds only what postcard can write")
    }

    /// Whether its time has come and is not over. To be asked again before anything is begun because of a release that
    /// was accepted earlier.
    pub fn check_time(&self, now_unix_s: u64) -> Result<(), ReleaseError> {
        let (name, version) = (self.name.clone(), self.version);
        if self.expires_unix_s <= now_unix_s {
            return Err(ReleaseError::Expired { name, version, expires_unix_s: self.expires_unix_s });
        }
        if self.created_unix_s > now_unix_s.saturating_add(CLOCK_SLACK_S) {
            return Err(ReleaseError::FromTheFuture { name, version });
        }
        Ok(())
    }

    /// Whether another release of the same version states nothing that this one does not: the same, for no longer.
    pub fn says_all_of(&self, other: &Release) -> bool {
        let Release { created_unix_s, expires_unix_s, .. } = *self;
        *self == Release { created_unix_s, expires_unix_s, ..other.clone() } && other.expires_unix_s <= expires_unix_s
    }

    /// Whether it may follow what was seen of its name. The same release again may.
    pub fn check_against(&self, seen: Option<&SeenVersion>) -> Result<(), ReleaseError> {
        let Some(seen) = seen else { return Ok(()) };
        let (name, version) = (self.name.clone(), self.version);
        if version < seen.version {
            return Err(ReleaseError::Rollback { name, version, seen: seen.version });
        }
        if version == seen.version && self.image != seen.image {
            return Err(ReleaseError::Equivocation { name, version });
        }
        Ok(())
    }
}

impl SignedRelease {
    /// The release, if as many trusted publishers signed it as have to and its time has come and is not over.
    ///
    /// Signatures are checked before the body is looked into. Versions are checked by [`Release::check_against`].
    pub fn verify<'a>(&self, trust: impl Into<Trust<'a>>, now_unix_s: u64) -> Result<Release, ReleaseError> {
        let release = self.verify_signatures(trust)?;
        release.check_time(now_unix_s)?;
        Ok(release)
    }

    /// The release, if as many trusted publishers signed it as have to, whatever the time: for masters that are already held.
    ///
    /// Every signature has to fit, also those of publishers who do not count here.
    pub fn verify_signatures<'a>(&self, trust: impl Into<Trust<'a>>) -> Result<Release, ReleaseError> {
        let trust = trust.into();
        let signatures = self.signatures().ok_or(ReleaseError::Signature(self.publisher))?;
        match self.trusted_signers(trust.publishers) {
            0 => return Err(ReleaseError::UnknownPublisher(self.publisher)),
            has if has < trust.signatures => {
                return Err(ReleaseError::TooFewSignatures { has, wanted: trust.signatures });
            }
            _ => {}
        }
        let signed = signed_bytes(&self.body);
        for (signer, signature) in signatures {
            let refuse = |_| ReleaseError::Signature(signer);
            let key = VerifyingKey::from_bytes(signer.as_bytes()).map_err(refuse)?;
            key.verify_strict(&signed, &Signature::from_bytes(signature)).map_err(refuse)?;
        }
        self.parse()
    }

    /// The release, if everybody who is named in it signed it, whoever that is.
    pub fn verify_intact(&self) -> Result<Release, ReleaseError> {
        self.verify_signatures(&[self.publisher])
    }

    /// Has a further publisher sign it; says whether it was not signed by that one before.
    pub fn cosign(&mut self, key: &SigningKey) -> Result<bool, CosignError> {
        self.verify_intact()?;
        let signer = public_half(key);
        if self.signers().contains(&signer) {
            return Ok(false);
        }
        let (own, others) = self.signatures.split_at(SIGNATURE_LENGTH);
        let mut others: Vec<[u8; COSIGNATURE_LEN]> = others.as_chunks().0.to_vec();
        if others.len() >= MOST_COSIGNERS {
            return Err(CosignError::TooMany);
        }
        let mut cosignature = [0; COSIGNATURE_LEN];
        let (signed_by, signature) = cosignature.split_at_mut(signer.as_bytes().len());
        signed_by.copy_from_slice(signer.as_bytes());
        signature.copy_from_slice(&key.sign(&signed_bytes(&self.body)).to_bytes());
        others.push(cosignature);
        others.sort_unstable();
        self.signatures = [own, others.as_flattened()].concat();
        Ok(true)
    }

    /// Who is said to have signed it, who made it first; nobody if that is malformed.
    pub fn signers(&self) -> Vec<PublisherKey> {
        self.signatures().unwrap_or_default().into_iter().map(|(signer, _)| signer).collect()
    }

    /// How many of these are said to have signed it.
    pub fn trusted_signers(&self, publishers: &[PublisherKey]) -> usize {
        self.signers().iter().filter(|signer| publishers.contains(signer)).count()
    }

    /// Whether more of these publishers signed it than another form of the same release, which ends at the same time.
    pub fn adds_signers_to(&self, known: &SignedRelease, publishers: &[PublisherKey]) -> bool {
        let end = |signed: &SignedRelease| signed.parse().map(|release| release.expires_unix_s);
        end(self).is_ok_and(|ends| end(known) == Ok(ends))
            && self.trusted_signers(publishers) > known.trusted_signers(publishers)
    }

    /// Who signed it and how; `None` if that is not in its one form.
    fn signatures(&self) -> Option<Vec<(PublisherKey, &[u8; SIGNATURE_LENGTH])>> {
        let (own, others) = self.signatures.split_first_chunk::<SIGNATURE_LENGTH>()?;
        let (others, rest) = others.as_chunks::<COSIGNATURE_LEN>();
        let others = others.iter().map(|other| {
            let (signer, signature) = other.split_first_chunk().expect("a key is shorter");
            (PublisherKey::from_bytes(*signer), signature.try_into().expect("what is left is a signature"))
        });
        let all: Vec<_> = [(self.publisher, own)].into_iter().chain(others).collect();
        let keys = || all[1..].iter().map(|(signer, _)| signer);
        let is_sorted = keys().is_sorted_by(|one, next| one < next) && !keys().any(|signer| *signer == self.publisher);
        (rest.is_empty() && all.len() <= 1 + MOST_COSIGNERS && is_sorted).then_some(all)
    }

    /// The name and version that it claims, whoever signed it: for texts that say why it was refused, and nothing else.
    pub fn claim(&self) -> Option<(Name, u64)> {
        self.parse().ok().map(|release| (release.name, release.version))
    }

    fn parse(&self) -> Result<Release, ReleaseError> {
        let (format, _): (u16, _) =
            postcard::take_from_bytes(&self.body).map_err(|_| ReleaseError::Malformed("it has no format number"))?;
        if format != RELEASE_FORMAT {
            return Err(ReleaseError::Format(format));
        }
        let (release, rest): (Release, _) = postcard::take_from_bytes(&self.body)
            .map_err(|_| ReleaseError::Malformed("its fields are not those of a release"))?;
        if !rest.is_empty() {
            return Err(ReleaseError::Malformed("bytes follow it"));
        }
        if release.version == 0 {
            return Err(ReleaseError::Malformed("its version is 0; the first is 1"));
        }
        if release.content_len == 0 || release.content_len > MAX_IMAGE_LEN {
            return Err(ReleaseError::Malformed("its length is none that an image can have"));
        }
        if release.body() != self.body {
            return Err(ReleaseError::Malformed("a number is not in its shortest form"));
        }
        Ok(release)
    }
}

impl<'a> From<&'a [PublisherKey]> for Trust<'a> {
    fn from(publishers: &'a [PublisherKey]) -> Self {
        Trust { publishers, signatures: 1 }
    }
}

impl<'a, const N: usize> From<&'a [PublisherKey; N]> for Trust<'a> {
    fn from(publishers: &'a [PublisherKey; N]) -> Self {
        publishers[..].into()
    }
}

impl<'a> From<&'a Vec<PublisherKey>> for Trust<'a> {
    fn from(publishers: &'a Vec<PublisherKey>) -> Self {
        publishers[..].into()
    }
}

impl Message for SignedRelease {
    const MAX_LEN: usize = 768;
    const NAME: &'static str = "signed release";

    fn check(&self) -> Result<(), &'static str> {
        within(self.body.len(), MAX_BODY_LEN, "a body that is too long")?;
        let most = SIGNATURE_LENGTH + MOST_COSIGNERS * COSIGNATURE_LEN;
        within(self.signatures.len(), most, "signatures that are too long")
    }
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = ParseNameError;
    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.len() <= 64 && text.bytes().all(allowed) {
            Ok(Name(text.to_owned()))
        } else {
            Err(ParseNameError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

fn public_half(key: &SigningKey) -> PublisherKey {
    PublisherKey::from_bytes(key.verifying_key().to_bytes())
}

fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [DOMAIN, body].concat()
}
