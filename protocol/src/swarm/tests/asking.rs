//! Stories of the asking side.

use std::collections::BTreeSet;

use core::time::Duration;

use super::super::{Misdeed, Output, RequestEnd, SwarmConfig};
use super::mesh::peer_id;
use super::stage::{Asked, PIECES, Stage, config, run};
use crate::have::WireHave;
use crate::hints::Source;
use crate::message::{LeaveReason, SwarmMessage};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lets peers send what they were asked for, chunk by chunk, one a round, until nothing is asked any more.
fn play(stage: &mut Stage, round: Duration, mut open: Vec<Asked>, sends: impl Fn(usize) -> bool) {
    for _ in 0..20_000 {
        open.extend(stage.asked());
        for (peer, request) in stage.cancelled() {
            open.retain(|asked| (asked.peer, asked.request) != (peer, request));
        }
        if stage.swarm.is_complete() {
            return;
        }
        let peers: BTreeSet<usize> = open.iter().map(|asked| asked.peer).filter(|&peer| sends(peer)).collect();
        for peer in peers {
            let Some(at) = open.iter().position(|asked| asked.peer == peer) else { continue };
            let (request, chunk) = (open[at].request, open[at].chunks.remove(0));
            let is_over = open[at].chunks.is_empty();
            if is_over {
                open.remove(at);
            }
            stage.deliver_chunk(request, chunk);
            if is_over {
                stage.end(request, RequestEnd::Done);
            }
        }
        stage.pass(round);
    }
    panic!("it never completes");
}

#[test]
fn what_few_hold_is_asked_for_first() {
    let mut stage = Stage::leecher();
    let common: Vec<u32> = (0..PIECES).filter(|piece| *piece != 23).collect();
    for peer in 1..4 {
        // Busy, so that they do not serve yet but are counted.
        stage.join(peer, common.clone());
        for asked in stage.asked() {
            stage.end(asked.request, RequestEnd::Busy { retry_after: ms(5000), instead: None });
        }
    }
    stage.asked();
    stage.join(4, common.into_iter().chain([23]).take(39));
    stage.join(5, [3, 23, 30]);
    let asked = stage.asked();
    assert_eq!(asked.iter().find(|asked| asked.peer == 5).map(|asked| asked.piece), Some(23));
}

#[test]
fn nobody_fetches_in_natural_order() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    let mut order = Vec::new();
    stage.deliver_all(|asked| order.push(asked.piece));
    assert!(stage.swarm.is_complete());
    let rising = order.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
    assert!(rising < order.len() / 2, "{order:?}");
}

#[test]
fn a_publisher_is_spared_once_most_others_are_done() {
    const PUBLISHER: usize = 1;
    let mut stage = Stage::leecher();
    stage.join(PUBLISHER, 0..PIECES);
    for peer in 2..=4 {
        stage.join(peer, []);
    }
    let first = stage.asked();
    assert!(!first.is_empty() && first.iter().all(|asked| asked.peer == PUBLISHER), "nobody else has anything");
    for peer in 2..=4 {
        stage.announce(peer, 0..PIECES);
    }
    for asked in first {
        stage.deliver(&asked);
    }
    let mut open = stage.asked();
    assert!(!open.is_empty() && open.iter().all(|asked| asked.peer != PUBLISHER), "three others are done: {open:?}");
    // It is no stranger, though: when the others give nothing, it is asked again.
    stage.pass(Duration::from_secs(1));
    open.extend(stage.asked());
    assert!(open.iter().any(|asked| asked.peer == PUBLISHER), "hungry, and asks nobody who could help");
}

#[test]
fn several_sources_share_a_piece_without_asking_twice() {
    let mut stage = Stage::leecher();
    stage.join(1, [5]);
    stage.join(2, [5]);
    let asked = stage.asked();
    let chunks: Vec<u32> = asked.iter().flat_map(|asked| asked.chunks.clone()).collect();
    let distinct: BTreeSet<u32> = chunks.iter().copied().collect();
    assert_eq!((chunks.len(), distinct.len()), (4, 4), "{asked:?}");
}

#[test]
fn a_reader_comes_first() {
    let mut stage = Stage::leecher();
    stage.join(1, (0..PIECES).filter(|piece| *piece != 35));
    let first = stage.asked();
    stage.tell(|swarm, now| swarm.handle_reader(now, 141..143));
    assert_eq!(stage.asked().len(), 0, "nobody has it yet");
    stage.announce(1, [35]);
    stage.deliver(&first[0]);
    assert_eq!(stage.asked()[0].chunks, [141, 142]);
}

#[test]
fn a_busy_peer_is_left_alone_and_others_are_asked_at_once() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    let asked = stage.asked();
    stage.join(2, 0..PIECES);
    stage.asked();
    for asked in &asked {
        stage.end(asked.request, RequestEnd::Busy { retry_after: ms(300), instead: None });
    }
    assert!(stage.asked().iter().all(|asked| asked.peer == 2));
    stage.pass(ms(290));
    assert!(stage.asked().iter().all(|asked| asked.peer == 2));
    stage.pass(ms(200));
    assert!(stage.asked().iter().any(|asked| asked.peer == 1), "after that it is asked again");
}

#[test]
fn what_a_peer_would_rather_hand_out_is_asked_for_at_once() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    let asked = stage.asked();
    let instead = (0..PIECES).find(|piece| asked.iter().all(|asked| asked.piece != *piece)).expect("a free piece");
    stage.end(asked[0].request, RequestEnd::Busy { retry_after: ms(0), instead: Some(instead) });
    assert_eq!(stage.asked()[0].piece, instead);
    // What makes no sense is not followed.
    stage.end(asked[1].request, RequestEnd::Busy { retry_after: ms(0), instead: Some(u32::MAX) });
}

#[test]
fn a_liar_is_banned_for_good_and_its_requests_go_elsewhere() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    let asked = stage.asked();
    stage.join(2, 0..PIECES);
    stage.asked();
    stage.deliver_chunk(asked[0].request, asked[0].chunks[0]);
    let wrong = asked[0].chunks[1];
    let chunk = stage.geometry.chunk(wrong).expect("a chunk");
    stage.tell(|swarm, now| swarm.handle_chunk_rejected(now, chunk, asked[0].request));
    let misdeed = Misdeed::WrongBytes { chunk: wrong };
    assert!(stage.said.contains(&Output::Ban { peer: peer_id(1), misdeed }));
    assert_eq!(stage.cancelled().len(), asked.len());
    assert_eq!(stage.status().banned, [(peer_id(1), misdeed)]);
    stage.said.clear();
    // It may come back as often as it likes.
    stage.tell(|swarm, now| swarm.handle_disconnected(now, peer_id(1)));
    stage.tell(|swarm, now| swarm.handle_candidates(now, Source::Tracker(0), &[peer_id(1)]));
    stage.join(1, 0..PIECES);
    stage.pass(ms(120_000));
    assert!(stage.dialled().is_empty() && stage.asked().iter().all(|asked| asked.peer != 1));
    assert_eq!(stage.sent_to(1), [SwarmMessage::Leave { reason: LeaveReason::Banned }]);
}

#[test]
fn blame_finds_the_sender_of_a_request_that_is_over() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    let asked = stage.asked();
    stage.end(asked[0].request, RequestEnd::Failed);
    let chunk = stage.geometry.chunk(asked[0].chunks[0]).expect("a chunk");
    stage.tell(|swarm, now| swarm.handle_chunk_rejected(now, chunk, asked[0].request));
    assert_eq!(stage.status().banned.len(), 1);
}

#[test]
fn a_peer_that_stalls_costs_two_seconds_at_most() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    stage.join(2, 0..PIECES);
    let begun = stage.now;
    play(&mut stage, ms(10), Vec::new(), |peer| peer == 1);
    // One peer that sends a chunk in 10 ms needs 1.6 s for 160 chunks.
    assert!(stage.now.since(begun) < ms(3600), "{:?}", stage.now.since(begun));
    assert_eq!(stage.completions(), 1);
}

/// Found by the simulator's seed 16179: while nothing came the host took its own link for ever slower, and the silence of the
/// last peer that it had asked for its own fault.
#[test]
fn the_last_request_is_asked_for_anew_when_nothing_comes_of_it() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    let (mut open, all) = (Vec::new(), (PIECES * 4) as usize);
    while stage.swarm.held().count() as usize + 1 < all {
        open.extend(stage.asked());
        let Asked { request, chunks, .. } = &mut open[0];
        stage.deliver_chunk(*request, chunks.remove(0));
        open.retain(|asked| !asked.chunks.is_empty());
        stage.pass(ms(200));
    }
    stage.asked();
    stage.join(2, 0..PIECES);
    stage.pass(ms(20_000));
    assert!(!stage.asked().is_empty(), "it waits for one peer as if there were no other");
}

#[test]
fn a_stall_of_this_hosts_disk_is_not_blamed_on_the_peers() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    stage.join(2, 0..PIECES);
    let asked = stage.asked();
    stage.pass(ms(4000));
    assert_eq!(stage.cancelled(), []);
    for asked in &asked {
        stage.deliver(asked);
    }
    assert!(stage.asked().len() >= 2, "both are asked on");
}

#[test]
fn a_peer_that_only_refuses_is_asked_less_and_less() {
    for end in [RequestEnd::Failed, RequestEnd::NotHeld, RequestEnd::Busy { retry_after: ms(0), instead: Some(9) }] {
        let mut stage = Stage::leecher();
        stage.join(1, 0..PIECES);
        let mut requests = 0;
        for _ in 0..10_000 {
            for asked in stage.asked() {
                requests += 1;
                stage.end(asked.request, end);
            }
            stage.pass(ms(1));
        }
        assert!((5..600).contains(&requests), "{end:?}: {requests} requests in ten seconds");
    }
}

#[test]
fn a_stalling_peer_is_given_another_chance_later() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    assert!(!stage.asked().is_empty());
    stage.pass(ms(2000));
    assert!(!stage.cancelled().is_empty());
    assert!(stage.asked().is_empty(), "it is left alone for a while");
    stage.pass(ms(6000));
    let asked = stage.asked();
    assert!(!asked.is_empty(), "and asked again");
    play(&mut stage, ms(10), asked, |_| true);
}

#[test]
fn at_the_end_a_slow_request_is_asked_for_twice_and_the_loser_cancelled() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    stage.join(2, 0..PIECES);
    let mut open = Vec::new();
    let mut round = 0;
    while !stage.swarm.is_complete() {
        round += 1;
        assert!(round < 3000, "it never completes");
        open.extend(stage.asked());
        for (_, cancelled) in stage.cancelled() {
            open.retain(|asked: &Asked| asked.request != cancelled);
        }
        // Peer 2 sends a chunk in 300 ms, peer 1 in 5 ms.
        for (peer, every) in [(1, 1), (2, 60)] {
            let Some(at) = open.iter().position(|asked| asked.peer == peer && round % every == 0) else { continue };
            let (request, chunk) = (open[at].request, open[at].chunks.remove(0));
            if open[at].chunks.is_empty() {
                open.remove(at);
            }
            stage.deliver_chunk(request, chunk);
        }
        stage.pass(ms(5));
    }
    // 160 chunks at 5 ms are 0.8 s; waiting for peer 2 to end what it began would be 1.2 s more.
    assert!(round < 220, "{round} rounds of 5 ms");
    assert!(stage.status().wasted_bytes <= 4 * 65536, "{}", stage.status().wasted_bytes);
    assert_eq!(stage.completions(), 1);
}

#[test]
fn what_comes_by_another_way_is_not_asked_for_any_more() {
    let mut stage = Stage::leecher();
    stage.join(1, [3]);
    let asked: Vec<Asked> = stage.asked();
    for number in 12..16 {
        let chunk = stage.geometry.chunk(number).expect("a chunk");
        stage.tell(|swarm, now| swarm.handle_chunk_stored(now, chunk, None));
    }
    assert_eq!(stage.cancelled().len(), asked.len());
    assert!(stage.swarm.holds_piece(stage.piece(3)));
    assert_eq!(stage.status().wasted_bytes, 0);
}

#[test]
fn a_paused_swarm_asks_nothing_and_goes_on_later() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    let asked = stage.asked();
    stage.tell(|swarm, now| swarm.set_paused(now, true));
    assert_eq!(stage.cancelled().len(), asked.len());
    stage.announce(1, 0..PIECES);
    stage.pass(ms(5000));
    assert!(stage.asked().is_empty());
    stage.tell(|swarm, now| swarm.set_paused(now, false));
    play(&mut stage, ms(1), Vec::new(), |_| true);
}

#[test]
fn while_another_way_brings_the_rest_only_what_it_missed_is_asked_for() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    let asked = stage.asked();
    stage.tell(|swarm, now| swarm.set_carried(now, true));
    assert_eq!(stage.cancelled().len(), asked.len());
    stage.pass(ms(5000));
    assert!(stage.asked().is_empty());
    let missed = [13, 14, 77].map(|number| stage.geometry.chunk(number).expect("a chunk"));
    stage.tell(|swarm, now| swarm.handle_missed(now, &missed));
    let asked = stage.asked();
    let chunks: BTreeSet<u32> = asked.iter().flat_map(|asked| asked.chunks.clone()).collect();
    assert_eq!(chunks, BTreeSet::from([13, 14, 77]));
    asked.iter().for_each(|asked| stage.deliver(asked));
    assert!(stage.asked().is_empty());
    stage.tell(|swarm, now| swarm.handle_reader(now, 141..143));
    assert_eq!(stage.asked()[0].chunks, [141, 142], "who waits does not wait for it");
    stage.tell(|swarm, now| swarm.set_carried(now, false));
    play(&mut stage, ms(1), Vec::new(), |_| true);
}

#[test]
fn a_way_that_brings_much_less_than_peers_did_is_not_relied_on() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    let mut open = stage.asked();
    for _ in 0..11 {
        stage.deliver(&open.remove(0));
        stage.pass(ms(100));
        open.extend(stage.asked());
    }
    stage.tell(|swarm, now| swarm.set_carried(now, true));
    let lacking: Vec<u32> = (0..PIECES * 4).filter(|&number| !held(&stage, number)).collect();
    for number in &lacking[..4] {
        let chunk = stage.geometry.chunk(*number).expect("a chunk");
        stage.tell(|swarm, now| swarm.handle_chunk_stored(now, chunk, None));
        assert!(stage.asked().is_empty(), "it is given a second");
        stage.pass(ms(300));
    }
    let chunk = stage.geometry.chunk(lacking[4]).expect("a chunk");
    stage.tell(|swarm, now| swarm.handle_chunk_stored(now, chunk, None));
    assert!(!stage.asked().is_empty());
}

/// Whether the stage's swarm holds the chunk with this number.
fn held(stage: &Stage, number: u32) -> bool {
    stage.geometry.chunk(number).is_some_and(|chunk| stage.swarm.held().contains(chunk))
}

#[test]
fn a_download_limit_holds() {
    let mut stage = Stage::new(0..0, SwarmConfig { download_limit: Some(1 << 20), ..config() });
    stage.join(1, 0..PIECES);
    let begun = stage.now;
    play(&mut stage, ms(5), Vec::new(), |_| true);
    let seconds = stage.now.since(begun).as_secs_f64();
    assert!((9.0..11.0).contains(&seconds), "10 MiB at 1 MiB/s took {seconds} s");
}

#[test]
fn what_nobody_holds_is_named_and_waited_for_quietly() {
    let mut stage = Stage::leecher();
    stage.join(1, (0..PIECES).filter(|piece| *piece != 7 && *piece != 8));
    stage.deliver_all(|_| {});
    assert_eq!(stage.status().unavailable, run(28..36));
    // After a second it says that it is stuck; then there is nothing to do.
    stage.pass(ms(1200));
    let quiet_until = stage.swarm.poll_timeout().expect("a timer");
    assert!(quiet_until.since(stage.now) > ms(1000), "nothing to do: {:?}", quiet_until.since(stage.now));
    stage.join(2, [7, 8]);
    assert_eq!(stage.status().unavailable, run(0..0));
    play(&mut stage, ms(1), Vec::new(), |_| true);
    assert_eq!(stage.completions(), 1);
}

#[test]
fn lost_chunks_are_taken_back_and_fetched_again() {
    let mut stage = Stage::leecher();
    stage.join(1, 0..PIECES);
    play(&mut stage, ms(1), Vec::new(), |_| true);
    stage.said.clear();
    let lost = [stage.geometry.chunk(17).expect("a chunk")];
    stage.tell(|swarm, now| swarm.handle_chunks_lost(now, &lost));
    let have = WireHave::of(&stage.pieces((0..PIECES).filter(|piece| *piece != 4)));
    assert!(stage.sent_to(1).contains(&SwarmMessage::Have { have }));
    assert!(!stage.swarm.is_complete());
    let asked = stage.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].chunks, [17]);
    stage.deliver(&asked[0]);
    assert_eq!(stage.completions(), 1);
}

#[test]
fn a_swarm_that_begins_complete_says_nothing() {
    let mut stage = Stage::seeder();
    assert!(stage.swarm.is_complete());
    stage.join(1, 0..PIECES);
    stage.pass(ms(60_000));
    assert_eq!(stage.completions(), 0);
}

#[test]
fn many_chunks_at_once_are_as_good_as_one_by_one() {
    let begin = || {
        let mut stage = Stage::leecher();
        stage.join(1, 0..2);
        stage
    };
    let (mut single, mut many) = (begin(), begin());
    let asked = single.asked();
    assert_eq!(asked.len(), many.asked().len());
    for Asked { request, chunks, .. } in &asked {
        for &number in chunks {
            let chunk = single.geometry.chunk(number).expect("a chunk");
            single.tell(|swarm, now| swarm.handle_chunk_stored(now, chunk, Some(*request)));
        }
        let runs: Vec<_> = crate::have::runs_of(chunks.iter().copied()).collect();
        many.tell(|swarm, now| swarm.handle_chunks_stored(now, &runs, Some(*request)));
    }
    assert_eq!(many.swarm.held(), single.swarm.held());
    let exchanged = |stage: &Stage| {
        let status = stage.swarm.status();
        (status.wasted_bytes, status.peers.iter().map(|peer| (peer.taken_bytes, peer.held_pieces)).collect::<Vec<_>>())
    };
    assert_eq!(exchanged(&many), exchanged(&single));
}
