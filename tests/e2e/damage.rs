//! Bits that flip on a disk: found, named, kept from clones, and mended beside what running machines read.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use drover_harness::{Fleet, FleetOptions, Host, LONG, TestImage, run, seed, wait_until};

/// Which chunk is damaged: 64 KiB each.
const CHUNK: u64 = 21;

/// Flips one bit of a sealed master and leaves no other trace than the disk would.
fn flip(path: &Path) {
    let time = fs::metadata(path).and_then(|facts| facts.modified()).expect("the master");
    let (at, mut byte) = (CHUNK * 65536 + 777, [0]);
    File::open(path).and_then(|file| file.read_exact_at(&mut byte, at)).expect("its byte");
    write_at_time(path, at, &[byte[0] ^ 0x10], time);
}

/// Writes into a file as its administrator could, who sees to it that it looks sealed again.
fn write_into(path: &Path, at: u64, bytes: &[u8]) {
    // The clock of a file system is coarse.
    write_at_time(path, at, bytes, SystemTime::now() + Duration::from_secs(1));
}

/// Writes into a file whatever its mode, which stays, and gives it this time.
fn write_at_time(path: &Path, at: u64, bytes: &[u8], time: SystemTime) {
    let _ = Command::new("chattr").arg("-i").arg(path).output();
    let facts = fs::metadata(path).expect("the file");
    fs::set_permissions(path, Permissions::from_mode(0o644)).expect("its mode");
    let file = OpenOptions::new().write(true).open(path).expect("the file");
    file.write_all_at(bytes, at).expect("a write");
    file.set_modified(time).expect("its time");
    fs::set_permissions(path, facts.permissions()).expect("its mode");
    file.sync_all().expect("the disk takes it");
}

/// Hosts with these settings, the first of which has published 8 MiB as `golden`.
fn with_golden(hosts: usize, settings: &str, seed: u64) -> (Fleet, TestImage) {
    let fleet = Fleet::with(&FleetOptions { hosts, settings: settings.to_owned() });
    let image = TestImage::make(&fleet.path("disk.raw"), 8 << 20, 8 << 20, seed);
    fleet.publish(&image.path, "golden", &[]);
    (fleet, image)
}

/// Damage is found by whom the test tells to look.
const NO_SCRUB: &str = "scrub_every = \"never\"";

fn problem(host: &Host) -> serde_json::Value {
    host.run(&["list", "--json"]).json()[0]["problem"].clone()
}

/// Every list has the same word for a clone, and one that is not ready is given to no guest, with advice.
#[track_caller]
fn assert_is(host: &Host, clone: &str, word: &str, advice: &str) {
    let list = host.run(&["clone", "list"]);
    assert!(list.stderr.contains(advice), "{list:#?}");
    let list = list.ok();
    assert!(list.lines().any(|line| line.starts_with(&format!("{clone} ")) && line.contains(word)), "{list}");
    let listed = host.run(&["clone", "list", "--json"]).json();
    let listed = listed.as_array().into_iter().flatten().find(|listed| listed["name"] == clone).expect("it is listed");
    let info = host.run(&["clone", "info", clone, "--json"]).json();
    assert_eq!((&listed["state"], &info["state"]), (&word.into(), &word.into()));
    for command in ["xml", "qemu", "xl", "activate"] {
        let given = host.run(&["clone", command, clone]);
        match word {
            "ready" => drop(given.ok()),
            _ => drop(given.refused(&["can't be used", advice])),
        }
    }
}

#[test]
fn a_flipped_bit_is_named_refused_to_clones_and_fetched_again_beside_the_old_file() {
    let seed = seed("a_flipped_bit_is_named_refused_to_clones_and_fetched_again_beside_the_old_file");
    let (fleet, image) = with_golden(2, NO_SCRUB, seed);
    let host = &fleet.hosts[1];
    host.run(&["fetch", "golden"]).ok();
    let master = host.wait_sealed("golden@1", LONG);
    let clone = fleet.path("vm1.qcow2");
    let out = clone.to_str().expect("ASCII");
    host.run(&["clone", "create", "golden", "vm1", "--driver", "qcow2", "--out", out]).ok();
    // What a running machine has open.
    let opened = File::open(&master.path).expect("the master");

    flip(&master.path);

    // qemu's own check sees nothing, and a cheap look can't.
    run(Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&clone)).ok();
    host.run(&["clone", "verify", "vm1"]).ok();
    let found = host.run(&["verify", "golden"]);
    assert_eq!(found.code, Some(1), "{found:#?}");
    assert!(found.stdout.contains(&format!("DAMAGED, chunks {CHUNK}")), "{found:#?}");
    assert!(found.stderr.contains("vm1"), "the clone that reads it is named: {found:#?}");
    assert!(problem(host).as_str().is_some_and(|problem| problem.contains("1 of its chunks")));
    let warning = "golden@1 is spoilt: 1 of its chunks are damaged";
    assert!(host.run(&["status"]).ok().contains(warning));
    let other = fleet.path("vm2.qcow2");
    let create = ["clone", "create", "golden", "vm2", "--driver", "qcow2", "--out", other.to_str().expect("ASCII")];
    let refused = host.run(&create);
    assert_eq!((refused.code, other.exists()), (Some(4), false), "{refused:#?}");
    let full = host.run(&["clone", "verify", "vm1", "--full"]);
    assert_eq!(full.code, Some(1), "{full:#?}");
    assert_is(host, "vm1", "broken", "`drover fetch golden@1`");

    host.run(&["fetch", "golden"]).ok();

    assert_is(host, "vm1", "ready", "");
    assert!(!host.run(&["status"]).ok().contains("spoilt"));
    host.run(&["verify", "golden"]).ok();
    image.assert_same(&master.path);
    let inodes = [opened.metadata(), fs::metadata(&master.path)].map(|facts| facts.expect("a file").ino());
    assert_ne!(inodes[0], inodes[1], "it was mended beside the old file");
    let mut byte = [0; 1];
    opened.read_exact_at(&mut byte, CHUNK * 65536 + 777).expect("the old file");
    let mut good = [0; 1];
    File::open(&image.path).and_then(|file| file.read_exact_at(&mut good, CHUNK * 65536 + 777)).expect("the image");
    assert_ne!(byte, good, "nothing changed under who has it open");
    host.run(&["clone", "verify", "vm1", "--full"]).ok();
    host.run(&create).ok();
}

#[test]
fn publishing_again_writes_a_damaged_master_anew_on_its_only_seed() {
    let seed = seed("publishing_again_writes_a_damaged_master_anew_on_its_only_seed");
    let (fleet, image) = with_golden(2, NO_SCRUB, seed);
    let host = &fleet.hosts[0];
    let master = host.wait_sealed("golden@1", LONG);
    for (clone, driver) in [("vm1", "qcow2"), ("vm2", "copy")] {
        let out = fleet.path(clone);
        let out = out.to_str().expect("ASCII");
        host.run(&["clone", "create", "golden", clone, "--driver", driver, "--out", out]).ok();
    }
    let publish = |more: &[&str]| {
        let mut publish = host.command();
        publish.arg("publish").arg(&image.path).args(["--name", "golden", "--key"]).arg(fleet.publisher_key());
        run(publish.args(more))
    };
    let opened = File::open(&master.path).expect("the master");
    let damaged = {
        flip(&master.path);
        fs::read(&master.path).expect("the master")
    };
    // Before it is known of.
    publish(&[]).ok();
    let found = host.run(&["verify", "golden"]);
    assert_eq!(found.code, Some(1), "{found:#?}");
    assert!(found.stderr.contains("read by vm1, not by vm2"), "{found:#?}");

    publish(&["--in-place"]).refused(&["publish the file without --in-place"]);
    let again = publish(&[]);
    assert!(again.stderr.contains("read by vm1, not by vm2"), "{again:#?}");
    again.ok();

    host.run(&["verify", "golden"]).ok();
    image.assert_same(&master.path);
    assert!(problem(host).is_null());
    let mut still = vec![0; damaged.len()];
    opened.read_exact_at(&mut still, 0).expect("the old file");
    assert!(still == damaged, "nothing changed under who has it open");
    host.run(&["clone", "verify", "vm1", "--full"]).ok();
    fleet.hosts[1].run(&["fetch", "golden"]).ok();
    image.assert_same(&fleet.hosts[1].masters()[0].path);

    // The same of one that may have changed.
    write_into(&master.path, 777, b"!");
    publish(&["--copy"]).ok();
    image.assert_same(&master.path);
    host.run(&["clone", "verify", "vm1", "--full"]).ok();
}

#[test]
fn fetching_brings_back_what_was_removed_or_changed_by_hand() {
    let seed = seed("fetching_brings_back_what_was_removed_or_changed_by_hand");
    let (mut fleet, image) = with_golden(2, NO_SCRUB, seed);
    fleet.hosts[1].run(&["fetch", "golden"]).ok();
    let master = fleet.hosts[1].wait_sealed("golden@1", LONG);
    let fetch = |host: &Host| {
        let path = host.run(&["fetch", "golden"]).ok();
        assert_eq!(Path::new(path.trim()), master.path);
        image.assert_same(&master.path);
        host.run(&["verify", "golden"]).ok();
    };
    let remove = |what: &Path| {
        let _ = Command::new("chattr").arg("-i").arg(&master.path).output();
        if what.is_dir() { fs::remove_dir_all(what) } else { fs::remove_file(what) }.expect("removed");
    };
    let is_listed = |host: &Host| {
        let listed = host.run(&["list", "--json"]).json()[0].clone();
        assert_eq!(listed["state"], "spoilt", "{listed:#}");
        assert!(problem(host).as_str().is_some_and(|problem| problem.contains("not there any more")), "{listed:#}");
    };

    let out = fleet.path("vm.qcow2");
    let create = ["clone", "create", "golden", "vm", "--driver", "qcow2", "--out", out.to_str().expect("ASCII")];
    fleet.hosts[1].run(&create).ok();

    for what in [&*master.path, master.path.parent().expect("its folder")] {
        remove(what);
        is_listed(&fleet.hosts[1]);
        let checked = fleet.hosts[1].run(&["clone", "verify", "vm", "--full"]);
        assert_eq!(checked.code, Some(1), "{checked:#?}");
        assert!(checked.stdout.contains("is gone; `drover fetch golden@1` mends it"), "{checked:#?}");
        fetch(&fleet.hosts[1]);
    }
    // Also of what was removed before the daemon started there is a note.
    remove(&master.path);
    fleet.hosts[1].terminate();
    fleet.hosts[1].start();
    is_listed(&fleet.hosts[1]);
    fetch(&fleet.hosts[1]);
    let host = &fleet.hosts[1];
    write_into(&master.path, 777, b"changed");
    fetch(host);
    // The same content with another time is as good.
    write_into(&master.path, 777, &fs::read(&image.path).expect("the image")[777..784]);
    let inode = fs::metadata(&master.path).expect("the master").ino();
    fetch(host);
    assert_eq!(fs::metadata(&master.path).expect("the master").ino(), inode, "nothing was written");
}

#[test]
fn a_master_that_was_written_to_is_refused_to_clones_until_it_was_read_again() {
    let seed = seed("a_master_that_was_written_to_is_refused_to_clones_until_it_was_read_again");
    let (fleet, _) = with_golden(1, NO_SCRUB, seed);
    let host = &fleet.hosts[0];
    let master = host.wait_sealed("golden@1", LONG);
    let clone = |name: &str, driver: &str| {
        let out = fleet.path(&format!("{name}.img"));
        host.run(&["clone", "create", "golden", name, "--driver", driver, "--out", out.to_str().expect("ASCII")])
    };
    clone("vm1", "qcow2").ok();
    let doubt = || host.run(&["list", "--json"]).json()[0]["doubt"].clone();
    assert!(doubt().is_null());
    let right = fs::read(&master.path).expect("the master")[777];

    write_into(&master.path, 777, &[right ^ 1]);

    assert!(doubt().as_str().is_some_and(|doubt| doubt.contains("written to")));
    assert_is(host, "vm1", "doubted", "`drover verify golden@1`");
    for driver in ["qcow2", "copy"] {
        let refused = clone("vm2", driver);
        assert_eq!(refused.code, Some(4), "{refused:#?}");
        refused.refused(&["may have changed", "`drover verify golden@1`"]);
    }
    let doubted = host.run(&["clone", "verify", "vm1"]);
    assert_eq!(doubted.code, Some(1), "{doubted:#?}");
    assert!(doubted.stdout.contains("it was written to"), "{doubted:#?}");

    // As it was: only reading all of it can tell.
    write_into(&master.path, 777, &[right]);
    clone("vm2", "qcow2").refused(&["may have changed"]);
    let full = host.run(&["clone", "verify", "vm1", "--full"]).ok();
    assert!(full.contains("vm1: sound"), "{full}");
    host.run(&["clone", "verify", "vm1"]).ok();
    clone("vm2", "qcow2").ok();
    assert!(doubt().is_null());
}

#[test]
fn a_full_check_does_not_call_sound_what_it_could_not_look_into() {
    let seed = seed("a_full_check_does_not_call_sound_what_it_could_not_look_into");
    let fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 << 20, 4 << 20, seed);
    fleet.publish(&image.path, "golden", &[]);
    let host = &fleet.hosts[0];
    let out = fleet.path("vm1.img");
    let create = ["clone", "create", "golden", "vm1", "--driver", "qcow2", "--out", out.to_str().expect("ASCII")];
    host.run(&create).ok();
    let verify = |path: &str| run(host.command().args(["clone", "verify", "vm1", "--full"]).env("PATH", path));
    let without = verify("/nowhere");
    assert_eq!(without.code, Some(1), "{without:#?}");
    assert!(without.stdout.contains("could not be looked into: qemu-img was not found"), "{without:#?}");
    assert!(verify(&std::env::var("PATH").expect("a path")).ok().contains("vm1: sound"));
}

#[test]
fn a_parent_that_a_full_check_finds_damaged_gets_no_clones_until_it_is_made_anew() {
    let seed = seed("a_parent_that_a_full_check_finds_damaged_gets_no_clones_until_it_is_made_anew");
    let fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 << 20, 4 << 20, seed);
    fleet.publish(&image.path, "golden", &[]);
    let host = &fleet.hosts[0];
    let clone = |name: &str| {
        let out = fleet.path(&format!("{name}.vhd"));
        host.run(&["clone", "create", "golden", name, "--driver", "vhd", "--out", out.to_str().expect("ASCII")])
    };
    clone("vm1").ok();
    let info = host.run(&["clone", "info", "vm1", "--json"]).json();
    let base = Path::new(info["base"].as_str().expect("it rests on a parent")).to_owned();
    flip(&base);

    host.run(&["clone", "verify", "vm1"]).ok();
    let full = host.run(&["clone", "verify", "vm1", "--full"]);
    assert_eq!(full.code, Some(1), "{full:#?}");
    assert!(full.stdout.contains("does not have the master's content"), "{full:#?}");
    assert_is(host, "vm1", "broken", "`drover verify golden@1`");
    clone("vm2").refused(&["vm1.vhd", "drover verify golden@1", "move it away"]);

    fs::rename(&base, fleet.path("damaged.vhd")).expect("moved away");
    clone("vm2").ok();
    for name in ["vm1", "vm2"] {
        host.run(&["clone", "verify", name, "--full"]).ok();
    }
    host.run(&["clone", "rm", "vm1", "vm2"]).ok();
    assert!(!base.exists());
}

#[test]
fn vhds_of_a_mended_master_are_told_to_be_checked_and_new_ones_get_another_parent() {
    let seed = seed("vhds_of_a_mended_master_are_told_to_be_checked_and_new_ones_get_another_parent");
    let (fleet, _) = with_golden(2, NO_SCRUB, seed);
    let host = &fleet.hosts[1];
    host.run(&["fetch", "golden"]).ok();
    let master = host.wait_sealed("golden@1", LONG);
    let clone = |name: &str| {
        let out = fleet.path(&format!("{name}.vhd"));
        let out = out.to_str().expect("ASCII");
        host.run(&["clone", "create", "golden", name, "--driver", "vhd", "--out", out]).ok();
        host.run(&["clone", "info", name, "--json"]).json()
    };
    let (old, before) = (clone("old"), clone("before"));
    assert_eq!((&old["state"], &old["base"]), (&"ready".into(), &before["base"]));
    flip(&master.path);
    let verified = host.run(&["verify", "golden"]);
    assert!(verified.code == Some(1) && verified.stderr.contains("before, old"), "{verified:#?}");
    host.run(&["fetch", "golden"]).ok();

    for name in ["old", "before"] {
        assert_is(host, name, "doubted", &format!("`drover clone verify {name} --full`"));
    }
    let new = clone("new");
    assert!(new["state"] == "ready" && new["base"] != old["base"], "{new:#}");
    host.run(&["clone", "verify", "new", "--full"]).ok();
    // Only the file of the master was damaged, by a write that a shared block is kept from.
    host.run(&["clone", "verify", "old", "--full"]).ok();
    host.run(&["clone", "verify", "before"]).ok();
    host.run(&["clone", "rm", "old", "before", "new"]).ok();
}

#[test]
fn a_move_that_finds_the_old_master_damaged_has_that_noted_so_that_fetching_mends_it() {
    let seed = seed("a_move_that_finds_the_old_master_damaged_has_that_noted_so_that_fetching_mends_it");
    let (fleet, _) = with_golden(2, NO_SCRUB, seed);
    let host = &fleet.hosts[1];
    host.run(&["fetch", "golden"]).ok();
    let master = host.wait_sealed("golden@1", LONG);
    let out = fleet.path("vm1.qcow2");
    host.run(&["clone", "create", "golden", "vm1", "--driver", "qcow2", "--out", out.to_str().expect("ASCII")]).ok();
    let next = TestImage::make(&fleet.path("next.raw"), 8 << 20, 8 << 20, seed + 1);
    fleet.publish(&next.path, "golden", &[]);
    host.run(&["fetch", "golden@2"]).ok();
    flip(&master.path);
    host.run(&["clone", "verify", "vm1"]).ok();

    let refused = host.run(&["clone", "rebase", "vm1", "golden@2"]);
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    refused.refused(&["is damaged", "`drover fetch golden@1`"]);
    assert_is(host, "vm1", "broken", "`drover fetch golden@1`");
    host.run(&["fetch", "golden@1"]).ok();
    assert_is(host, "vm1", "ready", "");
    host.run(&["clone", "rebase", "vm1", "golden@2"]).ok();

    let unknown = host.run(&["clone", "rebase", "nosuch", "golden"]);
    assert!(unknown.stderr.contains("clone rebase nosuch: there is no clone nosuch"), "{unknown:#?}");
}

#[test]
fn a_copy_or_a_move_that_finds_a_master_damaged_has_that_noted_so_that_no_clone_is_made_of_it() {
    let seed = seed("a_copy_or_a_move_that_finds_a_master_damaged_has_that_noted_so_that_no_clone_is_made_of_it");
    let (fleet, _) = with_golden(1, "scrub_every = \"never\"\nkeep_versions = 2", seed);
    let host = &fleet.hosts[0];
    let second = TestImage::make(&fleet.path("second.raw"), 8 << 20, 8 << 20, !seed);
    let out = |clone: &str| fleet.path(clone).to_str().expect("ASCII").to_owned();
    let create = |master: &str, clone: &str, driver: &str| {
        host.run(&["clone", "create", master, clone, "--driver", driver, "--out", &out(clone)])
    };
    create("golden@1", "moved", "qcow2").ok();
    fleet.publish(&second.path, "golden", &[]);
    let listed = |version: u64| {
        let masters = host.run(&["list", "--json"]).json();
        let is_it = |master: &&serde_json::Value| master["version"] == version;
        masters.as_array().into_iter().flatten().find(is_it).expect("it is listed")["problem"].to_string()
    };

    flip(&host.wait_sealed("golden@2", LONG).path);
    host.run(&["clone", "rebase", "moved", "golden@2"]).refused(&["golden@2 is damaged", "`drover fetch golden@2`"]);
    assert!(listed(2).contains("1 of its chunks"), "{}", listed(2));
    create("golden@2", "another", "qcow2").refused(&["damaged"]);

    flip(&host.wait_sealed("golden@1", LONG).path);
    create("golden@1", "copy", "copy").refused(&["is damaged", "`drover fetch golden@1`"]);
    assert!(listed(1).contains("1 of its chunks"), "{}", listed(1));
    create("golden@1", "another", "qcow2").refused(&["damaged"]);
    assert_is(host, "moved", "broken", "`drover fetch golden@1`");
}

#[test]
fn the_scrub_finds_a_flipped_bit_and_mends_it_by_itself() {
    let seed = seed("the_scrub_finds_a_flipped_bit_and_mends_it_by_itself");
    let (fleet, image) = with_golden(2, "scrub_every = \"1s\"\nscrub_rate = \"64MB\"", seed);
    let host = &fleet.hosts[1];
    host.run(&["fetch", "golden"]).ok();
    let master = host.wait_sealed("golden@1", LONG);
    let out = fleet.path("vm1.qcow2");
    host.run(&["clone", "create", "golden", "vm1", "--driver", "qcow2", "--out", out.to_str().expect("ASCII")]).ok();
    let copy = fleet.path("vm2.img");
    host.run(&["clone", "create", "golden", "vm2", "--driver", "copy", "--out", copy.to_str().expect("ASCII")]).ok();
    let old = fs::metadata(&master.path).expect("the master").ino();

    flip(&master.path);

    let mended = || fs::metadata(&master.path).map_or(old, |facts| facts.ino());
    wait_until("the master to be another file", LONG, mended, |inode| *inode != old);
    wait_until("the master to be served again", LONG, || problem(host), serde_json::Value::is_null);
    image.assert_same(&master.path);
    let log = host.log();
    assert!(log.contains(&format!("({CHUNK} ...)")) && log.contains("read by vm1, not by vm2"), "{log}");
}
