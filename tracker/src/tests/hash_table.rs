//! The tracker's node of the hash table: hosts learn of each other by it.

use std::net::SocketAddrV4;

use drover_link::ca::CertificateAuthority;
use drover_link::dht::{DhtNode, DhtSettings, PORT_FREE};
use tokio::time::sleep;

use super::*;
use crate::StartOptions;

fn networks() -> drover_protocol::networks::Networks {
    "127.69.0.0/16".parse().expect("a network")
}

fn at(last: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(127, 69, 0, last), port)
}

/// A host's node, in the cluster of this tracker.
fn host(state: &Path, last: u8, trackers: &[SocketAddrV4]) -> DhtNode {
    let pass = CertificateAuthority::load(&cluster::ca_folder(state)).expect("a cluster").cluster_secret().pass();
    let settings = DhtSettings { listen: at(last, 7445), bootstraps: trackers.to_vec(), networks: networks(), pass };
    DhtNode::start(settings).expect("a free port")
}

/// A tracker on an address of its own.
fn tracker(state: &Path, last: u8) -> Tracker {
    tracker_beside(state, last, &[])
}

/// The same, whose settings name these.
fn tracker_beside(state: &Path, last: u8, others: &[SocketAddrV4]) -> Tracker {
    let options = StartOptions {
        listen: at(last, 7440).into(),
        http: None,
        certificate_life: Duration::from_secs(3600),
        signatures: 1,
        dht: Some(networks()),
        trackers: others.iter().map(ToString::to_string).collect(),
    };
    Tracker::start_with(state, options).expect("a tracker")
}

fn new_state(folder: &TempDir, name: &str) -> PathBuf {
    let state = folder.path().join(name);
    cluster::init(&state, LOOPBACK).expect("a new cluster");
    state
}

/// Waits until a host knows all these nodes, looking around.
async fn comes_to_know(host: &DhtNode, nodes: &[SocketAddrV4]) {
    let known = async {
        loop {
            host.look_around(&[]).await;
            let known = host.nodes().await;
            if nodes.iter().all(|node| known.contains(node)) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, known).await.expect("they are known in time");
}

#[tokio::test]
async fn hosts_that_come_after_a_restart_learn_of_each_other_and_of_those_before() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (state, node) = (new_state(&folder, "tracker"), at(1, 7441));
    let first = tracker(&state, 1);
    let before = host(&state, 11, &[node]);
    before.look_around(&[]).await;
    first.shutdown().await;
    sleep(PORT_FREE).await;

    let again = tracker(&state, 1);
    before.look_around(&[node]).await;
    let (one, other) = (host(&state, 12, &[node]), host(&state, 13, &[node]));
    one.look_around(&[node]).await;
    other.look_around(&[node]).await;
    comes_to_know(&one, &[at(11, 7445), at(13, 7445)]).await;
    comes_to_know(&other, &[at(11, 7445), at(12, 7445)]).await;
    again.shutdown().await;
}

#[tokio::test]
async fn each_of_two_trackers_introduces_all_hosts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (state, another) = (new_state(&folder, "one"), folder.path().join("other"));
    cluster::init_another(&another, LOOPBACK, &state).expect("another tracker of the same cluster");
    let (one, other) = (tracker(&state, 21), tracker(&another, 22));
    let trackers = [at(21, 7441), at(22, 7441)];
    let before = [host(&state, 31, &trackers), host(&state, 32, &trackers)];
    for host in &before {
        host.look_around(&trackers).await;
    }
    comes_to_know(&before[0], &[at(32, 7445)]).await;
    comes_to_know(&before[1], &[at(31, 7445)]).await;
    one.shutdown().await;
    // Who comes now has the other alone to learn from.
    let late = host(&state, 33, &trackers);
    comes_to_know(&late, &[at(31, 7445), at(32, 7445)]).await;
    other.shutdown().await;
}

/// As after each of them joined at a tracker of its own, which it then knows alone.
#[tokio::test]
async fn hosts_that_know_one_tracker_each_learn_of_each_other_if_these_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (state, another) = (new_state(&folder, "one"), folder.path().join("other"));
    cluster::init_another(&another, LOOPBACK, &state).expect("another tracker of the same cluster");
    let all = [at(41, 7440), at(42, 7440)];
    let (one, other) = (tracker_beside(&state, 41, &all), tracker_beside(&another, 42, &all));
    let (here, there) = (host(&state, 51, &[at(41, 7441)]), host(&state, 52, &[at(42, 7441)]));
    here.look_around(&[at(41, 7441)]).await;
    there.look_around(&[at(42, 7441)]).await;
    comes_to_know(&here, &[at(52, 7445)]).await;
    comes_to_know(&there, &[at(51, 7445)]).await;
    one.shutdown().await;
    other.shutdown().await;
}
