//! The swarm with multicast beside it, from a scenario to an outcome.

use drover_sim::contender::Outcome;
use drover_sim::{Contender, Scenario};

const SMALL: &str = "image_mib = 64\nup_mbit_s = 100\ndown_mbit_s = 100\n";
/// What the image takes on a wire of 100 Mbit/s, without headers.
const COPY: f64 = 64.0 * (1 << 20) as f64 / 12_500_000.0;

fn hybrid(more: &str, seed: u64) -> Outcome {
    let scenario = Scenario::parse(&format!("{SMALL}{more}"), Some(seed)).expect("a scenario");
    let outcome = Contender::Hybrid.compete(&scenario).unwrap_or_else(|error| panic!("{more:?}, seed {seed}: {error}"));
    eprintln!("{more:?}, seed {seed}: last {:?} s, median {:?} s", outcome.last_seconds, outcome.median_seconds);
    assert_eq!(outcome.unfinished, None);
    outcome
}

fn copies(outcome: &Outcome) -> f64 {
    outcome.source_bytes as f64 / f64::from(64 << 20)
}

fn last_of(outcome: &Outcome, hosts: impl Iterator<Item = usize>) -> f64 {
    hosts.map(|host| outcome.hosts[host - 1].completed_seconds.expect("it is complete")).fold(0.0, f64::max)
}

#[test]
fn a_copy_is_sent_once_for_all() {
    for seed in 1..=3 {
        let outcome = hybrid("hosts = 30", seed);
        assert!(copies(&outcome) < 1.2, "{} copies", copies(&outcome));
        // A second goes to meeting, gathering and the first rises of the rate.
        assert!(last_of(&outcome, 1..=30) < 1.1 * COPY + 1.0);
    }
}

#[test]
fn what_gets_lost_the_swarm_mends() {
    // On the receivers' wires. What the source's loses, too, is lost for all: the swarm is better then.
    for loss in ["percent = 1.0", "percent = 3.0", "percent = 3.0, burst = 20.0"] {
        let outcome = hybrid(&format!("hosts = 15\nloss = {{ {loss}, hosts = 15 }}"), 1);
        assert!(last_of(&outcome, 1..=15) < 1.4 * COPY + 1.0);
        assert!(copies(&outcome) < 1.4, "{} copies", copies(&outcome));
    }
}

#[test]
fn a_slow_host_slows_nobody() {
    let alone = last_of(&hybrid("hosts = 14", 1), 1..=14);
    let slow = hybrid("hosts = 15\nother_rates = [{ hosts = 1, up_mbit_s = 20, down_mbit_s = 20 }]", 1);
    assert!(last_of(&slow, 1..=14) < 1.1 * alone, "{} s instead of {alone} s", last_of(&slow, 1..=14));
    assert!(last_of(&slow, 15..=15) < 1.25 * 5.0 * COPY);
}

#[test]
fn a_slow_disk_is_written_to_its_end() {
    let slow = "hosts = 8\nother_rates = [{ hosts = 1, up_mbit_s = 100, down_mbit_s = 100, disk_write_mbit_s = 50 }]";
    let outcome = hybrid(slow, 1);
    assert!(last_of(&outcome, 1..=7) < 1.2 * COPY + 1.0);
    let own = last_of(&outcome, 8..=8);
    assert!(own > 2.0 * COPY && own < 1.25 * 2.0 * COPY, "{own} s");
}

#[test]
fn when_the_sender_dies_the_swarm_goes_on() {
    let outcome = hybrid("hosts = 15\ndeaths = [{ host = 0, at_s = 2.5, back_at_s = 10.0 }]", 1);
    assert!(last_of(&outcome, 1..=15) < 10.0 + 1.3 * COPY);
}

#[test]
fn who_dies_stops_nobody_and_who_is_back_goes_on() {
    let outcome = hybrid("hosts = 15\ndeaths = [{ host = 3, at_s = 2.0, back_at_s = 4.0 }]", 1);
    assert!(last_of(&outcome, (1..=15).filter(|&host| host != 3)) < 1.2 * COPY + 1.0);
    assert!(last_of(&outcome, 3..=3) < 1.6 * COPY + 4.0);
}

#[test]
fn multicast_crosses_the_link_of_a_rack_once_and_ends_at_a_site() {
    let racks = hybrid("hosts = 15\nracks = 2\nrack_uplink_mbit_s = 100", 1);
    assert!((racks.rack_bytes[1] as f64) < 1.3 * f64::from(64 << 20), "{:?}", racks.rack_bytes);
    let sites = hybrid("hosts = 9\nsites = 2\nsite_uplink_mbit_s = 50\nsite_latency_ms = 20.0", 1);
    assert!((sites.rack_bytes[1] as f64) < 1.6 * f64::from(64 << 20), "{:?}", sites.rack_bytes);
}

#[test]
fn without_a_tracker_nobody_sends_to_all() {
    let dead = hybrid("hosts = 15\ntracker_deaths = [{ at_s = 1.0 }]", 1);
    assert!(last_of(&dead, 1..=15) < 1.4 * COPY + 1.0);
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let more = "hosts = 9\nloss = { percent = 1.0 }\ndeaths = [{ host = 2, at_s = 1.0, back_at_s = 3.0 }]";
    assert_eq!(hybrid(more, 5), hybrid(more, 5));
    assert_ne!(hybrid(more, 5), hybrid(more, 6));
}
