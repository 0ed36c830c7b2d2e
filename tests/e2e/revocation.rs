//! A host that is shut out: by the tracker, by every agent, and also where no tracker answers.

use std::time::{Duration, Instant};

use drover_harness::{Fleet, FleetOptions, Host, LONG, TestImage, run, seed, tracker_program, wait_until};
use drover_link::config::LinkConfig;
use drover_link::endpoint::{Endpoint, Expect};
use drover_link::identity::Identity;

#[test]
fn a_revoked_host_is_cut_off_by_everybody_and_stays_out_without_a_tracker() {
    let seed = seed("a_revoked_host_is_cut_off_by_everybody_and_stays_out_without_a_tracker");
    let settings = "subscribe = [\"golden\"]\ndht = false".to_owned();
    let mut fleet = Fleet::with(&FleetOptions { hosts: 3, settings });
    let first = TestImage::make(&fleet.path("v1.raw"), 8 << 20, 4 << 20, seed);
    fleet.publish(&first.path, "golden", &[]);
    for host in &fleet.hosts {
        first.assert_same(&host.wait_sealed("golden@1", LONG).path);
    }
    let lost = peer(&fleet.hosts[1]);
    for host in [0, 2] {
        wait_until(
            "the host to be connected with",
            LONG,
            || connected(&fleet.hosts[host]),
            |peers| peers.contains(&lost),
        );
    }

    let began = Instant::now();
    let state = fleet.tracker_state();
    let revoked = run(tracker_program().args(["revoke", "host1", "--state"]).arg(&state)).ok();
    assert!(revoked.contains(&lost), "{revoked}");
    for host in [0, 2] {
        wait_until("the host to be cut off", LONG, || connected(&fleet.hosts[host]), |peers| !peers.contains(&lost));
    }
    wait_until(
        "the tracker to be lost to it",
        LONG,
        || problem(&fleet.hosts[1]),
        |problem| problem.contains("revoked"),
    );
    eprintln!("cut off by the tracker and both hosts after {:.1} s", began.elapsed().as_secs_f64());
    wait_until("nobody to talk to it", LONG, || connected(&fleet.hosts[1]), Vec::is_empty);

    let second = TestImage::make(&fleet.path("v2.raw"), 8 << 20, 4 << 20, !seed);
    fleet.publish(&second.path, "golden", &[]);
    second.assert_same(&fleet.hosts[2].wait_sealed("golden@2", LONG).path);
    let releases = |host: &Host| host.masters().into_iter().map(|line| line.release).collect::<Vec<_>>();
    assert_eq!(releases(&fleet.hosts[1]), ["golden@1"], "it hears of nothing new, and keeps what it has");

    // What was told is on the hosts' disks: no tracker is there to say it again.
    fleet.kill_tracker();
    for host in [0, 2] {
        fleet.hosts[host].kill();
        fleet.hosts[host].start();
    }
    fleet.hosts[1].terminate();
    let identity = Identity::load(&fleet.hosts[1].state.join("identity")).expect("it still has its certificate");
    for host in [0, 2] {
        let error = dial(&identity, &fleet.hosts[host]).expect_err("shut out");
        assert!(error.contains("revoked"), "{error}");
    }
    let other = Identity::load(&fleet.hosts[2].state.join("identity")).expect("a member");
    dial(&other, &fleet.hosts[0]).expect("who was not revoked is let in");

    // With a new key and a new token the machine is a member again.
    fleet.start_tracker();
    std::fs::rename(fleet.hosts[1].state.join("identity"), fleet.path("identity")).expect("moved away");
    let token = fleet.token("host");
    fleet.hosts[1].join(&fleet.tracker_addr(), &token).ok();
    fleet.hosts[1].start();
    second.assert_same(&fleet.hosts[1].wait_sealed("golden@2", LONG).path);
    assert_ne!(peer(&fleet.hosts[1]), lost);
    let members = run(tracker_program().args(["members", "--json", "--state"]).arg(&state)).json();
    assert_eq!(members["revoked"][0]["peer"], lost, "{members}");
    assert_eq!(members["members"].as_array().map(Vec::len), Some(3), "{members}");
    run(tracker_program().args(["revoke", "nobody", "--state"]).arg(&state)).refused(&["nobody", "members"]);
}

/// Who a host is connected with.
fn connected(host: &Host) -> Vec<String> {
    let hosts = host.status()["hosts"].as_array().cloned().unwrap_or_default();
    hosts.iter().filter_map(|other| other["peer"].as_str().map(str::to_owned)).collect()
}

fn peer(host: &Host) -> String {
    host.status()["peer"].as_str().expect("status tells who the host is").to_owned()
}

fn problem(host: &Host) -> String {
    host.status()["trackers"][0]["problem"].to_string()
}

/// Whether a host lets this identity in; the error says why not.
fn dial(identity: &Identity, host: &Host) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let patient = Duration::from_secs(20);
    let config = LinkConfig { connect_timeout: patient, handshake_timeout: patient, ..LinkConfig::default() };
    runtime.block_on(async {
        let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), identity, config).expect("an endpoint");
        let dialled = endpoint.connect(host.listen(), Expect::Host).await;
        dialled.map(drop).map_err(|error| error.to_string())
    })
}
