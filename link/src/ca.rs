//! The certificate authority of a cluster.
//!
//! It lies with the tracker, in two files: `ca.key` (PKCS#8, readable by its owner only) and `ca.pem`. While the cluster goes
//! over to another CA there are more (see [`rotation`]). The key is read to sign and never sent anywhere. From a certificate request only the public key is taken; role, name and lifetime are
//! what the caller decides, whatever the request asks for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_protocol::id::PeerId;
use drover_protocol::lookup::ClusterSecret;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use zeroize::Zeroizing;

use crate::durable::{self, WriteError};
use crate::identity::{IdentityError, Validity, ca_pin, certificate_pem, read_certificate, unix_now_s};
use crate::member::{HostNameError, Role, SERVER_NAME, check_host_name, peer_id, uri};
use crate::rotation;
use crate::token::CaPin;

pub(crate) const KEY: &str = "ca.key";
pub(crate) const CERTIFICATE: &str = "ca.pem";
/// What follows from the first CA's key, kept since the cluster has another.
pub(crate) const SECRET: &str = "cluster.secret";
/// How long a member's certificate is valid, in days. A stolen key is of use no longer, and a tracker may be away for
/// two days before the first host is locked out.
pub const MEMBER_DAYS: u32 = 7;
const CA_DAYS: u64 = 3650;
const DAY_S: u64 = 24 * 3600;
/// A host's clock may be this far behind the tracker's, in seconds; of a certificate that lives for less than eight hours,
/// by an eighth of that, so that it is not due for renewal when it is issued.
const CLOCK_SLACK_S: u64 = 3600;

/// A cluster's certificate authority.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pin: CaPin,
    /// Certificates of CAs that members trust besides: the next, or the one before.
    others: Vec<CertificateDer<'static>>,
    secret: ClusterSecret,
}

/// A certificate request that proved possession of its key.
pub struct CheckedRequest {
    public_key: rcgen::PublicKey,
}

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// One is there already.
    #[error("{0} already holds a CA; a cluster has one, and a new one would lock out every host")]
    Exists(PathBuf),
    /// Its key can't be read.
    #[error("can't read the CA's key {path}: {cause}")]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Its certificate can't be read.
    #[error("can't read the CA's certificate: {0}")]
    Certificate(#[from] IdentityError),
    /// It can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why no certificate is issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is not one, or its signature does not fit.
    #[error("the certificate request is malformed or was altered: {0}")]
    Request(String),
    /// A key of a kind that members don't use.
    #[error("the certificate request has a key of another kind than Ed25519")]
    KeyKind,
    /// No host can be called that.
    #[error(transparent)]
    Name(#[from] HostNameError),
    /// The signing failed.
    #[error("the CA can't sign: {0}")]
    Sign(rcgen::Error),
}

impl CertificateAuthority {
    /// Makes the CA of a new cluster in `dir`.
    pub fn create(dir: &Path, cluster: &str) -> Result<Self, CaError> {
        if dir.join(KEY).exists() || dir.join(CERTIFICATE).exists() {
            return Err(CaError::Exists(dir.to_owned()));
        }
        let (key, certificate) = self_signed(cluster);
        durable::private_folder(dir)?;
        write_key(&dir.join(KEY), &key)?;
        durable::create(&dir.join(CERTIFICATE), certificate_pem(&certificate).as_bytes(), durable::PUBLIC)?;
        Self::new(key, certificate, Vec::new(), None)
    }

    /// Reads what [`create`](Self::create) and [`rotation`] wrote.
    pub fn load(dir: &Path) -> Result<Self, CaError> {
        let path = rotation::current_key(dir);
        let failed = |cause: String| CaError::Key { path: path.clone(), cause };
        let text = Zeroizing::new(fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?);
        let key = KeyPair::from_pem(&text).map_err(|error| failed(error.to_string()))?;
        let certificate = CertificateDer::from(read_certificate(&dir.join(CERTIFICATE))?);
        Self::new(key, certificate, rotation::others(dir)?, read_secret(dir)?)
    }

    /// The secret that members of the cluster share. It follows from the first CA's key, so that all trackers of a cluster give
    /// the same one without having told each other, and tells nothing of that key. It stays when the cluster gets another CA.
    pub fn cluster_secret(&self) -> ClusterSecret {
        self.secret
    }

    /// Puts the CA that lies in `from` into `dir`, too, for another tracker of the same cluster.
    pub fn copy(from: &Path, dir: &Path) -> Result<Self, CaError> {
        if dir.join(KEY).exists() || dir.join(CERTIFICATE).exists() {
            return Err(CaError::Exists(dir.to_owned()));
        }
        let ca = Self::load(from)?;
        durable::private_folder(dir)?;
        for name in rotation::FILES.into_iter().filter(|name| from.join(name).exists()) {
            let path = from.join(name);
            let text = fs::read(&path).map_err(|error| CaError::Key { path, cause: error.to_string() })?;
            let mode = if name.ends_with(".pem") { durable::PUBLIC } else { durable::PRIVATE };
            durable::create(&dir.join(name), &Zeroizing::new(text), mode)?;
        }
        Ok(ca)
    }

    /// Whether the request is whole and proves possession of its key. What it asks for is thrown away.
    pub fn check(request: &[u8]) -> Result<CheckedRequest, IssueError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|error| IssueError::Request(error.to_string()))?;
        if request.public_key.algorithm() != &rcgen::PKCS_ED25519 {
            return Err(IssueError::KeyKind);
        }
        Ok(CheckedRequest { public_key: request.public_key })
    }

    /// A certificate (DER) for the request's key, valid from now on for so many days.
    pub fn issue(&self, request: &[u8], role: Role, name: &str, days: u32) -> Result<Vec<u8>, IssueError> {
        self.issue_checked(&Self::check(request)?, role, name, Duration::from_secs(u64::from(days) * DAY_S))
    }

    /// The same for a request that was checked before.
    pub fn issue_checked(
        &self,
        request: &CheckedRequest,
        role: Role,
        name: &str,
        life: Duration,
    ) -> Result<Vec<u8>, IssueError> {
        let (now, life) = (unix_now_s(), life.as_secs());
        let slack = CLOCK_SLACK_S.min(life / 8);
        let validity = Validity { from_unix_s: now.saturating_sub(slack), until_unix_s: now + life };
        self.issue_valid(request, role, name, validity)
    }

    pub(crate) fn issue_valid(
        &self,
        request: &CheckedRequest,
        role: Role,
        name: &str,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueError> {
        check_host_name(name)?;
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()]).map_err(IssueError::Sign)?;
        let uri = uri(role, name).try_into().map_err(IssueError::Sign)?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial_number());
        set_validity(&mut params, validity);
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(certificate.der().to_vec())
    }

    /// The CA's certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// What members trust, as [`Enrolment`](drover_protocol::announce::Enrolment) has it: this CA's certificate, and behind it
    /// those of the next or the one before.
    pub fn roots(&self) -> Vec<u8> {
        [&self.certificate]
            .into_iter()
            .chain(&self.others)
            .flat_map(|certificate| certificate.iter().copied())
            .collect()
    }

    /// What join tokens carry to recognise this CA by.
    pub fn pin(&self) -> CaPin {
        self.pin
    }

    fn new(
        key: KeyPair,
        certificate: CertificateDer<'static>,
        others: Vec<CertificateDer<'static>>,
        secret: Option<ClusterSecret>,
    ) -> Result<Self, CaError> {
        let pin = ca_pin(&certificate).map_err(IdentityError::NoMember)?;
        if pin != CaPin::of_public_key(&key.subject_public_key_info()) {
            return Err(CaError::Certificate(IdentityError::OtherKey));
        }
        let secret = secret.unwrap_or_else(|| {
            let key = Zeroizing::new(key.serialize_der());
            ClusterSecret::from_bytes(blake3::derive_key("drover cluster secret v1", &key))
        });
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| CaError::Key { path: PathBuf::from(CERTIFICATE), cause: error.to_string() })?;
        Ok(CertificateAuthority { issuer, certificate, pin, others, secret })
    }
}

/// A CA's key and certificate.
pub(crate) fn self_signed(cluster: &str) -> (KeyPair, CertificateDer<'static>) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("the system's random numbers work");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Drover cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let now = unix_now_s();
    set_validity(
        &mut params,
        Validity { from_unix_s: now.saturating_sub(CLOCK_SLACK_S), until_unix_s: now + CA_DAYS * DAY_S },
    );
    let certificate = params.self_signed(&key).expect("the CA's own parameters can be signed");
    (key, certificate.der().clone())
}

pub(crate) fn write_key(path: &Path, key: &KeyPair) -> Result<(), WriteError> {
    durable::create(path, Zeroizing::new(key.serialize_pem()).as_bytes(), durable::PRIVATE)
}

/// The cluster's secret, where it does not follow from the CA's key any more.
fn read_secret(dir: &Path) -> Result<Option<ClusterSecret>, CaError> {
    let path = dir.join(SECRET);
    if !path.exists() {
        return Ok(None);
    }
    let failed = |cause: String| CaError::Key { path: path.clone(), cause };
    let bytes = Zeroizing::new(fs::read(&path).map_err(|error| failed(error.to_string()))?);
    let bytes = bytes.as_slice().try_into().map_err(|_| failed("it has not 32 bytes".to_owned()))?;
    Ok(Some(ClusterSecret::from_bytes(bytes)))
}

impl CheckedRequest {
    /// Who holds the request's key.
    pub fn peer_id(&self) -> PeerId {
        peer_id(&self.public_key.subject_public_key_info())
    }
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(validity.from_unix_s);
    params.not_after = epoch + Duration::from_secs(validity.until_unix_s);
}

/// Random, 127 bits: positive, as X.509 wants it.
fn serial_number() -> SerialNumber {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system's random numbers work");
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}
