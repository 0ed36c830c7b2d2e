//! Who a member of a cluster is, as its certificate says.
//!
//! The CA writes the role and the name as one URI, `drover:<role>/<name>`, among the certificate's alternative names,
//! beside the DNS name [`SERVER_NAME`] that all members share so that the standard TLS verifiers can be used. A member's
//! id is the hash of its public key; names are for people, and two members may have the same one.

use core::fmt;
use core::str::FromStr;

use drover_protocol::announce::MAX_LABEL_LEN;
use drover_protocol::id::PeerId;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The DNS name in every member's certificate.
pub const SERVER_NAME: &str = "drover";
const URI_SCHEME: &str = "drover:";

/// What a member may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Fetches and serves masters.
    Host,
    /// A host from which masters are published.
    Publisher,
    /// Introduces hosts to each other, and is the CA.
    Tracker,
}

/// A member of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// BLAKE3 of its public key.
    pub peer: PeerId,
    /// What it may be.
    pub role: Role,
    /// What it is called: 1 to 64 of `a-z 0-9 . _ -`.
    pub name: String,
}

/// A text that names no [`Role`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role: use host, publisher or tracker")]
pub struct ParseRoleError(String);

/// A text that no member can be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} can't be a host's name: use 1 to 64 of a-z, 0-9, '.', '_' and '-'")]
pub struct HostNameError(String);

/// A certificate that names no member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Not a certificate.
    #[error("malformed certificate")]
    Malformed,
    /// A certificate, but not made by a cluster's CA for a member.
    #[error("the certificate names no member of a cluster: {0}")]
    NoMember(&'static str),
}

impl Role {
    /// As it is written in certificates and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Host => "host",
            Role::Publisher => "publisher",
            Role::Tracker => "tracker",
        }
    }
}

impl FromStr for Role {
    type Err = ParseRoleError;
    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        [Role::Host, Role::Publisher, Role::Tracker]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| ParseRoleError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Member {
    /// The member that a certificate (DER) was made for. Whether the certificate is any good is not looked at here.
    pub fn of_certificate(certificate: &[u8]) -> Result<Member, MemberError> {
        let (rest, certificate) = X509Certificate::from_der(certificate).map_err(|_| MemberError::Malformed)?;
        if !rest.is_empty() {
            return Err(MemberError::Malformed);
        }
        let names = certificate.subject_alternative_name().map_err(|_| MemberError::Malformed)?;
        let names = names.ok_or(MemberError::NoMember("it has no alternative names"))?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(URI_SCHEME),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(MemberError::NoMember("it has not exactly one drover: name"));
        };
        let (role, name) = uri.split_once('/').ok_or(MemberError::NoMember("its drover: name has no role"))?;
        let role = role.parse().map_err(|_| MemberError::NoMember("its role is unknown"))?;
        check_host_name(name).map_err(|_| MemberError::NoMember("its name is none that a host can have"))?;
        Ok(Member { peer: peer_id(certificate.tbs_certificate.subject_pki.raw), role, name: name.to_owned() })
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.role, self.name, self.peer.short())
    }
}

/// Whether a member can be called `name`.
pub fn check_host_name(name: &str) -> Result<(), HostNameError> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if !name.is_empty() && name.len() <= MAX_LABEL_LEN && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(HostNameError(name.chars().take(80).collect()))
    }
}

/// The id of who holds this public key (DER SubjectPublicKeyInfo).
pub(crate) fn peer_id(public_key_info: &[u8]) -> PeerId {
    PeerId::from_bytes(*blake3::hash(public_key_info).as_bytes())
}

/// The URI that stands for a role and a name in a certificate.
pub(crate) fn uri(role: Role, name: &str) -> String {
    format!("{URI_SCHEME}{role}/{name}")
}
