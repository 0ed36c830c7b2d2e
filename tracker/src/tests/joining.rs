//! Making a cluster, joining it, staying in it.

use drover_link::ca::CertificateAuthority;

use super::*;
use crate::StartError;
use crate::cluster::InitError;

#[tokio::test]
async fn a_host_joins_connects_and_renews() {
    let fleet = Fleet::new();
    let host = fleet.host("web-1").await;
    assert_eq!((host.identity.member().role, host.identity.member().name.as_str()), (Role::Host, "web-1"));
    let publisher = PublisherKey::from_bytes(fleet.publisher.verifying_key().to_bytes());
    assert_eq!(host.identity.publishers(), [publisher]);
    assert_eq!(fleet.tracker.members(), 1);

    let renewed = drover_link::enrol::renew(&host.link, &host.identity).await.expect("renewed");
    assert_eq!((renewed.member(), renewed.trackers()), (host.identity.member(), host.identity.trackers()));
    assert!(renewed.expires_unix_s() >= host.identity.expires_unix_s());
    fleet.connect(renewed).await;
}

#[tokio::test]
async fn a_token_lets_one_host_in_also_after_a_restart() {
    let fleet = Fleet::new();
    let (used, unused) = (fleet.token(Role::Host), fleet.token(Role::Host));
    fleet.join(&used, "first").await.expect("joined");
    let fleet = fleet.restart().await;
    let error = fleet.join(&used, "second").await.expect_err("used");
    let text = error.to_string();
    assert!(matches!(error, JoinError::Refused(_)) && text.contains("used before"), "{text}");
    assert!(text.contains("drover-tracker token"), "it says what to do: {text}");
    assert!(!fleet.folder.path().join("second").exists(), "nothing half-done is left");
    fleet.join(&unused, "second").await.expect("a token outlives a restart");
}

#[tokio::test]
async fn of_two_that_race_one_joins() {
    let fleet = Fleet::new();
    for round in 0..5 {
        let token = fleet.token(Role::Host);
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let (one, other) = tokio::join!(fleet.join(&token, &a), fleet.join(&token, &b));
        assert_eq!(usize::from(one.is_ok()) + usize::from(other.is_ok()), 1);
        let error = one.err().or(other.err()).expect("one was refused").to_string();
        assert!(error.contains("used before"), "{error}");
    }
}

#[tokio::test]
async fn expired_and_unknown_tokens_are_refused_each_with_its_reason() {
    let fleet = Fleet::new();
    let expired = cluster::new_token(&fleet.state(), Role::Host, Duration::from_secs(1)).expect("a token");
    let made = unix_now_s();
    timeout(PATIENCE, async {
        while unix_now_s() < made + 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the clock goes on");
    let text = fleet.join(&expired, "late").await.expect_err("expired").to_string();
    assert!(text.contains("expired") && text.contains("get a new one"), "{text}");
    let unknown = JoinToken::new(Role::Host, [1; 16], expired.pin());
    let text = fleet.join(&unknown, "guess").await.expect_err("unknown").to_string();
    assert!(text.contains("does not know"), "{text}");
}

#[tokio::test]
async fn a_publisher_brings_its_key_and_later_hosts_learn_it() {
    let fleet = Fleet::new();
    let key = SigningKey::from_bytes(&[42; 32]);
    let public = PublisherKey::from_bytes(key.verifying_key().to_bytes());
    let to = fleet.tracker.local_addr().to_string();
    let dir = fleet.folder.path().join("studio");
    let token = fleet.token(Role::Publisher);
    let studio = join_in(&dir, &to, &token, "studio", Some(public)).await.expect("joined");
    assert_eq!(studio.member().role, Role::Publisher);
    assert!(studio.publishers().contains(&public));

    let fleet = fleet.restart().await;
    let host = fleet.host("web-1").await;
    assert!(host.identity.publishers().contains(&public), "the list outlives a restart");
    let release = fleet.release("image", 1).sign(&key);
    assert_eq!(host.ask(&TrackerRequest::Post(release)).await, TrackerReply::Posted);
}

#[tokio::test]
async fn a_host_token_makes_nobody_a_publisher() {
    let fleet = Fleet::new();
    let key = PublisherKey::from_bytes([7; 32]);
    let to = fleet.tracker.local_addr().to_string();
    let dir = fleet.folder.path().join("web-1");
    let identity = join_in(&dir, &to, &fleet.token(Role::Host), "web-1", Some(key)).await.expect("joined");
    assert_eq!(identity.member().role, Role::Host);
    assert!(!identity.publishers().contains(&key));
}

#[tokio::test]
async fn a_certificate_is_renewed_only_for_the_connections_key() {
    let fleet = Fleet::new();
    let (host, other) = (fleet.host("web-1").await, fleet.host("web-2").await);
    let why = host.refused(&TrackerRequest::Renew { csr: other.identity.key().request() }).await;
    assert!(why.contains("only for the key"), "{why}");
    let mut altered = host.identity.key().request();
    *altered.last_mut().expect("a request has bytes") ^= 1;
    let why = host.refused(&TrackerRequest::Renew { csr: altered }).await;
    assert!(why.contains("malformed or was altered"), "{why}");
}

#[tokio::test]
async fn a_cluster_is_made_once_and_served_by_one_tracker() {
    let fleet = Fleet::new();
    assert!(matches!(cluster::init(&fleet.state(), LOOPBACK), Err(InitError::Exists(_))));
    let second = Tracker::start(&fleet.state(), LOOPBACK, None).err().expect("two trackers on one folder");
    assert!(matches!(&second, StartError::Lock(_)), "{second}");
    assert!(second.to_string().contains("another tracker"), "{second}");
    let nowhere = fleet.folder.path().join("nowhere");
    assert!(matches!(Tracker::start(&nowhere, LOOPBACK, None), Err(StartError::NoCluster(_))));
    assert!(cluster::new_token(&nowhere, Role::Host, DEFAULT_TTL).is_err());
    assert!(!nowhere.exists());
}

#[test]
fn a_cluster_that_can_not_be_made_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("written");
    assert!(cluster::init(&file.join("state"), LOOPBACK).is_err());
    let state = folder.path().join("state");
    assert!(cluster::init_named(&state, LOOPBACK, "No Name").is_err());
    assert!(!state.exists());
}

#[tokio::test]
async fn another_tracker_serves_members_of_the_first_and_keeps_tokens_of_its_own() {
    let fleet = Fleet::new();
    let host = fleet.host("web-1").await;
    let state = fleet.folder.path().join("second");
    let copy = fleet.folder.path().join("copy");
    let error = cluster::init_another(&state, LOOPBACK, &copy).expect_err("nothing is there").to_string();
    assert!(error.contains("--cluster wants") && !state.exists(), "{error}");
    std::fs::create_dir_all(copy.join("ca")).expect("a folder");
    for name in ["ca/ca.key", "ca/ca.pem", "publishers.json"] {
        std::fs::copy(fleet.state().join(name), copy.join(name)).expect("copied");
    }
    cluster::init_another(&state, LOOPBACK, &copy).expect("another tracker");
    assert!(!state.join("publisher.key").exists(), "the publisher's key stays where it is");
    assert!(matches!(cluster::init_another(&state, LOOPBACK, &copy), Err(InitError::Exists(_))));

    let tracker = Tracker::start(&state, LOOPBACK, None).expect("it starts");
    let token = fleet.token(Role::Host);
    let Fleet { folder, publisher, tracker: first } = fleet;
    let second = Fleet { folder, publisher, tracker };
    let host = second.connect(host.identity.clone()).await;
    assert_eq!(host.ask(&TrackerRequest::Post(second.signed("debian", 1))).await, TrackerReply::Posted);
    drover_link::enrol::renew(&host.link, &host.identity).await.expect("any tracker renews");
    let text = second.join(&token, "stray").await.expect_err("a token of the first").to_string();
    assert!(text.contains("given out by another one"), "{text}");
    let own = cluster::new_token(&state, Role::Host, DEFAULT_TTL).expect("a token");
    let joined = second.join(&own, "web-2").await.expect("joined");
    let link = Endpoint::bind(LOOPBACK, &joined, patient()).expect("an endpoint");
    link.connect(first.local_addr(), Expect::Tracker).await.expect("the first tracker takes it for a member");
}

#[tokio::test]
async fn publishers_can_be_added_and_removed_while_the_tracker_runs() {
    let fleet = Fleet::new();
    let host = fleet.host("web-1").await;
    let key = SigningKey::from_bytes(&[42; 32]);
    let public = PublisherKey::from_bytes(key.verifying_key().to_bytes());
    let release = |version| TrackerRequest::Post(fleet.release("image", version).sign(&key));
    host.refused(&release(1)).await;
    let elsewhere = crate::publishers::Publishers::load(&fleet.state()).expect("the list");
    elsewhere.add(public).expect("added");
    assert_eq!(host.ask(&release(1)).await, TrackerReply::Posted);
    let renewed = drover_link::enrol::renew(&host.link, &host.identity).await.expect("renewed");
    assert!(renewed.publishers().contains(&public));
    elsewhere.remove(public).expect("removed");
    assert!(elsewhere.remove(public).is_err());
    host.refused(&release(2)).await;
}

#[test]
fn secrets_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("state");
    cluster::init(&state, LOOPBACK).expect("a cluster");
    for (name, mode) in
        [("", 0o700), ("ca", 0o700), ("ca/ca.key", 0o600), ("publisher.key", 0o600), ("identity/key.pem", 0o600)]
    {
        let found = std::fs::metadata(state.join(name)).expect(name).permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name:?}");
    }
}

#[tokio::test]
async fn the_tracker_renews_its_own_certificate() {
    let fleet = Fleet::new();
    let (state, dir) = (fleet.state(), fleet.state().join("identity"));
    fleet.tracker.shutdown().await;
    let ca = CertificateAuthority::load(&state.join("ca")).expect("the CA");
    let key = Identity::load(&dir).expect("the tracker's identity").key().clone();
    let request = CertificateAuthority::check(&key.request()).expect("our own request");
    let short = ca.issue_checked(&request, Role::Tracker, "tracker", Duration::ZERO).expect("a certificate");
    let due = Identity::new(key, short, ca.certificate().to_vec(), Vec::new(), Vec::new()).expect("an identity");
    due.save(&dir).expect("saved");
    let _tracker = Tracker::start(&state, LOOPBACK, None).expect("a tracker");
    let renewed = Identity::load(&dir).expect("the tracker's identity");
    assert_eq!(renewed.peer_id(), due.peer_id());
    assert!(renewed.expires_unix_s() > unix_now_s() + 6 * 24 * 3600);
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_certificate() {
    let fleet = Fleet::new();
    let host = fleet.host("web-1").await;
    let server = fleet.tracker.server_for_tests();
    server.members.close_expired(host.identity.expires_unix_s() - 1);
    assert!(host.link.quic.close_reason().is_none());
    server.members.close_expired(host.identity.expires_unix_s());
    let why = timeout(PATIENCE, host.link.quic.closed()).await.expect("closed");
    assert!(drover_link::close::reason(&why).contains("expired"), "{why}");
    fleet.connect(host.identity.clone()).await;
}

#[tokio::test]
async fn a_connection_lives_on_with_a_renewed_certificate() {
    let fleet = Fleet::new();
    let host = fleet.host("web-1").await;
    let server = fleet.tracker.server_for_tests();
    server.members.extend(host.identity.peer_id(), unix_now_s() + 1);
    drover_link::enrol::renew(&host.link, &host.identity).await.expect("renewed");
    server.members.close_expired(unix_now_s() + 3600);
    host.ask(&TrackerRequest::Releases { names: Vec::new() }).await;
    assert!(host.link.quic.close_reason().is_none());
}
