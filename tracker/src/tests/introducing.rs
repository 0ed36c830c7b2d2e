//! Hosts that announce themselves get to know each other.

use drover_protocol::announce::{Announce, Announced, Cohort, SwarmAnnounce};

use super::*;

fn announce(port: u16, held_chunks: u32, leaving: bool) -> TrackerRequest {
    let image = ImageId::from_bytes([5; 32]);
    TrackerRequest::Announce(Announce {
        listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)],
        rack: None,
        swarms: vec![SwarmAnnounce { image, held_chunks, data_chunks: 10, want_peers: 20, leaving }],
    })
}

async fn announced(host: &Host, question: TrackerRequest) -> Announced {
    match host.ask(&question).await {
        TrackerReply::Announced(announced) => announced,
        other => panic!("no answer to an announce: {other:?}"),
    }
}

#[tokio::test]
async fn hosts_that_announce_learn_of_each_other() {
    let fleet = Fleet::new();
    let (seeder, leecher) = (fleet.host("seeder").await, fleet.host("leecher").await);
    let first = announced(&seeder, announce(7444, 10, false)).await;
    assert!(first.swarms[0].peers.is_empty() && first.interval_ms > 0);
    let second = announced(&leecher, announce(7445, 0, false)).await;
    let peer = &second.swarms[0].peers[0];
    assert_eq!(peer.peer, seeder.identity.peer_id());
    assert_eq!(peer.addrs, [SocketAddr::from(([127, 0, 0, 1], 7444))], "the address that the tracker saw");
    assert_eq!(second.swarms[0].cohort, Cohort { seeders: 1, leechers: 1, held_permille: 500 });

    announced(&seeder, announce(7444, 10, true)).await;
    let third = announced(&leecher, announce(7445, 0, false)).await;
    assert!(third.swarms[0].peers.is_empty(), "who leaves is not handed out any more");
}

#[tokio::test]
async fn a_tracker_that_restarts_has_forgotten_who_exchanges_what() {
    let fleet = Fleet::new();
    let seeder = fleet.host("seeder").await;
    announced(&seeder, announce(7444, 10, false)).await;
    let identity = seeder.identity.clone();
    let fleet = fleet.restart().await;
    let why = drover_link::close::reason(&timeout(PATIENCE, seeder.link.quic.closed()).await.expect("in time"));
    assert!(why.contains("shuts down"), "{why}");
    let leecher = fleet.host("leecher").await;
    assert!(announced(&leecher, announce(7445, 0, false)).await.swarms[0].peers.is_empty());
    announced(&fleet.connect(identity).await, announce(7444, 10, false)).await;
    assert_eq!(announced(&leecher, announce(7445, 0, false)).await.swarms[0].peers.len(), 1);
}

#[tokio::test]
async fn the_status_says_what_goes_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().expect("a temporary folder");
    cluster::init(folder.path().join("tracker").as_path(), LOOPBACK).expect("a cluster");
    let tracker = Tracker::start(&folder.path().join("tracker"), LOOPBACK, Some(LOOPBACK)).expect("a tracker");
    let get = async |path: &str| {
        let addr = tracker.http_addr().expect("an address");
        let mut stream = tokio::net::TcpStream::connect(addr).await.expect("connected");
        let question = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(question.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    assert!(get("/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/secrets").await.starts_with("HTTP/1.1 404"));
    let answer = get("/status").await;
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((status["members"].as_u64(), status["publishers"].as_u64()), (Some(0), Some(1)));
    tracker.shutdown().await;
}
