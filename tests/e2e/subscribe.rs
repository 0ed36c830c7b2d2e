//! A fleet that is fed by subscriptions: every release arrives by itself, the newest wins, old ones go when told.

use drover_harness::{Fleet, FleetOptions, LONG, TestImage, run, seed, wait_until};

#[test]
fn ten_subscribers_follow_three_releases_and_keep_what_clones_need() {
    let seed = seed("ten_subscribers_follow_three_releases_and_keep_what_clones_need");
    let settings = "subscribe = [\"golden\"]".to_owned();
    let fleet = Fleet::with(&FleetOptions { hosts: 10, settings });
    let images: Vec<TestImage> = (1..=3)
        .map(|version| {
            let path = fleet.path(&format!("v{version}.raw"));
            TestImage::make(&path, 24 << 20, 12 << 20, seed.wrapping_add(version))
        })
        .collect();

    fleet.publish(&images[0].path, "golden", &[]);
    for host in &fleet.hosts {
        images[0].assert_same(&host.wait_sealed("golden@1", LONG).path);
    }
    let keeper = &fleet.hosts[3];
    let out = fleet.path("clone.img");
    let create = ["clone", "create", "golden@1", "vm1", "--driver", "qcow2", "--out", out.to_str().expect("ASCII")];
    keeper.run(&create).ok();

    fleet.publish(&images[1].path, "golden", &[]);
    fleet.publish(&images[2].path, "golden", &[]);
    for host in &fleet.hosts {
        images[2].assert_same(&host.wait_sealed("golden@3", LONG).path);
        assert!(releases(host).contains(&"golden@1".to_owned()), "old versions stay until gc");
    }

    for host in &fleet.hosts {
        host.run(&["gc"]).ok();
        let expected: &[&str] = if host.name == keeper.name { &["golden@1", "golden@3"] } else { &["golden@3"] };
        assert_eq!(releases(host), expected, "{} after gc", host.name);
    }
    images[0].assert_same(&keeper.wait_sealed("golden@1", LONG).path);
}

/// Who holds a newer release back from a host can't keep up that the one it has is the newest.
#[test]
fn a_newest_release_that_has_expired_is_told_of_until_its_publisher_renews_it() {
    let seed = seed("a_newest_release_that_has_expired_is_told_of_until_its_publisher_renews_it");
    let settings = "subscribe = [\"golden\"]".to_owned();
    let fleet = Fleet::with(&FleetOptions { hosts: 2, settings });
    let image = TestImage::make(&fleet.path("v1.raw"), 1 << 20, 1 << 20, seed);
    fleet.publish(&image.path, "golden", &["--expires", "30s"]);
    let renew = |expires: &str| {
        let mut renew = fleet.hosts[0].command();
        run(renew.args(["renew", "golden", "--expires", expires, "--key"]).arg(fleet.publisher_key()))
    };
    for host in &fleet.hosts {
        image.assert_same(&host.wait_sealed("golden@1", LONG).path);
    }
    renew("5s").refused(&["good for longer already"]);
    let warnings = |host: &drover_harness::Host| host.status()["warnings"].to_string();
    for host in &fleet.hosts {
        wait_until("a warning", LONG, || warnings(host), |text| text.contains("the release golden@1 expired"));
    }
    renew("1d").ok();
    for host in &fleet.hosts {
        wait_until("no warning", LONG, || warnings(host), |text| text == "[]");
    }
}

fn releases(host: &drover_harness::Host) -> Vec<String> {
    let mut releases: Vec<String> =
        host.masters().into_iter().filter(|master| master.sealed).map(|master| master.release).collect();
    releases.sort();
    releases
}
