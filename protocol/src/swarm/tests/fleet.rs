//! What fleets of swarms achieve and survive. Everything random comes from a seed that is printed; `DROVER_SEED=n` runs
//! the random fleets with that seed alone.

use core::time::Duration;
use std::hash::{BuildHasher as _, Hasher as _};

use super::mesh::{Mesh, Setting, peer_id};
use crate::have::ChunkSet;
use crate::rng::Rng;
use crate::time::Instant;

const START: Instant = Instant::from_millis(1000);
/// 100 Mbit/s and 1 Gbit/s, in bytes per second.
const FAST_ETHERNET: u64 = 12_500_000;
const GIGABIT: u64 = 125_000_000;

/// What a fleet achieved: the last finisher over the bound for equal hosts, what the publisher sent and what came for
/// nothing, over the data.
struct Result {
    last: f64,
    publisher: f64,
    wasted: f64,
}

fn measure(name: &str, setting: Setting, leechers: usize, rate: u64) -> Result {
    let seed = setting.seed;
    let mut mesh = Mesh::fleet(setting, leechers, rate);
    assert!(mesh.run_until(Duration::from_secs(600), Mesh::all_complete), "{name}, seed {seed}: not complete");
    let last = mesh.hosts[1..].iter().filter_map(|host| host.completed_at).max().expect("leechers");
    let data = mesh.data_bytes() as f64;
    let fill = 1.0 + f64::from(leechers.ilog2()) / f64::from(mesh.geometry.piece_count());
    let result = Result {
        last: last.since(START).as_secs_f64() / (data / rate as f64 * fill),
        publisher: mesh.hosts[0].sent_bytes as f64 / data,
        wasted: mesh.hosts.iter().map(|host| host.wasted_bytes).sum::<u64>() as f64 / data / leechers as f64,
    };
    let Result { last, publisher, wasted } = result;
    eprintln!("{name}, seed {seed}: last {last:.3} of the bound, publisher {publisher:.3}, wasted {wasted:.4}");
    assert!(mesh.hosts[1..].iter().all(|host| host.completions == 1), "complete is said once");
    result
}

/// The seeds to run with: fixed ones and a fresh one, or the one that is asked for.
pub(super) fn seeds(fixed: impl IntoIterator<Item = u64>) -> Vec<u64> {
    #[allow(clippy::disallowed_methods)] // A test is its own driver.
    let wanted = std::env::var("DROVER_SEED").ok().and_then(|seed| seed.parse().ok());
    let fresh = std::hash::RandomState::new().build_hasher().finish() % 1_000_000;
    wanted.map_or_else(|| fixed.into_iter().chain([fresh]).collect(), |seed| vec![seed])
}

#[test]
fn eight_equal_hosts_finish_near_the_bound() {
    for seed in 1..4 {
        let result = measure("8 hosts", Setting::calm(seed, 128 << 20), 7, FAST_ETHERNET);
        assert!(result.last <= 1.06 && result.publisher <= 1.08 && result.wasted <= 0.002);
    }
}

#[test]
fn three_and_twenty_four_equal_hosts_finish_near_the_bound() {
    let few = measure("3 hosts", Setting::calm(1, 64 << 20), 2, FAST_ETHERNET);
    assert!(few.last <= 1.06 && few.publisher <= 1.05 && few.wasted <= 0.002);
    let many = measure("24 hosts", Setting::calm(1, 96 << 20), 23, FAST_ETHERNET);
    assert!(many.last <= 1.15 && many.publisher <= 1.15 && many.wasted <= 0.01);
}

#[test]
fn a_fast_fleet_spares_the_publisher() {
    for seed in 1..3 {
        let mut setting = Setting::calm(seed, 256 << 20);
        setting.latency = Duration::from_micros(200);
        let result = measure("6 hosts on a fast network", setting, 5, 500 << 20);
        assert!(result.publisher <= 1.15 && result.last <= 1.2 && result.wasted <= 0.01);
    }
}

#[test]
fn a_fleet_on_one_machine_spares_the_publisher() {
    for seed in seeds([1, 2, 3]) {
        let mut setting = Setting::calm(seed, 300 << 20);
        setting.is_one_machine = true;
        setting.latency = Duration::from_micros(300);
        let result = measure("6 hosts on one machine", setting, 5, 500 << 20);
        assert!(result.publisher <= 1.15 && result.wasted <= 0.01);
    }
}

#[test]
fn lost_packets_cost_little() {
    let mut setting = Setting::calm(3, 64 << 20);
    setting.loss = 0.1;
    let result = measure("8 hosts with loss", setting, 7, FAST_ETHERNET);
    assert!(result.last <= 1.2 && result.wasted <= 0.01);
}

#[test]
fn a_host_alone_with_the_publisher_gets_everything_once() {
    let result = measure("2 hosts", Setting::calm(4, 32 << 20), 1, GIGABIT);
    assert!(result.publisher == 1.0 && result.wasted == 0.0 && result.last <= 1.1);
}

#[test]
fn where_hosts_can_hardly_send_the_publisher_does() {
    let mut mesh = Mesh::fleet(Setting::calm(6, 64 << 20), 5, GIGABIT);
    for host in &mut mesh.hosts[1..] {
        host.up_rate = GIGABIT / 100;
    }
    assert!(mesh.run_until(Duration::from_secs(100), Mesh::all_complete));
    // All that is sent over all that can be sent.
    let bound = 5.0 * mesh.data_bytes() as f64 / (GIGABIT as f64 * 1.05);
    let took = mesh.now.since(START).as_secs_f64();
    eprintln!("hosts that can hardly send: {:.3} of the bound", took / bound);
    assert!(took <= 1.3 * bound);
}

#[test]
fn a_slow_host_slows_nobody_else() {
    let mut mesh = Mesh::fleet(Setting::calm(7, 64 << 20), 7, FAST_ETHERNET);
    (mesh.hosts[3].up_rate, mesh.hosts[3].down_rate) = (FAST_ETHERNET / 50, FAST_ETHERNET / 50);
    let others = |mesh: &Mesh| (1..8).all(|host| host == 3 || mesh.hosts[host].completed_at.is_some());
    assert!(mesh.run_until(Duration::from_secs(300), others));
    let ratio = mesh.now.since(START).as_secs_f64() / (mesh.data_bytes() as f64 / FAST_ETHERNET as f64);
    eprintln!("beside a slow host: {ratio:.3} of the bound");
    assert!(ratio <= 1.25);
    assert!(mesh.run_until(Duration::from_secs(600), Mesh::all_complete), "and the slow one completes, too");
    let alone = mesh.data_bytes() as f64 / (FAST_ETHERNET / 50) as f64;
    assert!(mesh.now.since(START).as_secs_f64() <= 1.1 * alone);
}

#[test]
fn a_late_host_takes_from_all_who_have_it() {
    let mut mesh = Mesh::fleet(Setting::calm(8, 64 << 20), 3, FAST_ETHERNET);
    assert!(mesh.run_until(Duration::from_secs(60), Mesh::all_complete));
    let late = mesh.add_host(FAST_ETHERNET * 3, ChunkSet::empty(&mesh.geometry));
    mesh.start(late);
    mesh.introduce_all();
    let begun = mesh.now;
    assert!(mesh.run_until(Duration::from_secs(60), Mesh::all_complete));
    let ratio = mesh.now.since(begun).as_secs_f64() / (mesh.data_bytes() as f64 / (FAST_ETHERNET * 3) as f64);
    eprintln!("a late host: {ratio:.3} of the bound");
    assert!(ratio <= 1.1);
}

#[test]
fn a_complete_fleet_is_quiet() {
    let mut mesh = Mesh::fleet(Setting::calm(5, 16 << 20), 7, GIGABIT);
    assert!(mesh.run_until(Duration::from_secs(60), Mesh::all_complete));
    mesh.run_until(Duration::from_secs(20), |_| false);
    let before = mesh.steps();
    mesh.run_until(Duration::from_secs(600), |_| false);
    let events = (mesh.steps() - before) / 8;
    assert!(events <= 300, "{events} events at each host in ten idle minutes");
}

#[test]
fn a_death_costs_two_seconds_at_most() {
    for (victim, at) in [(3, 2000), (5, 4000), (1, 5100)] {
        let mut mesh = Mesh::fleet(Setting::calm(9, 64 << 20), 7, FAST_ETHERNET);
        mesh.run_until(Duration::from_millis(at), |_| false);
        mesh.kill(victim);
        assert!(mesh.run_until(Duration::from_secs(100), Mesh::all_complete));
        // Alone 5.5 s; what the dead had and nobody else comes from the publisher again.
        let took = mesh.now.since(START);
        assert!(took < Duration::from_millis(7_600), "host {victim} died after {at} ms: {took:?}");
    }
}

#[test]
fn a_frozen_host_costs_two_seconds_at_most() {
    let mut mesh = Mesh::fleet(Setting::calm(10, 64 << 20), 7, FAST_ETHERNET);
    mesh.run_until(Duration::from_millis(3000), |_| false);
    mesh.hosts[4].is_frozen = true;
    assert!(mesh.run_until(Duration::from_secs(100), Mesh::all_complete));
    assert!(mesh.now.since(START) < Duration::from_millis(7_800), "{:?}", mesh.now.since(START));
}

#[test]
fn liars_are_banned_and_everybody_else_completes() {
    for seed in seeds([7, 8]) {
        eprintln!("liars: seed {seed}");
        let mut setting = Setting::calm(seed, 64 << 20);
        setting.zero_every = 3;
        let mut mesh = Mesh::fleet(setting, 7, FAST_ETHERNET);
        (mesh.hosts[2].lies, mesh.hosts[5].lies) = (0.1, 0.5);
        assert!(mesh.run_until(Duration::from_secs(100), Mesh::all_complete));
        let accused = mesh.hosts.iter().flat_map(|host| &host.banned);
        assert!(accused.clone().all(|(peer, _)| [peer_id(2), peer_id(5)].contains(peer)), "only liars are banned");
        assert!(accused.count() >= 2);
        assert!(mesh.hosts[2].swarm.as_ref().is_some_and(|swarm| swarm.status().banned.len() <= 1));
    }
}

#[test]
fn a_fleet_survives_its_publisher_once_everything_exists() {
    for seed in seeds([11, 12, 13, 14]) {
        // Pieces of 4 chunks, of 16 or of 64: the longer, the more there is of pieces that nobody holds whole.
        let piece_len = (256 << 10) << (seed % 3 * 2);
        eprintln!("dying publisher: seed {seed}, pieces of {piece_len}");
        let mut setting = Setting::calm(seed, 32 << 20);
        setting.piece_len = piece_len;
        let mut mesh = Mesh::fleet(setting, 5, FAST_ETHERNET);
        let dies_at = Duration::from_millis(u64::from(Rng::seeded(seed).below(4000)));
        mesh.run_until(dies_at, |_| false);
        mesh.kill(0);
        let alive = 1..mesh.hosts.len();
        let existed = mesh.union_of(alive.clone());
        let completes = mesh.run_until(Duration::from_secs(120), Mesh::all_complete);
        // What was on its way when the publisher died has come.
        let union = mesh.union_of(alive.clone());
        assert_eq!(existed.difference(&union).count(), 0);
        assert_eq!(completes, union == mesh.data, "everybody completes if and only if every chunk exists");
        // Each host holds all that exists, and says which part nobody has.
        for host in alive {
            assert_eq!(mesh.hosts[host].stored, union, "host {host} holds what any holds");
            assert_eq!(mesh.unavailable(host), mesh.lacking(&union), "host {host} names what nobody has");
        }
        if completes {
            continue;
        }
        let partials = mesh.partials;
        mesh.run_until(Duration::from_secs(300), |_| false);
        assert_eq!(mesh.partials, partials, "they are quiet while nothing changes");
        mesh.start(0);
        mesh.introduce_all();
        assert!(
            mesh.run_until(Duration::from_secs(120), Mesh::all_complete),
            "it completes when the publisher is back"
        );
    }
}

#[test]
fn hosts_that_die_and_come_back_complete() {
    for seed in seeds([21, 22, 23]) {
        eprintln!("deaths and returns: seed {seed}");
        let mut rng = Rng::seeded(seed);
        let mut setting = Setting::calm(seed, 32 << 20);
        setting.loss = 0.05;
        setting.death_noticed = Duration::from_millis(u64::from(rng.below(6000)));
        let hosts = 3 + rng.below(10) as usize;
        let mut mesh = Mesh::fleet(setting, hosts, FAST_ETHERNET / 2);
        for host in &mut mesh.hosts {
            let factor = u64::from(1 + rng.below(12));
            (host.up_rate, host.down_rate) = (host.up_rate / 4 * factor, host.down_rate / 4 * factor);
        }
        for _ in 0..12 {
            mesh.run_until(Duration::from_millis(u64::from(rng.below(900))), |_| false);
            let host = rng.below(mesh.hosts.len() as u32) as usize;
            if mesh.hosts[host].swarm.is_some() {
                mesh.kill(host);
            } else {
                mesh.start(host);
                mesh.introduce_all();
            }
        }
        for host in 0..mesh.hosts.len() {
            if mesh.hosts[host].swarm.is_none() {
                mesh.start(host);
            }
        }
        mesh.introduce_all();
        assert!(mesh.run_until(Duration::from_secs(200), Mesh::all_complete), "seed {seed}: not complete");
    }
}
