//! A fleet that outlives its trackers: hosts find each other, and what is released, without any.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use drover_harness::{Fleet, FleetOptions, Host, LONG, TestImage, outer, run, seed, wait_until};
use serde_json::Value;

const HOSTS: usize = 12;

#[test]
fn twelve_hosts_find_each_other_and_a_release_by_the_hash_table_alone() {
    let seed = seed("twelve_hosts_find_each_other_and_a_release_by_the_hash_table_alone");
    let mut fleet = Fleet::start(0);
    for _ in 0..HOSTS {
        fleet.add_host("subscribe = [\"golden\"]");
    }
    // The tracker has introduced nobody, since nobody exchanges anything; nodes of the table know each other.
    for host in &fleet.hosts {
        wait_for_nodes(host, 4);
    }
    fleet.kill_tracker();

    let image = release_and_complete(&fleet, 0, "v1.raw", seed);
    assert_the_table_tied_everybody(&fleet);

    // A host that was away finds the fleet again by what it kept, its master gone.
    let late = fleet.hosts.last_mut().expect("there are twelve");
    late.terminate();
    std::fs::remove_file(late.state.join("hosts.json")).expect("it remembered hosts");
    late.start();
    late.run(&["rm", "golden@1"]).ok();
    late.run(&["fetch", "golden@1", "--no-wait"]).ok();
    image.assert_same(&late.wait_sealed("golden@1", LONG).path);
}

#[test]
fn twelve_hosts_that_restart_find_each_other_by_whom_they_remember() {
    let seed = seed("twelve_hosts_that_restart_find_each_other_by_whom_they_remember");
    let mut fleet = Fleet::start(0);
    for _ in 0..HOSTS {
        fleet.add_host("subscribe = [\"golden\"]");
    }
    let first = TestImage::make(&fleet.path("v1.raw"), 8 << 20, 8 << 20, seed);
    fleet.publish(&first.path, "golden", &[]);
    for host in &fleet.hosts {
        first.assert_same(&host.wait_sealed("golden@1", LONG).path);
        let remembered = || std::fs::read_to_string(host.state.join("hosts.json")).unwrap_or_default();
        wait_until(&format!("{} to remember hosts", host.name), LONG, remembered, |text| text.contains("peer"));
    }
    fleet.kill_tracker();
    fleet.hosts.iter_mut().for_each(Host::terminate);
    // What the hash table would begin with is as dead as the tracker.
    let nobody = SocketAddr::new(fleet.hosts[0].listen().ip(), 9).to_string();
    for host in &fleet.hosts {
        std::fs::write(host.state.join("dht.json"), format!("[{nobody:?}]")).expect("a test's folder can be written");
    }
    fleet.hosts.iter_mut().for_each(Host::start);

    release_and_complete(&fleet, 0, "v2.raw", !seed);
    let found: Vec<String> = fleet.hosts.iter().flat_map(ways).collect();
    assert!(found.iter().any(|by| by == "remembered"), "{found:?}");
    assert!(!found.iter().any(|by| by == "tracker"), "{found:?}");
}

#[test]
fn one_living_member_is_enough_for_twelve_hosts_and_for_a_newcomer() {
    let seed = seed("one_living_member_is_enough_for_twelve_hosts_and_for_a_newcomer");
    let mut fleet = Fleet::start(0);
    let settings = |known: &Host| format!("subscribe = [\"golden\"]\ndht = false\npeers = [\"{}\"]", known.listen());
    let alone = fleet.join_host("subscribe = [\"golden\"]\ndht = false");
    let to_alone = settings(&alone);
    fleet.hosts.push(alone);
    for _ in 1..HOSTS {
        let host = fleet.join_host(&to_alone);
        fleet.hosts.push(host);
    }
    let newcomer = fleet.join_host(&settings(&fleet.hosts[7]));
    // From here on everybody has a certificate, and nobody ever reached a tracker as a member.
    fleet.kill_tracker();
    fleet.hosts.iter_mut().for_each(Host::start);

    let image = release_and_complete(&fleet, 5, "v1.raw", seed);
    let found: Vec<String> = fleet.hosts.iter().flat_map(ways).collect();
    let by_hand_or_word = |by: &String| ["static", "dialled-here", "peer-exchange"].contains(&by.as_str());
    assert!(found.iter().all(by_hand_or_word), "{found:?}");
    assert!(found.iter().any(|by| by == "peer-exchange"), "{found:?}");

    // The one whom all were told of is not needed any more.
    fleet.hosts[0].kill();
    fleet.hosts.push(newcomer);
    let newcomer = fleet.hosts.last_mut().expect("just added");
    newcomer.start();
    image.assert_same(&newcomer.wait_sealed("golden@1", LONG).path);
    let shown = newcomer.run(&["status"]).ok();
    assert!(shown.contains("by the settings"), "a person can see how it was found: {shown}");
}

#[test]
fn hosts_that_join_after_a_tracker_restarted_find_each_other_in_the_hash_table() {
    let mut fleet = Fleet::start(0);
    for _ in 0..4 {
        fleet.add_host("");
    }
    for host in &fleet.hosts {
        wait_for_nodes(host, 4);
    }
    fleet.kill_tracker();
    fleet.start_tracker();
    for _ in 0..2 {
        fleet.add_host("");
    }
    for newcomer in &fleet.hosts[4..] {
        // The tracker, the four, and the other newcomer.
        wait_for_nodes(newcomer, 6);
    }
}

#[test]
fn a_static_peer_that_does_not_answer_is_told_of_once_and_shown() {
    let fleet = Fleet::start(1);
    let lives = fleet.hosts[0].listen();
    let dead = SocketAddr::new(lives.ip(), 9);
    let mut host = fleet.join_host("");
    let own = host.listen();
    host.set_settings(&format!("dht = false\npeers = [\"{dead}\", \"{lives}\", \"{own}\"]"));
    host.start();
    let shown = || host.status()["static_peers"].clone();
    let all = |peers: &serde_json::Value| {
        peers[0]["problem"].is_string() && peers[1]["peer"].is_string() && peers[2]["peer"].is_string()
    };
    let peers = wait_until("all to be tried", LONG, shown, all);
    assert_eq!((&peers[0]["address"], &peers[0]["peer"]), (&dead.to_string().into(), &serde_json::Value::Null));
    let warned = host.log().lines().filter(|line| line.contains("WARN") && line.contains(&dead.to_string())).count();
    assert_eq!(warned, 1, "{}", host.log());
    // Settings that are the same for all hosts name each one itself, too.
    let status = host.status();
    assert_eq!(
        (&status["static_peers"][2]["peer"], &status["static_peers"][2]["problem"]),
        (&status["peer"], &serde_json::Value::Null)
    );
}

#[test]
fn a_host_that_knows_nobody_is_found_by_the_one_whose_settings_name_it() {
    let seed = seed("a_host_that_knows_nobody_is_found_by_the_one_whose_settings_name_it");
    let mut fleet = Fleet::start(0);
    let first = fleet.join_host("subscribe = [\"golden\"]\ndht = false");
    let known = first.listen();
    fleet.hosts.push(first);
    let settings = |more: &str| format!("subscribe = [\"golden\"]\ndht = false\npeers = [\"{known}\"{more}]");
    for _ in 1..6 {
        let host = fleet.join_host(&settings(""));
        fleet.hosts.push(host);
    }
    let mut lonely = fleet.join_host("subscribe = [\"golden\"]\ndht = false");
    fleet.hosts[3].set_settings(&settings(&format!(", \"{}\"", lonely.listen())));
    fleet.kill_tracker();
    fleet.hosts.iter_mut().for_each(Host::start);
    let connected = || fleet.hosts[3].status()["hosts"].as_array().map_or(0, Vec::len);
    wait_until("all the links that a host wants", LONG, connected, |&count| count >= 4);

    lonely.start();
    fleet.hosts.push(lonely);
    release_and_complete(&fleet, 0, "v1.raw", seed);
    // It is not shown as one that does not answer any more, though the host had all the links that it wants.
    assert!(
        fleet.hosts[3].status()["static_peers"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["problem"].is_null()))
    );
}

/// There are fewer places than hosts, and all begin with the same one.
#[test]
fn hosts_that_are_full_make_room_for_newcomers_and_reach_a_tracker_that_comes_back() {
    let seed = seed("hosts_that_are_full_make_room_for_newcomers_and_reach_a_tracker_that_comes_back");
    let mut fleet = Fleet::start(0);
    let settings = "subscribe = [\"golden\"]\ndht = false\nmax_connections = 5";
    let first = fleet.join_host(settings);
    let to_first = format!("{settings}\npeers = [\"{}\"]", first.listen());
    fleet.hosts.push(first);
    for _ in 1..8 {
        let host = fleet.join_host(&to_first);
        fleet.hosts.push(host);
    }
    let newcomer = fleet.join_host(&to_first);
    fleet.kill_tracker();
    fleet.hosts.iter_mut().for_each(Host::start);
    // A place is free for moments, and many want it.
    let (image, release) = release(&fleet, 3, "v1.raw", seed);
    for host in &fleet.hosts {
        image.assert_same(&host.wait_sealed(&release, 3 * LONG).path);
    }

    fleet.hosts.push(newcomer);
    let newcomer = fleet.hosts.last_mut().expect("just added");
    newcomer.start();
    newcomer.wait_sealed(&release, 3 * LONG);
    fleet.start_tracker();
    for host in &fleet.hosts {
        let reached = || host.status()["trackers"][0]["reachable"].as_bool();
        wait_until(&format!("{} to reach the tracker", host.name), LONG, reached, |reached| *reached == Some(true));
    }
}

#[test]
fn networks_that_shut_hosts_out_are_told_of() {
    // The tracker's node hears nobody from the fleet's own network.
    let mut fleet = Fleet::with_tracker(&FleetOptions::default(), "networks = [\"10.0.0.0/8\"]");
    fleet.add_host("");
    let host = fleet.add_host("networks = [\"10.0.0.0/8\"]");
    let own = host.listen().ip().to_string();
    for host in &fleet.hosts {
        let problem = || host.status()["trackers"][0]["node_problem"].as_str().map(str::to_owned);
        let problem = wait_until("the tracker's node to be asked in vain", LONG, problem, Option::is_some);
        assert!(problem.is_some_and(|problem| problem.contains("networks in its tracker.toml")));
        assert!(
            host.log().lines().any(|line| line.contains("WARN") && line.contains("tracker.toml")),
            "{}",
            host.log()
        );
    }
    let warnings = |host: &Host| host.status()["warnings"].clone();
    assert_eq!(warnings(&fleet.hosts[0]), serde_json::json!([]), "its address is a private one");
    let warned = wait_until("the host to look", LONG, || warnings(&fleet.hosts[1]), |warnings| warnings[0].is_string());
    assert!(warned[0].as_str().is_some_and(|text| text.contains(&own) && text.contains("10.0.0.0/8")), "{warned}");
    assert!(fleet.hosts[1].log().contains(&format!("own address {own} is outside")), "{}", fleet.hosts[1].log());
}

/// A host that can transfer goes on, and does not lose its table for longer than until a tracker answers.
#[test]
fn a_damaged_secret_is_told_of_until_a_tracker_tells_it_anew() {
    let mut fleet = Fleet::start(1);
    let file = fleet.hosts[0].state.join("cluster.secret");
    let kept = || std::fs::read(&file).unwrap_or_default();
    let whole = wait_until("the host to be told the secret", LONG, kept, |kept| kept.len() == 32);
    fleet.hosts[0].terminate();
    fleet.kill_tracker();
    std::fs::write(&file, &whole[..31]).expect("a test's folder can be written");
    fleet.hosts[0].start();
    let host = &fleet.hosts[0];
    let problem = || host.status()["dht"]["problem"].as_str().unwrap_or_default().to_owned();
    let damaged = |text: &String| text.contains("cluster.secret is damaged: it has 31 bytes") && text.contains("copy");
    wait_until("the damage to be told of", LONG, problem, damaged);
    assert!(host.log().lines().any(|line| line.contains("WARN") && line.contains("is damaged")), "{}", host.log());
    fleet.start_tracker();
    wait_until("the secret to be told anew", LONG, kept, |kept| *kept == whole);
    wait_until("the node to run", LONG, || fleet.hosts[0].status()["dht"]["listen"].is_string(), |&runs| runs);
}

/// Everything that is for an address outside of the wires' network leaves by the default route, where it is counted.
#[test]
fn nothing_leaves_for_an_address_outside_of_the_fleet() {
    if !outer::runs_inside("discovery::nothing_leaves_for_an_address_outside_of_the_fleet") {
        return;
    }
    let seed = seed("nothing_leaves_for_an_address_outside_of_the_fleet");
    let mut fleet = Fleet::wired();
    fleet.count_what_leaves(4);
    fleet.kill_tracker();
    fleet.start_tracker();
    for _ in 0..3 {
        fleet.add_host("subscribe = [\"golden\"]\nnetworks = [\"10.66.0.0/16\"]");
    }
    let first = TestImage::make(&fleet.path("v1.raw"), 4 << 20, 4 << 20, seed);
    fleet.publish(&first.path, "golden", &[]);
    for host in &fleet.hosts {
        first.assert_same(&host.wait_sealed("golden@1", LONG).path);
        wait_for_nodes(host, 2);
    }
    fleet.kill_tracker();
    release_and_complete(&fleet, 0, "v2.raw", !seed);
    // The table asks its bootstraps when it is empty: a host that is all alone does so all the time.
    fleet.hosts[1].terminate();
    fleet.hosts[2].terminate();
    fleet.hosts[0].terminate();
    fleet.hosts[0].start();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(fleet.left(), [0; 4], "packets that left, of the tracker and each host");

    // The counter counts: the same test with a packet that leaves.
    let mut packet = Command::new("bash");
    run(&mut fleet.hosts[0].within(packet.args(["-c", "echo > /dev/udp/192.0.2.1/7444"])));
    assert!(fleet.left()[1] > 0, "the counter counts nothing");
}

/// Only the nodes of the hash table hear each other, so nobody but the table can tell of the release.
#[test]
fn hosts_that_cannot_reach_each_other_find_a_release_in_the_hash_table() {
    if !outer::runs_inside("discovery::hosts_that_cannot_reach_each_other_find_a_release_in_the_hash_table") {
        return;
    }
    let seed = seed("hosts_that_cannot_reach_each_other_find_a_release_in_the_hash_table");
    let mut fleet = Fleet::wired();
    for _ in 0..3 {
        fleet.add_host("subscribe = [\"golden\"]");
    }
    for host in &fleet.hosts {
        wait_for_nodes(host, 2);
    }
    fleet.kill_tracker();
    fleet.hosts.iter().for_each(Host::cut_off);

    let (image, release) = release(&fleet, 0, "v1.raw", seed);
    for host in &fleet.hosts[1..] {
        let phase = || host.status()["transfers"][0]["phase"].as_str().map(str::to_owned);
        // It knows the image, and nobody is there who could give its manifest.
        wait_until(&format!("{} to find the release", host.name), LONG, phase, |phase| phase.is_some());
        assert_eq!(phase().as_deref(), Some("manifest"));
        assert!(host.log().contains(&format!("release {release} found in the DHT")), "{}", host.log());
    }
    fleet.hosts.iter().for_each(Host::let_in_again);
    for host in &fleet.hosts {
        image.assert_same(&host.wait_sealed(&release, LONG).path);
    }
}

/// Who joins when the trackers are dead is known to the nodes that it asks, and what it announces and puts there is found by
/// whoever asks these.
#[test]
fn a_host_that_came_after_the_trackers_is_found_by_one_that_came_later_still() {
    if !outer::runs_inside("discovery::a_host_that_came_after_the_trackers_is_found_by_one_that_came_later_still") {
        return;
    }
    let seed = seed("a_host_that_came_after_the_trackers_is_found_by_one_that_came_later_still");
    let mut fleet = Fleet::wired();
    for _ in 0..3 {
        fleet.add_host("");
    }
    for host in &fleet.hosts {
        wait_for_nodes(host, 3);
    }
    for known in 0..2 {
        let newcomer = fleet.join_host("");
        newcomer.set_settings(&format!("subscribe = [\"golden\"]\npeers = [\"{}\"]", fleet.hosts[known].listen()));
        std::fs::copy(fleet.hosts[known].state.join("cluster.secret"), newcomer.state.join("cluster.secret"))
            .expect("a tracker told it");
        fleet.hosts.push(newcomer);
    }
    fleet.kill_tracker();
    // But for nodes of the table, only the first newcomer can be heard: no host tells one of another.
    let hears_nobody = [0, 1, 2, 4];
    hears_nobody.iter().for_each(|&host| fleet.hosts[host].cut_off());

    fleet.hosts[3].start();
    wait_for_nodes(&fleet.hosts[3], 3);
    let (image, release) = release(&fleet, 3, "v1.raw", seed);
    fleet.hosts[4].start();
    let late = &fleet.hosts[4];
    let heard = format!("release {release} found in the DHT");
    wait_until("the release to be found", LONG, || late.log(), |log| log.contains(&heard));
    late.let_in_again();
    image.assert_same(&late.wait_sealed(&release, LONG).path);
    let found: Vec<String> = fleet.hosts[3..].iter().flat_map(ways).collect();
    assert!(found.len() == 2 && found.iter().any(|by| by == "dht"), "{found:?}");
    assert!(found.iter().all(|by| ["dht", "dialled-here"].contains(&by.as_str())), "{found:?}");
}

/// Each half has all the links that its hosts want, and nobody but hosts can tell of a release.
#[test]
fn halves_of_a_fleet_that_were_kept_apart_are_one_again() {
    if !outer::runs_inside("discovery::halves_of_a_fleet_that_were_kept_apart_are_one_again") {
        return;
    }
    let seed = seed("halves_of_a_fleet_that_were_kept_apart_are_one_again");
    let mut fleet = Fleet::wired();
    let settings = "subscribe = [\"golden\"]\ndht = false";
    let first = fleet.join_host(settings);
    let to_first = format!("{settings}\npeers = [\"{}\"]", first.listen());
    fleet.hosts.push(first);
    for _ in 1..HOSTS {
        let host = fleet.join_host(&to_first);
        fleet.hosts.push(host);
    }
    fleet.kill_tracker();
    fleet.hosts.iter_mut().for_each(Host::start);
    wait_for_all_to_know_all(&fleet);
    // The settings, too, would bring the halves together.
    fleet.hosts.iter_mut().for_each(Host::terminate);
    fleet.hosts.iter().for_each(|host| host.set_settings(settings));
    fleet.hosts.iter_mut().for_each(Host::start);
    wait_for_all_to_know_all(&fleet);

    let (left, right) = fleet.hosts.split_at(HOSTS / 2);
    let addresses = |of: &[Host]| of.iter().map(|host| host.listen().ip()).collect::<Vec<_>>();
    left.iter().for_each(|host| host.cut_off_from(&addresses(right)));
    right.iter().for_each(|host| host.cut_off_from(&addresses(left)));
    for (half, others) in [(left, right), (right, left)] {
        let others: Vec<Value> = others.iter().map(|host| host.listen().to_string().into()).collect();
        for host in half {
            let connected = || host.status()["hosts"].as_array().expect("it is always there").clone();
            let is_parted =
                |hosts: &Vec<Value>| hosts.len() >= 4 && !hosts.iter().any(|host| others.contains(&host["addr"]));
            wait_until("the halves to be apart", LONG, connected, is_parted);
        }
    }
    let parted = left[0].status();
    fleet.hosts.iter().for_each(Host::let_in_again);
    release_and_complete(&fleet, 0, "v1.raw", seed);
    // Those whom a host had lost could be seen, and how they had been found.
    let away = parted["away"].as_array().expect("it is always there");
    assert!(
        away.len() >= HOSTS / 2 && away.iter().all(|host| host["addrs"][0]["found"]["by"].is_string()),
        "{parted:#}"
    );
}

#[track_caller]
fn wait_for_all_to_know_all(fleet: &Fleet) {
    for host in &fleet.hosts {
        let known = || host.status()["known_hosts"].as_u64();
        wait_until("everybody to be known", LONG, known, |&known| known == Some(HOSTS as u64 - 1));
    }
}

/// Releases a new image from one host, with no tracker to take it, and waits until it is everywhere.
#[track_caller]
fn release_and_complete(fleet: &Fleet, from: usize, file: &str, seed: u64) -> TestImage {
    let (image, release) = release(fleet, from, file, seed);
    for host in &fleet.hosts {
        image.assert_same(&host.wait_sealed(&release, LONG).path);
    }
    image
}

/// Releases a new image from one host, with no tracker to take it.
#[track_caller]
pub(crate) fn release(fleet: &Fleet, from: usize, file: &str, seed: u64) -> (TestImage, String) {
    let image = TestImage::make(&fleet.path(file), 24 << 20, 16 << 20, seed);
    let mut publish = fleet.hosts[from].command();
    publish.arg("publish").arg(&image.path).args(["--name", "golden", "--json", "--key"]).arg(fleet.publisher_key());
    let published = run(&mut publish);
    let line = published.stdout.lines().last().unwrap_or_default();
    let released: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{published:#?}"));
    assert_eq!(released["taken_by"], serde_json::json!([]), "no tracker lives");
    (image, format!("golden@{}", released["version"]))
}

/// Nobody was found but in the hash table, or named by who was found so; and each host has a neighbour that it found there,
/// or that found it there.
#[track_caller]
fn assert_the_table_tied_everybody(fleet: &Fleet) {
    let found: BTreeMap<String, BTreeMap<String, Value>> = fleet.hosts.iter().map(found_by).collect();
    let by = |who: &String, whom: &String| found[who].get(whom).and_then(|found| found["by"].as_str());
    for (host, others) in &found {
        let mut is_tied = false;
        for other in others.keys() {
            is_tied |= by(host, other) == Some("dht") || by(other, host) == Some("dht");
            let is_right = match by(host, other) {
                Some("dht") => true,
                Some("peer-exchange") => others[other]["from"].as_str().is_some_and(|from| found.contains_key(from)),
                // It was found itself; of two that dial each other at once, both may see it so.
                Some("dialled-here") => matches!(by(other, host), Some("dht" | "peer-exchange" | "dialled-here")),
                _ => false,
            };
            assert!(is_right, "{host} found {other} otherwise: {found:#?}");
        }
        assert!(is_tied, "{host} is tied to nobody by the table: {found:#?}");
    }
}

/// A host's id, and how it found whom it was ever connected with.
#[track_caller]
fn found_by(host: &Host) -> (String, BTreeMap<String, Value>) {
    let status = host.status();
    let transfers = status["transfers"].as_array().into_iter().flatten();
    let peers = transfers.flat_map(|transfer| transfer["peers"].as_array().into_iter().flatten());
    let given = peers.clone().filter(|peer| peer["taken_bytes"].as_u64() > Some(0)).count();
    assert!(given > 0 || peers.clone().any(|peer| peer["given_bytes"].as_u64() > Some(0)), "{status:#}");
    let all = peers.chain(status["hosts"].as_array().into_iter().flatten());
    let all = all.filter(|other| other["found"].is_object());
    let id = |of: &Value| of["peer"].as_str().unwrap_or_default().to_owned();
    (id(&status), all.map(|other| (id(other), other["found"].clone())).collect())
}

/// Waits until a host's node of the hash table knows so many others.
#[track_caller]
fn wait_for_nodes(host: &Host, least: u64) {
    let nodes = || host.status()["dht"]["nodes"].as_u64().unwrap_or(0);
    wait_until(&format!("{} to know nodes", host.name), LONG, nodes, |&nodes| nodes >= least);
}

/// How a host found those that it is connected with.
fn ways(host: &Host) -> Vec<String> {
    let status = host.status();
    let hosts = status["hosts"].as_array().into_iter().flatten();
    hosts.map(|other| other["found"]["by"].as_str().unwrap_or("nobody knows how").to_owned()).collect()
}
