//! Members of one cluster reach each other; nobody else does.

use drover_protocol::have::{WireDelta, WireHave};
use drover_protocol::id::ImageId;
use drover_protocol::message::{LeaveReason, PROTOCOL_VERSIONS, PeerMessage, SwarmMessage};
use drover_protocol::revocation::Revocation;

use super::*;

fn message() -> PeerMessage {
    PeerMessage::Swarm {
        image: ImageId::from_bytes([3; 32]),
        message: SwarmMessage::Leave { reason: LeaveReason::Full },
    }
}

#[tokio::test]
async fn two_members_know_each_other_and_talk() {
    let cluster = Cluster::new();
    let (anna, bert) = (cluster.member(Role::Host, "anna"), cluster.member(Role::Publisher, "bert"));
    let (a, b) = (bind(&anna), bind(&bert));
    let (dialled, accepted) = meet(&a, &b, Expect::Peer(bert.peer_id())).await;
    let (dialled, accepted) = (dialled.expect("bert answers"), accepted.expect("anna comes"));
    assert_eq!((dialled.member(), accepted.member()), (bert.member(), anna.member()));
    assert_eq!(dialled.link().version, PROTOCOL_VERSIONS.1);
    assert_eq!((a.members(), b.members()), (1, 1));

    let (_link, mut send, _receive) = dialled.split();
    let (_other_link, _other_send, mut receive) = accepted.split();
    send.send(&message()).await.expect("a sent message");
    assert_eq!(receive.next().await.expect("a message"), Some(message()));
    drop((_link, send, _receive));
    assert!(receive.next().await.is_err(), "the connection is closed");
    assert_eq!(a.members(), 0);
}

#[tokio::test]
async fn an_address_of_the_other_family_works_too() {
    let cluster = Cluster::new();
    let identity = cluster.member(Role::Host, "six");
    let Ok(six) = Endpoint::bind("[::]:0".parse().expect("an address"), &identity, config()) else {
        return; // No IPv6 on this machine.
    };
    let four = cluster.endpoint("four");
    let (dialled, accepted) = meet(&six, &four, Expect::Tracker).await;
    assert!(matches!(dialled, Err(ConnectError::NoTracker { .. })) && accepted.is_err());
    let six_addr = SocketAddr::from(([127, 0, 0, 1], addr(&six).port()));
    let (dialled, accepted) = tokio::join!(four.connect(six_addr, Expect::Peer(identity.peer_id())), accept(&six));
    dialled.expect("six answers");
    assert_eq!(accepted.expect("four comes").link().remote_addr(), addr(&four));
}

#[tokio::test]
async fn members_of_different_clusters_refuse_each_other() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let (anna, eve) = (ours.endpoint("anna"), theirs.endpoint("eve"));
    let peer = theirs.member(Role::Host, "x").peer_id();
    for (dialler, listener) in [(&anna, &eve), (&eve, &anna)] {
        let (dialled, accepted) = meet(dialler, listener, Expect::Peer(peer)).await;
        let error = dialled.err().expect("a stranger is no peer");
        assert!(matches!(error, ConnectError::Stranger { .. }), "{error}");
        assert!(accepted.is_err());
    }
}

#[tokio::test]
async fn a_stranger_who_trusts_us_is_still_refused() {
    // Eve got hold of our CA's certificate, which is no secret, and so believes us; her own certificate is another CA's.
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let anna = ours.endpoint("anna");
    let (eve, _) = crate::tests::hostile::client(&ours.ca, Some(&theirs.member(Role::Host, "eve")));
    let (connection, accepted) = tokio::join!(hostile::dial(&eve, addr(&anna)), accept(&anna));
    assert!(accepted.is_err());
    let why = connection.expect("a client is done before the server").closed().await;
    assert!(crate::close::reason(&why).contains("refused the TLS handshake"), "{why}");
}

#[tokio::test]
async fn without_a_certificate_nothing_is_served() {
    let cluster = Cluster::new();
    let anna = cluster.endpoint("anna");
    let (client, _) = hostile::client(&cluster.ca, None);
    let (connection, accepted) = tokio::join!(hostile::dial(&client, addr(&anna)), accept(&anna));
    assert!(accepted.is_err());
    let why = crate::close::reason(&connection.expect("a client is done before the server").closed().await);
    assert!(why.contains("must join first"), "{why}");
}

#[tokio::test]
async fn a_tracker_gives_strangers_nothing_but_joining() {
    let cluster = Cluster::new();
    let tracker = bind_tracker(&cluster.member(Role::Tracker, "tracker"));
    let (client, _) = hostile::client(&cluster.ca, None);
    let (connection, accepted) = tokio::join!(hostile::dial(&client, addr(&tracker)), identify(&tracker));
    assert!(matches!(accepted, Err(HandshakeError::NoCertificate)));
    let why = crate::close::reason(&connection.expect("TLS lets strangers through").closed().await);
    assert!(why.contains("only members"), "{why}");
}

#[tokio::test]
async fn an_unexpected_peer_is_left_alone() {
    let cluster = Cluster::new();
    let (anna, bert) = (cluster.endpoint("anna"), cluster.endpoint("bert"));
    let wanted = cluster.member(Role::Host, "carl").peer_id();
    let (dialled, accepted) = meet(&anna, &bert, Expect::Peer(wanted)).await;
    let error = dialled.err().expect("bert is not carl");
    assert!(matches!(&error, ConnectError::OtherPeer { found, .. } if found.name == "bert"), "{error}");
    let error = accepted.err().expect("anna hung up").to_string();
    assert!(error.contains("not the peer"), "the other side is told: {error}");
    let (dialled, _) = meet(&anna, &bert, Expect::Tracker).await;
    assert!(matches!(dialled, Err(ConnectError::NoTracker { .. })));
}

#[tokio::test]
async fn expired_and_future_certificates_are_refused() {
    let cluster = Cluster::new();
    let good = cluster.endpoint("good");
    let now = unix_now_s();
    for (from_unix_s, until_unix_s) in [(now - 3 * DAY_S, now - DAY_S), (now + DAY_S, now + 2 * DAY_S)] {
        let bad = cluster.member_valid(Role::Host, "bad", Validity { from_unix_s, until_unix_s });
        let peer = bad.peer_id();
        let bad = bind(&bad);
        let (dialled, accepted) = meet(&good, &bad, Expect::Peer(peer)).await;
        let error = dialled.err().expect("the listener's certificate is not valid");
        assert!(matches!(&error, ConnectError::Stranger { .. }), "{error}");
        assert!(accepted.is_err());
        let (dialled, accepted) = meet(&bad, &good, Expect::Tracker).await;
        assert!(accepted.is_err(), "the dialler's certificate is not valid");
        assert!(dialled.is_err());
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_in_both_directions_whatever_certificate_it_has() {
    let cluster = Cluster::new();
    let (anna, bert) = (cluster.member(Role::Host, "anna"), cluster.member(Role::Host, "bert"));
    let (a, b) = (bind(&anna), bind(&bert));
    let (before, there) = meet(&b, &a, Expect::Peer(anna.peer_id())).await;
    assert!(before.is_ok() && there.is_ok());
    drop((before, there));
    let revocation = Revocation { peer: bert.peer_id(), until_unix_s: unix_now_s() + DAY_S };
    assert_eq!(a.revoke(&[revocation]), [revocation]);
    assert!(a.is_revoked(bert.peer_id()) && !a.is_revoked(anna.peer_id()));

    let request = CertificateAuthority::check(&bert.key().request()).expect("our own request");
    let validity = Validity { from_unix_s: unix_now_s() - 60, until_unix_s: unix_now_s() + DAY_S };
    let certificate = cluster.ca.issue_valid(&request, Role::Host, "bert-2", validity).expect("a certificate");
    let renewed = bert.renewed(certificate, cluster.ca.certificate().to_vec(), Vec::new()).expect("renewed");
    for identity in [&bert, &renewed] {
        b.set_identity(identity).expect("a usable identity");
        let (dialled, accepted) = meet(&b, &a, Expect::Peer(anna.peer_id())).await;
        assert!(matches!(accepted, Err(HandshakeError::Revoked(member)) if member.peer == bert.peer_id()));
        let why = dialled.err().expect("bert is no member").to_string();
        assert!(why.contains("was revoked") && why.contains("new key"), "it is told: {why}");
        let (dialled, accepted) = meet(&a, &b, Expect::Peer(bert.peer_id())).await;
        assert!(matches!(dialled, Err(ConnectError::Handshake { cause: HandshakeError::Revoked(_), .. })));
        assert!(accepted.is_err());
    }
    assert_eq!(a.members(), 0);
}

#[tokio::test]
async fn a_renewed_identity_counts_for_new_connections_and_old_ones_go_on() {
    let cluster = Cluster::new();
    let now = unix_now_s();
    let anna = cluster.endpoint("anna");
    let expired =
        cluster.member_valid(Role::Host, "bert", Validity { from_unix_s: now - 2 * DAY_S, until_unix_s: now - DAY_S });
    let bert = bind(&expired);
    let (dialled, _accepted) = meet(&anna, &bert, Expect::Peer(expired.peer_id())).await;
    assert!(dialled.is_err());

    let request = CertificateAuthority::check(&expired.key().request()).expect("our own request");
    let validity = Validity { from_unix_s: now - 60, until_unix_s: now + DAY_S };
    let certificate = cluster.ca.issue_valid(&request, Role::Host, "bert", validity).expect("a certificate");
    let renewed = expired.renewed(certificate, cluster.ca.certificate().to_vec(), Vec::new()).expect("renewed");
    assert_eq!(renewed.peer_id(), expired.peer_id());
    bert.set_identity(&renewed).expect("a usable identity");
    let (dialled, accepted) = meet(&anna, &bert, Expect::Peer(expired.peer_id())).await;
    let (first, _first_other) = (dialled.expect("anna is let in"), accepted.expect("bert is let in"));
    let (dialled, accepted) = meet(&bert, &anna, Expect::Peer(first.link().member.peer)).await;
    assert!(dialled.is_err() && accepted.is_err(), "anna is not bert");

    bert.set_identity(&expired).expect("a usable identity");
    let (mut link, _s, _r) = first.split();
    assert!(link.quic.close_reason().is_none(), "what is open stays open");
    link = link.clone();
    drop(link);
}

#[tokio::test]
async fn connections_are_counted_and_bounded() {
    let cluster = Cluster::new();
    let full = LinkConfig { max_connections: 1, ..config() };
    let identity = cluster.member(Role::Host, "full");
    let full = Endpoint::bind(loopback(), &identity, full).expect("an endpoint");
    let (anna, bert) = (cluster.endpoint("anna"), cluster.endpoint("bert"));
    let expect = Expect::Peer(identity.peer_id());
    let (first, first_there) = meet(&anna, &full, expect).await;
    let (_first, first_there) = (first.expect("the first gets in"), first_there.expect("the first gets in"));
    let (second, there) = meet(&bert, &full, expect).await;
    assert!(matches!(there, Err(HandshakeError::Full(1))));
    let error = second.err().expect("the second does not").to_string();
    assert!(error.contains("in use"), "{error}");
    assert!(matches!(
        full.connect(addr(&anna), expect).await,
        Err(ConnectError::Handshake { cause: HandshakeError::Full(1), .. })
    ));
    drop(first_there);
    let (third, there) = meet(&bert, &full, expect).await;
    assert!(third.is_ok() && there.is_ok(), "a place that is free again is given away");
}

#[test]
fn an_identity_is_the_same_after_a_restart() {
    let cluster = Cluster::new();
    let dir = cluster.path().join("identity");
    assert!(matches!(Identity::load(&dir), Err(crate::identity::IdentityError::NotJoined(_))));
    let identity = cluster.member(Role::Publisher, "p-1.rack_2").with_trackers(vec!["t:7440".to_owned()]);
    identity.save(&dir).expect("saved");
    let loaded = Identity::load(&dir).expect("loaded");
    assert_eq!((loaded.member(), loaded.trackers()), (identity.member(), identity.trackers()));
    assert_eq!(loaded.expires_unix_s(), identity.expires_unix_s());
    assert!(loaded.renew_after_unix_s() < loaded.expires_unix_s());

    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| std::fs::metadata(dir.join(name)).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode("key.pem"), mode("certificate.pem")), (0o600, 0o644));
    assert_eq!(std::fs::read_dir(&dir).expect("a folder").count(), 5, "no temporary file is left");

    let other = cluster.member(Role::Host, "other");
    std::fs::write(dir.join("certificate.pem"), crate::identity::certificate_pem(other.certificate()))
        .expect("written");
    assert!(matches!(Identity::load(&dir), Err(crate::identity::IdentityError::OtherKey)));
    std::fs::write(dir.join("certificate.pem"), "nonsense").expect("written");
    assert!(matches!(Identity::load(&dir), Err(crate::identity::IdentityError::Damaged { .. })));
}

#[test]
fn messages_of_the_control_stream_fit_their_limit() {
    // The types are the protocol's; this crate only relies on their being sendable.
    fn sendable<T: Send + 'static>() {}
    sendable::<Connection>();
    sendable::<(WireHave, WireDelta)>();
}
