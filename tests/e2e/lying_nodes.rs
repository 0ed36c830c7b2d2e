//! Members' machines that lie in the cluster's hash table: what packets honest nodes send because of it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use drover_harness::{Fleet, LONG, outer, run, seed, wait_until};
use drover_link::ca::CertificateAuthority;
use drover_protocol::krpc::Question;

use crate::discovery::release;

const HOSTS: usize = 12;
/// Lying nodes, and addresses that each names whatever it is asked. Nobody is there.
const LIARS: u8 = 5;
const NAMED: u8 = 60;
/// Where they name them: in the networks of the hosts' settings, but not on their wires, or elsewhere.
const IN_THE_NETWORKS: [u8; 2] = [10, 66];
const ELSEWHERE: [u8; 2] = [10, 67];
/// How long packets are counted.
const COUNTED: Duration = Duration::from_secs(30);
/// Packets that a host may send to such addresses in a second, on the average.
const MOST_A_SECOND: u64 = 40;

/// A node that names addresses where nobody is, as nodes close to what is sought and as hosts that have it.
struct Liar {
    at: SocketAddr,
    asked_by: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Liar {
    /// On the bridge, beside the fleet; it shows itself to the tracker, which tells hosts of it. What it names is in this /16.
    fn start(number: u8, fleet: &Fleet, names_in: [u8; 2]) -> Self {
        let ip = Ipv4Addr::new(10, 66, 0, 200 + number);
        run(Command::new("ip").args(["address", "add", &format!("{ip}/24"), "dev", "fleet"])).ok();
        let socket = UdpSocket::bind((ip, 7445)).expect("a free port");
        let (at, asked_by) = (socket.local_addr().expect("it is bound"), Arc::default());
        let liar = Liar { at, asked_by: Arc::clone(&asked_by) };
        let tracker: SocketAddr = fleet.tracker_addr().parse().expect("an address");
        let own = [200 + number; 20];
        let pass =
            CertificateAuthority::load(&fleet.tracker_state().join("ca")).expect("a cluster").cluster_secret().pass();
        let mut asker = own;
        asker[..pass.len()].copy_from_slice(&pass);
        let hello = Question::NearMe(own).encode(&asker, *b"hey!");
        socket.send_to(&hello, (tracker.ip(), tracker.port() + 1)).expect("sent");
        std::thread::spawn(move || {
            let mut question = [0; 2048];
            while let Ok((len, from)) = socket.recv_from(&mut question) {
                if let Some(lie) = lie(number, names_in, &own, &question[..len]) {
                    asked_by.lock().expect("nobody panics with it").insert(from);
                    let _ = socket.send_to(&lie, from);
                }
            }
        });
        liar
    }

    fn was_asked_by(&self, host: SocketAddr) -> bool {
        self.asked_by.lock().expect("nobody panics with it").iter().any(|from| from.ip() == host.ip())
    }
}

/// The answer to a question; none to what is no question.
fn lie(number: u8, [a, b]: [u8; 2], own: &[u8; 20], question: &[u8]) -> Option<Vec<u8>> {
    let after = |what: &[u8]| question.windows(what.len()).position(|at| at == what).map(|at| at + what.len());
    let tid = after(b"1:t4:").and_then(|at| question.get(at..at + 4))?;
    after(b"1:y1:q")?;
    let sought = after(b"9:info_hash20:").or(after(b"6:target20:")).and_then(|at| question.get(at..at + 20));
    let named = (1..=NAMED).map(|last| [a, b, 1 + number, last]);
    let node = |(last, ip): (usize, [u8; 4])| {
        let close = [&sought.unwrap_or(own)[..19], &[last as u8]].concat();
        [&close[..], &ip, &7445_u16.to_be_bytes()].concat()
    };
    // Both lists in full do not fit what a node reads.
    let is_for_hosts = after(b"9:get_peers").is_some();
    let nodes: Vec<u8> =
        named.clone().enumerate().take(if is_for_hosts { 30 } else { NAMED.into() }).flat_map(node).collect();
    let nodes = [format!("5:nodes{}:", nodes.len()).into_bytes(), nodes].concat();
    let host = |ip: [u8; 4]| [b"6:", &ip[..], &7444_u16.to_be_bytes()].concat();
    let values: Vec<u8> = named.flat_map(host).collect();
    let values = if is_for_hosts { [b"6:valuesl", &values[..], b"e"].concat() } else { Vec::new() };
    Some([b"d1:rd2:id20:", &own[..], &nodes, b"5:token4:abcd", &values, b"e1:t4:", tid, b"1:y1:re"].concat())
}

/// What is named is outside of the wires' network, so that packets there leave by the default route, where they are counted.
#[test]
fn nodes_that_lie_make_a_host_send_so_many_packets_and_no_more() {
    if !outer::runs_inside("lying_nodes::nodes_that_lie_make_a_host_send_so_many_packets_and_no_more") {
        return;
    }
    let seed = seed("nodes_that_lie_make_a_host_send_so_many_packets_and_no_more");
    let mut fleet = Fleet::wired();
    fleet.count_what_leaves(1 + HOSTS);
    let liars: Vec<Liar> = (0..LIARS).map(|number| Liar::start(number, &fleet, IN_THE_NETWORKS)).collect();
    for _ in 0..HOSTS {
        fleet.add_host("subscribe = [\"golden\"]\nnetworks = [\"10.66.0.0/16\"]");
    }
    for host in &fleet.hosts {
        let asked = || liars.iter().all(|liar| liar.was_asked_by(host.listen()));
        wait_until(&format!("{} to ask all liars", host.name), LONG, asked, |&asked| asked);
    }
    assert!(liars.iter().all(|liar| liar.at.port() == 7445));

    assert!(fleet.left()[1..].iter().all(|&left| left > 0), "the lies cost something: {:?}", fleet.left());
    assert_bounded(&fleet, "with a tracker");
    fleet.kill_tracker();
    assert_bounded(&fleet, "without a tracker");
    let (image, release) = release(&fleet, 0, "v1.raw", seed);
    assert_bounded(&fleet, "while a release spreads");
    for host in &fleet.hosts {
        image.assert_same(&host.wait_sealed(&release, LONG).path);
    }
}

/// Nodes that lie know everybody, and hosts ask all of them.
#[test]
fn what_nodes_that_lie_name_outside_of_the_networks_gets_no_packet() {
    if !outer::runs_inside("lying_nodes::what_nodes_that_lie_name_outside_of_the_networks_gets_no_packet") {
        return;
    }
    let seed = seed("what_nodes_that_lie_name_outside_of_the_networks_gets_no_packet");
    let mut fleet = Fleet::wired();
    fleet.count_what_leaves(1 + 3);
    let liars: Vec<Liar> = (0..2).map(|number| Liar::start(number, &fleet, ELSEWHERE)).collect();
    for _ in 0..3 {
        fleet.add_host("subscribe = [\"golden\"]\nnetworks = [\"10.66.0.0/16\"]");
    }
    for host in &fleet.hosts {
        let asked = || liars.iter().all(|liar| liar.was_asked_by(host.listen()));
        wait_until(&format!("{} to ask all liars", host.name), LONG, asked, |&asked| asked);
    }
    fleet.kill_tracker();
    let (image, release) = release(&fleet, 0, "v1.raw", seed);
    for host in &fleet.hosts {
        image.assert_same(&host.wait_sealed(&release, LONG).path);
    }
    assert_eq!(fleet.left(), [0; 4], "the tracker's and the hosts' packets to addresses elsewhere");
}

/// Counts for a while.
#[track_caller]
fn assert_bounded(fleet: &Fleet, when: &str) {
    let (before, begin) = (fleet.left(), Instant::now());
    std::thread::sleep(COUNTED);
    let (after, seconds) = (fleet.left(), begin.elapsed().as_secs().max(1));
    let sent: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let rates: Vec<u64> = sent[1..].iter().map(|sent| sent / seconds).collect();
    eprintln!("{when}: packets a second that each host sent for lies: {rates:?}; the tracker: {}", sent[0] / seconds);
    assert!(rates.len() == HOSTS && rates.iter().all(|&rate| rate <= MOST_A_SECOND), "{rates:?}");
}
