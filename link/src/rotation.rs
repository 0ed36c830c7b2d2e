//! How a cluster goes over to another CA, while its hosts go on.
//!
//! 1. [`begin`] makes the next CA beside the one that signs. With each certificate that a member renews it comes to trust
//!    both.
//! 2. [`switch`], once every member has renewed: the next CA signs, and the old one's key is gone. Members trust both, so that
//!    certificates of either are good among them.
//! 3. [`finish`], once every member has renewed again: the old CA is trusted no more.
//!
//! Members renew within the life of a certificate, so that is how long each step has to wait; who was away for longer joins
//! again. All trackers of a cluster have the same CA: what one made by [`begin`] is copied to the others. What [`switch`] and
//! [`finish`] do may come to trackers at different times, since members trust both CAs then.
//!
//! ```text
//! ca/ca.key, ca/ca.pem      the CA that signs
//! ca/next.pem, ca/next.key  from `begin` to `switch`; the key is written last, and without it there is no next CA
//! ca/old.pem                from `switch` to `finish`
//! ca/cluster.secret         since the first `switch`: what followed from the first CA's key
//! ```
//!
//! `switch` renames the certificate first and the key then; a key without its certificate is that of a `switch` which was
//! interrupted, and counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use crate::ca::{CERTIFICATE, CaError, CertificateAuthority, KEY, SECRET, self_signed, write_key};
use crate::durable;
use crate::identity::{certificate_pem, read_certificate};

const NEXT_KEY: &str = "next.key";
const NEXT: &str = "next.pem";
const OLD: &str = "old.pem";
/// All that a CA's folder may have, in the order in which to copy it.
pub(crate) const FILES: [&str; 6] = [SECRET, OLD, NEXT, NEXT_KEY, CERTIFICATE, KEY];

/// How far a cluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rotation {
    /// It has one CA.
    Settled,
    /// Members come to trust the next CA, since so long.
    Begun(Duration),
    /// The new CA signs, since so long, and the old one is trusted.
    Switched(Duration),
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// It is not the turn of this step.
    #[error("{0}")]
    Turn(&'static str),
    /// Some member may not have renewed its certificate yet.
    #[error(
        "some hosts may have a certificate from before the last step still, and would be locked out: wait for another {} h, or \
         until `drover-tracker members` shows that all have renewed, and force it", .0.as_secs().div_ceil(3600)
    )]
    TooSoon(Duration),
    /// A CA can't be read or written.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A file can't be written.
    #[error(transparent)]
    Write(#[from] durable::WriteError),
    /// The system failed.
    #[error("can't change {path}: {cause}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        cause: std::io::Error,
    },
}

/// How far the cluster is whose CA lies in `dir`.
pub fn state(dir: &Path) -> Rotation {
    let since = |name: &str| {
        let made = fs::metadata(dir.join(name)).and_then(|facts| facts.modified()).ok()?;
        Some(SystemTime::now().duration_since(made).unwrap_or_default())
    };
    match (since(OLD), has_next(dir)) {
        (Some(since), _) => Rotation::Switched(since),
        (None, true) => Rotation::Begun(since(NEXT_KEY).unwrap_or_default()),
        (None, false) => Rotation::Settled,
    }
}

/// Makes the next CA; members come to trust it as they renew.
pub fn begin(dir: &Path, cluster: &str) -> Result<(), RotationError> {
    check_settled(dir)?;
    // What is there is wrong before anything is built on it.
    CertificateAuthority::load(dir)?;
    let (key, certificate) = self_signed(cluster);
    durable::replace(&dir.join(NEXT), certificate_pem(&certificate).as_bytes(), durable::PUBLIC)?;
    Ok(write_key(&dir.join(NEXT_KEY), &key)?)
}

/// Takes the next CA that [`begin`] made at another tracker of the cluster, from that one's folder or a copy of it.
pub fn join(dir: &Path, from: &Path) -> Result<(), RotationError> {
    check_settled(dir)?;
    if CertificateAuthority::load(dir)?.pin() != CertificateAuthority::load(from)?.pin() {
        return Err(RotationError::Turn(
            "the CA in that folder is another cluster's, or `ca switch` was done there already",
        ));
    }
    if !has_next(from) {
        return Err(RotationError::Turn("there is no next CA in that folder; `ca begin` makes it at one tracker"));
    }
    let read = |name: &str| {
        let path = from.join(name);
        fs::read(&path).map(zeroize::Zeroizing::new).map_err(|cause| RotationError::Io { path, cause })
    };
    durable::replace(&dir.join(NEXT), &read(NEXT)?, durable::PUBLIC)?;
    Ok(durable::create(&dir.join(NEXT_KEY), &read(NEXT_KEY)?, durable::PRIVATE)?)
}

/// Has the next CA sign, and the one before trusted only. `life` is how long certificates are good: all members have renewed
/// after that.
pub fn switch(dir: &Path, life: Duration, is_forced: bool) -> Result<(), RotationError> {
    if !is_interrupted(dir) {
        match state(dir) {
            Rotation::Begun(since) => check_waited(since, life, is_forced)?,
            Rotation::Settled => return Err(RotationError::Turn("there is no next CA; `ca begin` makes it")),
            Rotation::Switched(_) => {
                return Err(RotationError::Turn("the new CA signs already; `ca finish` is what is left to do"));
            }
        }
        let ca = CertificateAuthority::load(dir)?;
        if !dir.join(SECRET).exists() {
            durable::create(&dir.join(SECRET), ca.cluster_secret().as_bytes(), durable::PRIVATE)?;
        }
        durable::replace(&dir.join(OLD), certificate_pem(&ca.certificate().into()).as_bytes(), durable::PUBLIC)?;
        rename(dir, NEXT, CERTIFICATE)?;
    }
    rename(dir, NEXT_KEY, KEY)?;
    CertificateAuthority::load(dir)?;
    Ok(())
}

/// Has the old CA trusted no more, as members renew.
pub fn finish(dir: &Path, life: Duration, is_forced: bool) -> Result<(), RotationError> {
    match state(dir) {
        _ if is_interrupted(dir) => Err(RotationError::Turn("`ca switch` was interrupted; repeat that first")),
        Rotation::Switched(since) => {
            check_waited(since, life, is_forced)?;
            let path = dir.join(OLD);
            fs::remove_file(&path).map_err(|cause| RotationError::Io { path: path.clone(), cause })?;
            sync(dir)
        }
        Rotation::Begun(_) => Err(RotationError::Turn("the next CA does not sign yet; `ca switch` is next")),
        Rotation::Settled => Err(RotationError::Turn("there is nothing to finish; `ca begin` begins")),
    }
}

/// Where the key is of the CA that signs.
pub(crate) fn current_key(dir: &Path) -> PathBuf {
    dir.join(if is_interrupted(dir) { NEXT_KEY } else { KEY })
}

/// Certificates of CAs that are trusted besides the one that signs.
pub(crate) fn others(dir: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let names = [has_next(dir).then_some(NEXT), dir.join(OLD).exists().then_some(OLD)];
    let read = |name: &str| Ok(CertificateDer::from(read_certificate(&dir.join(name))?));
    names.into_iter().flatten().map(read).collect()
}

fn check_settled(dir: &Path) -> Result<(), RotationError> {
    if state(dir) == Rotation::Settled && !is_interrupted(dir) {
        return Ok(());
    }
    Err(RotationError::Turn("the cluster is on its way to another CA already; `ca status` says how far"))
}

fn has_next(dir: &Path) -> bool {
    dir.join(NEXT).exists() && dir.join(NEXT_KEY).exists()
}

/// Whether a `switch` has renamed the certificate and not yet the key.
fn is_interrupted(dir: &Path) -> bool {
    !dir.join(NEXT).exists() && dir.join(NEXT_KEY).exists()
}

fn check_waited(since: Duration, life: Duration, is_forced: bool) -> Result<(), RotationError> {
    match life.checked_sub(since) {
        Some(left) if !is_forced && !left.is_zero() => Err(RotationError::TooSoon(left)),
        _ => Ok(()),
    }
}

fn rename(dir: &Path, from: &str, to: &str) -> Result<(), RotationError> {
    let path = dir.join(to);
    fs::rename(dir.join(from), &path).map_err(|cause| RotationError::Io { path, cause })?;
    sync(dir)
}

fn sync(dir: &Path) -> Result<(), RotationError> {
    let synced = fs::File::open(dir).and_then(|folder| folder.sync_all());
    synced.map_err(|cause| RotationError::Io { path: dir.to_owned(), cause })
}
