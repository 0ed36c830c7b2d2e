//! Stories of the answering side.

use core::time::Duration;

use super::super::{Refusal, ServeId, SwarmConfig};
use super::stage::{PIECES, Stage, config, run};

const PIECE_LEN: u64 = 256 << 10;

/// The piece that a peer was pointed to, if its request was refused so.
fn pointed_to(stage: &mut Stage) -> Option<u32> {
    match stage.refused().pop()?.1 {
        Refusal::Busy { retry_after, instead: Some(piece) } => {
            assert_eq!(retry_after, Duration::ZERO);
            Some(piece.number())
        }
        _ => None,
    }
}

fn finish(stage: &mut Stage, serve: ServeId) {
    stage.tell(|swarm, now| swarm.handle_served(now, serve, PIECE_LEN));
}

#[test]
fn every_piece_is_handed_out_once_before_any_twice() {
    let mut stage = Stage::seeder();
    stage.join(1, []);
    stage.join(2, []);
    let mut given = stage.pieces([]);
    let mut got = [given.clone(), given.clone(), given.clone()];
    // Both ask for the same pieces in the same order; the second is pointed elsewhere until everything is out.
    for wanted in 0..PIECES {
        for peer in [1, 2] {
            if got[peer].contains(stage.piece(wanted)) {
                continue;
            }
            let serve = stage.request(peer, wanted);
            let served = match pointed_to(&mut stage) {
                None => (serve, wanted),
                Some(instead) => (stage.request(peer, instead), instead),
            };
            assert_eq!(stage.served(), [served.0], "what it was pointed to is served");
            finish(&mut stage, served.0);
            let was_full = given.is_full();
            got[peer].insert(stage.piece(served.1));
            let is_new = given.insert(stage.piece(served.1));
            assert!(is_new || was_full, "piece {} is handed out again while others wait", served.1);
        }
    }
    assert!(given.is_full());
}

#[test]
fn a_peer_that_insists_is_served() {
    let mut stage = Stage::seeder();
    stage.join(1, []);
    stage.join(2, []);
    stage.request(1, 5);
    stage.served();
    for _ in 0..2 {
        stage.request(2, 5);
        assert!(pointed_to(&mut stage).is_some());
    }
    let serve = stage.request(2, 5);
    assert_eq!(stage.served(), [serve]);
}

#[test]
fn a_lone_peer_gets_everything_in_its_own_order() {
    let mut stage = Stage::seeder();
    stage.join(1, []);
    for piece in 0..PIECES {
        let serve = stage.request(1, piece);
        assert_eq!(stage.served(), [serve]);
        finish(&mut stage, serve);
    }
}

#[test]
fn what_a_laggard_takes_is_still_to_be_handed_out() {
    let mut stage = Stage::seeder();
    stage.join(1, 0..20);
    stage.join(2, []);
    stage.join(3, 0..18);
    let serve = stage.request(2, 30);
    assert_eq!(stage.served(), [serve]);
    let serve = stage.request(3, 30);
    assert_eq!(stage.served(), [serve], "the laggard will not have it soon");
    stage.request(1, 30);
    assert!(pointed_to(&mut stage).is_some(), "this one will");
    let serve = stage.request(2, 30);
    assert_eq!(stage.served(), [serve], "a laggard is not pointed elsewhere");
}

#[test]
fn a_piece_whose_taker_vanished_is_fresh_again() {
    let mut stage = Stage::seeder();
    stage.join(1, []);
    stage.join(2, []);
    stage.request(1, 5);
    stage.served();
    stage.tell(|swarm, now| swarm.handle_disconnected(now, super::mesh::peer_id(1)));
    let serve = stage.request(2, 5);
    assert_eq!(stage.served(), [serve]);
}

#[test]
fn beyond_the_slots_peers_are_told_busy_at_once() {
    let mut stage = Stage::new(0..PIECES * 4, SwarmConfig { upload_slots: 2, ..config() });
    for peer in 1..5 {
        stage.join(peer, [30]);
    }
    for peer in 1..5 {
        stage.request(peer, peer as u32);
    }
    assert_eq!(stage.served().len(), 2);
    let refused = stage.refused();
    assert_eq!(refused.len(), 2);
    assert!(matches!(refused[0].1, Refusal::Busy { retry_after, instead: None } if !retry_after.is_zero()));
}

#[test]
fn one_more_slot_is_there_for_a_newcomer() {
    let mut stage = Stage::new(0..PIECES * 4, SwarmConfig { upload_slots: 1, ..config() });
    stage.join(1, [30]);
    stage.join(2, [31]);
    stage.join(3, []);
    stage.request(1, 1);
    stage.request(2, 2);
    assert_eq!((stage.served().len(), stage.refused().len()), (1, 1));
    stage.request(3, 3);
    assert_eq!(stage.served().len(), 1);
}

#[test]
fn a_slot_changes_hands_when_others_wait() {
    let mut stage = Stage::new(0..PIECES * 4, SwarmConfig { upload_slots: 1, ..config() });
    stage.join(1, [30]);
    stage.join(2, [31]);
    let (mut given, mut asked) = ([0u64; 3], 0u32);
    for _ in 0..200 {
        for peer in [1, 2] {
            asked += 1;
            stage.request(peer, asked % 30);
            if let Some(instead) = pointed_to(&mut stage) {
                stage.request(peer, instead);
            }
            for serve in stage.served() {
                finish(&mut stage, serve);
                given[peer] += PIECE_LEN;
            }
            stage.pass(Duration::from_millis(2));
        }
        stage.refused();
    }
    assert!(given[1] > 0 && given[2] > 0);
    let (low, high) = (given[1].min(given[2]), given[1].max(given[2]));
    assert!(high - low <= 16 << 20 && low * 2 >= high, "{given:?}");
}

#[test]
fn an_upload_limit_holds_for_everybody_together() {
    let limit = 1 << 20;
    let mut stage = Stage::new(0..PIECES * 4, SwarmConfig { upload_limit: Some(limit), ..config() });
    stage.join(1, []);
    stage.join(2, []);
    let (begun, mut sent, mut piece) = (stage.now, 0, 0);
    while stage.now.since(begun) < Duration::from_secs(5) {
        for peer in [1, 2] {
            piece = (piece + 1) % PIECES;
            stage.request(peer, piece);
        }
        stage.pass(Duration::from_millis(20));
        for serve in stage.served() {
            finish(&mut stage, serve);
            sent += PIECE_LEN;
        }
    }
    assert!((4 << 20..=6 << 20).contains(&sent), "{sent} bytes in 5 s at {limit} bytes per second");
}

#[test]
fn what_is_not_held_or_makes_no_sense_is_refused() {
    let mut stage = Stage::new(0..4, config());
    stage.join(1, []);
    let mut refused = |piece: u32, chunks: Vec<core::ops::Range<u32>>| {
        stage.tell(|swarm, now| swarm.handle_request(now, super::mesh::peer_id(1), ServeId(1), piece, chunks));
        stage.refused() == [(ServeId(1), Refusal::NotHeld)] && stage.served().is_empty()
    };
    assert!(refused(1, run(4..8)), "not held");
    assert!(refused(PIECES, run(0..1)), "no such piece");
    assert!(refused(0, vec![]), "nothing");
    assert!(refused(0, run(3..5)), "beyond the piece");
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = 2..1;
    assert!(refused(0, vec![backwards, 3..4]), "backwards");
    assert!(refused(0, vec![0..2, 1..3]), "overlapping");
    assert!(refused(0, vec![0..1; 300]), "too many");
    assert!(refused(u32::MAX, run(0..u32::MAX)), "absurd");
}

#[test]
fn who_asks_too_much_is_told_busy() {
    let mut stage = Stage::seeder();
    stage.join(1, []);
    for turn in 0..1000 {
        stage.request(1, turn % PIECES);
    }
    assert_eq!(stage.served().len(), 2, "two at a time");
    assert!(stage.refused().len() > 900);
}

#[test]
fn who_only_takes_comes_after_everybody_else() {
    let mut stage = Stage::seeder();
    stage.join(1, []);
    stage.join(2, []);
    let mut given = [0; 3];
    for wanted in 0..PIECES {
        for peer in [1, 2] {
            let mut piece = wanted;
            stage.request(peer, piece);
            if let Some(instead) = pointed_to(&mut stage) {
                piece = instead;
                stage.request(peer, piece);
            }
            let served = stage.served();
            if let [serve] = served[..] {
                finish(&mut stage, serve);
                given[peer] += 1;
                // The second never tells what it has got.
                if peer == 1 {
                    stage.announce(1, [piece]);
                }
            }
        }
        stage.refused();
        stage.pass(Duration::from_millis(500));
    }
    assert!(given[1] == PIECES && given[2] <= PIECES / 4, "{given:?}");
    // Alone it is served all the same: it may have lost what it had.
    stage.pass(Duration::from_secs(1));
    stage.request(2, 0);
    assert_eq!(stage.served().len(), 1);
}
