//! Certificates end: who renews in time stays, who was away for too long joins again.

use std::time::{SystemTime, UNIX_EPOCH};

use drover_harness::{Fleet, FleetOptions, Host, LONG, TestImage, seed, wait_until};

#[test]
fn a_host_stays_by_renewing_and_one_that_was_away_joins_again() {
    let seed = seed("a_host_stays_by_renewing_and_one_that_was_away_joins_again");
    let three = FleetOptions { hosts: 3, ..FleetOptions::default() };
    let mut fleet = Fleet::with_tracker(&three, "certificate_life = \"12s\"");
    let image = TestImage::make(&fleet.path("disk.raw"), 8 << 20, 4 << 20, seed);
    fleet.hosts[2].terminate();
    let ends: Vec<u64> = fleet.hosts[..2].iter().map(expires).collect();

    wait_until("the first certificates to be over", LONG, now, |&now| ends.iter().all(|&end| now > end + 1));
    for (host, &end) in fleet.hosts[..2].iter().zip(&ends) {
        assert!(expires(host) > end, "{} has renewed", host.name);
    }
    fleet.publish(&image.path, "golden", &[]);
    fleet.hosts[1].run(&["fetch", "golden"]).ok();
    image.assert_same(&fleet.hosts[1].wait_sealed("golden@1", LONG).path);

    fleet.hosts[2].start();
    let away = &fleet.hosts[2];
    let status = away.run(&["status"]).ok();
    assert!(status.contains("expired") && status.contains("drover join TRACKER TOKEN"), "{status}");
    let problem = || away.status()["trackers"][0]["problem"].to_string();
    wait_until("the tracker to refuse", LONG, problem, |problem| problem.contains("expired"));
    away.run(&["fetch", "golden"]).refused(&["golden"]);

    let peer = away.status()["peer"].clone();
    fleet.hosts[2].join(&fleet.tracker_addr(), &fleet.token("host")).ok();
    let listed = || away.run(&["fetch", "golden"]).code;
    wait_until("the running daemon to be a member again", LONG, listed, |&code| code == Some(0));
    image.assert_same(&away.wait_sealed("golden@1", LONG).path);
    assert_eq!(away.status()["peer"], peer, "it is the same member as before");
    away.join(&fleet.tracker_addr(), &fleet.token("host")).refused(&["already", "not expired"]);
}

#[test]
fn a_host_that_has_joined_does_not_keep_the_tracker_waiting() {
    let fleet = Fleet::with_tracker(&FleetOptions::default(), "log = \"info,drover_tracker=debug\"");
    fleet.join_host("");
    let log = || std::fs::read_to_string(fleet.path("tracker.log")).unwrap_or_default();
    let log = wait_until("the tracker to be done with it", LONG, log, |log| log.contains("joining is over"));
    assert!(log.contains("left=true") && !log.contains("took too long"), "{log}");
}

fn expires(host: &Host) -> u64 {
    host.status()["certificate_expires_unix_s"].as_u64().expect("status tells when the certificate ends")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}
