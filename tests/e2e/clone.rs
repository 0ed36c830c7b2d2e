//! From a sealed master to clones that have its content and nothing to do with each other.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use drover_harness::{Fleet, LONG, TestImage, random_bytes, run, seed};

#[test]
fn clones_equal_the_master_and_do_not_see_each_other() {
    let seed = seed("clones_equal_the_master_and_do_not_see_each_other");
    let fleet = Fleet::start(2);
    let image = TestImage::make(&fleet.path("disk.raw"), 64 << 20, 16 << 20, seed);
    fleet.publish(&image.path, "golden", &[]);
    fleet.hosts[1].run(&["fetch", "golden"]).ok();
    let host = &fleet.hosts[1];
    let master = host.wait_sealed("golden@1", LONG);

    for (driver, format) in [("qcow2", "qcow2"), ("copy", "raw")] {
        let clones: Vec<_> = ["a", "b"].map(|letter| fleet.path(&format!("{driver}-{letter}.img"))).into();
        for clone in &clones {
            let name = clone.file_stem().expect("a name").to_str().expect("ASCII").to_owned();
            let out = clone.to_str().expect("ASCII");
            host.run(&["clone", "create", "golden", &name, "--out", out, "--driver", driver]).ok();
            assert_identical(&image.path, clone, format);
        }
        write_into(&clones[0], format, &fleet.path("pattern"), seed);
        image.assert_same(&master.path);
        assert_identical(&image.path, &clones[1], format);
        let differs = compare(&image.path, &clones[0], format);
        assert_eq!(differs.code, Some(1), "the write must be in the clone: {differs:#?}");
    }

    let refused = host.run(&["rm", "golden"]).refused(&["qcow2-a", "qcow2-b"]);
    assert!(!refused.contains("copy-a"), "a copy needs no master: {refused}");
    for clone in ["qcow2-a", "qcow2-b", "copy-a"] {
        host.run(&["clone", "rm", clone]).ok();
    }
    host.run(&["rm", "golden"]).ok();
    assert!(!master.path.exists());
    host.run(&["clone", "verify", "copy-b"]).ok();
    assert_identical(&image.path, &fleet.path("copy-b.img"), "raw");
    host.run(&["clone", "rm", "copy-b"]).ok();
}

#[test]
fn auto_takes_the_first_driver_that_works_and_says_why_not_the_others() {
    let seed = seed("auto_takes_the_first_driver_that_works_and_says_why_not_the_others");
    let fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 << 20, 2 << 20, seed);
    fleet.publish(&image.path, "golden", &[]);
    let out = fleet.path("clone.img");
    let made =
        fleet.hosts[0].run(&["clone", "create", "golden", "c1", "--json", "--out", out.to_str().expect("ASCII")]);
    let made = made.json();
    let driver = made["driver"].as_str().expect("the driver is told").to_owned();
    assert!(["reflink", "qcow2", "copy"].contains(&driver.as_str()), "{made:#}");
    assert_identical(&image.path, &out, if driver == "qcow2" { "qcow2" } else { "raw" });
    fleet.hosts[0].run(&["clone", "verify", "c1"]).ok();
}

#[test]
fn a_hundred_clones_come_and_go_with_one_command_each() {
    let seed = seed("a_hundred_clones_come_and_go_with_one_command_each");
    let fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 << 20, 2 << 20, seed);
    fleet.publish(&image.path, "golden", &[]);
    let host = &fleet.hosts[0];
    let out = fleet.path("vm-{}.img");
    let out = out.to_str().expect("ASCII");
    let create = ["clone", "create", "golden", "vm-{}", "--driver", "qcow2", "--out", out, "--count", "100"];
    let made = host.run(&create).ok();
    assert_eq!(made.lines().count(), 100, "{made}");
    assert_identical(&image.path, &fleet.path("vm-100.img"), "qcow2");
    let listed = host.run(&["clone", "list", "--json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(100));
    host.run(&create).refused(&["vm-1", "exists already"]);

    let names: Vec<String> = (1..=100).map(|number| format!("vm-{number}")).collect();
    let arguments: Vec<&str> = ["clone", "rm"].into_iter().chain(names.iter().map(String::as_str)).collect();
    host.run(&arguments).ok();
    assert_eq!(host.run(&["clone", "list", "--json"]).json().as_array().map(Vec::len), Some(0));
    assert!(!fleet.path("vm-1.img").exists());

    let without_number = ["clone", "create", "golden", "vm", "--out", out, "--count", "2"];
    host.run(&without_number).refused(&["must have {} in them"]);
}

#[test]
fn a_clone_moves_to_the_next_version_and_hypervisors_are_told_of_it() {
    let seed = seed("a_clone_moves_to_the_next_version_and_hypervisors_are_told_of_it");
    let fleet = Fleet::start(1);
    let host = &fleet.hosts[0];
    for version in 1..=2 {
        let image = TestImage::make(&fleet.path(&format!("v{version}.raw")), 4 << 20, 2 << 20, seed + version);
        fleet.publish(&image.path, "golden", &[]);
    }
    let out = fleet.path("vm.img");
    let text = out.to_str().expect("ASCII");
    host.run(&["clone", "create", "golden@1", "vm", "--driver", "qcow2", "--out", text]).ok();
    let failing = failing_qemu_img(&fleet.path("programs"));
    let failed = run(host.command().args(["clone", "rebase", "vm", "golden@2"]).env("PATH", failing));
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    assert_eq!(failed.stderr.matches("nope").count(), 1, "{failed:#?}");
    host.run(&["clone", "rebase", "vm", "golden@2"]).ok();
    assert_identical(&fleet.path("v1.raw"), &out, "qcow2");
    host.run(&["clone", "verify", "vm", "--full"]).ok();
    host.run(&["rm", "golden@1"]).ok();
    assert_identical(&fleet.path("v1.raw"), &out, "qcow2");

    let info = host.run(&["clone", "info", "vm", "--json"]).json();
    let master = info["master"]["path"].as_str().expect("a path").to_owned();
    for command in ["xml", "qemu"] {
        let told = host.run(&["clone", command, "vm"]).ok();
        assert!(told.contains(text) && told.contains(&master), "{told}");
    }
    let told = host.run(&["clone", "xl", "vm", "--target", "xvdb"]).ok();
    assert!(told.contains("format=qcow2, vdev=xvdb") && told.contains(text), "{told}");
    let told = host.run(&["clone", "activate", "vm"]).ok();
    assert!(told.contains("it is a file"), "{told}");
    host.run(&["clone", "activate", "--all"]).ok();
    let drivers = host.run(&["clone", "drivers", "--json"]).json();
    assert_eq!(drivers.as_array().map(Vec::len), Some(7), "{drivers:#}");
    let drivers = host.run(&["clone", "drivers", "golden", "--hypervisor", "hyperv"]).ok();
    assert!(drivers.contains("Hyper-V takes VHD alone"), "{drivers}");
}

#[test]
fn a_clone_without_its_file_is_shown_and_told_so_and_a_foreign_file_in_its_place_stays() {
    let seed = seed("a_clone_without_its_file_is_shown_and_told_so_and_a_foreign_file_in_its_place_stays");
    let fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 << 20, 2 << 20, seed);
    fleet.publish(&image.path, "golden", &[]);
    let (host, out) = (&fleet.hosts[0], fleet.path("vm.img"));
    let text = out.to_str().expect("ASCII");
    host.run(&["clone", "create", "golden", "vm", "--driver", "qcow2", "--out", text]).ok();
    let listed = |word: &str| {
        let list = host.run(&["clone", "list"]).ok();
        assert!(list.lines().any(|line| line.starts_with("vm ") && line.contains(word)), "{list}");
        let listed = host.run(&["clone", "list", "--json"]).json()[0].clone();
        assert_eq!(host.run(&["clone", "info", "vm", "--json"]).json(), listed);
        assert_eq!(listed["state"], word);
        listed["lost"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(listed("ready"), "");

    std::fs::remove_file(&out).expect("removed by hand");
    assert!(listed("missing").contains(text));
    for command in ["xml", "qemu", "xl", "activate"] {
        host.run(&["clone", command, "vm"]).refused(&["there is nothing at", text]);
    }
    host.run(&["clone", "rm", "vm"]).refused(&["moved by hand", "clone rm --forget vm"]);
    host.run(&["rm", "golden"]).refused(&["vm"]);

    std::fs::write(&out, "somebody's").expect("written");
    assert!(listed("replaced").contains(text));
    host.run(&["clone", "xml", "vm"]).refused(&["not the disk that was made", "clone adopt"]);
    host.run(&["clone", "rm", "vm"]).refused(&["not the disk that was made", "--forget vm"]);
    host.run(&["clone", "rm", "--forget", "vm"]).ok();
    assert_eq!(std::fs::read_to_string(&out).expect("it stays"), "somebody's");
    assert_eq!(host.run(&["clone", "list", "--json"]).json().as_array().map(Vec::len), Some(0));
}

#[track_caller]
/// A search path with a `qemu-img` that can do all but move a clone.
fn failing_qemu_img(folder: &Path) -> String {
    let (program, path) = (folder.join("qemu-img"), std::env::var("PATH").expect("a path"));
    let script =
        format!("#!/bin/sh\ncase $1 in rebase) echo nope >&2; exit 1;; esac\nPATH={path} exec qemu-img \"$@\"\n");
    std::fs::create_dir(folder).and_then(|()| std::fs::write(&program, script)).expect("a program");
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("its mode");
    format!("{}:{path}", folder.display())
}

fn assert_identical(raw: &Path, clone: &Path, format: &str) {
    compare(raw, clone, format).ok();
}

fn compare(raw: &Path, clone: &Path, format: &str) -> drover_harness::Outcome {
    run(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", format]).arg(raw).arg(clone))
}

/// Writes a pattern into the clone as a guest would.
fn write_into(clone: &Path, format: &str, pattern: &Path, seed: u64) {
    std::fs::write(pattern, random_bytes(!seed, 4096)).expect("a test's folder can be written");
    let write = format!("write -s {} 1M 4k", pattern.display());
    run(Command::new("qemu-io").args(["-f", format, "-c", &write]).arg(clone)).ok();
}
