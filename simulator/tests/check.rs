//! Bad days in small numbers: what `.ci/run` does with 20,000 seeds.

use std::process::{Command, Output};

use drover_sim::check::{Fault, FaultCounts, SLOWER_MOST, crash_images, run_seed, slowdown};

/// Runs a seed, which must be as it must be.
fn survive(seed: u64) -> FaultCounts {
    let outcome = run_seed(seed, false);
    assert_eq!(outcome.violation, None, "drover-sim check --trace --seed {seed}");
    outcome.faults
}

#[test]
fn fleets_survive_whatever_happens_to_them_and_come_to_their_end() {
    let mut faults = FaultCounts::default();
    for seed in 1..=200 {
        faults.add_all(&survive(seed));
    }
    for fault in Fault::ALL {
        assert!(faults.of(fault) > 0, "{fault} did not happen in 200 seeds");
    }
}

/// Seeds that once failed, and for what. What they draw changes with the check; `src/check/tests.rs` tells those that were the
/// store's as stories, too.
const ONCE_FAILED: [(u64, &str); 7] = [
    (1, "a release whose folder could not be synced at first was forgotten after a crash"),
    (7, "a refused chunk was tried again without a pause while others waited to be made durable"),
    (63, "a seal that failed behind its move never came to its end once a chunk was lost"),
    (94, "a paused host that found chunks missing at its seal never asked for them"),
    (209, "a chunk that had come again was given up because of an old loss"),
    (5866, "a greedy host had the only upload slot for ever"),
    (7176, "taking back a seal that had removed its journal lost all of it"),
];

#[test]
fn seeds_that_once_failed_do_not_any_more() {
    for (seed, why) in ONCE_FAILED {
        assert_eq!(run_seed(seed, false).violation, None, "seed {seed} once failed: {why}");
    }
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in 300..310 {
        let (first, second) = (run_seed(seed, false), run_seed(seed, true));
        assert_eq!((&first.trace, first.events, &first.faults), (&second.trace, second.events, &second.faults));
        assert!(!second.log.is_empty() && first.log.is_empty());
    }
    assert_ne!(run_seed(300, false).trace, run_seed(301, false).trace);
}

#[test]
fn lies_about_where_hosts_are_slow_a_fleet_down_by_little() {
    for seed in 1..=4 {
        let fleet = slowdown(seed);
        assert_eq!(fleet.violation, None, "seed {seed}");
        assert!(fleet.ratio() <= SLOWER_MOST, "seed {seed}: {:.3}, {fleet:?}", fleet.ratio());
    }
}

#[test]
fn whatever_a_crash_leaves_claims_nothing_that_is_not_there() {
    let tried = crash_images(0..2);
    assert_eq!(tried.violations, Vec::<String>::new());
    assert!(tried.images > 2000 && tried.cuts > 100, "{tried:?}");
}

#[test]
fn the_program_prints_what_happened() {
    let counts = drover_sim(&["check", "--seeds", "3", "--seed", "7", "--twice", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&counts.stdout).expect("JSON");
    assert_eq!((report["seeds"].as_u64(), report["first_seed"].as_u64()), (Some(3), Some(7)));
    assert_eq!(report["violations"].as_array().map(Vec::len), Some(0));
    let trace = drover_sim(&["check", "--trace", "--seed", "7"]);
    assert!(String::from_utf8_lossy(&trace.stdout).contains("seed 7: as it must be"));
}

fn drover_sim(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_drover-sim")).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    output
}
