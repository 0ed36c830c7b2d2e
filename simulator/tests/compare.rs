//! Contenders against closed forms, against each other, and through faults.

use std::path::Path;
use std::process::{Command, Output};

use drover_sim::compare::Row;
use drover_sim::contender::{CompareError, Outcome};
use drover_sim::{Comparison, Contender, Scenario};

const MIB: f64 = 1048576.0;
/// Sixteen MiB over 100 Mbit/s, in 128 pieces, without headers and latency.
const PLAIN: &str =
    "image_mib = 16\nup_mbit_s = 100\ndown_mbit_s = 100\nlatency_us = 0\nquantum_us = 1000\ngoodput = 1.0\n";
/// What one copy of it takes over one wire.
const COPY: f64 = 16.0 * MIB / 12_500_000.0;
const PIECES: f64 = 128.0;

fn compete(contender: Contender, more: &str) -> Outcome {
    let scenario = Scenario::parse(&format!("{PLAIN}{more}"), None).unwrap_or_else(|error| panic!("{more}: {error}"));
    contender.compete(&scenario).unwrap_or_else(|error| panic!("{contender}, {more}: {error}"))
}

fn last(contender: Contender, more: &str) -> f64 {
    let outcome = compete(contender, more);
    assert_eq!(outcome.unfinished, None, "{contender}, {more}");
    outcome.last_seconds.expect("somebody is complete")
}

fn assert_within_2_percent(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() <= 0.02, "{found} is not within 2 % of {expected}");
}

#[test]
fn one_server_takes_n_copies() {
    for hosts in [1, 7, 100, 3000] {
        for contender in [Contender::Nfs, Contender::Http] {
            let seconds = last(contender, &format!("hosts = {hosts}"));
            assert_within_2_percent(seconds, f64::from(hosts) * COPY);
        }
    }
}

#[test]
fn headers_cost_what_their_transport_takes() {
    let with_headers = PLAIN.replace("goodput = 1.0\n", "hosts = 4");
    let scenario = Scenario::parse(&with_headers, None).expect("a scenario");
    let last = |contender: Contender| contender.compete(&scenario).expect("an outcome").last_seconds.expect("a time");
    assert_within_2_percent(last(Contender::Nfs), 4.0 * COPY * 1514.0 / 1448.0);
    assert_within_2_percent(last(Contender::Multicast), COPY * 1514.0 / 1456.0);
}

#[test]
fn multicast_takes_one_copy_and_what_is_repeated() {
    assert_within_2_percent(last(Contender::Multicast, "hosts = 7"), COPY);
    assert_within_2_percent(last(Contender::Multicast, "hosts = 700"), COPY);
    // Each of seven loses 1 %: 1 + (1 - 0.99⁷) + (1 - 0.9999⁷) + …
    let repeated = 1.0 + (1.0 - 0.99f64.powi(7)) + (1.0 - 0.9999f64.powi(7));
    let lossy = compete(Contender::Multicast, "hosts = 7\nloss = { percent = 1.0, hosts = 7 }");
    assert_within_2_percent(lossy.last_seconds.expect("a time"), COPY * repeated);
    assert_within_2_percent(lossy.source_bytes as f64, 16.0 * MIB * repeated);
}

#[test]
fn so_many_answers_that_they_fill_the_senders_wire_set_the_rate_of_multicast() {
    // 10,000 answers of 64 bytes for each slice of 112 · 1,456.
    let answers = 10_000.0 * 64.0 / (112.0 * 1456.0);
    assert_within_2_percent(last(Contender::Multicast, "hosts = 10000"), COPY * answers);
}

#[test]
fn a_chain_fills_with_a_piece_for_each_host() {
    for hosts in [1, 2, 10, 500] {
        let seconds = last(Contender::Chain, &format!("hosts = {hosts}"));
        assert_within_2_percent(seconds, COPY * (1.0 + f64::from(hosts - 1) / PIECES));
    }
}

#[test]
fn a_tree_doubles_in_the_time_of_a_copy() {
    for (hosts, rounds) in [(1, 1.0), (2, 2.0), (3, 2.0), (4, 3.0), (1000, 10.0)] {
        assert_within_2_percent(last(Contender::Tree, &format!("hosts = {hosts}")), rounds * COPY);
    }
}

#[test]
fn the_bound_is_that_of_kumar_and_ross() {
    let bound = |more: &str| compete(Contender::Chain, more).bound_seconds;
    // The publisher's wire, the slowest host's wire, and what all wires send together.
    assert_within_2_percent(bound("hosts = 5\npublisher_up_mbit_s = 50"), 2.0 * COPY);
    let slow = "hosts = 5\nother_rates = [{ hosts = 1, up_mbit_s = 100, down_mbit_s = 25 }]";
    assert_within_2_percent(bound(slow), 4.0 * COPY);
    let weak = "hosts = 5\nother_rates = [{ hosts = 5, up_mbit_s = 10, down_mbit_s = 100 }]";
    assert_within_2_percent(bound(weak), 5.0 * COPY * 100.0 / 150.0);
}

#[test]
fn nobody_beats_the_bound_and_the_swarm_alone_is_near_it_with_slow_hosts() {
    let more = "hosts = 15\nother_rates = [{ hosts = 2, up_mbit_s = 10, down_mbit_s = 10 }]";
    let fast = |contender: Contender| {
        let outcome = compete(contender, more);
        let of_fast = outcome.hosts[..13].iter().filter_map(|host| host.completed_seconds);
        of_fast.fold(0.0, f64::max) / COPY
    };
    assert!(fast(Contender::P2p) < 1.5);
    assert!(fast(Contender::Multicast) > 9.9, "it waits for the slowest");
    assert!(fast(Contender::Nfs) > 10.0, "its server is shared");
}

#[test]
fn what_is_sent_is_what_comes() {
    let more = "hosts = 23\nracks = 3\nrack_oversubscription = 2.0\ndata_share = 0.5\narrive_within_s = 1.0";
    let data = 8 << 20;
    let outcome = |contender: Contender| compete(contender, more);
    for contender in [Contender::Nfs, Contender::Http] {
        let outcome = outcome(contender);
        assert_eq!((outcome.source_bytes, outcome.rack_bytes), (23 * data, vec![0, 8 * data, 8 * data]));
    }
    // A chain along racks crosses into each once.
    let chain = outcome(Contender::Chain);
    assert_eq!((chain.source_bytes, chain.rack_bytes), (data, vec![0, data, data]));
    let multicast = outcome(Contender::Multicast);
    assert_eq!((multicast.source_bytes, multicast.rack_bytes), (data, vec![0, data, data]));
    let tree = outcome(Contender::Tree);
    assert!(tree.rack_bytes.iter().sum::<u64>() < 16 * data, "holders prefer their rack: {:?}", tree.rack_bytes);
    let p2p = outcome(Contender::P2p);
    assert!(p2p.rack_bytes.iter().skip(1).all(|&bytes| bytes >= data && bytes < 23 * data));
}

#[test]
fn an_uplink_that_is_too_small_limits_one_server_and_no_chain() {
    let more = "hosts = 15\nracks = 2\nrack_uplink_mbit_s = 20\npublisher_up_mbit_s = 10000";
    // Eight copies into the other rack; one for a chain.
    assert_within_2_percent(last(Contender::Nfs, more), 8.0 * 5.0 * COPY);
    assert_within_2_percent(last(Contender::Chain, more), 5.0 * COPY * (1.0 + 1.0 / PIECES) + COPY * 14.0 / PIECES);
    assert_within_2_percent(last(Contender::Multicast, more), 5.0 * COPY);
}

#[test]
fn a_server_that_reads_its_disk_for_everybody_is_as_slow_as_the_disk() {
    let disk = "hosts = 4\npublisher_disk_mbit_s = 50\n";
    assert_within_2_percent(last(Contender::Nfs, disk), 4.0 * COPY);
    assert_within_2_percent(last(Contender::Nfs, &format!("{disk}publisher_cache_mib = 8")), 8.0 * COPY);
}

#[test]
fn nfs_goes_on_after_its_server_and_http_begins_again() {
    let more = format!("hosts = 2\ndeaths = [{{ host = 0, at_s = {COPY}, back_at_s = 100.0 }}]");
    assert_within_2_percent(last(Contender::Nfs, &more), 100.0 + COPY);
    assert_within_2_percent(last(Contender::Http, &more), 100.0 + 2.0 * COPY);
    let for_good = format!("hosts = 2\ndeaths = [{{ host = 0, at_s = {COPY} }}]");
    let stopped = compete(Contender::Nfs, &for_good);
    assert_eq!(stopped.last_seconds, None);
    assert!(stopped.unfinished.expect("a reason").contains("2 of 2 hosts are not complete: the server died at 1.34"));
    assert_within_2_percent(stopped.source_bytes as f64, 16.0 * MIB);
}

#[test]
fn a_dead_receiver_stops_multicast_until_it_is_dropped() {
    let dies = "hosts = 3\ndeaths = [{ host = 2, at_s = 1.0, back_at_s = 5.0 }]";
    let outcome = compete(Contender::Multicast, dies);
    assert_within_2_percent(outcome.last_seconds.expect("the others are complete"), 190.0 + COPY);
    assert_eq!(outcome.hosts[1].completed_seconds, None);
    assert!(outcome.unfinished.expect("it is back and incomplete").starts_with("1 of 3"));
    // Two that die within one wait cost hardly more than one.
    let two = "hosts = 3\ndeaths = [{ host = 2, at_s = 1.0 }, { host = 3, at_s = 1.1 }]";
    assert_within_2_percent(compete(Contender::Multicast, two).last_seconds.expect("host 1"), 190.1 + COPY);
    // Everybody waits for the last to come.
    assert_within_2_percent(last(Contender::Multicast, "hosts = 3\nlate = { hosts = 1, at_s = 9.0 }"), 9.0 + COPY);
}

#[test]
fn a_chain_ends_behind_a_dead_host_and_a_tree_goes_around_it() {
    let dies = "hosts = 6\ndeaths = [{ host = 3, at_s = 1.0 }]";
    let chain = compete(Contender::Chain, dies);
    let complete: Vec<bool> = chain.hosts.iter().map(|host| host.completed_seconds.is_some()).collect();
    assert_eq!(complete, [true, true, false, false, false, false]);
    assert!(chain.unfinished.expect("a reason").contains("broke at host 3"));
    let tree = compete(Contender::Tree, dies);
    assert_eq!(tree.unfinished, None);
    assert_eq!(tree.hosts.iter().filter(|host| host.completed_seconds.is_some()).count(), 5);
}

#[test]
fn multicast_and_only_multicast_ends_at_a_site() {
    let sites = "hosts = 5\nsites = 2\nsite_uplink_mbit_s = 50\nsite_latency_ms = 10.0";
    let multicast = compete(Contender::Multicast, sites);
    assert!(multicast.unfinished.expect("a reason").contains("3 of 5"));
    assert_within_2_percent(multicast.last_seconds.expect("a time"), COPY);
    for contender in [Contender::Nfs, Contender::Chain, Contender::Tree, Contender::P2p] {
        assert!(last(contender, sites) >= 2.0 * COPY);
    }
}

#[test]
fn machines_start_at_their_own_pace_until_they_fill_the_wire() {
    let vms = |hosts: u32| {
        let vms = "vms = { per_host = 2, boot_mib = 4.0, boot_s = 10.0, read_mbit_s = 1.0 }";
        compete(Contender::NfsOnDemand, &format!("hosts = {hosts}\n{vms}"))
    };
    assert_within_2_percent(vms(5).last_seconds.expect("a time"), 10.0);
    // 100 hosts with two machines of 4 MiB: 800 MiB over 100 Mbit/s.
    assert_within_2_percent(vms(100).last_seconds.expect("a time"), 50.0 * COPY);
    assert_eq!(vms(100).load_bytes_per_s, 200 * 125_000);
    let none = Scenario::parse(&format!("{PLAIN}hosts = 1"), None).expect("a scenario");
    let missing = Contender::NfsOnDemand.compete(&none);
    assert!(matches!(missing, Err(CompareError::Missing { what: "vms", .. })));
    assert!(!Contender::all(&none).contains(&Contender::NfsOnDemand));
}

const FAULTS: &str = "hosts = 9\nracks = 3\narrive_within_s = 1.0\nloss = { percent = 1.0 }
churn = { percent_per_min = 100.0, away_s = 2.0, until_s = 10.0 }";

#[test]
fn the_same_seed_gives_the_same_comparison() {
    let compare = |seed: u64| {
        let scenario = Scenario::parse(&format!("{PLAIN}{FAULTS}"), Some(seed)).expect("a scenario");
        let all = Contender::all(&scenario);
        Comparison::run("faults", &scenario, &all).unwrap_or_else(|error| panic!("seed {seed}: {error}"))
    };
    let first = compare(5);
    assert_eq!(first, compare(5));
    assert_ne!(first.outcomes, compare(6).outcomes);
}

#[test]
fn json_and_csv_say_what_the_table_says() {
    let scenario = Scenario::parse(&format!("{PLAIN}{FAULTS}"), None).expect("a scenario");
    let comparison = Comparison::run("faults", &scenario, &Contender::all(&scenario)).expect("a comparison");
    let json = serde_json::to_string(&comparison).expect("JSON");
    let back: Comparison = serde_json::from_str(&json).expect("the same");
    // Floats may be read as their next neighbours.
    let is_same =
        |one: Option<f64>, other: Option<f64>| one.zip(other).is_some_and(|(one, other)| (one - other).abs() < 1e-9);
    for (one, other) in comparison.outcomes.iter().zip(&back.outcomes) {
        assert_eq!(
            (one.contender, one.source_bytes, one.hosts.len()),
            (other.contender, other.source_bytes, other.hosts.len())
        );
        assert!(one.last_seconds == other.last_seconds || is_same(one.last_seconds, other.last_seconds));
    }
    assert_eq!(back.outcomes.len(), comparison.outcomes.len());
    let mut text = Vec::new();
    comparison.write_csv(&mut text, true).expect("CSV");
    let rows: Vec<Row> =
        csv::Reader::from_reader(text.as_slice()).deserialize().map(|row| row.expect("a row")).collect();
    assert_eq!(rows, comparison.rows().collect::<Vec<_>>());
    assert_eq!(rows.len(), comparison.outcomes.len() * 9);
    let table = comparison.to_string();
    assert!(comparison.outcomes.iter().all(|outcome| table.contains(&outcome.contender.to_string())));
}

#[test]
fn the_program_compares_and_writes_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("small.toml");
    std::fs::write(&path, format!("{PLAIN}hosts = 3")).expect("a file");
    let out = folder.path().join("out");
    let table = drover_sim(&[Path::new("compare"), &path, Path::new("--out")], &out);
    assert!(table.status.success(), "{}", String::from_utf8_lossy(&table.stderr));
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(
        ["nfs", "http", "multicast", "chain", "tree", "p2p", "hybrid"].iter().all(|name| table.contains(name)),
        "{table}"
    );
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("a file");
    let comparison: Comparison = serde_json::from_str(&read("small.json")).expect("JSON");
    assert_eq!(comparison.outcomes.len(), 7);
    assert_eq!(read("small.csv").lines().count(), 1 + 7 * 3);
    assert!(read("small.svg").contains("multicast"));

    let chosen = drover_sim(&["compare", "--contender", "chain", "--contender", "tree", "--csv"].map(Path::new), &path);
    assert_eq!(String::from_utf8_lossy(&chosen.stdout).lines().count(), 1 + 2 * 3);
    let unknown = drover_sim(&["compare", "--contender", "pigeons"].map(Path::new), &path);
    assert_eq!(unknown.status.code(), Some(2));
}

fn drover_sim(arguments: &[&Path], last: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drover-sim")).args(arguments).arg(last).output().expect("it runs")
}
