//! The key and certificate of one member, and where they lie on disk.
//!
//! ```text
//! identity/key.pem           private key, PKCS#8, readable by its owner only; never leaves the host
//! identity/ca.pem            certificate of the cluster's CA; of two while the cluster goes over to another
//! identity/publishers.json   keys of the publishers that the cluster trusts
//! identity/trackers.json     where the cluster's trackers are, "host:port"
//! identity/publisher.key     only where releases are signed: the key for that, made and read by `drover` alone
//! identity/certificate.pem   the member's certificate, written last: without it the host has not joined
//! ```
//!
//! An [`Identity`] that exists is consistent: the certificate is for the key, and the CA signed it. Whether it is still
//! valid is another question, asked at each connection.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drover_protocol::id::{PeerId, PublisherKey};
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::durable::{self, WriteError};
use crate::member::{Member, MemberError, peer_id};
use crate::tls;
use crate::token::CaPin;

pub use crate::member::Role;

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const CA: &str = "ca.pem";
const PUBLISHERS: &str = "publishers.json";
const TRACKERS: &str = "trackers.json";
/// CAs that a member trusts: the cluster's, and the next or the one before.
const MOST_ROOTS: usize = 2;
/// More than any file here needs: 1,024 publishers or trackers.
const MAX_FILE_LEN: u64 = 128 * 1024;

/// Key, certificate and CA of one member.
#[derive(Clone)]
pub struct Identity {
    key: Arc<MemberKey>,
    certificate: CertificateDer<'static>,
    /// CAs that it trusts; the first signed its certificate.
    roots: Vec<CertificateDer<'static>>,
    member: Member,
    validity: Validity,
    publishers: Vec<PublisherKey>,
    trackers: Vec<String>,
}

/// A member's private key. It exists before the certificate does.
pub struct MemberKey(KeyPair);

/// From when until when a certificate is valid, in seconds since 1970 (UTC).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// First second.
    pub from_unix_s: u64,
    /// Last second.
    pub until_unix_s: u64,
}

/// Why there is no identity to be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The host has not joined a cluster.
    #[error("{0} holds no identity: this host has not joined a cluster; run `drover join TRACKER TOKEN`")]
    NotJoined(PathBuf),
    /// A file can't be read.
    #[error("can't read {path}: {cause}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged ({what}); restore it, or remove the folder and join again")]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The certificate is not for the key.
    #[error("the certificate is not for this host's key")]
    OtherKey,
    /// The CA did not sign the certificate.
    #[error("the certificate was not signed by the cluster's CA: {0}")]
    OtherCa(String),
    /// The certificate names no member.
    #[error(transparent)]
    NoMember(#[from] MemberError),
}

impl MemberKey {
    /// A new key.
    pub fn generate() -> Self {
        // The only cause of failure is a system without entropy, with which nothing here can be safe.
        MemberKey(KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("the system's random numbers work"))
    }

    /// Who holds this key.
    pub fn peer_id(&self) -> PeerId {
        peer_id(&self.0.subject_public_key_info())
    }

    /// A certificate request (PKCS#10, DER) that proves possession of this key and asks for nothing else.
    pub fn request(&self) -> Vec<u8> {
        let request = rcgen::CertificateParams::default().serialize_request(&self.0);
        request.expect("an empty request can be signed").der().to_vec()
    }
}

impl Identity {
    /// The identity made of this key and the certificates (DER) that a CA gave for it. `ca` is the CA's own, and behind it those
    /// of CAs that are trusted besides.
    pub fn new(
        key: Arc<MemberKey>,
        certificate: Vec<u8>,
        ca: Vec<u8>,
        publishers: Vec<PublisherKey>,
        trackers: Vec<String>,
    ) -> Result<Identity, IdentityError> {
        let member = Member::of_certificate(&certificate)?;
        if member.peer != key.peer_id() {
            return Err(IdentityError::OtherKey);
        }
        let (certificate, roots) = (CertificateDer::from(certificate), split(&ca)?);
        let validity = validity(&certificate)?;
        tls::check_signed_by(&certificate, &roots[0], validity)
            .map_err(|error| IdentityError::OtherCa(error.to_string()))?;
        Ok(Identity { key, certificate, roots, member, validity, publishers, trackers })
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(dir: &Path) -> Result<Identity, IdentityError> {
        if !Identity::exists(dir) {
            return Err(IdentityError::NotJoined(dir.to_owned()));
        }
        let key_path = dir.join(KEY);
        let text = Zeroizing::new(read(&key_path)?);
        let text = std::str::from_utf8(&text).map_err(|_| damaged(&key_path, "not PEM"))?;
        let key = KeyPair::from_pem(text).map_err(|error| damaged(&key_path, error))?;
        let certificate = read_certificate(&dir.join(CERTIFICATE))?;
        let ca = read_certificates(&dir.join(CA))?.concat();
        let publishers = read_json(&dir.join(PUBLISHERS))?;
        let trackers = read_json(&dir.join(TRACKERS))?;
        Identity::new(Arc::new(MemberKey(key)), certificate, ca, publishers, trackers)
    }

    /// Whether `dir` holds an identity, be it whole or damaged.
    pub fn exists(dir: &Path) -> bool {
        dir.join(CERTIFICATE).exists()
    }

    /// Writes it to `dir`, which is made if need be. After a crash in between, the old certificate counts, or none.
    pub fn save(&self, dir: &Path) -> Result<(), WriteError> {
        durable::private_folder(dir)?;
        let key = Zeroizing::new(self.key.0.serialize_pem());
        durable::replace(&dir.join(KEY), key.as_bytes(), durable::PRIVATE)?;
        let roots: String = self.roots.iter().map(certificate_pem).collect();
        durable::replace(&dir.join(CA), roots.as_bytes(), durable::PUBLIC)?;
        durable::replace(&dir.join(PUBLISHERS), &json(&self.publishers), durable::PUBLIC)?;
        durable::replace(&dir.join(TRACKERS), &json(&self.trackers), durable::PUBLIC)?;
        durable::replace(&dir.join(CERTIFICATE), certificate_pem(&self.certificate).as_bytes(), durable::PUBLIC)
    }

    /// The same member with a new certificate and what the CA said with it. Of the CAs that it is to trust from now on it trusts
    /// one at least already.
    pub fn renewed(
        &self,
        certificate: Vec<u8>,
        ca: Vec<u8>,
        publishers: Vec<PublisherKey>,
    ) -> Result<Identity, IdentityError> {
        if !split(&ca)?.iter().any(|root| self.roots.contains(root)) {
            return Err(IdentityError::OtherCa("the CA is another one than before".to_owned()));
        }
        Identity::new(self.key.clone(), certificate, ca, publishers, self.trackers.clone())
    }

    /// The same member, with other trackers to ask.
    pub fn with_trackers(self, trackers: Vec<String>) -> Identity {
        Identity { trackers, ..self }
    }

    /// Who this is, as others see it.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The id of this member.
    pub fn peer_id(&self) -> PeerId {
        self.member.peer
    }

    /// The private key, for a new certificate request.
    pub fn key(&self) -> &Arc<MemberKey> {
        &self.key
    }

    /// Keys of the publishers that the cluster trusts.
    pub fn publishers(&self) -> &[PublisherKey] {
        &self.publishers
    }

    /// Where the cluster's trackers are, "host:port".
    pub fn trackers(&self) -> &[String] {
        &self.trackers
    }

    /// The pin of the cluster's CA.
    pub fn ca_pin(&self) -> CaPin {
        ca_pin(&self.roots[0]).expect("a CA that signed a certificate was read before")
    }

    /// Whether it trusts the CA of this pin.
    pub(crate) fn trusts(&self, pin: CaPin) -> bool {
        self.roots.iter().any(|root| ca_pin(root) == Ok(pin))
    }

    /// Until when the certificate is valid, in seconds since 1970 (UTC).
    pub fn expires_unix_s(&self) -> u64 {
        self.validity.until_unix_s
    }

    /// From when on it should be renewed, in seconds since 1970 (UTC): after two thirds of its life, so that a tracker
    /// may be away for the last third.
    pub fn renew_after_unix_s(&self) -> u64 {
        let life = self.validity.until_unix_s.saturating_sub(self.validity.from_unix_s);
        self.validity.from_unix_s + life / 3 * 2
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What it trusts, as [`Identity::new`] takes it.
    pub fn roots_der(&self) -> Vec<u8> {
        self.roots.iter().flat_map(|root| root.iter().copied()).collect()
    }

    pub(crate) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.0.serialize_der()))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("member", &self.member)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for MemberKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemberKey({})", self.peer_id().short())
    }
}

/// Seconds since 1970 (UTC), by this host's clock.
pub fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", certificate.as_ref()))
}

pub(crate) fn ca_pin(certificate: &CertificateDer<'_>) -> Result<CaPin, MemberError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| MemberError::Malformed)?;
    Ok(CaPin::of_public_key(certificate.tbs_certificate.subject_pki.raw))
}

pub(crate) fn read_certificate(path: &Path) -> Result<Vec<u8>, IdentityError> {
    Ok(read_certificates(path)?.swap_remove(0))
}

/// All certificates in a file, of which there is one at least.
fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, IdentityError> {
    let text = read(path)?;
    let read = CertificateDer::pem_slice_iter(&text).map(|certificate| Ok(certificate.map_err(|_| ())?.to_vec()));
    let certificates = read.collect::<Result<Vec<_>, ()>>().unwrap_or_default();
    if certificates.is_empty() { Err(damaged(path, "not a certificate")) } else { Ok(certificates) }
}

/// Certificates one behind the other, of which there is one at least.
fn split(mut certificates: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let mut split = Vec::new();
    while !certificates.is_empty() || split.is_empty() {
        let (rest, _) = X509Certificate::from_der(certificates).map_err(|_| MemberError::Malformed)?;
        let (certificate, _) = certificates.split_at(certificates.len() - rest.len());
        split.push(CertificateDer::from(certificate.to_vec()));
        certificates = rest;
        if split.len() > MOST_ROOTS {
            return Err(IdentityError::OtherCa("it comes with more CAs than any cluster has".to_owned()));
        }
    }
    Ok(split)
}

pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, MemberError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| MemberError::Malformed)?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = certificate.validity();
    Ok(Validity { from_unix_s: seconds(validity.not_before), until_unix_s: seconds(validity.not_after) })
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let failed = |cause| IdentityError::Read { path: path.to_owned(), cause };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_LEN {
        return Err(damaged(path, "too long"));
    }
    fs::read(path).map_err(failed)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, IdentityError> {
    serde_json::from_slice(&read(path)?).map_err(|error| damaged(path, error))
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("lists of texts can be written as JSON");
    text.push(b'\n');
    text
}

fn damaged(path: &Path, what: impl ToString) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), what: what.to_string() }
}
