//! Releases: which are kept, who hears of them, what a restart keeps.

use drover_link::frame::{expect_frame, write_frame};
use quinn::RecvStream;

use super::*;

async fn watch(host: &Host) -> (quinn::SendStream, RecvStream, Vec<SignedRelease>) {
    let (mut send, mut receive) = host.link.quic.open_bi().await.expect("a stream");
    write_frame(&mut send, &TrackerRequest::Watch).await.expect("sent");
    let first = heard(&mut receive).await;
    (send, receive, first)
}

async fn heard(stream: &mut RecvStream) -> Vec<SignedRelease> {
    loop {
        match timeout(PATIENCE, expect_frame(stream)).await.expect("in time").expect("a reply") {
            TrackerReply::Releases(releases) => return releases,
            TrackerReply::Publishers(_) => {}
            other => panic!("no releases: {other:?}"),
        }
    }
}

#[tokio::test]
async fn everybody_who_watches_hears_of_a_release_at_once() {
    let fleet = Fleet::new();
    let (poster, watcher) = (fleet.host("a").await, fleet.host("b").await);
    let old = fleet.signed("debian", 1);
    assert_eq!(poster.ask(&TrackerRequest::Post(old.clone())).await, TrackerReply::Posted);
    let (_send, mut news, first) = watch(&watcher).await;
    assert_eq!(first, [old]);
    for version in 2..5 {
        let new = fleet.signed("debian", version);
        assert_eq!(poster.ask(&TrackerRequest::Post(new.clone())).await, TrackerReply::Posted);
        // Once more changes nothing and tells nobody.
        assert_eq!(poster.ask(&TrackerRequest::Post(new.clone())).await, TrackerReply::Posted);
        assert_eq!(heard(&mut news).await, [new]);
    }
}

#[tokio::test]
async fn releases_survive_a_restart() {
    let fleet = Fleet::new();
    let host = fleet.host("a").await;
    let identity = host.identity.clone();
    for (name, version) in [("debian", 3), ("alpine", 1)] {
        assert_eq!(host.ask(&TrackerRequest::Post(fleet.signed(name, version))).await, TrackerReply::Posted);
    }
    let fleet = fleet.restart().await;
    let host = fleet.connect(identity).await;
    let all = TrackerReply::Releases(vec![fleet.signed("alpine", 1), fleet.signed("debian", 3)]);
    let same_names = |reply: &TrackerReply| match reply {
        TrackerReply::Releases(releases) => {
            let key = [PublisherKey::from_bytes(fleet.publisher.verifying_key().to_bytes())];
            let read = releases.iter().map(|signed| signed.verify(&key, unix_now_s()).expect("a good release"));
            read.map(|release| (release.name.to_string(), release.version)).collect::<Vec<_>>()
        }
        other => panic!("no releases: {other:?}"),
    };
    let reply = host.ask(&TrackerRequest::Releases { names: Vec::new() }).await;
    assert_eq!(same_names(&reply), same_names(&all));
    let names = vec!["debian".parse().expect("a name"), "unheard-of".parse().expect("a name")];
    let reply = host.ask(&TrackerRequest::Releases { names }).await;
    assert_eq!(same_names(&reply), [("debian".to_owned(), 3)]);
    let why = host.refused(&TrackerRequest::Post(fleet.signed("debian", 2))).await;
    assert!(why.contains("versions only grow"), "{why}");
}

#[tokio::test]
async fn what_no_publisher_said_is_refused_with_the_reason() {
    let fleet = Fleet::new();
    let host = fleet.host("a").await;
    let stranger = fleet.release("debian", 1).sign(&SigningKey::from_bytes(&[1; 32]));
    let mut tampered = fleet.signed("debian", 1);
    tampered.body[20] ^= 1;
    let mut borrowed = stranger.clone();
    borrowed.publisher = fleet.signed("debian", 1).publisher;
    let expired = Release { expires_unix_s: unix_now_s() - 1, ..fleet.release("debian", 1) }.sign(&fleet.publisher);
    for (release, reason) in
        [(stranger, "not one of the publishers"), (tampered, "altered"), (borrowed, "altered"), (expired, "expired")]
    {
        let why = host.refused(&TrackerRequest::Post(release)).await;
        assert!(why.contains(reason), "{why}");
    }
    let kept = host.ask(&TrackerRequest::Releases { names: Vec::new() }).await;
    assert_eq!(kept, TrackerReply::Releases(Vec::new()));
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_hurts_nobody() {
    let fleet = Fleet::new();
    let poster = fleet.host("a").await;
    let identity = fleet.join(&fleet.token(Role::Host), "b").await.expect("joined");
    let narrow = LinkConfig { stream_window: 4096, connection_window: 8192, ..patient() };
    let sleeper = fleet.connect_with(identity, narrow).await;
    let (_send, mut news, _) = watch(&sleeper).await;
    // More than the stream's window, the tracker's send window and the backlog hold together.
    let server = fleet.tracker.server_for_tests();
    for _ in 0..2000 {
        server.news.send(fleet.signed("debian", 1)).expect("somebody watches");
        tokio::task::yield_now().await;
    }
    assert_eq!(poster.ask(&TrackerRequest::Post(fleet.signed("alpine", 1))).await, TrackerReply::Posted);
    let mut count = 0;
    let ended = async {
        while let Ok(Some(_)) = drover_link::frame::read_frame::<TrackerReply>(&mut news).await {
            count += 1;
        }
    };
    timeout(PATIENCE, ended).await.expect("the stream was ended");
    assert!(count < 2000, "{count} replies were kept for one that does not read");
}
