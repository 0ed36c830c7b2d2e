//! Two hosts without a tracker, looked at from within: what can't be brought about from outside.

mod table;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use drover_link::ca::CertificateAuthority;
use drover_link::config::LinkConfig;
use drover_link::endpoint::Expect;
use drover_link::identity::{Identity, MemberKey};
use drover_link::member::Role;
use drover_protocol::discovery::DiscoveryMessage;
use drover_protocol::have::WireHave;
use drover_protocol::message::{LeaveReason, PROTOCOL_VERSIONS, PeerAddress, PeerMessage, SwarmMessage};
use drover_protocol::rng::Rng;
use tempfile::TempDir;

use super::*;
use crate::store::import::{ImportSource, import};
use crate::store::{self, refuse_writes_while};
use crate::transport::Event;

const DEADLINE: Duration = Duration::from_secs(60);

struct Cluster {
    ca: CertificateAuthority,
    _dir: TempDir,
}

struct Host {
    exchange: Exchange,
    me: PeerId,
    addr: SocketAddr,
    dir: TempDir,
}

impl Cluster {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Cluster { ca: CertificateAuthority::create(dir.path(), "test").unwrap(), _dir: dir }
    }

    fn identity(&self, name: &str) -> Identity {
        let key = Arc::new(MemberKey::generate());
        let certificate = self.ca.issue(&key.request(), Role::Host, name, 7).unwrap();
        Identity::new(key, certificate, self.ca.certificate().to_vec(), Vec::new(), Vec::new()).unwrap()
    }

    /// A member without an agent, which offers these versions of the protocol.
    fn bare(&self, name: &str, versions: (u16, u16)) -> Endpoint {
        let config = LinkConfig { versions, ..LinkConfig::default() };
        Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &self.identity(name), config).unwrap()
    }

    fn host(&self, name: &str) -> Host {
        self.host_with(name, ExchangeSettings::default())
    }

    fn host_with(&self, name: &str, settings: ExchangeSettings) -> Host {
        self.host_in(TempDir::new().unwrap(), name, (Ipv4Addr::LOCALHOST, 0).into(), settings)
    }

    fn host_in(&self, dir: TempDir, name: &str, bind: SocketAddr, settings: ExchangeSettings) -> Host {
        let identity = self.identity(name);
        let endpoint = Endpoint::bind(bind, &identity, LinkConfig::default()).unwrap();
        let (me, addr) = (identity.peer_id(), endpoint.local_addr().unwrap());
        let store = Store::open_with(dir.path(), store::Settings { immutable: false }).unwrap();
        let settings = ExchangeSettings { disk_threads: 1, ..settings };
        let exchange = Exchange::start(ExchangeParts { store, endpoint, me, trackers: Vec::new(), settings }).unwrap();
        Host { exchange, me, addr, dir }
    }
}

impl Host {
    fn links(&self) -> &Links {
        &self.exchange.0.parts.links
    }

    fn hear_of(&self, other: &Host) {
        self.links().learn(&[PeerAddress { peer: other.me, addrs: vec![other.addr] }], Source::Tracker(0));
    }

    fn publish(&self, content: &[u8]) -> ImageId {
        let path = self.dir.path().join("source.raw");
        fs::write(&path, content).unwrap();
        let imported = import(&self.exchange.0.parts.store, &ImportSource::new(path), &|_| {}).unwrap();
        self.exchange.seed(imported.image);
        imported.image
    }
}

async fn reaches(
    status: &mut watch::Receiver<TransferStatus>,
    what: &str,
    wanted: impl FnMut(&TransferStatus) -> bool,
) -> TransferStatus {
    let reached = timeout(DEADLINE, status.wait_for(wanted)).await.map(|reached| reached.expect("it runs").clone());
    reached.unwrap_or_else(|_| panic!("not reached: {what}; last {:#?}", status.borrow()))
}

#[tokio::test]
async fn a_full_disk_pauses_the_transfer_and_room_lets_it_go_on() {
    let cluster = Cluster::new();
    let (publisher, host) = (cluster.host("publisher"), cluster.host("host"));
    let mut rng = Rng::seeded(11);
    let content: Vec<u8> = (0..1 << 20).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    let image = publisher.publish(&content);

    let full = Arc::new(AtomicBool::new(true));
    let set = full.clone();
    host.exchange.0.parts.disk.run(move || refuse_writes_while(set)).await;
    host.hear_of(&publisher);
    let mut transfer = host.exchange.fetch(image, None);
    let driver = host.exchange.0.parts.router.driver_of(image).unwrap();
    driver.send(Event::Candidates(Source::Tracker(0), vec![publisher.me])).await.unwrap();

    let paused =
        |status: &TransferStatus| matches!(&status.phase, Phase::Paused(why) if why.contains("free some space"));
    let status = reaches(&mut transfer, "it is paused and says why", paused).await;
    assert_eq!(status.held_bytes, 0);
    full.store(false, Ordering::Relaxed);
    let status = reaches(&mut transfer, "it goes on by itself", |status| status.phase == Phase::Complete).await;
    assert_eq!(status.banned, []);
    let path = host.exchange.0.parts.store.master(image).unwrap().path;
    assert!(fs::read(path).unwrap() == content);
}

#[tokio::test]
async fn two_hosts_that_dial_each_other_at_once_agree_on_one_link() {
    let cluster = Cluster::new();
    for round in 0..20 {
        let (one, other) = (cluster.host("one"), cluster.host("other"));
        one.hear_of(&other);
        other.hear_of(&one);
        let (there, back) = tokio::join!(one.links().reach(other.me), other.links().reach(one.me));
        assert!(there.is_some() && back.is_some(), "round {round}");
        // The smaller id's dial wins, whichever was quicker; who notices last closes the other.
        let settled = async {
            loop {
                let ends = (one.links().standing(other.me), other.links().standing(one.me));
                if matches!(&ends, (Some(here), Some(there)) if here.shares_connection_with(there)) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, settled).await.unwrap_or_else(|_| panic!("round {round}: no common link"));
    }
}

#[tokio::test]
async fn a_peer_that_is_banned_can_come_in_no_more() {
    let cluster = Cluster::new();
    let (one, other) = (cluster.host("one"), cluster.host("other"));
    one.hear_of(&other);
    other.hear_of(&one);
    let link = one.links().reach(other.me).await.expect("it can be reached");
    one.links().ban(other.me, "a test".to_owned());
    assert!(link.is_closed());
    assert!(one.links().reach(other.me).await.is_none());
    // Its dial may succeed; it is shown the door at once.
    let shown_the_door = async {
        if let Some(link) = other.links().reach(one.me).await {
            while !link.is_closed() {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(DEADLINE, shown_the_door).await.expect("the connection is closed");
    assert!(one.links().standing(other.me).is_none());
}

#[tokio::test]
async fn a_host_of_an_older_version_is_told_nothing_that_it_does_not_know() {
    let cluster = Cluster::new();
    let host = cluster.host("host");
    let (old, new) = (cluster.bare("old", (1, 1)), cluster.bare("new", PROTOCOL_VERSIONS));
    let connect = async |endpoint: &Endpoint| endpoint.connect(host.addr, Expect::Peer(host.me)).await.unwrap().split();
    let (old_link, mut to_host, mut from_host) = connect(&old).await;
    let (_new_link, _sender, mut heard) = connect(&new).await;
    let image = ImageId::from_bytes([7; 32]);
    host.exchange.fetch(image, None);
    let asked = PeerMessage::Discovery(DiscoveryMessage::AskPeers { image });
    let asks = async { while heard.next().await.unwrap().expect("the link stands") != asked {} };
    timeout(DEADLINE, asks).await.expect("who knows the question is asked");

    // What was said to the old one before its own message is answered has come by then.
    let join = SwarmMessage::Join { have: WireHave::Runs(Vec::new()) };
    to_host.send(&PeerMessage::Swarm { image, message: join }).await.unwrap();
    let answer = timeout(DEADLINE, from_host.next()).await.unwrap().unwrap();
    let message = SwarmMessage::Leave { reason: LeaveReason::NotHere };
    assert_eq!(answer, Some(PeerMessage::Swarm { image, message }), "the first that it is told");
    assert!(old_link.quic.close_reason().is_none());
}

#[tokio::test]
async fn a_host_that_knows_one_address_meets_the_others_and_tells_how() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.host("one"), cluster.host("two"));
    let knows_one = ExchangeSettings { peers: vec![one.addr.to_string()], ..ExchangeSettings::default() };
    let late = cluster.host_with("late", knows_one);
    two.hear_of(&one);
    let met = async {
        while late.links().standing(two.me).is_none() || late.links().standing(one.me).is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, met).await.expect("all are met");
    assert_eq!(late.links().source(one.me), Some(Source::Static));
    let by_word_or_dial = [Some(Source::PeerExchange(one.me)), Some(Source::DialledHere)];
    assert!(by_word_or_dial.contains(&late.links().source(two.me)));
    assert_eq!(late.exchange.hosts().len(), 2);
}
