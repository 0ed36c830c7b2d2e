//! Releases that were heard and refused, so that a person who asks for one is told why it does not come.
//!
//! What they claim to be is not verified: it goes into error texts and decides nothing. A few are kept, the latest.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use drover_protocol::id::PublisherKey;
use drover_protocol::release::{Name, ReleaseError, SignedRelease};

use crate::control::{Code, Problem};

/// The latest refusal of each name.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    latest: Mutex<VecDeque<Refusal>>,
}

/// A release that was not accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    name: Name,
    version: u64,
    publisher: PublisherKey,
    why: ReleaseError,
}

impl Refusals {
    /// Remembers it, if it says what it claims to be.
    pub(super) fn note(&self, signed: &SignedRelease, why: &ReleaseError) {
        let Some((name, version)) = signed.claim() else { return };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|refusal| refusal.name != name);
        if latest.len() == REMEMBERED {
            latest.pop_front();
        }
        latest.push_back(Refusal { name, version, publisher: signed.publisher, why: why.clone() });
    }

    /// What was refused under this name, and version if one is given.
    pub(super) fn of(&self, name: &Name, version: Option<u64>) -> Option<Refusal> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = |refusal: &&Refusal| refusal.name == *name && version.is_none_or(|it| it == refusal.version);
        latest.iter().find(asked).cloned()
    }
}

impl Refusal {
    /// What to tell who asked for it.
    pub(super) fn problem(&self, what: &str) -> Problem {
        let Refusal { name, version, publisher, why } = self;
        let todo = match why {
            ReleaseError::UnknownPublisher(_) => format!(
                "if you trust {publisher}, add it to the setting publishers of this host; else have {name} published \
                 with a key that this cluster trusts"
            ),
            ReleaseError::TooFewSignatures { .. } => format!(
                "have further publishers sign it (`drover cosign`) and hand it out anew (`drover post`), or have this host \
                 ask for fewer signatures (setting signatures), which makes one stolen key enough; it is {name}@{version}"
            ),
            ReleaseError::FromTheFuture { .. } => "set the clock of this host, or of the publisher's".to_owned(),
            ReleaseError::Format(_) => "update drover on this host".to_owned(),
            _ => format!("publish {name} again, as a version that was not used yet"),
        };
        let why = format!("a release of {name} exists (version {version}), but is not accepted here: {why}");
        Problem::new(Code::Refused, what, why).todo(todo)
    }
}

/// More names than a person asks for; an unknown publisher can make any number of them.
const REMEMBERED: usize = 64;

#[cfg(test)]
mod tests {
    use drover_protocol::id::{ContentHash, ImageId};
    use drover_protocol::release::{RELEASE_FORMAT, Release};
    use ed25519_dalek::SigningKey;

    use super::*;

    fn release(name: &str, version: u64) -> SignedRelease {
        let release = Release {
            format: RELEASE_FORMAT,
            name: name.parse().expect("a name"),
            version,
            image: ImageId::from_bytes([1; 32]),
            content_len: 65_536,
            content_hash: ContentHash::from_bytes([2; 32]),
            created_unix_s: 0,
            expires_unix_s: 1,
        };
        release.sign(&SigningKey::from_bytes(&[7; 32]))
    }

    #[test]
    fn who_asks_for_a_refused_release_is_told_why() {
        let refusals = Refusals::default();
        let signed = release("web", 3);
        refusals.note(&signed, &ReleaseError::UnknownPublisher(signed.publisher));
        let web: Name = "web".parse().expect("a name");
        let problem = refusals.of(&web, None).expect("it was refused").problem("fetch web");
        assert_eq!(problem.code, Code::Refused);
        assert!(problem.why.contains("a release of web exists (version 3)"), "{problem}");
        assert!(problem.why.contains("is not one of the publishers"), "{problem}");
        assert_eq!(refusals.of(&web, Some(3)), refusals.of(&web, None));
        assert_eq!(refusals.of(&web, Some(2)), None, "version 2 was never heard of");
    }

    #[test]
    fn a_flood_of_names_pushes_out_the_oldest() {
        let refusals = Refusals::default();
        for number in 0..=REMEMBERED {
            let signed = release(&format!("flood-{number}"), 1);
            refusals.note(&signed, &ReleaseError::UnknownPublisher(signed.publisher));
        }
        assert_eq!(refusals.latest.lock().expect("not poisoned").len(), REMEMBERED);
        assert_eq!(refusals.of(&"flood-0".parse().expect("a name"), None), None);
    }
}
