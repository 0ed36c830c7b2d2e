//! The releases that this host has accepted, kept so that a version only ever grows.
//!
//! A release is on the disk before anything is done because of it, so a host that was killed in the middle still knows
//! the highest version that it saw. The signed bytes are what is kept: reading them back checks the signature, which
//! finds damage as well as forgery. A file that is damaged is reported and its version still counts as seen, because
//! the name of the file tells it; the same version, signed, mends it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use drover_protocol::codec::Message;
use drover_protocol::planted::{Bug, is_planted};
use drover_protocol::release::{Name, Release, ReleaseError, SeenVersion, SignedRelease, Trust};

use crate::disk::{Disk, Step};
use crate::disk_error::{DiskError, Doing};
use crate::layout::{make_folder, sweep_files, sync_folder, write_file};

/// The releases of one host, by name and version.
#[derive(Debug)]
pub struct Catalog<D> {
    disk: D,
    folder: PathBuf,
    names: Mutex<BTreeMap<Name, Versions>>,
}

#[derive(Debug, Default)]
struct Versions {
    /// `None` of a version whose file is damaged.
    releases: BTreeMap<u64, Option<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    release: Release,
    signed: SignedRelease,
}

/// A release that was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// What it states.
    pub release: Release,
    /// Whether it was not known before.
    pub new: bool,
}

/// Why a release was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It is not one that may be accepted.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// It could not be kept, so it must not be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl<D: Disk> Catalog<D> {
    /// Reads the releases in `folder`; adds to `unreadable` what is damaged.
    pub fn open(disk: D, folder: PathBuf, unreadable: &mut Vec<String>) -> Result<Self, DiskError> {
        let mut names = BTreeMap::new();
        for text in disk.list(&folder).doing("list", &folder)? {
            let Ok(name) = text.parse::<Name>() else { continue };
            let versions = load_versions(&disk, &folder.join(text), &name, unreadable)?;
            names.insert(name, versions);
        }
        Ok(Catalog { disk, folder, names: Mutex::new(names) })
    }

    /// Accepts a release if as many trusted publishers signed it as have to, it is valid at `now_unix_s`, and no higher
    /// version of its name was seen; keeps it durably. One that is known already is accepted again, whatever came after it.
    /// Signed anew, a release lives longer, and by more publishers it is believed by more hosts; another form of it says
    /// nothing that is not known.
    pub fn accept<'a>(
        &self,
        signed: &SignedRelease,
        trust: impl Into<Trust<'a>>,
        now_unix_s: u64,
    ) -> Result<Accepted, AcceptError> {
        let trust = trust.into();
        let release = signed.verify(trust, now_unix_s)?;
        let mut names = self.names();
        if let Some(known) = known_form(&names, signed, &release, trust)? {
            return Ok(Accepted { release: known.release.clone(), new: false });
        }
        let kept = self.keep(signed, &release);
        if !is_planted(Bug::UseBeforeKept) {
            kept?;
        }
        let known = Known { release: release.clone(), signed: signed.clone() };
        names.entry(release.name.clone()).or_default().releases.insert(release.version, Some(known));
        Ok(Accepted { release, new: true })
    }

    /// What [`Catalog::accept`] would make of a release, which is not kept.
    pub fn check<'a>(
        &self,
        signed: &SignedRelease,
        trust: impl Into<Trust<'a>>,
        now_unix_s: u64,
    ) -> Result<Release, ReleaseError> {
        let trust = trust.into();
        let release = signed.verify(trust, now_unix_s)?;
        known_form(&self.names(), signed, &release, trust)?;
        Ok(release)
    }

    /// Forgets a release that is not the highest of its name; says whether it was known. The highest is kept for ever:
    /// it is what a lower one is refused by.
    pub fn forget(&self, name: &Name, version: u64) -> Result<bool, DiskError> {
        let mut names = self.names();
        let Some(versions) = names.get_mut(name).filter(|it| it.highest() != Some(version)) else { return Ok(false) };
        if !versions.releases.contains_key(&version) {
            return Ok(false);
        }
        let path = self.path_of(name, version);
        self.disk.remove_file(&path).doing("remove", &path)?;
        sync_folder(&self.disk, &self.folder.join(name.as_str()))?;
        versions.releases.remove(&version);
        Ok(true)
    }

    /// The highest version of a name.
    pub fn newest(&self, name: &Name) -> Option<Release> {
        let names = self.names();
        let known = names.get(name)?.releases.values().rev().flatten().next()?;
        Some(known.release.clone())
    }

    /// A version of a name, by default the highest.
    pub fn resolve(&self, name: &Name, version: Option<u64>) -> Option<Release> {
        match version {
            Some(version) => self.names().get(name)?.get(version).map(|known| known.release.clone()),
            None => self.newest(name),
        }
    }

    /// A version of a name as it was signed.
    pub fn signed(&self, name: &Name, version: u64) -> Option<SignedRelease> {
        self.names().get(name)?.get(version).map(|known| known.signed.clone())
    }

    /// Every release, by name and then by version.
    pub fn all(&self) -> Vec<Release> {
        let names = self.names();
        names.values().flat_map(|it| it.releases.values().flatten()).map(|known| known.release.clone()).collect()
    }

    /// The highest version of a name that was ever seen; its release may be damaged.
    pub fn highest_seen(&self, name: &Name) -> Option<u64> {
        self.names().get(name)?.highest()
    }

    fn keep(&self, signed: &SignedRelease, release: &Release) -> Result<(), DiskError> {
        let path = self.path_of(&release.name, release.version);
        let folder = self.folder.join(release.name.as_str());
        make_folder(&self.disk, &folder)?;
        // Also if it was there: perhaps it could not be synced when it was made.
        sync_folder(&self.disk, &self.folder)?;
        let bytes = postcard::to_stdvec(signed).expect("a release can be written");
        self.disk.reach(Step::WriteRelease).doing("write", &path)?;
        write_file(&self.disk, &path, &bytes)
    }

    fn path_of(&self, name: &Name, version: u64) -> PathBuf {
        self.folder.join(name.as_str()).join(version.to_string())
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<Name, Versions>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Versions {
    fn get(&self, version: u64) -> Option<&Known> {
        self.releases.get(&version)?.as_ref()
    }

    fn highest(&self) -> Option<u64> {
        self.releases.last_key_value().map(|(version, _)| *version)
    }

    fn check(&self, release: &Release) -> Result<(), ReleaseError> {
        let Some((&version, known)) = self.releases.last_key_value() else { return Ok(()) };
        // Of a damaged release only the version is known: it is mended by the same version, whatever that names.
        let image = known.as_ref().map_or(release.image, |known| known.release.image);
        release.check_against(Some(&SeenVersion { version, image }))
    }
}

/// The form of a release that is kept, if the one that came says nothing more; an error if it may not follow what was seen.
fn known_form<'a>(
    names: &'a BTreeMap<Name, Versions>,
    signed: &SignedRelease,
    release: &Release,
    trust: Trust<'_>,
) -> Result<Option<&'a Known>, ReleaseError> {
    let Some(versions) = names.get(&release.name) else { return Ok(None) };
    let says_nothing_new =
        |known: &&Known| known.release.says_all_of(release) && !signed.adds_signers_to(&known.signed, trust.publishers);
    if let Some(known) = versions.get(release.version).filter(says_nothing_new) {
        return Ok(Some(known));
    }
    if !is_planted(Bug::VersionGoesBack) {
        versions.check(release)?;
    }
    Ok(None)
}

fn load_versions<D: Disk>(
    disk: &D,
    folder: &Path,
    name: &Name,
    unreadable: &mut Vec<String>,
) -> Result<Versions, DiskError> {
    let mut versions = Versions::default();
    sweep_files(disk, folder)?;
    // What is seen counts from now on, so it must last: a process that was killed may have left a name that was not synced.
    sync_folder(disk, folder)?;
    for text in disk.list(folder).doing("list", folder)? {
        let Ok(version) = text.parse::<u64>() else { continue };
        let path = folder.join(text);
        let known = match load(disk, &path, name, version) {
            Ok(known) => Some(known),
            Err(reason) => {
                unreadable.push(format!(
                    "release file {} is damaged: {reason}; {name}@{version} still counts as seen, and comes back from a \
                     tracker or by publishing a newer version",
                    path.display()
                ));
                None
            }
        };
        versions.releases.insert(version, known);
    }
    Ok(versions)
}

fn load<D: Disk>(disk: &D, path: &Path, name: &Name, version: u64) -> Result<Known, String> {
    let bytes = disk.read(path, SignedRelease::MAX_LEN as u64 + 1).map_err(|error| error.to_string())?;
    if bytes.len() > SignedRelease::MAX_LEN {
        return Err(format!("more than {} bytes are too many", SignedRelease::MAX_LEN));
    }
    let (signed, rest): (SignedRelease, _) =
        postcard::take_from_bytes(&bytes).map_err(|_| "it is no signed release".to_owned())?;
    if !rest.is_empty() {
        return Err("bytes follow it".to_owned());
    }
    // Whom this host trusts was decided when it was accepted; here the signatures only show that nothing was altered.
    let release = signed.verify_intact().map_err(|error| error.to_string())?;
    if release.name != *name || release.version != version {
        return Err(format!("it is {}@{}", release.name, release.version));
    }
    Ok(Known { release, signed })
}
