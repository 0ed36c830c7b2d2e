//! Bytes from the wire: messages, manifests, releases, sets of pieces, revocations.

use drover_protocol::announce::{
    Announce, Announced, Cohort, JoinReply, JoinRequest, SwarmAnnounce, SwarmPeers, TrackerReply, TrackerRequest,
};
use drover_protocol::codec::{self, Message};
use drover_protocol::geometry::{CHUNK_LEN, Geometry};
use drover_protocol::have::{PieceSet, WireDelta, WireHave};
use drover_protocol::id::{ContentHash, ImageId, PeerId, PublisherKey};
use drover_protocol::manifest::{Manifest, ManifestBuilder};
use drover_protocol::message::{
    DataReply, DataRequest, Hello, LeaveReason, PageRange, PeerAddress, PeerMessage, SwarmMessage,
};
use drover_protocol::parts::WireParts;
use drover_protocol::release::{Release, SignedRelease};
use drover_protocol::revocation::{MAX_REVOKED, REVOKED_FOR_S, Revocation, RevocationList};
use ed25519_dalek::{Signer as _, SigningKey};

/// Any bytes as any message: an error, or a message that can be sent on and comes back the same.
pub(crate) fn message(bytes: &[u8]) {
    fn read<M: Message + PartialEq + core::fmt::Debug>(body: &[u8]) {
        if let Ok(message) = codec::decode::<M>(body) {
            let again = codec::encode(&message).expect("what was read keeps its bounds");
            assert_eq!(codec::decode::<M>(&again), Ok(message));
        }
    }
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => read::<Hello>(body),
        1 => read::<PeerMessage>(body),
        2 => read::<DataRequest>(body),
        3 => read::<DataReply>(body),
        4 => read::<TrackerRequest>(body),
        5 => read::<TrackerReply>(body),
        6 => read::<JoinRequest>(body),
        _ => read::<JoinReply>(body),
    }
}

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    fn seed(kind: u8, message: &impl Message) -> Vec<u8> {
        [vec![kind], codec::encode(message).expect("a message of ours")].concat()
    }
    let (image, peer) = (ImageId::from_bytes([7; 32]), PeerId::from_bytes([1; 32]));
    let addrs = vec!["10.0.0.5:7444".parse().expect("an address"), "[fd00::5]:7444".parse().expect("an address")];
    let peers = vec![PeerAddress { peer, addrs: addrs.clone() }];
    let ranges = vec![PageRange { first: 0, count: 16 }, PageRange { first: 32, count: 16 }];
    let swarm = SwarmAnnounce { image, held_chunks: 1, data_chunks: 3, want_peers: 20, leaving: false };
    let cohort = Cohort { seeders: 1, leechers: 2, held_permille: 444 };
    let swarms = vec![SwarmPeers { image, peers: peers.clone(), cohort }];
    let revocation = Revocation { peer, until_unix_s: 1_807_862_400 };
    let about = |message| PeerMessage::Swarm { image, message };
    vec![
        seed(0, &Hello::ours("drover/0.1.0")),
        seed(1, &about(SwarmMessage::Join { have: WireHave::Runs(vec![(0, 8), (4, 28)]) })),
        seed(1, &about(SwarmMessage::HaveDelta { delta: WireDelta(vec![(3, 3), (3, 1)]) })),
        seed(1, &about(SwarmMessage::Leave { reason: LeaveReason::Full })),
        seed(1, &PeerMessage::Peers { image, peers }),
        seed(2, &DataRequest::Pages { image, piece: 0, ranges }),
        seed(3, &DataReply::Busy { retry_after_ms: 100, instead: Some(7) }),
        seed(
            4,
            &TrackerRequest::Announce(Announce { listen: addrs, rack: Some("r1".to_owned()), swarms: vec![swarm] }),
        ),
        seed(5, &TrackerReply::Announced(Announced { interval_ms: 3000, swarms })),
        seed(5, &TrackerReply::Revoked(vec![revocation])),
        seed(6, &JoinRequest { token: [1; 16], csr: vec![0x30], host: "host-1".to_owned(), publisher: None }),
        seed(7, &JoinReply::Refused("no".to_owned())),
    ]
}

/// Any bytes as a manifest: an error, or a manifest whose one form they are.
pub(crate) fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        assert_eq!(manifest.to_bytes(), bytes);
        let data = manifest.data_chunks();
        assert!(manifest.pieces_held(&data).is_full());
        assert!(manifest.geometry().chunks().all(|chunk| data.contains(chunk) != manifest.is_zero(chunk)));
    }
}

pub(crate) fn manifest_seeds() -> Vec<Vec<u8>> {
    let made = |chunks: &[bool], rest: u64| {
        let len = u64::from(CHUNK_LEN) * chunks.len() as u64 - rest;
        let mut builder = ManifestBuilder::new(Geometry::of_len(len).expect("a length of an image"));
        for (number, is_data) in chunks.iter().enumerate() {
            builder.push(is_data.then(|| drover_protocol::manifest::hash_chunk(&[number as u8; 9])));
        }
        builder.finish(ContentHash::from_bytes([5; 32])).to_bytes()
    };
    vec![made(&[true, false, false, true, false, true], 100), made(&[false], 0), made(&[true; 9], 65_535)]
}

/// Any bytes as the body of a release that a trusted publisher signed: an error, or a release whose one form they are.
pub(crate) fn release(body: &[u8]) {
    let key = SigningKey::from_bytes(&[1; 32]);
    let publisher = PublisherKey::from_bytes(key.verifying_key().to_bytes());
    let signatures = key.sign(&[b"drover release v1\0", body].concat()).to_bytes().to_vec();
    let signed = SignedRelease { body: body.to_vec(), publisher, signatures };
    if let Ok(release) = signed.verify_intact() {
        assert_eq!(release.sign(&key), signed);
    }
}

pub(crate) fn release_seeds() -> Vec<Vec<u8>> {
    let release = Release {
        format: 1,
        name: "debian-13".parse().expect("a name"),
        version: 3,
        image: ImageId::from_bytes([7; 32]),
        content_len: 1 << 30,
        content_hash: ContentHash::from_bytes([5; 32]),
        created_unix_s: 1_800_000_000,
        expires_unix_s: 1_807_776_000,
    };
    vec![release.sign(&SigningKey::from_bytes(&[1; 32])).body]
}

/// Any bytes as a set, as a delta and as parts of an image of any size.
pub(crate) fn have(bytes: &[u8]) {
    let Some((len, body)) = bytes.split_first_chunk::<4>() else { return };
    let Ok(geometry) = Geometry::of_len(u64::from(u32::from_le_bytes(*len))) else { return };
    let Ok(PeerMessage::Swarm { message, .. }) = codec::decode(body) else { return };
    match message {
        SwarmMessage::Join { have } | SwarmMessage::Have { have } => {
            if let Ok(set) = have.to_set(&geometry) {
                assert_eq!(WireHave::of(&set).to_set(&geometry), Ok(set));
            }
        }
        SwarmMessage::HaveDelta { delta } | SwarmMessage::Importing { pieces: delta } => {
            if let Ok(pieces) = delta.pieces(&geometry) {
                assert!(pieces.is_sorted() && pieces.len() <= geometry.piece_count() as usize);
            }
        }
        SwarmMessage::Leave { .. } | SwarmMessage::Rack { .. } => {}
        SwarmMessage::Partial { parts, .. } => {
            if let Ok(parts) = parts.to_parts(&geometry)
                && parts.pieces().count() <= WireParts::most(&geometry)
            {
                assert_eq!(WireParts::of(&parts, &geometry).to_parts(&geometry), Ok(parts));
            }
        }
    }
}

pub(crate) fn have_seeds() -> Vec<Vec<u8>> {
    let geometry = Geometry::of_len(40 << 20).expect("a length of an image");
    let mut some = PieceSet::empty(&geometry);
    for piece in geometry.pieces().step_by(3) {
        some.insert(piece);
    }
    let messages = [
        SwarmMessage::Join { have: WireHave::of(&some) },
        SwarmMessage::Have { have: WireHave::of(&PieceSet::full(&geometry)) },
        SwarmMessage::HaveDelta { delta: WireDelta::of(some.iter()) },
        SwarmMessage::Importing { pieces: WireDelta::of(some.iter()) },
        SwarmMessage::Partial {
            is_stuck: true,
            parts: WireParts { pieces: WireDelta(vec![(5, 1)]), chunks: vec![13] },
        },
    ];
    let image = ImageId::from_bytes([7; 32]);
    let seed = |message| codec::encode(&PeerMessage::Swarm { image, message }).expect("a message of ours");
    messages.map(|message| [(40_u32 << 20).to_le_bytes().to_vec(), seed(message)].concat()).to_vec()
}

/// Any revocations, told in any order while time goes on: the list stays within its bound, none holds longer than it may,
/// and what was told last and longest holds.
pub(crate) fn revocation(bytes: &[u8]) {
    let (mut list, mut now) = (RevocationList::default(), 1_800_000_000);
    for told in bytes.chunks_exact(64) {
        now += u64::from(told[0]) * 3600;
        let count = 1 << (told[1] % 14);
        let told: Vec<Revocation> = (0..count)
            .map(|number: u32| {
                let mut peer = [told[2]; 32];
                peer[..4].copy_from_slice(&number.to_le_bytes());
                let until: [u8; 8] = told[8..16].try_into().expect("eight bytes");
                let until_unix_s = match told[3] % 3 {
                    0 => u64::from_le_bytes(until),
                    1 => now + u64::from(u32::from_le_bytes(until[..4].try_into().expect("four bytes"))),
                    _ => now.saturating_sub(u64::from(told[4])),
                };
                Revocation { peer: PeerId::from_bytes(peer), until_unix_s }
            })
            .collect();
        for news in list.learn(now, &told) {
            assert!(news.until_unix_s > now && news.until_unix_s <= now + REVOKED_FOR_S);
        }
        assert!(list.all().len() <= MAX_REVOKED);
        let last = told[told.len().min(MAX_REVOKED) - 1];
        let has_room = list.all().len() < MAX_REVOKED;
        assert!(!has_room || last.until_unix_s <= now || list.is_revoked(now, last.peer));
    }
}

pub(crate) fn revocation_seeds() -> Vec<Vec<u8>> {
    let step = |first: u8, second: u8, third: u8, kind: u8| [vec![first, second, third, kind], vec![0x5a; 60]].concat();
    vec![
        [step(0, 0, 1, 1), step(1, 13, 2, 1), step(200, 3, 1, 0)].concat(),
        [step(9, 12, 3, 2), step(0, 12, 4, 1)].concat(),
    ]
}
