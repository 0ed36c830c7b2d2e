//! Whatever bytes come, reading them ends in a message that keeps its bounds or in an error.

use core::net::SocketAddr;

use drover_protocol::announce::{
    Announce, Announced, Cohort, Enrolment, JoinReply, JoinRequest, MAX_COHORTS, MAX_PEERS_HANDED_OUT, MAX_PUBLISHERS,
    MAX_RELEASES, MAX_SWARMS, SwarmAnnounce, SwarmCohort, SwarmPeers, TrackerReply, TrackerRequest,
};
use drover_protocol::codec::{self, DecodeError, FRAME_HEADER_LEN, Message};
use drover_protocol::discovery::{DiscoveryMessage, MAX_RELEASES_TOLD};
use drover_protocol::geometry::{Geometry, MAX_IMAGE_LEN};
use drover_protocol::have::{PieceSet, WireDelta, WireHave};
use drover_protocol::id::{ImageId, PeerId, PublisherKey};
use drover_protocol::lookup::ClusterSecret;
use drover_protocol::message::{
    DataReply, DataRequest, Hello, LeaveReason, MAX_ADDRS, MAX_PEERS, MAX_RANGES, PROTOCOL_VERSIONS, PageRange,
    PeerAddress, PeerMessage, SwarmMessage,
};
use drover_protocol::multicast::election::{LeaseReply, LeaseRequest};
use drover_protocol::multicast::packet::SessionId;
use drover_protocol::parts::{MAX_PARTS, MAX_PARTS_LEN, WireParts};
use drover_protocol::release::{MAX_BODY_LEN, MOST_COSIGNERS, SignedRelease};
use drover_protocol::revocation::{MAX_REVOKED, Revocation};
use proptest::prelude::*;

const IMAGE: ImageId = ImageId::from_bytes([7; 32]);

/// Reads `bytes` as a message; if they are one, it must be written and read back as the same.
fn read<M: Message + PartialEq + core::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = codec::decode::<M>(bytes) {
        // What was read keeps its bounds, so it can be sent on; numbers may get shorter by it, never longer.
        let again = codec::encode(&message).unwrap();
        assert!(again.len() <= bytes.len());
        assert_eq!(codec::decode::<M>(&again), Ok(message));
    }
}

fn read_as_everything(bytes: &[u8]) {
    read::<Hello>(bytes);
    read::<PeerMessage>(bytes);
    read::<DataRequest>(bytes);
    read::<DataReply>(bytes);
    read::<TrackerRequest>(bytes);
    read::<TrackerReply>(bytes);
    read::<JoinRequest>(bytes);
    read::<JoinReply>(bytes);
    read::<SignedRelease>(bytes);
}

fn addrs(count: usize) -> Vec<SocketAddr> {
    (0..count).map(|at| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, at as u16], 65_535))).collect()
}

fn peers(count: usize) -> Vec<PeerAddress> {
    (0..count).map(|_| PeerAddress { peer: PeerId::from_bytes([9; 32]), addrs: addrs(MAX_ADDRS) }).collect()
}

fn hosts(count: usize) -> PeerMessage {
    PeerMessage::Discovery(DiscoveryMessage::Hosts { peers: peers(count) })
}

fn releases(count: usize) -> PeerMessage {
    PeerMessage::Discovery(DiscoveryMessage::Releases { releases: vec![release(); count] })
}

fn release() -> SignedRelease {
    let publisher = PublisherKey::from_bytes([3; 32]);
    SignedRelease { body: vec![1; MAX_BODY_LEN], publisher, signatures: vec![2; 64 + 96 * MOST_COSIGNERS] }
}

fn swarm_announce() -> SwarmAnnounce {
    SwarmAnnounce { image: IMAGE, held_chunks: u32::MAX, data_chunks: u32::MAX, want_peers: u16::MAX, leaving: true }
}

fn announce() -> Announce {
    Announce { listen: addrs(MAX_ADDRS), rack: Some("r".repeat(64)), swarms: vec![swarm_announce(); MAX_SWARMS] }
}

/// The largest message of each kind that keeps all bounds, as a body.
fn largest_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let body =
        |what, result: Result<Vec<u8>, _>| (what, result.unwrap_or_else(|error: codec::EncodeError| panic!("{error}")));
    let geometry = Geometry::of_len(MAX_IMAGE_LEN).unwrap();
    let mut set = PieceSet::empty(&geometry);
    for piece in geometry.pieces().step_by(3) {
        set.insert(piece);
    }
    let have = SwarmMessage::Join { have: WireHave::of(&set) };
    let every_other = (0..MAX_PARTS as u32).map(|at| (u32::MAX - 2 * at, 1)).collect();
    let parts = WireParts { pieces: WireDelta(every_other), chunks: vec![0xff; MAX_PARTS_LEN] };
    let partial = SwarmMessage::Partial { is_stuck: true, parts };
    let swarms = vec![
        SwarmPeers {
            image: IMAGE,
            peers: peers(MAX_PEERS_HANDED_OUT),
            cohort: Cohort { seeders: u32::MAX, leechers: u32::MAX, held_permille: u16::MAX },
        };
        MAX_SWARMS
    ];
    let enrolment = Enrolment {
        certificate: vec![0; 4096],
        ca: vec![0; 4096],
        publishers: vec![PublisherKey::from_bytes([1; 32]); 64],
    };
    let ranges = vec![PageRange { first: 4096, count: 4096 }; MAX_RANGES];
    let name = "n".repeat(64).parse().unwrap();
    vec![
        body("hello", codec::encode(&Hello { lowest: u16::MAX, highest: u16::MAX, agent: "a".repeat(64) })),
        body("have", codec::encode(&PeerMessage::Swarm { image: IMAGE, message: have })),
        body("partial", codec::encode(&PeerMessage::Swarm { image: IMAGE, message: partial })),
        body("peers", codec::encode(&PeerMessage::Peers { image: IMAGE, peers: peers(MAX_PEERS) })),
        body("hosts", codec::encode(&hosts(MAX_PEERS))),
        body("releases of a peer", codec::encode(&releases(MAX_RELEASES_TOLD))),
        body("request", codec::encode(&DataRequest::Pages { image: IMAGE, piece: u32::MAX, ranges })),
        body("busy", codec::encode(&DataReply::Busy { retry_after_ms: u32::MAX, instead: Some(u32::MAX) })),
        body("announce", codec::encode(&TrackerRequest::Announce(announce()))),
        body("names", codec::encode(&TrackerRequest::Releases { names: vec![name; MAX_RELEASES] })),
        body("announced", codec::encode(&TrackerReply::Announced(Announced { interval_ms: u32::MAX, swarms }))),
        body("releases", codec::encode(&TrackerReply::Releases(vec![release(); MAX_RELEASES]))),
        body("renewed", codec::encode(&TrackerReply::Renewed(enrolment.clone()))),
        body("joined", codec::encode(&JoinReply::Joined(enrolment))),
        body(
            "join",
            codec::encode(&JoinRequest {
                token: [255; 16],
                csr: vec![0; 4096],
                host: "h".repeat(64),
                publisher: Some(PublisherKey::from_bytes([1; 32])),
            }),
        ),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn small_numbers_reach_deeper_and_do_not_make_it_panic(bytes in prop::collection::vec(0..5u8, 0..200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn a_damaged_message_does_not_make_it_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let bodies = largest_bodies();
        let mut body = which.get(&bodies).1.clone();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        read_as_everything(&body);
        body.truncate(cut.index(body.len()));
        read_as_everything(&body);
    }
}

#[test]
fn the_largest_of_each_kind_can_be_sent() {
    for (what, body) in largest_bodies() {
        assert!(!body.is_empty(), "{what}");
        read_as_everything(&body);
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused_by_its_header() {
    fn refused<M: Message + core::fmt::Debug>() {
        let header = (M::MAX_LEN as u32 + 1).to_le_bytes();
        assert!(matches!(codec::body_len::<M>(header), Err(DecodeError::TooLong { .. })), "{}", M::NAME);
        assert!(matches!(codec::body_len::<M>([255; 4]), Err(DecodeError::TooLong { .. })));
        assert_eq!(codec::body_len::<M>((M::MAX_LEN as u32).to_le_bytes()), Ok(M::MAX_LEN));
        let error = codec::decode::<M>(&vec![0; M::MAX_LEN + 1]).unwrap_err();
        assert!(matches!(error, DecodeError::TooLong { .. }), "{error}");
    }
    refused::<Hello>();
    refused::<PeerMessage>();
    refused::<DataRequest>();
    refused::<DataReply>();
    refused::<TrackerRequest>();
    refused::<TrackerReply>();
    refused::<JoinRequest>();
    refused::<JoinReply>();
    refused::<SignedRelease>();
}

#[test]
fn a_frame_is_length_and_body() {
    let hello = Hello::ours("drover 0.1.0");
    let frame = codec::encode_frame(&hello).unwrap();
    let (header, body) = frame.split_first_chunk::<FRAME_HEADER_LEN>().unwrap();
    assert_eq!(codec::body_len::<Hello>(*header), Ok(body.len()));
    assert_eq!(codec::decode::<Hello>(body), Ok(hello));
}

#[test]
fn a_body_is_used_up() {
    let mut body = codec::encode(&DataReply::NotHeld).unwrap();
    body.push(0);
    assert_eq!(codec::decode::<DataReply>(&body), Err(DecodeError::Trailing { name: "data reply", left: 1 }));
}

/// A message that breaks a bound is not sent, and if a stranger sends it, it is not read.
fn lease_request(group: &str) -> LeaseRequest {
    LeaseRequest { number: 7, image: IMAGE, session: SessionId(7), group: group.parse().unwrap() }
}

fn over_limit<M: Message + PartialEq + core::fmt::Debug>(message: &M) {
    assert!(codec::encode(message).is_err(), "{message:?} was sent");
    let error = codec::decode::<M>(&postcard::to_stdvec(message).unwrap()).unwrap_err();
    assert!(matches!(error, DecodeError::OverLimit { .. } | DecodeError::TooLong { .. }), "{error}");
}

#[test]
fn lists_and_texts_beyond_their_bounds_are_refused() {
    over_limit(&Hello { lowest: 1, highest: 1, agent: "a".repeat(65) });
    over_limit(&PeerMessage::Peers { image: IMAGE, peers: peers(MAX_PEERS + 1) });
    over_limit(&hosts(MAX_PEERS + 1));
    over_limit(&releases(MAX_RELEASES_TOLD + 1));
    let mut many_addrs = peers(1);
    many_addrs[0].addrs = addrs(MAX_ADDRS + 1);
    over_limit(&PeerMessage::Discovery(DiscoveryMessage::Hosts { peers: many_addrs.clone() }));
    over_limit(&PeerMessage::Peers { image: IMAGE, peers: many_addrs.clone() });
    for (pieces, len) in [
        (vec![(0, 1); MAX_PARTS + 1], 0),
        (vec![(0, MAX_PARTS as u32 + 1)], 0),
        (vec![(0, u32::MAX); 2], 0),
        (vec![], MAX_PARTS_LEN + 1),
    ] {
        let parts = WireParts { pieces: WireDelta(pieces), chunks: vec![1; len] };
        over_limit(&PeerMessage::Swarm { image: IMAGE, message: SwarmMessage::Partial { is_stuck: false, parts } });
    }
    let ranges = vec![PageRange { first: 0, count: 1 }; MAX_RANGES + 1];
    over_limit(&DataRequest::Pages { image: IMAGE, piece: 0, ranges });

    over_limit(&TrackerRequest::Announce(Announce { listen: addrs(MAX_ADDRS + 1), ..announce() }));
    over_limit(&TrackerRequest::Announce(Announce { rack: Some("r".repeat(65)), ..announce() }));
    over_limit(&TrackerRequest::Announce(Announce { swarms: vec![swarm_announce(); MAX_SWARMS + 1], ..announce() }));
    over_limit(&TrackerRequest::Releases { names: vec!["n".parse().unwrap(); MAX_RELEASES + 1] });
    over_limit(&TrackerRequest::Renew { csr: vec![0; 4097] });
    over_limit(&TrackerRequest::Lease(lease_request("10.0.0.1:50000")));
    over_limit(&TrackerRequest::Lease(lease_request("239.255.0.1:53")));
    over_limit(&TrackerRequest::Post(SignedRelease { body: vec![0; MAX_BODY_LEN + 1], ..release() }));
    over_limit(&TrackerRequest::Post(SignedRelease { signatures: vec![0; 65 + 96 * MOST_COSIGNERS], ..release() }));

    let swarm = SwarmPeers { image: IMAGE, peers: many_addrs, cohort: Cohort::default() };
    over_limit(&TrackerReply::Announced(Announced { interval_ms: 1, swarms: vec![swarm] }));
    over_limit(&TrackerReply::Releases(vec![release(); MAX_RELEASES + 1]));
    over_limit(&TrackerReply::Refused("no".repeat(513)));
    let swarm = SwarmCohort { image: IMAGE, cohort: Cohort::default() };
    over_limit(&TrackerReply::Cohorts(vec![swarm; MAX_COHORTS + 1]));
    let revocation = Revocation { peer: PeerId::from_bytes([5; 32]), until_unix_s: 1 };
    over_limit(&TrackerReply::Publishers(vec![PublisherKey::from_bytes([3; 32]); MAX_PUBLISHERS + 1]));
    over_limit(&TrackerReply::Revoked(vec![revocation; MAX_REVOKED + 1]));
    over_limit(&JoinReply::Refused("no".repeat(513)));
    let join = JoinRequest { token: [0; 16], csr: vec![], host: "h".repeat(65), publisher: None };
    over_limit(&join);
}

#[test]
fn versions_are_agreed_on_or_refused_cleanly() {
    let (lowest, highest) = PROTOCOL_VERSIONS;
    let hello = |lowest, highest| Hello { lowest, highest, agent: "other\n1.0".to_owned() };
    assert_eq!(hello(lowest, highest).agree(), Ok(highest));
    assert_eq!(hello(0, u16::MAX).agree(), Ok(highest), "a newer one that still knows ours");
    assert!(hello(highest + 1, u16::MAX).agree().is_err());
    assert!(hello(0, lowest - 1).agree().is_err());
    assert!(hello(5, 2).agree().is_err(), "nonsense is no version");
    let error = hello(highest + 1, highest + 2).agree().unwrap_err().to_string();
    assert!(error.contains("\"other1.0\"") && error.contains("update"), "{error}");
}

#[test]
fn our_own_hello_keeps_its_bound() {
    let long = "ä".repeat(100);
    assert!(Hello::ours(&long).agent.len() <= 64);
    codec::encode(&Hello::ours(&long)).unwrap();
}

#[test]
fn a_name_in_a_message_is_checked() {
    let body = postcard::to_stdvec(&(2u8, vec!["../../etc/passwd"])).unwrap();
    assert!(matches!(codec::decode::<TrackerRequest>(&body), Err(DecodeError::Malformed { .. })));
}

#[test]
fn every_small_message_comes_back() {
    let swarm = |message| PeerMessage::Swarm { image: IMAGE, message };
    for message in [
        swarm(SwarmMessage::Have { have: WireHave::Runs(vec![(0, 5)]) }),
        swarm(SwarmMessage::HaveDelta { delta: WireDelta(vec![(3, 1)]) }),
        swarm(SwarmMessage::Leave { reason: LeaveReason::Banned }),
        swarm(SwarmMessage::Partial {
            is_stuck: false,
            parts: WireParts { pieces: WireDelta(vec![(3, 1)]), chunks: vec![6] },
        }),
        PeerMessage::Discovery(DiscoveryMessage::AskPeers { image: IMAGE }),
        PeerMessage::Discovery(DiscoveryMessage::AskHosts),
        hosts(0),
        releases(1),
    ] {
        assert_eq!(codec::decode(&codec::encode(&message).unwrap()), Ok(message));
    }
    for request in [
        TrackerRequest::Watch,
        TrackerRequest::Secret,
        TrackerRequest::Renew { csr: vec![1, 2] },
        TrackerRequest::Post(release()),
        TrackerRequest::Lease(lease_request("239.255.7.1:50000")),
        TrackerRequest::EndLease { image: IMAGE, session: SessionId(7) },
    ] {
        assert_eq!(codec::decode(&codec::encode(&request).unwrap()), Ok(request));
    }
    let cohort = Cohort { seeders: 3, leechers: 300, held_permille: 999 };
    let cohorts = TrackerReply::Cohorts(vec![SwarmCohort { image: IMAGE, cohort }]);
    for reply in [
        TrackerReply::Posted,
        TrackerReply::Refused("full".to_owned()),
        cohorts,
        TrackerReply::Lease(LeaseReply::Granted { number: 1, for_ms: 2000 }),
        TrackerReply::Lease(LeaseReply::Held { number: 2, retry_after_ms: 1500 }),
        TrackerReply::Lease(LeaseReply::GroupTaken { number: 3 }),
        TrackerReply::LeaseEnded,
        TrackerReply::Secret(ClusterSecret::from_bytes([9; 32])),
        TrackerReply::Revoked(vec![
            Revocation { peer: PeerId::from_bytes([5; 32]), until_unix_s: u64::MAX };
            MAX_REVOKED
        ]),
        TrackerReply::Publishers(vec![PublisherKey::from_bytes([3; 32]); MAX_PUBLISHERS]),
    ] {
        assert_eq!(codec::decode(&codec::encode(&reply).unwrap()), Ok(reply));
    }
}
