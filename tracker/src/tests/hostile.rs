//! Garbage, floods and stale connections.

use drover_protocol::message::Hello;
use drover_protocol::rng::Rng;

use super::*;

#[tokio::test]
async fn garbage_on_a_members_stream_ends_its_connection_and_nothing_else() {
    let fleet = Fleet::new();
    let good = fleet.host("good").await;
    let seed = u64::from(std::process::id());
    let mut rng = Rng::seeded(seed);
    let bad = fleet.join(&fleet.token(Role::Host), "bad").await.expect("joined");
    for round in 0..20 {
        let host = fleet.connect(bad.clone()).await;
        let (mut send, _receive) = host.link.quic.open_bi().await.expect("a stream");
        let len = 1 + rng.next_u64() % 200;
        let mut bytes = vec![len as u8, 0, 0, 0];
        bytes.extend((0..len).map(|_| rng.next_u64() as u8 | 0x80));
        send.write_all(&bytes).await.expect("sent");
        let closed = timeout(PATIENCE, host.link.quic.closed()).await;
        assert!(closed.is_ok(), "round {round}, seed {seed}");
    }
    let list = good.ask(&TrackerRequest::Releases { names: Vec::new() }).await;
    assert_eq!(list, TrackerReply::Releases(Vec::new()));
}

#[tokio::test]
async fn a_flood_of_datagrams_stops_nobody() {
    let fleet = Fleet::new();
    let seed = u64::from(std::process::id());
    let mut rng = Rng::seeded(seed);
    let socket = std::net::UdpSocket::bind(LOOPBACK).expect("a socket");
    for _ in 0..5000 {
        let len = (rng.next_u64() % 1400) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        if let Some(first) = bytes.first_mut() {
            // Every other one looks like the first packet of a connection.
            *first |= 0xc0;
        }
        // A full buffer drops some; there are enough.
        let _ = socket.send_to(&bytes, fleet.tracker.local_addr());
    }
    let late = timeout(PATIENCE, fleet.host("late")).await;
    assert!(late.is_ok(), "seed {seed}");
}

#[tokio::test]
async fn a_member_that_comes_again_and_again_replaces_itself() {
    let fleet = Fleet::new();
    let identity = fleet.join(&fleet.token(Role::Host), "phoenix").await.expect("joined");
    let mut hosts = Vec::new();
    for _ in 0..6 {
        hosts.push(fleet.connect(identity.clone()).await);
    }
    let newest = hosts.pop().expect("the last one");
    let list = newest.ask(&TrackerRequest::Releases { names: Vec::new() }).await;
    assert_eq!(list, TrackerReply::Releases(Vec::new()));
    let oldest = timeout(PATIENCE, hosts[0].link.quic.closed()).await.expect("closed");
    assert!(drover_link::close::reason(&oldest).contains("newer connections"));
    assert_eq!(fleet.tracker.members(), 1);
}

#[tokio::test]
async fn a_question_of_another_kind_is_not_answered() {
    let fleet = Fleet::new();
    let host = fleet.host("confused").await;
    let (mut send, _receive) = host.link.quic.open_bi().await.expect("a stream");
    let hello = Hello { lowest: u16::MAX, highest: u16::MAX, agent: "x".repeat(60) };
    drover_link::frame::write_frame(&mut send, &hello).await.expect("sent");
    let closed = timeout(PATIENCE, host.link.quic.closed()).await.expect("closed");
    assert!(drover_link::close::reason(&closed).contains("tracker request"), "{closed}");
}
