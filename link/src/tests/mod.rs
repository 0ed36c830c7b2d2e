//! Real endpoints on loopback: who gets in, who does not, and what each side is told.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::ca::CertificateAuthority;
use crate::config::LinkConfig;
use crate::endpoint::{Accepted, ConnectError, Connection, Endpoint, Expect, HandshakeError};
use crate::identity::{Identity, MemberKey, Role, Validity, unix_now_s};

mod enrolment;
mod hostile;
mod membership;
mod ownership;
mod rotation;
mod version;

const DAY_S: u64 = 24 * 3600;

/// A CA in a folder that goes away with it.
struct Cluster {
    ca: CertificateAuthority,
    folder: TempDir,
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca = CertificateAuthority::create(&folder.path().join("ca"), "test").expect("a new CA");
        Cluster { ca, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn member(&self, role: Role, name: &str) -> Identity {
        let now = unix_now_s();
        self.member_valid(role, name, Validity { from_unix_s: now - 60, until_unix_s: now + DAY_S })
    }

    fn member_valid(&self, role: Role, name: &str, validity: Validity) -> Identity {
        let key = Arc::new(MemberKey::generate());
        let request = CertificateAuthority::check(&key.request()).expect("our own request");
        let certificate = self.ca.issue_valid(&request, role, name, validity).expect("a certificate");
        let ca = self.ca.certificate().to_vec();
        Identity::new(key, certificate, ca, Vec::new(), Vec::new()).expect("an identity")
    }

    fn endpoint(&self, name: &str) -> Endpoint {
        bind(&self.member(Role::Host, name))
    }
}

/// Deadlines long enough for a machine that is busy with other things.
fn config() -> LinkConfig {
    let patient = Duration::from_secs(20);
    LinkConfig { connect_timeout: patient, handshake_timeout: patient, idle_timeout: patient, ..LinkConfig::default() }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn bind(identity: &Identity) -> Endpoint {
    Endpoint::bind(loopback(), identity, config()).expect("an endpoint")
}

fn bind_tracker(identity: &Identity) -> Endpoint {
    Endpoint::bind_tracker(loopback(), identity, config()).expect("an endpoint")
}

fn addr(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_addr().expect("a bound endpoint")
}

async fn accept(endpoint: &Endpoint) -> Result<Connection, HandshakeError> {
    endpoint.accept().await.expect("an open endpoint").handshake().await
}

async fn identify(endpoint: &Endpoint) -> Result<Accepted, HandshakeError> {
    endpoint.accept().await.expect("an open endpoint").identify().await
}

/// What each side gets when one dials the other.
async fn meet(
    dialler: &Endpoint,
    listener: &Endpoint,
    expect: Expect,
) -> (Result<Connection, ConnectError>, Result<Connection, HandshakeError>) {
    tokio::join!(dialler.connect(addr(listener), expect), accept(listener))
}
