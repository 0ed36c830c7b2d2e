//! Whatever peers and drivers say, in whatever order: no panic, and every sum agrees.

use core::time::Duration;

use proptest::prelude::*;

use super::super::{RequestEnd, RequestId, ServeId, SwarmConfig};
use super::mesh::peer_id;
use super::stage::{PIECES, Stage, config};
use crate::have::{WireDelta, WireHave};
use crate::hints::Source;
use crate::message::{LeaveReason, SwarmMessage};
use crate::parts::{Parts, WireParts};

/// One thing that happens; numbers are taken as they come.
#[derive(Clone, Debug)]
enum Happening {
    Candidates(Vec<usize>),
    Connected(usize),
    ConnectFailed(usize),
    Disconnected(usize),
    Join(usize, u64),
    Have(usize, Vec<(u32, u32)>),
    Bitmap(usize, Vec<u8>),
    Delta(usize, Vec<(u32, u32)>),
    Leave(usize),
    Rack(usize, bool),
    Importing(usize, Vec<(u32, u32)>),
    Partial(usize, bool, Vec<(u32, u32)>, Vec<u8>),
    Parts(usize, bool, Vec<u32>),
    Request(usize, u32, Vec<(u32, u32)>),
    Served(u64, u64),
    Stored(u32, Option<u64>),
    Rejected(u32, u64),
    Ended(u64, u8, u32),
    Lost(Vec<u32>),
    Missed(Vec<u32>),
    Reader(u32, u32),
    Paused(bool),
    Carried(bool),
    Limits(Option<u64>, Option<u64>),
    Pass(u64),
    /// The n-th open request brings its next chunks.
    Deliver(u8, u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let peer = 0..8usize;
    let number = prop_oneof![8 => 0..PIECES + 2, 1 => any::<u32>()];
    let chunk = prop_oneof![8 => 0..PIECES * 4 + 4, 1 => any::<u32>()];
    let runs = prop::collection::vec((number.clone(), prop_oneof![4 => 0..6u32, 1 => any::<u32>()]), 0..5);
    prop_oneof![
        1 => prop::collection::vec(0..20usize, 0..6).prop_map(Candidates),
        1 => peer.clone().prop_map(Connected),
        1 => peer.clone().prop_map(ConnectFailed),
        1 => peer.clone().prop_map(Disconnected),
        4 => (peer.clone(), any::<u64>()).prop_map(|(peer, bits)| Join(peer, bits)),
        1 => (peer.clone(), runs.clone()).prop_map(|(peer, runs)| Have(peer, runs)),
        1 => (peer.clone(), prop::collection::vec(any::<u8>(), 4..7)).prop_map(|(peer, bytes)| Bitmap(peer, bytes)),
        2 => (peer.clone(), runs.clone()).prop_map(|(peer, runs)| Delta(peer, runs)),
        1 => peer.clone().prop_map(Leave),
        3 => (peer.clone(), any::<bool>()).prop_map(|(peer, is_near)| Rack(peer, is_near)),
        2 => (peer.clone(), runs.clone()).prop_map(|(peer, runs)| Importing(peer, runs)),
        1 => (peer.clone(), any::<bool>(), runs.clone(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(peer, is_stuck, runs, bytes)| Partial(peer, is_stuck, runs, bytes)),
        3 => (peer.clone(), any::<bool>(), prop::collection::vec(0..PIECES * 4, 0..20))
            .prop_map(|(peer, is_stuck, chunks)| Parts(peer, is_stuck, chunks)),
        6 => (peer, number, runs).prop_map(|(peer, piece, runs)| Request(peer, piece, runs)),
        4 => (0..60u64, any::<u64>()).prop_map(|(serve, bytes)| Served(serve, bytes)),
        4 => (chunk.clone(), prop::option::of(0..80u64)).prop_map(|(chunk, request)| Stored(chunk, request)),
        1 => (chunk.clone(), 0..80u64).prop_map(|(chunk, request)| Rejected(chunk, request)),
        3 => (0..80u64, 0..4u8, any::<u32>()).prop_map(|(request, end, instead)| Ended(request, end, instead)),
        1 => prop::collection::vec(chunk.clone(), 0..9).prop_map(Lost),
        2 => prop::collection::vec(chunk.clone(), 0..9).prop_map(Missed),
        1 => (chunk.clone(), chunk).prop_map(|(start, end)| Reader(start, end)),
        1 => any::<bool>().prop_map(Paused),
        2 => any::<bool>().prop_map(Carried),
        1 => (prop::option::of(any::<u64>()), prop::option::of(any::<u64>())).prop_map(|(up, down)| Limits(up, down)),
        6 => (0..4000u64).prop_map(Pass),
        8 => (any::<u8>(), any::<u8>()).prop_map(|(which, count)| Deliver(which, count)),
    ]
}

fn happen(stage: &mut Stage, open: &mut Vec<super::stage::Asked>, serves: &mut u64, happening: Happening) {
    let geometry = stage.geometry;
    let say =
        |stage: &mut Stage, peer, message| stage.tell(|swarm, now| swarm.handle_message(now, peer_id(peer), message));
    match happening {
        Happening::Candidates(peers) => {
            let peers: Vec<_> = peers.into_iter().map(peer_id).collect();
            stage.tell(|swarm, now| swarm.handle_candidates(now, Source::Tracker(0), &peers));
        }
        Happening::Connected(peer) => stage.tell(|swarm, now| swarm.handle_connected(now, peer_id(peer))),
        Happening::ConnectFailed(peer) => stage.tell(|swarm, now| swarm.handle_connect_failed(now, peer_id(peer))),
        Happening::Disconnected(peer) => stage.tell(|swarm, now| swarm.handle_disconnected(now, peer_id(peer))),
        Happening::Join(peer, bits) => stage.join(peer, (0..PIECES).filter(|piece| bits >> piece & 1 != 0)),
        Happening::Have(peer, runs) => say(stage, peer, SwarmMessage::Have { have: WireHave::Runs(runs) }),
        Happening::Bitmap(peer, bytes) => say(stage, peer, SwarmMessage::Have { have: WireHave::Bitmap(bytes) }),
        Happening::Delta(peer, runs) => say(stage, peer, SwarmMessage::HaveDelta { delta: WireDelta(runs) }),
        Happening::Leave(peer) => say(stage, peer, SwarmMessage::Leave { reason: LeaveReason::Useless }),
        Happening::Rack(peer, is_near) => {
            let rack = if is_near { "a" } else { "b" };
            say(stage, peer, SwarmMessage::Rack { rack: rack.to_owned() });
        }
        Happening::Importing(peer, runs) => say(stage, peer, SwarmMessage::Importing { pieces: WireDelta(runs) }),
        Happening::Partial(peer, is_stuck, runs, chunks) => {
            let parts = WireParts { pieces: WireDelta(runs), chunks };
            say(stage, peer, SwarmMessage::Partial { is_stuck, parts });
        }
        Happening::Parts(peer, is_stuck, chunks) => {
            let mut parts = Parts::default();
            for chunk in chunks.into_iter().filter_map(|chunk| geometry.chunk(chunk)) {
                parts.insert(&geometry, chunk);
            }
            say(stage, peer, SwarmMessage::Partial { is_stuck, parts: WireParts::of(&parts, &geometry) });
        }
        Happening::Request(peer, piece, runs) => {
            *serves += 1;
            let chunks = runs.into_iter().map(|(start, len)| start..start.saturating_add(len)).collect();
            let serve = ServeId(*serves);
            stage.tell(|swarm, now| swarm.handle_request(now, peer_id(peer), serve, piece, chunks));
        }
        Happening::Served(serve, bytes) => {
            stage.tell(|swarm, now| swarm.handle_served(now, ServeId(serve), bytes % (1 << 30)));
        }
        Happening::Stored(chunk, request) => {
            if let Some(chunk) = geometry.chunk(chunk) {
                stage.tell(|swarm, now| swarm.handle_chunk_stored(now, chunk, request.map(RequestId)));
            }
        }
        Happening::Rejected(chunk, request) => {
            if let Some(chunk) = geometry.chunk(chunk) {
                stage.tell(|swarm, now| swarm.handle_chunk_rejected(now, chunk, RequestId(request)));
            }
        }
        Happening::Ended(request, end, instead) => {
            let retry_after = Duration::from_millis(u64::from(instead) % 700);
            let end = match end {
                0 => RequestEnd::Done,
                1 => RequestEnd::Busy { retry_after, instead: (instead % 3 == 0).then_some(instead % 50) },
                2 => RequestEnd::NotHeld,
                _ => RequestEnd::Failed,
            };
            stage.end(RequestId(request), end);
        }
        Happening::Lost(chunks) => {
            let chunks: Vec<_> = chunks.into_iter().filter_map(|chunk| geometry.chunk(chunk)).collect();
            stage.tell(|swarm, now| swarm.handle_chunks_lost(now, &chunks));
        }
        Happening::Reader(start, end) => stage.tell(|swarm, now| swarm.handle_reader(now, start..end)),
        Happening::Paused(paused) => stage.tell(|swarm, now| swarm.set_paused(now, paused)),
        Happening::Carried(carried) => stage.tell(|swarm, now| swarm.set_carried(now, carried)),
        Happening::Missed(chunks) => {
            let chunks: Vec<_> = chunks.into_iter().filter_map(|chunk| geometry.chunk(chunk)).collect();
            stage.tell(|swarm, now| swarm.handle_missed(now, &chunks));
        }
        Happening::Limits(up, down) => stage.tell(|swarm, now| swarm.set_rate_limits(now, up, down)),
        Happening::Pass(millis) => stage.pass(Duration::from_millis(millis)),
        Happening::Deliver(which, count) => {
            open.extend(stage.asked());
            if open.is_empty() {
                return;
            }
            let asked = open.swap_remove(usize::from(which) % open.len());
            for &chunk in asked.chunks.iter().take(usize::from(count) % 5) {
                stage.deliver_chunk(asked.request, chunk);
            }
            stage.end(asked.request, RequestEnd::Done);
        }
    }
    stage.status();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_happens_breaks_a_swarm(
        held in 0..PIECES * 4,
        slots in 0..4usize,
        happenings in prop::collection::vec(happening(), 1..120),
    ) {
        let limits = SwarmConfig { rack: Some("a".to_owned()), upload_slots: slots, neighbours_most: 5, neighbours_sought: 3, ..config() };
        let mut stage = Stage::new(0..held, limits);
        let (mut open, mut serves) = (Vec::new(), 0);
        for happening in happenings {
            happen(&mut stage, &mut open, &mut serves, happening);
        }
    }
}
