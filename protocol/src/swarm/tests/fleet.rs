//! What fleets of swarms achieve and survive.

use core::time::Duration;

use super::mesh::{Mesh, Setting};
use crate::time::Instant;

const START: Instant = Instant::from_millis(1000);
/// 100 Mbit/s in bytes per second.
const FAST_ETHERNET: u64 = 12_500_000;

/// Last finisher over the bound for equal hosts.
fn ratio(mesh: &Mesh, leechers: usize, rate: u64) -> f64 {
    let last = mesh.hosts[1..].iter().filter_map(|host| host.completed_at).max().expect("leechers");
    let fill = 1.0 + f64::from(leechers.ilog2()) / f64::from(mesh.geometry.piece_count());
    last.since(START).as_secs_f64() / (mesh.data_bytes() as f64 / rate as f64 * fill)
}

fn report(name: &str, seed: u64, mesh: &Mesh, leechers: usize, rate: u64) -> (f64, f64, f64) {
    let ratio = ratio(mesh, leechers, rate);
    let data = mesh.data_bytes() as f64;
    let publisher = mesh.hosts[0].sent_bytes as f64 / data;
    let wasted = mesh.hosts.iter().map(|host| host.wasted_bytes).sum::<u64>() as f64 / data / leechers as f64;
    let steps = mesh.steps();
    eprintln!(
        "{name} seed {seed}: last {ratio:.3} of the bound, publisher {publisher:.3}, wasted {wasted:.4}, {steps} steps"
    );
    (ratio, publisher, wasted)
}

#[test]
fn eight_equal_hosts_finish_near_the_bound() {
    for seed in 1..4 {
        let mut mesh = Mesh::fleet(Setting::calm(seed, 128 << 20), 7, FAST_ETHERNET);
        assert!(mesh.run_until(Duration::from_secs(100), Mesh::all_complete), "seed {seed}: not complete");
        let (ratio, publisher, wasted) = report("eight hosts", seed, &mesh, 7, FAST_ETHERNET);
        assert!(ratio <= 1.25 && publisher <= 1.15 && wasted <= 0.01);
    }
}

#[test]
fn a_fast_loopback_fleet_spares_the_publisher() {
    for seed in 1..4 {
        let mut setting = Setting::calm(seed, 256 << 20);
        setting.latency = Duration::from_micros(200);
        let mut mesh = Mesh::fleet(setting, 5, 500 << 20);
        assert!(mesh.run_until(Duration::from_secs(100), Mesh::all_complete), "seed {seed}: not complete");
        let (_, publisher, wasted) = report("fast fleet", seed, &mesh, 5, 500 << 20);
        assert!(publisher <= 1.3 && wasted <= 0.01);
    }
}

#[test]
fn a_liar_is_banned_and_everybody_completes() {
    let mut setting = Setting::calm(7, 64 << 20);
    setting.zero_every = 3;
    let mut mesh = Mesh::fleet(setting, 5, FAST_ETHERNET);
    mesh.hosts[2].lies = 0.1;
    assert!(mesh.run_until(Duration::from_secs(100), Mesh::all_complete));
    let bans: usize = mesh.hosts.iter().map(|host| host.banned.len()).sum();
    assert!(bans >= 1);
    report("a liar", 7, &mesh, 5, FAST_ETHERNET);
}

#[test]
fn a_death_costs_little() {
    let mut mesh = Mesh::fleet(Setting::calm(9, 128 << 20), 7, FAST_ETHERNET);
    mesh.run_until(Duration::from_secs(5), |_| false);
    mesh.kill(3);
    assert!(mesh.run_until(Duration::from_secs(100), Mesh::all_complete));
    assert!(mesh.now.since(START) < Duration::from_millis(13_500), "{:?}", mesh.now);
}
