//! Who may sign releases: publishers who join later, and hosts that trust some only.

use std::os::unix::fs::PermissionsExt;

use drover_protocol::codec;
use drover_protocol::id::{ContentHash, ImageId};
use drover_protocol::release::{RELEASE_FORMAT, Release};
use ed25519_dalek::SigningKey;

use drover_harness::{Fleet, FleetOptions, LONG, TestImage, drover, run, seed, tracker_program, wait_until};

#[test]
fn a_publisher_joins_with_a_key_of_its_own_that_all_hosts_come_to_trust() {
    let seed = seed("a_publisher_joins_with_a_key_of_its_own_that_all_hosts_come_to_trust");
    let settings = "subscribe = [\"golden\"]".to_owned();
    let mut fleet = Fleet::with(&FleetOptions { hosts: 1, settings: settings.clone() });
    let image = TestImage::make(&fleet.path("disk.raw"), 8 << 20, 4 << 20, seed);
    let mine = run(tracker_program().arg("publishers").arg("--state").arg(fleet.tracker_state())).ok();
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

/// A release that names one image, and gives the hash of another one's content.
fn misled(fleet: &Fleet, genuine: &TestImage, key: &std::path::Path) {
    let content = std::fs::read(&genuine.path).expect("it was made");
    let release = Release {
        format: RELEASE_FORMAT,
        name: "golden".parse().expect("a name"),
        version: 1,
        image: ImageId::from_bytes([7; 32]),
        content_len: content.len() as u64,
        content_hash: ContentHash::from_bytes(blake3::hash(&content).into()),
        created_unix_s: 0,
        expires_unix_s: u64::MAX,
    };
    let file = fleet.path("misleading.release");
    let signed = codec::encode(&release.sign(&SigningKey::from_bytes(&[7; 32]))).expect("a release");
    std::fs::write(&file, &signed).expect("written");
    let cosigned = run(drover().arg("cosign").arg(&file).arg("--key").arg(key).arg("--disk").arg(&genuine.path));
    cosigned.refused(&["is image", "nothing was signed"]);
    assert_eq!(std::fs::read(&file).expect("it is there"), signed);
}

/// Certificates are not renewed meanwhile.
#[test]
fn a_publisher_who_is_removed_counts_no_more_at_hosts_that_run() {
    let seed = seed("a_publisher_who_is_removed_counts_no_more_at_hosts_that_run");
    let fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 << 20, 4 << 20, seed);
    let second = fleet.path("second.key");
    let key = run(drover().arg("keygen").arg(&second)).ok();
    let change = |how: &str| {
        let mut change = tracker_program();
        run(change.arg("publishers").arg("--state").arg(fleet.tracker_state()).args([how, key.trim()])).ok()
    };
    let publish = || {
        let mut publish = fleet.hosts[0].command();
        run(publish.arg("publish").arg(&image.path).args(["--name", "silver", "--key"]).arg(&second))
    };
    publish().refused(&["do not trust"]);
    change("--add");
    wait_until("the host to trust the new publisher", LONG, publish, |published| published.code == Some(0));
    change("--remove");
    wait_until("the host to trust it no more", LONG, publish, |refused| refused.stderr.contains("do not trust"));
}

/// Somebody has one key, and a host of their own that asks for no more. The tracker is dead then.
fn one_key_alone(fleet: &mut Fleet, other: &TestImage, first: &std::path::Path) {
    let mut careless = fleet.join_host("");
    careless.start();
    fleet.hosts.push(careless);
    let mut publish_alone = fleet.hosts[3].command();
    publish_alone.arg("publish").arg(&other.path).args(["--name", "golden", "--version", "2", "--key"]).arg(first);
    run(&mut publish_alone).refused(&["1 of the 2 signatures", "no host was told"]);
    let untold = fleet.hosts[1].log();
    assert!(!untold.contains("golden@2"), "what the tracker refuses is told to nobody: {untold}");
    fleet.kill_tracker();
    assert_eq!(run(&mut publish_alone).code, Some(6), "hosts tell each other while no tracker answers");
    let why = || run(fleet.hosts[1].command().args(["fetch", "golden@2"])).stderr;
    wait_until("a host to hear of it and refuse it", LONG, why, |why| why.contains("1 of the 2 signatures"));
    assert!(fleet.hosts[..3].iter().all(|host| host.masters().len() == 1), "no host has it");
}

/// Hosts and tracker ask for two signatures; the second publisher is added while they run.
#[test]
fn a_release_reaches_hosts_that_ask_for_two_signatures_only_with_both() {
    let seed = seed("a_release_reaches_hosts_that_ask_for_two_signatures_only_with_both");
    let settings = "subscribe = [\"golden\"]\nsignatures = 2".to_owned();
    let mut fleet = Fleet::with_tracker(&FleetOptions { hosts: 3, settings }, "signatures = 2");
    let image = TestImage::make(&fleet.path("disk.raw"), 8 << 20, 4 << 20, seed);
    let other = TestImage::make(&fleet.path("other.raw"), 8 << 20, 4 << 20, seed + 1);
    let (first, second, held) = (fleet.publisher_key(), fleet.path("second.key"), fleet.path("golden.release"));
    let added = run(drover().arg("keygen").arg(&second)).ok();
    let warnings = fleet.hosts[1].status()["warnings"].to_string();
    assert!(warnings.contains("signatures asks for 2 publishers, and this host knows 1"), "{warnings}");
    let trust = run(tracker_program()
        .arg("publishers")
        .arg("--state")
        .arg(fleet.tracker_state())
        .arg("--add")
        .arg(added.trim()));
    trust.ok();
    for host in &fleet.hosts {
        let warnings = || host.status()["warnings"].to_string();
        wait_until("the hosts to be told of the second publisher", LONG, warnings, |told| !told.contains("signatures"));
    }
    let publish = |host: usize, image: &TestImage, more: &[&str]| {
        let mut publish = fleet.hosts[host].command();
        run(publish.arg("publish").arg(&image.path).args(["--name", "golden", "--key"]).arg(&first).args(more))
    };
    let hold = ["--hold", held.to_str().expect("ASCII")];
    let cosign = |more: &[&str]| run(drover().arg("cosign").arg(&held).arg("--json").args(more));
    let by = |key: &std::path::Path| ["--key".to_owned(), key.to_str().expect("ASCII").to_owned()];
    let post = || run(fleet.hosts[0].command().arg("post").arg(&held).arg("--key").arg(&first));

    publish(0, &image, &[]).refused(&["2 signatures", "--hold"]);
    assert!(fleet.hosts[0].masters().is_empty(), "it was refused before anything was read");
    publish(0, &image, &hold).ok();
    publish(0, &image, &hold).refused(&["golden.release", "overwritten"]);
    let kept = run(fleet.hosts[0].command().args(["gc", "--json"])).ok();
    assert!(kept.contains("held back"), "{kept}");
    post().refused(&["1 of the 2 signatures"]);

    let by_first = by(&first);
    cosign(&[&by_first[0], &by_first[1]]).ok();
    post().refused(&["1 of the 2 signatures"]);
    let by_second = by(&second);
    let checked = |disk: &TestImage| {
        let disk = disk.path.to_str().expect("ASCII");
        cosign(&[&by_second[0], &by_second[1], "--disk", disk])
    };
    checked(&other).refused(&["is image", "nothing was signed"]);
    post().refused(&["1 of the 2 signatures"]);
    misled(&fleet, &image, &second);
    let signed = checked(&image).last_json();
    assert_eq!(signed["publishers"].as_array().map(Vec::len), Some(2), "{signed}");
    let whole = std::fs::read(&held).expect("it is there");
    for at in [10, whole.len() - 10] {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        std::fs::write(&held, altered).expect("written");
        post().refused(&["golden.release"]);
    }
    std::fs::write(&held, &whole).expect("written");
    post().ok();
    for host in &fleet.hosts {
        image.assert_same(&host.wait_sealed("golden@1", LONG).path);
    }

    one_key_alone(&mut fleet, &other, &first);
    fleet.start_tracker();
    let reached = || fleet.hosts[0].log().matches("tracker reached").count();
    wait_until("the tracker to be back", LONG, reached, |&reached| reached == 2);

    // What both sign is believed, though somebody has seen another at this version.
    std::fs::remove_file(&held).expect("removed");
    let mut again = fleet.hosts[0].command();
    run(again.arg("publish").arg(&other.path).args(["--name", "golden", "--key"]).arg(&first).args(hold)).ok();
    cosign(&[&by_second[0], &by_second[1]]).ok();
    run(fleet.hosts[0].command().arg("post").arg(&held).arg("--key").arg(&first)).ok();
    for host in &fleet.hosts[..3] {
        other.assert_same(&host.wait_sealed("golden@2", LONG).path);
    }
    std::fs::remove_file(&held).expect("removed");
    run(fleet.hosts[0].command().args(["renew", "golden", "--expires", "700d", "--key"]).arg(&first))
        .refused(&["--hold"]);
    let mut renew = fleet.hosts[0].command();
    run(renew.args(["renew", "golden", "--expires", "700d", "--key"]).arg(&first).args(hold)).ok();
    cosign(&[&by_second[0], &by_second[1]]).ok();
    run(fleet.hosts[0].command().arg("post").arg(&held)).ok();
}
