//! Multicast between real daemons, each in a network namespace of its own, on one bridge.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use drover_harness::{Fleet, LONG, TestImage, outer, run, seed, tracker_program, wait_until};
use serde_json::Value;

/// Slow enough that a session has begun long before peers could have brought everything.
const SETTINGS: &str = "multicast = \"on\"\nupload_limit = \"20MB\"\nsubscribe = [\"golden\"]";
const LEN: u64 = 64 << 20;

/// A fleet whose first host publishes, and so many others that want what it has.
fn fleet(receivers: usize, settings: &str) -> Fleet {
    let mut fleet = Fleet::wired();
    for _ in 0..=receivers {
        fleet.add_host(settings);
    }
    fleet
}

/// What a host's daemon says of multicast of the one image that it exchanges.
fn multicast(fleet: &Fleet, host: usize) -> Value {
    fleet.hosts[host].status()["transfers"][0]["multicast"].clone()
}

/// Bytes of it that multicast brought.
fn brought(fleet: &Fleet, host: usize) -> u64 {
    multicast(fleet, host)["brought_bytes"].as_u64().unwrap_or(0)
}

fn wait_brought(fleet: &Fleet, host: usize, least: u64) {
    wait_until(
        "multicast to bring something",
        Duration::from_secs(30),
        || brought(fleet, host),
        |&bytes| bytes >= least,
    );
}

fn wait_all(fleet: &Fleet, hosts: impl Iterator<Item = usize>, image: &TestImage) {
    for host in hosts {
        image.assert_same(&fleet.hosts[host].wait_sealed("golden@1", LONG).path);
    }
}

#[test]
fn an_image_goes_to_all_at_once_and_the_swarm_brings_the_rest() {
    const TEST: &str = "multicast::an_image_goes_to_all_at_once_and_the_swarm_brings_the_rest";
    if !outer::runs_inside(TEST) {
        return;
    }
    let fleet = fleet(4, SETTINGS);
    // A tracker that has just started grants no lease for two seconds, in which peers bring up to 40 MB.
    let image = TestImage::make(&fleet.path("disk.raw"), 4 * LEN, 3 * LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..5, &image);
    for host in 1..5 {
        assert!(brought(&fleet, host) >= LEN, "host {host}: {}", multicast(&fleet, host));
    }
    let given = fleet.hosts[0].status()["transfers"][0]["given_bytes"].as_u64().unwrap_or(0);
    assert!(given < LEN, "to peers the source gave {given} bytes");
}

#[test]
fn where_multicast_is_blocked_everything_comes_by_the_swarm() {
    const TEST: &str = "multicast::where_multicast_is_blocked_everything_comes_by_the_swarm";
    if !outer::runs_inside(TEST) {
        return;
    }
    let fleet = fleet(3, SETTINGS);
    fleet.hosts.iter().for_each(|host| host.block_multicast());
    let image = TestImage::make(&fleet.path("disk.raw"), LEN, LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..4, &image);
    for host in 1..4 {
        let status = multicast(&fleet, host);
        assert_eq!(status["brought_bytes"], 0, "host {host}: {status}");
    }
}

#[test]
fn when_the_sender_is_killed_the_others_go_on() {
    const TEST: &str = "multicast::when_the_sender_is_killed_the_others_go_on";
    if !outer::runs_inside(TEST) {
        return;
    }
    let mut fleet = fleet(1, SETTINGS);
    let image = TestImage::make(&fleet.path("disk.raw"), LEN, LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..2, &image);
    // They begin together, or the first would have everything before there are enough of them.
    for _ in 0..4 {
        fleet.add_host(&SETTINGS.replace("subscribe = [\"golden\"]", ""));
    }
    fleet.hosts[2..].iter().for_each(|host| host.spawn_fetch("golden"));
    let senders = || (0..2).find(|&host| multicast(&fleet, host)["role"] == "sending");
    let sender = wait_until("one of the two to send", LONG, senders, Option::is_some).expect("just seen");
    wait_brought(&fleet, 2, 8 << 20);
    fleet.hosts[sender].kill();
    wait_all(&fleet, 2..6, &image);
}

#[test]
fn a_host_that_has_it_off_takes_no_part() {
    const TEST: &str = "multicast::a_host_that_has_it_off_takes_no_part";
    if !outer::runs_inside(TEST) {
        return;
    }
    let mut fleet = fleet(3, SETTINGS);
    fleet.add_host(&SETTINGS.replace("\"on\"", "\"off\""));
    let image = TestImage::make(&fleet.path("disk.raw"), LEN, LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..5, &image);
    let status = multicast(&fleet, 4);
    assert_eq!((status["mode"].as_str(), status["packets"].as_u64()), (Some("off"), Some(0)), "{status}");
}

#[test]
fn a_host_that_is_slow_is_left_out_and_the_others_are_not_slowed() {
    const TEST: &str = "multicast::a_host_that_is_slow_is_left_out_and_the_others_are_not_slowed";
    if !outer::runs_inside(TEST) {
        return;
    }
    let fleet = fleet(5, SETTINGS);
    fleet.hosts[5].slow_down(40);
    let image = TestImage::make(&fleet.path("disk.raw"), 3 * LEN, 3 * LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..5, &image);
    assert!(!fleet.hosts[5].masters().iter().any(|line| line.sealed), "it takes three times as long");
    for host in 1..5 {
        assert!(brought(&fleet, host) >= LEN, "host {host}: {}", multicast(&fleet, host));
    }
    let why_not = multicast(&fleet, 5)["why_not"].to_string();
    assert!(why_not.contains("left this host out") || why_not.contains("lost on the way"), "{why_not}");
    wait_all(&fleet, 5..6, &image);
}

#[test]
fn hosts_that_hear_no_multicast_do_not_keep_the_others_from_it() {
    const TEST: &str = "multicast::hosts_that_hear_no_multicast_do_not_keep_the_others_from_it";
    if !outer::runs_inside(TEST) {
        return;
    }
    let fleet = fleet(4, SETTINGS);
    fleet.hosts[3..].iter().for_each(|host| host.block_multicast());
    let image = TestImage::make(&fleet.path("disk.raw"), 3 * LEN, 3 * LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_all(&fleet, 1..5, &image);
    for host in 1..3 {
        assert!(brought(&fleet, host) >= LEN, "host {host}: {}", multicast(&fleet, host));
    }
    assert_eq!((brought(&fleet, 3), brought(&fleet, 4)), (0, 0));
}

#[test]
fn hosts_that_are_killed_or_stopped_do_not_keep_the_others_and_go_on_later() {
    const TEST: &str = "multicast::hosts_that_are_killed_or_stopped_do_not_keep_the_others_and_go_on_later";
    if !outer::runs_inside(TEST) {
        return;
    }
    let mut fleet = fleet(5, SETTINGS);
    let image = TestImage::make(&fleet.path("disk.raw"), 3 * LEN, 3 * LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_brought(&fleet, 4, 8 << 20);
    fleet.hosts[4].suspend();
    fleet.hosts[5].kill();
    wait_all(&fleet, 1..4, &image);
    for host in 1..4 {
        assert!(brought(&fleet, host) >= LEN, "host {host}: {}", multicast(&fleet, host));
    }
    fleet.hosts[4].resume();
    fleet.hosts[5].start();
    wait_all(&fleet, 4..6, &image);
}

/// The key of a session can't be taken back: the others get another session.
#[test]
fn a_host_that_is_revoked_does_not_hear_the_next_session() {
    const TEST: &str = "multicast::a_host_that_is_revoked_does_not_hear_the_next_session";
    if !outer::runs_inside(TEST) {
        return;
    }
    let fleet = fleet(4, SETTINGS);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 * LEN, 4 * LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_brought(&fleet, 4, 8 << 20);
    let sessions = || fleet.hosts[0].log().matches("sending by multicast").count();
    assert_eq!(sessions(), 1, "the source sends");
    run(tracker_program().args(["revoke", "host4", "--state"]).arg(fleet.tracker_state())).ok();
    let log = || fleet.hosts[0].log();
    wait_until("the session to end", LONG, log, |log| log.contains("has the key of a multicast session, which ends"));
    wait_until("the next to begin", LONG, sessions, |&sessions| sessions == 2);
    let before = brought(&fleet, 4);
    wait_all(&fleet, 1..4, &image);
    assert_eq!(brought(&fleet, 4), before, "the host that is shut out got some of the second session");
    assert!(fleet.hosts[4].masters().iter().all(|master| !master.sealed), "it is whole");
}

#[test]
fn who_comes_late_takes_what_flies_and_asks_peers_for_the_rest() {
    const TEST: &str = "multicast::who_comes_late_takes_what_flies_and_asks_peers_for_the_rest";
    if !outer::runs_inside(TEST) {
        return;
    }
    let mut fleet = fleet(3, SETTINGS);
    let late = fleet.join_host(SETTINGS);
    let image = TestImage::make(&fleet.path("disk.raw"), 4 * LEN, 4 * LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_brought(&fleet, 1, LEN / 2);
    fleet.hosts.push(late);
    fleet.hosts[4].start();
    wait_all(&fleet, 1..5, &image);
    let (by_multicast, all) = (brought(&fleet, 4), image.data_len);
    assert!(
        (1..all - LEN / 4).contains(&by_multicast),
        "{by_multicast} of {all} bytes came to the late host by multicast"
    );
}

#[test]
fn packets_of_a_stranger_in_the_group_change_nothing() {
    const TEST: &str = "multicast::packets_of_a_stranger_in_the_group_change_nothing";
    if !outer::runs_inside(TEST) {
        return;
    }
    let fleet = fleet(3, SETTINGS);
    let image = TestImage::make(&fleet.path("disk.raw"), 3 * LEN, 3 * LEN, seed(TEST));
    fleet.publish(&image.path, "golden", &[]);
    wait_brought(&fleet, 1, 1 << 20);
    let log = fleet.hosts[0].log();
    let said = |name: &str| {
        let at = log.rfind(&format!("{name}=")).expect("the sender says where it sends") + name.len() + 1;
        log[at..].split_whitespace().next().unwrap_or_default().to_owned()
    };
    let group: SocketAddr = said("group").parse().expect("a group and its port");
    let session: u64 = said("session").parse().expect("a session's number");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| shout(group, session, &is_over));
        wait_all(&fleet, 1..4, &image);
        is_over.store(true, Ordering::Relaxed);
    });
    for host in 1..4 {
        let status = multicast(&fleet, host);
        assert_eq!(status["rejected_blocks"], 0, "host {host}: {status}");
        assert!(brought(&fleet, host) >= LEN, "host {host}: {status}");
    }
}

/// Sends packets of the right session, form and length to its group, a tenth of its rate, without its key.
fn shout(group: SocketAddr, session: u64, is_over: &AtomicBool) {
    // The bridge's own address.
    let socket = UdpSocket::bind((Ipv4Addr::new(10, 66, 0, 254), 0)).expect("an address of ours");
    let mut packet = vec![0; 1408];
    packet[0] = 1;
    packet[1..9].copy_from_slice(&session.to_le_bytes());
    (packet[22], packet[23]) = (48, 2);
    for sequence in 1_000_000u64.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        packet[9..17].copy_from_slice(&sequence.to_le_bytes());
        // A full queue costs a stranger's packet.
        let _ = socket.send_to(&packet, group);
        thread::sleep(Duration::from_micros(700));
    }
}
