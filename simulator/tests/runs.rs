//! Small worlds, from a scenario to a result.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use drover_sim::{Report, RunError, Scenario, run, run_as_far};

const SMALL: &str = "hosts = 7\nimage_mib = 64\nup_mbit_s = 100\ndown_mbit_s = 100\n";

fn scenario(more: &str, seed: u64) -> Scenario {
    Scenario::parse(&format!("{SMALL}{more}"), Some(seed)).expect("a scenario")
}

fn run_small(more: &str, seed: u64) -> Report {
    let report = run(&scenario(more, seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    eprintln!("{more:?}\n{report}");
    report
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let more =
        "racks = 3\narrive_within_s = 2.0\ndata_share = 0.7\ndeaths = [{ host = 2, at_s = 3.0, back_at_s = 5.0 }]";
    let (first, second) = (run_small(more, 5), run_small(more, 5));
    assert_eq!(first, second);
    assert_ne!(first.trace, run_small(more, 6).trace);
}

#[test]
fn equal_hosts_come_near_the_bound_and_spare_the_publisher() {
    for seed in 1..4 {
        let report = run_small("", seed);
        assert!(report.ratio >= 1.053, "faster than the wire");
        assert!(report.ratio <= 1.4 && report.publisher_sent_ratio <= 1.2);
        assert!((report.wasted_bytes as f64) < 0.02 * report.received_bytes as f64);
    }
}

#[test]
fn an_image_crosses_the_link_between_two_racks_about_once() {
    for seed in 1..4 {
        let report = run_small("racks = 2\nrack_uplink_mbit_s = 100", seed);
        assert!(report.rack_sent_ratios.iter().sum::<f64>() <= 1.2, "seed {seed}: {:?}", report.rack_sent_ratios);
        assert!(report.ratio <= 1.25 && report.publisher_sent_ratio <= 1.1, "seed {seed}");
    }
}

#[test]
fn zeros_cost_nothing() {
    let (whole, half) = (run_small("", 1), run_small("data_share = 0.5", 1));
    assert_eq!((whole.data_bytes, half.data_bytes), (64 << 20, 32 << 20));
    assert_eq!(half.received_bytes, 7 * (32 << 20));
    assert!(half.last_seconds < 0.7 * whole.last_seconds);
}

#[test]
fn two_hosts_are_one_transfer() {
    let report = run(&Scenario::parse(&SMALL.replace("hosts = 7", "hosts = 1"), None).unwrap()).unwrap();
    assert!(report.ratio < 1.15, "{report}");
    assert_eq!((report.hosts[0].peer_bytes, report.hosts[0].publisher_bytes), (0, 64 << 20));
}

#[test]
fn who_comes_back_goes_on_from_what_it_had() {
    let report = run_small("deaths = [{ host = 3, at_s = 4.0, back_at_s = 30.0 }]", 1);
    let host = report.hosts.iter().find(|host| host.host == 3).expect("it completes");
    assert!(host.seconds > 30.0 && host.seconds < 36.0, "{} s", host.seconds);
}

#[test]
fn who_is_back_before_its_death_was_noticed_is_connected_anew() {
    let report = run_small("deaths = [{ host = 3, at_s = 4.0, back_at_s = 5.0 }]", 1);
    let host = report.hosts.iter().find(|host| host.host == 3).expect("it completes");
    assert!(host.seconds < 9.0, "{} s", host.seconds);
}

#[test]
fn the_dead_are_not_waited_for_and_stop_nobody() {
    let report = run_small("deaths = [{ host = 3, at_s = 4.0 }, { host = 5, at_s = 2.0 }]", 1);
    assert_eq!(report.hosts.len(), 5);
    assert!(report.last_seconds < 12.0, "{} s", report.last_seconds);
}

#[test]
fn without_a_publisher_the_run_fails() {
    let lost = scenario("deaths = [{ host = 0, at_s = 1.0 }]\ndeadline_s = 60.0", 1);
    assert!(matches!(run(&lost), Err(RunError::Unfinished { unfinished: 7, hosts: 7, .. })));
}

#[test]
fn a_publisher_may_go_once_all_is_somewhere() {
    let report = run_small("publisher_up_mbit_s = 1000\ndeaths = [{ host = 0, at_s = 5.6 }]", 1);
    assert_eq!(report.hosts.len(), 7);
}

#[test]
fn a_swarm_that_has_met_needs_no_tracker_and_newcomers_wait_for_it() {
    let more = "late = { hosts = 1, at_s = 3.0 }\ntracker_deaths = [{ at_s = 1.0, back_at_s = 10.0 }]";
    let report = run_small(more, 1);
    let completed = |host: usize| report.hosts[host - 1].arrived_seconds + report.hosts[host - 1].seconds;
    assert!(completed(1) > 10.0 && completed(1) < 40.0, "{} s", completed(1));
    assert!((2..=7).all(|host| completed(host) < 10.0));
}

#[test]
fn what_is_lost_makes_it_slower_by_what_was_measured() {
    let (clean, lossy) = (run_small("", 1), run_small("loss = { percent = 3.0 }", 1));
    let factor = clean.last_seconds / lossy.last_seconds;
    assert!((0.6..0.72).contains(&factor), "0.66 of the rate is left, found {factor}");
}

#[test]
fn another_site_is_far_and_gets_the_image_about_once() {
    let sites = "sites = 2\nsite_uplink_mbit_s = 50\nsite_latency_ms = 20.0";
    let report = run_small(sites, 1);
    assert!(report.rack_received_ratios[1] >= 1.0 && report.rack_received_ratios[1] < 1.5, "{report}");
    let near = report.hosts.iter().filter(|host| host.host % 2 == 0).map(|host| host.seconds).fold(0.0, f64::max);
    assert!(near < report.last_seconds, "the publisher's site is first");
}

#[test]
fn whoever_is_complete_counts_although_others_never_are() {
    let lost = scenario("late = { hosts = 1, at_s = 30.0 }\ndeaths = [{ host = 1, at_s = 31.0, back_at_s = 99.0 }]", 1);
    let (report, unfinished) = run_as_far(&Scenario { deadline: Duration::from_secs(50), ..lost }).expect("a result");
    assert_eq!(report.hosts.len(), 6);
    assert!(matches!(unfinished, Some(RunError::Unfinished { unfinished: 1, first: 1, .. })));
}

#[test]
fn the_scenarios_that_come_with_it_are_read() {
    let files = |folder: PathBuf| std::fs::read_dir(folder).expect("a folder of scenarios");
    for file in files(scenarios()).chain(files(scenarios().join("large"))) {
        let path = file.expect("a file").path();
        if path.is_file() {
            Scenario::load(&path, None).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let text = std::fs::read_to_string(&path).expect("it was read before");
            assert!(text.starts_with("# "), "{} does not say what it shows", path.display());
        }
    }
}

#[test]
fn the_program_prints_results_and_fails_by_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let good = write("good.toml", &SMALL.replace("64", "4"));
    let table = drover_sim(&[Path::new("run"), &good]);
    assert!(table.status.success() && String::from_utf8_lossy(&table.stdout).contains("of the bound"));
    let json = drover_sim(&[Path::new("run"), &good, Path::new("--json")]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(report["hosts"].as_array().map(Vec::len), Some(7));

    let misspelt = write("misspelt.toml", &format!("{SMALL}host_count = 3\n"));
    let refused = drover_sim(&[Path::new("run"), &misspelt]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("host_count"));
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn drover_sim(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drover-sim")).args(arguments).output().expect("it runs")
}
