//! How soon an agent that was killed half way serves again.

use std::time::{Duration, Instant};

use drover_harness::{Fleet, FleetOptions, Host, LONG, TestImage, wait_until};
use drover_link::config::LinkConfig;
use drover_link::endpoint::{Connection, Endpoint, Expect};
use drover_link::frame::{expect_frame, write_frame};
use drover_link::identity::Identity;
use drover_protocol::have::WireHave;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::{DataReply, DataRequest, PageRange, PeerMessage, SwarmMessage};

const LEN: u64 = 10 << 30;
const DATA: u64 = 1 << 30;
const RUNS: usize = 7;

/// Kills an agent that holds half of a 10 GiB master with 1 GiB of data, starts it again, and prints the time from the
/// start of the process until a peer that dials without pause has a chunk from it.
#[expect(clippy::print_stdout, reason = "this program prints figures")]
pub(crate) fn measure(seed: u64) {
    let mut fleet = Fleet::with(&FleetOptions { hosts: 1, settings: "upload_limit = \"100MiB\"".to_owned() });
    let image = TestImage::make(&fleet.path("disk.raw"), LEN, DATA, seed);
    let id = fleet.publish(&image.path, "half", &["--in-place"])["image"].as_str().expect("an id").to_owned();
    let mut host = fleet.join_host("");
    host.start();
    host.spawn_fetch("half");
    let held = |host: &Host| host.transfer(&id).and_then(|it| it["held_bytes"].as_u64()).unwrap_or(0);
    wait_until("half of the master to be there", LONG, || held(&host), |&held| held >= DATA / 2);
    // A peer of its own, so that nothing but the restarted agent can have the chunk.
    fleet.hosts[0].kill();
    let asking = fleet.join_asking();
    let peer = Identity::load(&host.state.join("identity")).expect("it has joined").peer_id();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    let identity = Identity::load(&asking.state.join("identity")).expect("it has joined");
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            host.kill();
            let begun = Instant::now();
            host.spawn();
            runtime.block_on(first_chunk(&identity, &host, peer, id.parse().expect("an image id")));
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "half of a 10 GiB master with 1 GiB of data: serves {:.0} ms after its process was started (median of {RUNS}, {:.0} to {:.0})",
        times[RUNS / 2].as_secs_f64() * 1e3,
        times[0].as_secs_f64() * 1e3,
        times[RUNS - 1].as_secs_f64() * 1e3
    );
}

async fn first_chunk(identity: &Identity, host: &Host, peer: PeerId, image: ImageId) {
    loop {
        // A datagram to a port that nobody has bound yet is lost; so each try is short and the next one follows at once.
        let try_once = async {
            let any = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
            let endpoint = Endpoint::bind(any, identity, LinkConfig::default()).expect("a free port");
            let connection = endpoint.connect(host.listen(), Expect::Peer(peer)).await.ok()?;
            ask(connection, image).await
        };
        if let Ok(Some(())) = tokio::time::timeout(Duration::from_millis(60), try_once).await {
            return;
        }
    }
}

/// Joins the swarm, learns what is held, and asks for the first page of it.
async fn ask(connection: Connection, image: ImageId) -> Option<()> {
    let (link, mut sender, mut receiver) = connection.split();
    let message = SwarmMessage::Join { have: WireHave::Runs(Vec::new()) };
    sender.send(&PeerMessage::Swarm { image, message }).await.ok()?;
    let have = loop {
        match receiver.next().await.ok()?? {
            PeerMessage::Swarm { message: SwarmMessage::Have { have } | SwarmMessage::Join { have }, .. } => {
                break have;
            }
            _ => continue,
        }
    };
    let geometry = drover_protocol::geometry::Geometry::of_len(LEN).expect("a length of an image");
    let pieces = have.to_set(&geometry).ok()?;
    for piece in pieces.iter() {
        // Runs of data are a mebibyte long and the first begins with the image, so this chunk is one of them or zeros,
        // which can be asked for like any other.
        let ranges = vec![PageRange { first: 0, count: 16 }];
        let (mut send, mut receive) = link.quic.open_bi().await.ok()?;
        write_frame(&mut send, &DataRequest::Pages { image, piece: piece.number(), ranges }).await.ok()?;
        if let DataReply::Accepted { len } = expect_frame(&mut receive).await.ok()? {
            let bytes = receive.read_to_end(len as usize).await.ok()?;
            return (bytes.len() as u64 == len).then_some(());
        }
    }
    None
}
