//! Holds DESIGN.md to the code: every worked example in it is what the code writes, and what the code reads back.
//!
//! An example is a fenced block that begins with `example NAME`; each of its lines is bytes in hexadecimal and, after a
//! semicolon, what they are.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use drover_protocol::announce::{
    Announce, Announced, Cohort, JoinRequest, SwarmAnnounce, SwarmPeers, TrackerReply, TrackerRequest,
};
use drover_protocol::codec::{self, Message};
use drover_protocol::discovery::DiscoveryMessage;
use drover_protocol::geometry::{CHUNK_LEN, Geometry};
use drover_protocol::have::{PieceSet, WireDelta, WireHave};
use drover_protocol::id::{ContentHash, ImageId, PeerId};
use drover_protocol::item::Item;
use drover_protocol::lookup::{ClusterSecret, NameSecret};
use drover_protocol::manifest::{Manifest, ManifestBuilder, hash_chunk, is_zeros};
use drover_protocol::message::{
    DataReply, DataRequest, Hello, LeaveReason, PageRange, PeerAddress, PeerMessage, SwarmMessage,
};
use drover_protocol::multicast::election::{LeaseReply, LeaseRequest};
use drover_protocol::multicast::message::{
    Announcement, Beat, DismissReason, EndReason, LeaveReason as MulticastLeaveReason, MulticastMessage, Report,
};
use drover_protocol::multicast::packet::{Header, Opener, Sealer, SessionId, SessionKey};
use drover_protocol::multicast::probe::{Heard, ProbeMessage};
use drover_protocol::parts::{Parts, WireParts};
use drover_protocol::release::{Release, SignedRelease};
use drover_protocol::revocation::Revocation;
use ed25519_dalek::SigningKey;

const DESIGN: &str = include_str!("../DESIGN.md");

/// The image of all examples: 64 KiB of `a`, 128 KiB of zeros, 64 KiB of `b`, 64 KiB of zeros, 512 bytes of `c`.
fn content() -> Vec<u8> {
    let run = |byte, len| vec![byte; len];
    [run(b'a', 64 << 10), run(0, 128 << 10), run(b'b', 64 << 10), run(0, 64 << 10), run(b'c', 512)].concat()
}

fn manifest() -> Manifest {
    let content = content();
    let mut builder = ManifestBuilder::new(Geometry::new(content.len() as u64, 256 << 10).unwrap());
    for chunk in content.chunks(CHUNK_LEN as usize) {
        builder.push((!is_zeros(chunk)).then(|| hash_chunk(chunk)));
    }
    builder.finish(ContentHash::from_bytes(blake3::hash(&content).into()))
}

fn image() -> ImageId {
    manifest().image_id()
}

/// The key that signs in all examples.
fn publisher() -> SigningKey {
    SigningKey::from_bytes(&core::array::from_fn(|at| at as u8))
}

fn signed_release() -> SignedRelease {
    let release = Release {
        format: 1,
        name: "debian-13".parse().unwrap(),
        version: 3,
        image: image(),
        content_len: content().len() as u64,
        content_hash: manifest().content_hash(),
        created_unix_s: 1_800_000_000,
        expires_unix_s: 1_807_776_000,
    };
    release.sign(&publisher())
}

fn secret() -> ClusterSecret {
    ClusterSecret::from_bytes(core::array::from_fn(|at| at as u8))
}

fn name_secret() -> NameSecret {
    secret().of_name(&"debian-13".parse().unwrap())
}

fn item() -> Item {
    Item::sign(&signed_release(), &name_secret(), &publisher()).unwrap()
}

/// A set of some of the 40 pieces of an image of 10 MiB.
fn pieces(numbers: impl IntoIterator<Item = u32>) -> PieceSet {
    let geometry = Geometry::new(10 << 20, 256 << 10).unwrap();
    let mut set = PieceSet::empty(&geometry);
    for number in numbers {
        set.insert(geometry.piece(number).unwrap());
    }
    set
}

fn about_the_image(message: SwarmMessage) -> PeerMessage {
    PeerMessage::Swarm { image: image(), message }
}

const SESSION: SessionId = SessionId(0x0123_4567_89ab_cdef);
const MULTICAST_SENDER: PeerId = PeerId::from_bytes([0x11; 32]);

fn session_key() -> SessionKey {
    SessionKey::from_bytes(core::array::from_fn(|at| at as u8))
}

fn packet_header() -> Header {
    Header { session: SESSION, sequence: 1000, chunk: 3, symbol: 50, k: 48, h: 3, rest: 16 }
}

/// A packet with a symbol of 600 bytes of `a`.
fn packet() -> Vec<u8> {
    let mut packet = Vec::new();
    Sealer::new(&session_key(), MULTICAST_SENDER).seal(&packet_header(), &[b'a'; 600], &mut packet);
    packet
}

fn multicast_messages() -> [(&'static str, MulticastMessage); 7] {
    let session = SESSION;
    let announcement = Announcement {
        session,
        key: session_key(),
        group: "239.255.1.2:50000".parse().unwrap(),
        source: "10.0.0.5".parse().unwrap(),
        symbol_len: 1366,
    };
    let report = Report {
        session,
        highest: 1000,
        expected: 900,
        received: 890,
        dropped: 1,
        backlog: 65_536,
        drain_bytes_per_s: 100_000_000,
        rejected: 0,
        gained: WireDelta::of(pieces([7, 8]).iter()),
        lacking: vec![(3, 2)],
    };
    let held = WireHave::of(&pieces(0..8));
    [
        ("multicast-announce", MulticastMessage::Announce(announcement)),
        ("multicast-join", MulticastMessage::Join { session, held, link_bytes_per_s: 125_000_000 }),
        ("multicast-report", MulticastMessage::Report(report)),
        ("multicast-leave", MulticastMessage::Leave { session, reason: MulticastLeaveReason::Silent }),
        (
            "multicast-beat",
            MulticastMessage::Beat(Beat { session, sequence: 1000, report_interval_ms: 250, is_idle: false }),
        ),
        ("multicast-dismiss", MulticastMessage::Dismiss { session, reason: DismissReason::Lossy }),
        ("multicast-end", MulticastMessage::End { session, reason: EndReason::Done }),
    ]
}

fn probe_heard() -> ProbeMessage {
    let steps = [(100, 0), (250, 0), (500, 0), (989, 5)].map(|(received, dropped)| Heard { received, dropped });
    ProbeMessage::Heard { session: SESSION, steps }
}

/// What a name in DESIGN.md stands for, as bytes.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let body = |bytes: Result<Vec<u8>, codec::EncodeError>| bytes.unwrap();
    let join = about_the_image(SwarmMessage::Join { have: WireHave::of(&pieces((0..8).chain(12..40))) });
    let have = about_the_image(SwarmMessage::Have { have: WireHave::of(&pieces((0..40).step_by(2))) });
    let delta = SwarmMessage::HaveDelta { delta: WireDelta::of(pieces([3, 4, 5, 9]).iter()) };
    let importing = SwarmMessage::Importing { pieces: WireDelta::of(pieces([7, 8]).iter()) };
    let leave = about_the_image(SwarmMessage::Leave { reason: LeaveReason::Full });
    let geometry = Geometry::new(10 << 20, 256 << 10).unwrap();
    let mut parts = Parts::default();
    for number in [20, 22, 25] {
        parts.insert(&geometry, geometry.chunk(number).unwrap());
    }
    let partial = SwarmMessage::Partial { is_stuck: true, parts: WireParts::of(&parts, &geometry) };
    let ranges = vec![PageRange { first: 0, count: 16 }, PageRange { first: 48, count: 16 }];
    let peer = PeerAddress {
        peer: PeerId::from_bytes([0x11; 32]),
        addrs: vec!["10.0.0.5:7444".parse().unwrap(), "[fd00::5]:7444".parse().unwrap()],
    };
    let swarm = SwarmAnnounce { image: image(), held_chunks: 1, data_chunks: 3, want_peers: 20, leaving: false };
    let announce =
        Announce { listen: vec!["0.0.0.0:7444".parse().unwrap()], rack: Some("r1".to_owned()), swarms: vec![swarm] };
    let group = "239.255.1.2:50000".parse().unwrap();
    let lease_request = LeaseRequest { number: 7, image: image(), session: SESSION, group };
    let revocation = Revocation { peer: PeerId::from_bytes([0x11; 32]), until_unix_s: 1_807_862_400 };
    let cohort = Cohort { seeders: 1, leechers: 2, held_permille: 444 };
    let swarm_peers = SwarmPeers { image: image(), peers: vec![peer.clone()], cohort };
    let announced = Announced { interval_ms: 3000, swarms: vec![swarm_peers] };
    let join_request = JoinRequest {
        token: core::array::from_fn(|at| at as u8),
        csr: vec![0x30, 0x82],
        host: "host-1".to_owned(),
        publisher: None,
    };
    let multicast = multicast_messages()
        .map(|(name, message)| (name, body(codec::encode(&PeerMessage::Multicast { image: image(), message }))));
    let mut examples = BTreeMap::from([
        ("manifest", manifest().to_bytes()),
        ("image-id", image().as_bytes().to_vec()),
        ("signed-release", body(codec::encode(&signed_release()))),
        ("frame", body(codec::encode_frame(&DataReply::NotHeld))),
        ("hello", body(codec::encode(&Hello { lowest: 1, highest: 4, agent: "drover/0.1.0".to_owned() }))),
        ("join", body(codec::encode(&join))),
        ("have", body(codec::encode(&have))),
        ("delta", body(codec::encode(&about_the_image(delta)))),
        ("partial", body(codec::encode(&about_the_image(partial)))),
        ("rack", body(codec::encode(&about_the_image(SwarmMessage::Rack { rack: "r1".to_owned() })))),
        ("importing", body(codec::encode(&about_the_image(importing)))),
        ("leave", body(codec::encode(&leave))),
        ("hosts", body(codec::encode(&PeerMessage::Discovery(DiscoveryMessage::Hosts { peers: vec![peer.clone()] })))),
        ("ask-peers", body(codec::encode(&PeerMessage::Discovery(DiscoveryMessage::AskPeers { image: image() })))),
        ("peers", body(codec::encode(&PeerMessage::Peers { image: image(), peers: vec![peer] }))),
        ("lookup-secret", secret().as_bytes().to_vec()),
        ("lookup-image", secret().key_of_image(image()).to_vec()),
        ("lookup-hosts", secret().key_of_cluster().to_vec()),
        ("name-secret", name_secret().as_bytes().to_vec()),
        ("release-salt", item().salt.to_vec()),
        ("release-value", item().value),
        ("release-item-signature", item().signature.as_bytes().to_vec()),
        ("manifest-request", body(codec::encode(&DataRequest::Manifest { image: image() }))),
        ("pages-request", body(codec::encode(&DataRequest::Pages { image: image(), piece: 0, ranges }))),
        ("accepted", body(codec::encode(&DataReply::Accepted { len: 131_072 }))),
        ("busy", body(codec::encode(&DataReply::Busy { retry_after_ms: 100, instead: Some(7) }))),
        ("lease-request", body(codec::encode(&TrackerRequest::Lease(lease_request)))),
        ("lease-granted", body(codec::encode(&TrackerReply::Lease(LeaseReply::Granted { number: 7, for_ms: 2000 })))),
        ("revoked", body(codec::encode(&TrackerReply::Revoked(vec![revocation])))),
        ("announce", body(codec::encode(&TrackerRequest::Announce(announce)))),
        ("announced", body(codec::encode(&TrackerReply::Announced(announced)))),
        ("join-request", body(codec::encode(&join_request))),
        ("probe-heard", body(codec::encode(&PeerMessage::Probe(probe_heard())))),
        ("packet-header", packet_header().to_bytes().to_vec()),
        ("packet", packet()),
    ]);
    examples.extend(multicast);
    examples
}

#[test]
fn every_example_in_the_design_is_what_the_code_writes() {
    let (written, known) = (blocks(DESIGN), examples());
    for (name, bytes) in &known {
        let found = written.get(name);
        assert_eq!(found, Some(bytes), "the code writes for {name:?}:\n{}", hex(bytes));
    }
    let unknown: Vec<&&str> = written.keys().filter(|name| !known.contains_key(**name)).collect();
    assert_eq!(unknown, [&""; 0], "examples that no test knows");
}

#[test]
fn the_examples_are_accepted() {
    fn read<M: Message + PartialEq>(written: &BTreeMap<&str, Vec<u8>>, name: &str) {
        let message = codec::decode::<M>(&written[name]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(codec::encode(&message).unwrap() == written[name], "{name} is written as it was read");
    }
    let written = blocks(DESIGN);
    for name in
        ["join", "have", "delta", "leave", "partial", "rack", "importing", "peers", "probe-heard", "hosts", "ask-peers"]
    {
        read::<PeerMessage>(&written, name);
    }
    for (name, _) in multicast_messages() {
        read::<PeerMessage>(&written, name);
    }
    let source = "10.0.0.5".parse().unwrap();
    let mut opener = Opener::new(&session_key(), SESSION, MULTICAST_SENDER, source, 600);
    let mut packet = written["packet"].clone();
    assert_eq!(opener.open(source, &mut packet), Ok((packet_header(), &[b'a'; 600][..])));
    read::<Hello>(&written, "hello");
    read::<DataRequest>(&written, "manifest-request");
    read::<DataRequest>(&written, "pages-request");
    read::<DataReply>(&written, "accepted");
    read::<DataReply>(&written, "busy");
    read::<TrackerRequest>(&written, "lease-request");
    read::<TrackerReply>(&written, "lease-granted");
    read::<TrackerReply>(&written, "revoked");
    read::<TrackerRequest>(&written, "announce");
    read::<TrackerReply>(&written, "announced");
    read::<JoinRequest>(&written, "join-request");

    let manifest = Manifest::from_bytes_of(image(), &written["manifest"]).unwrap();
    let geometry = manifest.geometry();
    for (chunk, bytes) in geometry.chunks().zip(content().chunks(CHUNK_LEN as usize)) {
        manifest.verify(chunk, bytes).unwrap();
    }
    let signed: SignedRelease = codec::decode(&written["signed-release"]).unwrap();
    let release = signed.verify(&[signed.publisher], 1_800_000_001).unwrap();
    assert_eq!((release.name.as_str(), release.image), ("debian-13", image()));
    let found = Item { value: written["release-value"].clone(), ..item() };
    assert_eq!(found.open(&release.name, &name_secret()), Ok(signed));
}

/// The example blocks of a document: names, and the bytes of all lines.
fn blocks(document: &str) -> BTreeMap<&str, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```example ") else { continue };
        let digits: String = lines
            .by_ref()
            .take_while(|line| *line != "```")
            .flat_map(|line| line.split(';').next())
            .flat_map(|bytes| bytes.chars().filter(|c| !c.is_whitespace()))
            .collect();
        let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes());
        let bytes = bytes.unwrap_or_else(|error| panic!("example {name} is not hexadecimal: {error}"));
        assert!(found.insert(name, bytes).is_none(), "two examples are called {name}");
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", data_encoding::HEXLOWER.encode(line));
        text
    })
}
