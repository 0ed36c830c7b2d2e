//! Who may send by multicast.

use core::net::SocketAddr;

use drover_protocol::announce::{Announce, SwarmAnnounce};
use drover_protocol::multicast::election::{LEASE, LeaseReply, LeaseRequest};
use drover_protocol::multicast::packet::SessionId;

use super::*;

const IMAGE: ImageId = ImageId::from_bytes([5; 32]);

async fn announce(host: &Host, held_chunks: u32) {
    let listen = vec![SocketAddr::from(([0, 0, 0, 0], 7444))];
    let swarm = SwarmAnnounce { image: IMAGE, held_chunks, data_chunks: 10, want_peers: 0, leaving: false };
    host.ask(&TrackerRequest::Announce(Announce { listen, rack: None, swarms: vec![swarm] })).await;
}

async fn lease(host: &Host, session: u64) -> TrackerReply {
    let group = SocketAddr::from(([239, 255, 1, session as u8], 50_000));
    host.ask(&TrackerRequest::Lease(LeaseRequest { number: 1, image: IMAGE, session: SessionId(session), group })).await
}

#[tokio::test]
async fn one_seeder_at_a_time_may_send_and_nobody_else() {
    let fleet = Fleet::new();
    let (anna, bert, clara) = (fleet.host("anna").await, fleet.host("bert").await, fleet.host("clara").await);
    announce(&anna, 10).await;
    announce(&bert, 10).await;
    announce(&clara, 9).await;
    // A tracker that has just begun does not know what another one granted.
    assert!(matches!(lease(&anna, 1).await, TrackerReply::Lease(LeaseReply::Held { number: 1, .. })));
    let granted = async {
        while !matches!(lease(&anna, 1).await, TrackerReply::Lease(LeaseReply::Granted { number: 1, .. })) {
            tokio::time::sleep(LEASE / 10).await;
        }
    };
    timeout(PATIENCE, granted).await.expect("in time");
    assert!(matches!(lease(&bert, 2).await, TrackerReply::Lease(LeaseReply::Held { .. })));
    assert!(matches!(lease(&clara, 3).await, TrackerReply::Refused(_)));
    let ended = anna.ask(&TrackerRequest::EndLease { image: IMAGE, session: SessionId(1) }).await;
    assert_eq!(ended, TrackerReply::LeaseEnded);
    assert!(matches!(lease(&bert, 2).await, TrackerReply::Lease(LeaseReply::Granted { .. })));
}
