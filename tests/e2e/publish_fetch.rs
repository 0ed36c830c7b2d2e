//! One file in, the same bytes on every host, and little more than them on the wire and on the disks.

use drover_harness::{Fleet, LONG, TestImage, seed};

#[test]
fn a_sparse_qcow2_reaches_all_hosts_and_costs_its_data_once() {
    const DATA: u64 = 300 << 20;
    let seed = seed("a_sparse_qcow2_reaches_all_hosts_and_costs_its_data_once");
    let fleet = Fleet::start(6);
    let image = TestImage::make(&fleet.path("disk.raw"), 1 << 30, DATA, seed);
    let qcow2 = image.to_qcow2();

    let published = fleet.publish(&qcow2, "golden", &[]);
    assert_eq!(published["version"], 1, "{published:#}");
    let id = published["image"].as_str().expect("publish tells the image id").to_owned();
    for host in &fleet.hosts[1..] {
        host.spawn_fetch("golden");
    }

    let mut wasted = 0;
    for host in &fleet.hosts[1..] {
        let master = host.wait_sealed("golden@1", LONG);
        image.assert_same(&master.path);
        let used = TestImage::disk_usage(&master.path);
        assert!(used <= DATA + DATA / 50, "{}: {used} bytes on disk for {DATA} of data", host.name);
        let transfer = host.transfer(&id).expect("a sealed master is still exchanged");
        let taken: u64 = peers(&transfer, "taken_bytes");
        assert!((DATA..=DATA + DATA / 50).contains(&taken), "{}: {taken} bytes taken for {DATA}", host.name);
        wasted += transfer["wasted_bytes"].as_u64().expect("a transfer tells what it wasted");
    }
    let source = fleet.hosts[0].transfer(&id).expect("the publisher seeds");
    let given = peers(&source, "given_bytes");
    eprintln!("publisher gave {:.3} of the data, {wasted} bytes came twice", given as f64 / DATA as f64);
    assert!(given <= DATA * 13 / 10, "the publisher gave {given} bytes of {DATA}");
    assert!(wasted <= 5 * DATA / 100, "{wasted} bytes came twice");
}

fn peers(transfer: &serde_json::Value, field: &str) -> u64 {
    let peers = transfer["peers"].as_array().expect("a transfer tells its peers");
    peers.iter().map(|peer| peer[field].as_u64().expect("a number of bytes")).sum()
}

#[test]
fn every_odd_length_arrives_as_it_is() {
    let seed = seed("every_odd_length_arrives_as_it_is");
    let fleet = Fleet::start(2);
    for (number, len) in [1, 511, 65_536, 65_537, (1 << 20) + 12_345].into_iter().enumerate() {
        let image = TestImage::make(&fleet.path(&format!("{len}.raw")), len, len, seed.wrapping_add(len));
        let name = format!("odd-{number}");
        fleet.publish(&image.path, &name, &["--format", "raw"]);
        let path = fleet.hosts[1].run(&["fetch", &name]).ok();
        image.assert_same(std::path::Path::new(path.trim()));
    }
}

#[test]
fn a_master_seeded_in_place_is_withdrawn_when_its_file_changes() {
    use std::os::unix::fs::FileExt;
    let seed = seed("a_master_seeded_in_place_is_withdrawn_when_its_file_changes");
    let mut fleet = Fleet::start(2);
    let image = TestImage::make(&fleet.path("disk.raw"), 8 << 20, 8 << 20, seed);
    fleet.publish(&image.path, "inplace", &["--in-place"]);
    let path = fleet.hosts[1].run(&["fetch", "inplace"]).ok();
    image.assert_same(std::path::Path::new(path.trim()));

    let file = std::fs::File::options().write(true).open(&image.path).expect("the test's own file");
    file.write_all_at(b"changed under the seeder", 3 << 20).expect("there is room");
    // The only other holder leaves, so that the changed file is all there is.
    fleet.hosts[1].terminate();
    fleet.add_host("");
    let late = fleet.hosts.last().expect("just added");
    late.run(&["fetch", "inplace", "--no-wait"]);
    let withdrawn = |list: &String| list.to_lowercase().contains("changed") || list.contains("withdrawn");
    let look = || fleet.hosts[0].run(&["list", "--json"]).ok() + &fleet.hosts[0].status().to_string();
    drover_harness::wait_until("the publisher to withdraw the changed master", LONG, look, withdrawn);
    assert!(late.masters().iter().all(|master| !master.sealed), "a changed master must not be sealed anywhere");
}

#[test]
fn an_image_is_named_by_how_its_id_begins_and_unknown_versions_are_called_so() {
    let seed = seed("an_image_is_named_by_how_its_id_begins_and_unknown_versions_are_called_so");
    let fleet = Fleet::start(1);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 << 20, 2 << 20, seed);
    let published = fleet.publish(&image.path, "golden", &[]);
    let id = published["image"].as_str().expect("publish tells the image id");
    let host = &fleet.hosts[0];
    for command in ["verify", "fetch"] {
        host.run(&[command, &id[..10]]).ok();
    }
    let out = fleet.path("vm.img");
    let create = |master: &str| {
        host.run(&["clone", "create", master, "vm", "--driver", "copy", "--out", out.to_str().expect("ASCII")])
    };
    create("golden@7").refused(&["that version is not known here", "the newest is golden@1"]);
    create("0000000000").refused(&["nothing of that name is known here"]);
    create(&id[..8]).ok();
    let removed = host.run(&["rm", &id[..10]]).ok();
    assert!(removed.contains("golden@1"), "{removed}");
    create("golden@1").refused(&["`drover fetch golden@1` brings it"]);
}
