//! The tracker introduces hosts; once they know each other it may die.

use std::time::Duration;

use drover_harness::{Fleet, FleetOptions, LONG, TestImage, run, seed, wait_until};

#[test]
fn losing_the_tracker_stops_no_transfer_and_loses_no_release() {
    let seed = seed("losing_the_tracker_stops_no_transfer_and_loses_no_release");
    let settings = "upload_limit = \"16MiB\"".to_owned();
    let mut fleet = Fleet::with(&FleetOptions { hosts: 4, settings });
    let image = TestImage::make(&fleet.path("disk.raw"), 128 << 20, 96 << 20, seed);
    let published = fleet.publish(&image.path, "golden", &[]);
    let id = published["image"].as_str().expect("publish tells the image id").to_owned();
    for host in &fleet.hosts[1..] {
        host.spawn_fetch("golden");
    }
    for host in &fleet.hosts[1..] {
        let held = || host.transfer(&id).map_or(0, |transfer| transfer["held_bytes"].as_u64().unwrap_or(0));
        wait_until("the transfer to be under way", LONG, held, |&held| held > 4 << 20);
    }

    fleet.kill_tracker();
    for host in &fleet.hosts[1..] {
        image.assert_same(&host.wait_sealed("golden@1", LONG).path);
    }

    fleet.start_tracker();
    fleet.add_host("subscribe = [\"golden\"]");
    let late = fleet.hosts.last().expect("just added");
    image.assert_same(&late.wait_sealed("golden@1", LONG).path);
}

#[test]
fn an_agent_that_starts_without_its_tracker_finds_it_later() {
    let seed = seed("an_agent_that_starts_without_its_tracker_finds_it_later");
    let mut fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 << 20, 4 << 20, seed);
    fleet.publish(&image.path, "golden", &[]);
    let mut late = fleet.join_host("subscribe = [\"golden\"]");
    fleet.kill_tracker();
    late.start();
    fleet.start_tracker();
    image.assert_same(&late.wait_sealed("golden@1", Duration::from_secs(60)).path);
}

#[test]
fn of_the_releases_made_while_no_tracker_lives_it_gets_the_newest() {
    let seed = seed("of_the_releases_made_while_no_tracker_lives_it_gets_the_newest");
    let mut fleet = Fleet::start(1);
    fleet.kill_tracker();
    let image = |version: u64| {
        let image = TestImage::make(&fleet.path(&format!("v{version}.raw")), 4 << 20, 4 << 20, seed + version);
        let mut publish = fleet.hosts[0].command();
        publish.arg("publish").arg(&image.path).args(["--name", "golden", "--key"]).arg(fleet.publisher_key());
        let published = run(&mut publish);
        assert_eq!(published.code, Some(6), "{published:#?}");
        image
    };
    let (_, newest) = (image(1), image(2));
    fleet.start_tracker();
    let log = || fleet.hosts[0].log();
    wait_until("the newest to be posted", LONG, log, |log| log.contains("release golden@2 taken by"));
    fleet.add_host("subscribe = [\"golden\"]");
    newest.assert_same(&fleet.hosts[1].wait_sealed("golden@2", LONG).path);
    let log = fleet.hosts[0].log();
    assert!(!log.contains("ERROR") && !log.contains("golden@1 taken"), "{log}");
}
