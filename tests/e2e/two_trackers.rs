//! A cluster with two trackers that know nothing of each other: hosts that name both need either.

use drover_harness::{Fleet, LONG, TestImage, run, seed};

#[test]
fn either_of_two_trackers_is_enough_and_hosts_carry_releases_between_them() {
    let seed = seed("either_of_two_trackers_is_enough_and_hosts_carry_releases_between_them");
    let mut fleet = Fleet::start(0);
    fleet.add_tracker();
    let trackers = [fleet.tracker_addr(), fleet.tracker_addr_at(1)];
    let both = format!("trackers = {trackers:?}");
    fleet.add_host(&both);
    fleet.add_host(&both);
    let first = TestImage::make(&fleet.path("v1.raw"), 8 << 20, 4 << 20, seed);
    let second = TestImage::make(&fleet.path("v2.raw"), 8 << 20, 4 << 20, !seed);

    let published = fleet.publish(&first.path, "golden", &[]);
    assert_eq!(taken_by(&published), trackers, "a release goes to every tracker");

    fleet.kill_tracker();
    let mut late = fleet.join_host_at(1, &format!("{both}\nsubscribe = [\"golden\"]"));
    late.start();
    first.assert_same(&late.wait_sealed("golden@1", LONG).path);
    fleet.hosts.push(late);

    let published = fleet.publish(&second.path, "golden", &[]);
    assert_eq!(taken_by(&published), [trackers[1].as_str()]);

    fleet.start_tracker();
    fleet.add_host(&format!("trackers = [{:?}]\nsubscribe = [\"golden\"]", trackers[0]));
    let newest = fleet.hosts.last().expect("just added").wait_sealed("golden@2", LONG);
    second.assert_same(&newest.path);
}

#[test]
fn a_token_counts_at_the_tracker_that_made_it() {
    let mut fleet = Fleet::start(0);
    let made_before = fleet.token("host");
    fleet.add_tracker();
    let host = fleet.join_host("");
    let join = |tracker: &str, token: &str| {
        let state = fleet.path("guest");
        let mut command = drover_harness::drover();
        run(command.arg("--state").arg(state).args(["join", tracker, token, "--name", "guest"]))
    };
    join(&fleet.tracker_addr_at(1), &made_before).refused(&["another one", "drover-tracker token"]);
    join(&fleet.tracker_addr(), &made_before).ok();
    assert!(host.state.join("identity").exists());
}

fn taken_by(published: &serde_json::Value) -> Vec<&str> {
    let trackers = published["taken_by"].as_array().expect("publish tells who took the release");
    trackers.iter().map(|tracker| tracker.as_str().expect("an address")).collect()
}
