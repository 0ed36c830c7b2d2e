//! The check is checked: planted bugs are found. All of them, with as many seeds as it takes, by `check --planted`.

#![cfg(feature = "planted")]

use drover_protocol::planted::Bug;
use drover_sim::check::find;

#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::SkipDataSync, Bug::SkipVerify, Bug::DeltaOffByOne, Bug::NeverReleaseSlot, Bug::ForgetLost] {
        let found = find(bug, 1, 400);
        assert!(found.seeds.is_some(), "{bug:?} was not found");
        eprintln!("{bug:?}: {:?} seeds, {}", found.seeds, found.violation);
    }
}
