//! TLS as all members use it: version 1.3, the standard verifiers with the cluster's CA as only root (two while it goes over to
//! another), a certificate on
//! both sides, no session tickets and no 0-RTT, so that every connection proves both identities anew.
//!
//! The one verifier of our own is that of a host which has no CA yet: it finds the CA by the pin in the token, and hands
//! everything else to the standard verifier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::identity::{Identity, Validity, ca_pin};
use crate::member::SERVER_NAME;
use crate::token::CaPin;

/// The protocol between members.
pub(crate) const ALPN_MEMBER: &[u8] = b"drover/1";
/// The protocol of a host that joins: it has no certificate yet.
pub(crate) const ALPN_JOIN: &[u8] = b"drover-join/1";

/// Who may connect to an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// Members only.
    Members,
    /// Members, and strangers who want to join. Telling them apart is the endpoint's work.
    MembersAndJoining,
}

pub(crate) fn server_config(identity: &Identity, admission: Admission) -> Result<rustls::ServerConfig, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity.roots())?), provider());
    let verifier = match admission {
        Admission::Members => verifier,
        Admission::MembersAndJoining => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
    // A joining host knows the CA only by its pin, and so must be shown it.
    let chain = vec![identity.certificate().clone(), identity.roots()[0].clone()];
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, identity.private_key())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = match admission {
        Admission::Members => vec![ALPN_MEMBER.to_vec()],
        Admission::MembersAndJoining => vec![ALPN_MEMBER.to_vec(), ALPN_JOIN.to_vec()],
    };
    Ok(config)
}

pub(crate) fn client_config(identity: &Identity) -> Result<rustls::ClientConfig, rustls::Error> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(identity.roots())?)
        .with_client_auth_cert(vec![identity.certificate().clone()], identity.private_key())?;
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![ALPN_MEMBER.to_vec()];
    Ok(config)
}

/// For a host that joins: no certificate, and the CA by its pin. The flag is set if the server showed no such CA.
pub(crate) fn joining_config(pin: CaPin) -> Result<(rustls::ClientConfig, Arc<AtomicBool>), rustls::Error> {
    let verifier = Arc::new(PinnedCaVerifier { pin, provider: provider(), pin_missed: Arc::default() });
    let pin_missed = verifier.pin_missed.clone();
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    Ok((config, pin_missed))
}

/// Whether `ca` signed `certificate` as that of a member. The clock is not asked: the moment is one of its validity.
pub(crate) fn check_signed_by(
    certificate: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    validity: Validity,
) -> Result<(), rustls::Error> {
    let moment = UnixTime::since_unix_epoch(Duration::from_secs(validity.from_unix_s));
    verifier_for(ca, provider())?.verify_server_cert(certificate, &[], &server_name(), &[], moment)?;
    Ok(())
}

pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("a plain label is a DNS name")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(cas: &[CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone().into_owned())?;
    }
    Ok(roots)
}

fn verifier_for(
    ca: &CertificateDer<'_>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots(std::slice::from_ref(ca))?), provider)
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// Trusts the one CA in the presented chain that has the pinned key, and what the standard verifier says under it.
#[derive(Debug)]
struct PinnedCaVerifier {
    pin: CaPin,
    provider: Arc<CryptoProvider>,
    pin_missed: Arc<AtomicBool>,
}

impl ServerCertVerifier for PinnedCaVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates.iter().find(|certificate| ca_pin(certificate) == Ok(self.pin));
        let Some(ca) = pinned else {
            self.pin_missed.store(true, Ordering::Relaxed);
            return Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let verifier = verifier_for(ca, self.provider.clone())?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
