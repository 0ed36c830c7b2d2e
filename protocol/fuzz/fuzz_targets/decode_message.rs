//! Any bytes as any message: an error, or a message that can be sent on and comes back the same.
#![no_main]

use drover_protocol::announce::{JoinReply, JoinRequest, TrackerReply, TrackerRequest};
use drover_protocol::codec::{self, Message};
use drover_protocol::message::{DataReply, DataRequest, Hello, PeerMessage};
use libfuzzer_sys::fuzz_target;

fn read<M: Message + PartialEq + core::fmt::Debug>(body: &[u8]) {
    if let Ok(message) = codec::decode::<M>(body) {
        let again = codec::encode(&message).expect("what was read keeps its bounds");
        assert_eq!(codec::decode::<M>(&again), Ok(message));
    }
}

fuzz_target!(|bytes: &[u8]| {
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
});
