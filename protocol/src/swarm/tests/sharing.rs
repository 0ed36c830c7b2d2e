//! Stories of hosts that have nobody to ask, and of what they tell each other then.

use core::time::Duration;

use super::super::{Misdeed, Output, RequestEnd, ServeId};
use super::fleet::seeds;
use super::mesh::{Mesh, Setting, peer_id};
use super::stage::{PIECES, Stage, config, run};
use crate::have::{ChunkSet, WireDelta};
use crate::message::SwarmMessage;
use crate::parts::{Parts, WireParts};
use crate::rng::Rng;

const RATE: u64 = 12_500_000;

/// What a stage's swarm told a peer of its parts: whether it was stuck, and the chunks.
fn told(stage: &mut Stage, peer: usize) -> Vec<(bool, Vec<u32>)> {
    let geometry = stage.geometry;
    let partials = stage.sent_to(peer).into_iter().filter_map(|message| match message {
        SwarmMessage::Partial { is_stuck, parts } => Some((is_stuck, parts.to_parts(&geometry).expect("our parts"))),
        _ => None,
    });
    let chunks = |parts: Parts| {
        let pieces: Vec<_> = parts.pieces().collect();
        pieces
            .into_iter()
            .flat_map(|piece| parts.chunks_of(&geometry, piece).map(|chunk| chunk.number()).collect::<Vec<_>>())
            .collect()
    };
    partials.map(|(is_stuck, parts)| (is_stuck, chunks(parts))).collect()
}

/// A peer tells which chunks it holds of pieces that it does not hold whole.
fn tell(stage: &mut Stage, peer: usize, is_stuck: bool, chunks: impl IntoIterator<Item = u32>) {
    let mut parts = Parts::default();
    for number in chunks {
        parts.insert(&stage.geometry, stage.geometry.chunk(number).expect("a chunk of the image"));
    }
    say(stage, peer, is_stuck, WireParts::of(&parts, &stage.geometry));
}

fn say(stage: &mut Stage, peer: usize, is_stuck: bool, parts: WireParts) {
    let message = SwarmMessage::Partial { is_stuck, parts };
    stage.tell(|swarm, now| swarm.handle_message(now, peer_id(peer), message));
}

#[test]
fn who_is_stuck_says_so_after_a_moment_and_once() {
    let mut stage = Stage::new(0..6, config());
    stage.join(1, [0]);
    assert_eq!(told(&mut stage, 1), []);
    stage.pass(Duration::from_millis(900));
    assert_eq!(told(&mut stage, 1), [], "the next announcement may be on its way");
    stage.pass(Duration::from_millis(200));
    assert_eq!(told(&mut stage, 1), [(true, vec![4, 5])]);
    stage.pass(Duration::from_secs(100));
    assert_eq!(told(&mut stage, 1), [], "nothing changed");
    // Who comes later is told, too.
    stage.join(2, []);
    stage.pass(Duration::from_millis(100));
    assert_eq!(told(&mut stage, 2), [(true, vec![4, 5])]);
    assert_eq!(told(&mut stage, 1), []);
}

#[test]
fn parts_are_asked_for_and_no_longer_unavailable() {
    let mut stage = Stage::new(0..2, config());
    stage.join(1, []);
    assert_eq!(stage.status().unavailable, run(2..PIECES * 4));
    tell(&mut stage, 1, true, [0, 3, 9, 11]);
    assert_eq!(stage.status().unavailable, [2..3, 4..9, 10..11, 12..PIECES * 4]);
    let mut asked = Vec::new();
    stage.deliver_all(|request| asked.extend(request.chunks.clone()));
    asked.sort_unstable();
    assert_eq!(asked, [3, 9, 11], "what it holds and this host lacks");
    // The next Partial replaces the one before.
    tell(&mut stage, 1, true, [2]);
    assert_eq!(stage.asked()[0].chunks, [2]);
    assert_eq!(stage.status().unavailable, [4..9, 10..11, 12..PIECES * 4]);
}

#[test]
fn a_host_that_is_not_stuck_answers_and_goes_on_telling_until_the_other_goes_on() {
    let mut stage = Stage::new(0..2, config());
    stage.join(1, []);
    stage.join(2, 0..PIECES);
    let asked = stage.asked();
    tell(&mut stage, 1, true, []);
    assert_eq!(told(&mut stage, 1), [(false, vec![0, 1])]);
    tell(&mut stage, 1, true, []);
    stage.pass(Duration::from_millis(100));
    assert_eq!(told(&mut stage, 1), [], "it was told");
    // After a pause what comes is told at once, then in bundles.
    let request = asked.iter().find(|asked| asked.piece != 0).expect("another piece");
    stage.deliver_chunk(request.request, request.chunks[0]);
    assert_eq!(told(&mut stage, 1), [(false, vec![0, 1, request.chunks[0]])]);
    stage.deliver_chunk(request.request, request.chunks[1]);
    assert_eq!(told(&mut stage, 1), [], "not a message a chunk");
    stage.pass(Duration::from_millis(60));
    assert_eq!(told(&mut stage, 1), [(false, [&[0, 1], &request.chunks[..2]].concat())]);
    // It announces a piece: it is stuck no more.
    stage.announce(1, [30]);
    let next = stage.asked().into_iter().find(|asked| asked.piece == request.piece).expect("the rest of the piece");
    stage.deliver_chunk(next.request, next.chunks[0]);
    stage.pass(Duration::from_millis(100));
    assert_eq!(told(&mut stage, 1), []);
    assert_eq!(told(&mut stage, 2), [], "nobody else was told anything");
}

#[test]
fn an_announced_piece_a_new_have_and_a_refusal_take_parts_back() {
    let mut stage = Stage::leecher();
    let unavailable = |stage: &Stage| stage.status().unavailable.iter().map(|run| run.end - run.start).sum::<u32>();
    let all = PIECES * 4;
    stage.join(1, []);
    tell(&mut stage, 1, true, [0, 4]);
    assert_eq!(unavailable(&stage), all - 2);
    stage.announce(1, [0]);
    assert_eq!(unavailable(&stage), all - 5, "the rest of the piece is there as well");
    let asked = stage.asked();
    let request = asked.iter().find(|asked| asked.piece == 1).expect("a part is asked for");
    stage.end(request.request, RequestEnd::NotHeld);
    assert_eq!(unavailable(&stage), all - 4, "it said something else");
    tell(&mut stage, 1, true, [4]);
    stage.join(1, [0]);
    assert_eq!(unavailable(&stage), all - 4, "it begins anew");
    tell(&mut stage, 1, true, [4]);
    stage.tell(|swarm, now| swarm.handle_disconnected(now, peer_id(1)));
    assert_eq!(unavailable(&stage), all);
}

#[test]
fn lost_chunks_of_parts_are_taken_back_where_they_were_told() {
    let mut stage = Stage::new(0..6, config());
    stage.join(1, [0]);
    stage.pass(Duration::from_secs(2));
    assert_eq!(told(&mut stage, 1), [(true, vec![4, 5])]);
    stage.join(2, 0..PIECES);
    stage.sent_to(2);
    let lost = stage.geometry.chunk(5).expect("a chunk");
    stage.tell(|swarm, now| swarm.handle_chunks_lost(now, &[lost]));
    assert!(matches!(stage.sent_to(1)[..], [SwarmMessage::Have { .. }]), "who was told is told anew");
    assert_eq!(stage.sent_to(2), [], "the other need not know");
}

#[test]
fn parts_of_pieces_in_progress_are_served() {
    let mut stage = Stage::new(0..2, config());
    stage.join(1, []);
    let mut ask = |serve, chunks| {
        stage.tell(|swarm, now| swarm.handle_request(now, peer_id(1), ServeId(serve), 0, chunks));
        stage.served().len()
    };
    assert_eq!(ask(1, run(0..2)), 1);
    assert_eq!(ask(2, run(1..3)), 0, "one of them is not held");
}

#[test]
fn parts_that_the_image_does_not_have_are_a_misdeed() {
    let wire = |pieces: &[(u32, u32)], chunks: &[u8]| WireParts {
        pieces: WireDelta(pieces.to_vec()),
        chunks: chunks.to_vec(),
    };
    for parts in [wire(&[(PIECES, 1)], &[1]), wire(&[(0, 2)], &[1]), wire(&[(3, 1)], &[0x10]), wire(&[(3, 1)], &[0])] {
        let mut stage = Stage::leecher();
        stage.join(1, []);
        say(&mut stage, 1, true, parts);
        let ban = Output::Ban { peer: peer_id(1), misdeed: Misdeed::BadHave };
        assert!(stage.said.contains(&ban));
    }
}

/// Hosts with these chunks, connected with each other; the first one is not started.
fn hosts(setting: Setting, stored: &[&dyn Fn(u32) -> bool]) -> Mesh {
    let mut mesh = Mesh::new(setting);
    for holds in stored {
        let mut chunks = ChunkSet::empty(&mesh.geometry);
        mesh.geometry.chunks().filter(|chunk| holds(chunk.number())).for_each(|chunk| {
            chunks.insert(chunk);
        });
        mesh.add_host(RATE, chunks);
    }
    for host in 1..mesh.hosts.len() {
        mesh.start(host);
    }
    mesh.introduce_all();
    mesh
}

#[test]
fn complementary_halves_of_every_piece_make_a_whole() {
    let mut setting = Setting::calm(1, 8 << 20);
    setting.piece_len = 1 << 20;
    let mut mesh = hosts(setting, &[&|_| true, &|chunk| chunk % 2 == 0, &|chunk| chunk % 2 == 1]);
    assert!(mesh.run_until(Duration::from_secs(5), Mesh::all_complete));
    assert!(mesh.hosts[1..].iter().all(|host| host.wasted_bytes == 0));
    // At most one message a have interval, and far fewer than chunks.
    assert!(mesh.partials <= 40, "{} messages", mesh.partials);
}

#[test]
fn what_nobody_has_is_the_same_for_all_and_they_are_quiet_until_somebody_has_it() {
    let mut setting = Setting::calm(2, 32 << 20);
    setting.piece_len = 8 << 20;
    setting.config.refresh_interval = Duration::from_secs(3600);
    let part = |host: u32| move |chunk: u32| chunk % 3 == host && chunk != 200;
    let mut mesh = hosts(setting, &[&|_| true, &part(0), &part(1), &part(2)]);
    mesh.run_until(Duration::from_secs(30), |_| false);
    for host in &mesh.hosts[1..] {
        let status = host.swarm.as_ref().expect("it runs").status();
        assert_eq!((status.unavailable, status.held_chunks), (run(200..201), 511));
    }
    let (partials, steps) = (mesh.partials, mesh.steps());
    mesh.run_until(Duration::from_secs(600), |_| false);
    assert_eq!(mesh.partials, partials);
    assert!(mesh.steps() - steps <= 200, "{} events at three hosts in ten idle minutes", mesh.steps() - steps);
    mesh.start(0);
    mesh.introduce_all();
    assert!(mesh.run_until(Duration::from_secs(5), Mesh::all_complete));
    assert!(mesh.hosts[0].sent_bytes <= 3 * (64 << 10), "only what was missing comes from it");
}

#[test]
fn a_healthy_swarm_speaks_of_whole_pieces_only() {
    for (piece_len, rate) in [(256 << 10, RATE), (4 << 20, RATE), (16 << 20, 10 * RATE)] {
        let mut setting = Setting::calm(3, 128 << 20);
        setting.piece_len = piece_len;
        let mut mesh = Mesh::fleet(setting, 7, rate);
        assert!(mesh.run_until(Duration::from_secs(100), Mesh::all_complete));
        assert_eq!(mesh.partials, 0, "pieces of {piece_len}");
    }
}

#[test]
fn hosts_that_know_few_others_still_agree_on_what_nobody_has() {
    for seed in seeds([31, 32]) {
        eprintln!("few neighbours: seed {seed}");
        let mut setting = Setting::calm(seed, 16 << 20);
        setting.piece_len = 2 << 20;
        (setting.config.neighbours_sought, setting.config.neighbours_most) = (3, 5);
        let mut mesh = Mesh::new(setting);
        let mut rng = Rng::seeded(seed);
        for _ in 0..12 {
            let mut chunks = ChunkSet::empty(&mesh.geometry);
            // Of 256 chunks each host has 24, of the first 250.
            (0..24).for_each(|_| {
                chunks.insert(mesh.geometry.chunk(rng.below(250)).expect("a chunk"));
            });
            mesh.add_host(RATE, chunks);
        }
        let union = mesh.union_of(0..12);
        (0..12).for_each(|host| mesh.start(host));
        mesh.introduce_all();
        mesh.run_until(Duration::from_secs(120), |_| false);
        for host in 0..12 {
            assert_eq!(mesh.hosts[host].stored, union, "host {host}");
            assert_eq!(mesh.unavailable(host), mesh.lacking(&union), "host {host}");
        }
    }
}
