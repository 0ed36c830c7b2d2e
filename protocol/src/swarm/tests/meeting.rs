//! Stories of neighbours.

use core::time::Duration;

use super::super::{Output, SwarmConfig};
use super::mesh::{Mesh, Setting, peer_id};
use super::stage::{PIECES, Stage, config, run};
use crate::have::ChunkSet;
use crate::hints::Source;
use crate::message::{LeaveReason, SwarmMessage};

#[test]
fn candidates_are_dialled_up_to_what_is_sought() {
    let mut stage = Stage::new(0..0, SwarmConfig { neighbours_sought: 3, ..config() });
    let all: Vec<_> = (0..10).map(peer_id).collect();
    stage.tell(|swarm, now| swarm.handle_candidates(now, Source::Tracker(0), &all));
    let dialled = stage.dialled();
    assert_eq!(dialled.len(), 3);
    assert!(!dialled.contains(&0), "nobody dials himself");
    stage.tell(|swarm, now| swarm.handle_connected(now, peer_id(dialled[0])));
    assert!(matches!(stage.sent_to(dialled[0])[..], [SwarmMessage::Join { .. }]));
    // Who can't be reached is replaced, and tried again only later.
    stage.tell(|swarm, now| swarm.handle_connect_failed(now, peer_id(dialled[1])));
    assert_eq!(stage.dialled().len(), 1);
}

#[test]
fn a_dead_host_is_dialled_now_and_then_only() {
    let mut stage = Stage::leecher();
    stage.tell(|swarm, now| swarm.handle_candidates(now, Source::Tracker(0), &[peer_id(1)]));
    let mut dials = 0;
    for _ in 0..600 {
        for peer in stage.dialled() {
            dials += 1;
            stage.tell(|swarm, now| swarm.handle_connect_failed(now, peer_id(peer)));
        }
        stage.pass(Duration::from_secs(1));
    }
    assert!((10..=25).contains(&dials), "{dials} dials in ten minutes");
}

#[test]
fn a_join_is_answered_with_all_that_is_held() {
    let mut stage = Stage::new(0..8, config());
    stage.join(1, [3]);
    let have = crate::have::WireHave::of(&stage.pieces([0, 1]));
    assert_eq!(stage.sent_to(1), [SwarmMessage::Have { have }]);
    assert_eq!(stage.asked()[0].piece, 3);
}

#[test]
fn who_comes_when_all_places_are_taken_is_told_so() {
    let mut stage = Stage::new(0..0, SwarmConfig { neighbours_most: 2, ..config() });
    stage.join(1, [1]);
    stage.join(2, [2]);
    stage.join(3, [3]);
    assert_eq!(stage.sent_to(3), [SwarmMessage::Leave { reason: LeaveReason::Full }]);
    assert!(stage.said.contains(&Output::Dropped { peer: peer_id(3) }));
}

#[test]
fn an_idle_seeder_makes_room_for_a_leecher() {
    let mut stage = Stage::new(0..PIECES * 4, SwarmConfig { neighbours_most: 1, ..config() });
    stage.join(1, 0..PIECES);
    stage.join(2, []);
    assert!(stage.sent_to(1).contains(&SwarmMessage::Leave { reason: LeaveReason::Useless }));
    assert!(matches!(stage.sent_to(2)[..], [SwarmMessage::Have { .. }, ..]));
}

#[test]
fn a_peer_that_left_may_come_back() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    assert!(!stage.asked().is_empty());
    let leave = SwarmMessage::Leave { reason: LeaveReason::NotHere };
    stage.tell(|swarm, now| swarm.handle_message(now, peer_id(1), leave));
    assert!(!stage.cancelled().is_empty());
    assert_eq!(stage.status().unavailable, run(0..PIECES * 4));
    stage.join(1, 0..PIECES);
    assert!(!stage.asked().is_empty());
    // A lost connection can't be cancelled on, and is dialled again.
    stage.tell(|swarm, now| swarm.handle_disconnected(now, peer_id(1)));
    assert!(stage.cancelled().is_empty());
    stage.pass(Duration::from_secs(2));
    assert_eq!(stage.dialled(), [1]);
}

#[test]
fn a_join_into_the_void_is_healed_by_the_other_side() {
    let mut mesh = Mesh::new(Setting::calm(5, 8 << 20));
    let data = mesh.data.clone();
    mesh.add_host(1 << 20, data);
    mesh.add_host(1 << 20, ChunkSet::empty(&mesh.geometry));
    mesh.start(0);
    // The publisher joins before the other's swarm exists.
    mesh.connect(0, 1);
    mesh.tell(0, |swarm, now| swarm.handle_connected(now, peer_id(1)));
    mesh.run_until(Duration::from_secs(1), |_| false);
    mesh.start(1);
    mesh.introduce(1, &[peer_id(0)]);
    assert!(mesh.run_until(Duration::from_secs(30), Mesh::all_complete));
}

#[test]
fn without_a_tracker_neighbours_introduce_each_other() {
    let mut mesh = Mesh::new(Setting::calm(6, 16 << 20));
    let data = mesh.data.clone();
    mesh.add_host(12_500_000, data);
    for _ in 0..9 {
        mesh.add_host(12_500_000, ChunkSet::empty(&mesh.geometry));
    }
    // Each knows only the one before.
    for host in 0..10 {
        mesh.start(host);
    }
    for host in 1..10 {
        mesh.introduce(host, &[peer_id(host - 1)]);
    }
    mesh.run_until(Duration::from_secs(130), |_| false);
    assert!(mesh.all_complete());
    for host in &mesh.hosts {
        let peers = host.swarm.as_ref().expect("running").status().peers;
        let neighbours = peers.iter().filter(|peer| peer.connected).count();
        assert_eq!(neighbours, 9, "everybody knows everybody");
    }
}

#[test]
fn haves_are_bundled() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    stage.join(2, []);
    stage.said.retain(|output| matches!(output, Output::Request { .. }));
    let mut messages = 0;
    for _ in 0..100 {
        for asked in stage.asked() {
            stage.deliver(&asked);
        }
        stage.pass(Duration::from_millis(1));
        messages += stage.sent_to(2).len();
    }
    stage.pass(Duration::from_millis(100));
    messages += stage.sent_to(2).len();
    assert!(stage.swarm.is_complete());
    assert!((2..=15).contains(&messages), "{messages} messages about {PIECES} pieces");
}

#[test]
fn news_of_many_is_as_good_as_a_message_of_each() {
    let begin = || {
        let mut stage = Stage::leecher();
        stage.join(1, 0..4);
        stage.join(2, 2..6);
        stage
    };
    let (mut told, mut heard) = (begin(), begin());
    told.announce(1, [7, 8]);
    told.announce(2, [8, 9]);
    let pieces = |numbers: [u32; 2]| numbers.map(|number| heard.geometry.piece(number).expect("a piece"));
    let (first, second) = (pieces([7, 8]), pieces([8, 9]));
    let news = [(peer_id(1), &first[..]), (peer_id(2), &second[..]), (peer_id(3), &first[..])];
    heard.tell(|swarm, now| swarm.handle_news(now, news));
    assert_eq!(heard.said, told.said);
    assert_eq!(heard.swarm.status(), told.swarm.status());
}

#[test]
fn who_has_asked_for_all_that_it_may_wants_no_news() {
    let mut stage = Stage::new(0..0, SwarmConfig { sources_most: 1, ..config() });
    assert!(stage.swarm.wants_news(), "it has nothing to do");
    stage.join(1, 0..PIECES);
    assert!(!stage.swarm.wants_news());
    let before = stage.said.len();
    stage.join(2, 0..4);
    assert!(stage.asked().iter().all(|request| request.peer == 1), "of {before} outputs and more");
    assert!(!stage.swarm.wants_news());
}
