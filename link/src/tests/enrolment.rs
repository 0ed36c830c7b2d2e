//! How a host joins, and who can't make it believe him.

use drover_protocol::announce::{Enrolment, JoinReply, JoinRequest};

use super::*;
use crate::ca::IssueError;
use crate::enrol::{JoinError, JoinOptions, join};
use crate::frame::{expect_frame, write_frame};
use crate::token::JoinToken;

fn token(cluster: &Cluster) -> JoinToken {
    JoinToken::new(Role::Host, [5; 16], cluster.ca.pin())
}

/// Answers one host that joins; gives what it asked.
async fn answer(tracker: &Endpoint, reply: impl FnOnce(&JoinRequest) -> JoinReply) -> JoinRequest {
    let Ok(Accepted::Joining(joining)) = identify(tracker).await else { panic!("somebody who joins") };
    let (mut send, mut receive) = joining.quic.accept_bi().await.expect("a stream");
    let request: JoinRequest = expect_frame(&mut receive).await.expect("a request");
    write_frame(&mut send, &reply(&request)).await.expect("an answer");
    joining.quic.closed().await;
    request
}

fn enrol(ca: &CertificateAuthority, request: &JoinRequest) -> JoinReply {
    let certificate = ca.issue(&request.csr, Role::Host, &request.host, 7).expect("a certificate");
    JoinReply::Joined(Enrolment { certificate, ca: ca.certificate().to_vec(), publishers: Vec::new() })
}

async fn try_join(tracker: &str, token: &JoinToken, dir: &Path) -> Result<Identity, JoinError> {
    join(&JoinOptions { tracker, token, name: "web-1", publisher: None }, dir).await
}

#[tokio::test]
async fn a_host_joins_and_is_a_member() {
    let cluster = Cluster::new();
    let tracker = bind_tracker(&cluster.member(Role::Tracker, "tracker"));
    let (to, dir) = (addr(&tracker).to_string(), cluster.path().join("identity"));
    let token = token(&cluster);
    let (joined, request) =
        tokio::join!(try_join(&to, &token, &dir), answer(&tracker, |request| enrol(&cluster.ca, request)));
    let identity = joined.expect("joined");
    assert_eq!((request.token, request.host.as_str()), ([5; 16], "web-1"));
    assert_eq!((identity.member().role, identity.member().name.as_str()), (Role::Host, "web-1"));
    assert_eq!(Identity::load(&dir).expect("saved").trackers(), std::slice::from_ref(&to));

    let host = bind(&identity);
    let (dialled, accepted) = tokio::join!(host.connect(addr(&tracker), Expect::Tracker), identify(&tracker));
    dialled.expect("the tracker lets its member in");
    assert!(matches!(accepted, Ok(Accepted::Member(member)) if member.member() == identity.member()));
    assert!(matches!(try_join(&to, &token, &dir).await, Err(JoinError::AlreadyJoined(_))));
}

#[tokio::test]
async fn an_expired_identity_is_replaced_and_keeps_its_key() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let tracker = bind_tracker(&cluster.member(Role::Tracker, "tracker"));
    let (to, dir) = (addr(&tracker).to_string(), cluster.path().join("identity"));
    let key = Arc::new(MemberKey::generate());
    let request = CertificateAuthority::check(&key.request()).expect("our own request");
    let now = unix_now_s();
    let past = Validity { from_unix_s: now - 100, until_unix_s: now - 1 };
    let old = cluster.ca.issue_valid(&request, Role::Host, "web-1", past).expect("a certificate");
    let trackers = vec!["elsewhere:7440".to_owned(), to.clone()];
    let old = Identity::new(key, old, cluster.ca.certificate().to_vec(), Vec::new(), trackers).expect("an identity");
    old.save(&dir).expect("saved");

    let foreign = try_join(&to, &token(&other), &dir).await;
    assert!(matches!(foreign, Err(JoinError::AlreadyJoined(_))), "only the same cluster may replace it");
    let token = token(&cluster);
    let (joined, _) =
        tokio::join!(try_join(&to, &token, &dir), answer(&tracker, |request| enrol(&cluster.ca, request)));
    let renewed = joined.expect("joined again");
    assert_eq!(renewed.peer_id(), old.peer_id());
    assert!(renewed.expires_unix_s() > now);
    assert_eq!(renewed.trackers(), [to.clone(), "elsewhere:7440".to_owned()]);
    assert!(matches!(try_join(&to, &token, &dir).await, Err(JoinError::AlreadyJoined(_))), "once is enough");
}

#[tokio::test]
async fn a_tracker_of_another_cluster_does_not_get_the_token() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let tracker = bind_tracker(&theirs.member(Role::Tracker, "tracker"));
    let (to, dir) = (addr(&tracker).to_string(), ours.path().join("identity"));
    let token = token(&ours);
    let (joined, accepted) = tokio::join!(try_join(&to, &token, &dir), identify(&tracker));
    let error = joined.expect_err("another CA");
    assert!(matches!(&error, JoinError::OtherCluster(_)), "{error}");
    assert!(error.to_string().contains("check the address"), "{error}");
    assert!(accepted.is_err());
    assert!(!dir.exists(), "nothing half-done is left");
}

#[tokio::test]
async fn a_member_that_is_no_tracker_does_not_get_the_token() {
    let cluster = Cluster::new();
    let impostor = bind_tracker(&cluster.member(Role::Host, "impostor"));
    let (to, dir) = (addr(&impostor).to_string(), cluster.path().join("identity"));
    let token = token(&cluster);
    let listener = async {
        let Ok(Accepted::Joining(joining)) = identify(&impostor).await else { panic!("somebody who joins") };
        joining.quic.accept_bi().await.err()
    };
    let (joined, stream) = tokio::join!(try_join(&to, &token, &dir), listener);
    assert!(matches!(joined, Err(JoinError::NoTracker { .. })));
    assert!(stream.is_some(), "no stream was opened, so no token was sent");
    assert!(!dir.exists());
}

#[tokio::test]
async fn an_answer_that_is_no_use_leaves_nothing() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let tracker = bind_tracker(&cluster.member(Role::Tracker, "tracker"));
    let (to, dir) = (addr(&tracker).to_string(), cluster.path().join("identity"));
    let token = token(&cluster);
    let somebody = MemberKey::generate().request();
    let answers: [&dyn Fn(&JoinRequest) -> JoinReply; 4] = [
        &|_| JoinReply::Refused("token used\u{7} before".to_owned()),
        &|request| enrol(&other.ca, request),
        &|request| enrol(&cluster.ca, &JoinRequest { csr: somebody.clone(), ..request.clone() }),
        &|_| JoinReply::Joined(Enrolment { certificate: vec![0x30, 1], ca: vec![], publishers: vec![] }),
    ];
    for reply in answers {
        let (joined, _) = tokio::join!(try_join(&to, &token, &dir), answer(&tracker, reply));
        let error = joined.expect_err("no use").to_string();
        assert!(!error.contains('\u{7}'), "{error}");
        assert!(!dir.exists(), "nothing half-done is left: {error}");
    }
}

#[tokio::test]
async fn a_bad_name_or_address_is_told_before_anything_is_sent() {
    let cluster = Cluster::new();
    let (token, dir) = (token(&cluster), cluster.path().join("identity"));
    for name in ["", "Web", "a/b", "..é", &"x".repeat(65)] {
        let options = JoinOptions { tracker: "127.0.0.1:1", token: &token, name, publisher: None };
        assert!(matches!(join(&options, &dir).await, Err(JoinError::Name(_))), "{name:?}");
    }
    assert!(matches!(try_join("no port", &token, &dir).await, Err(JoinError::Resolve { .. })));
    let publisher = JoinToken::new(Role::Publisher, [5; 16], cluster.ca.pin());
    assert!(matches!(try_join("127.0.0.1:1", &publisher, &dir).await, Err(JoinError::NoPublisherKey)));
}

#[test]
fn an_altered_request_gets_no_certificate() {
    let cluster = Cluster::new();
    let request = MemberKey::generate().request();
    assert!(cluster.ca.issue(&request, Role::Host, "a", 7).is_ok());
    for at in 0..request.len() {
        let mut altered = request.clone();
        altered[at] ^= 1;
        // Some bits are in fields that nobody reads; what must not happen is a certificate for another key.
        if let Ok(checked) = CertificateAuthority::check(&altered) {
            let original = CertificateAuthority::check(&request).expect("a good request");
            assert_eq!(checked.peer_id(), original.peer_id(), "bit 0 of byte {at}");
        }
    }
    let last = request.len() - 1;
    let mut altered = request.clone();
    altered[last] ^= 1;
    assert!(matches!(cluster.ca.issue(&altered, Role::Host, "a", 7), Err(IssueError::Request(_))));
    for cut in 0..request.len() {
        assert!(cluster.ca.issue(&request[..cut], Role::Host, "a", 7).is_err());
    }
}

#[test]
fn what_a_request_asks_for_is_ignored() {
    let cluster = Cluster::new();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["drover".to_owned()]).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.subject_alt_names.push(rcgen::SanType::URI("drover:tracker/boss".try_into().expect("ASCII")));
    params.distinguished_name.push(rcgen::DnType::CommonName, "boss");
    let request = params.serialize_request(&key).expect("a request");
    let certificate = cluster.ca.issue(request.der(), Role::Host, "minion", 7).expect("a certificate");
    let member = crate::member::Member::of_certificate(&certificate).expect("a member");
    assert_eq!((member.role, member.name.as_str()), (Role::Host, "minion"));
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("a certificate");
    assert!(!parsed.is_ca());

    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&p256).expect("a request");
    assert!(matches!(cluster.ca.issue(request.der(), Role::Host, "minion", 7), Err(IssueError::KeyKind)));
}

#[test]
fn a_ca_is_made_once_and_read_again() {
    let cluster = Cluster::new();
    let dir = cluster.path().join("ca");
    assert_eq!(CertificateAuthority::load(&dir).expect("read again").pin(), cluster.ca.pin());
    assert!(matches!(CertificateAuthority::create(&dir, "test"), Err(crate::ca::CaError::Exists(_))));
}
