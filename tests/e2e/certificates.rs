//! Certificates end: who renews in time stays, who was away for too long joins again.

use std::time::{SystemTime, UNIX_EPOCH};

use drover_harness::{Fleet, FleetOptions, Host, LONG, TestImage, run, seed, tracker_program, wait_until};

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

/// Each step waits for what an administrator would wait for; the release after it shows that everybody is still a member.
#[test]
fn a_cluster_goes_over_to_another_ca_while_its_hosts_go_on() {
    let seed = seed("a_cluster_goes_over_to_another_ca_while_its_hosts_go_on");
    let settings = "subscribe = [\"golden\"]".to_owned();
    let mut fleet = Fleet::with_tracker(&FleetOptions { hosts: 3, settings }, "certificate_life = \"20s\"");
    fleet.hosts[2].terminate();
    let ca = |fleet: &Fleet, step: &[&str]| {
        let mut command = tracker_program();
        run(command.arg("ca").args(step).arg("--state").arg(fleet.tracker_state()))
    };
    let roots = |host: &Host| {
        let text = std::fs::read_to_string(host.state.join("identity/ca.pem")).expect("it has joined");
        text.split("-----BEGIN CERTIFICATE-----").skip(1).map(|one| one.trim().to_owned()).collect::<Vec<_>>()
    };
    let secret = |host: &Host| std::fs::read(host.state.join("cluster.secret")).unwrap_or_default();
    wait_until("a secret", LONG, || secret(&fleet.hosts[0]), |secret| !secret.is_empty());
    let (old, secret_before) = (roots(&fleet.hosts[0])[0].clone(), secret(&fleet.hosts[0]));

    ca(&fleet, &["switch"]).refused(&["no next CA"]);
    for (version, step) in [(1, "begin"), (2, "switch"), (3, "finish")] {
        let force: &[&str] = if step == "begin" { &[step] } else { &[step, "--force"] };
        if step != "begin" {
            // By hand it would be another 7 days.
            ca(&fleet, &[step]).refused(&["locked out"]);
        }
        ca(&fleet, force).ok();
        fleet.kill_tracker();
        fleet.start_tracker();
        for host in &fleet.hosts[..2] {
            let is_there = |roots: &Vec<String>| match step {
                "begin" => roots.len() == 2 && roots[0] == old,
                "switch" => roots.len() == 2 && roots[1] == old,
                _ => roots.len() == 1 && roots[0] != old,
            };
            wait_until(&format!("{} to renew after {step}", host.name), LONG, || roots(host), is_there);
        }
        let image = TestImage::make(&fleet.path(&format!("v{version}.raw")), 2 << 20, 1 << 20, seed + version);
        fleet.publish(&image.path, "golden", &[]);
        image.assert_same(&fleet.hosts[1].wait_sealed(&format!("golden@{version}"), LONG).path);
    }
    let status = ca(&fleet, &["status", "--json"]).json();
    assert_eq!(status["state"], "settled");
    assert_eq!(secret(&fleet.hosts[0]), secret_before, "the hash table goes on");

    let newcomer = fleet.add_host("subscribe = [\"golden\"]");
    newcomer.wait_sealed("golden@3", LONG);
    // One that missed all of it is told that this is not the CA that it knows, and comes in again as somebody new.
    let away = &mut fleet.hosts[2];
    std::fs::rename(away.state.join("identity"), away.state.join("identity.old")).expect("moved away");
    let (addr, token) = (fleet.tracker_addr(), fleet.token("host"));
    fleet.hosts[2].join(&addr, &token).ok();
    fleet.hosts[2].start();
    fleet.hosts[2].wait_sealed("golden@3", LONG);
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
