//! Members that are shut out.

use drover_link::endpoint::{ConnectError, HandshakeError};
use drover_link::frame::{read_frame, write_frame};
use drover_protocol::id::PeerId;
use drover_protocol::message::PROTOCOL_VERSIONS;
use drover_protocol::revocation::{REVOCATION_SINCE, Revocation};

use super::*;
use crate::StartOptions;
use crate::revoked::Revoked;
use crate::roster::Roster;

/// As `drover-tracker revoke` does it.
fn revoke(fleet: &Fleet, who: &str) -> Vec<PeerId> {
    let found = Roster::load(&fleet.state()).expect("the roster").find(who);
    let who: Vec<_> = found.into_iter().map(|(peer, known)| (peer, known.map(|known| known.name))).collect();
    let added = Revoked::load(&fleet.state()).expect("the list").add(unix_now_s(), &who).expect("revoked");
    added.into_iter().map(|member| member.peer).collect()
}

struct Watching {
    receive: quinn::RecvStream,
    _send: quinn::SendStream,
}

impl Watching {
    async fn begin(host: &Host) -> Self {
        let (mut send, receive) = host.link.quic.open_bi().await.expect("a stream");
        write_frame(&mut send, &TrackerRequest::Watch).await.expect("sent");
        let mut watching = Watching { receive, _send: send };
        assert_eq!(watching.next().await, TrackerReply::Releases(Vec::new()), "releases come first");
        watching
    }

    /// What comes next of what is not about publishers.
    async fn next(&mut self) -> TrackerReply {
        loop {
            match self.next_of_all().await {
                TrackerReply::Publishers(_) => {}
                other => return other,
            }
        }
    }

    async fn next_of_all(&mut self) -> TrackerReply {
        timeout(PATIENCE, read_frame(&mut self.receive)).await.expect("in time").expect("a reply").expect("no end")
    }

    async fn revoked(&mut self) -> Vec<Revocation> {
        match self.next().await {
            TrackerReply::Revoked(revoked) => revoked,
            other => panic!("not told of a revocation: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_revoked_host_is_cut_off_and_told_of_and_comes_in_no_more() {
    let fleet = Fleet::new();
    let (web, db) = (fleet.host("web").await, fleet.host("db").await);
    let mut watching = Watching::begin(&db).await;
    assert_eq!(revoke(&fleet, "web"), [web.identity.peer_id()]);
    assert_eq!(revoke(&fleet, "web"), [], "once is enough");

    let why = timeout(PATIENCE, web.link.quic.closed()).await.expect("cut off");
    assert!(drover_link::close::reason(&why).contains("revoked"), "{why}");
    let told = watching.revoked().await;
    assert_eq!(told.iter().map(|revocation| revocation.peer).collect::<Vec<_>>(), [web.identity.peer_id()]);
    assert!(told[0].until_unix_s > web.identity.expires_unix_s());
    assert!(db.link.quic.close_reason().is_none(), "others are left alone");

    let fleet = fleet.restart().await;
    let endpoint = Endpoint::bind(LOOPBACK, &web.identity, patient()).expect("an endpoint");
    let error = endpoint.connect(fleet.tracker.local_addr(), Expect::Tracker).await.err().expect("no member any more");
    assert!(error.to_string().contains("was revoked"), "{error}");
    let db = fleet.connect(db.identity.clone()).await;
    assert_eq!(Watching::begin(&db).await.revoked().await, told, "who comes later is told of all");
}

#[tokio::test]
async fn a_host_of_an_older_version_is_told_nothing_of_it() {
    let fleet = Fleet::new();
    let web = fleet.host("web").await;
    let db = fleet.join(&fleet.token(Role::Host), "db").await.expect("joined");
    let old = LinkConfig { versions: (PROTOCOL_VERSIONS.0, REVOCATION_SINCE - 1), ..patient() };
    let db = fleet.connect_with(db, old).await;
    let mut watching = Watching::begin(&db).await;
    revoke(&fleet, "web");
    timeout(PATIENCE, web.link.quic.closed()).await.expect("cut off");
    fleet.connect(fleet.join(&fleet.token(Role::Host), "third").await.expect("joined")).await;
    assert_eq!(db.ask(&TrackerRequest::Post(fleet.signed("debian", 1))).await, TrackerReply::Posted);
    let posted = TrackerReply::Releases(vec![fleet.signed("debian", 1)]);
    assert_eq!(watching.next_of_all().await, posted, "nothing came before, also not of publishers");
}

#[tokio::test]
async fn a_revoked_key_gets_no_certificate_and_its_token_stays_good_for_another() {
    let fleet = Fleet::new();
    let Fleet { folder, tracker, publisher } = fleet;
    tracker.shutdown().await;
    let state = folder.path().join("tracker");
    let certificate_life = Duration::from_secs(1);
    let (listen, trackers) = (LOOPBACK, Vec::new());
    let options = StartOptions { listen, http: None, certificate_life, signatures: 1, dht: None, trackers };
    let tracker = Tracker::start_with(&state, options).expect("a tracker");
    let fleet = Fleet { folder, tracker, publisher };
    let first = fleet.join(&fleet.token(Role::Host), "web").await.expect("joined");
    assert_eq!(revoke(&fleet, &first.peer_id().to_string()), [first.peer_id()]);
    timeout(PATIENCE, async {
        // Until the certificate is over, a token does not replace it.
        while unix_now_s() <= first.expires_unix_s() || !fleet.tracker.server_for_tests().is_revoked(first.peer_id()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the clock goes on");
    let token = fleet.token(Role::Host);
    let error = fleet.join(&token, "web").await.expect_err("the same key again").to_string();
    assert!(error.contains("revoked") && error.contains("new key"), "{error}");
    std::fs::remove_dir_all(fleet.folder.path().join("web")).expect("moved away");
    let second = fleet.join(&token, "web").await.expect("another key, the same token");
    assert_ne!(second.peer_id(), first.peer_id());
}

#[tokio::test]
async fn a_name_that_two_hosts_have_shuts_out_both_and_nobody_is_shut_out_by_a_wrong_one() {
    let fleet = Fleet::new();
    let one = fleet.join(&fleet.token(Role::Host), "web").await.expect("joined");
    let elsewhere = fleet.folder.path().join("elsewhere");
    let tracker = fleet.tracker.local_addr().to_string();
    let other = join_in(&elsewhere, &tracker, &fleet.token(Role::Host), "web", None).await.expect("joined");
    assert_eq!(revoke(&fleet, "wbe"), []);
    let mut both = [one.peer_id(), other.peer_id()];
    both.sort();
    assert_eq!(revoke(&fleet, "web"), both);
}

#[tokio::test]
async fn another_tracker_of_the_cluster_begins_with_the_same_list() {
    let fleet = Fleet::new();
    let web = fleet.join(&fleet.token(Role::Host), "web").await.expect("joined");
    revoke(&fleet, "web");
    let state = fleet.folder.path().join("second");
    cluster::init_another(&state, LOOPBACK, &fleet.state()).expect("another tracker");
    let second = Tracker::start(&state, LOOPBACK, None).expect("it starts");
    let endpoint = Endpoint::bind(LOOPBACK, &web, patient()).expect("an endpoint");
    let error = endpoint.connect(second.local_addr(), Expect::Tracker).await.err().expect("no member any more");
    assert!(matches!(&error, ConnectError::Handshake { cause: HandshakeError::Connection(_), .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_list_is_told_and_lets_nobody_in_by_mistake() {
    let fleet = Fleet::new();
    let state = fleet.state();
    fleet.tracker.shutdown().await;
    std::fs::write(state.join("revoked.json"), "[{").expect("written");
    let error = Tracker::start(&state, LOOPBACK, None).err().expect("it does not start").to_string();
    assert!(error.contains("revoked.json") && error.contains("restore it"), "{error}");
}
