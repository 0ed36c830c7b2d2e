//! Who may sign releases: publishers who join later, and hosts that trust some only.

use std::os::unix::fs::PermissionsExt;

use drover_harness::{Fleet, FleetOptions, LONG, TestImage, run, seed, wait_until};

#[test]
fn a_publisher_joins_with_a_key_of_its_own_that_all_hosts_come_to_trust() {
    let seed = seed("a_publisher_joins_with_a_key_of_its_own_that_all_hosts_come_to_trust");
    let settings = "subscribe = [\"golden\"]".to_owned();
    let mut fleet = Fleet::with(&FleetOptions { hosts: 1, settings: settings.clone() });
    let image = TestImage::make(&fleet.path("disk.raw"), 8 << 20, 4 << 20, seed);
    let mine = run(drover_harness::tracker_program().arg("publishers").arg("--state").arg(fleet.tracker_state())).ok();
    let pinned = fleet.join_host(&format!("{settings}\npublishers = [{:?}]", mine.trim()));
    fleet.hosts.push(pinned);
    fleet.hosts[1].start();

    let mut studio = fleet.new_host("");
    let without = run(studio.command().arg("publish").arg(&image.path).args(["--name", "golden"]));
    without.refused(&["--key", "--role publisher"]);
    let token = fleet.token("publisher");
    studio.join(&fleet.tracker_addr(), &fleet.token("publisher").replace("drover-", "drover-x")).refused(&["token"]);
    assert!(!studio.state.join("identity").exists(), "nothing half-done stays");
    let joined = studio.join(&fleet.tracker_addr(), &token);
    let key = studio.state.join("identity/publisher.key");
    assert!(joined.stderr.contains(key.to_str().expect("ASCII")), "it says where the key is: {joined:#?}");
    joined.ok();
    assert_eq!(std::fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
    studio.start();
    fleet.hosts.push(studio);

    let studio = &fleet.hosts[2];
    run(studio.command().arg("publish").arg(&image.path).args(["--name", "golden"])).ok();
    image.assert_same(&fleet.hosts[0].wait_sealed("golden@1", LONG).path);
    fleet.add_host(&settings);
    image.assert_same(&fleet.hosts[3].wait_sealed("golden@1", LONG).path);

    let log = || fleet.hosts[1].log();
    wait_until("the host with pinned publishers to refuse", LONG, log, |log| log.contains("not one of the publishers"));
    assert!(fleet.hosts[1].masters().is_empty(), "who pins publishers trusts those only");
}
