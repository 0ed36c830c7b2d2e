//! Stories about hosts in racks: what is asked over the link between them, and what is not.

use core::time::Duration;

use super::stage::{PIECES, Stage, config};
use crate::have::WireDelta;
use crate::message::SwarmMessage;

use super::super::{RequestEnd, SwarmConfig};
use super::mesh::peer_id;

const NEAR: usize = 1;
const FAR: usize = 2;

/// A host of rack "a", with a neighbour in it and one in rack "b".
fn stage() -> Stage {
    let mut stage = Stage::new(0..0, SwarmConfig { rack: Some("a".to_owned()), ..config() });
    for (peer, rack) in [(NEAR, "a"), (FAR, "b")] {
        stage.join(peer, []);
        say_rack(&mut stage, peer, rack);
    }
    stage.sent_to(NEAR);
    stage.pass(Duration::from_millis(200));
    stage
}

fn say_rack(stage: &mut Stage, peer: usize, rack: &str) {
    let message = SwarmMessage::Rack { rack: rack.to_owned() };
    stage.tell(|swarm, now| swarm.handle_message(now, peer_id(peer), message));
}

fn say_importing(stage: &mut Stage, peer: usize, pieces: impl IntoIterator<Item = u32>) {
    let pieces = WireDelta::of(stage.pieces(pieces).iter());
    stage.tell(|swarm, now| swarm.handle_message(now, peer_id(peer), SwarmMessage::Importing { pieces }));
}

#[test]
fn who_knows_its_rack_says_so() {
    let mut stage = Stage::new(0..0, SwarmConfig { rack: Some("a".to_owned()), ..config() });
    stage.join(NEAR, []);
    assert!(stage.sent_to(NEAR).contains(&SwarmMessage::Rack { rack: "a".to_owned() }));
    let mut stage = Stage::leecher();
    stage.join(NEAR, []);
    assert!(!stage.sent_to(NEAR).iter().any(|message| matches!(message, SwarmMessage::Rack { .. })));
}

#[test]
fn what_a_neighbour_in_the_rack_brings_in_or_holds_is_not_asked_for_over_the_link() {
    let mut stage = stage();
    say_importing(&mut stage, NEAR, [3]);
    stage.announce(FAR, [3]);
    stage.pass(Duration::from_secs(1));
    assert!(stage.asked().is_empty(), "it comes by the neighbour");
    stage.announce(NEAR, [3]);
    assert!(stage.asked().iter().all(|asked| asked.peer == NEAR && asked.piece == 3));
}

#[test]
fn a_promise_to_bring_in_a_piece_does_not_count_for_ever() {
    let mut stage = stage();
    say_importing(&mut stage, NEAR, [3]);
    stage.announce(FAR, [3]);
    stage.pass(Duration::from_secs(6));
    assert!(stage.asked().iter().any(|asked| asked.peer == FAR && asked.piece == 3));
}

#[test]
fn pieces_are_shared_out_in_the_rack_and_what_is_brought_in_is_told_there() {
    let mut stage = stage();
    stage.announce(FAR, 0..PIECES);
    let asked = stage.asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.peer == FAR));
    let told = stage.sent_to(NEAR).into_iter().rev().find_map(|message| match message {
        SwarmMessage::Importing { pieces } => Some(pieces.pieces(&stage.geometry).expect("pieces of the image")),
        _ => None,
    });
    let told: Vec<u32> = told.expect("it is told").into_iter().map(|piece| piece.number()).collect();
    assert!(asked.iter().all(|asked| told.contains(&asked.piece)));
    assert!(stage.sent_to(FAR).iter().all(|message| !matches!(message, SwarmMessage::Importing { .. })));

    // Of one that is not this host's share nothing is asked at the news, but at a look.
    let mut late = 0;
    for piece in 0..PIECES {
        let mut stage = self::stage();
        stage.announce(FAR, [piece]);
        if stage.asked().is_empty() {
            late += 1;
            stage.pass(Duration::from_millis(200));
            assert!(!stage.asked().is_empty(), "nobody else has begun with it");
        }
    }
    assert!((5..35).contains(&late), "{late} of {PIECES} pieces are the neighbour's");
}

#[test]
fn who_starves_asks_over_the_link_for_what_is_near_as_well() {
    let mut stage = stage();
    stage.announce(NEAR, 0..PIECES);
    stage.announce(FAR, 0..PIECES);
    for _ in 0..50 {
        for asked in stage.asked() {
            let end = RequestEnd::Busy { retry_after: Duration::from_secs(1), instead: None };
            if asked.peer == FAR {
                return;
            }
            stage.tell(|swarm, now| swarm.handle_request_ended(now, asked.request, end));
        }
        stage.pass(Duration::from_millis(100));
    }
    panic!("it waited for a neighbour that gives nothing");
}
