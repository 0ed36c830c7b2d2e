//! Join tokens: one file each, so that they can be made while the tracker runs and while it does not.
//!
//! `tokens/<hash>.json` is a token that can be used; using it renames the file to `<hash>.used`. A rename succeeds once,
//! whoever races for it and whatever crashes after it, so a token lets one host in. The secret itself is not kept, only
//! its hash; a secret of 128 random bits needs no salt and can't be guessed.
//!
//! A token counts in the folder that it was made in and in no copy of that, so that it lets one host in even if the state
//! folder was copied to run a second tracker: a token remembers its folder by inode and time of birth, which no copy
//! shares. A folder that is moved keeps both; one that is restored from a backup loses its tokens, which live a day at
//! the most.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use drover_link::durable::{self, WriteError};
use drover_link::identity::{Role, unix_now_s};
use drover_link::token::{CaPin, JoinToken};
use serde::{Deserialize, Serialize};

/// How long a token is good for unless told otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(3600);
/// The longest that a token may be good for: it lies around in terminals and chats.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a token that is used or expired is remembered, so that its user can be told which of the two it is.
const REMEMBERED_S: u64 = 7 * 24 * 3600;
const HASH_CONTEXT: &str = "drover join token at rest v1";

/// The tokens of a cluster.
#[derive(Clone, Debug)]
pub struct Tokens {
    folder: PathBuf,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// It would be good for too long, or not at all.
    #[error("a join token can be good for 1 second to 24 hours, not for {} s", .0.as_secs())]
    Ttl(Duration),
    /// Trackers don't join.
    #[error("a token can be for a host or a publisher; a tracker is made by `drover-tracker init`")]
    Role,
    /// It can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a token lets nobody in. The text goes to who used it.
#[derive(Debug, thiserror::Error)]
pub enum UseError {
    /// Not one of ours.
    #[error(
        "this tracker does not know the join token: it was given out by another one, or expired more than a week ago; \
             get a new one with `drover-tracker token`"
    )]
    Unknown,
    /// It let somebody in before.
    #[error(
        "the join token was used before: each lets one host in; get a new one with `drover-tracker token`. If nobody \
             of yours used it, somebody else did: see the tracker's log"
    )]
    Used,
    /// Its time is over.
    #[error("the join token expired {0} min ago; get a new one with `drover-tracker token`")]
    Expired(u64),
    /// It was made in another folder, of which this one is a copy.
    #[error(
        "this tracker's state folder was copied from that of another one, or restored, after the join token was made: a \
             token counts only where it was made; join there, or get a new one here with `drover-tracker token`"
    )]
    Copied,
    /// The tracker's disk fails.
    #[error("the tracker can't read or write its tokens; see its log")]
    Disk(#[source] io::Error),
}

/// What is known of a token that can be used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    role: Role,
    expires_unix_s: u64,
    made_in: Birth,
}

/// What tells a folder from its copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Birth {
    inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not know.
    born_ns: u64,
}

impl Tokens {
    /// The tokens in the state folder `dir`.
    pub fn in_state(dir: &Path) -> Self {
        Tokens { folder: dir.join("tokens") }
    }

    /// Makes a token for joining the cluster whose CA has this pin.
    pub fn mint(&self, role: Role, ttl: Duration, pin: CaPin) -> Result<JoinToken, MintError> {
        if ttl.as_secs() == 0 || ttl > MAX_TTL {
            return Err(MintError::Ttl(ttl));
        }
        if role == Role::Tracker {
            return Err(MintError::Role);
        }
        durable::private_folder(&self.folder)?;
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).expect("the system's random numbers work");
        let unreadable = |cause| WriteError { path: self.folder.clone(), cause };
        let made_in = Birth::of(&self.folder).map_err(unreadable)?;
        let record = Record { role, expires_unix_s: unix_now_s() + ttl.as_secs(), made_in };
        let text = serde_json::to_vec(&record).expect("a record can be written as JSON");
        durable::create(&self.usable(&secret), &text, durable::PRIVATE)?;
        Ok(JoinToken::new(role, secret, pin))
    }

    /// Uses a token up. Whoever gets `Ok` is the only one ever to get it.
    pub fn consume(&self, secret: &[u8; 16]) -> Result<Role, UseError> {
        let (usable, used) = (self.usable(secret), self.used(secret));
        let missing = || if used.exists() { UseError::Used } else { UseError::Unknown };
        let text = match fs::read(&usable) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(UseError::Disk(error)),
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| UseError::Disk(error.into()))?;
        if record.made_in != Birth::of(&self.folder).map_err(UseError::Disk)? {
            return Err(UseError::Copied);
        }
        let now = unix_now_s();
        if record.expires_unix_s <= now {
            return Err(UseError::Expired((now - record.expires_unix_s).div_ceil(60).max(1)));
        }
        match fs::rename(&usable, &used) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(UseError::Used),
            Err(error) => return Err(UseError::Disk(error)),
        }
        durable::sync_folder(&used).map_err(UseError::Disk)?;
        Ok(record.role)
    }

    /// Forgets tokens that were used, or expired, more than a week ago.
    pub fn sweep(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let oldest = unix_now_s().saturating_sub(REMEMBERED_S + MAX_TTL.as_secs());
        for entry in entries {
            let entry = entry?;
            if u64::try_from(entry.metadata()?.mtime()).unwrap_or(0) < oldest {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn usable(&self, secret: &[u8; 16]) -> PathBuf {
        self.folder.join(format!("{}.json", hash(secret)))
    }

    fn used(&self, secret: &[u8; 16]) -> PathBuf {
        self.folder.join(format!("{}.used", hash(secret)))
    }
}

impl Birth {
    fn of(folder: &Path) -> io::Result<Self> {
        let found = fs::metadata(folder)?;
        let born = found.created().ok().and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
        let born_ns = born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0);
        Ok(Birth { inode: found.ino(), born_ns })
    }
}

fn hash(secret: &[u8; 16]) -> String {
    data_encoding::HEXLOWER.encode(&blake3::derive_key(HASH_CONTEXT, secret))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use drover_link::ca::CertificateAuthority;
    use tempfile::TempDir;

    use super::*;

    fn tokens() -> (TempDir, Tokens, CaPin) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pin = CertificateAuthority::create(&folder.path().join("ca"), "test").expect("a CA").pin();
        let tokens = Tokens::in_state(folder.path());
        (folder, tokens, pin)
    }

    /// As if the token's time were over.
    fn expire(tokens: &Tokens, token: &JoinToken) {
        let made_in = Birth::of(&tokens.folder).expect("the folder");
        let record = Record { role: Role::Host, expires_unix_s: unix_now_s() - 1, made_in };
        fs::write(tokens.usable(token.secret()), serde_json::to_vec(&record).expect("JSON")).expect("written");
    }

    #[test]
    fn a_token_is_good_once_and_for_its_role() {
        let (_folder, tokens, pin) = tokens();
        for role in [Role::Host, Role::Publisher] {
            let token = tokens.mint(role, DEFAULT_TTL, pin).expect("a token");
            assert_eq!(tokens.consume(token.secret()).expect("the first use"), role);
            assert!(matches!(tokens.consume(token.secret()), Err(UseError::Used)));
        }
        assert!(matches!(tokens.consume(&[0; 16]), Err(UseError::Unknown)));
    }

    #[test]
    fn an_expired_token_is_told_so_and_stays_so() {
        let (_folder, tokens, pin) = tokens();
        let token = tokens.mint(Role::Host, DEFAULT_TTL, pin).expect("a token");
        expire(&tokens, &token);
        for _ in 0..2 {
            assert!(matches!(tokens.consume(token.secret()), Err(UseError::Expired(1))));
        }
        tokens.sweep().expect("swept");
        assert!(matches!(tokens.consume(token.secret()), Err(UseError::Expired(_))), "it is remembered for a while");
    }

    #[test]
    fn a_copy_of_the_folder_does_not_double_a_token() {
        let (folder, tokens, pin) = tokens();
        let token = tokens.mint(Role::Host, DEFAULT_TTL, pin).expect("a token");
        let elsewhere = tempfile::tempdir().expect("a temporary folder");
        let copy = Tokens::in_state(elsewhere.path());
        fs::create_dir(&copy.folder).expect("a folder");
        fs::copy(tokens.usable(token.secret()), copy.usable(token.secret())).expect("copied");
        assert!(matches!(copy.consume(token.secret()), Err(UseError::Copied)));
        // Moved as a whole it is still the same.
        let moved = folder.path().join("moved");
        fs::create_dir(&moved).expect("a folder");
        fs::rename(&tokens.folder, moved.join("tokens")).expect("moved");
        assert_eq!(Tokens::in_state(&moved).consume(token.secret()).expect("the first use"), Role::Host);
        let fresh = copy.mint(Role::Host, DEFAULT_TTL, pin).expect("a token of the copy's own");
        copy.consume(fresh.secret()).expect("the first use");
    }

    #[test]
    fn of_many_that_race_one_wins() {
        let (_folder, tokens, pin) = tokens();
        for _ in 0..20 {
            let token = tokens.mint(Role::Host, DEFAULT_TTL, pin).expect("a token");
            let (start, secret) = (Barrier::new(8), *token.secret());
            let winners = thread::scope(|scope| {
                let racers: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            tokens.consume(&secret)
                        })
                    })
                    .collect();
                let results = racers.into_iter().map(|racer| racer.join().expect("no panic"));
                results
                    .filter(|result| match result {
                        Ok(_) => true,
                        Err(UseError::Used) => false,
                        Err(other) => panic!("{other}"),
                    })
                    .count()
            });
            assert_eq!(winners, 1);
        }
    }

    #[test]
    fn the_secret_is_not_on_disk() {
        let (folder, tokens, pin) = tokens();
        let token = tokens.mint(Role::Host, DEFAULT_TTL, pin).expect("a token");
        let secret = data_encoding::HEXLOWER.encode(token.secret());
        for entry in fs::read_dir(folder.path().join("tokens")).expect("the folder") {
            let entry = entry.expect("an entry");
            assert!(!entry.file_name().to_string_lossy().contains(&secret));
            assert!(!String::from_utf8_lossy(&fs::read(entry.path()).expect("a file")).contains(&secret));
            assert_eq!(entry.metadata().expect("metadata").mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_token_made_by_root_belongs_to_the_trackers_user() {
        if !rustix::process::geteuid().is_root() {
            return; // Nobody else can give files away.
        }
        let (folder, tokens, pin) = tokens();
        std::os::unix::fs::chown(folder.path(), Some(54321), Some(54322)).expect("given away");
        let token = tokens.mint(Role::Host, DEFAULT_TTL, pin).expect("a token");
        for path in [tokens.folder.clone(), tokens.usable(token.secret())] {
            let owner = fs::metadata(&path).expect("metadata");
            assert_eq!((owner.uid(), owner.gid()), (54321, 54322), "{}", path.display());
        }
    }

    #[test]
    fn a_life_without_end_is_refused() {
        let (_folder, tokens, pin) = tokens();
        for ttl in [Duration::ZERO, Duration::from_secs(24 * 3600 + 1)] {
            assert!(matches!(tokens.mint(Role::Host, ttl, pin), Err(MintError::Ttl(_))));
        }
        assert!(matches!(tokens.mint(Role::Tracker, DEFAULT_TTL, pin), Err(MintError::Role)));
    }
}
