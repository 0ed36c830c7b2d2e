//! Any bytes as a set, as a delta and as parts of an image of any size.
#![no_main]

use drover_protocol::codec;
use drover_protocol::geometry::Geometry;
use drover_protocol::have::WireHave;
use drover_protocol::message::{PeerMessage, SwarmMessage};
use drover_protocol::parts::WireParts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
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
});
