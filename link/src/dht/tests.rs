//! Real nodes on addresses of loopback, and machines beside them that lie.

use std::net::UdpSocket;

use drover_protocol::item::ItemSignature;
use futures_util::future::join_all;
use mainline::SigningKey;

use super::*;

const KEY: [u8; KEY_LEN] = [7; KEY_LEN];
const PASS: [u8; PASS_LEN] = *b"let us i";

fn node(last: u8, port: u16, bootstraps: &[SocketAddrV4], networks: &str) -> (DhtNode, SocketAddrV4) {
    let listen = SocketAddrV4::new(Ipv4Addr::new(127, 66, 0, last), port);
    let (bootstraps, networks) = (bootstraps.to_vec(), networks.parse().expect("a network"));
    (DhtNode::start(DhtSettings { listen, bootstraps, networks, pass: PASS }).expect("a free port"), listen)
}

/// Waits until `key` is found at `at`, asked of `node`.
async fn finds(node: &DhtNode, key: [u8; KEY_LEN], wanted: usize) -> BTreeSet<SocketAddr> {
    let found = async {
        loop {
            let found = node.find(key, drop).await;
            if found.len() >= wanted {
                return found;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(30), found).await.expect("found in time")
}

/// Has all of them look around until they know each other, as hosts do when they start.
async fn look_around(nodes: &[DhtNode]) {
    let known = async {
        for node in nodes {
            node.look_around(&[]).await;
        }
        for node in nodes {
            while node.nodes().await.len() + 1 < nodes.len() {
                node.look_around(&[]).await;
                sleep(Duration::from_millis(100)).await;
            }
        }
    };
    timeout(Duration::from_secs(60), known).await.expect("all are known in time");
}

async fn announced(node: &DhtNode, port: u16) {
    let announced = async {
        while node.announce(KEY, port, drop).await.1.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(30), announced).await.expect("announced in time");
}

#[tokio::test]
async fn hosts_find_each_other_by_their_key_and_also_once_the_first_node_is_gone() {
    let (first, at) = node(1, 17_441, &[], "127.0.0.0/8");
    let others: Vec<_> = (2..6).map(|last| node(last, 17_445, &[at], "127.0.0.0/8").0).collect();
    look_around(&others).await;
    announced(&others[0], 7444).await;
    announced(&others[1], 7444).await;
    let expected: BTreeSet<SocketAddr> =
        [2, 3].map(|last| SocketAddr::from(([127, 66, 0, last], 7444))).into_iter().collect();
    assert_eq!(finds(&others[3], KEY, 2).await, expected);
    assert_eq!(others[3].find([8; KEY_LEN], drop).await, BTreeSet::new(), "another key");
    drop(first);
    assert_eq!(finds(&others[2], KEY, 2).await, expected);
    assert!(!others[2].nodes().await.is_empty(), "what is kept over a restart");
}

/// An item with any value, which the protocol would not make.
fn item(key: &SigningKey, seq: u64, value: &[u8]) -> Item {
    let signed = MutableItem::new(key.clone(), value, seq as i64, Some(&KEY));
    let publisher = PublisherKey::from_bytes(*signed.key());
    let signature = ItemSignature::from_bytes(*signed.signature());
    Item { publisher, salt: KEY, seq, value: value.to_vec(), signature }
}

/// Nodes of one table, `count` of them and a first one, that all know each other.
async fn table(last: u8, count: u8) -> Vec<DhtNode> {
    let (first, at) = node(last, 17_441, &[], "127.0.0.0/8");
    let others = (1..=count).map(|more| node(last + more, 17_445, &[at], "127.0.0.0/8").0);
    let all: Vec<DhtNode> = [first].into_iter().chain(others).collect();
    look_around(&all).await;
    all
}

/// Waits until some node has taken an item.
async fn put(node: &DhtNode, item: &Item) {
    let put = async {
        while node.put(item).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(30), put).await.expect("taken in time");
}

#[tokio::test]
async fn an_item_is_found_by_its_publisher_and_salt_and_only_a_later_one_takes_its_place() {
    let nodes = table(21, 4).await;
    let (key, other_key) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let (older, newer) = (item(&key, 3, b"older"), item(&key, 4, b"newer"));
    put(&nodes[0], &older).await;
    assert_eq!(nodes[1].get(older.publisher, KEY).await.as_ref(), Some(&older));
    put(&nodes[1], &newer).await;
    assert_eq!(nodes[2].get(older.publisher, KEY).await.as_ref(), Some(&newer));

    // What was played back changes nothing, and neither does what somebody else signed or nobody did.
    assert!(nodes[3].put(&older).await.is_err());
    let forged = Item { value: b"forged".to_vec(), ..item(&other_key, 5, b"theirs") };
    assert!(nodes[3].put(&forged).await.is_err());
    assert!(nodes[3].put(&Item { publisher: key_of(&key), ..item(&other_key, 5, b"theirs") }).await.is_err());
    put(&nodes[3], &item(&other_key, 5, b"theirs")).await;
    assert_eq!(nodes[2].get(key_of(&key), KEY).await.as_ref(), Some(&newer));
    assert_eq!(nodes[2].get(key_of(&key), [8; KEY_LEN]).await, None, "another salt");
}

#[tokio::test]
async fn an_item_that_is_too_long_is_neither_put_nor_kept_nor_taken() {
    let nodes = table(31, 3).await;
    let key = SigningKey::from_bytes(&[1; 32]);
    let (longest, too_long) = (item(&key, 1, &[b'a'; MAX_VALUE_LEN]), item(&key, 2, &[b'a'; MAX_VALUE_LEN + 1]));
    put(&nodes[0], &longest).await;
    let refused = nodes[0].put(&too_long).await;
    assert!(refused.is_err_and(|why| why.contains("1001 bytes")));
    // A node that does not look keeps no other from looking.
    assert!(nodes[0].put_unchecked(&too_long).await.is_err());
    assert_eq!(nodes[1].get(key_of(&key), KEY).await.as_ref(), Some(&longest));
}

/// A node that answers every question for an item with this one, whatever was asked for.
fn liar(last: u8, lie: &Item) -> SocketAddrV4 {
    let at = SocketAddrV4::new(Ipv4Addr::new(127, 66, 0, last), 17_445);
    let socket = UdpSocket::bind(at).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a wait that is not zero");
    let bytes = |bytes: &[u8]| [format!("{}:", bytes.len()).as_bytes(), bytes].concat();
    let id = [b"2:id".to_vec(), bytes(&[last; 20])].concat();
    let seq = format!("5:nodes0:3:seqi{}e3:sig", lie.seq).into_bytes();
    let (k, sig) = (bytes(lie.publisher.as_bytes()), bytes(lie.signature.as_bytes()));
    let lie = [&id, &b"1:k"[..], &k, &seq, &sig, b"5:token4:abcd1:v", &bytes(&lie.value)].concat();
    let plain = [&id, &b"5:nodes0:"[..]].concat();
    answer(socket, move |question| {
        let number = after(question, b"1:t4:")?.get(..4)?;
        let told = if after(question, b"1:q3:get").is_some() { &lie } else { &plain };
        Some([b"d1:rd", &told[..], b"e1:t4:", number, b"1:y1:re"].concat())
    });
    at
}

#[tokio::test]
async fn a_node_that_lies_makes_nobody_take_what_the_publisher_did_not_sign_or_what_is_older() {
    let (key, other_key) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let honest = item(&key, 4, b"honest");
    let lies = [
        ("signed by another key", item(&other_key, 9, b"lie")),
        ("said to be by the key", Item { publisher: honest.publisher, ..item(&other_key, 9, b"lie") }),
        ("altered", Item { value: b"lie".to_vec(), ..honest.clone() }),
        ("made later", Item { seq: 9, ..honest.clone() }),
        ("an older one", item(&key, 3, b"older")),
        ("too long", item(&key, 9, &[b'a'; MAX_VALUE_LEN + 1])),
    ];
    for (number, (what, lie)) in (0..).zip(&lies) {
        let last = 100 + 10 * number;
        let (_first, at) = node(last, 17_441, &[], "127.0.0.0/8");
        let liar = liar(last + 1, lie);
        let (asking, _) = node(last + 2, 17_445, &[at, liar], "127.0.0.0/8");
        // The liar is heard: nobody has another answer yet.
        let alone = asking.get(honest.publisher, KEY).await;
        assert_eq!(alone.as_ref(), (*what == "an older one").then_some(lie), "{what}");
        put(&asking, &honest).await;
        let (another, _) = node(last + 3, 17_445, &[at, liar], "127.0.0.0/8");
        assert_eq!(another.get(honest.publisher, KEY).await.as_ref(), Some(&honest), "{what}");
    }
}

fn key_of(key: &SigningKey) -> PublisherKey {
    PublisherKey::from_bytes(key.verifying_key().to_bytes())
}

#[tokio::test]
async fn who_asks_from_elsewhere_is_not_answered() {
    let (_first, at) = node(11, 17_441, &[], "10.0.0.0/8");
    let (stranger, _) = node(12, 17_445, &[at], "127.0.0.0/8");
    assert_eq!(stranger.find(KEY, drop).await, BTreeSet::new());
    assert!(stranger.announce(KEY, 7444, drop).await.1.is_err());
    assert_eq!(stranger.nodes().await, []);
}

/// What a node asks for itself, and where it does so from.
fn asking(ip: [u8; 4], pass: [u8; PASS_LEN], to: SocketAddrV4) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::from(ip), 17_445)).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a wait that is not zero");
    socket.send_to(&Question::NearMe([ip[1]; 20]).encode(&asker_with(pass), *b"here"), to).expect("sent");
    socket
}

#[tokio::test]
async fn who_asks_from_elsewhere_or_without_the_pass_comes_into_no_table_and_gets_no_answer() {
    let (first, at) = node(41, 17_441, &[], "127.66.0.0/16");
    let strangers = [
        asking([127, 67, 0, 41], PASS, at),
        asking([127, 65, 255, 41], PASS, at),
        asking([127, 66, 2, 41], *b"let us o", at),
        asking([127, 66, 3, 41], *b"Let us i", at),
    ];
    let member = asking([127, 66, 1, 41], PASS, at);
    let mut answer = [0; 2048];
    // Packets are taken in the order in which they came.
    assert!(member.recv(&mut answer).is_ok(), "who is in the networks is answered");
    assert_eq!(first.table().await, ["127.66.1.41:17445".parse().expect("an address")]);
    for stranger in &strangers {
        stranger.set_nonblocking(true).expect("a socket");
        assert!(stranger.recv(&mut answer).is_err(), "an answer to {stranger:?}");
    }
}

#[tokio::test]
async fn whether_a_node_hears_this_host_can_be_asked_and_leaves_nothing_in_its_table() {
    let (first, at) = node(48, 17_441, &[], "127.66.0.0/16");
    let asked = async |from: [u8; 4], node| answers(from.into(), node, PASS).await.expect("an address of this machine");
    assert!(asked([127, 66, 1, 48], at).await);
    assert!(!asked([127, 67, 0, 48], at).await, "from outside of its networks");
    assert!(!asked([127, 66, 1, 48], SocketAddrV4::new(*at.ip(), 9)).await, "nobody is there");
    assert_eq!(first.table().await, []);
}

#[tokio::test]
async fn whom_the_settings_name_elsewhere_is_heard() {
    let (_first, at) = node(42, 17_441, &[], "127.0.0.0/8");
    let listen = SocketAddrV4::new(Ipv4Addr::new(127, 67, 0, 42), 17_445);
    let networks = "127.67.0.0/16".parse().expect("a network");
    let host = DhtNode::start(DhtSettings { listen, bootstraps: vec![at], networks, pass: PASS }).expect("a free port");
    host.look_around(&[]).await;
    let answered = host.contacts().all(Instant::now());
    assert_eq!(answered.into_iter().map(|(_, node)| node).collect::<Vec<_>>(), [at]);
}

#[tokio::test]
async fn a_tracker_that_comes_back_learns_of_hosts_that_know_it_no_more() {
    let (_, away) = node(43, 17_441, &[], "127.0.0.0/8");
    let (first, known) = node(44, 17_445, &[], "127.0.0.0/8");
    let (second, at) = node(45, 17_445, &[known], "127.0.0.0/8");
    second.look_around(&[]).await;
    sleep(PORT_FREE).await;
    let (tracker, _) = node(43, 17_441, &[], "127.0.0.0/8");
    first.look_around(&[away]).await;
    second.look_around(&[away]).await;
    let learned = async {
        while tracker.nodes().await.len() < 2 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), learned).await.expect("learned in time");
    assert_eq!(tracker.nodes().await.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([known, at]));
}

#[tokio::test]
async fn a_node_that_was_started_anew_counts_once() {
    let (first, at) = node(46, 17_441, &[], "127.0.0.0/8");
    let (second, listen) = node(47, 17_445, &[at], "127.0.0.0/8");
    second.look_around(&[]).await;
    drop(second);
    sleep(PORT_FREE).await;
    let (second, _) = node(47, 17_445, &[at], "127.0.0.0/8");
    second.look_around(&[]).await;
    assert_eq!(first.table().await.len(), 2, "the table has both numbers");
    assert_eq!(first.nodes().await, [listen]);
}

/// Has a thread answer questions, until none came for as long as the socket waits.
fn answer(socket: UdpSocket, reply: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
    std::thread::spawn(move || {
        let mut question = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut question) {
            if let Some(answer) = reply(&question[..len]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
}

/// What comes after this in a question.
fn after<'a>(question: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    let at = question.windows(what.len()).position(|part| part == what)?;
    Some(&question[at + what.len()..])
}

/// A machine that answers each question as the node nearest to what is sought so far, and names this many of its ports as ones
/// that are nearer still, or these `addresses`.
fn tempter(last: u8, ports: u16, addresses: &[SocketAddrV4]) -> SocketAddrV4 {
    let at = |port| SocketAddrV4::new(Ipv4Addr::new(127, 66, 0, last), port);
    for number in 0..ports {
        let socket = UdpSocket::bind(at(17_445 + number)).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a wait that is not zero");
        let next = if number + 1 < ports { vec![at(17_446 + number)] } else { addresses.to_vec() };
        answer(socket, move |question| {
            let sought = after(question, b"9:info_hash20:").or_else(|| after(question, b"6:target20:"))?.get(..20)?;
            let near = |number: u16| {
                let mut id: NodeId = sought.try_into().expect("20 bytes");
                id[18..].copy_from_slice(&(u16::MAX - number).to_be_bytes());
                id
            };
            let named = next
                .iter()
                .flat_map(|node| [&near(number + 1)[..], &node.ip().octets(), &node.port().to_be_bytes()].concat());
            let named: Vec<u8> = named.collect();
            let (nodes, number_of) = (format!("5:nodes{}:", named.len()), after(question, b"1:t4:")?.get(..4)?);
            let (id, token) = (near(number), b"5:token4:abcd");
            Some([b"d1:rd2:id20:", &id[..], nodes.as_bytes(), &named, token, b"e1:t4:", number_of, b"1:y1:re"].concat())
        });
    }
    at(17_445)
}

#[tokio::test]
async fn hosts_find_each_other_beside_one_that_names_ever_nearer_nodes() {
    let (_first, at) = node(60, 17_441, &[], "127.0.0.0/8");
    let tempter = tempter(61, 400, &[]);
    let hosts: Vec<_> = (62..65).map(|last| node(last, 17_445, &[tempter, at], "127.0.0.0/8").0).collect();
    for host in &hosts {
        host.look_around(&[at]).await;
    }
    announced(&hosts[0], 7444).await;
    let expected = BTreeSet::from([SocketAddr::from(([127, 66, 0, 62], 7444))]);
    assert_eq!(hosts[2].find(KEY, drop).await, expected, "in one lookup");
    let known = hosts[1].nodes().await.into_iter().filter(|node| node.ip() == tempter.ip()).count();
    assert!(known <= 8, "{known} of its nodes are known");
}

/// A lookup lasts until all have answered, or not for too long; what is known is of use before.
#[tokio::test]
async fn what_one_node_tells_does_not_wait_for_one_that_never_answers() {
    let (_first, at) = node(66, 17_441, &[], "127.0.0.0/8");
    let (host, _) = node(67, 17_445, &[at], "127.0.0.0/8");
    host.look_around(&[at]).await;
    announced(&host, 7444).await;
    let silent = UdpSocket::bind((Ipv4Addr::new(127, 66, 0, 68), 17_445)).expect("a free port");
    let SocketAddr::V4(silent) = silent.local_addr().expect("it is bound") else { panic!("an IPv4 address") };
    let (seeker, _) = node(69, 17_445, &[silent, at], "127.0.0.0/8");
    let (found, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::select! {
        () = async { drop(seeker.find(KEY, |early| drop(found.send(early))).await) } => panic!("the lookup is over"),
        told = told.recv() => assert_eq!(told, Some(vec![SocketAddr::from(([127, 66, 0, 67], 7444))])),
    }
}

#[tokio::test]
async fn nothing_is_sent_to_where_a_node_that_lies_names_nodes_outside_of_the_networks() {
    let elsewhere = UdpSocket::bind((Ipv4Addr::new(127, 67, 0, 70), 17_445)).expect("a free port");
    elsewhere.set_nonblocking(true).expect("a socket");
    let SocketAddr::V4(named) = elsewhere.local_addr().expect("it is bound") else { panic!("an IPv4 address") };
    let tempter = tempter(71, 1, &[named]);
    let (host, _) = node(72, 17_445, &[tempter], "127.66.0.0/16");
    host.look_around(&[]).await;
    host.announce(KEY, 7444, drop).await.1.expect("the one that lies takes it");
    assert_eq!(host.nodes().await, [tempter], "it was heard");
    assert!(elsewhere.recv(&mut [0; 2048]).is_err(), "and nobody sent a packet there");
}

#[tokio::test]
async fn lookups_at_one_time_ask_silent_nodes_no_more_often_than_one_does() {
    let silent: Vec<UdpSocket> = (1..=20)
        .map(|last| UdpSocket::bind((Ipv4Addr::new(127, 66, 1, last), 17_445)).expect("a free port"))
        .inspect(|socket| socket.set_nonblocking(true).expect("a socket"))
        .collect();
    let named = silent.iter().map(|socket| match socket.local_addr().expect("it is bound") {
        SocketAddr::V4(at) => at,
        SocketAddr::V6(at) => panic!("{at} is no IPv4 address"),
    });
    let liar = tempter(73, 1, &named.collect::<Vec<_>>());
    let (host, _) = node(74, 17_445, &[liar], "127.66.0.0/16");
    let found = join_all([1, 2, 3, 4].map(|number| host.find([number; KEY_LEN], drop))).await;
    assert_eq!(found, [const { BTreeSet::new() }; 4]);
    let received = |socket: &UdpSocket| std::iter::from_fn(|| socket.recv(&mut [0; 2048]).ok()).count();
    assert_eq!(silent.iter().map(received).collect::<Vec<_>>(), [2; 20], "packets: one and one more");
}

#[tokio::test]
async fn lookups_at_one_time_all_hear_a_node_that_none_of_them_knew() {
    let nodes = table(75, 3).await;
    for (number, node) in (0..).zip(&nodes[1..]) {
        node.announce([number; KEY_LEN], 7444, drop).await.1.expect("taken");
    }
    let (seeker, _) = node(79, 17_445, &[SocketAddrV4::new(Ipv4Addr::new(127, 66, 0, 75), 17_441)], "127.0.0.0/8");
    let found = join_all([0, 1, 2].map(|number| seeker.find([number; KEY_LEN], drop))).await;
    let expected = [76, 77, 78].map(|last| BTreeSet::from([SocketAddr::from(([127, 66, 0, last], 7444))]));
    assert_eq!(found, expected);
}

#[test]
fn who_tells_many_hosts_leaves_room_for_what_others_tell() {
    let host = |number| SocketAddr::from(([10, 0, 0, number], 7444));
    let many = (0..200).map(host).collect();
    let found = in_turn(vec![many, BTreeSet::from([host(250)]), BTreeSet::from([host(251), host(252)])], 8);
    let expected = [0, 1, 2, 3, 4, 250, 251, 252].map(host);
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn the_node_of_a_member_is_on_the_port_after_its_own() {
    let beside = |text: &str| beside(text.parse().expect("an address")).map(|addr| addr.to_string());
    assert_eq!(beside("10.0.0.1:7440").as_deref(), Some("10.0.0.1:7441"));
    assert_eq!(beside("[::]:7444").as_deref(), Some("0.0.0.0:7445"));
    assert_eq!((beside("[fd00::1]:7444"), beside("10.0.0.1:65535")), (None, None));
}

#[test]
fn nodes_come_back_with_those_that_are_down_and_a_damaged_file_is_none() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("dht.json");
    let networks: Networks = "10.0.0.0/8".parse().expect("a network");
    let nodes: Vec<_> = (0..100).map(|number| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, number), 7445)).collect();
    assert_eq!(load_nodes(&path, &networks), []);
    save_nodes(&path, &networks, &nodes[..NODES_KEPT - 1]).expect("written");
    save_nodes(&path, &networks, &[nodes[99], nodes[7], nodes[98]]).expect("written");
    let kept = load_nodes(&path, &networks);
    assert_eq!((kept.len(), &kept[..4]), (NODES_KEPT, &[nodes[99], nodes[7], nodes[98], nodes[0]][..]));
    assert_eq!(kept.iter().filter(|&&node| node == nodes[7]).count(), 1);
    assert_eq!(load_nodes(&path, &"10.0.0.98/32".parse().expect("a network")), [nodes[98]], "networks have changed");
    std::fs::write(&path, b"{").expect("written");
    assert_eq!(load_nodes(&path, &networks), []);
}
