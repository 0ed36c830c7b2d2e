//! Multicast between real daemons, each in a network namespace of its own, on one bridge.

use std::time::Duration;

use drover_harness::{Fleet, LONG, TestImage, outer, seed, wait_until};
use serde_json::Value;

/// Slow enough that a session has begun long before peers could have brought everything.
const SETTINGS: &str = "multicast = \"on\"\nupload_limit = \"20MB\"\nsubscribe = [\"golden\"]";
const LEN: u64 = 64 << 20;

/// A fleet whose first host publishes, and so many others that want what it has.
fn fleet(receivers: usize, settings: &str) -> Fleet {
    let mut fleet = Fleet::wired();
    for _ in 0..=receivers {
        fleet.add_host(settings);
    }
    fleet
}

/// What a host's daemon says of multicast of the one image that it exchanges.
fn multicast(fleet: &Fleet, host: usize) -> Value {
    fleet.hosts[host].status()["transfers"][0]["multicast"].clone()
}

fn wait_all(fleet: &Fleet, hosts: impl Iterator<Item = usize>, image: &TestImage) {
    for host in hosts {
        image.assert_same(&fleet.hosts[host].wait_sealed("golden@1", LONG).path);
    }
}

#[test]
fn an_image_goes_to_all_at_once_and_the_swarm_brings_the_rest() {
    const TEST: &str = "multicast::an_image_goes_to_all_at_once_and_the_swarm_brings_the_rest";
    if !outer::runs_inside(TEST) {
        return;
    }
    let fleet = fleet(4, SETTINGS);
    // A tracker that has just started grants no lease for two seconds, in which peers bring up to 40 MB.
    let image = TestImage::make(&fleet.path("disk.raw"), 4 * LEN, 3 * LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..5, &image);
    for host in 1..5 {
        let status = multicast(&fleet, host);
        let brought = status["brought_bytes"].as_u64().unwrap_or(0);
        assert!(brought >= LEN, "host {host}: {status}");
    }
    let given = fleet.hosts[0].status()["transfers"][0]["given_bytes"].as_u64().unwrap_or(0);
    assert!(given < LEN, "to peers the source gave {given} bytes");
}

#[test]
fn where_multicast_is_blocked_everything_comes_by_the_swarm() {
    const TEST: &str = "multicast::where_multicast_is_blocked_everything_comes_by_the_swarm";
    if !outer::runs_inside(TEST) {
        return;
    }
    let fleet = fleet(3, SETTINGS);
    fleet.hosts.iter().for_each(|host| host.block_multicast());
    let image = TestImage::make(&fleet.path("disk.raw"), LEN, LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..4, &image);
    for host in 1..4 {
        let status = multicast(&fleet, host);
        assert_eq!(status["brought_bytes"], 0, "host {host}: {status}");
    }
}

#[test]
fn when_the_sender_is_killed_the_others_go_on() {
    const TEST: &str = "multicast::when_the_sender_is_killed_the_others_go_on";
    if !outer::runs_inside(TEST) {
        return;
    }
    let mut fleet = fleet(1, SETTINGS);
    let image = TestImage::make(&fleet.path("disk.raw"), LEN, LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..2, &image);
    // They begin together, or the first would have everything before there are enough of them.
    for _ in 0..4 {
        fleet.add_host(&SETTINGS.replace("subscribe = [\"golden\"]", ""));
    }
    fleet.hosts[2..].iter().for_each(|host| host.spawn_fetch("golden"));
    let senders = || (0..2).find(|&host| multicast(&fleet, host)["role"] == "sending");
    let sender = wait_until("one of the two to send", LONG, senders, Option::is_some).expect("just seen");
    let brought = || multicast(&fleet, 2)["brought_bytes"].as_u64().unwrap_or(0);
    wait_until("multicast to bring something", Duration::from_secs(20), brought, |&bytes| bytes > 8 << 20);
    fleet.hosts[sender].kill();
    wait_all(&fleet, 2..6, &image);
}

#[test]
fn a_host_that_has_it_off_takes_no_part() {
    const TEST: &str = "multicast::a_host_that_has_it_off_takes_no_part";
    if !outer::runs_inside(TEST) {
        return;
    }
    let mut fleet = fleet(3, SETTINGS);
    fleet.add_host(&SETTINGS.replace("\"on\"", "\"off\""));
    let image = TestImage::make(&fleet.path("disk.raw"), LEN, LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..5, &image);
    let status = multicast(&fleet, 4);
    assert_eq!((status["mode"].as_str(), status["packets"].as_u64()), (Some("off"), Some(0)), "{status}");
}
