//! The newest release of each name: on disk, and offered from memory.
//!
//! A release is written and synced before anybody hears of it, so what was offered once is never forgotten, and a lower
//! version is refused after any restart. Only the newest of a name is kept: hosts keep their own history.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use drover_protocol::announce::MAX_RELEASES;
use drover_protocol::codec;
use drover_protocol::id::ImageId;
use drover_protocol::release::{Name, Release, ReleaseError, SeenVersion, SignedRelease, Trust};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// Version, image, time of expiry (seconds since 1970), and the signed release as a message body.
type Row = (u64, [u8; 32], u64, &'static [u8]);

/// By name.
const RELEASES: TableDefinition<'_, &str, Row> = TableDefinition::new("releases v1");

/// The newest release of each name.
pub struct Releases {
    database: Database,
    newest: BTreeMap<Name, Kept>,
}

/// A release as it is offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Version and image.
    pub seen: SeenVersion,
    /// From when on it is not offered any more, in seconds since 1970.
    pub expires_unix_s: u64,
    /// What goes to hosts.
    pub signed: SignedRelease,
}

/// Why releases can't be had.
#[derive(Debug, thiserror::Error)]
#[error("can't use {path}: {cause}; restore it from a backup, or move it away and post the newest releases again")]
pub struct OpenError {
    path: PathBuf,
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

/// Why a release was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The release itself.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// Too many names.
    #[error("the tracker keeps {MAX_RELEASES} names, which is the most it can; publish under a name that exists")]
    TooManyNames,
    /// The disk fails.
    #[error("the tracker can't write to its disk; see its log")]
    Disk(#[source] Box<redb::Error>),
}

/// What became of a release that was posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Posted {
    /// It is new: tell everybody.
    New,
    /// It was known.
    Known,
}

impl Releases {
    /// Opens, or makes, the file at `path`.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = || -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
            let database = Database::create(path)?;
            let transaction = database.begin_write()?;
            transaction.open_table(RELEASES)?;
            transaction.commit()?;
            let newest = read(&database)?;
            Ok(Releases { database, newest })
        };
        opened().map_err(|cause| OpenError { path: path.to_owned(), cause })
    }

    /// Takes a release, if as many trusted publishers signed it as have to, it is not expired and its version does not go
    /// back. Blocks until it is on disk.
    pub fn post<'a>(
        &mut self,
        signed: &SignedRelease,
        trust: impl Into<Trust<'a>>,
        now_unix_s: u64,
    ) -> Result<(Release, Posted), PostError> {
        let trust = trust.into();
        let release = signed.verify(trust, now_unix_s)?;
        let known = self.newest.get(&release.name);
        release.check_against(known.map(|kept| &kept.seen))?;
        match known {
            // Signed anew, it lives longer or more hosts believe it; otherwise it says nothing that is not known.
            Some(kept)
                if kept.seen.version == release.version
                    && kept.expires_unix_s >= release.expires_unix_s
                    && !signed.adds_signers_to(&kept.signed, trust.publishers) =>
            {
                return Ok((release, Posted::Known));
            }
            None if self.newest.len() >= MAX_RELEASES => return Err(PostError::TooManyNames),
            _ => {}
        }
        let kept = Kept {
            seen: SeenVersion { version: release.version, image: release.image },
            expires_unix_s: release.expires_unix_s,
            signed: signed.clone(),
        };
        self.write(&release.name, &kept).map_err(|error| PostError::Disk(Box::new(error)))?;
        self.newest.insert(release.name.clone(), kept);
        Ok((release, Posted::New))
    }

    /// The newest release of each of these names, or of every name if none is given, that has not expired.
    pub fn newest(&self, names: &[Name], now_unix_s: u64) -> Vec<SignedRelease> {
        let fresh = |kept: &&Kept| kept.expires_unix_s > now_unix_s;
        if names.is_empty() {
            self.newest.values().filter(fresh).map(|kept| kept.signed.clone()).collect()
        } else {
            let wanted = names.iter().take(MAX_RELEASES).filter_map(|name| self.newest.get(name));
            wanted.filter(fresh).map(|kept| kept.signed.clone()).collect()
        }
    }

    /// Everything that is kept, expired or not.
    pub fn all(&self) -> impl Iterator<Item = (&Name, &Kept)> {
        self.newest.iter()
    }

    fn write(&self, name: &Name, kept: &Kept) -> Result<(), redb::Error> {
        let body = codec::encode(&kept.signed).expect("a release that was verified keeps its limits");
        let image = *kept.seen.image.as_bytes();
        let transaction = self.database.begin_write()?;
        transaction
            .open_table(RELEASES)?
            .insert(name.as_str(), (kept.seen.version, image, kept.expires_unix_s, body.as_slice()))?;
        transaction.commit()?;
        Ok(())
    }
}

fn read(database: &Database) -> Result<BTreeMap<Name, Kept>, Box<dyn std::error::Error + Send + Sync>> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(RELEASES)?;
    let mut newest = BTreeMap::new();
    for row in table.iter()? {
        let (name, value) = row?;
        let (version, image, expires_unix_s, body) = value.value();
        let seen = SeenVersion { version, image: ImageId::from_bytes(image) };
        newest.insert(name.value().parse()?, Kept { seen, expires_unix_s, signed: codec::decode(body)? });
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use drover_protocol::id::{ContentHash, PublisherKey};
    use drover_protocol::release::RELEASE_FORMAT;
    use ed25519_dalek::SigningKey;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn trusted() -> Vec<PublisherKey> {
        vec![PublisherKey::from_bytes(key(1).verifying_key().to_bytes())]
    }

    fn release(name: &str, version: u64, image: u8) -> Release {
        Release {
            format: RELEASE_FORMAT,
            name: name.parse().expect("a name"),
            version,
            image: ImageId::from_bytes([image; 32]),
            content_len: 65536,
            content_hash: ContentHash::from_bytes([9; 32]),
            created_unix_s: NOW,
            expires_unix_s: NOW + 1000,
        }
    }

    #[test]
    fn versions_only_grow_and_survive_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("releases.redb");
        let mut releases = Releases::open(&path).expect("opened");
        let mut post = |release: Release| releases.post(&release.sign(&key(1)), &trusted(), NOW).map(|(_, new)| new);
        assert_eq!(post(release("debian", 2, 2)).expect("taken"), Posted::New);
        assert_eq!(post(release("debian", 2, 2)).expect("known"), Posted::Known);
        assert!(matches!(post(release("debian", 1, 1)), Err(PostError::Release(ReleaseError::Rollback { .. }))));
        assert!(matches!(post(release("debian", 2, 3)), Err(PostError::Release(ReleaseError::Equivocation { .. }))));
        assert_eq!(post(release("alpine", 1, 7)).expect("taken"), Posted::New);
        drop(releases);

        let mut releases = Releases::open(&path).expect("opened again");
        let offered = releases.newest(&[], NOW);
        assert_eq!(offered, [release("alpine", 1, 7).sign(&key(1)), release("debian", 2, 2).sign(&key(1))]);
        assert_eq!(releases.newest(&["debian".parse().expect("a name")], NOW).len(), 1);
        let lower = releases.post(&release("debian", 1, 1).sign(&key(1)), &trusted(), NOW);
        assert!(matches!(lower, Err(PostError::Release(ReleaseError::Rollback { .. }))));
    }

    #[test]
    fn as_many_have_to_sign_as_the_tracker_asks_for_and_what_more_have_signed_is_told_anew() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut releases = Releases::open(&dir.path().join("releases.redb")).expect("opened");
        let publishers = [key(1), key(2)].map(|key| PublisherKey::from_bytes(key.verifying_key().to_bytes()));
        let asking = |signatures| Trust { publishers: &publishers, signatures };
        let one = release("debian", 1, 1).sign(&key(1));
        let mut two = one.clone();
        two.cosign(&key(2)).expect("signed");
        let refused = releases.post(&one, asking(2), NOW);
        assert!(matches!(refused, Err(PostError::Release(ReleaseError::TooFewSignatures { has: 1, wanted: 2 }))));
        assert!(releases.newest(&[], NOW).is_empty());
        let mut post =
            |signed: &SignedRelease| releases.post(signed, asking(1), NOW).map(|(_, new)| new).expect("taken");
        assert_eq!([&one, &one, &two, &two, &one].map(&mut post), {
            use Posted::{Known, New};
            [New, Known, New, Known, Known]
        });
        assert_eq!(releases.newest(&[], NOW), [two.clone()]);
        assert_eq!(releases.post(&two, asking(2), NOW).expect("known").1, Posted::Known);
    }

    #[test]
    fn what_is_expired_is_not_offered_but_still_counts() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut releases = Releases::open(&dir.path().join("releases.redb")).expect("opened");
        releases.post(&release("a", 5, 1).sign(&key(1)), &trusted(), NOW).expect("taken");
        let later = NOW + 2000;
        assert!(releases.newest(&[], later).is_empty());
        let old = Release { expires_unix_s: later + 1000, ..release("a", 4, 1) };
        assert!(releases.post(&old.sign(&key(1)), &trusted(), later).is_err());
        let again = Release { expires_unix_s: later + 1000, ..release("a", 5, 1) };
        let (_, posted) = releases.post(&again.sign(&key(1)), &trusted(), later).expect("signed anew");
        assert_eq!((posted, releases.newest(&[], later).len()), (Posted::New, 1));
    }

    #[test]
    fn a_name_too_many_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut releases = Releases::open(&dir.path().join("releases.redb")).expect("opened");
        let kept = |version| Kept {
            seen: SeenVersion { version, image: ImageId::from_bytes([0; 32]) },
            expires_unix_s: NOW + 1000,
            signed: release("x", 1, 1).sign(&key(1)),
        };
        for number in 0..MAX_RELEASES {
            releases.newest.insert(format!("n{number}").parse().expect("a name"), kept(1));
        }
        let post = releases.post(&release("one-more", 1, 1).sign(&key(1)), &trusted(), NOW);
        assert!(matches!(post, Err(PostError::TooManyNames)));
        releases.post(&release("n7", 2, 1).sign(&key(1)), &trusted(), NOW).expect("a new version of a known name");
    }

    #[test]
    fn a_damaged_file_is_told_with_its_path() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("releases.redb");
        std::fs::write(&path, vec![0x5a; 8192]).expect("written");
        let text = Releases::open(&path).err().expect("damaged").to_string();
        assert!(text.contains("releases.redb") && text.contains("restore"), "{text}");
    }
}
