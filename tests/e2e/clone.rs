//! From a sealed master to clones that have its content and nothing to do with each other.

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

    let refused = host.run(&["rm", "golden"]).refused(&["qcow2-a", "qcow2-b", "copy-a"]);
    assert!(!refused.is_empty());
    for clone in ["qcow2-a", "qcow2-b", "copy-a", "copy-b"] {
        host.run(&["clone", "rm", clone]).ok();
    }
    host.run(&["rm", "golden"]).ok();
    assert!(!master.path.exists());
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

#[track_caller]
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
