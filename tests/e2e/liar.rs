//! Members that lie or stall: nothing wrong is kept, the liar is named and shut out, and everybody completes.

use drover_harness::{BadPeer, Claim, Fleet, FleetOptions, LONG, Misbehaviour, TestImage, seed, wait_until};

#[test]
fn a_peer_that_sends_wrong_bytes_is_named_and_shut_out() {
    let seed = seed("a_peer_that_sends_wrong_bytes_is_named_and_shut_out");
    is_named_and_shut_out(Misbehaviour::WrongBytes, seed);
}

#[test]
fn a_peer_that_sends_a_wrong_manifest_is_named_and_shut_out() {
    let seed = seed("a_peer_that_sends_a_wrong_manifest_is_named_and_shut_out");
    is_named_and_shut_out(Misbehaviour::WrongManifest, seed);
}

fn is_named_and_shut_out(misbehaviour: Misbehaviour, seed: u64) {
    let (fleet, image, liar) = fleet_with(misbehaviour, seed);
    for host in &fleet.hosts[1..] {
        host.spawn_fetch("golden");
    }
    for host in &fleet.hosts[1..] {
        image.assert_same(&host.wait_sealed("golden@1", LONG).path);
    }
    let named = |host: &drover_harness::Host| {
        host.status()["transfers"][0]["banned"]
            .as_array()
            .is_some_and(|banned| banned.iter().any(|banned| banned["peer"] == liar.peer.to_string()))
    };
    assert!(liar.asked_bytes() > 0, "nobody asked the liar, so this test shows nothing");
    assert!(fleet.hosts[1..].iter().any(named), "the liar is named");
}

#[test]
fn a_peer_that_stalls_holds_nobody_up() {
    let seed = seed("a_peer_that_stalls_holds_nobody_up");
    let (fleet, image, stalling) = fleet_with(Misbehaviour::Stalls, seed);
    for host in &fleet.hosts[1..] {
        host.spawn_fetch("golden");
    }
    for host in &fleet.hosts[1..] {
        image.assert_same(&host.wait_sealed("golden@1", LONG).path);
    }
    assert!(stalling.asked_bytes() > 0, "nobody asked the stalling peer, so this test shows nothing");
}

#[test]
fn the_publisher_may_die_once_every_chunk_is_somewhere() {
    let seed = seed("the_publisher_may_die_once_every_chunk_is_somewhere");
    let (mut fleet, image, id) = limited_fleet(seed, "16MiB");
    for host in &fleet.hosts[1..] {
        host.spawn_fetch("golden");
    }
    // One host is whole: from then on every chunk exists beside the publisher.
    let data = || fleet.hosts[1..].iter().map(|host| held(host, &id)).max().unwrap_or(0);
    wait_until("one host to hold everything", LONG, data, |&most| most >= image.data_len);
    fleet.hosts[0].kill();
    for host in &fleet.hosts[1..] {
        image.assert_same(&host.wait_sealed("golden@1", LONG).path);
    }
}

#[test]
fn what_nobody_has_is_named_and_fetched_when_the_publisher_comes_back() {
    let seed = seed("what_nobody_has_is_named_and_fetched_when_the_publisher_comes_back");
    let (mut fleet, image, id) = limited_fleet(seed, "8MiB");
    for host in &fleet.hosts[1..] {
        host.spawn_fetch("golden");
    }
    for host in &fleet.hosts[1..] {
        wait_until("the transfer to be under way", LONG, || held(host, &id), |&held| held > 4 << 20);
    }
    fleet.hosts[0].kill();

    // The others exchange what they have, until each holds the same and misses the same.
    let standing = || -> Vec<(u64, Vec<(u64, u64)>)> {
        fleet.hosts[1..].iter().map(|host| (held(host, &id), unavailable(host, &id))).collect()
    };
    let data = image.data_len;
    let settled = |standing: &Vec<(u64, Vec<(u64, u64)>)>| {
        standing.iter().all(|(held, missing)| {
            let missing_bytes: u64 = missing.iter().map(|(begin, end)| end - begin).sum();
            *missing == standing[0].1 && held + missing_bytes == data && missing_bytes > 0
        })
    };
    let standing = wait_until("all hosts to name the same missing parts", LONG, standing, settled);
    eprintln!("nobody has {} ranges", standing[0].1.len());

    fleet.hosts[0].start();
    for host in &fleet.hosts[1..] {
        image.assert_same(&host.wait_sealed("golden@1", LONG).path);
    }
}

/// A publisher whose upload is limited so that others are asked, three hosts, and a bad peer.
fn fleet_with(misbehaviour: Misbehaviour, seed: u64) -> (Fleet, TestImage, BadPeer) {
    let (fleet, image, id) = limited_fleet(seed, "8MiB");
    let bad = fleet.join_host("");
    let claim = Claim { image: id.parse().expect("an image id"), content_len: image.len };
    let tracker = fleet.tracker_addr().parse().expect("an address");
    let bad = BadPeer::start(&bad.state, bad.listen(), tracker, Some(claim), misbehaviour);
    (fleet, image, bad)
}

/// A publisher and three hosts, each handing out no more than `upload` a second; the image is published.
fn limited_fleet(seed: u64, upload: &str) -> (Fleet, TestImage, String) {
    let settings = format!("upload_limit = {upload:?}");
    let fleet = Fleet::with(&FleetOptions { hosts: 4, settings });
    // Whole runs of data chunks, so that data bytes and bytes in chunks are the same number.
    let image = TestImage::make(&fleet.path("disk.raw"), 96 << 20, 64 << 20, seed);
    let id = fleet.publish(&image.path, "golden", &[])["image"].as_str().expect("an id").to_owned();
    (fleet, image, id)
}

fn held(host: &drover_harness::Host, image: &str) -> u64 {
    host.transfer(image).and_then(|transfer| transfer["held_bytes"].as_u64()).unwrap_or(0)
}

fn unavailable(host: &drover_harness::Host, image: &str) -> Vec<(u64, u64)> {
    let transfer = host.transfer(image).expect("the transfer goes on");
    serde_json::from_value(transfer["unavailable"].clone()).expect("ranges of bytes")
}
