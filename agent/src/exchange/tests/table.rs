//! Releases in the cluster's hash table: a host that has nothing else hears of them there.

use std::net::{SocketAddrV4, UdpSocket};

use drover_link::dht::{DhtNode, DhtSettings, save_nodes};
use drover_link::durable;
use drover_protocol::id::ContentHash;
use drover_protocol::lookup::ClusterSecret;
use drover_protocol::release::{RELEASE_FORMAT, Release};
use ed25519_dalek::SigningKey;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::sleep;

use super::*;

const SECRET: ClusterSecret = ClusterSecret::from_bytes([5; 32]);

/// Nodes that are no hosts: they keep what they are given, and tell of nobody.
struct Table {
    nodes: Vec<DhtNode>,
    first: SocketAddrV4,
}

impl Table {
    /// Four nodes, on addresses of their own.
    async fn of(net: u8) -> Self {
        let networks: Networks = "127.0.0.0/8".parse().unwrap();
        let at = |last| SocketAddrV4::new(Ipv4Addr::new(127, 68, net, last), 17_445);
        let start = |last: u8, bootstraps| {
            DhtNode::start(DhtSettings {
                listen: at(last),
                bootstraps,
                networks: networks.clone(),
                pass: SECRET.pass(),
            })
            .unwrap()
        };
        let nodes: Vec<DhtNode> =
            (1..5).map(|last| start(last, if last == 1 { vec![] } else { vec![at(1)] })).collect();
        for node in &nodes {
            node.look_around(&[]).await;
        }
        for node in &nodes {
            let known = async {
                while node.nodes().await.len() < 3 {
                    node.look_around(&[]).await;
                    sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(DEADLINE, known).await.expect("the nodes know each other");
        }
        Table { nodes, first: at(1) }
    }

    /// Waits until what is found is `item`.
    async fn comes_to_have(&self, item: &Item) {
        let has = async {
            while self.nodes[1].get(item.publisher, item.salt).await.as_ref() != Some(item) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(DEADLINE, has).await.expect("the item is in the table");
    }
}

/// A host that begins with the first node of a table and knows nobody else.
fn host_at(cluster: &Cluster, dir: TempDir, table: &Table) -> Host {
    knows(&dir, table.first);
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let settings = ExchangeSettings { listen: vec![(Ipv4Addr::LOCALHOST, 7444).into()], ..in_the_table(Some(free)) };
    cluster.host_in(dir, "host", (Ipv4Addr::LOCALHOST, 0).into(), settings)
}

/// The state folder of a host that knows the cluster's secret and one node.
fn knows(dir: &TempDir, node: SocketAddrV4) {
    durable::replace(&dir.path().join("cluster.secret"), SECRET.as_bytes(), durable::PRIVATE).unwrap();
    save_nodes(&dir.path().join("dht.json"), &Networks::default(), &[node]).unwrap();
}

fn in_the_table(port: Option<u16>) -> ExchangeSettings {
    let dht = Some(DhtChoice { port, networks: "127.0.0.0/8".parse().unwrap() });
    ExchangeSettings { dht, ..ExchangeSettings::default() }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn golden(version: u64, key: &SigningKey) -> (SignedRelease, Item) {
    let release = Release {
        format: RELEASE_FORMAT,
        name: "golden".parse().unwrap(),
        version,
        image: ImageId::from_bytes([7; 32]),
        content_len: 1 << 20,
        content_hash: ContentHash::from_bytes([8; 32]),
        created_unix_s: 1,
        expires_unix_s: u64::MAX,
    };
    let signed = release.sign(key);
    let item = Item::sign(&signed, &SECRET.of_name(&release.name), key).unwrap();
    (signed, item)
}

impl Host {
    fn trusts(&self, key: &SigningKey) {
        let publisher = PublisherKey::from_bytes(key.verifying_key().to_bytes());
        self.exchange.seek_releases(vec![publisher], vec!["golden".parse().unwrap()]);
    }

    fn accept(&self, signed: &SignedRelease) {
        let accepted = self.exchange.0.parts.store.catalog().accept(signed, &[signed.publisher], 2);
        accepted.expect("a release that is trusted");
    }
}

#[tokio::test]
async fn a_release_is_found_in_the_table_alone_and_who_found_it_can_put_it_into_another() {
    let (cluster, table, key) = (Cluster::new(), Table::of(1).await, key(1));
    let (signed, item) = golden(3, &key);
    table.nodes[2].put(&item).await.unwrap();

    let host = host_at(&cluster, TempDir::new().unwrap(), &table);
    let mut releases = host.exchange.releases();
    host.trusts(&key);
    let heard = timeout(DEADLINE, releases.recv()).await.expect("it is found in time");
    assert_eq!(heard, Ok(signed.clone()));
    assert!(host.exchange.hosts().is_empty(), "nobody could have told it");
    host.accept(&signed);
    let kept = host.dir.path().join("items.json");
    let written = async {
        while !kept.exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, written).await.expect("the publisher's signature is kept");
    host.exchange.shutdown().await;
    let Host { exchange, dir, .. } = host;
    drop(exchange);

    // Everybody else of that table is gone, and the publisher's key is in a safe.
    let fresh = Table::of(2).await;
    drop(table);
    let host = host_at(&cluster, dir, &fresh);
    host.trusts(&key);
    fresh.comes_to_have(&item).await;
}

#[tokio::test]
async fn what_is_published_here_is_put_at_once_in_the_place_of_what_was_before() {
    let (cluster, table, key) = (Cluster::new(), Table::of(3).await, key(1));
    let (_, older) = golden(3, &key);
    table.nodes[2].put(&older).await.unwrap();
    let host = host_at(&cluster, TempDir::new().unwrap(), &table);
    host.trusts(&key);
    let (signed, item) = golden(4, &key);
    host.accept(&signed);
    let wrong = host.exchange.keep_in_table(&signed, older.signature).await;
    assert_eq!(wrong, Err(ItemError::Signature));
    host.exchange.keep_in_table(&signed, item.signature).await.unwrap();
    table.comes_to_have(&item).await;
}

#[tokio::test]
async fn what_is_older_or_by_somebody_who_is_not_trusted_is_not_told() {
    let (cluster, table) = (Cluster::new(), Table::of(4).await);
    let (trusted, stranger) = (key(1), key(2));
    let ((known, known_item), (later, later_item)) = (golden(3, &trusted), golden(4, &trusted));
    let ((_, played_back), (_, theirs)) = (golden(2, &trusted), golden(9, &stranger));
    table.nodes[2].put(&played_back).await.unwrap();
    table.nodes[2].put(&theirs).await.unwrap();
    let host = host_at(&cluster, TempDir::new().unwrap(), &table);
    host.accept(&known);
    host.exchange.spread(&known);
    let mut releases = host.exchange.releases();
    host.trusts(&trusted);
    host.exchange.keep_in_table(&known, known_item.signature).await.unwrap();

    // It has seen the older one, for it puts its own only into a table that lacks that.
    table.comes_to_have(&known_item).await;
    assert_eq!(releases.try_recv(), Err(TryRecvError::Empty));
    table.nodes[3].put(&later_item).await.unwrap();
    assert_eq!(timeout(DEADLINE, releases.recv()).await.expect("in time"), Ok(later));
}

#[tokio::test]
async fn two_hosts_that_know_each_other_by_their_nodes_only_meet() {
    let cluster = Cluster::new();
    let ip = |last| Ipv4Addr::new(127, 69, 0, last);
    let host = |name, last, other| {
        let dir = TempDir::new().unwrap();
        knows(&dir, SocketAddrV4::new(ip(other), 17_445));
        let addr = SocketAddr::from((ip(last), 17_444));
        cluster.host_in(dir, name, addr, ExchangeSettings { listen: vec![addr], ..in_the_table(None) })
    };
    let (one, other) = (host("one", 1, 2), host("other", 2, 1));
    let met = async {
        while one.links().standing(other.me).is_none() || other.links().standing(one.me).is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, met).await.expect("they meet");
    let found = [one.links().source(other.me), other.links().source(one.me)];
    // Of two that dial each other at the same time, each may see the other's dial first.
    let by_the_table = |source: &Option<Source>| matches!(source, Some(Source::Dht | Source::DialledHere));
    assert!(found.iter().all(by_the_table), "{found:?}");
}
