//! What is not done, and what is said then: what, why, what to do. Nothing half-done stays behind.

use std::path::Path;
use std::time::Duration;

use drover_harness::{Fleet, LONG, Mount, TestImage, drover, run, seed, tracker_program, wait_until};

#[test]
fn tokens_work_once_and_only_as_they_are() {
    let fleet = Fleet::start(0);
    let tracker = fleet.tracker_addr();
    let state = |name: &str| fleet.path(name).to_str().expect("ASCII").to_owned();
    let join = |name: &str, token: &str| {
        run(drover().args(["--state", &state(name), "join", &tracker, token, "--name", name]))
    };

    let token = fleet.token("host");
    join("first", &token).ok();
    join("second", &token).refused(&["token", "used"]);
    assert!(!Path::new(&state("second")).join("identity/certificate.pem").exists(), "nothing half-done stays");

    let fresh = fleet.token("host");
    let at = fresh.len() - 3;
    let other = if &fresh[at..=at] == "a" { "b" } else { "a" };
    let mistyped = format!("{}{other}{}", &fresh[..at], &fresh[at + 1..]);
    join("third", &mistyped).refused(&["mistyped"]);
    join("third", &fresh).ok();
    join("third", &fleet.token("host")).refused(&["already"]);

    let short = fleet.token_with(&["--ttl", "1s"]);
    let expired = || join("fourth", &short).stderr.to_lowercase();
    std::thread::sleep(Duration::from_millis(1100));
    assert!(expired().contains("expired"));

    let elsewhere = Fleet::start(0);
    join("fifth", &elsewhere.token("host")).refused(&["pin"]);
    join("fifth", "nonsense").refused(&["token"]);
}

#[test]
fn a_tracker_is_not_made_on_a_port_that_leaves_none_for_its_node() {
    let fleet = Fleet::start(0);
    let state = fleet.path("last");
    let init = |port: u16, more: &[&str]| {
        let mut init = tracker_program();
        init.arg("init").arg("--state").arg(&state).args(["--listen", &format!("127.0.0.1:{port}")]);
        run(init.args(more))
    };
    let first = fleet.tracker_state();
    for more in [&[][..], &["--cluster", first.to_str().expect("ASCII")]] {
        init(65535, more).refused(&["127.0.0.1:65535", "DHT", "choose a lower one"]);
        assert!(!state.exists(), "nothing half-done stays");
    }
    init(65534, &[]).ok();
}

#[test]
fn releases_that_break_a_rule_are_refused() {
    let seed = seed("releases_that_break_a_rule_are_refused");
    let mut fleet = Fleet::start(2);
    let image = TestImage::make(&fleet.path("a.raw"), 1 << 20, 1 << 20, seed);
    let newer = TestImage::make(&fleet.path("b.raw"), 1 << 20, 1 << 20, !seed);
    let publish = |path: &Path, name: &str, key: &Path, more: &[&str]| {
        let mut command = fleet.hosts[0].command();
        command.arg("publish").arg(path).args(["--name", name, "--key"]).arg(key).args(more);
        run(&mut command)
    };

    let stranger = Fleet::start(0);
    publish(&image.path, "golden", &stranger.publisher_key(), &[]).refused(&["publisher", "trust"]);
    let key = fleet.publisher_key();
    publish(&image.path, "golden", &key, &["--version", "5"]).ok();
    publish(&newer.path, "golden", &key, &["--version", "4"]).refused(&["version", "5"]);
    publish(&newer.path, "golden", &key, &["--version", "5"]).refused(&["version"]);
    for name in ["Bad", "a b", "../up", "", ".hidden", &"x".repeat(65)] {
        publish(&image.path, name, &key, &[]).refused(&["name"]);
    }

    let empty = fleet.path("empty.raw");
    std::fs::write(&empty, b"").expect("a test's folder can be written");
    publish(&empty, "empty", &key, &[]).refused(&["empty"]);
    publish(&fleet.path("absent.raw"), "absent", &key, &[]).refused(&["absent.raw"]);
    let odd = TestImage::make(&fleet.path("odd.raw"), 1000, 1000, seed);
    let warned = publish(&odd.path, "odd", &key, &[]);
    assert!(warned.stderr.contains("512"), "a length that drivers must pad is worth a warning: {warned:#?}");
    warned.ok();

    publish(&image.path, "brief", &key, &["--expires", "1s"]).ok();
    std::thread::sleep(Duration::from_millis(1500));
    fleet.hosts[1].run(&["fetch", "brief"]).refused(&["expired"]);
    fleet.hosts[1].run(&["fetch", "unheard-of"]).refused(&["unheard-of"]);
    assert!(fleet.hosts[1].masters().iter().all(|master| !master.sealed));

    // A release that was accepted counts no more once its publisher is not trusted any more.
    let pinned = std::fs::read_to_string(stranger.tracker_state().join("publishers.json")).expect("the cluster has it");
    let pinned: Vec<String> = serde_json::from_str(&pinned).expect("a list of keys");
    fleet.hosts[1].set_settings(&format!("publishers = [{:?}]", pinned[0]));
    fleet.hosts[1].terminate();
    fleet.hosts[1].start();
    fleet.hosts[1].run(&["fetch", "golden"]).refused(&["publisher", "trust"]);
}

#[test]
fn a_state_folder_has_one_daemon_and_settings_have_no_unknown_keys() {
    let fleet = Fleet::start(1);
    let host = &fleet.hosts[0];
    host.run(&["daemon"]).refused(&["another", &host.agent().pid().to_string()]);

    let other = fleet.join_host("");
    other.set_settings("subscrib = [\"golden\"]");
    other.run(&["daemon"]).refused(&["subscrib", "drover.toml"]);
    run(drover().args(["--state", fleet.path("nobody").to_str().expect("ASCII"), "daemon"])).refused(&["join"]);
}

#[test]
fn other_formats_need_qemu_img_and_stand_alone() {
    let seed = seed("other_formats_need_qemu_img_and_stand_alone");
    let mut fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 << 20, 2 << 20, seed);
    let qcow2 = image.to_qcow2();
    let overlay = fleet.path("overlay.qcow2");
    let mut create = std::process::Command::new("qemu-img");
    run(create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&image.path).arg(&overlay)).ok();
    let key = fleet.publisher_key();
    let publish = |host: &drover_harness::Host, path: &Path| {
        run(host.command().arg("publish").arg(path).args(["--name", "golden", "--key"]).arg(&key))
    };
    publish(&fleet.hosts[0], &overlay).refused(&["backing"]);

    fleet.hosts[0].terminate();
    let nothing = fleet.dir().to_owned();
    fleet.hosts[0].start_with(&[("PATH", &nothing)]);
    publish(&fleet.hosts[0], &qcow2).refused(&["qemu-img", "qemu-utils"]);
    assert!(fleet.hosts[0].masters().is_empty());
    let left = std::fs::read_dir(fleet.hosts[0].state.join("incoming")).expect("the folder exists").count();
    assert_eq!(left, 0, "nothing half-done stays");
}

#[test]
fn a_disk_too_small_is_told_before_the_first_byte() {
    let seed = seed("a_disk_too_small_is_told_before_the_first_byte");
    let mut fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 64 << 20, 48 << 20, seed);
    fleet.publish(&image.path, "golden", &[]);

    let mut small = fleet.join_host("");
    let _disk = Mount::tmpfs_over(&small.state, 24 << 20);
    small.start();
    small.run(&["fetch", "golden"]).refused(&["free", "needs"]);
    let left = std::fs::read_dir(small.state.join("incoming")).expect("the folder exists").count();
    assert_eq!(left, 0, "nothing half-done stays");
    small.terminate();
    fleet.hosts[0].terminate();
}

#[test]
fn a_transfer_pauses_on_a_full_disk_and_goes_on_when_there_is_room() {
    let seed = seed("a_transfer_pauses_on_a_full_disk_and_goes_on_when_there_is_room");
    let settings = "upload_limit = \"8MiB\"".to_owned();
    let fleet = Fleet::with(&drover_harness::FleetOptions { hosts: 1, settings });
    let image = TestImage::make(&fleet.path("disk.raw"), 80 << 20, 64 << 20, seed);
    let id = fleet.publish(&image.path, "golden", &[])["image"].as_str().expect("an id").to_owned();

    let mut host = fleet.join_host("");
    // Without extents ext4 can't reserve room, so the disk can fill up under a transfer.
    let disk = Mount::ext4_over(&host.state, &fleet.path("disk.ext"), 128 << 20, "^has_journal,^extent,^64bit");
    host.start();
    host.spawn_fetch("golden");
    let held = || host.transfer(&id).map_or(0, |transfer| transfer["held_bytes"].as_u64().unwrap_or(0));
    wait_until("the transfer to be under way", LONG, held, |&held| held > 4 << 20);
    let filler = disk.fill();
    let phase = || host.transfer(&id).map(|transfer| transfer["phase"].to_string()).unwrap_or_default();
    wait_until("the transfer to pause", LONG, phase, |phase| phase.to_lowercase().contains("paused"));
    std::fs::remove_file(filler).expect("the filler is ours");
    image.assert_same(&host.wait_sealed("golden@1", LONG).path);
    host.terminate();
}

#[test]
fn a_transfer_pauses_on_a_disk_that_turns_read_only_and_goes_on_when_it_is_mended() {
    let seed = seed("a_transfer_pauses_on_a_disk_that_turns_read_only_and_goes_on_when_it_is_mended");
    let settings = "upload_limit = \"8MiB\"".to_owned();
    let fleet = Fleet::with(&drover_harness::FleetOptions { hosts: 1, settings });
    let image = TestImage::make(&fleet.path("disk.raw"), 80 << 20, 64 << 20, seed);
    let id = fleet.publish(&image.path, "golden", &[])["image"].as_str().expect("an id").to_owned();

    let mut host = fleet.join_host("");
    let disk = Mount::ext4_over(&host.state, &fleet.path("disk.ext"), 128 << 20, "^has_journal");
    host.start();
    host.spawn_fetch("golden");
    let held = || host.transfer(&id).map_or(0, |transfer| transfer["held_bytes"].as_u64().unwrap_or(0));
    wait_until("the transfer to be under way", LONG, held, |&held| held > 4 << 20);
    disk.turn_read_only();
    let phase = || host.transfer(&id).map(|transfer| transfer["phase"].to_string()).unwrap_or_default();
    wait_until("the transfer to pause", LONG, phase, |phase| phase.to_lowercase().contains("paused"));
    // Linux lets such a file system be written again only after it was unmounted.
    host.terminate();
    disk.mount_again();
    host.start();
    image.assert_same(&host.wait_sealed("golden@1", LONG).path);
    host.terminate();
}
